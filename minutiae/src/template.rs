//! Minutiae records: the parts, and the formats they are read from and written to.
//!
//! A [`Template`] holds one view for each placement of the finger; a view holds its minutiae and its
//! extended data blocks. The same template is written as ISO/IEC 19794-2:2005 or ANSI INCITS
//! 378-2004; both are big-endian.
//!
//! | ISO offset | ANSI offset | size | field |
//! |---|---|---|---|
//! | 0 | 0 | 8 | `FMR\0 20\0` |
//! | 8 | 8 | 4 (ANSI: 2, or 2 zero bytes and 4) | total length |
//! | - | 10 | 4 | product owner, product type |
//! | 12 | 14 | 2 | capture equipment |
//! | 14 | 16 | 4 | image width, height in pixels |
//! | 18 | 20 | 4 | resolution across, down in pixels a centimetre |
//! | 22 | 24 | 2 | number of views, 0 |
//! | 24 | 26 | | views |
//!
//! A view: finger position u8, view number and impression type 4 bits each, quality u8, count u8;
//! six bytes a minutia (2 bits kind and 14 bits x; 14 bits y; angle u8; quality u8); u16 length of
//! the extended data, then its blocks, each u16 type, u16 length with these four bytes, data. An ISO
//! angle counts 360/256 degrees, an ANSI angle two degrees.
//!
//! Reading is total: any bytes give a template or a [`FormatError`] that names the field. Nothing is
//! allocated beyond what the bytes at hand can fill.

mod format;
mod read;
mod write;

use std::fmt;

use thiserror::Error;

pub use format::Format;
pub use read::FormatError;

/// Most minutiae that one view can carry: its count is one byte.
pub const MAX_MINUTIAE: usize = 255;
/// Most views that one record can carry.
pub const MAX_VIEWS: usize = 255;
/// Largest coordinate: 14 bits.
pub const MAX_COORDINATE: u16 = 0x3fff;
/// 500 dots an inch in pixels a centimetre.
pub const RESOLUTION_500_DPI: u16 = 197;

/// What a minutia is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MinutiaKind {
    /// Neither, or not known.
    Other,
    /// A ridge ends.
    Ending,
    /// A ridge forks.
    Bifurcation,
}

/// One minutia.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Minutia {
    /// Pixels from the left, at most [`MAX_COORDINATE`].
    pub x: u16,
    /// Pixels from the top, at most [`MAX_COORDINATE`].
    pub y: u16,
    /// Direction in 360/256 degrees, counter-clockwise from the x axis: along the ending ridge away
    /// from its end, or between the two legs of a fork.
    pub angle: u8,
    /// Ending, fork or other.
    pub kind: MinutiaKind,
    /// 1 to 100; 0 where it isn't given.
    pub quality: u8,
}

impl Minutia {
    /// The quality if the formats know it: what is beyond 100, whoever wrote it, counts as not given.
    pub(crate) fn known_quality(&self) -> u8 {
        if self.quality <= 100 { self.quality } else { 0 }
    }
}

/// An extended data block: an owner's own data inside a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extension {
    /// Whose data, and which.
    pub type_code: u16,
    /// Without the block's header.
    pub data: Vec<u8>,
}

/// One placement of a finger.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct View {
    position: u8,
    number: u8,
    impression: u8,
    quality: u8,
    minutiae: Vec<Minutia>,
    extensions: Vec<Extension>,
}

/// A minutiae record of one finger.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template {
    product: u32,
    equipment: u16,
    width: u16,
    height: u16,
    x_resolution: u16,
    y_resolution: u16,
    views: Vec<View>,
}

/// Why parts don't make a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// More minutiae than a view's count can say.
    #[error("{count} minutiae in a view, at most 255 fit")]
    TooManyMinutiae {
        /// How many there are.
        count: usize,
    },
    /// A coordinate needs more than 14 bits.
    #[error("minutia {index} lies at {x}, {y}: coordinates go to 16383")]
    Coordinate {
        /// Which minutia, from 0.
        index: usize,
        /// Its x.
        x: u16,
        /// Its y.
        y: u16,
    },
    /// More views than a record's count can say.
    #[error("{count} views in a record, at most 255 fit")]
    TooManyViews {
        /// How many there are.
        count: usize,
    },
    /// Extended data of a view outgrows its 16-bit length, or there is no view to carry it.
    #[error("{bytes} bytes of extended data don't fit the view")]
    Extension {
        /// What all blocks of the view would take.
        bytes: usize,
    },
}

impl View {
    /// A view of an unknown finger, live and plain, with the minutiae checked.
    pub fn new(quality: u8, minutiae: Vec<Minutia>) -> Result<Self, TemplateError> {
        if minutiae.len() > MAX_MINUTIAE {
            return Err(TemplateError::TooManyMinutiae { count: minutiae.len() });
        }
        if let Some(index) =
            minutiae.iter().position(|m| m.x > MAX_COORDINATE || m.y > MAX_COORDINATE)
        {
            let Minutia { x, y, .. } = minutiae[index];
            return Err(TemplateError::Coordinate { index, x, y });
        }
        let extensions = Vec::new();
        Ok(Self { position: 0, number: 0, impression: 0, quality, minutiae, extensions })
    }

