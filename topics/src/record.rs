//! An event as the journal keeps it and the link carries it: encoded once, passed on as it is.
//!
//! # Byte layout, version 1 (numbers little-endian)
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind: 1 event, 2 gap |
//! | 2 | 1 | lane: 0 access, 1 results, 2 events, 3 telemetry |
//! | 3 | 1 | flags: bit 0, a sealed private part follows the JSON |
//! | 4 | 8 | sequence number; of a gap, the last one that it covers |
//! | 12 | 8 | first sequence number covered; of an event, the same as above |
//! | 20 | 8 | chain: hash of this record and of the chain before it in its lane |
//! | 28 | 16 | boot id |
//! | 44 | 8 | milliseconds since that boot, when it happened |
//! | 52 | 4 | length of the JSON |
//! | 56 | … | the public event, JSON: all that every recipient may see |
//! | … | … | the sealed private part, to the end |
//!
//! **The private part** holds what only the bridge may see (the template in a command's result). It
//! is sealed with the link's key before it reaches the journal, so it lies there as it travels.
//!
//! **A gap** stands in place of the sequence numbers it covers: whoever counts a lane adds them up to
//! what was given out. Its JSON is an ordinary `journal:gap` event.
//!
//! **The chain** tells a copied or rolled-back journal from the original: two different records under
//! one sequence number have different chains from there on. It is a check value, not a signature.

use std::io::Write as _;

use crate::{
    BootId, Clock, CommandId, Event, EventBody, EventId, EventType, GatewayId, Lane, Timestamp,
};

/// The version of the layout that this code writes.
pub const VERSION: u8 = 1;
/// Bytes before the JSON.
pub const HEADER_BYTES: usize = 56;
/// Where the chain value is within them.
pub(crate) const CHAIN: std::ops::Range<usize> = 20..28;
/// The largest record, all parts together. A command's result may hold a template; nothing else is
/// near it.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

const FLAG_PRIVATE: u8 = 1;
/// What the end of the JSON takes, without the gateway's id: `,"gateway":"…","id":"…","lane":"…","seq":…}`.
const ENVELOPE_BYTES: usize = 128;

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// An event.
    Event,
    /// Stands for a range of lost ones.
    Gap,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecordError {
    #[error("a record of {0} bytes is shorter than its header ({HEADER_BYTES} bytes)")]
    Short(usize),
    #[error("a record of {0} bytes is larger than {MAX_RECORD_BYTES} bytes")]
    Long(usize),
    #[error("record version {0} is not known (this is {VERSION})")]
    Version(u8),
    #[error("record field {field} has the value {value}, which is not allowed")]
    Field { field: &'static str, value: u64 },
    #[error("the event of the record can't be encoded: {0}")]
    Encode(String),
    #[error("the event of the record can't be read: {0}")]
    Json(String),
}

/// An event that has no sequence number yet. Its JSON is already encoded, but for the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    event: EventType,
    lane: Lane,
    boot: BootId,
    uptime_ms: u64,
    /// The record's bytes as far as they are known: room for the header, and the JSON but for its end.
    bytes: Vec<u8>,
    private: Vec<u8>,
}

/// What surrounds an event when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock.
    pub timestamp: Timestamp,
    /// How far to trust it.
    pub clock: Clock,
    /// The run of the operating system.
    pub boot: BootId,
    /// Milliseconds since that boot.
    pub uptime_ms: u64,
}

/// What caused an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cause {
    /// A command.
    pub command_id: Option<CommandId>,
    /// A WebSocket request that named itself.
    pub request_id: Option<String>,
}

