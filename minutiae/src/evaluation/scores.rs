//! The scores of a set, and the comparisons that a protocol makes of them.

use super::EvaluationError;
use super::bootstrap::Resampling;
use super::protocol::{Enrolled, Impostors, Print, Protocol, prints};
use super::rates::{ErrorRates, Histogram};

/// Stands where the protocol takes no score.
const NOT_COMPARED: u16 = u16::MAX;

/// Scores of a set's impressions with each other.
#[derive(Debug, Clone)]
pub struct Scores {
    protocol: Protocol,
    /// How many of each finger.
    impressions: Vec<usize>,
    prints: Vec<Print>,
    /// Where each finger's impressions begin in `prints`.
    starts: Vec<usize>,
    /// A row for each print, with its scores with the earlier ones.
    triangle: Vec<u16>,
}

/// What a protocol compares: who is enrolled, who is presented, how alike they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    pub(super) enrolled: usize,
    pub(super) presented: usize,
    pub(super) score: u16,
}

impl Scores {
    /// Takes the scores, 0 to 1000, of [`Protocol::pairs`] in that order, of a set with so many
    /// impressions of each finger.
    ///
    /// # Errors
    /// The set has no genuine or no impostor comparison, or the scores are more or fewer than its
    /// pairs.
    pub fn new(
        impressions: &[usize],
        protocol: Protocol,
        scores: &[u16],
    ) -> Result<Self, EvaluationError> {
        protocol.check(impressions)?;
        let pairs = protocol.pairs(impressions);
        if pairs.len() != scores.len() {
            let (given, needed) = (scores.len(), pairs.len());
            return Err(EvaluationError::ScoreCount { given, needed });
        }
        let starts = (0..impressions.len()).map(|f| impressions[..f].iter().sum()).collect();
        let (prints, impressions) = (prints(impressions), impressions.to_vec());
        let triangle = vec![NOT_COMPARED; prints.len() * (prints.len() - 1) / 2];
        let mut new = Self { protocol, impressions, prints, starts, triangle };
        for ((a, b), &score) in pairs.into_iter().zip(scores) {
            let place = new.place(a, b);
            new.triangle[place] = score.min(1000);
        }
        Ok(new)
    }

    /// Takes the score of each of [`Protocol::pairs`] from a function.
    ///
    /// # Errors
    /// The set has no genuine or no impostor comparison.
    pub fn of(
        impressions: &[usize],
        protocol: Protocol,
        mut score: impl FnMut(Print, Print) -> u16,
    ) -> Result<Self, EvaluationError> {
        let pairs = protocol.pairs(impressions);
        let scores: Vec<u16> = pairs.into_iter().map(|(a, b)| score(a, b)).collect();
        Self::new(impressions, protocol, &scores)
    }

    /// The same scores under another protocol.
    ///
    /// # Errors
    /// The set has no genuine comparison under it, or it takes scores that this one didn't.
    pub fn under(&self, protocol: Protocol) -> Result<Self, EvaluationError> {
        let pairs = protocol.pairs(&self.impressions).into_iter();
        let scores = pairs.map(|(a, b)| self.triangle[self.place(a, b)]);
        let scores: Vec<u16> = scores.filter(|&score| score != NOT_COMPARED).collect();
        Self::new(&self.impressions, protocol, &scores)
    }

    /// Error rates of all comparisons.
    pub fn rates(&self) -> ErrorRates {
        let none = "a set has comparisons of both kinds: it was checked when it was made";
        self.rates_of(|_| true).unwrap_or_else(|| unreachable!("{none}"))
    }

    /// Error rates of the comparisons among the impressions that are kept; `None` where no genuine
    /// or no impostor comparison is left.
    pub fn rates_of(&self, kept: impl Fn(Print) -> bool) -> Option<ErrorRates> {
        let (mut genuine, mut impostor) = (Histogram::default(), Histogram::default());
        self.each(kept, |comparison| {
            let same = comparison.enrolled == comparison.presented;
            let histogram = if same { &mut genuine } else { &mut impostor };
            histogram.add(comparison.score, 1);
        });
        ErrorRates::new(&genuine, &impostor)
    }

    /// Error rates without the share, 0 to 1, of impressions whose quality is worst.
    pub fn rates_without_worst(
        &self,
        share: f64,
        quality: impl Fn(Print) -> u8,
    ) -> Option<ErrorRates> {
        let mut order = self.prints.clone();
        order.sort_by_key(|&print| quality(print));
        let count = (order.len() as f64 * share).round() as usize;
        let mut left_out = order[..count.min(order.len())].to_vec();
        left_out.sort_unstable();
        self.rates_of(|print| left_out.binary_search(&print).is_err())
    }

    /// The comparisons by finger, to draw fingers from.
    pub fn resampling(&self) -> Resampling {
        let mut resampling = Resampling::new(self.impressions.len());
        self.each(|_| true, |comparison| resampling.add(comparison));
        resampling
    }

