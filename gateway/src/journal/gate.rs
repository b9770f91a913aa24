//! What readers and the writer share: the open file, the accounting, and who listens.
//!
//! Reads are redb snapshots on the caller's thread: short, and never in the writer's way.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable};
use tokio::sync::{broadcast, watch};
use topics::{EventId, Lane, Record, StoreId, Timestamp};

use super::{
    Committed, Heads, JournalConfig, JournalError, LaneView, Row, Stats, Table, clock,
    lane::LaneState,
    rows::{self, RowError},
    store::{self, State, event_id, records},
    survey::{Bounds, Survey},
};

/// See the module.
pub(super) struct Gate {
    config: JournalConfig,
    /// `None` while the file could not be reopened, and after the close.
    database: RwLock<Option<Database>>,
    state: RwLock<State>,
    stats: Mutex<Stats>,
    live: broadcast::Sender<Arc<Committed>>,
    heads: watch::Sender<Heads>,
    /// Whether the last commit failed.
    failing: AtomicBool,
    failed_at: Mutex<Option<Instant>>,
}

/// So long after a failed commit the journal doesn't count as sound, whatever succeeded since: on a full
/// disk a small commit still finds room where a larger one doesn't.
const DOUBT: Duration = Duration::from_secs(5);

impl Gate {
    pub(super) fn new(
        config: JournalConfig,
        database: Database,
        state: State,
        live: broadcast::Sender<Arc<Committed>>,
    ) -> Self {
        let heads = watch::Sender::new(heads(&state));
        let stats = Stats { records: state.rows(), bytes: state.bytes(), ..Stats::default() };
        Self {
            config,
            database: RwLock::new(Some(database)),
            state: RwLock::new(state),
            stats: Mutex::new(stats),
            live,
            heads,
            failing: AtomicBool::new(false),
            failed_at: Mutex::new(None),
        }
    }

