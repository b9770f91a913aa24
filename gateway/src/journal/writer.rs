//! The writer thread. It takes what waits, commits it at once, then answers and tells.
//!
//! A lone request is committed at once: grouping comes from what arrives during the fsync before. When
//! many callers were just answered they are about to ask again, and a commit that began with the first
//! of them would make the others wait for it: so after a large group the writer waits a little, until
//! half of them are there. The other half then gathers while these are committed; but where they will be
//! there sooner than the disk answers, it waits for them too, for that costs less than a commit more.
//!
//! After a crash redb reads the whole file to find out which pages are free, half a second for a million
//! records, unless the last commit has left that in the file. Leaving it takes a second fsync, so nobody
//! waits for it: it is done with commits of settings only (a probe's row), and by itself once nothing was
//! committed for a while. Most crashes meet a site where nothing happens.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Database, ReadableTable as _, WriteTransaction};
use tokio::{
    runtime::Runtime,
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};
use topics::{EventType, Lane, StoreId, link::LaneAck};

use super::{
    Attachment, Batch, Committed, JournalConfig, JournalError,
    batch::{Change, Drafted},
    gate::Gate,
    ledger::{AckKind, Bounds, Changes, Ledger, Stamps as _},
    rows::Tables,
    store::{self, Ids, Opener, State, Store},
};

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
/// How long the writer looks out for the next request before it sleeps: one caller after another is back sooner
/// than a sleeping thread is awake.
const LOOK_OUT: Duration = Duration::from_micros(100);
/// A request that comes within this time is one of several in turn.
const FOLLOWED: Duration = Duration::from_millis(1);
/// How long edge cursors may wait for a commit of something else.
const CURSOR_PATIENCE: Duration = Duration::from_secs(2);
/// After a commit that failed, until one is tried that nobody asked for: with nobody at the readers
/// nothing else would find out that there is room again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// After the last commit, until one that leaves the file quick to open.
const SETTLE: Duration = Duration::from_secs(2);
/// How often acknowledged records are looked through for old ones.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the writer is asked.
pub(super) enum Request {
    Commit(Batch, Reply<Vec<Arc<Committed>>>),
    Acknowledge(Vec<LaneAck>, AckKind, Reply<()>),
    EdgeCursor(Lane, u64),
    /// Somebody met a row that is no record.
    Mend(Lane, u64),
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
    changes: Changes,
    told: Vec<Arc<Committed>>,
}

impl Work {
    /// Gaps are told of like any record.
    fn tell_gaps(&mut self) {
        let gaps = self.changes.gaps.drain(..);
        let event = EventType::JournalGap;
        self.told.extend(gaps.map(|record| {
            // Gaps are of no reader.
            Arc::new(Committed { record, event, reader: None, attachment: Attachment::default() })
        }));
    }
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
    /// The last commit failed: when another one is tried.
    retry_at: Option<Instant>,
    /// The last commit did not leave the file quick to open: when one does.
    settle_at: Option<Instant>,
    trimmed_at: Instant,
    last_group: LastGroup,
    /// What a commit waits for the disk, about.
    disk: Duration,
    /// The last request came soon after the one before.
    is_followed: bool,
}

/// A panic (redb's, of a page that is not what was written) ends the writer, and nothing is committed any more:
/// that must be seen.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.gate.committed(false);
        }
    }
}

