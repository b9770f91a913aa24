use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::extract::extract;
use crate::synth::Finger;

fn prepared(finger: &Finger, impression: u64) -> Prepared {
    Prepared::new(&extract(&finger.impression(impression)).unwrap().template)
}

#[test]
fn impressions_of_one_finger_match() {
    let finger = Finger::new(11);
    let (a, b) = (prepared(&finger, 1), prepared(&finger, 2));
    assert!(compare(&a, &b).get() >= VERIFY_THRESHOLD, "{}", compare(&a, &b));
    assert!(compare(&a, &a) > compare(&a, &b));
}

#[test]
fn two_fingers_do_not_match() {
    let prints: Vec<Prepared> = (20..28).map(|seed| prepared(&Finger::new(seed), 1)).collect();
    for (i, a) in prints.iter().enumerate() {
        for b in &prints[i + 1..] {
            assert!(compare(a, b).get() < VERIFY_THRESHOLD, "{}", compare(a, b));
        }
    }
}

#[test]
fn which_print_comes_first_makes_no_difference() {
    let touches = |seed| {
        let finger = Finger::new(seed);
        (1..=3).map(|i| extract(&finger.impression(i)).unwrap().template).collect::<Vec<_>>()
    };
    let fingers: Vec<Vec<Template>> = (30..34).map(touches).collect();
    let merged = fingers.iter().map(|f| crate::merge(&[&f[0], &f[1]]).unwrap());
    let all: Vec<Prepared> =
        merged.chain(fingers.iter().flatten().cloned()).map(|t| Prepared::new(&t)).collect();
    for (i, a) in all.iter().enumerate() {
        for b in &all[i..] {
            assert_eq!(compare(a, b), compare(b, a));
        }
    }
}

fn any_minutiae() -> impl Strategy<Value = Vec<crate::template::Minutia>> {
    let kind = prop_oneof![Just(MinutiaKind::Ending), Just(MinutiaKind::Bifurcation)];
    let minutia = (20u16..280, 20u16..380, any::<u8>(), kind, 0u8..=100).prop_map(
        |(x, y, angle, kind, quality)| crate::template::Minutia { x, y, angle, kind, quality },
    );
    vec(minutia, 12..50)
}

proptest! {
    /// A print against a touch of the same: some of it moved and turned, some lost, some added.
    #[test]
    fn random_prints_compare_alike_either_way(
        (print, moves) in any_minutiae().prop_flat_map(|print| {
            let moves = vec((-6i16..=6, -6i16..=6, -8i8..=8), print.len());
            (Just(print), moves)
        }),
        lost in 0usize..8,
        added in any_minutiae(),
    ) {
        let moved = |(m, (x, y, turn)): (&crate::template::Minutia, &(i16, i16, i8))| {
            crate::template::Minutia {
                x: m.x.saturating_add_signed(*x),
                y: m.y.saturating_add_signed(*y),
                angle: m.angle.wrapping_add_signed(*turn),
                ..*m
            }
        };
        let mut touch: Vec<_> = print.iter().zip(&moves).map(moved).skip(lost).collect();
        touch.extend(&added[..lost]);
        let prepared = |minutiae: Vec<_>| {
            let view = View::new(80, minutiae).unwrap();
            Prepared::new(&Template::new(300, 400, 197, vec![view]).unwrap())
        };
        let (a, b) = (prepared(print), prepared(touch));
        prop_assert_eq!(compare(&a, &b), compare(&b, &a));
    }
}

#[test]
fn a_template_without_minutiae_matches_nothing() {
    let template = Template::new(300, 400, 197, vec![View::new(0, vec![]).unwrap()]).unwrap();
    let empty = Prepared::new(&template);
    assert_eq!(compare(&empty, &prepared(&Finger::new(11), 1)), Score(0));
    assert_eq!(compare(&empty, &empty), Score(0));
}

#[test]
fn turning_and_shifting_changes_little() {
    let finger = Finger::new(12);
    let template = extract(&finger.impression(1)).unwrap().template;
    let quarter_turned: Vec<_> = template.views()[0]
        .minutiae()
        .iter()
        .map(|m| crate::template::Minutia {
            x: m.y + 25,
            y: 400 - m.x,
            angle: m.angle.wrapping_add(64),
            ..*m
        })
        .collect();
    let view = View::new(80, quarter_turned).unwrap();
    let turned = Template::new(500, 500, 197, vec![view]).unwrap();
    let (own, turned) = (Prepared::new(&template), Prepared::new(&turned));
    let (same, moved) = (compare(&own, &own).get(), compare(&own, &turned).get());
    assert!(moved > same * 9 / 10, "{moved} of {same}");
}

