//! The frames between a gateway and its bridge: one frame is the payload of one MQTT publish.
//!
//! # Byte layout, version 1 (numbers little-endian)
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | `RL` |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | kind (below) |
//! | 4 | 1 | flags: bit 0, the payload is zstd-compressed |
//! | 5 | 3 | zero |
//! | 8 | 4 | length of the payload before compression |
//! | 12 | … | payload |
//!
//! | kind | direction | payload |
//! |---|---|---|
//! | 1 [`Hello`] | up | JSON |
//! | 2 [`Resume`] | down | JSON |
//! | 3 [`Batch`] | up | records, packed: see `link/batch.rs` |
//! | 4 [`Ack`] | down | JSON |
//! | 5 [`CommandDown`] | down | JSON |
//! | 6 [`Received`] | up | JSON: a command arrived and is durable there |
//! | 7 [`Probe`] | up | JSON: go through the bridge's store and come back |
//! | 8 [`Probed`] | down | JSON |
//! | 9 [`AskHello`] | down | JSON: say hello again (the bridge has restarted) |
//!
//! A frame of another kind is [`Frame::Unknown`]: a newer peer may say what an older one can pass
//! over. A frame of another version is an error. Every frame but `hello`, `resume` and `ask-hello`
//! names the session of the hello it belongs to; what comes from an earlier session is passed over.
//!
//! # The conversation
//!
//! ```text
//! gateway                                     bridge
//!   hello (session, store, per lane …)  ──▶     opens or compares its cursors
//!   ◀── resume (per lane: watermark, ranges)    or: forked, refused
//!   batch … batch …                     ──▶     stores, commits
//!   ◀── ack (watermark, ranges)                 after the commit, several batches at once
//!   ◀── command (until received)                again after each resume while pending
//!   received                            ──▶
//!   batch (its results lane)            ──▶
//!   probe                               ──▶     writes one row
//!   ◀── probed                                  after the commit
//! ```

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    BootId, CommandId, GatewayId, Lane, ReaderSummary, StoreId, Timestamp, record::RecordError,
};

mod batch;

pub use batch::Batch;

/// The version that this code speaks.
pub const VERSION: u8 = 1;
/// The largest payload before compression. Below the brokers' packet limit of 256 KiB even where
/// it does not compress.
pub const MAX_PAYLOAD_BYTES: usize = 240 * 1024;
/// The most ranges above a watermark that are told or kept.
pub const MAX_RANGES: usize = 64;
/// Bytes a record takes in a batch beside its own.
pub const RECORD_OVERHEAD_BYTES: usize = 5;

const MAGIC: [u8; 2] = *b"RL";
const HEADER_BYTES: usize = 12;
const FLAG_ZSTD: u8 = 1;
/// Below this a frame is not worth compressing.
const COMPRESS_FROM_BYTES: usize = 512;
const ZSTD_LEVEL: i32 = 1;

/// A frame.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // Each holds the type of its name.
pub enum Frame {
    Hello(Hello),
    Resume(Resume),
    Batch(Batch),
    Ack(Ack),
    Command(CommandDown),
    Received(Received),
    Probe(Probe),
    Probed(Probed),
    AskHello(AskHello),
    /// From a newer peer: to be passed over.
    Unknown(u8),
}

/// The first word of a gateway on each connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Random for each hello.
    pub session: u64,
    /// Who.
    pub gateway: GatewayId,
    /// Its journal.
    pub store: StoreId,
    /// Its run of the operating system.
    pub boot: BootId,
    /// Milliseconds since that boot, now.
    pub uptime_ms: u64,
    /// Its wall clock, now.
    pub wall: Timestamp,
    /// Milliseconds between its probes; none of a gateway that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe_ms: Option<u64>,
    /// Per lane, what the journal holds.
    pub lanes: Vec<LaneHello>,
    /// Who it is, for people.
    pub agent: AgentInfo,
}

