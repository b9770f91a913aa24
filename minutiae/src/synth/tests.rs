use super::*;

#[test]
fn the_same_seeds_give_the_same_image() {
    let image = Finger::new(7).impression(3);
    assert_eq!(image, Finger::new(7).impression(3));
    assert_ne!(image, Finger::new(7).impression(4));
    assert_ne!(image, Finger::new(8).impression(3));
}

#[test]
fn a_name_is_a_finger() {
    let index = Finger::named("user-001/right-index");
    let again = Finger::named("user-001/right-index");
    assert_eq!(index.impression(1), again.impression(1));
    assert_ne!(index.seed, Finger::named("user-001/right-thumb").seed);
}

#[test]
fn classes_come_in_natural_proportion() {
    let mut random = Random::new(5, 5);
    let drawn: Vec<Class> = (0..10_000).map(|_| Class::draw(&mut random)).collect();
    let share = |class| drawn.iter().filter(|&&c| c == class).count() as f32 / 10_000.0;
    assert!((share(Class::Whorl) - 0.279).abs() < 0.02);
    assert!((share(Class::LeftLoop) - 0.338).abs() < 0.02);
    assert!((share(Class::Arch) - 0.037).abs() < 0.01);
}
