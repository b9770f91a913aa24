//! The journal: the redb file that every promise of the gateway rests on. One writer thread owns it;
//! what waits is committed together, with one fsync, and answered and told after that.
//!
//! # Tables (their names carry versions)
//!
//! | table | key | value |
//! |---|---|---|
//! | `records.{lane}.v1` | sequence number (of a gap, the last covered) | a [`Record`] as bytes, with a check (see `rows.rs`) |
//! | `lanes.v1` | lane index | the lane's marks: trimmed, acknowledged, edge cursor (JSON) |
//! | `meta.v1` | name | layout of the file, store id, number of the last commit, counts of rows |
//! | the [`Table`]s | bytes | bytes |
//!
//! # A lane
//!
//! ```text
//! 1 ……………… trimmed │ trimmed+1 ………… watermark │ …… ranges …… │ next-1
//! only gap rows       acknowledged, kept for     some acknow-   queued
//! are left            the retention window       ledged
//! ```
//!
//! Rows are deleted from the front only. What was not acknowledged when it was deleted is covered by
//! a gap row, so that at any time `next - 1 = acknowledged + queued + dropped`. The last row of a
//! lane is never deleted: it holds the next sequence number and the chain.
//!
//! # What can fail
//!
//! | failure | what happens |
//! |---|---|
//! | a commit fails | the file is reopened; the requests fail, unless the file shows that the commit is there |
//! | the disk is full | [`JournalError::Full`], until there is room; [`Journal::is_sound`] says no |
//! | the file is corrupt | it is set aside under another name; a new store begins, with a gap that names the old one |
//! | the file is gone | the same, told by the store id that is written beside it |
//! | a newer version wrote the file | [`JournalError::Newer`]: it is left alone |
//! | a record is not what was written | the first who meets it has a gap put in its place (`corrupt`) |
//! | the bound is reached | acknowledged rows go first, then the oldest of the lowest lane, leaving gaps |

mod batch;
mod clock;
mod counts;
mod file;
mod gate;
#[doc(hidden)] // For the link's model only, as is the ledger.
pub mod lane;
#[doc(hidden)]
pub mod ledger;
mod overlay;
mod rows;
mod store;
mod survey;
mod verify;
mod writer;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use topics::{EventId, GatewayId, Lane, Record, StoreId, Timestamp, link::LaneAck};

pub use batch::{Attachment, Batch, Committed, Owner, Table};
pub use clock::{boot_id, moment, now, uptime_ms};
pub use file::{FileError, Integrity, JournalFile, compact, is_open};
pub use lane::LaneView;
pub use rows::RowError;
pub use store::event_id;
pub use survey::{Bounds, LaneSurvey, Live, Survey};
pub use verify::{Counted, Finding, Findings, LaneCheck, MAX_FINDINGS, Problem};

use gate::Gate;
use writer::Request;

/// Requests that may wait for the writer. A full channel slows callers down: the writer takes up to
/// this many into one commit, so a longer queue would only hide a slow disk.
const REQUESTS: usize = 8192;
/// Committed records that a slow listener of [`Journal::live`] may be behind before it is told that
/// it lags. It then reads the journal instead.
const LIVE_RECORDS: usize = 4096;

/// Where the journal is and how much it keeps.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The file.
    pub path: PathBuf,
    /// Whose journal it is: part of every record.
    pub gateway: GatewayId,
    /// Bytes of redb's page cache.
    pub cache_bytes: usize,
    /// The most bytes of records. The file takes about twice as much.
    pub max_bytes: u64,
    /// The most records.
    pub max_records: u64,
    /// How long acknowledged records stay.
    pub retention: Duration,
}

impl JournalConfig {
    /// The defaults: 8 MiB of cache, 512 MiB and 1 000 000 records, 72 hours.
    pub fn new(path: impl Into<PathBuf>, gateway: GatewayId) -> Self {
        Self {
            path: path.into(),
            gateway,
            cache_bytes: 8 << 20,
            max_bytes: 512 << 20,
            max_records: 1_000_000,
            retention: Duration::from_secs(72 * 3600),
        }
    }
}

/// What was found at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The journal's store id.
    pub store: StoreId,
    /// The store before this one, where this start began a new one.
    pub previous_store: Option<StoreId>,
    /// Where the unreadable file is now.
    pub set_aside: Option<PathBuf>,
}

