use super::*;

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

fn rates(genuine: &[u16], impostor: &[u16]) -> ErrorRates {
    ErrorRates::from_scores(genuine, impostor).unwrap()
}

fn protocol(enrolled: Enrolled, impostors: Impostors) -> Protocol {
    Protocol { enrolled, impostors }
}

#[test]
fn a_score_at_the_threshold_matches() {
    let rates = rates(&[50, 60], &[49, 50]);
    for (threshold, fmr, fnmr) in
        [(0, 1.0, 0.0), (49, 1.0, 0.0), (50, 0.5, 0.0), (51, 0.0, 0.5), (61, 0.0, 1.0)]
    {
        close(rates.fmr(threshold), fmr);
        close(rates.fnmr(threshold), fnmr);
    }
    assert_eq!((rates.fmr(u16::MAX), rates.fnmr(u16::MAX)), (0.0, 1.0));
}

#[test]
fn the_eer_is_where_the_lines_between_thresholds_cross() {
    close(rates(&[100, 200], &[1, 2]).eer(), 0.0);
    close(rates(&[1, 2], &[100, 200]).eer(), 1.0);
    // All at one score: FMR falls from 1 to 0 where FNMR rises from 0 to 1.
    close(rates(&[0], &[0]).eer(), 0.5);
    close(rates(&[1000], &[1000]).eer(), 0.5);
    // At 30 FMR is 2/4 and FNMR 1/5, at 31 it is 1/4 and 2/5: a third of gap 0.3 to -0.15 away.
    let crossed = rates(&[10, 30, 80, 90, 95], &[5, 7, 30, 40]);
    close(crossed.fmr(30), 0.5);
    close(crossed.fnmr(30), 0.2);
    close(crossed.eer(), 0.2 + 0.2 * 0.3 / 0.45);
}

#[test]
fn the_fnmr_at_an_fmr_is_the_lowest_that_keeps_it() {
    let impostor: Vec<u16> = (0..100).collect();
    let rates = rates(&[50, 98, 99, 100], &impostor);
    close(rates.fnmr_at(1.0), 0.0);
    assert_eq!(rates.threshold_at(0.5), 50);
    close(rates.fnmr_at(0.5), 0.0);
    assert_eq!(rates.threshold_at(0.01), 99);
    close(rates.fnmr_at(0.01), 0.5);
    close(rates.fnmr_at(0.009), 0.75);
    close(rates.fnmr_at(0.0), 0.75);
}

#[test]
fn the_det_curve_goes_from_everything_to_nothing_and_never_back() {
    let det = rates(&[20, 40], &[10, 20, 30]).det();
    let (first, last) = (det[0], det[det.len() - 1]);
    assert_eq!((first.fmr, first.fnmr, last.fmr, last.fnmr), (1.0, 0.0, 0.0, 1.0));
    assert_eq!(det.len(), 5, "{det:?}");
    assert!(det.windows(2).all(|w| w[0].fmr >= w[1].fmr && w[0].fnmr <= w[1].fnmr), "{det:?}");
}

#[test]
fn what_has_no_pair_of_either_kind_has_no_rates() {
    assert_eq!(ErrorRates::from_scores(&[1], &[]), None);
    let error = |impressions: &[usize], enrolled| {
        Scores::of(impressions, protocol(enrolled, Impostors::All), |_, _| 0).unwrap_err()
    };
    let none = |needed| EvaluationError::NoGenuinePair { needed };
    assert_eq!(error(&[], Enrolled::One), none(2));
    assert_eq!(error(&[1, 1], Enrolled::One), none(2));
    assert_eq!(error(&[3, 3], Enrolled::Three), none(4));
    assert_eq!(error(&[8, 0], Enrolled::One), EvaluationError::NoImpostorPair);
    let short = Scores::new(&[2, 1], Protocol::default(), vec![1, 2]).unwrap_err();
    assert_eq!(short, EvaluationError::ScoreCount { given: 2, needed: 3 });
}

