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
    /// Checks a template: ISO 19794-2, ANSI 378 or ZKFinger 10, at most 2048 bytes. What follows
    /// the length that it states is cut off: the SDK's lengths may be those of its buffers.
    pub fn new(mut bytes: Vec<u8>) -> Result<SdkTemplate, ReaderError> {
        if bytes.len() > MAX_TEMPLATE_BYTES {
            return Err(malformed(format!("{} bytes, at most {MAX_TEMPLATE_BYTES}", bytes.len())));
        }
        let format = Format::detect(&bytes).ok_or_else(|| malformed("unknown format".into()))?;
        let stated = format.declared_length(&bytes).unwrap_or(0);
        if !(1..=bytes.len()).contains(&stated) {
            return Err(malformed(format!("states {stated} bytes and has {}", bytes.len())));
        }
        bytes.truncate(stated);
        match format {
            Format::Iso19794_2 | Format::Ansi378 => {
                Template::read(&bytes).map_err(|error| malformed(error.to_string()))?;
            }
            // Opaque but for its length.
            Format::ZkFinger10 => {}
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

fn malformed(reason: String) -> ReaderError {
    ReaderError::MalformedTemplate { reason }
}

#[cfg(test)]
mod tests {
    use minutiae::synth::Finger;

    use super::*;

    #[test]
    fn what_follows_a_template_in_the_sdks_buffer_is_cut_off() {
        let template = minutiae::extract(&Finger::new(1).impression(1)).unwrap().template;
        let mut vendor = vec![7; 300];
        vendor[2..10].copy_from_slice(b"SS21\0\0\x01\x2c");
        for bytes in [template.write_iso(), template.write_ansi(), vendor] {
            let mut buffer = bytes.clone();
            buffer.resize(MAX_TEMPLATE_BYTES, 0);
            let cut = SdkTemplate::new(buffer).unwrap();
            assert_eq!(cut.as_bytes(), bytes, "{:?}", cut.format());
            assert!(SdkTemplate::new(bytes[..bytes.len() - 1].to_vec()).is_err());
        }
        assert!(SdkTemplate::new(Vec::new()).is_err());
    }
}
