//! Bytes to template. Every failure names the field it was met in.

use thiserror::Error;

use super::format::MAGIC;
use super::{Extension, Format, Minutia, MinutiaKind, Template, View};

/// Why bytes are no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The magic is none that is known.
    #[error("no minutiae record: the magic is unknown")]
    Magic,
    /// A proprietary template, recognised but not readable.
    #[error("a ZKFinger template is opaque: it can be stored and sent back, not read")]
    Opaque,
    /// The bytes end inside a field.
    #[error("{field} at byte {offset} reaches past the end")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Where it starts.
        offset: usize,
    },
    /// A field's value can't be.
    #[error("{field} at byte {offset} is {value}, which can't be")]
    Value {
        /// The field.
        field: &'static str,
        /// Where it starts.
        offset: usize,
        /// What it holds.
        value: u32,
    },
    /// The views end before the record does.
    #[error("{bytes} bytes left over behind the last view at byte {offset}")]
    Trailing {
        /// Where the views end.
        offset: usize,
        /// How many bytes are left within the declared length.
        bytes: usize,
    },
}

/// Reads one record of an open format.
pub(super) fn record(bytes: &[u8], format: Format) -> Result<Template, FormatError> {
    if !bytes.starts_with(MAGIC) {
        return Err(FormatError::Magic);
    }
    let mut reader = Reader { bytes, offset: MAGIC.len() };
    total_length(&mut reader, format)?;
    let product = match format {
        Format::Ansi378 => reader.u32("product id")?,
        Format::Iso19794_2 | Format::ZkFinger10 => 0,
    };
    let equipment = reader.u16("capture equipment")?;
    let width = reader.u16("image width")?;
    let height = reader.u16("image height")?;
    let x_resolution = reader.u16("x resolution")?;
    let y_resolution = reader.u16("y resolution")?;
    let count = reader.u8("view count")?;
    reader.u8("reserved byte")?;
    let views = (0..count).map(|_| view(&mut reader, format)).collect::<Result<Vec<_>, _>>()?;
    match reader.bytes.len() - reader.offset {
        0 => {}
        left => return Err(FormatError::Trailing { offset: reader.offset, bytes: left }),
    }
    Ok(Template { product, equipment, width, height, x_resolution, y_resolution, views })
}

/// Reads the declared length and narrows the reader to it.
fn total_length(reader: &mut Reader<'_>, format: Format) -> Result<(), FormatError> {
    let offset = reader.offset;
    let field = "total length";
    let length = match format {
        Format::Ansi378 => match reader.u16(field)? {
            0 => reader.u32(field)?,
            short => u32::from(short),
        },
        Format::Iso19794_2 | Format::ZkFinger10 => reader.u32(field)?,
    };
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    if wanted > reader.bytes.len() || wanted < reader.offset {
        return Err(FormatError::Value { field, offset, value: length });
    }
    reader.bytes = &reader.bytes[..wanted];
    Ok(())
}

fn view(reader: &mut Reader<'_>, format: Format) -> Result<View, FormatError> {
    let position = reader.u8("finger position")?;
    let number_and_impression = reader.u8("view number")?;
    let quality = reader.u8("finger quality")?;
    let count = reader.u8("minutia count")?;
    let block = reader.take("minutiae", 6 * usize::from(count))?;
    let minutiae = block.chunks_exact(6).map(|raw| minutia(raw, format)).collect();
    Ok(View {
        position,
        number: number_and_impression >> 4,
        impression: number_and_impression & 0x0f,
        quality,
        minutiae,
        extensions: extensions(reader)?,
    })
}

fn minutia(raw: &[u8], format: Format) -> Minutia {
    let kind = match raw[0] >> 6 {
        0b01 => MinutiaKind::Ending,
        0b10 => MinutiaKind::Bifurcation,
        0b00 | 0b11.. => MinutiaKind::Other,
    };
    let angle = match format {
        Format::Ansi378 => angle_from_ansi(raw[4]),
        Format::Iso19794_2 | Format::ZkFinger10 => raw[4],
    };
    Minutia {
        x: u16::from_be_bytes([raw[0] & 0x3f, raw[1]]),
        y: u16::from_be_bytes([raw[2] & 0x3f, raw[3]]),
        angle,
        kind,
        quality: raw[5],
    }
}

/// Two-degree units to 256ths of a turn. The finer scale keeps every value apart.
fn angle_from_ansi(angle: u8) -> u8 {
    let turned = (u32::from(angle) * 256 + 90) / 180;
    (turned % 256) as u8
}

fn extensions(reader: &mut Reader<'_>) -> Result<Vec<Extension>, FormatError> {
    let total = reader.u16("extended data length")?;
    let start = reader.offset;
    let bytes = reader.take("extended data", usize::from(total))?;
    let mut blocks = Reader { bytes, offset: 0 };
    let mut extensions = Vec::new();
    while blocks.offset < bytes.len() {
        extensions.push(extension(&mut blocks).map_err(|e| e.moved(start))?);
    }
    Ok(extensions)
}

fn extension(blocks: &mut Reader<'_>) -> Result<Extension, FormatError> {
    let type_code = blocks.u16("extended data type")?;
    let offset = blocks.offset;
    let length = blocks.u16("extended data block length")?;
    let Some(data_length) = usize::from(length).checked_sub(4) else {
        let field = "extended data block length";
        return Err(FormatError::Value { field, offset, value: length.into() });
    };
    let data = blocks.take("extended data block", data_length)?.to_vec();
    Ok(Extension { type_code, data })
}

impl FormatError {
    /// The same error, met in a slice that starts at `start`.
    fn moved(self, start: usize) -> Self {
        match self {
            Self::Truncated { field, offset } => Self::Truncated { field, offset: offset + start },
            Self::Value { field, offset, value } => {
                Self::Value { field, offset: offset + start, value }
            }
            Self::Trailing { offset, bytes } => Self::Trailing { offset: offset + start, bytes },
            other @ (Self::Magic | Self::Opaque) => other,
        }
    }
}

/// A cursor that never reads past its slice.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], FormatError> {
        let offset = self.offset;
        let end = offset.saturating_add(count);
        let taken = self.bytes.get(offset..end).ok_or(FormatError::Truncated { field, offset })?;
        self.offset = end;
        Ok(taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        Ok(self.take(field, 1)?[0])
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, FormatError> {
        let raw = self.take(field, 2)?;
        Ok(u16::from_be_bytes([raw[0], raw[1]]))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        let raw = self.take(field, 4)?;
        Ok(u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]))
    }
}
