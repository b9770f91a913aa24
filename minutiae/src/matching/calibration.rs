//! Evidence to score, by what strangers reach.

use super::Score;

/// Evidence that one pair of strangers in 10, 100, 1000 and so on reaches, and the score there.
const REACHED: [(f32, f32); 5] = [(0.0, 0.0), (4.0, 10.0), (8.0, 30.0), (12.0, 50.0), (16.0, 70.0)];

pub(super) fn score(evidence: f32) -> Score {
    let last = REACHED.len() - 2;
    let i = (0..last).find(|&i| evidence < REACHED[i + 1].0).unwrap_or(last);
    let ((from, low), (to, high)) = (REACHED[i], REACHED[i + 1]);
    let value = low + (evidence - from) / (to - from) * (high - low);
    Score(value.clamp(0.0, 1000.0) as u16)
}
