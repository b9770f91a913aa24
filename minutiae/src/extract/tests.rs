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

#[test]
fn every_stage_can_be_looked_at() {
    let image = Finger::new(1).impression(1);
    let stages = stages(&image).unwrap();
    assert_eq!((stages.width, stages.height, stages.scale), (300, 400, 1.0));
    for (name, plane) in [
        ("mask", &stages.mask),
        ("binary", &stages.binary),
        ("skeleton", &stages.skeleton),
        ("mended", &stages.mended),
    ] {
        assert_eq!(plane.len(), 300 * 400, "{name}");
        let set = plane.iter().filter(|&&p| p).count();
        assert!((1_000..119_000).contains(&set), "{name}: {set}");
    }
    let count = |plane: &[bool]| plane.iter().filter(|&&p| p).count();
    assert!(count(&stages.skeleton) * 2 < count(&stages.binary), "thinned");
    assert_ne!(stages.skeleton, stages.mended);
    for plane in [&stages.even, &stages.ridges] {
        assert_eq!(plane.len(), 300 * 400);
        assert_ne!(plane.iter().min(), plane.iter().max());
    }
    let ridge = |o: &Orientation| (4.0..16.0).contains(&o.period) && o.coherence <= 1.0;
    assert!(stages.orientation.len() > 1_000 && stages.orientation.iter().all(ridge));
    let extraction = extract(&image).unwrap();
    assert_eq!(stages.minutiae, extraction.template.views()[0].minutiae());
    assert_eq!(stages.quality, extraction.quality);
}

#[test]
fn the_smallest_and_the_largest_image_are_handled() {
    let stripes = |side: u32, dpi: u16, period: u32| {
        let pixels = (0..side * side).map(|i| 40 + 180 * (i % side / period % 2) as u8);
        GrayImage::new(side, side, dpi, pixels.collect()).unwrap()
    };
    assert!(matches!(extract(&stripes(64, 1200, 10)), Err(ExtractError::NoPrint { .. })));
    assert!(extract(&stripes(64, 500, 4)).is_err());
    assert!(extract(&stripes(2048, 1200, 10)).is_err(), "stripes have no minutiae");
}

#[test]
fn resolution_changes_places_in_step() {
    let image = Finger::new(3).impression(1);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let mut pixels = Vec::with_capacity(4 * width * height);
    for y in 0..2 * height {
        pixels.extend((0..2 * width).map(|x| image.pixels()[y / 2 * width + x / 2]));
    }
    let fine = GrayImage::new(600, 800, 1000, pixels).unwrap();
    let (coarse, fine) = (extract(&image).unwrap(), extract(&fine).unwrap());
    assert_eq!(fine.template.x_resolution(), 394);
    let prepared = [&coarse, &fine].map(|e| crate::Prepared::new(&e.template));
    let score = crate::compare(&prepared[0], &prepared[1]).get();
    assert!(score >= 300, "{score}");
}

/// 508 dpi, 200 pixels a centimetre, is common. Such an image isn't scaled, and minutiae lie in its pixels.
#[test]
fn a_resolution_near_500_moves_nothing() {
    let image = Finger::new(3).impression(1);
    let places = |dpi| {
        let image = GrayImage::new(image.width(), image.height(), dpi, image.pixels().to_vec());
        let template = extract(&image.unwrap()).unwrap().template;
        template.views()[0].minutiae().iter().map(|m| (m.x, m.y)).collect::<Vec<_>>()
    };
    for dpi in [491, 508, 510] {
        assert_eq!(places(dpi), places(500), "{dpi}");
    }
}

#[test]
fn noise_is_no_finger_and_never_fails() {
    let mut random = crate::random::Random::new(1, 1);
    for _ in 0..4 {
        let pixels = (0..200 * 250).map(|_| random.next_u64() as u8).collect();
        let image = GrayImage::new(200, 250, 500, pixels).unwrap();
        let quality = quality(&image);
        assert!(quality < 25, "{quality}");
    }
}

#[test]
fn a_faint_print_is_the_same_finger() {
    let finger = Finger::new(4);
    let faint = finger.impression(1);
    let pixels = faint.pixels().iter().map(|&p| 150 + (f32::from(p) * 0.12) as u8).collect();
    let faint = GrayImage::new(faint.width(), faint.height(), 500, pixels).unwrap();
    let prepared = [faint, finger.impression(2)]
        .map(|image| crate::Prepared::new(&extract(&image).unwrap().template));
    let score = crate::compare(&prepared[0], &prepared[1]).get();
    assert!(score >= 110, "{score}");
}

#[test]
fn faint_noise_is_no_print() {
    let mut random = crate::random::Random::new(1, 2);
    for levels in [8, 16, 32] {
        let pixels = (0..300 * 400).map(|_| 150 + (random.next_u64() % levels) as u8).collect();
        let image = GrayImage::new(300, 400, 500, pixels).unwrap();
        let found = extract(&image);
        assert!(matches!(found, Err(ExtractError::NoPrint { .. })), "{levels}: {found:?}");
    }
}

/// The sensor's housing and the glass's edge have more contrast than any ridge, and are no print.
#[test]
fn edges_are_no_print() {
    let (width, height) = (300usize, 400usize);
    let image = |level: &dyn Fn(usize, usize) -> u8| {
        let pixels = (0..width * height).map(|i| level(i % width, i / width)).collect();
        GrayImage::new(width as u32, height as u32, 500, pixels).unwrap()
    };
    let edge = |x: usize, y: usize| x.min(y).min(width - 1 - x).min(height - 1 - y);
    for empty in [
        image(&|x, y| if edge(x, y) < 8 { 20 } else { 245 }),
        image(&|x, y| if edge(x, y) < 60 { 20 } else { 245 }),
        image(&|x, y| if x + y < 350 { 20 } else { 245 }),
    ] {
        assert!(matches!(extract(&empty), Err(ExtractError::NoPrint { .. })));
    }
    let print = Finger::new(3).impression(1);
    let framed = image(&|x, y| if edge(x, y) < 8 { 20 } else { print.pixels()[y * width + x] });
    let (alone, framed) = (stages(&print).unwrap(), stages(&framed).unwrap());
    let area = |stages: &Stages| stages.mask.iter().filter(|&&inside| inside).count();
    let is_at_frame = |m: &&crate::Minutia| edge(m.x.into(), m.y.into()) < 12;
    assert_eq!(framed.minutiae.iter().filter(is_at_frame).count(), 0);
    assert!(10 * area(&framed) > 9 * area(&alone), "{} of {}", area(&framed), area(&alone));
}
