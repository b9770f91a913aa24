//! The writer thread. It takes what waits, commits it at once, then answers and tells.
//!
//! A lone request is committed at once: grouping comes from what arrives during the fsync before. When
//! many callers were just answered they are about to ask again, and a commit that began with the first
//! of them would make the others wait for it: so after a large group the writer waits a little, until
//! half as many are there. The other half then gathers while these are committed.

mod bounds;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Database, ReadableTable as _, WriteTransaction};
use tokio::{
    runtime::Runtime,
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};
use topics::{Lane, Record, RecordKind, StoreId, event::GapReason, link::LaneAck};

use super::{
    Batch, Committed, JournalConfig, JournalError,
    batch::Change,
    gate::Gate,
    lane::LaneState,
    store::{self, Gap, Ids, Opener, State, Store, records},
};
use bounds::{DeleteGaps, delete_to};

/// Requests in one commit.
const GROUP_REQUESTS: usize = 8192;
/// Events in one commit, about: bounds memory and the time that the first of the group waits.
const GROUP_EVENTS: usize = 8192;
/// A group from which on the writer expects the callers back.
const LARGE_GROUP: usize = 16;
/// How long it waits for them at most: so much of the last commit's time, and never longer than this.
const GATHER_SHARE: u32 = 4;
const GATHER_PATIENCE: Duration = Duration::from_millis(5);
/// Between two looks at how many there are.
const GATHER_PAUSE: Duration = Duration::from_micros(20);
/// How long edge cursors may wait for a commit of something else.
const CURSOR_PATIENCE: Duration = Duration::from_secs(2);

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// Whether an acknowledgement may go backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckKind {
    /// Within a session: no.
    Ack,
    /// At its start: yes.
    Resume,
}

/// What the writer is asked.
pub(super) enum Request {
    Commit(Batch, Reply<Vec<Arc<Committed>>>),
    Acknowledge(Vec<LaneAck>, AckKind, Reply<()>),
    EdgeCursor(Lane, u64),
    Refork(Reply<StoreId>),
    Close(Reply<()>),
}

/// What became of a request within the transaction.
enum Outcome {
    Committed(Vec<Arc<Committed>>),
    Refused(JournalError),
    Done,
    Reforked(StoreId),
}

/// The state of a transaction under way.
struct Work {
    state: State,
    told: Vec<Arc<Committed>>,
    /// Chain values at the ends of acknowledged ranges whose records are deleted in it.
    chains: HashMap<(Lane, u64), u64>,
    /// Lanes whose marks changed.
    marks: [bool; 4],
    /// Whether there is anything to commit.
    dirty: bool,
}

/// See the module.
pub(super) struct Writer {
    gate: Arc<Gate>,
    config: JournalConfig,
    opener: Opener,
    requests: mpsc::Receiver<Request>,
    state: State,
    ids: Ids,
    cursors_since: Option<Instant>,
    trimmed_at: Instant,
    last_group: LastGroup,
}

/// What ended a wait.
enum Waited {
    Asked(Request),
    CursorsDue,
    /// No handle is left.
    Abandoned,
}

/// The commit before.
#[derive(Clone, Copy, Default)]
struct LastGroup {
    requests: usize,
    took: Duration,
}

/// The writer of an open file, and what it shares.
pub(super) fn start(
    store: Store,
    requests: mpsc::Receiver<Request>,
    live: broadcast::Sender<Arc<Committed>>,
) -> (Arc<Gate>, Writer) {
    let Store { config, opener, database, state, ids } = store;
    let gate = Arc::new(Gate::new(config.clone(), database, state.clone(), live));
    let writer = Writer {
        gate: gate.clone(),
        config,
        opener,
        requests,
        state,
        ids,
        cursors_since: None,
        trimmed_at: Instant::now(),
        last_group: LastGroup::default(),
    };
    (gate, writer)
}

