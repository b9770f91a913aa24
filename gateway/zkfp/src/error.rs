//! What can go wrong with a reader, and the documented API code of each.
//!
//! | code | errors |
//! |---|---|
//! | 1001 DEVICE_NOT_FOUND | no such reader; no reader at all, hence no matcher |
//! | 1002 DEVICE_BUSY | another process captures |
//! | 1003 DEVICE_DISCONNECTED | the reader is gone; the host process is down |
//! | 1004 DEVICE_INIT_FAILED | the SDK doesn't initialise; the reader answers with failures |
//! | 1005 DEVICE_TIMEOUT | no answer in time |
//! | 2003 TEMPLATE_EXTRACTION_FAILED | the reader gave something that is no template |
//! | 2004 MATCH_FAILED | the comparison itself failed; a malformed template was passed in |
//! | 2005 ENROLLMENT_FAILED | the placements aren't of one finger |
//! | 5001 INTERNAL_ERROR | the host broke the protocol |
//! | 5002 SERVICE_UNAVAILABLE | the gallery isn't loaded or is full; the host is stopping |

use std::time::Duration;

use crate::codes::SdkCode;
use crate::serial::Serial;

/// What went wrong with a reader or a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// No reader of this serial number is connected.
    #[error("no reader {serial} is connected")]
    UnknownReader {
        /// The reader that was asked for.
        serial: Serial,
    },
    /// The SDK's matcher works only with a reader.
    #[error("{operation}: no reader is connected, and without one the SDK has no matcher")]
    NoMatcher {
        /// What was asked.
        operation: &'static str,
    },
    /// Somebody else captures from this reader.
    #[error("reader {serial} is busy with another capture")]
    Busy {
        /// The reader.
        serial: Serial,
    },
    /// The host process is down, and with it every reader.
    #[error("{operation}: the reader host is down and being restarted")]
    Disconnected {
        /// What was asked.
        operation: &'static str,
    },
    /// The SDK doesn't initialise.
    #[error("the SDK doesn't initialise: {code}")]
    InitFailed {
        /// What `ZKFPM_Init` answers.
        code: SdkCode,
    },
    /// The reader answers with failures.
    #[error("reader {serial} fails: {code}")]
    Failing {
        /// The reader.
        serial: Serial,
        /// What it answers.
        code: SdkCode,
    },
    /// No answer in time.
    #[error("{operation}: no answer for {} ms", waited.as_millis())]
    NoAnswer {
        /// What was asked or done.
        operation: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The reader gave something that is no template.
    #[error("reader {serial} gave a capture without a valid template: {reason}")]
    BadCapture {
        /// The reader.
        serial: Serial,
        /// What is wrong with it.
        reason: String,
    },
    /// A template was passed in that the SDK must not see.
    #[error("malformed template: {reason}")]
    MalformedTemplate {
        /// What is wrong with it.
        reason: String,
    },
    /// The SDK failed at a comparison or a search.
    #[error("{operation}: the SDK answers {code}")]
    MatcherFailed {
        /// What was asked.
        operation: &'static str,
        /// What the SDK answers.
        code: SdkCode,
    },
    /// The placements aren't of one finger.
    #[error("the placements aren't of one finger: {code}")]
    NotOneFinger {
        /// What the SDK answers.
        code: SdkCode,
    },
    /// The host has just started and doesn't know anybody yet.
    #[error("the gallery isn't loaded yet")]
    GalleryNotLoaded,
    /// The SDK takes no more templates.
    #[error("the gallery is full")]
    GalleryFull,
    /// The host said something that doesn't fit.
    #[error("{operation}: the reader host answered out of turn")]
    Protocol {
        /// What was asked.
        operation: &'static str,
    },
    /// The host is being shut down.
    #[error("{operation}: the reader host is stopping")]
    Stopping {
        /// What was asked.
        operation: &'static str,
    },
}

impl ReaderError {
    /// The documented API code.
    pub fn code(&self) -> u16 {
        match self {
            ReaderError::UnknownReader { .. } | ReaderError::NoMatcher { .. } => 1001,
            ReaderError::Busy { .. } => 1002,
            ReaderError::Disconnected { .. } => 1003,
            ReaderError::InitFailed { .. } | ReaderError::Failing { .. } => 1004,
            ReaderError::NoAnswer { .. } => 1005,
            ReaderError::BadCapture { .. } => 2003,
            ReaderError::MalformedTemplate { .. } | ReaderError::MatcherFailed { .. } => 2004,
            ReaderError::NotOneFinger { .. } => 2005,
            ReaderError::Protocol { .. } => 5001,
            ReaderError::GalleryNotLoaded
            | ReaderError::GalleryFull
            | ReaderError::Stopping { .. } => 5002,
        }
    }
}
