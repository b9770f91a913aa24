//! The grey image that extraction starts from.
//!
//! Row-major, top row first, one byte a pixel, no padding; dark ridges on light ground, as optical
//! readers deliver. What [`GrayImage::new`] refuses:
//!
//! | refused | why |
//! |---|---|
//! | a side under 64 or over 2048 pixels | smaller shows no finger; larger is no finger either, and costs memory |
//! | fewer than 200 or more than 1200 dots an inch | ridges are not resolved, or the resolution is made up |
//! | a side of more than 2048 pixels at 500 dpi, 104 mm | no finger, and extraction works at 500 dpi |
//! | a pixel buffer that isn't `width * height` long | the dimensions or the buffer are wrong |

use std::fmt;

use thiserror::Error;

/// Pixels a side: smallest and largest accepted.
pub const SIDE_PIXELS: std::ops::RangeInclusive<u32> = 64..=2048;
/// Dots an inch: smallest and largest accepted.
pub const RESOLUTION_DPI: std::ops::RangeInclusive<u16> = 200..=1200;

/// An 8-bit grey image with its resolution.
#[derive(Clone, PartialEq, Eq)]
pub struct GrayImage {
    width: u32,
    height: u32,
    dpi: u16,
    pixels: Vec<u8>,
}

/// Why an image was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// A side is too short or too long.
    #[error("image {side} of {pixels} px is outside 64 to 2048 px")]
    Side {
        /// `width` or `height`.
        side: &'static str,
        /// What was given.
        pixels: u32,
    },
    /// The resolution is out of range.
    #[error("resolution of {dpi} dpi is outside 200 to 1200 dpi")]
    Resolution {
        /// What was given.
        dpi: u16,
    },
    /// At its resolution, a side is longer than any finger.
    #[error("image {side} of {pixels} px at {dpi} dpi is more than 104 mm")]
    Extent {
        /// `width` or `height`.
        side: &'static str,
        /// What was given.
        pixels: u32,
        /// What was given.
        dpi: u16,
    },
    /// The buffer's length is not width times height.
    #[error("{actual} bytes of pixels where width and height need {expected}")]
    PixelCount {
        /// Width times height.
        expected: usize,
        /// Length of the buffer.
        actual: usize,
    },
}

impl GrayImage {
    /// Checks the dimensions and takes the pixels.
    pub fn new(width: u32, height: u32, dpi: u16, pixels: Vec<u8>) -> Result<Self, ImageError> {
        for (side, length) in [("width", width), ("height", height)] {
            if !SIDE_PIXELS.contains(&length) {
                return Err(ImageError::Side { side, pixels: length });
            }
        }
        if !RESOLUTION_DPI.contains(&dpi) {
            return Err(ImageError::Resolution { dpi });
        }
        for (side, pixels) in [("width", width), ("height", height)] {
            if pixels * 500 > SIDE_PIXELS.end() * u32::from(dpi) {
                return Err(ImageError::Extent { side, pixels, dpi });
            }
        }
        let expected = width as usize * height as usize;
        if pixels.len() != expected {
            return Err(ImageError::PixelCount { expected, actual: pixels.len() });
        }
        Ok(Self { width, height, dpi, pixels })
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Dots an inch.
    pub fn dpi(&self) -> u16 {
        self.dpi
    }

    /// Rows from the top, `width` bytes each.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Gives the pixel buffer back.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// Dimensions only: pixels of a finger never reach a log.
impl fmt::Debug for GrayImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrayImage({}x{}, {} dpi)", self.width, self.height, self.dpi)
    }
}

#[cfg(test)]
mod tests;
