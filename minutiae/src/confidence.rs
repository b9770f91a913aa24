//! What a person is shown instead of a score: 0 to 100, with the decision at 70.

/// Maps an engine's score to the interface's confidence, with one decimal.
///
/// Below the threshold it is `70 * score / threshold`; from the threshold on
/// `70 + 30 * (score - threshold) / (3 * threshold)`, at most 100. Score and threshold are on the
/// same scale, whatever that is. A confidence of 70.0 or more always means a match and less never
/// does: just below the threshold the value is cut to 69.9 instead of rounded up.
pub fn confidence(score: u16, threshold: u16) -> f64 {
    if threshold == 0 {
        return 100.0;
    }
    let (score, threshold) = (f64::from(score), f64::from(threshold));
    if score < threshold {
        one_decimal(70.0 * score / threshold).min(69.9)
    } else {
        one_decimal((70.0 + 30.0 * (score - threshold) / (3.0 * threshold)).min(100.0))
    }
}

fn one_decimal(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_is_at_seventy() {
        for (score, threshold, expected) in [
            (0, 50, 0.0),
            (25, 50, 35.0),
            (50, 50, 70.0),
            (100, 50, 80.0),
            (200, 50, 100.0),
            (1000, 50, 100.0),
            (7, 9, 54.4),
        ] {
            assert_eq!(confidence(score, threshold), expected, "{score} of {threshold}");
        }
    }

    #[test]
    fn a_miss_never_reads_as_a_match() {
        for threshold in 1..=u16::MAX {
            assert!(confidence(threshold - 1, threshold) < 70.0);
            assert_eq!(confidence(threshold, threshold), 70.0);
        }
    }
}