/// What a gateway's journal holds of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneHello {
    /// Which.
    pub lane: Lane,
    /// The oldest sequence number still held (also acknowledged ones, within retention).
    pub oldest: u64,
    /// The next one to be given out.
    pub next: u64,
    /// The last watermark that the bridge acknowledged, 0 for none.
    pub watermark: u64,
    /// The chain value at that watermark, 0 for none.
    pub chain: u64,
}

/// A gateway, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    /// What its operator calls it.
    pub name: String,
    /// The machine's name.
    pub hostname: String,
    /// The operating system.
    pub os: String,
    /// Ridgeway's version.
    pub version: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Its readers.
    #[serde(default)]
    pub readers: Vec<ReaderSummary>,
}

/// The bridge's answer to a hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The hello's.
    pub session: u64,
    /// The hello's.
    pub store: StoreId,
    /// The bridge's clock, now.
    pub now: Timestamp,
    /// What the bridge has and wants.
    pub outcome: Outcome,
}

/// How a hello was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Go on from here.
    Resume {
        /// Per lane, what is stored.
        lanes: Vec<LaneAck>,
    },
    /// This journal is not the one that the bridge knows under its store id: it was copied or rolled
    /// back. The gateway takes a new store id and says hello again.
    Forked {
        /// What didn't fit, for people.
        reason: String,
    },
    /// The bridge will not take this gateway; it tries again later.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// What is stored of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneAck {
    /// Which.
    pub lane: Lane,
    /// All up to here, it included, are committed.
    pub watermark: u64,
    /// The chain value at the watermark, 0 for none.
    pub chain: u64,
    /// Committed above the watermark: first and last of each range, rising, at most [`MAX_RANGES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<(u64, u64)>,
}

/// What is committed, after batches. Repeats and gaps in what is acknowledged are harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The hello's.
    pub session: u64,
    /// The journal.
    pub store: StoreId,
    /// The lanes that changed.
    pub lanes: Vec<LaneAck>,
    /// The bridge's clock, now.
    pub now: Timestamp,
}

/// A command for a gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandDown {
    /// The hello's.
    pub session: u64,
    /// The key that makes a repeat harmless.
    pub id: CommandId,
    /// See [`CommandName`](crate::CommandName).
    pub command: String,
    /// Its parameters, without templates.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// Parameters that hold templates, sealed with the link's key; base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// When it was asked, by the bridge's clock.
    pub issued_at: Timestamp,
    /// When it is too late, by the bridge's clock.
    pub expires_at: Timestamp,
    /// The bridge's clock, now.
    pub now: Timestamp,
}

/// A command arrived and is durable at the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// The hello's.
    pub session: u64,
    /// Which.
    pub command: CommandId,
}

/// A question that only a working way, through both stores, answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The hello's.
    pub session: u64,
    /// Comes back.
    pub nonce: u64,
    /// The readers as they are now.
    #[serde(default)]
    pub readers: Vec<ReaderSummary>,
    /// Records queued for the bridge.
    #[serde(default)]
    pub queued: u64,
}

/// Its answer, after the bridge committed a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    /// The hello's.
    pub session: u64,
    /// The probe's.
    pub nonce: u64,
    /// The bridge's clock, now.
    pub now: Timestamp,
}

/// The bridge has no session of this gateway: it asks for a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskHello {
    /// The session it didn't know, if a frame named one.
    #[serde(default)]
    pub session: u64,
}

/// Why bytes are not a frame, or a frame can't be bytes.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LinkError {
    #[error("a frame of {0} bytes is shorter than its header ({HEADER_BYTES} bytes)")]
    Short(usize),
    #[error("this is not a frame: it starts with {0:02x?}")]
    Magic([u8; 2]),
    #[error("link version {0} is not known (this is {VERSION}): update the older side")]
    Version(u8),
    #[error("frame field {field} has the value {value}, which is not allowed")]
    Field { field: &'static str, value: u64 },
    #[error("a frame's payload of {0} bytes is larger than {MAX_PAYLOAD_BYTES} bytes")]
    TooLarge(usize),
    #[error("the payload of a frame of kind {kind} can't be read: {source}")]
    Json { kind: u8, source: serde_json::Error },
    #[error("the payload can't be decompressed: {0}")]
    Zstd(std::io::Error),
    #[error("record {index} of a batch: {source}")]
    Record { index: usize, source: RecordError },
}

