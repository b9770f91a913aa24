//! Error rates of a matcher on a set of fingers: scores in, figures out.
//!
//! ```
//! use minutiae::evaluation::{Protocol, Scores};
//!
//! // Two fingers of two impressions each; the score of a pair comes from anywhere.
//! let scores = Scores::of(&[2, 2], Protocol::default(), |a, b| {
//!     if a.finger == b.finger { 120 } else { 7 }
//! })?;
//! assert_eq!(scores.rates().eer(), 0.0);
//! # Ok::<(), minutiae::evaluation::EvaluationError>(())
//! ```
//!
//! | module | job |
//! |---|---|
//! | `protocol` | which impressions are compared, and as what |
//! | `scores` | the scores of a set, and the pairs that the protocol makes of them |
//! | `rates` | FMR, FNMR, EER, DET curve |
//! | `bootstrap` | intervals, by drawing fingers with replacement |
//!
//! **FNMR** at a threshold is the share of pairs of one finger that score below it, **FMR** the share
//! of pairs of two fingers that reach it. Both are shares from 0 to 1. The **EER** is where both lines,
//! drawn from threshold to threshold, cross. The **FNMR at an FMR** is the lowest FNMR among the
//! thresholds whose FMR is at most that.
//!
//! An impression that gave no template takes part with a score of 0: nobody could match it.

mod bootstrap;
mod protocol;
mod rates;
mod scores;

use thiserror::Error;

pub use bootstrap::{DRAWS, Interval, Resampling};
pub use protocol::{Enrolled, Impostors, Print, Protocol};
pub use rates::{DetPoint, ErrorRates};
pub use scores::Scores;

/// Why a set has no error rates.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvaluationError {
    /// No finger has as many impressions as a genuine pair takes.
    #[error("no finger has {needed} impressions or more, which a comparison of one finger takes")]
    NoGenuinePair {
        /// Impressions that a genuine comparison takes.
        needed: usize,
    },
    /// There is one finger, or none.
    #[error("two fingers or more are needed, for comparisons of strangers")]
    NoImpostorPair,
    /// As many scores were given as the protocol doesn't ask for.
    #[error("{given} scores for {needed} comparisons")]
    ScoreCount {
        /// Scores given.
        given: usize,
        /// Comparisons of the protocol.
        needed: usize,
    },
}

#[cfg(test)]
mod tests;
