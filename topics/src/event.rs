//! Events: one JSON object, the same on the local WebSocket, the edge broker, the cloud's WebSocket
//! (inside its `data`) and the cloud broker.
//!
//! It is the documented WebSocket message (`type`, a copy of it in `event`, its fields, `timestamp`)
//! plus the envelope `clock`, `gateway`, `id`, `lane`, `seq`, and, where they caused it, `commandId`
//! and `requestId`:
//!
//! ```json
//! {"type":"scan:complete","deviceId":"device-001","scanId":"scan-…","quality":92,"scanTime":1250,
//!  "event":"scan:complete","timestamp":"2026-11-22T14:30:20.512Z","clock":"synced",
//!  "gateway":"hq-lobby","id":"0199c0de-…","lane":"events","seq":4711}
//! ```
//!
//! No event has a field for a template: what carries one travels sealed beside it
//! ([`record`](crate::record)); `templateSha256` stands in.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    CommandId, CommandStatus, ErrorBody, EventId, GatewayId, Lane, ReaderId, ReaderInfo,
    ReaderState, StoreId, Timestamp, UserId,
};

/// How far `timestamp` can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The system's clock is disciplined by a time source.
    Synced,
    /// It is not, or nobody can tell.
    Unsynced,
}

/// Why records are missing from a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// The journal reached its bound and dropped its oldest.
    JournalFull,
    /// Records could not be read back.
    Corrupt,
    /// A new journal began; what the old one held and had not sent is unknown.
    NewStore,
}

/// The state of the service itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ServiceState {
    Starting,
    Running,
    Stopping,
    Stopped,
}

/// What happened. Fields are the documented ones; times in milliseconds are named so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(missing_docs)] // Fields are the wire's own names; the documentation defines them.
pub enum EventBody {
    #[serde(rename = "device:connected", rename_all = "camelCase")]
    DeviceConnected { device_id: ReaderId, device: ReaderInfo },
    #[serde(rename = "device:disconnected", rename_all = "camelCase")]
    DeviceDisconnected {
        device_id: ReaderId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    #[serde(rename = "device:status", rename_all = "camelCase")]
    DeviceStatus { device_id: ReaderId, status: ReaderState, previous_status: ReaderState },
    #[serde(rename = "fingerprint:detected", rename_all = "camelCase")]
    FingerprintDetected { device_id: ReaderId, scan_id: String, quality: u8 },
    #[serde(rename = "fingerprint:enrolled", rename_all = "camelCase")]
    FingerprintEnrolled {
        device_id: ReaderId,
        scan_id: String,
        user_id: UserId,
        enrollment_id: String,
        quality: u8,
        template_sha256: String,
    },
    #[serde(rename = "scan:started", rename_all = "camelCase")]
    ScanStarted { device_id: ReaderId, scan_id: String },
    #[serde(rename = "scan:progress", rename_all = "camelCase")]
    ScanProgress {
        device_id: ReaderId,
        scan_id: String,
        message: String,
        scans_completed: u8,
        scans_required: u8,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quality: Option<u8>,
    },
    #[serde(rename = "scan:complete", rename_all = "camelCase")]
    ScanComplete {
        device_id: ReaderId,
        scan_id: String,
        quality: u8,
        /// Milliseconds.
        scan_time: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        template_sha256: Option<String>,
        #[serde(flatten)]
        placements: Option<Placements>,
    },
    #[serde(rename = "scan:error", rename_all = "camelCase")]
    ScanError {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device_id: Option<ReaderId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scan_id: Option<String>,
        /// The same text twice: documented clients read one or the other.
        error: String,
        message: String,
        code: u16,
        name: String,
        retryable: bool,
    },
    #[serde(rename = "scan:timeout", rename_all = "camelCase")]
    ScanTimeout { device_id: ReaderId, scan_id: String, message: String },
    #[serde(rename = "scan:stopped", rename_all = "camelCase")]
    ScanStopped { device_id: ReaderId, scan_id: String },
    #[serde(rename = "verification:result", rename_all = "camelCase")]
    VerificationResult {
        device_id: ReaderId,
        scan_id: String,
        r#match: bool,
        /// 0 to 100, one decimal.
        confidence: f64,
        user_id: UserId,
        /// Milliseconds.
        verification_time: u64,
    },
    #[serde(rename = "identification:searching", rename_all = "camelCase")]
    IdentificationSearching {
        device_id: ReaderId,
        scan_id: String,
        /// Percent of the records compared.
        progress: u8,
    },
    #[serde(rename = "identification:result", rename_all = "camelCase")]
    IdentificationResult {
        device_id: ReaderId,
        scan_id: String,
        r#match: bool,
        /// Null without a match.
        user_id: Option<UserId>,
        /// 0 to 100, one decimal; 0 without a match.
        confidence: f64,
        /// Milliseconds.
        identification_time: u64,
        /// The id of the stored template that matched; null without a match.
        matched_template: Option<String>,
    },
    #[serde(rename = "access:granted", rename_all = "camelCase")]
    AccessGranted {
        device_id: ReaderId,
        scan_id: String,
        user_id: UserId,
        confidence: f64,
        decided_at: Timestamp,
        valid_for_ms: u64,
    },
    #[serde(rename = "access:denied", rename_all = "camelCase")]
    AccessDenied {
        device_id: ReaderId,
        scan_id: String,
        reason: String,
        decided_at: Timestamp,
        valid_for_ms: u64,
    },
    #[serde(rename = "service:status", rename_all = "camelCase")]
    ServiceStatus {
        status: ServiceState,
        /// Whole seconds.
        uptime: u64,
        version: String,
    },
    /// Stands in its lane in place of the sequence numbers `from..=to`; its own `seq` is `to`.
    #[serde(rename = "journal:gap", rename_all = "camelCase")]
    JournalGap {
        from: u64,
        to: u64,
        /// How many records were lost; null where nobody can know (`new-store`).
        count: Option<u64>,
        reason: GapReason,
        /// With `new-store`: the journal that came before, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_store: Option<StoreId>,
    },
    #[serde(rename = "command:result", rename_all = "camelCase")]
    CommandResult {
        command: String,
        status: CommandStatus,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<ErrorBody>,
        finished_at: Timestamp,
    },
}

/// What an enrolment's `scan:complete` has more than a plain scan's; always three of three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placements {
    /// Placements taken.
    pub scans_completed: u8,
    /// Placements needed.
    pub scans_required: u8,
    /// The enrolment's id.
    pub enrollment_id: String,
    /// Who was enrolled.
    pub user_id: UserId,
}

