use super::*;
use crate::extract::extract;
use crate::synth::Finger;
use crate::template::{Minutia, MinutiaKind, Template, View};

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

/// Minutiae scattered by a seed, about as many as a finger shows.
fn scattered(seed: u64) -> Template {
    let mut random = crate::random::Random::new(seed, 9);
    let minutiae = (0..40)
        .map(|_| Minutia {
            x: random.range(20.0, 280.0) as u16,
            y: random.range(20.0, 380.0) as u16,
            angle: random.range(0.0, 255.0) as u8,
            kind: MinutiaKind::Ending,
            quality: 80,
        })
        .collect();
    Template::new(300, 400, 197, vec![View::new(80, minutiae).unwrap()]).unwrap()
}

/// The same minutiae as another touch shows them: turned and shifted, a quarter of them lost.
fn touched_again(template: &Template) -> Template {
    let (sin, cos) = 0.3f32.sin_cos();
    let minutiae = template.views()[0]
        .minutiae()
        .iter()
        .enumerate()
        .filter(|(i, _)| i % 4 != 0)
        .map(|(_, m)| {
            let (x, y) = (f32::from(m.x), f32::from(m.y));
            Minutia {
                x: (x * cos + y * sin + 30.0).round() as u16,
                y: (y * cos - x * sin + 120.0).round() as u16,
                angle: m.angle.wrapping_add((0.3 * 256.0 / std::f32::consts::TAU).round() as u8),
                ..*m
            }
        })
        .collect();
    Template::new(300, 400, 197, vec![View::new(80, minutiae).unwrap()]).unwrap()
}

#[test]
fn the_index_finds_what_a_full_search_would() {
    let gallery = Gallery::new();
    for id in 0..1_500u32 {
        gallery.insert(id, Prepared::new(&scattered(u64::from(id))));
    }
    assert!(gallery.len() > COMPARED_IN_FULL);
    for id in (0..1_500).step_by(100) {
        let probe = Prepared::new(&touched_again(&scattered(u64::from(id))));
        let found = gallery.search(&probe, None).unwrap();
        assert_eq!(found.id, id);
        assert!(found.score.get() >= search_threshold(gallery.len()), "{found:?}");
        let others = gallery.search(&probe, Some(&|other| other != id)).unwrap();
        assert!(others.score.get() < search_threshold(gallery.len()), "{others:?}");
    }
}

#[test]
fn what_was_removed_is_no_longer_found_and_its_place_is_used_again() {
    let gallery = Gallery::new();
    for id in 0..600u32 {
        gallery.insert(id, Prepared::new(&scattered(u64::from(id))));
    }
    let probe = Prepared::new(&touched_again(&scattered(7)));
    assert_eq!(gallery.search(&probe, None).unwrap().id, 7);
    assert!(gallery.remove(7));
    assert_ne!(gallery.search(&probe, None).unwrap().id, 7);
    gallery.insert(9_000, Prepared::new(&scattered(7)));
    assert_eq!(gallery.search(&probe, None).unwrap().id, 9_000);
    assert!(gallery.insert(9_000, Prepared::new(&scattered(8_000))), "it replaces");
    assert_ne!(gallery.search(&probe, None).unwrap().id, 9_000);
    assert_eq!(gallery.len(), 600);
}

#[test]
fn a_filter_may_use_the_gallery() {
    let gallery = Gallery::new();
    for id in 0..10u32 {
        gallery.insert(id, Prepared::new(&scattered(u64::from(id))));
    }
    let probe = Prepared::new(&touched_again(&scattered(3)));
    let odd = |id: u32| id % 2 == 1 || !gallery.remove(id);
    assert_eq!(gallery.search(&probe, Some(&odd)).unwrap().id, 3);
    assert_eq!(gallery.len(), 5);
}

#[test]
fn templates_come_and_go_while_searches_run() {
    let gallery = Gallery::new();
    for id in 0..450u32 {
        gallery.insert(id, Prepared::new(&scattered(u64::from(id))));
    }
    let probe = Prepared::new(&touched_again(&scattered(3)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 1_000..1_200u32 {
                gallery.insert(id, Prepared::new(&scattered(u64::from(id))));
                gallery.remove(id);
            }
        });
        for _ in 0..10 {
            assert_eq!(gallery.search(&probe, None).unwrap().id, 3);
        }
    });
    assert_eq!(gallery.len(), 450);
}
