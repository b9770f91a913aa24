//! The scores of a set, and the comparisons that a protocol makes of them.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeSet,
};

use super::EvaluationError;
use super::bootstrap::Resampling;
use super::protocol::{Enrolled, Impostors, Print, Protocol};
use super::rates::{ErrorRates, Histogram};

/// Stands where the protocol takes no score.
const NOT_COMPARED: u16 = u16::MAX;

/// Impressions in a comparison, at most: three enrolled and one presented.
const MOST: usize = 4;

/// Scores of a set's impressions with each other.
#[derive(Debug, Clone)]
pub struct Scores {
    protocol: Protocol,
    /// How many of each finger.
    impressions: Vec<usize>,
    prints: Vec<Print>,
    /// Where each finger's impressions begin in `prints`.
    starts: Vec<usize>,
    /// A row for each print, with its scores with the later ones: two bytes a pair, and what needs
    /// most of the memory there is.
    triangle: Vec<u16>,
}

/// What a protocol compares: who is enrolled, who is presented, how alike they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    pub(super) enrolled: usize,
    pub(super) presented: usize,
    pub(super) score: u16,
    /// Impressions in it whose quality is the one at the cut.
    tied: usize,
}

/// How an impression takes part where those of low quality are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// For certain.
    Kept,
    /// If it is drawn from those whose quality is the one at the cut.
    Tied,
}

type Member = (Print, Part);

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
        mut scores: Vec<u16>,
    ) -> Result<Self, EvaluationError> {
        protocol.check(impressions)?;
        let needed = protocol.pairs(impressions).count();
        if scores.len() != needed {
            return Err(EvaluationError::ScoreCount { given: scores.len(), needed });
        }
        let starts = (0..impressions.len()).map(|f| impressions[..f].iter().sum()).collect();
        let prints: Vec<Print> = Print::all(impressions).collect();
        let all = prints.len() * (prints.len() - 1) / 2;
        let impressions = impressions.to_vec();
        scores.iter_mut().for_each(|score| *score = 1000.min(*score));
        if needed == all {
            return Ok(Self { protocol, impressions, prints, starts, triangle: scores });
        }
        let triangle = vec![NOT_COMPARED; all];
        let mut new = Self { protocol, impressions, prints, starts, triangle };
        for ((a, b), score) in protocol.pairs(&new.impressions.clone()).zip(scores) {
            let place = new.place(a, b);
            new.triangle[place] = score;
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
        protocol.check(impressions)?;
        let scores = protocol.pairs(impressions).map(|(a, b)| score(a, b));
        Self::new(impressions, protocol, collected(protocol, impressions, scores))
    }

    /// The same scores under another protocol.
    ///
    /// # Errors
    /// The set has no genuine comparison under it, or it takes scores that this one didn't.
    pub fn under(&self, protocol: Protocol) -> Result<Self, EvaluationError> {
        let pairs = protocol.pairs(&self.impressions);
        let scores = pairs.map(|(a, b)| self.triangle[self.place(a, b)]);
        let scores = scores.filter(|&score| score != NOT_COMPARED);
        Self::new(&self.impressions, protocol, collected(protocol, &self.impressions, scores))
    }

    /// Error rates of all comparisons.
    pub fn rates(&self) -> ErrorRates {
        let none = "a set has comparisons of both kinds: it was checked when it was made";
        self.rates_of(|_| true).unwrap_or_else(|| unreachable!("{none}"))
    }

    /// Error rates of the comparisons among the impressions that are kept; `None` where no genuine
    /// or no impostor comparison is left.
    pub fn rates_of(&self, kept: impl Fn(Print) -> bool) -> Option<ErrorRates> {
        let [(genuine, impostor), ..] = self.by_tied(|print| kept(print).then_some(Part::Kept));
        ErrorRates::new(&genuine, &impostor)
    }

    /// Error rates without the share, 0 to 1, of impressions whose quality is worst.
    ///
    /// The share may cut through impressions of one quality. Which of them are left out is not for
    /// their order to say: each comparison counts with the probability that the impressions in it
    /// are kept when as many as have to go are drawn at random. `None` where that is 0 for all
    /// genuine or all impostor comparisons.
    pub fn rates_without_worst(
        &self,
        share: f64,
        quality: impl Fn(Print) -> u8,
    ) -> Option<ErrorRates> {
        let mut order: Vec<u8> = self.prints.iter().map(|&print| quality(print)).collect();
        order.sort_unstable();
        let left_out = ((order.len() as f64 * share).round() as usize).min(order.len());
        let Some(last) = left_out.checked_sub(1) else { return Some(self.rates()) };
        let cut = order[last];
        let below = order.partition_point(|&quality| quality < cut);
        let tied = order.partition_point(|&quality| quality <= cut) - below;
        let kept = tied - (left_out - below);
        let histograms = self.by_tied(|print| match quality(print).cmp(&cut) {
            Ordering::Less => None,
            Ordering::Equal => Some(Part::Tied),
            Ordering::Greater => Some(Part::Kept),
        });
        let weighted = histograms
            .iter()
            .enumerate()
            .map(|(count, (genuine, impostor))| (all_kept(count, kept, tied), genuine, impostor));
        ErrorRates::weighted(weighted)
    }

    /// Genuine and impostor comparisons by how many of their impressions are tied.
    fn by_tied(&self, part: impl Fn(Print) -> Option<Part>) -> [(Histogram, Histogram); MOST + 1] {
        let mut histograms: [(Histogram, Histogram); MOST + 1] = Default::default();
        self.each(part, |comparison| {
            let (genuine, impostor) = &mut histograms[comparison.tied];
            let same = comparison.enrolled == comparison.presented;
            let histogram = if same { genuine } else { impostor };
            histogram.add(comparison.score, 1);
        });
        histograms
    }

    /// The comparisons by finger, to draw fingers from.
    pub fn resampling(&self) -> Resampling {
        let mut resampling = Resampling::new(self.impressions.len());
        self.each(|_| Some(Part::Kept), |comparison| resampling.add(comparison));
        resampling.close();
        resampling
    }

    /// The pairs of impressions of one finger with the lowest scores.
    pub fn weakest_genuine(&self, count: usize) -> Vec<(u16, Print, Print)> {
        first(count, self.scored().filter(|(_, a, b)| a.finger == b.finger))
    }

    /// The pairs of impressions of two fingers with the highest scores.
    pub fn strongest_impostors(&self, count: usize) -> Vec<(u16, Print, Print)> {
        let impostors = self.scored().filter(|(_, a, b)| a.finger != b.finger);
        let strongest = first(count, impostors.map(|(score, a, b)| (Reverse(score), a, b)));
        strongest.into_iter().map(|(Reverse(score), a, b)| (score, a, b)).collect()
    }

    fn scored(&self) -> impl Iterator<Item = (u16, Print, Print)> + '_ {
        let pairs = self.protocol.pairs(&self.impressions);
        pairs.map(|(a, b)| (self.score(a, b), a, b))
    }

    /// All comparisons of the protocol among the impressions that have a part. Those of one enrolled
    /// and one presented finger follow each other.
    fn each(&self, part: impl Fn(Print) -> Option<Part>, mut take: impl FnMut(Comparison)) {
        let members: Vec<Vec<Member>> = (0..self.impressions.len())
            .map(|finger| {
                let prints = self.of_finger(finger);
                prints.filter_map(|print| Some((print, part(print)?))).collect()
            })
            .collect();
        match self.protocol.enrolled {
            Enrolled::One => self.each_pair(&members, &mut take),
            Enrolled::Three => self.each_three(&members, &mut take),
        }
    }

    fn each_pair(&self, members: &[Vec<Member>], take: &mut impl FnMut(Comparison)) {
        for (enrolled, own) in members.iter().enumerate() {
            for (index, &a) in own.iter().enumerate() {
                for &b in &own[index + 1..] {
                    take(self.comparison(&[a], b));
                }
            }
            for others in &members[enrolled + 1..] {
                for &a in own.iter().filter(|a| self.presents(a.0)) {
                    for &b in others.iter().filter(|b| self.presents(b.0)) {
                        take(self.comparison(&[a], b));
                    }
                }
            }
        }
    }

    /// Every three of a finger against each of its others, and against strangers.
    fn each_three(&self, members: &[Vec<Member>], take: &mut impl FnMut(Comparison)) {
        for (enrolled, own) in members.iter().enumerate() {
            let threes = choices_of_three(own);
            for three in &threes {
                for &presented in own.iter().filter(|member| !three.contains(member)) {
                    take(self.comparison(three, presented));
                }
            }
            let others = members.iter().enumerate().filter(|(other, _)| *other != enrolled);
            for (_, others) in others {
                for three in threes.iter().filter(|three| self.meets_strangers(three)) {
                    for &presented in others.iter().filter(|member| self.presents(member.0)) {
                        take(self.comparison(three, presented));
                    }
                }
            }
        }
    }

    fn comparison(&self, enrolled: &[Member], presented: Member) -> Comparison {
        let scores = enrolled.iter().map(|&(print, _)| self.score(print, presented.0));
        let parts = enrolled.iter().chain([&presented]).map(|&(_, part)| part);
        Comparison {
            enrolled: enrolled[0].0.finger,
            presented: presented.0.finger,
            score: scores.max().unwrap_or(0),
            tied: parts.filter(|&part| part == Part::Tied).count(),
        }
    }

    fn meets_strangers(&self, three: &[Member; 3]) -> bool {
        match self.protocol.impostors {
            Impostors::All => true,
            Impostors::First => three.iter().all(|(print, _)| print.impression < three.len()),
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
        low * (2 * self.prints.len() - low - 1) / 2 + high - low - 1
    }
}

