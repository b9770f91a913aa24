//! PNG files. Each is written under another name first, so that none is ever there by half.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::Path,
};

use anyhow::Context as _;
use minutiae::GrayImage;
use png::{BitDepth, ColorType, Compression, Encoder, PixelDimensions, Unit};

use super::Canvas;

const METRES_PER_INCH: f64 = 0.0254;

pub(in crate::template) fn write(path: &Path, canvas: &Canvas) -> anyhow::Result<()> {
    encode(path, (canvas.width, canvas.height), ColorType::Rgb, None, &canvas.bytes())
}

/// A print, with its resolution.
pub(in crate::template) fn write_print(path: &Path, print: &GrayImage) -> anyhow::Result<()> {
    let size = (print.width() as usize, print.height() as usize);
    encode(path, size, ColorType::Grayscale, Some(print.dpi()), print.pixels())
}

fn encode(
    path: &Path,
    (width, height): (usize, usize),
    colour: ColorType,
    dpi: Option<u16>,
    pixels: &[u8],
) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", path.display());
    let name = path.file_name().with_context(failed)?;
    let draft = path.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
    let written = (|| {
        let file = BufWriter::new(File::create(&draft)?);
        let mut encoder = Encoder::new(file, u32::try_from(width)?, u32::try_from(height)?);
        encoder.set_color(colour);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Balanced);
        encoder.set_pixel_dims(dpi.map(pixel_dimensions));
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()?;
        fs::rename(&draft, path)?;
        Ok::<_, anyhow::Error>(())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written.with_context(failed)
}

fn pixel_dimensions(dpi: u16) -> PixelDimensions {
    let per_metre = (f64::from(dpi) / METRES_PER_INCH).round() as u32;
    PixelDimensions { xppu: per_metre, yppu: per_metre, unit: Unit::Meter }
}
