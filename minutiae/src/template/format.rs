//! Which format bytes claim to be.

use std::fmt;

/// A template format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// ISO/IEC 19794-2:2005 finger minutiae record.
    Iso19794_2,
    /// ANSI INCITS 378-2004 finger minutiae record.
    Ansi378,
    /// ZKFinger 10: proprietary, recognised and carried, never read.
    ZkFinger10,
}

pub(crate) const MAGIC: &[u8; 8] = b"FMR\0 20\0";
const ZKFINGER: &[u8] = b"SS21";

impl Format {
    /// Recognises a template by its first bytes.
    ///
    /// The two open formats share their magic and are told apart by the length behind it: the one
    /// by which the record ends with the bytes, else the one by which it can be a length. A ZKFinger
    /// template needs its mark and a declared length that the bytes at hand can hold.
    pub fn detect(bytes: &[u8]) -> Option<Format> {
        if bytes.starts_with(MAGIC) {
            return detect_open(bytes);
        }
        let declared = usize::from(u16_at(bytes, 8)?);
        let marked = bytes.get(2..6) == Some(ZKFINGER);
        (marked && (10..=bytes.len()).contains(&declared)).then_some(Format::ZkFinger10)
    }

    /// The length in bytes that a template of this format declares in its header.
    pub fn declared_length(self, bytes: &[u8]) -> Option<usize> {
        let short = u16_at(bytes, 8)?;
        match self {
            Format::Iso19794_2 => u32_at(bytes, 8),
            Format::Ansi378 if short == 0 => u32_at(bytes, 10),
            Format::Ansi378 | Format::ZkFinger10 => Some(usize::from(short)),
        }
    }

    /// The name that interfaces show.
    pub fn name(self) -> &'static str {
        match self {
            Format::Iso19794_2 => "ISO19794-2",
            Format::Ansi378 => "ANSI378",
            Format::ZkFinger10 => "ZKFINGER10",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn detect_open(bytes: &[u8]) -> Option<Format> {
    let fits = |format: &Format| format.declared_length(bytes) == Some(bytes.len());
    if let Some(format) = [Format::Iso19794_2, Format::Ansi378].into_iter().find(fits) {
        return Some(format);
    }
    Some(match (u16_at(bytes, 8)?, u16_at(bytes, 10)?) {
        (26.., _) => Format::Ansi378,
        (1..=25, _) | (0, 24..) => Format::Iso19794_2,
        (0, 0..=23) => Format::Ansi378,
    })
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(offset)?, *bytes.get(offset + 1)?]))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let (high, low) = (u16_at(bytes, offset)?, u16_at(bytes, offset + 2)?);
    Some(usize::from(high) << 16 | usize::from(low))
}
