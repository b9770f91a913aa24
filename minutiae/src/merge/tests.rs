use super::*;
use crate::extract::extract;
use crate::synth::Finger;

fn placement(finger: &Finger, impression: u64) -> Template {
    extract(&finger.impression(impression)).unwrap().template
}

#[test]
fn three_placements_become_three_views() {
    let finger = Finger::new(3);
    let placements: Vec<Template> = (1..=3).map(|i| placement(&finger, i)).collect();
    let merged = merge(&placements.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(merged.views().len(), 3);
    assert_eq!(merged.views().iter().map(View::number).collect::<Vec<_>>(), [0, 1, 2]);
    let probe = Prepared::new(&placement(&finger, 4));
    assert!(compare(&Prepared::new(&merged), &probe).get() >= VERIFY_THRESHOLD);
}

#[test]
fn a_full_record_leaves_room_for_an_extension() {
    let minutia = |i: u16| crate::template::Minutia {
        x: 40 + i % 16 * 14 + i * i % 7,
        y: 40 + i / 16 * 14 + i * i % 5,
        angle: (i * 37 % 256) as u8,
        kind: crate::template::MinutiaKind::Ending,
        quality: 90,
    };
    let view = View::new(80, (0..255).map(minutia).collect()).unwrap();
    let full = Template::new(300, 400, 197, vec![view]).unwrap();
    let merged = merge(&[&full, &full, &full]).unwrap();
    let sealed = merged.with_extension(0x1234, &[7; 48]).unwrap();
    assert!(sealed.write_iso().len() <= RECORD_BYTES, "{}", sealed.write_iso().len());
    assert!(merged.views().iter().all(|v| v.minutiae().len() > 100));
}

#[test]
fn another_finger_is_named() {
    let finger = Finger::new(3);
    let (a, b) = (placement(&finger, 1), placement(&finger, 2));
    let stranger = placement(&Finger::new(4), 1);
    for (order, odd) in
        [([&stranger, &a, &b], 1), ([&a, &stranger, &b], 2), ([&a, &b, &stranger], 3)]
    {
        let refused = merge(&order);
        assert!(
            matches!(refused, Err(MergeError::Unlike { placement, .. }) if placement == odd),
            "{refused:?}"
        );
    }
    assert_eq!(merge(&[]), Err(MergeError::Count { count: 0 }));
}
