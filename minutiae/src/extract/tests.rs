use super::*;
use crate::synth::Finger;

#[test]
fn an_empty_image_holds_no_print() {
    let blank = GrayImage::new(300, 400, 500, vec![255; 120_000]).unwrap();
    assert!(matches!(extract(&blank), Err(ExtractError::NoPrint { area_mm2: 0, .. })));
    assert_eq!(quality(&blank), 0);
}

#[test]
fn a_finger_gives_minutiae_inside_its_image() {
    let image = Finger::new(1).impression(1);
    let extraction = extract(&image).unwrap();
    let view = &extraction.template.views()[0];
    assert!((12..=MOST_MINUTIAE).contains(&view.minutiae().len()), "{extraction:?}");
    assert!(view.minutiae().iter().all(|m| u32::from(m.x) < image.width()));
    assert!(view.minutiae().iter().all(|m| u32::from(m.y) < image.height()));
    assert!(view.minutiae().iter().all(|m| (1..=100).contains(&m.quality)));
    assert_eq!(extraction.template.x_resolution(), 197);
    assert_eq!(view.quality(), extraction.quality);
}

#[test]
fn extraction_repeats() {
    let image = Finger::new(2).impression(1);
    assert_eq!(extract(&image), extract(&image));
}