/// The type of an event: its name, its lane and its place in topic names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum EventType {
    DeviceConnected,
    DeviceDisconnected,
    DeviceStatus,
    FingerprintDetected,
    FingerprintEnrolled,
    ScanStarted,
    ScanProgress,
    ScanComplete,
    ScanError,
    ScanTimeout,
    ScanStopped,
    VerificationResult,
    IdentificationSearching,
    IdentificationResult,
    AccessGranted,
    AccessDenied,
    ServiceStatus,
    JournalGap,
    CommandResult,
}

/// (type, name on the wire, lane). What readers saw is one lane, so that whoever watches an
/// operation sees its steps in order.
const TYPES: [(EventType, &str, Lane); 19] = [
    (EventType::DeviceConnected, "device:connected", Lane::Events),
    (EventType::DeviceDisconnected, "device:disconnected", Lane::Events),
    (EventType::DeviceStatus, "device:status", Lane::Events),
    (EventType::FingerprintDetected, "fingerprint:detected", Lane::Events),
    (EventType::FingerprintEnrolled, "fingerprint:enrolled", Lane::Events),
    (EventType::ScanStarted, "scan:started", Lane::Events),
    (EventType::ScanProgress, "scan:progress", Lane::Events),
    (EventType::ScanComplete, "scan:complete", Lane::Events),
    (EventType::ScanError, "scan:error", Lane::Events),
    (EventType::ScanTimeout, "scan:timeout", Lane::Events),
    (EventType::ScanStopped, "scan:stopped", Lane::Events),
    (EventType::VerificationResult, "verification:result", Lane::Events),
    (EventType::IdentificationSearching, "identification:searching", Lane::Events),
    (EventType::IdentificationResult, "identification:result", Lane::Events),
    (EventType::AccessGranted, "access:granted", Lane::Access),
    (EventType::AccessDenied, "access:denied", Lane::Access),
    (EventType::ServiceStatus, "service:status", Lane::Telemetry),
    // A gap stands in the lane that it is about; this is where one about a whole store goes.
    (EventType::JournalGap, "journal:gap", Lane::Access),
    (EventType::CommandResult, "command:result", Lane::Results),
];

impl EventType {
    /// All types.
    pub fn all() -> impl Iterator<Item = EventType> {
        TYPES.iter().map(|row| row.0)
    }

    /// The name on the wire: `scan:complete`.
    pub fn as_str(self) -> &'static str {
        TYPES[self as usize].1
    }

    /// The lane it travels in (a gap: the lane of the records it stands for).
    pub fn lane(self) -> Lane {
        TYPES[self as usize].2
    }

    /// The type of this name.
    pub fn parse(name: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Its two topic segments: `("scan", "complete")`.
    pub fn segments(self) -> (&'static str, &'static str) {
        // Every name in the table has one colon: a test walks them.
        self.as_str().split_once(':').unwrap_or((self.as_str(), ""))
    }
}

impl Serialize for EventType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown event type {name:?}")))
    }
}