/// Why the journal could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A key given to [`Batch::put_if_absent`] is there already; nothing of the batch was written.
    #[error("the key is already in table {0:?}")]
    Exists(Table),
    /// The disk is full. Callers answer 503 and try nothing that must be recorded.
    #[error("no space is left for the journal {}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// [`Journal::close`] was called, or the writer has ended.
    #[error("the journal is closed")]
    Closed,
    /// Another process has the file open.
    #[error("the journal {} is open in another process", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file belongs to another gateway: its records carry that name.
    #[error("the journal {} belongs to gateway {gateway:?}: give this one another data directory", path.display())]
    OtherGateway {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        gateway: String,
    },
    /// A newer version wrote it: what this one can't read of it would become gaps.
    #[error("the journal {} has layout {layout}, which a newer version wrote: start that one, or give this one another data directory", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        layout: u8,
    },
    /// After a failed commit the file could not be opened again yet.
    #[error("the journal {} is not available: {reason}", path.display())]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// The last error.
        reason: String,
    },
    /// The file, the disk or redb failed.
    #[error("the journal failed to {doing}: {source}")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// redb's error.
        source: Arc<redb::Error>,
    },
    /// A file beside the journal failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// A row is no record. A gap is about to stand in its place: whoever reads again meets that.
    #[error("lane {lane}: what stands at {seq} is no record: {reason}")]
    Unreadable {
        /// The lane.
        lane: Lane,
        /// The row's key.
        seq: u64,
        /// What is wrong with it.
        reason: RowError,
    },
    /// A record could not be built or read.
    #[error(transparent)]
    Record(#[from] topics::record::RecordError),
    /// An acknowledgement of what this journal never held: it is a copy, or was rolled back.
    #[error("lane {lane}: {reason}")]
    Forked {
        /// The lane.
        lane: Lane,
        /// What doesn't fit.
        reason: String,
    },
}

/// The next sequence number of each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heads([u64; 4]);

impl Heads {
    /// The next sequence number of `lane`.
    pub fn next(&self, lane: Lane) -> u64 {
        self.0[lane.index()]
    }

    #[doc(hidden)] // For tests and the link's model.
    pub fn of(next: [u64; 4]) -> Self {
        Self(next)
    }
}

/// A row of a lane's table as it is, whether or not it is a record.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The sequence number under which it stands.
    pub key: u64,
    /// What stands there.
    pub bytes: Vec<u8>,
}

impl Row {
    /// Its record, or why it is none. Whether it stands where it should is not looked at.
    pub fn record(&self) -> Result<Record, RowError> {
        Ok(Record::read(rows::record_bytes(&self.bytes)?)?)
    }

    /// How long its record is.
    pub fn record_len(&self) -> u64 {
        rows::record_len(&self.bytes)
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // As with a record: not by accident into a log.
        write!(f, "Row({}, {} bytes)", self.key, self.bytes.len())
    }
}

/// Counters since the start, and what is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Commits (each with one fsync).
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// Records committed.
    pub committed_records: u64,
    /// Records held.
    pub records: u64,
    /// Bytes of the records held.
    pub bytes: u64,
    /// When the last commit was.
    pub last_commit: Option<Timestamp>,
    /// Microseconds of the last commit.
    pub last_commit_us: u64,
    /// Microseconds of all commits together.
    pub commit_us: u64,
}

/// A handle on the journal; cheap to clone.
#[derive(Clone)]
pub struct Journal {
    requests: mpsc::Sender<Request>,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({})", self.store())
    }
}

impl Journal {
    /// Opens or makes the journal and starts its writer thread. Blocks while an unclean file is
    /// repaired (about 0.25 s for a million records).
    pub fn open(config: JournalConfig) -> Result<(Self, Opened), JournalError> {
        let opener = store::file_opener(&config);
        Self::open_with(config, opener)
    }

    fn open_with(
        config: JournalConfig,
        opener: store::Opener,
    ) -> Result<(Self, Opened), JournalError> {
        let (store, opened) = store::open_or_set_aside(config, opener)?;
        let (live, _) = broadcast::channel(LIVE_RECORDS);
        let (sender, requests) = mpsc::channel(REQUESTS);
        let (gate, writer) = writer::start(store, requests, live);
        let failed =
            |source| JournalError::File { path: PathBuf::from("thread"), source: Arc::new(source) };
        let timer = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let timer = timer.map_err(failed)?;
        let thread = std::thread::Builder::new().name("journal".into());
        thread.spawn(move || writer.run(&timer)).map_err(failed)?;
        Ok((Self { requests: sender, gate }, opened))
    }

    /// The store id now ([`refork`](Self::refork) changes it).
    pub fn store(&self) -> StoreId {
        self.gate.store()
    }

    /// Commits `batch`, all of it or nothing. The answer comes after the fsync: its events, in order,
    /// as everyone will see them.
    pub async fn commit(&self, batch: Batch) -> Result<Vec<Arc<Committed>>, JournalError> {
        self.ask(|reply| Request::Commit(batch, reply)).await
    }