impl Draft {
    /// Encodes `body` as it will stand in the journal.
    pub fn new(body: &EventBody, moment: &Moment, cause: &Cause) -> Result<Self, RecordError> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Head<'a> {
            #[serde(flatten)]
            body: &'a EventBody,
            event: EventType,
            timestamp: Timestamp,
            clock: Clock,
            #[serde(skip_serializing_if = "Option::is_none")]
            command_id: &'a Option<CommandId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: &'a Option<String>,
        }
        let event = body.event_type();
        let head = Head {
            body,
            event,
            timestamp: moment.timestamp,
            clock: moment.clock,
            command_id: &cause.command_id,
            request_id: &cause.request_id,
        };
        // Written in place, on the caller's thread: what is left for the journal's is short.
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 320 + ENVELOPE_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        serde_json::to_writer(&mut bytes, &head)
            .map_err(|error| RecordError::Encode(error.to_string()))?;
        bytes.pop(); // the closing brace: the envelope's end is added with the sequence number
        if bytes.len() - HEADER_BYTES > MAX_RECORD_BYTES / 2 {
            return Err(RecordError::Long(bytes.len()));
        }
        Ok(Self {
            event,
            lane: event.lane(),
            boot: moment.boot,
            uptime_ms: moment.uptime_ms,
            bytes,
            private: Vec::new(),
        })
    }

    /// With a sealed private part.
    pub fn with_private(mut self, sealed: Vec<u8>) -> Result<Self, RecordError> {
        if sealed.len() > MAX_RECORD_BYTES / 2 - 1024 {
            return Err(RecordError::Long(sealed.len()));
        }
        self.private = sealed;
        Ok(self)
    }

    /// In another lane than its type's: a gap goes where the records it stands for were.
    #[must_use]
    pub fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Its type.
    pub fn event_type(&self) -> EventType {
        self.event
    }

    /// Its JSON as far as it is encoded: all but the end.
    pub fn json_start(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Its lane.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The record of an event with sequence number `seq`, after a record whose chain was `chain`.
    pub fn into_record(self, gateway: &GatewayId, id: EventId, seq: u64, chain: u64) -> Record {
        self.finish(gateway, id, RecordKind::Event, seq, seq, chain)
    }

    /// The record of a gap that covers `first..=last`, after a record whose chain was `chain`.
    pub fn into_gap(
        self,
        gateway: &GatewayId,
        id: EventId,
        (first, last): (u64, u64),
        chain: u64,
    ) -> Record {
        self.finish(gateway, id, RecordKind::Gap, first, last, chain)
    }

    fn finish(
        self,
        gateway: &GatewayId,
        id: EventId,
        kind: RecordKind,
        first: u64,
        last: u64,
        chain: u64,
    ) -> Record {
        let mut bytes = self.bytes;
        bytes.reserve_exact(ENVELOPE_BYTES + gateway.as_str().len() + self.private.len());
        bytes[0] = VERSION;
        bytes[1] = match kind {
            RecordKind::Event => 1,
            RecordKind::Gap => 2,
        };
        bytes[2] = self.lane.index() as u8;
        bytes[3] = if self.private.is_empty() { 0 } else { FLAG_PRIVATE };
        bytes[4..12].copy_from_slice(&last.to_le_bytes());
        bytes[12..20].copy_from_slice(&first.to_le_bytes());
        bytes[28..44].copy_from_slice(self.boot.as_bytes());
        bytes[44..52].copy_from_slice(&self.uptime_ms.to_le_bytes());
        for part in [r#","gateway":""#, gateway.as_str(), r#"","id":""#] {
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&id.to_text());
        for part in [r#"","lane":""#, self.lane.as_str()] {
            bytes.extend_from_slice(part.as_bytes());
        }
        // Writing to a Vec can't fail.
        let _ = write!(bytes, r#"","seq":{last}}}"#);
        let json_bytes = (bytes.len() - HEADER_BYTES) as u32;
        bytes[52..56].copy_from_slice(&json_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.private);
        let link = chain_after(chain, &bytes);
        bytes[CHAIN].copy_from_slice(&link.to_le_bytes());
        Record { bytes: bytes.into() }
    }
}

/// The chain value of a record whose bytes are `bytes`, after one whose chain was `before`.
pub(crate) fn chain_after(before: u64, bytes: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(before);
    hasher.update(&bytes[..CHAIN.start]);
    hasher.update(&bytes[CHAIN.end..]);
    hasher.digest()
}

/// A record, checked on construction. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    bytes: std::sync::Arc<[u8]>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the event nor the private part belongs into a log by accident.
        let (lane, first, last) = (self.lane(), self.first(), self.seq());
        write!(f, "Record({lane} {first}..={last}, {} bytes)", self.bytes.len())
    }
}

