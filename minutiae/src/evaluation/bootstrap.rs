//! How sure a figure is: fingers drawn with replacement.
//!
//! Comparisons of one finger depend on each other, so it is fingers that are drawn, as many as there
//! are, and not comparisons. A finger that is drawn twice counts its genuine comparisons twice, and
//! its comparisons with each other finger twice; it is never compared with itself as a stranger.

use std::collections::BTreeMap;

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
#[derive(Debug, Clone)]
pub struct Resampling {
    fingers: usize,
    blocks: BTreeMap<(usize, usize), BTreeMap<u16, u64>>,
}

impl Resampling {
    pub(super) fn new(fingers: usize) -> Self {
        Self { fingers, blocks: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, comparison: Comparison) {
        let block = self.blocks.entry((comparison.enrolled, comparison.presented)).or_default();
        *block.entry(comparison.score).or_default() += 1;
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
        for (&(enrolled, presented), scores) in &self.blocks {
            let (histogram, weight) = match enrolled == presented {
                true => (&mut genuine, times[enrolled]),
                false => (&mut impostor, times[enrolled] * times[presented]),
            };
            if weight > 0 {
                scores.iter().for_each(|(&score, count)| histogram.add(score, weight * count));
            }
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
