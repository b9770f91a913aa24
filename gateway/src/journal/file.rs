//! The file of a journal that nobody has open: looked at without a change, or compacted.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, ReadTransaction, ReadableDatabase as _, TableError};
use topics::{Lane, StoreId};

use super::{
    Row,
    gate::raw,
    lane::{LaneState, Marks},
    overlay::Overlay,
    store::{
        LANES, LAYOUT, META, META_COMMIT, META_GATEWAY, META_LAYOUT, META_STORE, State, count_rows,
        records,
    },
    survey::Survey,
};

/// Bytes of redb's page cache.
const CACHE_BYTES: usize = 8 << 20;

/// Why a file can't be looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("there is no journal at {}", path.display())]
    Missing { path: PathBuf },
    #[error("the journal {} can't be opened: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the journal {} is open in another process", path.display())]
    Locked { path: PathBuf },
    #[error("the journal {} can't be read: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is no journal: {reason}", path.display())]
    Other { path: PathBuf, reason: String },
}

/// What redb's own check says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// Every page is as its checksum says.
    Sound,
    /// Not so; redb would go back to an earlier state, or rebuild what it can.
    Repairable,
}

/// The file, open for reading. Nothing of it changes.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    database: Database,
    gateway: String,
    store: StoreId,
}

impl JournalFile {
    /// Opens a file that is there. What an unclean one needs is done in memory.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let database = open(path)?;
        let meta = guarded(path, || meta(&database))?;
        let (gateway, store) = meta.map_err(|reason| FileError::Other {
            path: path.to_owned(),
            reason: reason.to_owned(),
        })?;
        Ok(Self { path: path.to_owned(), database, gateway, store })
    }

    /// Its accounting, from what is written: every record's header is read for it.
    pub fn survey(&self) -> Result<Survey, FileError> {
        guarded(&self.path, || {
            let transaction = self.database.begin_read()?;
            let (lanes, unreadable) = lanes(&transaction)?;
            let meta = transaction.open_table(META)?;
            let commit = meta.get(META_COMMIT)?.and_then(|value| value.value().try_into().ok());
            let commit = commit.map_or(0, u64::from_le_bytes);
            let state = State { store: self.store, commit, lanes, newest_ms: 0 };
            let mut survey = Survey::of(&state, self.gateway.clone());
            for (lane, unreadable) in survey.lanes.iter_mut().zip(unreadable) {
                lane.unreadable = unreadable;
            }
            Ok(survey)
        })
    }

    /// As [`Journal::rows`](super::Journal::rows).
    pub fn rows(
        &self,
        lane: Lane,
        from_seq: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Row>, FileError> {
        guarded(&self.path, || {
            raw(&self.database.begin_read()?, lane, from_seq, max_records, max_bytes)
        })
    }

    /// redb's own check of a file: each page against its checksum. What it would repair is repaired in
    /// memory only.
    pub fn check_integrity(path: &Path) -> Result<Integrity, FileError> {
        let mut database = open(path)?;
        let sound = guarded(path, || Ok(database.check_integrity()?))?;
        Ok(if sound { Integrity::Sound } else { Integrity::Repairable })
    }
}

/// Gives the space that a file no longer needs back to the file system. The file must be nobody
/// else's meanwhile.
pub fn compact(path: &Path) -> Result<(), FileError> {
    if is_open(path) {
        return Err(FileError::Locked { path: path.to_owned() });
    }
    // Not a file that redb would have to make, and none that is something else.
    drop(JournalFile::open(path)?);
    guarded(path, || {
        let mut database = Database::builder().set_cache_size(CACHE_BYTES).open(path)?;
        while database.compact()? {}
        Ok(())
    })
}

/// Whether another process has the file open, as redb does: with a lock on it.
pub fn is_open(path: &Path) -> bool {
    let locked = std::fs::File::open(path).map(|file| file.try_lock_shared());
    matches!(locked, Ok(Err(std::fs::TryLockError::WouldBlock)))
}

fn open(path: &Path) -> Result<Database, FileError> {
    let overlay = Overlay::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => FileError::Missing { path: path.to_owned() },
        _ => FileError::Io { path: path.to_owned(), source },
    })?;
    let length = redb::StorageBackend::len(&overlay);
    if length.is_ok_and(|length| length == 0) {
        // redb would make a new database of it.
        let reason = "the file is empty".to_owned();
        return Err(FileError::Damaged { path: path.to_owned(), reason });
    }
    guarded(path, || {
        Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(overlay)?)
    })
}

/// Whose it is and its store id, or why it has none.
fn meta(database: &Database) -> Result<Result<(String, StoreId), &'static str>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Err("it has no table meta.v1")),
        Err(error) => return Err(error.into()),
    };
    let layout = table.get(META_LAYOUT)?.and_then(|value| value.value().first().copied());
    if layout.is_some_and(|layout| layout > LAYOUT) {
        return Ok(Err("its layout is that of a newer version"));
    }
    let gateway = table.get(META_GATEWAY)?.map(|value| value.value().to_vec());
    let Some(gateway) = gateway else { return Ok(Err("it names no gateway")) };
    let store = table.get(META_STORE)?.map(|value| <[u8; 16]>::try_from(value.value()));
    let Some(Ok(store)) = store else { return Ok(Err("it has no store id")) };
    let gateway = String::from_utf8_lossy(&gateway).into_owned();
    Ok(Ok((gateway, StoreId::from_bytes(store))))
}

/// The lanes as they are written, and in each the rows that are no records.
fn lanes(transaction: &ReadTransaction) -> Result<([LaneState; 4], [u64; 4]), redb::Error> {
    let marks = transaction.open_table(LANES);
    let mut unreadable = [0; 4];
    let mut lanes = Lane::ALL.map(|lane| LaneState::new(lane, Marks::default()));
    for (lane, unreadable) in lanes.iter_mut().zip(&mut unreadable) {
        if let Ok(marks) = &marks
            && let Some(told) = marks.get(lane.lane.index() as u8)?
        {
            lane.marks = serde_json::from_slice(told.value()).map_err(|error| {
                redb::Error::Corrupted(format!("the marks of lane {}: {error}", lane.lane))
            })?;
        }
        match transaction.open_table(records(lane.lane)) {
            Ok(table) => *unreadable = count_rows(lane, &table, &mut 0)?.len() as u64,
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((lanes, unreadable))
}

/// A file can be damaged in ways that make redb panic; it is as unreadable then.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, FileError> {
    let path = path.to_owned();
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(FileError::Locked { path }),
        Ok(Err(redb::Error::Io(source)))
            if !matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Err(FileError::Io { path, source })
        }
        // Somebody may be writing to it; looked at last, so that nobody's start meets the look.
        Ok(Err(_)) | Err(_) if is_open(&path) => Err(FileError::Locked { path }),
        Ok(Err(error)) => Err(FileError::Damaged { path, reason: error.to_string() }),
        Err(_) => Err(FileError::Damaged { path, reason: "redb panicked".to_owned() }),
    }
}