impl Writer {
    /// Until it is closed, or no handle is left. `timer` is for waits that end.
    pub(super) fn run(mut self, timer: &Runtime) {
        let mut closing = None;
        while closing.is_none() {
            let group = match self.wait(timer) {
                Waited::Asked(first) => {
                    self.gather();
                    self.collect(first, &mut closing)
                }
                Waited::CursorsDue => Vec::new(),
                Waited::Abandoned => break,
            };
            self.serve(group);
        }
        self.requests.close();
        self.cursors_since = self.cursors_since.map(|since| since - CURSOR_PATIENCE);
        self.serve(Vec::new());
        self.gate.database_mut().take();
        if let Some(reply) = closing {
            let _ = reply.send(Ok(()));
        }
    }

    fn wait(&mut self, timer: &Runtime) -> Waited {
        let Some(since) = self.cursors_since else {
            return self.requests.blocking_recv().map_or(Waited::Abandoned, Waited::Asked);
        };
        let left = CURSOR_PATIENCE.saturating_sub(since.elapsed());
        match timer.block_on(async { timeout(left, self.requests.recv()).await }) {
            Ok(asked) => asked.map_or(Waited::Abandoned, Waited::Asked),
            Err(_) => Waited::CursorsDue,
        }
    }

    /// Waits for callers that were just answered: see the module.
    fn gather(&self) {
        let LastGroup { requests, took } = self.last_group;
        if requests < LARGE_GROUP {
            return;
        }
        let until = Instant::now() + (took / GATHER_SHARE).min(GATHER_PATIENCE);
        while self.requests.len() < requests / 2 && Instant::now() < until {
            std::thread::sleep(GATHER_PAUSE);
        }
    }

    fn collect(&mut self, first: Request, closing: &mut Option<Reply<()>>) -> Vec<Request> {
        let mut group = Vec::new();
        let mut events = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Close(reply) => {
                    *closing = Some(reply);
                    break;
                }
                Request::EdgeCursor(lane, seq) => self.note_cursor(lane, seq),
                Request::Commit(..) | Request::Acknowledge(..) | Request::Refork(_) => {
                    if let Request::Commit(batch, _) = &request {
                        events += batch.events.len();
                    }
                    group.push(request);
                }
            }
            if group.len() >= GROUP_REQUESTS || events >= GROUP_EVENTS {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        group
    }

    /// In memory now, on disk with a later commit.
    fn note_cursor(&mut self, lane: Lane, seq: u64) {
        let marks = &mut self.state.lane_mut(lane).marks;
        if seq <= marks.edge_cursor {
            return;
        }
        marks.edge_cursor = seq;
        self.cursors_since.get_or_insert_with(Instant::now);
        self.gate.publish(self.state.clone(), Vec::new());
    }

