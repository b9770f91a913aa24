//! Fingerprint templates, extraction, matching and synthetic fingers. Pure Rust, no I/O.
//!
//! From an image to a decision in four steps:
//!
//! ```
//! use minutiae::{compare, extract, synth::Finger, Prepared};
//!
//! let finger = Finger::named("user-001/right-index");
//! let enrolled = extract(&finger.impression(1))?.template;
//! let probe = extract(&finger.impression(2))?.template;
//!
//! let score = compare(&Prepared::new(&enrolled), &Prepared::new(&probe));
//! assert!(score.get() >= minutiae::VERIFY_THRESHOLD);
//! # Ok::<(), minutiae::ExtractError>(())
//! ```
//!
//! | module | job |
//! |---|---|
//! | [`image`] | the grey image that everything starts from |
//! | [`extract()`] | image to minutiae and quality |
//! | [`template`] | minutiae records: ISO/IEC 19794-2:2005 and ANSI INCITS 378-2004, read and written |
//! | [`merge()`] | three placements of a finger to one record |
//! | [`matching`] | two templates to a calibrated score |
//! | [`gallery`] | one template against many |
//! | [`evaluation`] | scores of a set to error rates |
//! | [`synth`] | fingers that belong to nobody, for tests and demonstrations |
//!
//! Everything is deterministic: the same bytes in give the same bytes out.

#![forbid(unsafe_code)]

pub mod confidence;
pub mod evaluation;
pub mod extract;
mod filter;
pub mod gallery;
pub mod image;
mod map;
pub mod matching;
pub mod merge;
mod random;
pub mod synth;
pub mod template;

pub use confidence::confidence;
pub use extract::{ExtractError, Extraction, extract, quality};
pub use gallery::{Candidate, Gallery, search_threshold};
pub use image::{GrayImage, ImageError};
pub use matching::{Prepared, Score, VERIFY_THRESHOLD, compare};
pub use merge::{MergeError, merge};
pub use template::{
    Extension, Format, FormatError, Minutia, MinutiaKind, Template, TemplateError, View,
};
