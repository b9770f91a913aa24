//! A file to a template or an image, told by what is in it and not by its name.

use std::{fs::File, io::Cursor, io::Read as _, path::Path};

use anyhow::{Context as _, bail};
use image::{ImageFormat, ImageReader};
use minutiae::{ExtractError, Extraction, Format, GrayImage, Template, image::SIDE_PIXELS};

use super::resolution;

/// Larger files aren't read: the largest image that is accepted takes 24 MiB as 16-bit RGB.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// What most readers have, and what is assumed.
const USUAL_DPI: u16 = 500;

/// What a file holds.
pub(super) enum Input {
    Template { format: Format, template: Template },
    Image { format: ImageFormat, image: GrayImage, dpi_from: DpiFrom },
}

/// Who says an image's resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum DpiFrom {
    /// The command line.
    Option,
    /// The image file.
    File,
    /// Nobody.
    Assumed,
}

/// Reads a file and says what it holds.
pub(super) fn read(path: &Path, dpi: Option<u16>) -> anyhow::Result<Input> {
    parse(path, &bytes(path)?, dpi)
}

pub(super) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("can't read {}", path.display());
    let file = File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        bail!("{} is larger than 64 MiB: neither a template nor a finger's image", path.display());
    }
    Ok(bytes)
}

/// What the bytes of a file hold.
pub(super) fn parse(path: &Path, bytes: &[u8], dpi: Option<u16>) -> anyhow::Result<Input> {
    let name = path.display();
    match Format::detect(bytes) {
        Some(Format::ZkFinger10) => bail!(
            "{name} is a ZKFinger template, which only the vendor's SDK can read: extract an ISO \
             or ANSI template from the image"
        ),
        Some(format) => {
            let template = Template::read(bytes).with_context(|| {
                format!("{name} looks like a template ({format}), and is damaged or cut off")
            })?;
            Ok(Input::Template { format, template })
        }
        None if bytes.is_empty() => bail!("{name} is empty"),
        None => match image::guess_format(bytes) {
            Ok(format) => picture(path, bytes, format, dpi),
            Err(_) => bail!(
                "{name} is neither a template (ISO 19794-2, ANSI 378) nor an image (PNG, TIFF, \
                 BMP, PGM, JPEG)"
            ),
        },
    }
}

fn picture(
    path: &Path,
    bytes: &[u8],
    format: ImageFormat,
    dpi: Option<u16>,
) -> anyhow::Result<Input> {
    let name = path.display();
    let kind = format_name(format);
    if !format.reading_enabled() {
        bail!("{name} is {kind}, which isn't read: convert it to PNG");
    }
    let reader = || ImageReader::with_format(Cursor::new(bytes), format);
    let failed = || format!("{name} is no {kind} image that can be decoded");
    let (width, height) = reader().into_dimensions().with_context(failed)?;
    // Before it is decoded: a small file may be a picture that fills the memory.
    let (least, most) = (SIDE_PIXELS.start(), SIDE_PIXELS.end());
    if width.max(height) > *most {
        bail!(
            "{name} has {width} x {height} pixels: a finger's image has {least} to {most} a side"
        );
    }
    let grey = reader().decode().with_context(failed)?.into_luma8();
    let (dpi, dpi_from) = match (dpi, resolution::of(bytes, format)) {
        (Some(dpi), _) => (dpi, DpiFrom::Option),
        (None, Some(dpi)) => (dpi, DpiFrom::File),
        (None, None) => (USUAL_DPI, DpiFrom::Assumed),
    };
    let (width, height) = grey.dimensions();
    let image = GrayImage::new(width, height, dpi, grey.into_raw())
        .with_context(|| format!("{name} is no image of a finger"))?;
    Ok(Input::Image { format, image, dpi_from })
}

/// `PNG`
pub(super) fn format_name(format: ImageFormat) -> String {
    match format {
        ImageFormat::Pnm => "PGM".to_owned(),
        other => format!("{other:?}").to_uppercase(),
    }
}

/// Extracts, and says of which file it failed and what to look at.
pub(super) fn extracted(
    path: &Path,
    image: &GrayImage,
    dpi_from: DpiFrom,
) -> anyhow::Result<Extraction> {
    minutiae::extract(image).map_err(|error| no_template(path, image, dpi_from, &error))
}

pub(super) fn no_template(
    path: &Path,
    image: &GrayImage,
    dpi_from: DpiFrom,
    error: &ExtractError,
) -> anyhow::Error {
    let dpi = image.dpi();
    let resolution = match dpi_from {
        DpiFrom::Option => format!("--dpi says {dpi} dpi"),
        DpiFrom::File => format!("the file says {dpi} dpi; --dpi overrides it"),
        DpiFrom::Assumed => format!("{dpi} dpi was assumed; --dpi sets it"),
    };
    anyhow::anyhow!(
        "{}: {error}. Is it a fingerprint, dark on light, at the right resolution ({resolution})?",
        path.display()
    )
}

impl Input {
    /// The template, extracted where it is an image.
    pub(super) fn into_template(self, path: &Path) -> anyhow::Result<Template> {
        match self {
            Input::Template { template, .. } => Ok(template),
            Input::Image { image, dpi_from, .. } => Ok(extracted(path, &image, dpi_from)?.template),
        }
    }
}