    fn serve(&mut self, mut group: Vec<Request>) {
        let cursors_due = self.cursors_since.is_some_and(|at| at.elapsed() >= CURSOR_PATIENCE);
        if group.is_empty() && !cursors_due {
            return;
        }
        let started = Instant::now();
        let result = self.commit(&mut group, cursors_due);
        let took = started.elapsed();
        self.last_group = LastGroup { requests: group.len(), took };
        match result {
            Ok((work, outcomes)) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                if work.dirty {
                    let mut stats = self.gate.stats_mut();
                    stats.commits += 1;
                    stats.last_commit_us = micros;
                    stats.commit_us += micros;
                    drop(stats);
                    self.gate.committed(true);
                }
                self.state = work.state;
                self.gate.publish(self.state.clone(), work.told);
                for (request, outcome) in group.into_iter().zip(outcomes) {
                    answer(request, outcome);
                }
            }
            Err(error) => {
                self.gate.publish(self.state.clone(), Vec::new());
                self.gate.committed(false);
                self.gate.stats_mut().failed_commits += 1;
                self.cursors_since = self.cursors_since.map(|_| Instant::now());
                tracing::error!(path = %self.config.path.display(), %error, "a commit failed");
                group
                    .into_iter()
                    .for_each(|request| answer(request, Outcome::Refused(error.clone())));
            }
        }
    }

    fn commit(
        &mut self,
        group: &mut [Request],
        cursors_due: bool,
    ) -> Result<(Work, Vec<Outcome>), JournalError> {
        self.ensure_open()?;
        let mut work = Work {
            state: self.state.clone(),
            told: Vec::new(),
            chains: HashMap::new(),
            marks: [self.cursors_since.is_some(); 4],
            dirty: cursors_due,
        };
        let outcomes = match self.attempt(group, &mut work) {
            Ok(outcomes) => outcomes,
            Err((error, outcomes)) => {
                let error = store::refused(&self.config, error, "commit");
                // The file knows better than the error whether the commit is there.
                let before = self.state.clone();
                match (self.recover(Some(&work.state)), outcomes) {
                    (Ok(()), Some(outcomes)) if self.state.commit == work.state.commit => {
                        if let Err(error) = self.confirm() {
                            self.state = before;
                            return Err(error);
                        }
                        outcomes
                    }
                    _ => return Err(error),
                }
            }
        };
        if work.dirty {
            self.cursors_since = None;
        }
        Ok((work, outcomes))
    }

    fn ensure_open(&mut self) -> Result<(), JournalError> {
        if self.gate.database().is_some() { Ok(()) } else { self.recover(None) }
    }

    /// Opens the file again: redb refuses writes after a failure until then. It may be as before, or
    /// as it was to become.
    fn recover(&mut self, attempted: Option<&State>) -> Result<(), JournalError> {
        let gate = self.gate.clone();
        let mut slot = gate.database_mut();
        slot.take();
        let known: Vec<&State> = std::iter::once(&self.state).chain(attempted).collect();
        let reopened = store::reopen(&self.config, &self.opener, &known);
        let (database, mut state) = reopened.map_err(|error| match error {
            full @ JournalError::Full { .. } => full,
            other => JournalError::Unavailable {
                path: self.config.path.clone(),
                reason: other.to_string(),
            },
        })?;
        for (lane, before) in state.lanes.iter_mut().zip(&self.state.lanes) {
            lane.marks.edge_cursor = lane.marks.edge_cursor.max(before.marks.edge_cursor);
        }
        *slot = Some(database);
        drop(slot);
        self.state = state;
        Ok(())
    }

    /// Makes sure of a commit that failed and is there all the same.
    fn confirm(&self) -> Result<(), JournalError> {
        let gate = self.gate.clone();
        let mut slot = gate.database_mut();
        let Some(database) = slot.as_ref() else { return Ok(()) };
        store::confirm(database, self.state.commit).map_err(|error| {
            // It is neither there for sure nor gone: whoever opens the file next finds out.
            slot.take();
            store::refused(&self.config, error, "confirm a commit")
        })
    }

    /// One transaction. An error from the commit itself comes with the outcomes, in case it holds.
    #[allow(clippy::type_complexity)]
    fn attempt(
        &mut self,
        group: &mut [Request],
        work: &mut Work,
    ) -> Result<Vec<Outcome>, (redb::Error, Option<Vec<Outcome>>)> {
        let gate = self.gate.clone();
        let database = gate.database();
        let Some(database) = database.as_ref() else {
            return Err((redb::Error::DatabaseClosed, None));
        };
        let before = |error: redb::Error| (error, None);
        let transaction = begin(database).map_err(before)?;
        let mut outcomes = Vec::with_capacity(group.len());
        let mut open = OpenLanes::new(&transaction);
        for request in group {
            if !matches!(request, Request::Commit(..)) {
                // The others open tables of their own.
                open = OpenLanes::new(&transaction);
            }
            outcomes.push(self.apply(&transaction, &mut open, request, work).map_err(before)?);
        }
        drop(open);
        if !work.dirty {
            transaction.abort().map_err(|error| before(error.into()))?;
            return Ok(outcomes);
        }
        self.keep_bounds(&transaction, work).map_err(before)?;
        self.write_marks(&transaction, work).map_err(before)?;
        match transaction.commit() {
            Ok(()) => Ok(outcomes),
            Err(error) => Err((error.into(), Some(outcomes))),
        }
    }

    fn apply<'t>(
        &mut self,
        transaction: &'t WriteTransaction,
        open: &mut OpenLanes<'t>,
        request: &mut Request,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        match request {
            Request::Commit(batch, _) => self.apply_batch(open, batch, work),
            Request::Acknowledge(lanes, kind, _) => {
                self.apply_acks(transaction, lanes, *kind, work)
            }
            Request::Refork(_) => self.apply_refork(transaction, work),
            Request::EdgeCursor(..) | Request::Close(_) => Ok(Outcome::Done),
        }
    }

    fn apply_batch(
        &mut self,
        open: &mut OpenLanes<'_>,
        batch: &mut Batch,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        let transaction = open.transaction;
        for (table, key) in &batch.absent {
            if transaction.open_table(store::table(*table))?.get(key.as_slice())?.is_some() {
                return Ok(Outcome::Refused(JournalError::Exists(*table)));
            }
        }
        // Everything that can be refused comes before the first write.
        let mut ids = Vec::with_capacity(batch.events.len());
        for _ in &batch.events {
            match self.ids.next() {
                Ok(id) => ids.push(id),
                Err(error) => return Ok(Outcome::Refused(error)),
            }
        }
        work.dirty = true;
        for change in &batch.changes {
            match change {
                Change::Put(table, key, value) => {
                    let mut table = transaction.open_table(store::table(*table))?;
                    table.insert(key.as_slice(), value.as_slice())?;
                }
                Change::Delete(table, key) => {
                    transaction.open_table(store::table(*table))?.remove(key.as_slice())?;
                }
            }
        }
        let mut told = Vec::with_capacity(batch.events.len());
        for ((draft, attachment), id) in std::mem::take(&mut batch.events).into_iter().zip(ids) {
            let event = draft.event_type();
            let lane = work.state.lane_mut(draft.lane());
            let record = draft.into_record(&self.config.gateway, id, lane.next, lane.chain);
            open.lane(lane.lane)?.insert(lane.next, record.as_bytes())?;
            lane.count(&record, Some(id));
            told.push(Arc::new(Committed::new(record, event, attachment)));
        }
        work.told.extend(told.iter().cloned());
        Ok(Outcome::Committed(told))
    }

    fn apply_acks(
        &mut self,
        transaction: &WriteTransaction,
        acks: &[LaneAck],
        kind: AckKind,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        let mut lanes = work.state.lanes.clone();
        let mut changed = [false; 4];
        for lane in &mut lanes {
            let nothing = LaneAck { lane: lane.lane, watermark: 0, chain: 0, ranges: Vec::new() };
            let told = acks.iter().find(|ack| ack.lane == lane.lane);
            let ack = match (told, kind) {
                (Some(ack), AckKind::Ack | AckKind::Resume) => ack,
                (None, AckKind::Resume) => &nothing,
                (None, AckKind::Ack) => continue,
            };
            let forked =
                |reason| Outcome::Refused(JournalError::Forked { lane: lane.lane, reason });
            // 0: the bridge doesn't know it, behind a gap.
            if ack.chain != 0
                && let Some(ours) = chain_at(transaction, lane, ack.watermark)?
                && ours != ack.chain
            {
                let reason = format!("another record at {} was stored", ack.watermark);
                return Ok(forked(reason));
            }
            match lane.acknowledge(ack, kind == AckKind::Resume) {
                Ok(moved) => changed[lane.lane.index()] = moved,
                Err(reason) => {
                    return Ok(Outcome::Refused(JournalError::Forked { lane: lane.lane, reason }));
                }
            }
        }
        work.state.lanes = lanes;
        for (index, moved) in changed.into_iter().enumerate().filter(|(_, moved)| *moved) {
            work.marks[index] |= moved;
            work.dirty = true;
        }
        if kind == AckKind::Resume {
            for lane in Lane::ALL {
                self.cover(transaction, lane, work)?;
            }
        }
        Ok(Outcome::Done)
    }

    fn apply_refork(
        &mut self,
        transaction: &WriteTransaction,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        let store = store::new_store_id()?;
        let previous = std::mem::replace(&mut work.state.store, store);
        work.dirty = true;
        work.marks = [true; 4];
        transaction
            .open_table(store::META)?
            .insert(store::META_STORE, store.as_bytes().as_slice())?;
        for lane in Lane::ALL {
            let state = work.state.lane_mut(lane);
            let watermark = state.marks.watermark;
            (state.marks.watermark, state.marks.chain) = (0, 0);
            state.marks.ranges.clear();
            let end = state.next;
            let (range, chain) = if watermark > 0 {
                delete_to(transaction, state, watermark, DeleteGaps::Yes)?;
                ((1, watermark), 0)
            } else if lane == Lane::Access {
                ((end, end), state.chain)
            } else {
                continue;
            };
            let gap = Gap {
                range,
                count: None,
                reason: GapReason::NewStore,
                previous_store: Some(previous),
                chain,
            };
            self.insert_gap(transaction, lane, gap, work)?;
        }
        // Written before the commit: should that fail, the note names a store that never was, which
        // harms nothing and is put right at the next start.
        if let Err(error) = store::write_side_note(&self.config.path, store) {
            tracing::error!(%error, "the store id could not be noted beside the journal");
        }
        Ok(Outcome::Reforked(store))
    }

    fn write_marks(
        &self,
        transaction: &WriteTransaction,
        work: &mut Work,
    ) -> Result<(), redb::Error> {
        let mut marks = transaction.open_table(store::LANES)?;
        for lane in Lane::ALL.into_iter().filter(|lane| work.marks[lane.index()]) {
            let encoded = store::encode(&work.state.lane(lane).marks);
            marks.insert(lane.index() as u8, &*encoded)?;
        }
        work.state.commit = self.state.commit + 1;
        let mut meta = transaction.open_table(store::META)?;
        meta.insert(store::META_COMMIT, &work.state.commit.to_le_bytes()[..])?;
        Ok(())
    }
}

