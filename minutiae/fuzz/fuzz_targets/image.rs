//! Any image: extracted or refused, and what is extracted is a template that reads back.
//!
//! Five bytes say the sides and the resolution, what follows is drawn as a small picture and stretched
//! over the image: fuzzing a hundred thousand pixels one by one leads nowhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minutiae::{GrayImage, Prepared, Template, extract};

fuzz_target!(|bytes: &[u8]| {
    let Some((&[width, height, dpi, cell, grain], picture)) = bytes.split_first_chunk() else {
        return;
    };
    let (width, height) = (48 + 2 * u32::from(width), 48 + 2 * u32::from(height));
    let (dpi, cell) = (150 + 5 * u16::from(dpi), 1 + u32::from(cell % 32));
    let columns = width.div_ceil(cell);
    let pixel = |i: u32| {
        let (column, row) = (i % width / cell, i / width / cell);
        let drawn = picture.get((row * columns + column) as usize % picture.len().max(1));
        let noise = (i.wrapping_mul(0x9e37_79b9) >> 24) as u8 % grain.max(1);
        drawn.copied().unwrap_or(0).wrapping_add(noise)
    };
    let pixels = (0..width * height).map(pixel).collect();
    let Ok(image) = GrayImage::new(width, height, dpi, pixels) else { return };
    if let Ok(extraction) = extract(&image) {
        assert!(extraction.quality <= 100);
        let template = &extraction.template;
        assert_eq!(Template::read(&template.write_iso()).as_ref(), Ok(template));
        let view = &template.views()[0];
        assert!(view.minutiae().iter().all(|m| u32::from(m.x) <= width && u32::from(m.y) <= height));
        let _ = Prepared::new(template);
    }
});
