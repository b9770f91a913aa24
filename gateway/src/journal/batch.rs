//! What is asked of the writer, and what comes back.

use serde_json::{Map, Value};
use topics::{CommandId, Draft, EventType, ReaderId, Record};

/// The tables for what is not an event. Keys and values are their owners' affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Table {
    Templates,
    Commands,
    Readers,
    ApiKeys,
    ScanMarks,
    Settings,
}

impl Table {
    pub(super) const ALL: [Table; 6] = [
        Table::Templates,
        Table::Commands,
        Table::Readers,
        Table::ApiKeys,
        Table::ScanMarks,
        Table::Settings,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Templates => "templates.v1",
            Table::Commands => "commands.v1",
            Table::Readers => "readers.v1",
            Table::ApiKeys => "api-keys.v1",
            Table::ScanMarks => "scan-marks.v1",
            Table::Settings => "settings.v1",
        }
    }
}

/// Who started what an event tells of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// An application with this API key (its id, not the key).
    ApiKey(String),
    /// The gateway's own operator.
    Admin,
    /// A command.
    Command(CommandId),
}

/// What goes with an event in memory and is never stored: whose it is, and fields (a template) that
/// only the owner's own connections get.
#[derive(Clone, PartialEq, Default)]
pub struct Attachment {
    /// Who started it.
    pub owner: Option<Owner>,
    /// Fields for the owner only.
    pub extra: Map<String, Value>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The names only: a value may be a template.
        let names: Vec<&String> = self.extra.keys().collect();
        f.debug_struct("Attachment").field("owner", &self.owner).field("extra", &names).finish()
    }
}

/// A record that is on disk.
#[derive(Debug, Clone)]
pub struct Committed {
    /// It.
    pub record: Record,
    /// Its type.
    pub event: EventType,
    /// The reader it is about.
    pub reader: Option<ReaderId>,
    /// What its maker attached.
    pub attachment: Attachment,
}

/// An event that is to be one. What can be known of it is found on its maker's thread: the writer's is
/// everyone's.
#[derive(Clone)]
pub(super) struct Drafted {
    pub(super) draft: Draft,
    pub(super) reader: Option<ReaderId>,
    pub(super) attachment: Attachment,
}

/// The reader of an encoded event: `deviceId` is the first field after `type` wherever there is one,
/// so the rest need not be looked at.
fn reader_of(json: &[u8]) -> Option<ReaderId> {
    const FIELD: &str = r#","deviceId":""#;
    /// No type's name and no reader's id is longer than both together.
    const START_BYTES: usize = 192;
    let start = &json[..json.len().min(START_BYTES)];
    // It may end within a character of what follows.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
    };
    let after_type = text.strip_prefix(r#"{"type":""#)?.split_once('"')?.1;
    let (id, _) = after_type.strip_prefix(FIELD)?.split_once('"')?;
    id.parse().ok()
}

/// One change of a [`Table`].
#[derive(Clone)]
pub(super) enum Change {
    Put(Table, Vec<u8>, Vec<u8>),
    Delete(Table, Vec<u8>),
}

/// What is committed together. Events get their sequence numbers in the order in which they were
/// added.
#[derive(Clone, Default)]
pub struct Batch {
    pub(super) events: Vec<Drafted>,
    pub(super) changes: Vec<Change>,
    pub(super) absent: Vec<(Table, Vec<u8>)>,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} events, {} changes)", self.events.len(), self.changes.len())
    }
}

impl Batch {
    /// Nothing yet. Committing nothing is a commit all the same: it proves that the disk answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an event.
    #[must_use]
    pub fn event(mut self, draft: Draft, attachment: Attachment) -> Self {
        let reader = reader_of(draft.json_start());
        self.events.push(Drafted { draft, reader, attachment });
        self
    }

    /// With a key set.
    #[must_use]
    pub fn put(mut self, table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        self.changes.push(Change::Put(table, key.into(), value));
        self
    }

    /// With a key set that must not be there yet: else the whole batch fails with
    /// [`JournalError::Exists`](super::JournalError::Exists).
    #[must_use]
    pub fn put_if_absent(mut self, table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        let key = key.into();
        self.absent.push((table, key.clone()));
        self.changes.push(Change::Put(table, key, value));
        self
    }

    /// With a key deleted, if it is there.
    #[must_use]
    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.changes.push(Change::Delete(table, key.into()));
        self
    }

    /// Whether all it does is to set or delete settings.
    pub(super) fn is_of_settings(&self) -> bool {
        let table = |change: &Change| match change {
            Change::Put(table, ..) | Change::Delete(table, _) => *table,
        };
        let mut changes = self.changes.iter();
        self.events.is_empty() && changes.all(|change| table(change) == Table::Settings)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_is_read_from_the_start_of_the_json() {
        let with = br#"{"type":"scan:stopped","deviceId":"device-001","scanId":"s"}"#;
        assert_eq!(reader_of(with), Some("device-001".parse().unwrap()));
        let without = br#"{"type":"scan:error","error":"x","deviceId":"device-001"}"#;
        assert_eq!(reader_of(without), None);
        assert_eq!(reader_of(b"not json"), None);
    }
}
