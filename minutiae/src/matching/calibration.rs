//! Evidence to score, by what strangers reach.

use super::Score;

/// Evidence and its score. Up to 70 by what a million pairs of generated strangers, the impostor
/// pairs of FVC2002 DB4_B and small cut-out prints reach, whichever reach more; beyond, the generated
/// ones alone and the last slope continued.
const REACHED: [(f32, f32); 6] =
    [(0.0, 0.0), (2.0, 10.0), (7.2, 30.0), (10.6, 50.0), (14.8, 70.0), (21.6, 90.0)];

pub(super) fn score(evidence: f32) -> Score {
    let last = REACHED.len() - 2;
    let i = (0..last).find(|&i| evidence < REACHED[i + 1].0).unwrap_or(last);
    let ((from, low), (to, high)) = (REACHED[i], REACHED[i + 1]);
    let value = low + (evidence - from) / (to - from) * (high - low);
    Score(value.clamp(0.0, 1000.0) as u16)
}
