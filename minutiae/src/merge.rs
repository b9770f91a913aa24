//! Placements of one finger to one record.

use thiserror::Error;

use crate::matching::{Prepared, VERIFY_THRESHOLD, compare};
use crate::template::{Template, TemplateError, View};

/// What a reader's template buffer holds: no record grows beyond it.
pub const RECORD_BYTES: usize = 2048;
/// Kept free for an extended data block of 48 bytes behind its 4-byte header.
pub const RESERVED_BYTES: usize = 52;
/// Most minutiae of one view in a merged record.
pub const VIEW_MINUTIAE: usize = 110;
const HEADER_BYTES: usize = 24;
const VIEW_BYTES: usize = 6;
const MINUTIA_BYTES: usize = 6;

/// Why placements don't make one record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergeError {
    /// Nothing to merge, or more views than a record of this size is good for.
    #[error("{count} placements can't be merged: 1 to 15 can")]
    Count {
        /// Views in all given templates.
        count: usize,
    },
    /// The placements were taken at different resolutions.
    #[error("placement {placement} was taken at another resolution than the first one")]
    Resolution {
        /// Which one, from 1.
        placement: usize,
    },
    /// A placement fits none of the others: another finger, or too poor a print.
    #[error(
        "placement {placement} doesn't match the others: best score {best}, {needed} is needed"
    )]
    Unlike {
        /// Which one, from 1.
        placement: usize,
        /// Its best score with any other.
        best: u16,
        /// The score that is needed.
        needed: u16,
    },
    /// The views don't make a record.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Merges placements into one record whose views they become.
///
/// The placements must hang together: each matches another one, and all are linked through such
/// matches. Each view keeps its best minutiae, as many as fit [`RECORD_BYTES`] with
/// [`RESERVED_BYTES`] to spare; extended data blocks are not taken over.
pub fn merge(placements: &[&Template]) -> Result<Template, MergeError> {
    let count = placements.iter().map(|t| t.views().len()).sum();
    let (Some(first), 1..=15) = (placements.first(), count) else {
        return Err(MergeError::Count { count });
    };
    let resolution = |t: &Template| (t.x_resolution(), t.y_resolution());
    if let Some(i) = placements.iter().position(|t| resolution(t) != resolution(first)) {
        return Err(MergeError::Resolution { placement: i + 1 });
    }
    check_linked(placements)?;
    let room = RECORD_BYTES - RESERVED_BYTES - HEADER_BYTES - VIEW_BYTES * count;
    let most = (room / count / MINUTIA_BYTES).min(VIEW_MINUTIAE);
    let views: Vec<View> = placements
        .iter()
        .flat_map(|t| t.views())
        .enumerate()
        .map(|(i, view)| view.best(most).without_extensions().numbered(i as u8))
        .collect();
    let width = placements.iter().map(|t| t.width()).max().unwrap_or(0);
    let height = placements.iter().map(|t| t.height()).max().unwrap_or(0);
    Ok(Template::new(width, height, first.x_resolution(), views)?)
}

/// Walks from the first placement over matches; whoever isn't reached is a stranger.
fn check_linked(placements: &[&Template]) -> Result<(), MergeError> {
    let prepared: Vec<Prepared> = placements.iter().map(|t| Prepared::new(t)).collect();
    let score = |i: usize, j: usize| compare(&prepared[i], &prepared[j]).get();
    let mut linked = vec![false; prepared.len()];
    let mut open = vec![0];
    linked[0] = true;
    while let Some(i) = open.pop() {
        for (j, reached) in linked.iter_mut().enumerate() {
            if !*reached && score(i, j) >= VERIFY_THRESHOLD {
                *reached = true;
                open.push(j);
            }
        }
    }
    let best = |i: usize| (0..prepared.len()).filter(|&j| j != i).map(|j| score(i, j)).max();
    let odd = match linked.iter().filter(|&&l| !l).count() {
        0 => return Ok(()),
        // When all others agree with each other, it is the first that is odd.
        _ => (0..prepared.len()).min_by_key(|&i| best(i)).unwrap_or(0),
    };
    let (placement, best, needed) = (odd + 1, best(odd).unwrap_or(0), VERIFY_THRESHOLD);
    Err(MergeError::Unlike { placement, best, needed })
}

#[cfg(test)]
mod tests;