/// Room is made once: while it grew, the scores would be there twice.
fn collected(
    protocol: Protocol,
    impressions: &[usize],
    scores: impl Iterator<Item = u16>,
) -> Vec<u16> {
    let mut collected = Vec::with_capacity(protocol.pairs(impressions).count());
    collected.extend(scores);
    collected
}

/// The first few in their order, without holding all.
fn first<T: Ord>(count: usize, all: impl Iterator<Item = T>) -> Vec<T> {
    let mut first = BTreeSet::new();
    for item in all {
        if first.len() < count || first.last().is_some_and(|last| item < *last) {
            first.insert(item);
        }
        if first.len() > count {
            first.pop_last();
        }
    }
    first.into_iter().collect()
}

fn choices_of_three(from: &[Member]) -> Vec<[Member; 3]> {
    let mut choices = Vec::new();
    for (i, &a) in from.iter().enumerate() {
        for (j, &b) in from.iter().enumerate().skip(i + 1) {
            choices.extend(from[j + 1..].iter().map(|&c| [a, b, c]));
        }
    }
    choices
}

/// The probability that so many of the tied are all among the `kept` ones, drawn at random.
fn all_kept(count: usize, kept: usize, tied: usize) -> f64 {
    if count > kept {
        return 0.0;
    }
    (0..count).map(|drawn| (kept - drawn) as f64 / (tied - drawn) as f64).product()
}
