//! The commands' rows, bounded in number and age.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize};
use topics::{CommandId, CommandResponse, CommandStatus, Timestamp};

use super::{KEPT, MAX_ROWS};
use crate::journal::{Batch, Journal, JournalError, Table};

/// A command's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    v: u8,
    /// Whether the bridge asked.
    pub(super) bridge: bool,
    /// Its name.
    pub(super) command: String,
    accepted_at: Timestamp,
    /// How it stands.
    pub(super) response: CommandResponse,
}

impl Row {
    pub(super) fn new(bridge: bool, command: &str, response: CommandResponse) -> Self {
        let accepted_at = crate::journal::now();
        Self { v: 1, bridge, command: command.to_owned(), accepted_at, response }
    }
}

/// Which rows there are, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rows {
    oldest_first: VecDeque<(Timestamp, CommandId)>,
    known: HashSet<CommandId>,
}

impl Rows {
    /// The rows, and those that say `running`.
    pub(super) fn open(journal: &Journal) -> Result<(Self, Vec<(CommandId, Row)>), JournalError> {
        let mut all: Vec<(CommandId, Row)> = Vec::new();
        for (key, value) in journal.scan(Table::Commands, b"")? {
            match read(&key, &value) {
                Some(row) => all.push(row),
                None => tracing::error!("a command's row can't be read"),
            }
        }
        all.sort_by_key(|(_, row)| row.accepted_at);
        let oldest_first = all.iter().map(|(id, row)| (row.accepted_at, id.clone())).collect();
        let known = all.iter().map(|(id, _)| id.clone()).collect();
        all.retain(|(_, row)| row.response.status == CommandStatus::Running);
        Ok((Self { oldest_first, known }, all))
    }

    /// With this row, and without those that are too old or too many. A row that is new must be
    /// new in the table too.
    pub(super) fn insert(
        &mut self,
        mut batch: Batch,
        id: &CommandId,
        row: &Row,
        now: Timestamp,
    ) -> Batch {
        let value = serde_json::to_vec(row).unwrap_or_default(); // plain data: it can't fail
        batch = if self.known.insert(id.clone()) {
            self.oldest_first.push_back((now, id.clone()));
            batch.put_if_absent(Table::Commands, id.as_str(), value)
        } else {
            batch.put(Table::Commands, id.as_str(), value)
        };
        while self
            .oldest_first
            .front()
            .is_some_and(|(at, _)| self.oldest_first.len() > MAX_ROWS || now.since(*at) > KEPT)
        {
            if let Some((_, oldest)) = self.oldest_first.pop_front() {
                self.known.remove(&oldest);
                batch = batch.delete(Table::Commands, oldest.as_str());
            }
        }
        batch
    }
}

/// The row of a command.
pub(super) fn find(journal: &Journal, id: &CommandId) -> Result<Option<Row>, JournalError> {
    let value = journal.get(Table::Commands, id.as_str().as_bytes())?;
    Ok(value.and_then(|value| read(id.as_str().as_bytes(), &value)).map(|(_, row)| row))
}

fn read(key: &[u8], value: &[u8]) -> Option<(CommandId, Row)> {
    let id = std::str::from_utf8(key).ok()?.parse().ok()?;
    Some((id, serde_json::from_slice(value).ok()?))
}