    /// [`commit`](Self::commit) for a thread outside the async runtime.
    pub fn commit_blocking(&self, batch: Batch) -> Result<Vec<Arc<Committed>>, JournalError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.blocking_send(Request::Commit(batch, reply));
        sent.map_err(|_| JournalError::Closed)?;
        answer.blocking_recv().map_err(|_| JournalError::Closed)?
    }

    /// The value of a key.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, JournalError> {
        self.gate.get(table, key)
    }

    /// All keys that start with `prefix`, in order, with their values.
    #[allow(clippy::type_complexity)]
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, JournalError> {
        self.gate.scan(table, prefix)
    }

    /// The records of a lane whose sequence number is `from_seq` or more, in order. Ends after
    /// `max_records`, or before the record that would make it more than `max_bytes` (but gives at
    /// least one). A gap comes as it stands.
    pub fn read(
        &self,
        lane: Lane,
        from_seq: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Record>, JournalError> {
        self.mended(self.gate.read(lane, from_seq, max_records, max_bytes))
    }

    /// The rows of a lane as [`read`](Self::read) would find them, but unread: for who checks them.
    pub fn rows(
        &self,
        lane: Lane,
        from_seq: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, JournalError> {
        self.gate.rows(lane, from_seq, max_records, max_bytes)
    }

    /// The accounting of all lanes at one moment, with its bounds.
    pub fn survey(&self) -> Survey {
        self.gate.survey()
    }

    /// The record of an event, while it is held.
    pub fn find(&self, id: EventId) -> Result<Option<Record>, JournalError> {
        self.mended(self.gate.find(id))
    }

    /// The records after an event, all lanes, in order of id; from the oldest without one. `None`
    /// where the event is not held (unknown, or trimmed).
    pub fn events_after(
        &self,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Vec<Record>>, JournalError> {
        self.mended(self.gate.events_after(after, limit))
    }

    /// Every record from now on, in order of commit.
    pub fn live(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.gate.live()
    }

    /// The heads; changes after each commit that appended something.
    pub fn heads(&self) -> watch::Receiver<Heads> {
        self.gate.heads()
    }

    /// The accounting of each lane, highest first.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.gate.lanes()
    }

    /// Records that the bridge has not acknowledged, all lanes.
    pub fn queued(&self) -> u64 {
        self.lanes().iter().map(|lane| lane.queued).sum()
    }

    /// When the oldest event was made that the bridge has not acknowledged, by its id.
    pub fn oldest_queued(&self) -> Result<Option<Timestamp>, JournalError> {
        self.mended(self.gate.oldest_queued())
    }

    /// Whether what happens can be recorded: no commit failed lately.
    pub fn is_sound(&self) -> bool {
        self.gate.is_sound()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.gate.stats()
    }

    /// Takes down what the bridge has committed. Going backwards is passed over; what this journal
    /// never held is [`JournalError::Forked`], and changes nothing.
    pub async fn acknowledge(&self, lanes: Vec<LaneAck>) -> Result<(), JournalError> {
        self.ask(|reply| Request::Acknowledge(lanes, ledger::AckKind::Ack, reply)).await
    }

    /// Takes down where the bridge stands at the start of a session: as
    /// [`acknowledge`](Self::acknowledge), but a bridge restored from a backup may be further back;
    /// then what it lacks is queued again, and what is no longer held becomes a gap. Lanes not named
    /// are at zero.
    pub async fn resume(&self, lanes: Vec<LaneAck>) -> Result<(), JournalError> {
        self.ask(|reply| Request::Acknowledge(lanes, ledger::AckKind::Resume, reply)).await
    }

    /// Takes a new store id: the bridge knows another journal under the old one. What the bridge had
    /// acknowledged becomes a gap that names the old store; the rest will be sent again.
    pub async fn refork(&self) -> Result<StoreId, JournalError> {
        self.ask(Request::Refork).await
    }

    /// Has a row that is no record replaced by a gap, so that it is met once.
    fn mended<T>(&self, result: Result<T, JournalError>) -> Result<T, JournalError> {
        if let Err(JournalError::Unreadable { lane, seq, .. }) = result {
            // With no room for the request, the next reader asks again.
            let _ = self.requests.try_send(Request::Mend(lane, seq));
        }
        result
    }

    /// How far the edge broker has acknowledged a lane.
    pub fn edge_cursor(&self, lane: Lane) -> u64 {
        self.gate.lane(lane).edge_cursor
    }

    /// Sets it. It reaches the disk with a later commit: a crash repeats some, and forgets nothing.
    pub async fn edge_cursor_set(&self, lane: Lane, seq: u64) -> Result<(), JournalError> {
        let sent = self.requests.send(Request::EdgeCursor(lane, seq)).await;
        sent.map_err(|_| JournalError::Closed)
    }

    /// Commits what waits, and closes the file. Later calls fail with [`JournalError::Closed`].
    pub async fn close(self) -> Result<(), JournalError> {
        self.ask(Request::Close).await
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Request,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| JournalError::Closed)?;
        answer.await.map_err(|_| JournalError::Closed)?
    }
}

#[cfg(test)]
mod tests;
