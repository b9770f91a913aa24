//! Pictures as PNG files.

use minutiae::GrayImage;
use png::{BitDepth, ColorType, Compression, Encoder, PixelDimensions, Unit};

use super::Canvas;

const METRES_PER_INCH: f64 = 0.0254;

/// The bytes of a PNG file.
pub(in crate::template) fn of(canvas: &Canvas) -> anyhow::Result<Vec<u8>> {
    encoded((canvas.width, canvas.height), ColorType::Rgb, None, &canvas.bytes())
}

/// Those of a print, with its resolution.
pub(in crate::template) fn of_print(print: &GrayImage) -> anyhow::Result<Vec<u8>> {
    let size = (print.width() as usize, print.height() as usize);
    encoded(size, ColorType::Grayscale, Some(print.dpi()), print.pixels())
}

fn encoded(
    (width, height): (usize, usize),
    colour: ColorType,
    dpi: Option<u16>,
    pixels: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, u32::try_from(width)?, u32::try_from(height)?);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    encoder.set_pixel_dims(dpi.map(pixel_dimensions));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

fn pixel_dimensions(dpi: u16) -> PixelDimensions {
    let per_metre = (f64::from(dpi) / METRES_PER_INCH).round() as u32;
    PixelDimensions { xppu: per_metre, yppu: per_metre, unit: Unit::Meter }
}
