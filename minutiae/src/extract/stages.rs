//! Pictures of what extraction makes of an image, step by step, for people to look at.

use crate::filter::CELL;
use crate::image::GrayImage;
use crate::map::Map;
use crate::template::MinutiaKind;

use super::skeleton::Skeleton;
use super::{Analysis, ExtractError};

/// One step's picture: 8-bit grey, row-major, at 500 dpi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// What is shown; fit for a file's name.
    pub name: &'static str,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Rows from the top.
    pub pixels: Vec<u8>,
}

/// The steps of extraction in their order: even ground, mask, directions, ridges, skeleton, minutiae.
///
/// Minutiae are drawn on the even ground: a ring at the place, a line towards the direction, dark for
/// endings and light for forks.
pub fn stages(image: &GrayImage) -> Result<Vec<Stage>, ExtractError> {
    let analysis = Analysis::of(image)?;
    let even = &analysis.ground.even;
    let ground = picture("1-even", even, |x, y| 128.0 + 50.0 * even.at(x, y));
    let mask = picture("2-mask", even, |x, y| {
        let inside = analysis.ground.mask.contains(x as f32, y as f32);
        if inside { 128.0 + 50.0 * even.at(x, y) } else { 0.0 }
    });
    let ridges = picture("4-ridges", even, |x, y| 128.0 - 120.0 * analysis.ridges.at(x, y));
    let lines = Skeleton::of(&analysis.ridges, &analysis.ground.mask);
    let skeleton = picture("5-skeleton", even, |x, y| {
        let line = lines.pixels[lines.index(x as f32, y as f32)] != 0;
        if line { 0.0 } else { 255.0 }
    });
    Ok(vec![ground, mask, directions(&analysis), ridges, skeleton, minutiae(&analysis)])
}

fn picture(name: &'static str, like: &Map, grey: impl Fn(usize, usize) -> f32) -> Stage {
    let (width, height) = (like.width, like.height);
    let pixels = (0..width * height)
        .map(|i| grey(i % width, i / width).round().clamp(0.0, 255.0) as u8)
        .collect();
    Stage { name, width, height, pixels }
}

/// A dash along the ridge in every fourth cell; the lighter, the less the neighbourhood agrees.
fn directions(analysis: &Analysis) -> Stage {
    let mut stage = picture("3-directions", &analysis.ground.even, |_, _| 255.0);
    let step = 3 * CELL;
    for y in (step / 2..stage.height).step_by(step) {
        for x in (step / 2..stage.width).step_by(step) {
            let (x, y) = (x as f32, y as f32);
            if analysis.ground.mask.contains(x, y) {
                let (sin, cos) = analysis.field.at(x, y).sin_cos();
                let grey = 200.0 - 200.0 * analysis.field.coherence(x, y);
                for along in -5..=5 {
                    let along = along as f32;
                    stage.dot(x + along * cos, y + along * sin, grey as u8);
                }
            }
        }
    }
    stage
}

fn minutiae(analysis: &Analysis) -> Stage {
    let even = &analysis.ground.even;
    let mut stage = picture("6-minutiae", even, |x, y| 150.0 + 35.0 * even.at(x, y));
    for found in analysis.minutiae() {
        let grey = match found.kind {
            MinutiaKind::Ending | MinutiaKind::Other => 0,
            MinutiaKind::Bifurcation => 255,
        };
        for part in 0..24 {
            let (sin, cos) = (part as f32 * std::f32::consts::TAU / 24.0).sin_cos();
            stage.dot(found.x + 3.0 * cos, found.y + 3.0 * sin, grey);
        }
        let (sin, cos) = found.direction.sin_cos();
        for along in 3..13 {
            stage.dot(found.x + along as f32 * cos, found.y + along as f32 * sin, grey);
        }
    }
    stage
}

impl Stage {
    fn dot(&mut self, x: f32, y: f32, grey: u8) {
        let (x, y) = (x.round(), y.round());
        if x >= 0.0 && y >= 0.0 && (x as usize) < self.width && (y as usize) < self.height {
            self.pixels[y as usize * self.width + x as usize] = grey;
        }
    }
}
