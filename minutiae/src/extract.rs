//! From a grey image to minutiae.
//!
//! | step | module | method |
//! |---|---|---|
//! | scale to 500 dpi, even out brightness and contrast | `ground` | local mean and deviation |
//! | find the print | `ground`, `period` | local contrast where the image alternates as ridges do, cleaned by majority |
//! | direction of the ridges | `orientation` | structure tensor, averaged as doubled angles at two scales |
//! | distance of the ridges | `period` | spectrum of the signature across the ridge, pooled over neighbours |
//! | make the ridges clear | `ridges` | Gabor filtering by direction and distance, twice: the second pass takes the direction from the first one's ridges |
//! | one-pixel lines | `skeleton` | sign, then thinning by removable border points |
//! | ends and forks | `detect` | crossing number, after spurs, islands, breaks and bridges are mended |
//! | how good it is | `grade` | agreement of the image with its own ridges, coherence, minutiae |
//!
//! Failures: an image without a print ([`ExtractError::NoPrint`]), a print with too few minutiae to
//! tell anybody apart ([`ExtractError::TooFewMinutiae`]).

mod detect;
mod grade;
mod ground;
mod orientation;
mod period;
mod ridges;
mod skeleton;
mod stages;

use thiserror::Error;

use crate::image::GrayImage;
use crate::map::Map;
use crate::template::{Minutia, Template, View};
use detect::Found;
use ground::Ground;
use orientation::Field;
use skeleton::Skeleton;

pub use stages::{Orientation, Stages, stages};

/// Fewest minutiae that make a template.
pub const FEWEST_MINUTIAE: usize = 8;
/// Most minutiae that a template keeps, the best ones.
pub const MOST_MINUTIAE: usize = 100;
/// Smallest print in square millimetres.
pub const SMALLEST_PRINT_MM2: u32 = 25;
const PIXELS_PER_MM: f32 = 500.0 / 25.4;

/// What an image gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extraction {
    /// One view in the image's own pixels and resolution.
    pub template: Template,
    /// From 0, useless, to 100.
    pub quality: u8,
}

/// Why an image gave no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExtractError {
    /// No ridges, or too small a patch of them.
    #[error("no fingerprint: {area_mm2} mm² of ridges, at least {needed_mm2} are needed")]
    NoPrint {
        /// Area that shows ridges.
        area_mm2: u32,
        /// Area that is needed.
        needed_mm2: u32,
    },
    /// Ridges, but hardly any minutiae.
    #[error("{found} minutiae found, at least {needed} are needed")]
    TooFewMinutiae {
        /// How many were found.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
}

/// Extracts the minutiae of one image.
pub fn extract(image: &GrayImage) -> Result<Extraction, ExtractError> {
    let analysis = Analysis::of(image)?;
    let mut found = analysis.minutiae();
    if found.len() < FEWEST_MINUTIAE {
        let (found, needed) = (found.len(), FEWEST_MINUTIAE);
        return Err(ExtractError::TooFewMinutiae { found, needed });
    }
    found.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    found.truncate(MOST_MINUTIAE);
    let quality = analysis.quality(&found);
    let template = analysis.template(image, quality, &found);
    Ok(Extraction { template, quality })
}

/// Quality of an image from 0 to 100; 0 where [`extract()`] fails.
pub fn quality(image: &GrayImage) -> u8 {
    extract(image).map_or(0, |extraction| extraction.quality)
}

/// Everything that is known about an image, at about 500 dpi.
struct Analysis {
    /// Pixels here for one of the image's.
    scale: f32,
    ground: Ground,
    field: Field,
    /// Pixels from ridge to ridge a cell.
    period: Map,
    /// Filtered image, positive on ridges.
    ridges: Map,
    /// How far the image agrees with its ridges, 0 to 1 a cell.
    agreement: Map,
}

impl Analysis {
    fn of(image: &GrayImage) -> Result<Self, ExtractError> {
        let scale = scale_for(image.dpi());
        let ground = Ground::of(image, scale);
        let area_mm2 = ground.area_pixels() as f32 / (PIXELS_PER_MM * PIXELS_PER_MM);
        if area_mm2 < SMALLEST_PRINT_MM2 as f32 {
            let (area_mm2, needed_mm2) = (area_mm2 as u32, SMALLEST_PRINT_MM2);
            return Err(ExtractError::NoPrint { area_mm2, needed_mm2 });
        }
        let period = ground.spectra.period(&ground.mask);
        let first = ridges::enhance(&ground, &ground.rough, &period);
        let field = Field::refined(&first);
        let ridges = ridges::enhance(&ground, &field, &period);
        let agreement = grade::agreement(&ground, &ridges);
        Ok(Self { scale, ground, field, period, ridges, agreement })
    }

    fn minutiae(&self) -> Vec<Found> {
        let mut skeleton = Skeleton::of(&self.ridges, &self.ground.mask);
        detect::minutiae(&mut skeleton, &self.ground.mask, &self.field, &self.agreement)
    }

    fn quality(&self, found: &[Found]) -> u8 {
        grade::quality(&self.ground, &self.agreement, &self.field, found)
    }

    fn template(&self, image: &GrayImage, quality: u8, found: &[Found]) -> Template {
        let minutiae = found.iter().map(|f| self.minutia(f)).collect();
        let resolution = (f32::from(image.dpi()) / 2.54).round() as u16;
        let (width, height) = (image.width() as u16, image.height() as u16);
        // Both limits hold by construction: at most 100 minutiae within at most 2048 pixels.
        View::new(quality, minutiae)
            .and_then(|view| Template::new(width, height, resolution, vec![view]))
            .unwrap_or_else(|error| unreachable!("extraction kept its limits: {error}"))
    }

    fn minutia(&self, found: &Found) -> Minutia {
        // The record counts counter-clockwise, the image's y points down.
        let turns = (-found.direction / std::f32::consts::TAU).rem_euclid(1.0);
        Minutia {
            x: (found.x / self.scale).round() as u16,
            y: (found.y / self.scale).round() as u16,
            angle: ((turns * 256.0).round() as u32 % 256) as u8,
            kind: found.kind,
            quality: (found.quality * 100.0).clamp(1.0, 100.0) as u8,
        }
    }
}

/// How an image is scaled. One of nearly 500 dpi is left as it is: what that is off by is less than skin
/// stretches, and less than scaling blurs.
fn scale_for(dpi: u16) -> f32 {
    const NEARLY: f32 = 0.02;
    let scale = 500.0 / f32::from(dpi);
    if (scale - 1.0).abs() < NEARLY { 1.0 } else { scale }
}

#[cfg(test)]
mod tests;
