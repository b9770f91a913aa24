//! The file: opening, making, setting aside, and what it held.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable, StorageError, TableDefinition,
};
use topics::{EventId, EventIds, Lane, Record, StoreId, event::GapReason};

use super::{
    JournalConfig, JournalError, Opened, Table, clock,
    counts::Counts,
    lane::{LaneState, Marks},
    ledger::{Changes, Gap, Ledger, gap},
    rows::{self, Tables},
};

pub(super) type Records = TableDefinition<'static, u64, &'static [u8]>;
pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) const LANES: TableDefinition<'static, u8, &[u8]> = TableDefinition::new("lanes.v1");
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta.v1");
pub(super) const META_STORE: &str = "store";
pub(super) const META_GATEWAY: &str = "gateway";
pub(super) const META_COMMIT: &str = "commit";
pub(super) const META_LAYOUT: &str = "layout";
/// 1: records alone, and no layout said. 2: rows with checks.
pub(super) const LAYOUT: u8 = 2;
/// See [`counts`](super::counts).
pub(super) const META_COUNTS: &str = "counts";

/// The records' table of a lane.
pub(super) fn records(lane: Lane) -> Records {
    TableDefinition::new(match lane {
        Lane::Access => "records.access.v1",
        Lane::Results => "records.results.v1",
        Lane::Events => "records.events.v1",
        Lane::Telemetry => "records.telemetry.v1",
    })
}

/// The definition of a table.
pub(super) fn table(table: Table) -> Bytes {
    TableDefinition::new(table.name())
}

/// Opens the file, again and again: tests put a failing disk here.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The file of the configuration. A new one can be read by its owner only.
pub(super) fn file_opener(config: &JournalConfig) -> Opener {
    let (path, cache_bytes) = (config.path.clone(), config.cache_bytes);
    Box::new(move || {
        if !path.exists() {
            private_file(&path)?;
        }
        Database::builder().set_cache_size(cache_bytes).create(&path)
    })
}

fn private_file(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// What the writer knows of the file.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) store: StoreId,
    /// Number of the last commit: tells whether one that failed is there all the same.
    pub(super) commit: u64,
    pub(super) lanes: [LaneState; 4],
    /// The newest event id's time, so that ids rise also after the wall clock was set back.
    pub(super) newest_ms: i64,
}

impl State {
    pub(super) fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[lane.index()]
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane.index()]
    }

    pub(super) fn rows(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.rows).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }
}

/// The open file.
pub(super) struct Store {
    pub(super) config: JournalConfig,
    pub(super) opener: Opener,
    pub(super) database: Database,
    pub(super) state: State,
    pub(super) ids: Ids,
}

/// Gives out event ids.
#[derive(Debug, Default)]
pub(super) struct Ids {
    ids: EventIds,
    floor_ms: i64,
    /// Fetched ahead: the system is asked once for many ids.
    random: Vec<u64>,
}

/// Random numbers fetched at once.
const RANDOM_AHEAD: usize = 64;

impl Ids {
    pub(super) fn next(&mut self) -> Result<EventId, JournalError> {
        let now = clock::now().as_millis().max(self.floor_ms);
        let random = self.random()?;
        Ok(self.ids.next(topics::Timestamp::from_millis(now), random))
    }

    fn random(&mut self) -> Result<u64, JournalError> {
        if let Some(random) = self.random.pop() {
            return Ok(random);
        }
        let mut bytes = [[0; 8]; RANDOM_AHEAD];
        getrandom::fill(bytes.as_flattened_mut()).map_err(|error| JournalError::File {
            path: PathBuf::from("random numbers"),
            source: Arc::new(io::Error::other(error)),
        })?;
        self.random.extend(bytes.map(u64::from_le_bytes));
        self.random()
    }
}

/// Opens the file; sets it aside and begins a new one where it can't be read.
pub(super) fn open_or_set_aside(
    config: JournalConfig,
    opener: Opener,
) -> Result<(Store, Opened), JournalError> {
    let was_there = config.path.exists();
    let before = read_side_note(&config.path);
    match open(&config, &opener, &[]) {
        Ok((database, mut state)) => {
            let deleted = before.filter(|_| !was_there).filter(|&before| before != state.store);
            let mut ids =
                Ids { ids: EventIds::default(), floor_ms: state.newest_ms + 1, ..Ids::default() };
            if deleted.is_some() {
                tracing::error!(path = %config.path.display(), "the journal is gone: a new store begins");
                note_new_store(&config, &database, &mut state, &mut ids, deleted)?;
            }
            finish(config, opener, database, state, ids, (deleted, None))
        }
        Err(OpenError::Refused(error)) => Err(error),
        Err(OpenError::Unreadable(reason)) => {
            let aside = set_aside(&config.path)?;
            tracing::error!(
                path = %config.path.display(), aside = %aside.display(), %reason,
                "the journal can't be read: it is set aside and a new store begins"
            );
            let (database, mut state) =
                open(&config, &opener, &[]).map_err(OpenError::into_journal)?;
            let mut ids = Ids::default();
            note_new_store(&config, &database, &mut state, &mut ids, before)?;
            finish(config, opener, database, state, ids, (before, Some(aside)))
        }
    }
}