impl EventBody {
    /// Its type.
    pub fn event_type(&self) -> EventType {
        match self {
            EventBody::DeviceConnected { .. } => EventType::DeviceConnected,
            EventBody::DeviceDisconnected { .. } => EventType::DeviceDisconnected,
            EventBody::DeviceStatus { .. } => EventType::DeviceStatus,
            EventBody::FingerprintDetected { .. } => EventType::FingerprintDetected,
            EventBody::FingerprintEnrolled { .. } => EventType::FingerprintEnrolled,
            EventBody::ScanStarted { .. } => EventType::ScanStarted,
            EventBody::ScanProgress { .. } => EventType::ScanProgress,
            EventBody::ScanComplete { .. } => EventType::ScanComplete,
            EventBody::ScanError { .. } => EventType::ScanError,
            EventBody::ScanTimeout { .. } => EventType::ScanTimeout,
            EventBody::ScanStopped { .. } => EventType::ScanStopped,
            EventBody::VerificationResult { .. } => EventType::VerificationResult,
            EventBody::IdentificationSearching { .. } => EventType::IdentificationSearching,
            EventBody::IdentificationResult { .. } => EventType::IdentificationResult,
            EventBody::AccessGranted { .. } => EventType::AccessGranted,
            EventBody::AccessDenied { .. } => EventType::AccessDenied,
            EventBody::ServiceStatus { .. } => EventType::ServiceStatus,
            EventBody::JournalGap { .. } => EventType::JournalGap,
            EventBody::CommandResult { .. } => EventType::CommandResult,
        }
    }

    /// The reader it is about; none where it is about the gateway.
    pub fn reader(&self) -> Option<&ReaderId> {
        match self {
            EventBody::DeviceConnected { device_id, .. }
            | EventBody::DeviceDisconnected { device_id, .. }
            | EventBody::DeviceStatus { device_id, .. }
            | EventBody::FingerprintDetected { device_id, .. }
            | EventBody::FingerprintEnrolled { device_id, .. }
            | EventBody::ScanStarted { device_id, .. }
            | EventBody::ScanProgress { device_id, .. }
            | EventBody::ScanComplete { device_id, .. }
            | EventBody::ScanTimeout { device_id, .. }
            | EventBody::ScanStopped { device_id, .. }
            | EventBody::VerificationResult { device_id, .. }
            | EventBody::IdentificationSearching { device_id, .. }
            | EventBody::IdentificationResult { device_id, .. }
            | EventBody::AccessGranted { device_id, .. }
            | EventBody::AccessDenied { device_id, .. } => Some(device_id),
            EventBody::ScanError { device_id, .. } => device_id.as_ref(),
            EventBody::ServiceStatus { .. }
            | EventBody::JournalGap { .. }
            | EventBody::CommandResult { .. } => None,
        }
    }
}

/// An event as every recipient sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
    /// The copy of `type` that one documented client reads.
    pub event: EventType,
    /// When it happened, at the reader.
    pub timestamp: Timestamp,
    /// How far to trust that.
    pub clock: Clock,
    /// The command that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// The WebSocket request that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where it happened.
    pub gateway: GatewayId,
    /// Unique; repeats of a delivery have the same.
    pub id: EventId,
    /// Its lane.
    pub lane: Lane,
    /// Its place in the lane: contiguous from 1, so that a hole shows a loss.
    pub seq: u64,
}

impl Event {
    /// Its topic.
    pub fn topic(&self) -> crate::Topic {
        topic(self.event, self.gateway.clone(), self.body.reader().cloned())
    }
}

/// Of an event what its publication needs, without its body.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // As in the event.
pub struct Outline {
    pub event: EventType,
    pub timestamp: Timestamp,
    pub gateway: GatewayId,
    pub id: EventId,
    #[serde(default)]
    device_id: Option<Reader>,
}

/// What an event calls its reader, where that is one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Reader {
    Id(ReaderId),
    Else(serde::de::IgnoredAny),
}

impl Outline {
    /// The event's topic.
    pub fn topic(&self) -> crate::Topic {
        let reader = match (self.event, &self.device_id) {
            // Of no reader, whatever a newer version adds to them.
            (EventType::ServiceStatus | EventType::JournalGap | EventType::CommandResult, _) => {
                None
            }
            (_, Some(Reader::Id(reader))) => Some(reader.clone()),
            (_, Some(Reader::Else(_)) | None) => None,
        };
        topic(self.event, self.gateway.clone(), reader)
    }
}

fn topic(event: EventType, gateway: GatewayId, reader: Option<ReaderId>) -> crate::Topic {
    match reader {
        Some(reader) => crate::Topic::ReaderEvent { gateway, reader, event },
        None => crate::Topic::GatewayEvent { gateway, event },
    }
}

#[cfg(test)]
mod tests;