    // ── for the writer ──

    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no read is under way.
    pub(super) fn database_mut(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the state, then tells: whoever hears of a record can read it.
    pub(super) fn publish(&self, state: State, told: Vec<Arc<Committed>>) {
        let heads = heads(&state);
        {
            let mut stats = self.stats_mut();
            (stats.records, stats.bytes) = (state.rows(), state.bytes());
            stats.committed_records += told.len() as u64;
            if self.state().commit != state.commit {
                stats.last_commit = Some(clock::now());
            }
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        for committed in told {
            // Nobody listening is no failure.
            let _ = self.live.send(committed);
        }
        self.heads.send_if_modified(|before| std::mem::replace(before, heads) != heads);
    }

    /// How the last commit ended.
    pub(super) fn committed(&self, succeeded: bool) {
        if !succeeded {
            *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        self.failing.store(!succeeded, Ordering::Relaxed);
    }

    pub(super) fn stats_mut(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ── for everyone ──

    pub(super) fn store(&self) -> StoreId {
        self.state().store
    }

    pub(super) fn stats(&self) -> Stats {
        *self.stats_mut()
    }

    pub(super) fn is_sound(&self) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        !self.failing.load(Ordering::Relaxed) && failed_at.is_none_or(|at| at.elapsed() >= DOUBT)
    }

    pub(super) fn live(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.live.subscribe()
    }

    pub(super) fn heads(&self) -> watch::Receiver<Heads> {
        self.heads.subscribe()
    }

    pub(super) fn lanes(&self) -> Vec<LaneView> {
        self.state().lanes.iter().map(LaneState::view).collect()
    }

    pub(super) fn lane(&self, lane: Lane) -> LaneView {
        self.state().lane(lane).view()
    }

    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, JournalError> {
        self.read_with(|transaction| {
            let table = transaction.open_table(store::table(table))?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    #[allow(clippy::type_complexity)]
    pub(super) fn scan(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, JournalError> {
        self.read_with(|transaction| {
            let table = transaction.open_table(store::table(table))?;
            let mut found = Vec::new();
            for row in table.range::<&[u8]>(prefix..)? {
                let (key, value) = row?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    pub(super) fn read(
        &self,
        lane: Lane,
        from_seq: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Record>, JournalError> {
        self.read_rows(|transaction| {
            let mut found: Vec<Record> = Vec::new();
            let mut bytes = 0;
            let table = transaction.open_table(records(lane))?;
            for row in table.range(from_seq..)? {
                if found.len() >= max_records {
                    break;
                }
                let (key, value) = row?;
                let record = match parse(lane, key.value(), value.value()) {
                    Ok(record) => record,
                    // Who reads on meets it first.
                    Err(_) if !found.is_empty() => break,
                    Err(error) => return Err(error),
                };
                bytes += record.as_bytes().len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push(record);
            }
            Ok(found)
        })
    }

    pub(super) fn oldest_queued(&self) -> Result<Option<Timestamp>, JournalError> {
        let firsts: Vec<(Lane, u64)> = {
            let state = self.state();
            let lanes = state.lanes.iter();
            lanes.filter_map(|lane| Some((lane.lane, lane.first_queued()?))).collect()
        };
        let mut oldest: Option<Timestamp> = None;
        for (lane, first) in firsts {
            let id = self.read(lane, first, 1, 0)?.first().and_then(event_id);
            let made = id.map(|id| Timestamp::from_millis(store::id_ms(id)));
            oldest = oldest.into_iter().chain(made).min();
        }
        Ok(oldest)
    }

    pub(super) fn rows(
        &self,
        lane: Lane,
        from_seq: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, JournalError> {
        self.read_with(|transaction| raw(transaction, lane, from_seq, max_records, max_bytes))
    }

    pub(super) fn survey(&self) -> Survey {
        // One state for all of it, and not for long: the writer waits for whoever reads it.
        let state = self.state().clone();
        let mut survey = Survey::of(&state, self.config.gateway.to_string());
        survey.bounds = Some(Bounds::of(&self.config));
        survey
    }

    pub(super) fn find(&self, id: EventId) -> Result<Option<Record>, JournalError> {
        let state = self.state().clone();
        self.read_rows(|transaction| {
            for lane in &state.lanes {
                let table = transaction.open_table(records(lane.lane))?;
                if let Some((&seq, _)) = lane.gaps.iter().find(|(_, gap)| gap.id == Some(id)) {
                    let value = table.get(seq)?;
                    return value.map(|value| parse(lane.lane, seq, value.value())).transpose();
                }
                let seq = first_from(&table, lane, id)?;
                let Some(value) = table.get(seq)? else { continue };
                let record = parse(lane.lane, seq, value.value())?;
                if event_id(&record) == Some(id) {
                    return Ok(Some(record));
                }
            }
            Ok(None)
        })
    }

    pub(super) fn events_after(
        &self,
        after: Option<EventId>,
        limit: usize,
    ) -> Result<Option<Vec<Record>>, JournalError> {
        let after = match after {
            Some(id) if self.find(id)?.is_none() => return Ok(None),
            Some(id) => id,
            None => EventId::from_bytes([0; 16]),
        };
        let state = self.state().clone();
        self.read_rows(|transaction| {
            let mut found: Vec<(EventId, Record)> = Vec::new();
            for lane in &state.lanes {
                let table = transaction.open_table(records(lane.lane))?;
                let from = first_from(&table, lane, after)?;
                let mut taken = 0;
                // What is committed and not told yet is not there for anybody: `find` wouldn't know it.
                for row in table.range(from..lane.next.max(from))? {
                    let (seq, value) = row?;
                    if taken == limit {
                        break;
                    }
                    if lane.gaps.contains_key(&seq.value()) {
                        continue; // their ids are out of order: below
                    }
                    let record = parse(lane.lane, seq.value(), value.value())?;
                    let Some(id) = event_id(&record) else { continue };
                    if id > after {
                        found.push((id, record));
                        taken += 1;
                    }
                }
                for (&seq, gap) in &lane.gaps {
                    let Some(id) = gap.id.filter(|&id| id > after) else { continue };
                    if let Some(value) = table.get(seq)? {
                        found.push((id, parse(lane.lane, seq, value.value())?));
                    }
                }
            }
            found.sort_unstable_by_key(|(id, _)| *id);
            found.truncate(limit);
            Ok(Some(found.into_iter().map(|(_, record)| record).collect()))
        })
    }

    fn read_with<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, JournalError> {
        self.read_rows(|transaction| read(transaction).map_err(Fault::Storage))
    }

    /// The same where a row may be no record.
    fn read_rows<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, JournalError> {
        let database = self.database();
        let Some(database) = database.as_ref() else { return Err(self.unavailable()) };
        let transaction = database.begin_read().map_err(Fault::from);
        let result = transaction.and_then(|transaction| read(&transaction));
        result.map_err(|fault| match fault {
            Fault::Storage(error) => store::refused(&self.config, error, "read"),
            Fault::Row { lane, seq, reason } => JournalError::Unreadable { lane, seq, reason },
        })
    }

    fn unavailable(&self) -> JournalError {
        JournalError::Unavailable {
            path: self.config.path.clone(),
            reason: "the file is not open".to_owned(),
        }
    }
}

/// The rows of a lane from a key on, as they are: also such as are no records.
pub(super) fn raw(
    transaction: &ReadTransaction,
    lane: Lane,
    from_seq: u64,
    max_records: usize,
    max_bytes: usize,
) -> Result<Vec<Row>, redb::Error> {
    let table = match transaction.open_table(records(lane)) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found: Vec<Row> = Vec::new();
    let mut bytes = 0;
    for row in table.range(from_seq..)? {
        if found.len() >= max_records {
            break;
        }
        let (key, value) = row?;
        bytes += value.value().len();
        if bytes > max_bytes && !found.is_empty() {
            break;
        }
        found.push(Row { key: key.value(), bytes: value.value().to_vec() });
    }
    Ok(found)
}

fn heads(state: &State) -> Heads {
    Heads(std::array::from_fn(|index| state.lanes[index].next))
}

/// Why a read failed.
enum Fault {
    Storage(redb::Error),
    /// A row is no record.
    Row {
        lane: Lane,
        seq: u64,
        reason: RowError,
    },
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Fault::Storage(error.into())
    }
}

fn parse(lane: Lane, seq: u64, bytes: &[u8]) -> Result<Record, Fault> {
    rows::read(lane, seq, bytes).map_err(|reason| Fault::Row { lane, seq, reason })
}

/// The first sequence number of a lane whose event's id is `id` or later; ids of events rise with
/// the sequence numbers, so it is found by halving.
fn first_from(
    table: &impl ReadableTable<u64, &'static [u8]>,
    lane: &LaneState,
    id: EventId,
) -> Result<u64, Fault> {
    let (mut low, mut high) = (lane.marks.trimmed + 1, lane.next);
    while low < high {
        let middle = low + (high - low) / 2;
        // Of a gap (they are few): the first event after it stands for it.
        let mut probe = middle;
        while lane.gaps.contains_key(&probe) && probe < high {
            probe += 1;
        }
        let Some(value) = table.get(probe)? else {
            high = middle;
            continue;
        };
        match event_id(&parse(lane.lane, probe, value.value())?) {
            Some(found) if found < id => low = probe + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}