fn finish(
    config: JournalConfig,
    opener: Opener,
    database: Database,
    state: State,
    ids: Ids,
    (previous_store, set_aside): (Option<StoreId>, Option<PathBuf>),
) -> Result<(Store, Opened), JournalError> {
    write_side_note(&config.path, state.store)?;
    let opened = Opened { store: state.store, previous_store, set_aside };
    Ok((Store { config, opener, database, state, ids }, opened))
}

/// Why a file did not open.
enum OpenError {
    /// Its bytes are no journal.
    Unreadable(String),
    /// Anything else: trying another file would not help, or would do harm.
    Refused(JournalError),
}

impl OpenError {
    fn into_journal(self) -> JournalError {
        match self {
            OpenError::Refused(error) => error,
            OpenError::Unreadable(reason) => JournalError::Storage {
                doing: "make a new file",
                source: Arc::new(redb::Error::Corrupted(reason)),
            },
        }
    }
}

fn open(
    config: &JournalConfig,
    opener: &Opener,
    known: &[&State],
) -> Result<(Database, State), OpenError> {
    // A file can be damaged in ways that make the reader panic; it is as unreadable then.
    let attempt = catch_unwind(AssertUnwindSafe(|| -> Result<_, redb::Error> {
        let database = opener()?;
        if !known.is_empty() {
            let commit = last_commit(&database)?;
            if let Some(&state) = known.iter().find(|state| Some(state.commit) == commit) {
                return Ok((database, Loaded::State(Box::new(state.clone()))));
            }
        }
        let state = load(config, &database)?;
        Ok((database, state))
    }));
    let Ok(result) = attempt else {
        return Err(OpenError::Unreadable("redb panicked while reading it".to_owned()));
    };
    let (database, loaded) = result.map_err(|error| {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            redb::Error::Corrupted(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. } => OpenError::Unreadable(error.to_string()),
            redb::Error::Io(io) if matches!(io.kind(), InvalidData | UnexpectedEof) => {
                OpenError::Unreadable(io.to_string())
            }
            other => OpenError::Refused(refused(config, other, "open it")),
        }
    })?;
    match loaded {
        Loaded::State(state) => Ok((database, *state)),
        Loaded::OtherGateway(gateway) => Err(OpenError::Refused(JournalError::OtherGateway {
            path: config.path.clone(),
            gateway,
        })),
        Loaded::Newer(layout) => {
            let path = config.path.clone();
            Err(OpenError::Refused(JournalError::Newer { path, layout }))
        }
        Loaded::Damaged(reason) => Err(OpenError::Unreadable(reason)),
    }
}

/// redb's error as ours.
pub(super) fn refused(
    config: &JournalConfig,
    error: redb::Error,
    doing: &'static str,
) -> JournalError {
    let path = config.path.clone();
    match error {
        redb::Error::DatabaseAlreadyOpen => JournalError::Locked { path },
        redb::Error::Io(io)
            if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            JournalError::Full { path }
        }
        other => JournalError::Storage { doing, source: Arc::new(other) },
    }
}

enum Loaded {
    State(Box<State>),
    OtherGateway(String),
    Newer(u8),
    Damaged(String),
}

