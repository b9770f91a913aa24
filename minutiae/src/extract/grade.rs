//! How good a print is.

use crate::filter::CELL;
use crate::map::Map;

use super::PIXELS_PER_MM;
use super::detect::Found;
use super::ground::Ground;
use super::orientation::Field;

/// Reach of the comparison in cells.
const REACH_CELLS: usize = 3;
/// Minutiae of full quality that are as many as is useful.
const MANY_MINUTIAE: f32 = 30.0;
/// Minutiae a square millimetre from which some are taken for scratches and grain, and so many more that
/// they weigh as much as the rest.
const CROWD_PER_MM2: f32 = 0.27;
const CROWD_SCALE: f32 = 0.155;

/// How far the even image is what its filtered ridges say: the local correlation of the two.
pub(super) fn agreement(ground: &Ground, ridges: &Map) -> Map {
    let (width, height) = (ground.mask.width, ground.mask.height);
    let mut sums = [Map::new(width, height), Map::new(width, height), Map::new(width, height)];
    for y in 0..ridges.height {
        for x in 0..ridges.width {
            let (image, ridge) = (-ground.even.at(x, y), ridges.at(x, y));
            let cell = y / CELL * width + x / CELL;
            sums[0].data[cell] += image * ridge;
            sums[1].data[cell] += image * image;
            sums[2].data[cell] += ridge * ridge;
        }
    }
    let [both, image, ridge] = sums.map(|s| s.box_mean(REACH_CELLS));
    Map::from_fn(width, height, |x, y| {
        let power = (image.at(x, y) * ridge.at(x, y)).sqrt() + 1e-3;
        (both.at(x, y) / power).clamp(0.0, 1.0)
    })
}

/// Quality from 0 to 100: how clear the ridges are, and whether there are minutiae enough that can be
/// trusted, and not more than skin has.
///
/// Neither contrast nor area counts by itself. Of prints spoilt in many ways, faint ones match as well as
/// others as long as their ridges are clear, and a small one has few minutiae.
pub(super) fn quality(ground: &Ground, agreement: &Map, field: &Field, found: &[Found]) -> u8 {
    let mut clear = 0.0;
    let mut cells = 0.0f32;
    for y in 0..ground.mask.height {
        for x in 0..ground.mask.width {
            if ground.mask.cell(x, y) {
                let (px, py) = ((x * CELL) as f32, (y * CELL) as f32);
                clear += agreement.at(x, y) * field.coherence(px, py);
                cells += 1.0;
            }
        }
    }
    let clarity = clear / cells.max(1.0);
    let minutiae = found.iter().map(|f| f.quality).sum::<f32>().min(MANY_MINUTIAE) / MANY_MINUTIAE;
    let per_mm2 =
        found.len() as f32 / (ground.area_pixels() as f32 / PIXELS_PER_MM.powi(2)).max(1.0);
    let crowd = (per_mm2 - CROWD_PER_MM2).max(0.0) / CROWD_SCALE;
    scaled(clarity * minutiae.powf(0.6) / (1.0 + crowd).sqrt()).round() as u8
}

/// Quality of a share of what is useful, scaled so that about a tenth of the prints of FVC2002 DB4_B
/// stays below 60. Linear up to there; the best prints crowd together under 100 without reaching it, so
/// that they still tell each other apart.
fn scaled(share: f32) -> f32 {
    const LINEAR_TO: f32 = 60.0;
    let linear = 138.0 * share.clamp(0.0, 1.0);
    let left = 100.0 - LINEAR_TO;
    let beyond = (linear - LINEAR_TO).max(0.0);
    linear.min(LINEAR_TO) + left * (1.0 - (-beyond / left).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_prints_still_differ() {
        let qualities: Vec<f32> = (0..=100).map(|share| scaled(share as f32 / 100.0)).collect();
        assert!(qualities.is_sorted_by(|a, b| a < b), "{qualities:?}");
        assert_eq!(qualities[0], 0.0);
        assert!((90.0..100.0).contains(&qualities[100]), "{}", qualities[100]);
    }
}
