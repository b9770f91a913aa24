//! What the host reports by itself.
//!
//! | event | means |
//! |---|---|
//! | [`HostEvent::Up`] | a fresh host: nothing is armed, the gallery is empty and must be loaded |
//! | [`HostEvent::Devices`] | the readers that are connected now, all of them; those that weren't before aren't armed |
//! | [`HostEvent::Touch`] | a finger was captured; once per touch, and once per `recapture` |
//! | [`HostEvent::BadPlacement`] | a finger is there and shows no usable print; once per touch |
//! | [`HostEvent::Lifted`] | the finger is away; always follows a touch or a bad placement, unless the reader goes |
//! | [`HostEvent::ReaderError`] | a reader doesn't work; [`HostEvent::ReaderRecovered`] follows, except after a bad capture |
//! | [`HostEvent::Down`] | the host is gone, and with it every reader, until the next `Up` |

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ReaderError;
use crate::serial::Serial;
use crate::template::SdkTemplate;

/// What the host reports by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum HostEvent {
    /// A host has started. Nothing is armed, and its gallery is empty.
    Up {
        /// The child's process id.
        pid: u32,
        /// The library that it loaded.
        library: PathBuf,
    },
    /// The host has gone.
    Down {
        /// Why.
        reason: DownReason,
        /// When the next one is started.
        retry_in: Duration,
    },
    /// The readers that are connected now. Those that were connected before are as they were, also
    /// the gallery is; new ones aren't armed.
    Devices(Vec<Device>),
    /// The SDK doesn't initialise, although readers are plugged in; it is tried again.
    InitFailed(ReaderError),
    /// A finger was captured.
    Touch(Touch),
    /// A finger is there, but shows no usable print.
    BadPlacement {
        /// The reader.
        serial: Serial,
        /// The touch's number.
        touch: u64,
    },
    /// The finger is away.
    Lifted {
        /// The reader.
        serial: Serial,
        /// The touch's number.
        touch: u64,
    },
    /// A reader has stopped working, or gave a capture that can't be used.
    ReaderError {
        /// The reader.
        serial: Serial,
        /// What is wrong.
        error: ReaderError,
    },
    /// A reader works again.
    ReaderRecovered {
        /// The reader.
        serial: Serial,
    },
}

/// A captured finger.
#[derive(Debug, Clone, PartialEq)]
pub struct Touch {
    /// The reader.
    pub serial: Serial,
    /// The touch's number, unique within one host.
    pub touch: u64,
    /// 1 for the first capture of the touch, more for those that were asked for.
    pub capture: u32,
    /// The template.
    pub template: SdkTemplate,
    /// 0 to 100, computed from the image: the SDK gives none.
    pub quality: u8,
    /// The image's width in pixels.
    pub width: u32,
    /// The image's height in pixels.
    pub height: u32,
}

/// A connected reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The serial number; `reader-N` for a reader that has none.
    pub serial: Serial,
    /// The product's name.
    pub model: String,
    /// As the operating system knows it.
    pub firmware: Option<String>,
    /// The image's width in pixels.
    pub width: u32,
    /// The image's height in pixels.
    pub height: u32,
    /// Dots per inch.
    pub dpi: u16,
}

/// Why the host has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// It couldn't be started.
    NotStarted(String),
    /// The library wasn't found or couldn't be loaded.
    NotLoaded(String),
    /// It ended by itself.
    Exited(Option<i32>),
    /// A signal ended it: the SDK crashed.
    Crashed {
        /// The signal's number.
        signal: i32,
    },
    /// One call took too long.
    CallTooLong {
        /// The call.
        call: String,
        /// How long it took so far.
        time: Duration,
    },
    /// It said nothing any more.
    Silent(Duration),
    /// It used too much memory.
    TooLarge {
        /// Memory in use, in bytes.
        bytes: u64,
    },
    /// It said something that can't be understood, or is of another version.
    Protocol(String),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::NotStarted(reason) => write!(f, "the reader host didn't start: {reason}"),
            DownReason::NotLoaded(reason) => write!(f, "the SDK wasn't loaded: {reason}"),
            DownReason::Exited(Some(code)) => write!(f, "the reader host ended with code {code}"),
            DownReason::Exited(None) => f.write_str("the reader host closed its connection"),
            DownReason::Crashed { signal } => write!(f, "the SDK crashed (signal {signal})"),
            DownReason::CallTooLong { call, time } => {
                write!(f, "{call} didn't return for {} ms", time.as_millis())
            }
            DownReason::Silent(time) => {
                write!(f, "the reader host was silent for {} ms", time.as_millis())
            }
            DownReason::TooLarge { bytes } => {
                write!(f, "the SDK used {} MiB of memory", bytes / (1024 * 1024))
            }
            DownReason::Protocol(what) => write!(f, "the reader host can't be understood: {what}"),
        }
    }
}