/// Makes what is missing, and counts what is there where the file doesn't say it.
fn load(config: &JournalConfig, database: &Database) -> Result<Loaded, redb::Error> {
    let transaction = database.begin_write()?;
    let mut state;
    let mut changed = false;
    {
        let mut meta = transaction.open_table(META)?;
        let told = meta.get(META_LAYOUT)?.and_then(|value| value.value().first().copied());
        match told {
            Some(newer) if newer > LAYOUT => return Ok(Loaded::Newer(newer)),
            // The first commit says it: opening must not need room on the disk.
            Some(_) | None => {}
        }
        let told = meta.get(META_GATEWAY)?.map(|value| value.value().to_vec());
        match told {
            None => {
                meta.insert(META_GATEWAY, config.gateway.as_str().as_bytes())?;
                changed = true;
            }
            Some(told) if told == config.gateway.as_str().as_bytes() => {}
            Some(told) => {
                return Ok(Loaded::OtherGateway(String::from_utf8_lossy(&told).into_owned()));
            }
        }
        let told = meta.get(META_STORE)?.map(|value| <[u8; 16]>::try_from(value.value()));
        let store = match told {
            Some(Ok(bytes)) => StoreId::from_bytes(bytes),
            Some(Err(_)) => return Ok(Loaded::Damaged("its store id is cut".to_owned())),
            None => {
                let store = new_store_id()?;
                meta.insert(META_STORE, store.as_bytes().as_slice())?;
                changed = true;
                store
            }
        };
        let told = meta.get(META_COMMIT)?.and_then(|value| value.value().try_into().ok());
        let commit = told.map_or(0, u64::from_le_bytes);
        let told = meta.get(META_COUNTS)?.and_then(|value| Counts::read(value.value()));
        let counts = told.filter(|counts| counts.commit == commit);
        let mut lanes = Vec::with_capacity(Lane::ALL.len());
        let marks = transaction.open_table(LANES)?;
        for lane in Lane::ALL {
            let told = marks.get(lane.index() as u8)?.map(|value| value.value().to_vec());
            let marks: Marks = match told.map(|told| serde_json::from_slice(&told)) {
                None => Marks::default(),
                Some(Ok(told)) => told,
                Some(Err(_)) => return Ok(Loaded::Damaged(format!("marks of lane {lane}"))),
            };
            lanes.push(LaneState::new(lane, marks));
        }
        let [a, b, c, d] = &mut lanes[..] else {
            return Ok(Loaded::Damaged("lanes".to_owned()));
        };
        let lanes = [a.clone(), b.clone(), c.clone(), d.clone()];
        state = State { store, commit, lanes, newest_ms: 0 };
        for table in Table::ALL {
            transaction.open_table(self::table(table))?;
        }
        let mut ids = Ids::default();
        for lane in &mut state.lanes {
            let mut rows = transaction.open_table(records(lane.lane))?;
            if let Some(counts) = &counts
                && counts.take_up(lane, &rows, &mut state.newest_ms)?
            {
                continue;
            }
            let bad = count_rows(lane, &rows, &mut state.newest_ms)?;
            ids.floor_ms = state.newest_ms + 1;
            for (seq, chain) in bad {
                let Ok(gap) = corrupt_gap(config, &mut ids, lane, (seq, seq), chain) else {
                    return Ok(Loaded::Damaged(format!("record {seq} of lane {}", lane.lane)));
                };
                tracing::error!(lane = %lane.lane, seq, "a record can't be read: a gap stands for it");
                rows::insert(&mut rows, &gap)?;
                lane.count(&gap, event_id(&gap));
                changed = true;
            }
            // What a damaged gap stood for.
            for range in if changed { lane.uncovered() } else { Vec::new() } {
                let Ok(gap) = corrupt_gap(config, &mut ids, lane, range, 0) else {
                    return Ok(Loaded::Damaged(format!("a gap of lane {}", lane.lane)));
                };
                rows::insert(&mut rows, &gap)?;
                lane.count(&gap, event_id(&gap));
            }
            match &counts {
                Some(counts) if counts.is_of(lane) => lane.chain = counts.chain(lane.lane),
                Some(_) | None => lane.follow_the_bridge(),
            }
        }
    }
    if changed {
        write_counts(&mut transaction.open_table(META)?, &state)?;
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(Loaded::State(Box::new(state)))
}

/// Writes the file's layout and the counts of a state, or none of these where they would be long.
pub(super) fn write_counts(
    meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
    state: &State,
) -> Result<(), StorageError> {
    meta.insert(META_LAYOUT, [LAYOUT].as_slice())?;
    match Counts::of(state) {
        Some(counts) => drop(meta.insert(META_COUNTS, counts.encode().as_slice())?),
        None => drop(meta.remove(META_COUNTS)?),
    }
    Ok(())
}

pub(super) fn encode(marks: &Marks) -> Vec<u8> {
    // Numbers and lists of numbers: this can't fail.
    serde_json::to_vec(marks).unwrap_or_default()
}

/// Counts the rows of a lane; gives the keys of those that are no records, each with the chain value
/// before it.
pub(super) fn count_rows(
    lane: &mut LaneState,
    table: &impl ReadableTable<u64, &'static [u8]>,
    newest_ms: &mut i64,
) -> Result<Vec<(u64, u64)>, redb::Error> {
    let mut bad = Vec::new();
    let mut last = None;
    for row in table.iter()? {
        let (key, value) = row?;
        let seq = key.value();
        match rows::read(lane.lane, seq, value.value()) {
            Ok(record) => {
                let is_gap = record.kind() == topics::RecordKind::Gap;
                let id = if is_gap { event_id(&record) } else { None };
                *newest_ms = (*newest_ms).max(id.map_or(0, id_ms));
                lane.count(&record, id);
                last = Some(record);
            }
            Err(_) => {
                let before: Option<&Record> = last.as_ref();
                bad.push((seq, before.map_or(0, Record::chain)));
                lane.next = lane.next.max(seq + 1);
            }
        }
    }
    *newest_ms = (*newest_ms).max(last.and_then(|record| event_id(&record)).map_or(0, id_ms));
    Ok(bad)
}

fn corrupt_gap(
    config: &JournalConfig,
    ids: &mut Ids,
    lane: &LaneState,
    range: (u64, u64),
    chain: u64,
) -> Result<Record, JournalError> {
    gap(
        &config.gateway,
        ids,
        lane.lane,
        Gap {
            range,
            count: Some(range.1 - range.0 + 1),
            reason: GapReason::Corrupt,
            previous_store: None,
            chain,
        },
    )
}

/// The first record of a store that is not the first.
fn note_new_store(
    config: &JournalConfig,
    database: &Database,
    state: &mut State,
    ids: &mut Ids,
    previous_store: Option<StoreId>,
) -> Result<(), JournalError> {
    let mut write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        let mut tables = Tables::new(&transaction);
        let mut ledger = Ledger {
            lanes: &mut state.lanes,
            changes: &mut Changes::default(),
            rows: &mut tables,
            stamps: ids,
            gateway: &config.gateway,
        };
        ledger.begin(previous_store)?;
        drop(tables);
        transaction.commit()?;
        Ok(())
    };
    write().map_err(|error| refused(config, error, "begin a new store"))
}