impl Frame {
    /// The frame as bytes, compressed where that pays.
    pub fn encode(&self) -> Result<Vec<u8>, LinkError> {
        let (kind, payload) = match self {
            Frame::Hello(body) => (1, json(1, body)?),
            Frame::Resume(body) => (2, json(2, body)?),
            Frame::Batch(batch) => (3, batch.encode()),
            Frame::Ack(body) => (4, json(4, body)?),
            Frame::Command(body) => (5, json(5, body)?),
            Frame::Received(body) => (6, json(6, body)?),
            Frame::Probe(body) => (7, json(7, body)?),
            Frame::Probed(body) => (8, json(8, body)?),
            Frame::AskHello(body) => (9, json(9, body)?),
            Frame::Unknown(kind) => (*kind, Vec::new()),
        };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(LinkError::TooLarge(payload.len()));
        }
        let packed = compress(&payload);
        let (flags, body) = match &packed {
            Some(packed) => (FLAG_ZSTD, packed),
            None => (0, &payload),
        };
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, kind, flags, 0, 0, 0]);
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        Ok(bytes)
    }

    /// How long the payload of a frame is once it is unpacked, as its header says; 0 without one.
    pub fn unpacked_len(bytes: &[u8]) -> usize {
        if bytes.len() < HEADER_BYTES { 0 } else { u32_at(bytes, 8) as usize }
    }

    /// The frame in these bytes. Takes no more memory than [`MAX_PAYLOAD_BYTES`] for it.
    pub fn decode(bytes: &[u8]) -> Result<Self, LinkError> {
        if bytes.len() < HEADER_BYTES {
            return Err(LinkError::Short(bytes.len()));
        }
        if bytes[..2] != MAGIC {
            return Err(LinkError::Magic([bytes[0], bytes[1]]));
        }
        if bytes[2] != VERSION {
            return Err(LinkError::Version(bytes[2]));
        }
        let (kind, flags, body) = (bytes[3], bytes[4], &bytes[HEADER_BYTES..]);
        let length = u32_at(bytes, 8) as usize;
        if length > MAX_PAYLOAD_BYTES {
            return Err(LinkError::TooLarge(length));
        }
        let unpacked;
        let payload = match flags {
            0 => body,
            FLAG_ZSTD => {
                unpacked = zstd::bulk::decompress(body, length).map_err(LinkError::Zstd)?;
                &unpacked[..]
            }
            _ => return Err(LinkError::Field { field: "flags", value: flags.into() }),
        };
        if payload.len() != length {
            return Err(LinkError::Field { field: "length", value: length as u64 });
        }
        Ok(match kind {
            1 => Frame::Hello(parse(kind, payload)?),
            2 => Frame::Resume(parse(kind, payload)?),
            3 => Frame::Batch(Batch::decode(payload)?),
            4 => Frame::Ack(parse(kind, payload)?),
            5 => Frame::Command(parse(kind, payload)?),
            6 => Frame::Received(parse(kind, payload)?),
            7 => Frame::Probe(parse(kind, payload)?),
            8 => Frame::Probed(parse(kind, payload)?),
            9 => Frame::AskHello(parse(kind, payload)?),
            other => Frame::Unknown(other),
        })
    }
}

fn json<T: Serialize>(kind: u8, body: &T) -> Result<Vec<u8>, LinkError> {
    serde_json::to_vec(body).map_err(|source| LinkError::Json { kind, source })
}

fn parse<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, LinkError> {
    serde_json::from_slice(payload).map_err(|source| LinkError::Json { kind, source })
}

/// Compressed, where that makes it smaller by a tenth or more.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < COMPRESS_FROM_BYTES {
        return None;
    }
    let packed = zstd::bulk::compress(payload, ZSTD_LEVEL).ok()?;
    (packed.len() < payload.len() / 10 * 9).then_some(packed)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(value)
}

#[cfg(test)]
mod tests;
