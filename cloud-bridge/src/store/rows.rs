//! What the store holds, besides cursors and commands.

use serde::{Deserialize, Serialize};
use topics::{
    EventId, GatewayId, Lane, ReaderSummary, StoreId, Timestamp, UserId, link::AgentInfo,
};

use super::StoreError;

/// A gateway, as it was last heard of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Which.
    pub id: GatewayId,
    /// Whether it is there.
    pub online: bool,
    /// Since when it is so.
    pub since: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// When it first came.
    pub created_at: Timestamp,
    /// Its journal.
    pub store: Option<StoreId>,
    /// What it said of itself.
    pub info: AgentInfo,
    /// Its readers, as last told.
    pub readers: Vec<ReaderSummary>,
    /// Records that wait at the gateway.
    pub queued: u64,
}

/// A template of a user's finger. One finger has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Whose.
    pub user: UserId,
    /// Which finger; `unknown` where nobody said.
    pub finger: String,
    /// Sealed with the master key, base64.
    pub sealed: String,
    /// SHA-256 of the template, hex.
    pub sha256: String,
    /// 0 to 100.
    pub quality: Option<u8>,
    /// The enrolment's id.
    pub enrollment_id: Option<String>,
    /// When it was taken.
    pub enrolled_at: Timestamp,
}

/// A record that can't be an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// From whom.
    pub gateway: GatewayId,
    /// From which journal.
    pub store: StoreId,
    /// Its lane.
    pub lane: Lane,
    /// Its number.
    pub seq: u64,
    /// What is wrong with it.
    pub reason: String,
    /// When it came.
    pub at: Timestamp,
    /// Its bytes, base64.
    pub record: String,
}

/// An event to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// From whom.
    pub gateway: GatewayId,
    /// Its lane.
    pub lane: Lane,
    /// As it came: passed on unchanged.
    pub json: String,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place among all events of all gateways, from 1, in the order of their commits.
    pub index: u64,
    /// The event.
    pub event: NewEvent,
}

const EVENT_VERSION: u8 = 1;
const EVENT_HEADER_BYTES: usize = 19;

/// # Byte layout, version 1
///
/// version (1), lane (1), length of the gateway's id (1), event id (16), gateway's id, JSON.
impl NewEvent {
    pub(super) fn encode(&self) -> Vec<u8> {
        let gateway = self.gateway.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(EVENT_HEADER_BYTES + gateway.len() + self.json.len());
        // A gateway's id has at most 64 bytes.
        bytes.extend_from_slice(&[EVENT_VERSION, self.lane.index() as u8, gateway.len() as u8]);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(gateway);
        bytes.extend_from_slice(self.json.as_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt("a row of events");
        let (header, rest) = bytes.split_at_checked(EVENT_HEADER_BYTES).ok_or_else(corrupt)?;
        let (gateway, json) = rest.split_at_checked(usize::from(header[2])).ok_or_else(corrupt)?;
        if header[0] != EVENT_VERSION {
            return Err(corrupt());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&header[3..]);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| corrupt());
        Ok(Self {
            id: EventId::from_bytes(id),
            gateway: GatewayId::new(text(gateway)?).map_err(|_| corrupt())?,
            lane: Lane::from_index(header[1].into()).ok_or_else(corrupt)?,
            json: text(json)?,
        })
    }
}