impl Record {
    /// Reads a record's header. The JSON is not parsed.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() < HEADER_BYTES {
            return Err(RecordError::Short(bytes.len()));
        }
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::Long(bytes.len()));
        }
        let field = |field, value: u64| Err(RecordError::Field { field, value });
        let (kind, lane, flags) = (bytes[1], bytes[2], bytes[3]);
        let record = Self { bytes: bytes.into() };
        let (first, last, json_end) = (record.first(), record.seq(), record.json_end());
        match () {
            () if bytes[0] != VERSION => Err(RecordError::Version(bytes[0])),
            () if kind != 1 && kind != 2 => field("kind", kind.into()),
            () if Lane::from_index(lane.into()).is_none() => field("lane", lane.into()),
            () if flags & !FLAG_PRIVATE != 0 => field("flags", flags.into()),
            () if first == 0 || first > last => field("first", first),
            () if kind == 1 && first != last => field("first", first),
            () if json_end > bytes.len() => field("json length", json_end as u64),
            () if flags == 0 && json_end != bytes.len() => field("length", bytes.len() as u64),
            () => Ok(record),
        }
    }

    /// Reads a record that another version may have written: what can be accounted for is a record, also
    /// with a version, a kind or flags that are not known here, or a JSON that is cut. Where lane and numbers
    /// are is the same in every version that this link's version carries. Whoever takes it sets it aside
    /// where [`event`](Self::event) fails; refused, it would hold up all that comes after it.
    pub fn read_foreign(bytes: &[u8]) -> Result<Self, RecordError> {
        let strict = Self::read(bytes);
        let (Err(RecordError::Field { .. } | RecordError::Version(_)), Some(&lane)) =
            (&strict, bytes.get(2))
        else {
            return strict;
        };
        let record = Self { bytes: bytes.into() };
        let (first, last) = (record.first(), record.seq());
        let is_numbered = match record.kind() {
            RecordKind::Event => 0 < first && first == last,
            RecordKind::Gap => 0 < first && first <= last,
        };
        if is_numbered && Lane::from_index(lane.into()).is_some() { Ok(record) } else { strict }
    }

    /// Whether this version knows its version, its kind and its flags.
    pub fn is_known(&self) -> bool {
        self.bytes[0] == VERSION
            && matches!(self.bytes[1], 1 | 2)
            && self.bytes[3] & !FLAG_PRIVATE == 0
    }

    /// The record as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Event or gap.
    pub fn kind(&self) -> RecordKind {
        if self.bytes[1] == 2 { RecordKind::Gap } else { RecordKind::Event }
    }

    /// Its lane.
    pub fn lane(&self) -> Lane {
        // The constructors admit nothing else.
        Lane::from_index(self.bytes[2].into()).unwrap_or(Lane::Telemetry)
    }

    /// Its sequence number; of a gap, the last one covered.
    pub fn seq(&self) -> u64 {
        self.u64_at(4)
    }

    /// The first sequence number covered.
    pub fn first(&self) -> u64 {
        self.u64_at(12)
    }

    /// The chain value up to and with this record.
    pub fn chain(&self) -> u64 {
        self.u64_at(20)
    }

    /// Whether its chain value is what follows from `before`.
    pub fn continues(&self, before: u64) -> bool {
        chain_after(before, &self.bytes) == self.chain()
    }

    /// The run of the operating system in which it happened.
    pub fn boot(&self) -> BootId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[28..44]);
        BootId::from_bytes(id)
    }

    /// Milliseconds since that boot.
    pub fn uptime_ms(&self) -> u64 {
        self.u64_at(44)
    }

    /// The public event, JSON.
    pub fn json(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..self.json_end().min(self.bytes.len())]
    }

    /// The sealed private part, if there is one.
    pub fn private(&self) -> Option<&[u8]> {
        let end = self.json_end().min(self.bytes.len());
        (self.bytes[3] & FLAG_PRIVATE != 0).then(|| &self.bytes[end..])
    }

    /// The public event, parsed.
    pub fn event(&self) -> Result<Event, RecordError> {
        serde_json::from_slice(self.json()).map_err(|error| RecordError::Json(error.to_string()))
    }

    fn json_end(&self) -> usize {
        let mut length = [0; 4];
        length.copy_from_slice(&self.bytes[52..56]);
        HEADER_BYTES.saturating_add(u32::from_le_bytes(length) as usize)
    }

    fn u64_at(&self, offset: usize) -> u64 {
        let mut value = [0; 8];
        value.copy_from_slice(&self.bytes[offset..offset + 8]);
        u64::from_le_bytes(value)
    }
}

#[cfg(test)]
mod tests;