    /// Finger position: 0 unknown, 1 right thumb to 10 left little finger.
    pub fn position(&self) -> u8 {
        self.position
    }

    /// View number of this finger, from 0 to 15.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Impression type, 0 is live and plain.
    pub fn impression(&self) -> u8 {
        self.impression
    }

    /// Quality from 0 to 100.
    pub fn quality(&self) -> u8 {
        self.quality
    }

    /// The minutiae in the record's order.
    pub fn minutiae(&self) -> &[Minutia] {
        &self.minutiae
    }

    /// The extended data blocks in the record's order.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    fn extension_bytes(&self) -> usize {
        self.extensions.iter().map(|e| 4 + e.data.len()).sum()
    }

    /// The view with its best minutiae only, in the order they had.
    pub(crate) fn best(&self, count: usize) -> View {
        let mut ranked: Vec<usize> = (0..self.minutiae.len()).collect();
        let quality = |&i: &usize| self.minutiae[i].known_quality();
        ranked.sort_by_key(|i| std::cmp::Reverse(quality(i)));
        ranked.truncate(count);
        ranked.sort_unstable();
        let minutiae = ranked.into_iter().map(|i| self.minutiae[i]).collect();
        View { minutiae, ..self.clone() }
    }

    pub(crate) fn without_extensions(mut self) -> View {
        self.extensions.clear();
        self
    }

    pub(crate) fn numbered(mut self, number: u8) -> View {
        self.number = number & 0x0f;
        self
    }
}

impl Template {
    /// A record of one image: size in pixels, resolution in pixels a centimetre.
    pub fn new(
        width: u16,
        height: u16,
        resolution: u16,
        views: Vec<View>,
    ) -> Result<Self, TemplateError> {
        if views.len() > MAX_VIEWS {
            return Err(TemplateError::TooManyViews { count: views.len() });
        }
        Ok(Self {
            product: 0,
            equipment: 0,
            width,
            height,
            x_resolution: resolution,
            y_resolution: resolution,
            views,
        })
    }

    /// Width of the image in pixels, as the record says it.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height of the image in pixels, as the record says it.
    pub fn height(&self) -> u16 {
        self.height
    }

    /// Pixels a centimetre, across.
    pub fn x_resolution(&self) -> u16 {
        self.x_resolution
    }

    /// Pixels a centimetre, down.
    pub fn y_resolution(&self) -> u16 {
        self.y_resolution
    }

    /// The placements.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// Minutiae in all views.
    pub fn minutia_count(&self) -> usize {
        self.views.iter().map(|v| v.minutiae.len()).sum()
    }

    /// The template with this block in its first view, in place of any block of the same type.
    pub fn with_extension(&self, type_code: u16, data: &[u8]) -> Result<Self, TemplateError> {
        let mut template = self.without_extension(type_code);
        let Some(view) = template.views.first_mut() else {
            return Err(TemplateError::Extension { bytes: 4 + data.len() });
        };
        view.extensions.push(Extension { type_code, data: data.to_vec() });
        let bytes = view.extension_bytes();
        if bytes > usize::from(u16::MAX) {
            return Err(TemplateError::Extension { bytes });
        }
        Ok(template)
    }

    /// The data of the first block of this type.
    pub fn extension(&self, type_code: u16) -> Option<&[u8]> {
        self.views
            .iter()
            .flat_map(|v| &v.extensions)
            .find(|e| e.type_code == type_code)
            .map(|e| e.data.as_slice())
    }

    /// The template without blocks of this type.
    pub fn without_extension(&self, type_code: u16) -> Self {
        let mut template = self.clone();
        for view in &mut template.views {
            view.extensions.retain(|e| e.type_code != type_code);
        }
        template
    }

    /// Reads a record of either open format; [`Format::detect`] says which one the bytes claim.
    pub fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        match Format::detect(bytes) {
            Some(Format::Iso19794_2) => Self::read_iso(bytes),
            Some(Format::Ansi378) => Self::read_ansi(bytes),
            Some(Format::ZkFinger10) => Err(FormatError::Opaque),
            None => Err(FormatError::Magic),
        }
    }

    /// Reads ISO/IEC 19794-2:2005. Bytes after the record's declared length are ignored.
    pub fn read_iso(bytes: &[u8]) -> Result<Self, FormatError> {
        read::record(bytes, Format::Iso19794_2)
    }

    /// Reads ANSI INCITS 378-2004. Bytes after the record's declared length are ignored.
    pub fn read_ansi(bytes: &[u8]) -> Result<Self, FormatError> {
        read::record(bytes, Format::Ansi378)
    }

    /// Writes ISO/IEC 19794-2:2005.
    pub fn write_iso(&self) -> Vec<u8> {
        write::iso(self)
    }

    /// Writes ANSI INCITS 378-2004.
    pub fn write_ansi(&self) -> Vec<u8> {
        write::ansi(self)
    }
}

/// Counts only: minutiae identify a person and never reach a log.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, views, .. } = self;
        write!(f, "Template({width}x{height}, {views:?})")
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, quality) = (self.minutiae.len(), self.quality);
        write!(f, "View({count} minutiae, quality {quality})")
    }
}

#[cfg(test)]
mod tests;
