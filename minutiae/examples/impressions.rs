//! Twenty generated impressions in one picture, for a person to judge:
//! `cargo run --release -p minutiae --example impressions -- FILE.png [FIRST_SEED] [one]`
//!
//! Twenty fingers, or with `one` twenty touches of the first finger.

use std::error::Error;

use image::{GrayImage, imageops};
use minutiae::synth::{Finger, HEIGHT_PIXELS, WIDTH_PIXELS};

const COLUMNS: u32 = 5;
const ROWS: u32 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("name a PNG file to write")?;
    let first: u64 = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    let one = arguments.next().is_some_and(|a| a == "one");
    let mut sheet = GrayImage::new(COLUMNS * WIDTH_PIXELS, ROWS * HEIGHT_PIXELS);
    for i in 0..COLUMNS * ROWS {
        let (finger, touch) = if one { (first, i) } else { (first + u64::from(i), 0) };
        let finger = Finger::new(finger);
        println!("{i}: {finger:?}");
        let print = finger.impression(u64::from(touch)).into_pixels();
        let print = GrayImage::from_raw(WIDTH_PIXELS, HEIGHT_PIXELS, print)
            .ok_or("an impression has another size than it says")?;
        let (column, row) = (i % COLUMNS * WIDTH_PIXELS, i / COLUMNS * HEIGHT_PIXELS);
        imageops::replace(&mut sheet, &print, i64::from(column), i64::from(row));
    }
    Ok(sheet.save(file)?)
}
