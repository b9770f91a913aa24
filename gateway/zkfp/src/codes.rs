//! The SDK's return codes and parameter codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A return code of the SDK. Unknown ones are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SdkCode(pub i32);

#[allow(missing_docs, reason = "named and explained by `name`")]
impl SdkCode {
    pub const ALREADY_INIT: SdkCode = SdkCode(1);
    pub const OK: SdkCode = SdkCode(0);
    pub const INIT_LIBRARY: SdkCode = SdkCode(-1);
    pub const INIT: SdkCode = SdkCode(-2);
    pub const NO_DEVICE: SdkCode = SdkCode(-3);
    pub const INVALID_PARAMETER: SdkCode = SdkCode(-5);
    pub const OPEN: SdkCode = SdkCode(-6);
    pub const INVALID_HANDLE: SdkCode = SdkCode(-7);
    pub const NO_FINGER: SdkCode = SdkCode(-8);
    pub const BAD_PLACEMENT: SdkCode = SdkCode(-9);
    pub const BUSY: SdkCode = SdkCode(-12);
    pub const ADD_FAILED: SdkCode = SdkCode(-13);
    pub const FAILED: SdkCode = SdkCode(-17);
    pub const VERIFY_FAILED: SdkCode = SdkCode(-20);
    pub const MERGE_FAILED: SdkCode = SdkCode(-22);
}

impl SdkCode {
    /// What the code means, in a few words.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "already initialised",
            0 => "done",
            -1 => "the algorithm library didn't initialise",
            -2 => "the capture library didn't initialise",
            -3 => "no reader",
            -4 => "not supported",
            -5 => "invalid parameter",
            -6 => "the reader can't be opened",
            -7 => "invalid handle",
            -8 => "no finger",
            -9 => "no usable print in the image",
            -10 => "aborted",
            -11 => "buffer too small",
            -12 => "the reader is busy",
            -13 => "template not added",
            -14 => "template not deleted",
            -17 => "failed",
            -18 => "cancelled",
            -20 => "comparison failed",
            -22 => "the placements don't merge",
            -23 => "not opened",
            -24 => "not initialised",
            -25 => "already opened",
            -26 => "image file not readable",
            -27 => "image not processable",
            -28 => "timeout",
            _ => "unknown code",
        }
    }
}

impl fmt::Display for SdkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// Parameters of a reader.
pub(crate) mod parameter {
    /// Image width in pixels.
    pub(crate) const WIDTH: i32 = 1;
    /// Image height in pixels.
    pub(crate) const HEIGHT: i32 = 2;
    /// Dots per inch.
    pub(crate) const DPI: i32 = 3;
    /// Bytes of an image.
    pub(crate) const IMAGE_BYTES: i32 = 106;
    /// Product name, text.
    pub(crate) const PRODUCT: i32 = 1102;
    /// Serial number, text.
    pub(crate) const SERIAL: i32 = 1103;
}
