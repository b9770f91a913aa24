//! An image file as the sensor would have taken it: decoded, fitted to the sensor's size, and with
//! its template.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};
use minutiae::Template;
use minutiae::image::GrayImage;

use crate::world::ImageFile;
use crate::{SENSOR_DPI, SENSOR_HEIGHT_PX, SENSOR_WIDTH_PX};

/// Larger files aren't opened.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;
/// Larger pictures aren't decoded.
const MAX_SIDE_PX: u32 = 4096;
/// White paper, where the picture doesn't reach the sensor's edge and says nothing itself.
const WHITE: u8 = 255;

/// One placement of a finger.
#[derive(Debug)]
pub(crate) struct Picture {
    /// Grey values, row by row; `None` when the file isn't an image.
    pub(crate) pixels: Option<Vec<u8>>,
    /// Its template; `None` when it shows no usable print.
    pub(crate) template: Option<Template>,
}

/// What a file holds, and as what it is to be read.
#[derive(Debug, Hash)]
pub(crate) struct Content {
    extension: String,
    raw_size: Option<(u32, u32)>,
    bytes: Option<Vec<u8>>,
}

impl Content {
    /// Reads a file. One that is too large, or gone again, is an empty one.
    pub(crate) fn read(file: &ImageFile) -> Content {
        let fits = file.size_bytes <= MAX_FILE_BYTES;
        Content {
            extension: file.extension(),
            raw_size: file.raw_size(),
            bytes: fits.then(|| fs::read(&file.path).ok()).flatten(),
        }
    }

    /// Equal for equal contents; that different ones collide isn't to be expected.
    pub(crate) fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl Picture {
    /// Whatever is wrong with the content makes a bad placement, not an error.
    pub(crate) fn of(content: &Content) -> Picture {
        let Some(pixels) = decode(content).map(|picture| picture.fit()) else {
            return Picture { pixels: None, template: None };
        };
        let template =
            GrayImage::new(SENSOR_WIDTH_PX, SENSOR_HEIGHT_PX, SENSOR_DPI, pixels.clone())
                .ok()
                .and_then(|image| minutiae::extract(&image).ok())
                .map(|extraction| extraction.template);
        Picture { pixels: Some(pixels), template }
    }
}

/// A grey picture of any size.
struct Decoded {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

fn decode(content: &Content) -> Option<Decoded> {
    let bytes = content.bytes.as_deref()?;
    let format = match content.extension.as_str() {
        "raw" => return decode_raw(content.raw_size?, bytes),
        "png" => ImageFormat::Png,
        "bmp" => ImageFormat::Bmp,
        _ => ImageFormat::Tiff,
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE_PX);
    limits.max_image_height = Some(MAX_SIDE_PX);
    reader.limits(limits);
    let grey = reader.decode().ok()?.into_luma8();
    Some(Decoded { width: grey.width(), height: grey.height(), pixels: grey.into_raw() })
}

fn decode_raw((width, height): (u32, u32), pixels: &[u8]) -> Option<Decoded> {
    let expected = u64::from(width) * u64::from(height);
    let fits = expected > 0 && expected == pixels.len() as u64;
    fits.then(|| Decoded { width, height, pixels: pixels.to_vec() })
}

impl Decoded {
    /// Centred on the sensor: what is too large is cut, what is missing has the border's grey.
    fn fit(&self) -> Vec<u8> {
        if (self.width, self.height) == (SENSOR_WIDTH_PX, SENSOR_HEIGHT_PX) {
            return self.pixels.clone();
        }
        let ground = self.border_grey();
        let (dx, dy) = (
            (i64::from(self.width) - i64::from(SENSOR_WIDTH_PX)).div_euclid(2),
            (i64::from(self.height) - i64::from(SENSOR_HEIGHT_PX)).div_euclid(2),
        );
        let rows = 0..i64::from(SENSOR_HEIGHT_PX);
        rows.flat_map(|y| (0..i64::from(SENSOR_WIDTH_PX)).map(move |x| (x + dx, y + dy)))
            .map(|(x, y)| self.at(x, y).unwrap_or(ground))
            .collect()
    }

    fn at(&self, x: i64, y: i64) -> Option<u8> {
        let (x, y) = (u32::try_from(x).ok()?, u32::try_from(y).ok()?);
        if x >= self.width || y >= self.height {
            return None;
        }
        self.pixels.get(y as usize * self.width as usize + x as usize).copied()
    }

    /// The median of the outermost rows, so that the seam isn't taken for a ridge.
    fn border_grey(&self) -> u8 {
        let width = self.width as usize;
        let mut border: Vec<u8> = self.pixels.iter().take(width).copied().collect();
        border.extend(self.pixels.iter().rev().take(width));
        border.sort_unstable();
        border.get(border.len() / 2).copied().unwrap_or(WHITE)
    }
}
