//! Which readers there are. Ids go by serial number in the order first seen and stay: table
//! `readers`, key the serial number, value JSON `{"id","model","firmware","firstSeen"}`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use topics::{ErrorBody, ErrorCode, ReaderId, ReaderInfo, ReaderState, ReaderSummary, Timestamp};
use zkfp::Device;

use super::reader::Message;
use crate::{
    journal::{Batch, Journal, JournalError, Table},
    operation::journal_error,
};

/// What a reader looks like now.
#[derive(Debug, Clone, PartialEq)]
pub struct ReaderView {
    /// `device-001`, …
    pub id: ReaderId,
    /// For people.
    pub name: String,
    /// As the reader tells it.
    pub serial_number: String,
    /// As the reader tells it.
    pub model: String,
    /// As the operating system knows it; empty: unknown.
    pub firmware: String,
    /// What it is doing.
    pub status: ReaderState,
    /// Since when.
    pub since: Timestamp,
    /// The last time that something happened on it.
    pub last_activity: Option<Timestamp>,
    /// The image's width in pixels; 0 before it was first seen in this process.
    pub width: u32,
    /// The image's height in pixels.
    pub height: u32,
    /// Dots per inch.
    pub dpi: u16,
}

impl ReaderView {
    /// Whether it is plugged in and answers.
    pub fn is_connected(&self) -> bool {
        match self.status {
            ReaderState::Idle | ReaderState::Busy | ReaderState::Error => true,
            ReaderState::Disconnected => false,
        }
    }

    /// Its word in the documented list, where an idle reader reads `connected`.
    pub fn list_status(&self) -> &'static str {
        match self.status {
            ReaderState::Idle => "connected",
            ReaderState::Busy => "busy",
            ReaderState::Error => "error",
            ReaderState::Disconnected => "disconnected",
        }
    }

    /// As status topics show it.
    pub fn summary(&self) -> ReaderSummary {
        ReaderSummary {
            id: self.id.clone(),
            serial_number: self.serial_number.clone(),
            model: self.model.clone(),
            status: self.status,
            since: Some(self.since),
        }
    }

    pub(super) fn info(&self) -> ReaderInfo {
        ReaderInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            serial_number: self.serial_number.clone(),
            model: self.model.clone(),
            status: self.status,
            firmware_version: self.firmware.clone(),
        }
    }
}

/// The readers of this gateway, in the order first seen.
pub(crate) struct Registry {
    journal: Journal,
    entries: Mutex<Vec<Entry>>,
    /// Why no reader can be had although some may be plugged in.
    trouble: Mutex<Option<ErrorBody>>,
    summaries: watch::Sender<Vec<ReaderSummary>>,
    /// How many readers the host last found; none before it looked.
    plugged: watch::Sender<Option<usize>>,
}

pub(crate) struct Entry {
    view: ReaderView,
    /// None: known from before, not seen in this process.
    mailbox: Option<mpsc::Sender<Message>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: ReaderId,
    model: String,
    firmware: String,
    first_seen: Timestamp,
}

impl Registry {
    /// Reads the readers that were seen before; all count as disconnected.
    pub(crate) fn open(journal: Journal, now: Timestamp) -> Result<Self, JournalError> {
        let mut entries: Vec<Entry> = journal
            .scan(Table::Readers, b"")?
            .into_iter()
            .filter_map(|(key, value)| known(&key, &value, now))
            .collect();
        entries.sort_by(|a, b| a.view.id.cmp(&b.view.id));
        let summaries = watch::Sender::new(summaries(&entries));
        let (entries, trouble) = (Mutex::new(entries), Mutex::new(None));
        let plugged = watch::Sender::new(None);
        Ok(Self { journal, entries, trouble, summaries, plugged })
    }

    pub(super) fn set_plugged(&self, count: usize) {
        self.plugged.send_replace(Some(count));
    }

    /// Waits until the host has looked for readers and those it found are taken up.
    pub(crate) async fn taken_up(&self) {
        // Their senders live as long as `self`.
        let (mut plugged, mut readers) = (self.plugged.subscribe(), self.watch());
        let count = match plugged.wait_for(Option::is_some).await {
            Ok(count) => count.unwrap_or_default(),
            Err(_) => return,
        };
        let there = |reader: &&ReaderSummary| reader.status != ReaderState::Disconnected;
        let _ = readers.wait_for(|all| all.iter().filter(there).count() >= count).await;
    }

