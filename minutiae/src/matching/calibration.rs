//! Evidence to score, by what strangers reach.

use super::Score;

/// Evidence and its score. Up to 70 by what a million pairs of generated strangers and the impostor
/// pairs of FVC2002 DB4_B reach, whichever reach more; to 110 the generated ones alone. 130 is what the
/// best of ten thousand reaches in one search of a thousand, from the exponential tail of a thousand
/// searches; beyond, that slope continued. `cargo bench -p minutiae --bench identification` shows how it
/// holds.
const REACHED: [(f32, f32); 8] = [
    (0.0, 0.0),
    (2.0, 10.0),
    (7.2, 30.0),
    (10.6, 50.0),
    (15.6, 70.0),
    (21.6, 90.0),
    (28.4, 110.0),
    (36.9, 130.0),
];

pub(super) fn score(evidence: f32) -> Score {
    let last = REACHED.len() - 2;
    let i = (0..last).find(|&i| evidence < REACHED[i + 1].0).unwrap_or(last);
    let ((from, low), (to, high)) = (REACHED[i], REACHED[i + 1]);
    let value = low + (evidence - from) / (to - from) * (high - low);
    Score(value.clamp(0.0, 1000.0) as u16)
}