pub(super) fn new_store_id() -> Result<StoreId, StorageError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StorageError::Io(io::Error::other(error)))?;
    Ok(StoreId::from_bytes(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()))
}

/// The id of a record's event, read from where [`Draft`](topics::Draft) writes it: right before the lane at the
/// JSON's end. Falls back to parsing.
pub fn event_id(record: &Record) -> Option<EventId> {
    const ID_BYTES: usize = 36;
    let json = record.json();
    let tail = format!(r#"","lane":"{}","seq":{}}}"#, record.lane(), record.seq());
    let quick = json.strip_suffix(tail.as_bytes()).and_then(|head| {
        let (_, id) = head.split_at_checked(head.len().checked_sub(ID_BYTES)?)?;
        std::str::from_utf8(id).ok()?.parse().ok()
    });
    quick.or_else(|| record.event().ok().map(|event| event.id))
}

/// When an event id was made, milliseconds since 1970.
pub(super) fn id_ms(id: EventId) -> i64 {
    let bytes = id.as_bytes();
    bytes[..6].iter().fold(0, |ms, &byte| ms << 8 | i64::from(byte))
}

fn side_note(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".store");
    PathBuf::from(name)
}

/// The store id beside the file: it tells which journal is missing when the file is gone.
fn read_side_note(path: &Path) -> Option<StoreId> {
    fs::read_to_string(side_note(path)).ok()?.trim().parse().ok()
}

pub(super) fn write_side_note(path: &Path, store: StoreId) -> Result<(), JournalError> {
    if read_side_note(path) == Some(store) || !path.exists() {
        return Ok(());
    }
    let note = side_note(path);
    fs::write(&note, format!("{store}\n"))
        .map_err(|source| JournalError::File { path: note, source: Arc::new(source) })
}

fn set_aside(path: &Path) -> Result<PathBuf, JournalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".unreadable-{}", clock::now().as_millis()));
    let aside = PathBuf::from(name);
    let failed = |source| JournalError::File { path: path.to_owned(), source: Arc::new(source) };
    fs::rename(path, &aside).map_err(failed)?;
    Ok(aside)
}

/// Opens the file again after a failure. Where it is as one of the states that it may be in, nothing
/// is counted and nothing written: on a full disk that must do.
pub(super) fn reopen(
    config: &JournalConfig,
    opener: &Opener,
    known: &[&State],
) -> Result<(Database, State), JournalError> {
    open(config, opener, known).map_err(OpenError::into_journal)
}

/// Commits what the file shows once more: a commit that failed, and is there when the file is opened
/// again, may be so in the system's memory only.
pub(super) fn confirm(database: &Database, commit: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(META_COMMIT, &commit.to_le_bytes()[..])?;
    transaction.commit()?;
    Ok(())
}

fn last_commit(database: &Database) -> Result<Option<u64>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let commit = meta.get(META_COMMIT)?.and_then(|value| value.value().try_into().ok());
    Ok(commit.map(u64::from_le_bytes))
}