#[test]
fn resolution_is_taken_into_account() {
    let finger = Finger::new(12);
    let template = extract(&finger.impression(1)).unwrap().template;
    let doubled: Vec<_> = template.views()[0]
        .minutiae()
        .iter()
        .map(|m| crate::template::Minutia { x: 2 * m.x, y: 2 * m.y, ..*m })
        .collect();
    let view = View::new(80, doubled).unwrap();
    let fine = Template::new(600, 800, 394, vec![view]).unwrap();
    let (own, fine) = (Prepared::new(&template), Prepared::new(&fine));
    assert_eq!(compare(&own, &fine), compare(&own, &own));
}

/// As many minutiae as are compared, all over a print of 20 by 25 mm.
#[test]
fn a_prepared_template_fits_its_budget() {
    let minutia = |i: u16| crate::template::Minutia {
        x: i % 8 * 54 + 8,
        y: i / 8 * 69 + 5,
        angle: (i * 37 % 256) as u8,
        kind: MinutiaKind::Ending,
        quality: 50,
    };
    let view = View::new(80, (0..100).map(minutia).collect()).unwrap();
    let prepared = Prepared::new(&Template::new(400, 500, 197, vec![view]).unwrap());
    assert_eq!(prepared.views[0].points.len(), MOST_POINTS);
    assert!(prepared.memory_bytes() <= 4096, "{}", prepared.memory_bytes());
}

#[test]
fn the_best_view_counts() {
    let finger = Finger::new(13);
    let of = |i| extract(&finger.impression(i)).unwrap().template;
    let (a, b, probe) = (of(1), of(2), Prepared::new(&of(3)));
    let both = crate::merge(&[&a, &b]).unwrap();
    let single = [&a, &b].map(|t| compare(&Prepared::new(t), &probe));
    let best = single[0].max(single[1]).get();
    assert_eq!(compare(&Prepared::new(&both), &probe).get(), best - 6, "less for two chances");
}

/// Formats know a quality up to 100. What a foreign record says beyond it must not make a minutia count
/// for more than the best.
#[test]
fn no_quality_counts_for_more_than_the_best() {
    let template = extract(&Finger::new(14).impression(1)).unwrap().template;
    let of = |quality: u8| {
        let minutiae = template.views()[0].minutiae();
        let minutiae = minutiae.iter().map(|m| crate::template::Minutia { quality, ..*m });
        let view = View::new(80, minutiae.collect()).unwrap();
        Prepared::new(&Template::new(300, 400, 197, vec![view]).unwrap())
    };
    let (best, unknown) = (of(100), of(0));
    for quality in [101, 254, 255] {
        assert_eq!(compare(&of(quality), &best), compare(&unknown, &best), "{quality}");
    }
}

#[test]
fn too_few_minutiae_match_nothing() {
    let template = extract(&Finger::new(14).impression(1)).unwrap().template;
    let few = |count: usize| {
        let minutiae = template.views()[0].minutiae()[..count].to_vec();
        let view = View::new(80, minutiae).unwrap();
        Prepared::new(&Template::new(300, 400, 197, vec![view]).unwrap())
    };
    assert_eq!(compare(&few(7), &few(7)), Score(0));
    assert_ne!(compare(&few(8), &few(8)), Score(0));
}

#[test]
fn absurd_coordinates_cost_no_memory() {
    let minutia = |i: u16| crate::template::Minutia {
        x: i * 3_000,
        y: (i * 7 % 5) * 4_000,
        angle: 0,
        kind: MinutiaKind::Ending,
        quality: 50,
    };
    let view = View::new(80, (0..5).map(minutia).collect()).unwrap();
    let template = Template::new(300, 400, 1, vec![view; 255]).unwrap();
    let prepared = Prepared::new(&template);
    assert!(prepared.memory_bytes() < MOST_VIEWS * 4096, "{}", prepared.memory_bytes());
    let _ = compare(&prepared, &prepared);
}
