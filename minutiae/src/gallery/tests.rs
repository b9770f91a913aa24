use super::*;
use crate::extract::extract;
use crate::synth::Finger;

fn prepared(seed: u64, impression: u64) -> Prepared {
    Prepared::new(&extract(&Finger::new(seed).impression(impression)).unwrap().template)
}

#[test]
fn an_enrolled_finger_is_found_and_a_stranger_is_not() {
    let gallery = Gallery::new();
    for seed in 0..12 {
        assert!(!gallery.insert(seed, prepared(u64::from(seed) + 100, 1)));
    }
    let threshold = search_threshold(gallery.len());
    let found = gallery.search(&prepared(105, 2), None).unwrap();
    assert_eq!(found.id, 5);
    assert!(found.score.get() >= threshold, "{found:?}");
    let nobody = gallery.search(&prepared(200, 1), None).unwrap();
    assert!(nobody.score.get() < threshold, "{nobody:?}");
}

#[test]
fn the_filter_limits_the_search() {
    let gallery = Gallery::new();
    gallery.insert(1, prepared(101, 1));
    gallery.insert(2, prepared(102, 1));
    let probe = prepared(101, 1);
    assert_eq!(gallery.search(&probe, Some(&|id| id == 2)).unwrap().id, 2);
    assert_eq!(gallery.search(&probe, Some(&|_| false)), None);
    assert!(gallery.remove(1));
    assert!(!gallery.remove(1));
    assert_eq!(gallery.search(&probe, None).unwrap().id, 2);
}

#[test]
fn thresholds_grow_with_the_gallery() {
    for (n, threshold) in [(0, 70), (1, 70), (10, 70), (11, 71), (100, 90), (10_000, 130)] {
        assert_eq!(search_threshold(n), threshold, "{n}");
    }
}
