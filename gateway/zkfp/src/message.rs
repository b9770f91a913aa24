//! What parent and child say to each other. Templates travel beside the message, in the frame.
//!
//! ```text
//! parent                          child
//! Hello {version, settings}  ->
//!                            <-   Welcome {version}        or Refused, and it ends
//!                            <-   Loaded {library}         or NotLoaded, and it ends
//! Request {id}               ->
//!                            <-   Reply {id}, in order of the requests
//!                            <-   Event, Heartbeat         at any time
//! Stop                       ->                            and it ends
//! ```

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::SdkCode;
use crate::event::Device;
use crate::serial::Serial;

/// Both sides must be of the same version: they are the same program.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");
/// The child says something at least this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// Requests that the parent has under way. The child's inbox holds more, so that its side of the
/// socket is always read and neither waits for the other in a circle.
pub(crate) const MAX_IN_FLIGHT: usize = 32;

/// From the parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Down {
    Hello { version: String, settings: Settings },
    Request { id: u64, request: Request },
    Stop,
}

/// How the child works.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) library: PathBuf,
    pub(crate) simulator_dir: Option<PathBuf>,
    pub(crate) usb_devices: PathBuf,
    pub(crate) poll_period_ms: u64,
    pub(crate) presence_period_ms: u64,
    pub(crate) slow_call_ms: u64,
}

/// What the parent asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    Arm {
        serial: Serial,
        on: bool,
    },
    Recapture {
        serial: Serial,
    },
    Test {
        serial: Serial,
    },
    Info {
        serial: Serial,
    },
    /// Two templates.
    Match,
    /// Three templates.
    Merge,
    /// Forgets all. While loading, a search is refused.
    GalleryClear {
        loading: bool,
    },
    /// A template for each number.
    GalleryAdd {
        fids: Vec<u32>,
    },
    GalleryLoaded,
    GalleryRemove {
        fid: u32,
    },
    /// One template.
    Identify,
}

impl Request {
    /// What to call it in an error.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Request::Arm { .. } => "arm",
            Request::Recapture { .. } => "recapture",
            Request::Test { .. } => "test",
            Request::Info { .. } => "info",
            Request::Match => "match",
            Request::Merge => "merge",
            Request::GalleryClear { .. } => "gallery clear",
            Request::GalleryAdd { .. } | Request::GalleryLoaded => "gallery add",
            Request::GalleryRemove { .. } => "gallery remove",
            Request::Identify => "identify",
        }
    }
}

/// From the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Up {
    Welcome { version: String },
    Refused { reason: String },
    Loaded { library: PathBuf },
    NotLoaded { reason: String },
    Reply { id: u64, result: Result<Answer, Failure> },
    Event(Event),
    Heartbeat { memory_bytes: u64, call: Option<CurrentCall> },
}

/// The call that the child's owner thread is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CurrentCall {
    pub(crate) name: String,
    pub(crate) serial: Option<Serial>,
    pub(crate) for_ms: u64,
}

/// A request's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    Done,
    Score(u16),
    /// One template.
    Merged,
    /// Those that the SDK doesn't take.
    Added {
        rejected: Vec<u32>,
    },
    Found {
        fid: u32,
        score: u16,
    },
    Stranger,
    Tested {
        micros: u64,
    },
    Info(Device),
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Failure {
    UnknownReader,
    NoFinger,
    NoMatcher,
    GalleryNotLoaded,
    GalleryFull,
    Sdk(SdkCode),
    Malformed,
}

/// What the child reports by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Event {
    Devices(Vec<Device>),
    InitFailed(SdkCode),
    /// One template.
    Touch {
        serial: Serial,
        touch: u64,
        capture: u32,
        quality: u8,
        width: u32,
        height: u32,
    },
    BadPlacement {
        serial: Serial,
        touch: u64,
    },
    Lifted {
        serial: Serial,
        touch: u64,
    },
    Problem {
        serial: Serial,
        problem: Problem,
    },
    Recovered {
        serial: Serial,
    },
}

/// What is wrong with a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Problem {
    Busy,
    Slow {
        for_ms: u64,
    },
    Failing(SdkCode),
    /// One capture only.
    BadTemplate {
        length: u64,
    },
}
