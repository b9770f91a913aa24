use super::*;

#[test]
fn dimensions_are_checked() {
    let image = |w: u32, h: u32, dpi| GrayImage::new(w, h, dpi, vec![0; (w * h) as usize]);
    assert!(image(64, 64, 500).is_ok());
    assert_eq!(image(63, 64, 500), Err(ImageError::Side { side: "width", pixels: 63 }));
    assert_eq!(image(64, 2049, 500), Err(ImageError::Side { side: "height", pixels: 2049 }));
    assert_eq!(image(64, 64, 72), Err(ImageError::Resolution { dpi: 72 }));
}

#[test]
fn a_side_is_no_longer_than_a_finger() {
    let image = |w: u32, dpi| GrayImage::new(w, 64, dpi, vec![0; (w * 64) as usize]);
    assert!(image(2048, 500).is_ok());
    assert!(image(1024, 250).is_ok());
    let refused = image(1025, 250);
    assert_eq!(refused, Err(ImageError::Extent { side: "width", pixels: 1025, dpi: 250 }));
}

#[test]
fn the_buffer_fits_the_dimensions() {
    let short = GrayImage::new(100, 100, 500, vec![0; 9_999]);
    assert_eq!(short, Err(ImageError::PixelCount { expected: 10_000, actual: 9_999 }));
}

#[test]
fn debug_shows_no_pixels() {
    let image = GrayImage::new(64, 64, 500, vec![7; 4096]).unwrap();
    assert_eq!(format!("{image:?}"), "GrayImage(64x64, 500 dpi)");
}
