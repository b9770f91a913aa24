//! Which impressions are compared, and as what.

use super::EvaluationError;

/// One impression of a set, both numbers from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Print {
    /// Which finger.
    pub finger: usize,
    /// Which impression of it.
    pub impression: usize,
}

impl Print {
    /// All impressions of a set with so many of each finger, in their order.
    pub fn all(impressions: &[usize]) -> impl Iterator<Item = Print> + '_ {
        let of = |(finger, &count): (usize, &usize)| {
            (0..count).map(move |impression| Print { finger, impression })
        };
        impressions.iter().enumerate().flat_map(of)
    }
}

/// How many impressions a finger is enrolled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enrolled {
    /// One: a pair of impressions is a comparison.
    #[default]
    One,
    /// Three, in all choices of three; a comparison takes the best of the three scores.
    Three,
}

/// Which strangers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Impostors {
    /// Every impression of one finger with every impression of every other one.
    #[default]
    All,
    /// As in the FVC competitions: the first impressions of every two fingers. With three enrolled:
    /// the first three of each finger, with the first one of every other.
    First,
}

/// What is compared with what. Genuine comparisons are always all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocol {
    /// Impressions enrolled.
    pub enrolled: Enrolled,
    /// Pairs of strangers.
    pub impostors: Impostors,
}

impl Enrolled {
    /// Impressions that are enrolled.
    pub fn count(self) -> usize {
        match self {
            Enrolled::One => 1,
            Enrolled::Three => 3,
        }
    }
}

impl Protocol {
    /// Whether it makes comparisons of both kinds of a set with so many impressions of each finger.
    ///
    /// # Errors
    /// It makes none of one finger, or none of strangers.
    pub fn check(self, impressions: &[usize]) -> Result<(), EvaluationError> {
        let needed = self.enrolled.count() + 1;
        if !impressions.iter().any(|&count| count >= needed) {
            return Err(EvaluationError::NoGenuinePair { needed });
        }
        if impressions.iter().filter(|&&count| count > 0).count() < 2 {
            return Err(EvaluationError::NoImpostorPair);
        }
        Ok(())
    }

    /// The pairs of impressions whose scores it takes, the earlier impression first, for a set with
    /// so many impressions of each finger. Fingers and impressions in their order.
    ///
    /// They are as many as the square of the set's impressions halved: better not collected.
    pub fn pairs(self, impressions: &[usize]) -> impl Iterator<Item = (Print, Print)> + '_ {
        let pairs_of = move |a| self.partners(impressions, a).map(move |b| (a, b));
        Print::all(impressions).flat_map(pairs_of)
    }

    /// The later impressions whose scores with this one it takes: a part of [`Protocol::pairs`].
    pub fn partners(self, impressions: &[usize], a: Print) -> impl Iterator<Item = Print> + '_ {
        let later = (a.finger..impressions.len()).flat_map(move |finger| {
            let first = if finger == a.finger { a.impression + 1 } else { 0 };
            (first..impressions[finger]).map(move |impression| Print { finger, impression })
        });
        later.filter(move |&b| self.takes(a, b))
    }

    /// Whether the score of two impressions is needed.
    fn takes(self, a: Print, b: Print) -> bool {
        let (low, high) = (a.impression.min(b.impression), a.impression.max(b.impression));
        match self.impostors {
            Impostors::All => true,
            Impostors::First => a.finger == b.finger || (low == 0 && high < self.enrolled.count()),
        }
    }
}
