//! A template that is safe to hand to vendor code.

use std::fmt;

use minutiae::{Format, Template};

use crate::error::ReaderError;

/// The SDK's template buffers have this size.
pub const MAX_TEMPLATE_BYTES: usize = 2048;

/// A template whose format, length and counts were checked: malformed ones crash the SDK.
#[derive(Clone, PartialEq, Eq)]
pub struct SdkTemplate {
    format: Format,
    bytes: Vec<u8>,
}

impl SdkTemplate {
    /// Checks a template: ISO 19794-2, ANSI 378 or ZKFinger 10, at most 2048 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<SdkTemplate, ReaderError> {
        if bytes.len() > MAX_TEMPLATE_BYTES {
            return Err(malformed(format!("{} bytes, at most {MAX_TEMPLATE_BYTES}", bytes.len())));
        }
        let format = Format::detect(&bytes).ok_or_else(|| malformed("unknown format".into()))?;
        match format {
            Format::Iso19794_2 | Format::Ansi378 => {
                Template::read(&bytes).map_err(|error| malformed(error.to_string()))?;
            }
            Format::ZkFinger10 => check_zkfinger(&bytes)?,
        }
        Ok(SdkTemplate { format, bytes })
    }

    /// The template's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The bytes, as the SDK gave or takes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, by value.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Says what it is, never what is in it.
impl fmt::Debug for SdkTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SdkTemplate({:?}, {} bytes)", self.format, self.bytes.len())
    }
}

/// ZKFinger 10 templates are opaque but for their length, at offset 8.
fn check_zkfinger(bytes: &[u8]) -> Result<(), ReaderError> {
    let stated =
        bytes.get(8..10).map_or(0, |field| usize::from(field[0]) << 8 | usize::from(field[1]));
    if stated == bytes.len() {
        return Ok(());
    }
    Err(malformed(format!("states {stated} bytes and has {}", bytes.len())))
}

fn malformed(reason: String) -> ReaderError {
    ReaderError::MalformedTemplate { reason }
}