/// What ended a wait.
enum Waited {
    Asked(Request),
    /// A commit is due that nobody asked for.
    Due,
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
        retry_at: None,
        settle_at: None,
        trimmed_at: Instant::now(),
        last_group: LastGroup::default(),
        disk: Duration::ZERO,
        is_followed: false,
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
                Waited::Due => Vec::new(),
                Waited::Abandoned => break,
            };
            self.serve(group, Instant::now());
        }
        self.requests.close();
        // A failed commit is tried again for those who are still there; a closed file opens quickly.
        (self.retry_at, self.settle_at) = (None, None);
        if let Some(due) = self.due() {
            self.serve(Vec::new(), due);
        }
        self.gate.database_mut().take();
        if let Some(reply) = closing {
            let _ = reply.send(Ok(()));
        }
    }

    fn wait(&mut self, timer: &Runtime) -> Waited {
        if let Some(asked) = self.look_out() {
            return Waited::Asked(asked);
        }
        let start = Instant::now();
        let waited = self.sleep(timer);
        self.is_followed = start.elapsed() < FOLLOWED;
        waited
    }

    fn sleep(&mut self, timer: &Runtime) -> Waited {
        let Some(due) = self.due() else {
            return self.requests.blocking_recv().map_or(Waited::Abandoned, Waited::Asked);
        };
        let left = due.saturating_duration_since(Instant::now());
        match timer.block_on(async { timeout(left, self.requests.recv()).await }) {
            Ok(asked) => asked.map_or(Waited::Abandoned, Waited::Asked),
            Err(_) => Waited::Due,
        }
    }

    /// Looks for the next request for a moment, where few came just now and the last one came soon, too.
    fn look_out(&mut self) -> Option<Request> {
        if !self.is_followed || !(1..LARGE_GROUP).contains(&self.last_group.requests) {
            return None;
        }
        let start = Instant::now();
        loop {
            if let Ok(asked) = self.requests.try_recv() {
                return Some(asked);
            }
            if start.elapsed() >= LOOK_OUT {
                return None;
            }
            std::thread::yield_now();
        }
    }

    /// When a commit is due that nobody asks for.
    fn due(&self) -> Option<Instant> {
        let cursors = self.cursors_since.map(|since| since + CURSOR_PATIENCE);
        self.retry_at.or_else(|| cursors.into_iter().chain(self.settle_at).min())
    }

    /// Waits for callers that were just answered: see the module.
    fn gather(&self) {
        let LastGroup { requests, took } = self.last_group;
        if requests < LARGE_GROUP {
            return;
        }
        let before = self.requests.len();
        let patience = (took / GATHER_SHARE).max(self.disk).min(GATHER_PATIENCE);
        let start = Instant::now();
        loop {
            let (there, waited) = (self.requests.len(), start.elapsed());
            // As the first came, the others need this long.
            let came = there.saturating_sub(before);
            let missing = requests.saturating_sub(came);
            let pays =
                missing > 0 && came > 0 && waited * missing as u32 <= self.disk * came as u32;
            let pays = pays && before < requests;
            if (there >= requests / 2 && !pays) || waited >= patience {
                return;
            }
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
                // A commit that nobody waits for is no reason to try a failing disk again; who meets the row
                // again asks again.
                Request::Mend(..) if self.retry_at.is_some() => {}
                Request::Commit(..)
                | Request::Acknowledge(..)
                | Request::Mend(..)
                | Request::Refork(_) => {
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

    fn serve(&mut self, mut group: Vec<Request>, now: Instant) {
        let is_due = self.due().is_some_and(|due| due <= now);
        if group.is_empty() && !is_due {
            self.last_group = LastGroup::default();
            return;
        }
        let (started, worked) = (Instant::now(), processor_time());
        let result = self.commit(&mut group, is_due);
        let took = started.elapsed();
        let blocked = took.saturating_sub(processor_time().saturating_sub(worked));
        // Also for the processor, at times: so the least of late.
        self.disk = blocked.min(self.disk + self.disk / 8 + Duration::from_micros(10));
        self.last_group = LastGroup { requests: group.len(), took };
        match result {
            Ok((work, outcomes)) => {
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                if work.changes.dirty {
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
                self.last_group = LastGroup::default();
                self.retry_at = Some(Instant::now() + TRY_AGAIN);
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
        is_due: bool,
    ) -> Result<(Work, Vec<Outcome>), JournalError> {
        self.ensure_open()?;
        // Known now: the events are taken out of the requests.
        // On a full disk the smaller kind of commit may find room.
        let settling = is_settling(group) && self.retry_at.is_none();
        let changes = Changes {
            marks: [self.cursors_since.is_some(); 4],
            dirty: is_due,
            ..Changes::default()
        };
        let mut work = Work { state: self.state.clone(), changes, told: Vec::new() };
        let outcomes = match self.attempt(group, settling, &mut work) {
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
        if work.changes.dirty {
            (self.cursors_since, self.retry_at) = (None, None);
            self.settle_at = (!settling).then(|| Instant::now() + SETTLE);
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
        settling: bool,
        work: &mut Work,
    ) -> Result<Vec<Outcome>, (redb::Error, Option<Vec<Outcome>>)> {
        let gate = self.gate.clone();
        let database = gate.database();
        let Some(database) = database.as_ref() else {
            return Err((redb::Error::DatabaseClosed, None));
        };
        let before = |error: redb::Error| (error, None);
        let transaction = begin(database, settling).map_err(before)?;
        let mut outcomes = Vec::with_capacity(group.len());
        let mut tables = Tables::new(&transaction);
        for request in group {
            let outcome = self.apply(&transaction, &mut tables, request, work);
            outcomes.push(outcome.map_err(before)?);
            work.tell_gaps();
        }
        if !work.changes.dirty {
            drop(tables);
            transaction.abort().map_err(|error| before(error.into()))?;
            return Ok(outcomes);
        }
        self.keep_bounds(&mut tables, work).map_err(before)?;
        drop(tables);
        self.write_marks(&transaction, work).map_err(before)?;
        match transaction.commit() {
            Ok(()) => Ok(outcomes),
            Err(error) => Err((error.into(), Some(outcomes))),
        }
    }

    fn apply(
        &mut self,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
        request: &mut Request,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        match request {
            Request::Commit(batch, _) => self.apply_batch(transaction, tables, batch, work),
            Request::Acknowledge(lanes, kind, _) => {
                let taken = self.ledger(tables, work).acknowledge(lanes, *kind)?;
                Ok(taken.map_or_else(Outcome::Refused, |()| Outcome::Done))
            }
            Request::Mend(lane, seq) => {
                self.ledger(tables, work).mend(*lane, *seq)?;
                Ok(Outcome::Done)
            }
            Request::Refork(_) => self.apply_refork(transaction, tables, work),
            Request::EdgeCursor(..) | Request::Close(_) => Ok(Outcome::Done),
        }
    }

    fn ledger<'a, 't>(
        &'a mut self,
        tables: &'a mut Tables<'t>,
        work: &'a mut Work,
    ) -> Ledger<'a, Tables<'t>, Ids> {
        Ledger {
            lanes: &mut work.state.lanes,
            changes: &mut work.changes,
            rows: tables,
            stamps: &mut self.ids,
            gateway: &self.config.gateway,
        }
    }

    fn apply_batch(
        &mut self,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
        batch: &mut Batch,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        for (table, key) in &batch.absent {
            if transaction.open_table(store::table(*table))?.get(key.as_slice())?.is_some() {
                return Ok(Outcome::Refused(JournalError::Exists(*table)));
            }
        }
        // Everything that can be refused comes before the first write.
        let mut ids = Vec::with_capacity(batch.events.len());
        for _ in &batch.events {
            match self.ids.id() {
                Ok(id) => ids.push(id),
                Err(error) => return Ok(Outcome::Refused(error)),
            }
        }
        work.changes.dirty = true;
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
        let mut ledger = self.ledger(tables, work);
        for (drafted, id) in std::mem::take(&mut batch.events).into_iter().zip(ids) {
            let Drafted { draft, reader, attachment } = drafted;
            let event = draft.event_type();
            let record = ledger.append(draft, id)?;
            told.push(Arc::new(Committed { record, event, reader, attachment }));
        }
        work.told.extend(told.iter().cloned());
        Ok(Outcome::Committed(told))
    }

    fn apply_refork(
        &mut self,
        transaction: &WriteTransaction,
        tables: &mut Tables<'_>,
        work: &mut Work,
    ) -> Result<Outcome, redb::Error> {
        let store = store::new_store_id()?;
        let previous = std::mem::replace(&mut work.state.store, store);
        transaction
            .open_table(store::META)?
            .insert(store::META_STORE, store.as_bytes().as_slice())?;
        self.ledger(tables, work).refork(previous)?;
        // Written before the commit: should that fail, the note names a store that never was, which
        // harms nothing and is put right at the next start.
        if let Err(error) = store::write_side_note(&self.config.path, store) {
            tracing::error!(%error, "the store id could not be noted beside the journal");
        }
        Ok(Outcome::Reforked(store))
    }

    /// Deletes what is too old or too much.
    fn keep_bounds(&mut self, tables: &mut Tables<'_>, work: &mut Work) -> Result<(), redb::Error> {
        let (records, bytes) = (self.config.max_records, self.config.max_bytes);
        let retention = self.config.retention;
        let trim = self.trimmed_at.elapsed() >= TRIM_INTERVAL;
        if trim {
            self.trimmed_at = Instant::now();
        }
        let mut ledger = self.ledger(tables, work);
        if trim {
            ledger.trim_old(retention)?;
        }
        ledger.keep_bounds(Bounds { records, bytes })?;
        work.tell_gaps();
        Ok(())
    }

    fn write_marks(
        &self,
        transaction: &WriteTransaction,
        work: &mut Work,
    ) -> Result<(), redb::Error> {
        let mut marks = transaction.open_table(store::LANES)?;
        for lane in Lane::ALL.into_iter().filter(|lane| work.changes.marks[lane.index()]) {
            let encoded = store::encode(&work.state.lane(lane).marks);
            marks.insert(lane.index() as u8, &*encoded)?;
        }
        work.state.commit = self.state.commit + 1;
        let mut meta = transaction.open_table(store::META)?;
        meta.insert(store::META_COMMIT, &work.state.commit.to_le_bytes()[..])?;
        Ok(store::write_counts(&mut meta, &work.state)?)
    }
}

fn begin(database: &Database, settling: bool) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(redb::Durability::Immediate)?;
    transaction.set_quick_repair(settling);
    Ok(transaction)
}

/// That this thread has had.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Whether nobody waits for any of these: see the module.
fn is_settling(group: &[Request]) -> bool {
    group.iter().all(|request| match request {
        Request::Commit(batch, _) => batch.is_of_settings(),
        Request::Acknowledge(..)
        | Request::EdgeCursor(..)
        | Request::Mend(..)
        | Request::Refork(_)
        | Request::Close(_) => false,
    })
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
