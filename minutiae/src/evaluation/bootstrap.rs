//! How sure a figure is: fingers drawn with replacement.
//!
//! Comparisons of one finger depend on each other, so it is fingers that are drawn, as many as there
//! are, and not comparisons. A finger that is drawn twice counts its genuine comparisons twice, and
//! its comparisons with each other finger twice; it is never compared with itself as a stranger.

use super::rates::{ErrorRates, Histogram};
use super::scores::Comparison;
use crate::random::Random;

/// How often fingers are drawn.
pub const DRAWS: usize = 1000;
/// Share of the draws that lies inside the interval.
const INSIDE: f64 = 0.9;
/// So that the same set has the same intervals.
const SEED: u64 = 0x0b00_7572_a900_0001;

/// The range that holds 90 % of a figure's values when fingers are drawn anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// 5 % of the draws lie below it.
    pub low: f64,
    /// 5 % of the draws lie above it.
    pub high: f64,
}

/// Comparisons by enrolled and presented finger.
///
/// A large set has more of them than fit into memory comfortably, most with one of a few low scores:
/// a block keeps its scores in order, and of equal ones how many they are.
#[derive(Debug, Clone)]
pub struct Resampling {
    fingers: usize,
    blocks: Vec<Block>,
    runs: Vec<Run>,
    /// Scores of the last block, until it is closed.
    open: Vec<u16>,
}

/// Comparisons of two fingers.
#[derive(Debug, Clone, Copy)]
struct Block {
    enrolled: usize,
    presented: usize,
    /// Where its runs end; they begin where those of the block before end.
    end: usize,
}

/// Equal scores: how many but for one in the lower bits, the score above.
#[derive(Debug, Clone, Copy)]
struct Run(u16);

impl Run {
    /// A score is at most 1000 and takes ten bits.
    const COUNT_BITS: u16 = 6;
    /// More equal scores take another run.
    const LONGEST: usize = 1 << Self::COUNT_BITS;

    fn of(equal: &[u16]) -> Self {
        Self(equal[0] << Self::COUNT_BITS | (equal.len() - 1) as u16)
    }

    fn score(self) -> u16 {
        self.0 >> Self::COUNT_BITS
    }

    fn count(self) -> u64 {
        u64::from(self.0 % (1 << Self::COUNT_BITS)) + 1
    }
}

impl Resampling {
    pub(super) fn new(fingers: usize) -> Self {
        Self { fingers, blocks: Vec::new(), runs: Vec::new(), open: Vec::new() }
    }

    /// Those of the same two fingers follow each other; after the last one it is to be closed.
    pub(super) fn add(&mut self, Comparison { enrolled, presented, score, .. }: Comparison) {
        let same = |block: &Block| (block.enrolled, block.presented) == (enrolled, presented);
        if !self.blocks.last().is_some_and(same) {
            self.close();
            self.blocks.push(Block { enrolled, presented, end: 0 });
        }
        self.open.push(score);
    }

    pub(super) fn close(&mut self) {
        self.open.sort_unstable();
        let equal = self.open.chunk_by(|a, b| a == b);
        self.runs.extend(equal.flat_map(|equal| equal.chunks(Run::LONGEST)).map(Run::of));
        self.open.clear();
        if let Some(block) = self.blocks.last_mut() {
            block.end = self.runs.len();
        }
    }

    /// The error rates of each draw of fingers. Draws without a genuine or an impostor comparison
    /// are left out.
    pub fn draws(&self) -> Vec<ErrorRates> {
        let mut random = Random::new(SEED, 0);
        (0..DRAWS).filter_map(|_| self.rates(&self.draw(&mut random))).collect()
    }

    /// How often each finger is drawn.
    fn draw(&self, random: &mut Random) -> Vec<u64> {
        let mut times = vec![0; self.fingers];
        for _ in 0..self.fingers {
            times[(random.next_u64() % self.fingers as u64) as usize] += 1;
        }
        times
    }

    /// Error rates where each finger takes part so many times.
    pub(super) fn rates(&self, times: &[u64]) -> Option<ErrorRates> {
        let (mut genuine, mut impostor) = (Histogram::default(), Histogram::default());
        let mut start = 0;
        for &Block { enrolled, presented, end } in &self.blocks {
            let (histogram, weight) = match enrolled == presented {
                true => (&mut genuine, times[enrolled]),
                false => (&mut impostor, times[enrolled] * times[presented]),
            };
            if weight > 0 {
                let runs = self.runs[start..end].iter();
                runs.for_each(|run| histogram.add(run.score(), weight * run.count()));
            }
            start = end;
        }
        ErrorRates::new(&genuine, &impostor)
    }
}

impl Interval {
    /// The interval of a figure over [`Resampling::draws`]; `None` without draws.
    pub fn of(draws: &[ErrorRates], figure: impl Fn(&ErrorRates) -> f64) -> Option<Self> {
        let mut values: Vec<f64> = draws.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let cut = (last as f64 * (1.0 - INSIDE) / 2.0).round() as usize;
        Some(Self { low: values[cut], high: values[last - cut] })
    }
}
