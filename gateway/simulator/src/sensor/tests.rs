use std::time::Duration;

use super::*;

fn file(name: &str, inode: u64) -> ImageFile {
    ImageFile { path: PathBuf::from(name), modified_ns: 0, inode, size_bytes: 1 }
}

fn until_finger(sensor: &mut Sensor, now: Instant, images: &[ImageFile]) -> (u8, Look) {
    for nothing in 0..=u8::MAX {
        match sensor.look(now, images) {
            Look::Nothing => {}
            other => return (nothing, other),
        }
    }
    panic!("no finger in {} looks", u8::MAX)
}

#[test]
fn a_finger_stays_until_its_file_is_gone() {
    let (mut sensor, now, a) = (Sensor::default(), Instant::now(), file("a.png", 1));
    let images = [a.clone()];
    for _ in 0..3 {
        assert_eq!(sensor.look(now, &images), Look::Finger(a.clone()));
    }
    assert_eq!(sensor.look(now, &[]), Look::Nothing);
}

#[test]
fn between_two_fingers_the_glass_is_empty_for_a_few_looks() {
    let (mut sensor, now) = (Sensor::default(), Instant::now());
    let (a, b) = (file("a.png", 1), file("b.png", 2));
    assert_eq!(sensor.look(now, &[a.clone(), b.clone()]), Look::Finger(a));
    let (empty, next) = until_finger(&mut sensor, now, std::slice::from_ref(&b));
    assert_eq!((empty, next), (GAP_ANSWERS, Look::Finger(b)));
}

#[test]
fn a_file_replaced_under_the_same_name_is_a_new_touch() {
    let (mut sensor, now) = (Sensor::default(), Instant::now());
    assert_eq!(sensor.look(now, &[file("a.png", 1)]), Look::Finger(file("a.png", 1)));
    let (empty, next) = until_finger(&mut sensor, now, &[file("a.png", 2)]);
    assert_eq!((empty, next), (GAP_ANSWERS, Look::Finger(file("a.png", 2))));
}

#[test]
fn a_held_finger_lifts_by_itself_once_even_if_its_file_cannot_be_deleted() {
    let (mut sensor, now, a) = (Sensor::default(), Instant::now(), file("a@100ms.png", 1));
    let images = [a.clone()];
    assert_eq!(sensor.look(now, &images), Look::Finger(a.clone()));
    let later = now + Duration::from_millis(99);
    assert_eq!(sensor.look(later, &images), Look::Finger(a.clone()));
    let over = now + Duration::from_millis(100);
    assert_eq!(sensor.look(over, &images), Look::Lifted(a.path));
    for _ in 0..20 {
        assert_eq!(sensor.look(over, &images), Look::Nothing);
    }
}