/// The tables of records that a transaction has open, so that each is opened once for many appends.
struct OpenLanes<'t> {
    transaction: &'t WriteTransaction,
    tables: [Option<redb::Table<'t, u64, &'static [u8]>>; 4],
}

impl<'t> OpenLanes<'t> {
    fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, tables: [const { None }; 4] }
    }

    fn lane(
        &mut self,
        lane: Lane,
    ) -> Result<&mut redb::Table<'t, u64, &'static [u8]>, redb::Error> {
        let slot = &mut self.tables[lane.index()];
        match slot {
            Some(table) => Ok(table),
            None => Ok(slot.insert(self.transaction.open_table(records(lane))?)),
        }
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    Ok(transaction)
}

/// The chain value at a sequence number, where an event is held there.
fn chain_at(
    transaction: &WriteTransaction,
    lane: &LaneState,
    seq: u64,
) -> Result<Option<u64>, redb::Error> {
    let table = transaction.open_table(records(lane.lane))?;
    let Some(value) = table.get(seq)? else {
        let known = seq > 0 && seq == lane.marks.watermark;
        return Ok(known.then_some(lane.marks.chain));
    };
    let record = Record::read(value.value()).ok();
    Ok(record.filter(|record| record.kind() == RecordKind::Event).map(|record| record.chain()))
}

fn answer(request: Request, outcome: Outcome) {
    // Whoever no longer waits for the answer needs none.
    match (request, outcome) {
        (Request::Commit(_, reply), Outcome::Committed(committed)) => {
            let _ = reply.send(Ok(committed));
        }
        (Request::Commit(_, reply), Outcome::Refused(error)) => drop(reply.send(Err(error))),
        (Request::Acknowledge(_, _, reply), Outcome::Done) => drop(reply.send(Ok(()))),
        (Request::Acknowledge(_, _, reply), Outcome::Refused(error)) => {
            drop(reply.send(Err(error)));
        }
        (Request::Refork(reply), Outcome::Reforked(store)) => drop(reply.send(Ok(store))),
        (Request::Refork(reply), Outcome::Refused(error)) => drop(reply.send(Err(error))),
        (request, _) => drop(request),
    }
}
