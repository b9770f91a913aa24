//! The retained state of a gateway and of a reader, as on their `status` topics.

use serde::{Deserialize, Serialize};

use crate::{GatewayId, ReaderId, Timestamp};

/// What a reader is doing. `disconnected`: known, but not plugged in or not answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ReaderState {
    Idle,
    Busy,
    Error,
    Disconnected,
}

/// One reader, as in a gateway's status and on its own status topic (there with `since`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReaderSummary {
    /// `device-001`, `device-002`… in the order first seen.
    pub id: ReaderId,
    /// As the reader tells it.
    pub serial_number: String,
    /// As the reader tells it.
    pub model: String,
    /// What it is doing.
    pub status: ReaderState,
    /// Since when; only on the reader's own status topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A reader in a `device:connected` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReaderInfo {
    /// `device-001`, …
    pub id: ReaderId,
    /// For people; the model unless renamed.
    pub name: String,
    /// As the reader tells it.
    pub serial_number: String,
    /// As the reader tells it.
    pub model: String,
    /// What it is doing.
    pub status: ReaderState,
    /// As the reader tells it.
    pub firmware_version: String,
}

/// Whether a gateway can be reached over the broker that holds its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ConnectionState {
    Online,
    Offline,
}

/// How the way to the bridge is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum UplinkState {
    /// No bridge is configured.
    Disabled,
    /// A probe went through journal, broker and the bridge's store and back within the interval.
    #[serde(rename_all = "camelCase")]
    Connected {
        /// Records not yet acknowledged by the bridge.
        queued: u64,
    },
    /// Connected, with a backlog on its way.
    #[serde(rename_all = "camelCase")]
    CatchingUp {
        /// Records not yet acknowledged by the bridge.
        queued: u64,
        /// How old the oldest of them is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest_seconds: Option<u64>,
        /// How many the bridge takes now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        per_second: Option<u64>,
        /// How long the rest takes at that rate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds_left: Option<u64>,
    },
    /// The broker answers, the bridge or its store doesn't, or something else is wrong.
    #[serde(rename_all = "camelCase")]
    Degraded {
        /// Records not yet acknowledged by the bridge.
        queued: u64,
        /// What is wrong, for people.
        reason: String,
    },
    /// No connection.
    #[serde(rename_all = "camelCase")]
    Offline {
        /// Records not yet acknowledged by the bridge.
        queued: u64,
        /// Since when.
        since: Timestamp,
        /// What the last try ended with, for people.
        reason: String,
        /// Tries since then.
        #[serde(default)]
        attempts: u32,
        /// When the next one begins; none while one is under way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_try: Option<Timestamp>,
    },
}

impl UplinkState {
    /// The state's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            UplinkState::Disabled => "disabled",
            UplinkState::Connected { .. } => "connected",
            UplinkState::CatchingUp { .. } => "catching-up",
            UplinkState::Degraded { .. } => "degraded",
            UplinkState::Offline { .. } => "offline",
        }
    }
}

/// A gateway's retained status. The Last Will has `gateway` and `state` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Whose status.
    pub gateway: GatewayId,
    /// Whether it is there.
    pub state: ConnectionState,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Ridgeway's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whole seconds since the gateway's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// The way to the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkState>,
    /// Its readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readers: Option<Vec<ReaderSummary>>,
}

impl GatewayStatus {
    /// What the Last Will says.
    pub fn offline(gateway: GatewayId) -> Self {
        Self {
            gateway,
            state: ConnectionState::Offline,
            since: None,
            version: None,
            uptime_seconds: None,
            uplink: None,
            readers: None,
        }
    }
}