    pub(crate) fn list(&self) -> Vec<ReaderView> {
        self.entries().iter().map(|entry| entry.view.clone()).collect()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Vec<ReaderSummary>> {
        self.summaries.subscribe()
    }

    /// The reader with this id or serial number.
    pub(crate) fn find(&self, name: &str) -> Option<ReaderView> {
        let entries = self.entries();
        let entry = entries
            .iter()
            .find(|entry| entry.view.id.as_str() == name)
            .or_else(|| entries.iter().find(|entry| entry.view.serial_number == name));
        entry.map(|entry| entry.view.clone())
    }

    /// The first one that is connected, an idle one before others.
    pub(crate) fn first_connected(&self) -> Option<ReaderView> {
        let entries = self.entries();
        let idle = entries.iter().find(|entry| entry.view.status == ReaderState::Idle);
        idle.or_else(|| entries.iter().find(|entry| entry.view.is_connected()))
            .map(|entry| entry.view.clone())
    }

    pub(crate) fn mailbox(&self, id: &ReaderId) -> Option<mpsc::Sender<Message>> {
        self.entries().iter().find(|entry| entry.view.id == *id)?.mailbox.clone()
    }

    /// Why there is no reader, where it is not for want of one.
    pub(crate) fn trouble(&self) -> Option<ErrorBody> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<ErrorBody>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Takes up a connected device: its id, remembered from now on. None: it can't be.
    pub(super) async fn connected(
        &self,
        device: &Device,
        now: Timestamp,
    ) -> Result<ReaderView, ErrorBody> {
        let serial = device.serial.to_string();
        if let Some(view) = self.refresh(&serial, device) {
            return Ok(view);
        }
        let id = self.next_id()?;
        let firmware = device.firmware.clone().unwrap_or_default();
        let row = Row { id: id.clone(), model: device.model.clone(), firmware, first_seen: now };
        let value = serde_json::to_vec(&row)
            .map_err(|error| ErrorBody::new(ErrorCode::InternalError, error.to_string()))?;
        let batch = Batch::new().put(Table::Readers, serial.clone(), value);
        self.journal.commit(batch).await.map_err(|error| journal_error(&error))?;
        self.entries()
            .push(Entry { view: view(id, serial.clone(), row.model, now), mailbox: None });
        self.refresh(&serial, device).ok_or_else(|| {
            ErrorBody::new(ErrorCode::InternalError, "a reader vanished from the registry")
        })
    }

    pub(super) fn set_mailbox(&self, id: &ReaderId, mailbox: mpsc::Sender<Message>) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.view.id == *id) {
            entry.mailbox = Some(mailbox);
        }
    }

    /// What the reader's task says of it, after it is committed.
    pub(super) fn set_status(&self, id: &ReaderId, status: ReaderState, now: Timestamp) {
        let changed = {
            let mut entries = self.entries();
            let Some(entry) = entries.iter_mut().find(|entry| entry.view.id == *id) else { return };
            entry.view.last_activity = Some(now);
            let changed = entry.view.status != status;
            if changed {
                (entry.view.status, entry.view.since) = (status, now);
            }
            changed.then(|| summaries(&entries))
        };
        if let Some(summaries) = changed {
            self.summaries.send_replace(summaries);
        }
    }

    fn refresh(&self, serial: &str, device: &Device) -> Option<ReaderView> {
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| entry.view.serial_number == serial)?;
        let view = &mut entry.view;
        (view.width, view.height, view.dpi) = (device.width, device.height, device.dpi);
        view.model.clone_from(&device.model);
        view.name.clone_from(&device.model);
        view.firmware = device.firmware.clone().unwrap_or_default();
        Some(view.clone())
    }

    fn next_id(&self) -> Result<ReaderId, ErrorBody> {
        let taken: Vec<ReaderId> =
            self.entries().iter().map(|entry| entry.view.id.clone()).collect();
        let free =
            |number: &usize| taken.iter().all(|id| id.as_str() != format!("device-{number:03}"));
        let number = (taken.len() + 1..).find(free).unwrap_or(usize::MAX);
        ReaderId::new(format!("device-{number:03}"))
            .map_err(|error| ErrorBody::new(ErrorCode::InternalError, error.to_string()))
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // Nothing panics while it holds the lock; poisoned entries are still whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn summaries(entries: &[Entry]) -> Vec<ReaderSummary> {
    entries.iter().map(|entry| entry.view.summary()).collect()
}

fn known(key: &[u8], value: &[u8], now: Timestamp) -> Option<Entry> {
    let serial = String::from_utf8(key.to_vec()).ok()?;
    let row: Row = serde_json::from_slice(value)
        .inspect_err(|error| tracing::error!(%error, "a reader's row can't be read"))
        .ok()?;
    let mut view = view(row.id, serial, row.model, now);
    view.firmware = row.firmware;
    Some(Entry { view, mailbox: None })
}

fn view(id: ReaderId, serial_number: String, model: String, now: Timestamp) -> ReaderView {
    ReaderView {
        id,
        name: model.clone(),
        serial_number,
        model,
        firmware: String::new(),
        status: ReaderState::Disconnected,
        since: now,
        last_activity: None,
        width: 0,
        height: 0,
        dpi: 0,
    }
}