/// Comparisons as the FVC protocol counts them, by hand.
#[test]
fn each_protocol_has_as_many_comparisons_as_it_says() {
    use {Enrolled::*, Impostors::*};
    for (enrolled, impostors, genuine, impostor, scores) in [
        (One, All, 10 * 28, 45 * 64, 80 * 79 / 2),
        (One, First, 10 * 28, 45, 10 * 28 + 45),
        (Three, All, 10 * 56 * 5, 10 * 56 * 72, 80 * 79 / 2),
        (Three, First, 10 * 56 * 5, 10 * 9, 10 * 28 + 45 * 5),
    ] {
        let protocol = protocol(enrolled, impostors);
        assert_eq!(protocol.pairs(&[8; 10]).count(), scores, "{protocol:?}");
        let rates = Scores::of(&[8; 10], protocol, |_, _| 7).unwrap().rates();
        let counts = (rates.genuine_count(), rates.impostor_count());
        assert_eq!(counts, (genuine, impostor), "{protocol:?}");
    }
}

#[test]
fn scores_serve_every_protocol_that_takes_no_more_of_them() {
    use {Enrolled::*, Impostors::*};
    let scores = Scores::of(&[5; 3], protocol(One, All), by_finger).unwrap();
    for (enrolled, impostors) in [(One, First), (Three, All), (Three, First)] {
        let protocol = protocol(enrolled, impostors);
        let anew = Scores::of(&[5; 3], protocol, by_finger).unwrap();
        assert_eq!(scores.under(protocol).unwrap().rates(), anew.rates(), "{protocol:?}");
    }
    let few = scores.under(protocol(One, First)).unwrap();
    let error = few.under(protocol(One, All)).unwrap_err();
    assert_eq!(error, EvaluationError::ScoreCount { given: 33, needed: 105 });
}

#[test]
fn quantiles_are_scores_that_are_there() {
    let rates = rates(&[70, 10, 20, 30, 1000], &[0, 3]);
    let at = |share| rates.genuine_quantile(share);
    assert_eq!([at(0.0), at(0.25), at(0.5), at(1.0)], [10, 20, 30, 1000]);
    assert_eq!([rates.impostor_quantile(0.0), rates.impostor_quantile(1.0)], [0, 3]);
}

#[test]
fn three_enrolled_score_as_the_best_of_them() {
    // Of finger 0 only impressions 0 and 3 are alike; so the choices without both fail.
    let alike = |a: Print, b: Print| match (a.finger, b.finger, a.impression, b.impression) {
        (0, 0, 0, 3) => 100,
        (0, 0, ..) => 10,
        _ => 1,
    };
    let protocol = protocol(Enrolled::Three, Impostors::All);
    let rates = Scores::of(&[4, 1], protocol, alike).unwrap().rates();
    assert_eq!((rates.genuine_count(), rates.impostor_count()), (4, 4));
    // {0 1 2} with 3, {1 2 3} with 0 are found; {0 1 3} with 2, {0 2 3} with 1 aren't.
    close(rates.fnmr(100), 0.5);
    close(rates.fmr(2), 0.0);
}

/// Scores that depend on the fingers alone.
fn by_finger(a: Print, b: Print) -> u16 {
    match a.finger == b.finger {
        true => 100 + a.finger as u16,
        false => 10 * (a.finger + b.finger) as u16,
    }
}

#[test]
fn a_finger_drawn_twice_counts_twice_and_is_no_stranger_to_itself() {
    let scores = Scores::of(&[2, 2, 2], Protocol::default(), by_finger).unwrap();
    let drawn = scores.resampling().rates(&[2, 1, 0]).unwrap();
    // Finger 0 twice and finger 1 once: three genuine, and 2 * 1 * 4 of strangers, all at 10.
    assert_eq!((drawn.genuine_count(), drawn.impostor_count()), (3, 8));
    close(drawn.fnmr(101), 2.0 / 3.0);
    close(drawn.fmr(11), 0.0);
    close(drawn.fmr(10), 1.0);
    assert_eq!(scores.resampling().rates(&[3, 0, 0]), None);
    let whole = scores.resampling().rates(&[1, 1, 1]);
    assert_eq!(whole, Some(scores.rates()), "each once is the set itself");
}

#[test]
fn intervals_hold_the_figure_and_repeat() {
    // One finger in ten is not recognised.
    let score = |a: Print, b: Print| match (a.finger == b.finger, a.finger) {
        (true, 0) => 0,
        (true, _) => 100,
        (false, _) => 5,
    };
    let scores = Scores::of(&[4; 10], Protocol::default(), score).unwrap();
    let draws = scores.resampling().draws();
    let figure = |rates: &ErrorRates| rates.fnmr_at(0.0);
    let interval = Interval::of(&draws, figure).unwrap();
    close(figure(&scores.rates()), 0.1);
    // 0 of ten draws: 35 %; at most 2 of ten: 93 %, at most 3: 99 %.
    assert_eq!((interval.low, interval.high), (0.0, 0.3));
    assert_eq!(scores.resampling().draws(), draws);
    assert_eq!(Interval::of(&[], figure), None);
}