    /// The pairs of impressions of one finger with the lowest scores.
    pub fn weakest_genuine(&self, count: usize) -> Vec<(u16, Print, Print)> {
        let mut pairs = self.scored(|a, b| a.finger == b.finger);
        pairs.sort_unstable();
        pairs.truncate(count);
        pairs
    }

    /// The pairs of impressions of two fingers with the highest scores.
    pub fn strongest_impostors(&self, count: usize) -> Vec<(u16, Print, Print)> {
        let mut pairs = self.scored(|a, b| a.finger != b.finger);
        pairs.sort_unstable_by_key(|&(score, a, b)| (std::cmp::Reverse(score), a, b));
        pairs.truncate(count);
        pairs
    }

    fn scored(&self, wanted: impl Fn(Print, Print) -> bool) -> Vec<(u16, Print, Print)> {
        let pairs = self.protocol.pairs(&self.impressions).into_iter();
        pairs.filter(|&(a, b)| wanted(a, b)).map(|(a, b)| (self.score(a, b), a, b)).collect()
    }

    /// All comparisons of the protocol among the impressions that are kept.
    fn each(&self, kept: impl Fn(Print) -> bool, mut take: impl FnMut(Comparison)) {
        let kept: Vec<Vec<Print>> = (0..self.impressions.len())
            .map(|finger| self.of_finger(finger).filter(|&print| kept(print)).collect())
            .collect();
        match self.protocol.enrolled {
            Enrolled::One => self.each_pair(&kept, &mut take),
            Enrolled::Three => self.each_three(&kept, &mut take),
        }
    }

    fn each_pair(&self, kept: &[Vec<Print>], take: &mut impl FnMut(Comparison)) {
        for (finger, own) in kept.iter().enumerate() {
            for (index, &a) in own.iter().enumerate() {
                for &b in &own[index + 1..] {
                    let score = self.score(a, b);
                    take(Comparison { enrolled: finger, presented: finger, score });
                }
                let others = kept[finger + 1..].iter().flatten();
                for &b in others.filter(|b| self.are_impostors(a, **b)) {
                    let (enrolled, presented) = (finger, b.finger);
                    take(Comparison { enrolled, presented, score: self.score(a, b) });
                }
            }
        }
    }

    fn are_impostors(&self, a: Print, b: Print) -> bool {
        match self.protocol.impostors {
            Impostors::All => true,
            Impostors::First => a.impression == 0 && b.impression == 0,
        }
    }

    /// Every three of a finger against each of its others, and against strangers.
    fn each_three(&self, kept: &[Vec<Print>], take: &mut impl FnMut(Comparison)) {
        for (finger, own) in kept.iter().enumerate() {
            for three in choices_of_three(own) {
                let best = |print: Print| {
                    three.iter().map(|&enrolled| self.score(enrolled, print)).max().unwrap_or(0)
                };
                for &print in own.iter().filter(|print| !three.contains(print)) {
                    take(Comparison { enrolled: finger, presented: finger, score: best(print) });
                }
                if !self.meets_strangers(&three) {
                    continue;
                }
                let others = kept.iter().enumerate().filter(|(other, _)| *other != finger);
                for &print in others.flat_map(|(_, prints)| prints) {
                    if self.presents(print) {
                        let presented = print.finger;
                        take(Comparison { enrolled: finger, presented, score: best(print) });
                    }
                }
            }
        }
    }

    fn meets_strangers(&self, three: &[Print; 3]) -> bool {
        match self.protocol.impostors {
            Impostors::All => true,
            Impostors::First => three.iter().all(|print| print.impression < three.len()),
        }
    }

    fn presents(&self, print: Print) -> bool {
        match self.protocol.impostors {
            Impostors::All => true,
            Impostors::First => print.impression == 0,
        }
    }

    fn of_finger(&self, finger: usize) -> impl Iterator<Item = Print> + '_ {
        let start = self.starts[finger];
        self.prints[start..start + self.impressions[finger]].iter().copied()
    }

    fn score(&self, a: Print, b: Print) -> u16 {
        let score = self.triangle[self.place(a, b)];
        assert_ne!(score, NOT_COMPARED, "the protocol takes the score of {a:?} and {b:?}");
        score
    }

    fn place(&self, a: Print, b: Print) -> usize {
        let index = |print: Print| self.starts[print.finger] + print.impression;
        let (low, high) = (index(a).min(index(b)), index(a).max(index(b)));
        high * (high - 1) / 2 + low
    }
}

fn choices_of_three(from: &[Print]) -> Vec<[Print; 3]> {
    let mut choices = Vec::new();
    for (i, &a) in from.iter().enumerate() {
        for (j, &b) in from.iter().enumerate().skip(i + 1) {
            choices.extend(from[j + 1..].iter().map(|&c| [a, b, c]));
        }
    }
    choices
}
