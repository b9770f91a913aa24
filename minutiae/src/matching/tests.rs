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
fn a_template_without_minutiae_matches_nothing() {
    let template = Template::new(300, 400, 197, vec![View::new(0, vec![]).unwrap()]).unwrap();
    let empty = Prepared::new(&template);
    assert_eq!(compare(&empty, &prepared(&Finger::new(11), 1)), Score(0));
    assert_eq!(compare(&empty, &empty), Score(0));
}