#[test]
fn leaving_out_the_worst_leaves_out_those() {
    let score = |a: Print, b: Print| match (a.finger == b.finger, b.impression) {
        (true, 3) => 0,
        (true, _) => 100,
        (false, _) => 5,
    };
    let scores = Scores::of(&[4; 5], Protocol::default(), score).unwrap();
    let quality = |print: Print| if print.impression == 3 { 20 } else { 80 };
    close(scores.rates().fnmr(50), 0.5);
    close(scores.rates_without_worst(0.25, quality).unwrap().fnmr(50), 0.0);
    assert!(scores.rates_without_worst(1.0, quality).is_none());
    let weakest = scores.weakest_genuine(1)[0];
    assert_eq!((weakest.0, weakest.2.impression), (0, 3));
    assert_eq!(scores.strongest_impostors(500).len(), 10 * 16);
}

/// Impressions of one quality at the cut: none of them is left out for its name.
#[test]
fn leaving_out_some_of_equal_quality_counts_each_by_its_chance() {
    // Of finger 0 only the first two are alike; of finger 1 all.
    let score = |a: Print, b: Print| match (a.finger, b.finger) {
        (0, 0) if b.impression == 1 => 100,
        (0, 0) => 0,
        (1, 1) => 100,
        _ => 5,
    };
    let quality = |print: Print| match (print.finger, print.impression) {
        (0, 0) => 9,
        (1, 2) => 1,
        _ => 5,
    };
    let scores = Scores::of(&[3, 3], Protocol::default(), score).unwrap();
    let rates = scores.rates_without_worst(0.5, quality).unwrap();
    // Three of six go: (1, 2), and two of the four tied ones. One tied stays with 1/2, two with 1/6.
    // Finger 0: 01 and 02 have one tied, 12 has two. Finger 1: 01 has two.
    close(rates.fnmr(50), (1.0 / 2.0 + 1.0 / 6.0) / (1.0 + 2.0 / 6.0));
    // Strangers: 2 comparisons with one tied, 4 with two.
    assert_eq!((rates.genuine_count(), rates.impostor_count()), (1, 2), "of 4/3 and 5/3");
    // Fingers and impressions in another order are the same set.
    let turned =
        |print: Print| Print { finger: 1 - print.finger, impression: 2 - print.impression };
    let score = |a: Print, b: Print| {
        let (a, b) = (turned(a), turned(b));
        score(a.min(b), a.max(b))
    };
    let other = Scores::of(&[3, 3], Protocol::default(), score).unwrap();
    assert_eq!(other.rates_without_worst(0.5, |print| quality(turned(print))), Some(rates));
}

#[test]
fn equal_qualities_say_nothing_whoever_is_enrolled() {
    for enrolled in [Enrolled::One, Enrolled::Three] {
        let protocol = protocol(enrolled, Impostors::All);
        let whole = Scores::of(&[5; 4], protocol, by_finger).unwrap();
        let left = whole.rates_without_worst(0.2, |_| 50).unwrap();
        for threshold in 0..200 {
            close(left.fnmr(threshold), whole.rates().fnmr(threshold));
            close(left.fmr(threshold), whole.rates().fmr(threshold));
        }
        assert!(left.genuine_count() < whole.rates().genuine_count());
        assert_eq!(whole.rates_without_worst(0.95, |_| 50), None, "too few are left");
    }
}

/// More equal scores than one entry of what is drawn from holds, and all scores there are.
#[test]
fn what_is_drawn_from_holds_every_score_as_often_as_it_is() {
    let score = |a: Print, b: Print| match (a.finger, b.finger) {
        (0, 1) => 1000,
        (0, 0) => 3,
        _ => (a.impression * 90 + b.impression) as u16,
    };
    for enrolled in [Enrolled::One, Enrolled::Three] {
        let protocol = protocol(enrolled, Impostors::All);
        let scores = Scores::of(&[13, 11, 1], protocol, score).unwrap();
        assert_eq!(scores.resampling().rates(&[1, 1, 1]), Some(scores.rates()), "{protocol:?}");
    }
}
