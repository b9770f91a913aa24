//! redb's tables of records as the ledger's rows, and the system's ids and clock as its stamps.
//!
//! # Byte layout of a row (numbers little-endian)
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | `0xc5`: a row with a check |
//! | 1 | 8 | XXH3 of the record |
//! | 9 | … | the record, see [`topics::record`] |
//!
//! redb doesn't look at a page's checksum as it reads it, and a record's chain value says whether it is what
//! was written only to who knows the one before. With the check a damaged row is known by itself.
//!
//! Rows of the first format are records alone. Their first byte is 1, the record's version; they are read
//! as they are, unless their header is none, and gone with the time.

use redb::{ReadableTable as _, Table, WriteTransaction};
use topics::{
    EventId, Lane, Record,
    record::{Moment, RecordError, VERSION},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    JournalError, clock,
    ledger::{Rows, Stamps},
    store::{Ids, records},
};

/// The first byte of a row with a check.
const CHECKED: u8 = 0xc5;
/// Bytes before the record in such a row.
pub(super) const CHECK_BYTES: usize = 9;

/// Why a row is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RowError {
    #[error("it is not what was written: its check differs")]
    Damaged,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("it says that it is {seq} of lane {lane}")]
    Misplaced { lane: Lane, seq: u64 },
}

/// The record of a row, or why it is none: it must also stand where it says. One that a newer version wrote
/// is one, too: whoever takes it will know what to do.
pub(super) fn read(lane: Lane, seq: u64, row: &[u8]) -> Result<Record, RowError> {
    let record = Record::read_foreign(record_bytes(row)?)?;
    if (record.lane(), record.seq()) == (lane, seq) {
        Ok(record)
    } else {
        Err(RowError::Misplaced { lane: record.lane(), seq: record.seq() })
    }
}

/// The bytes of a row's record, where they are what was written.
pub(super) fn record_bytes(row: &[u8]) -> Result<&[u8], RowError> {
    if row.first() == Some(&VERSION) {
        return Ok(row);
    }
    let parts = row.split_first_chunk::<CHECK_BYTES>().ok_or(RowError::Damaged)?;
    let ([tag, check @ ..], record) = parts;
    let is_sound = *tag == CHECKED && xxh3_64(record) == u64::from_le_bytes(*check);
    if is_sound { Ok(record) } else { Err(RowError::Damaged) }
}

/// How long a row's record is, sound or not.
pub(super) fn record_len(row: &[u8]) -> u64 {
    let before = if row.first() == Some(&VERSION) { 0 } else { CHECK_BYTES };
    row.len().saturating_sub(before) as u64
}

/// The row of a record.
pub(super) fn insert(
    table: &mut Table<'_, u64, &'static [u8]>,
    record: &Record,
) -> Result<(), redb::StorageError> {
    let bytes = record.as_bytes();
    let mut row = table.insert_reserve(record.seq(), CHECK_BYTES + bytes.len())?;
    let (check, rest) = row.as_mut().split_at_mut(CHECK_BYTES);
    check[0] = CHECKED;
    check[1..].copy_from_slice(&xxh3_64(bytes).to_le_bytes());
    rest.copy_from_slice(bytes);
    Ok(())
}

/// The tables that a transaction has open, so that each is opened once for many appends.
pub(super) struct Tables<'t> {
    transaction: &'t WriteTransaction,
    lanes: [Option<Table<'t, u64, &'static [u8]>>; 4],
}

impl<'t> Tables<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, lanes: [const { None }; 4] }
    }

    fn lane(&mut self, lane: Lane) -> Result<&mut Table<'t, u64, &'static [u8]>, redb::Error> {
        let slot = &mut self.lanes[lane.index()];
        match slot {
            Some(table) => Ok(table),
            None => Ok(slot.insert(self.transaction.open_table(records(lane))?)),
        }
    }
}

impl Rows for Tables<'_> {
    type Error = redb::Error;

    fn get(&mut self, lane: Lane, seq: u64) -> Result<Option<Record>, redb::Error> {
        let value = self.lane(lane)?.get(seq)?;
        Ok(value.and_then(|value| read(lane, seq, value.value()).ok()))
    }

    fn insert(&mut self, record: &Record) -> Result<(), redb::Error> {
        Ok(insert(self.lane(record.lane())?, record)?)
    }

    fn delete(
        &mut self,
        lane: Lane,
        (first, last): (u64, u64),
        keep: impl Fn(u64) -> bool,
    ) -> Result<(u64, u64), redb::Error> {
        let (mut rows, mut bytes) = (0, 0);
        self.lane(lane)?.retain_in(first..=last, |seq, value| {
            let keep = keep(seq);
            if !keep {
                rows += 1;
                bytes += record_len(value);
            }
            keep
        })?;
        Ok((rows, bytes))
    }

    fn scan(
        &mut self,
        lane: Lane,
        (first, end): (u64, u64),
        mut each: impl FnMut(u64, Option<Record>) -> bool,
    ) -> Result<(), redb::Error> {
        for row in self.lane(lane)?.range(first..end)? {
            let (seq, value) = row?;
            if !each(seq.value(), read(lane, seq.value(), value.value()).ok()) {
                break;
            }
        }
        Ok(())
    }
}

impl Stamps for Ids {
    fn id(&mut self) -> Result<EventId, JournalError> {
        self.next()
    }

    fn moment(&self) -> Moment {
        clock::moment()
    }
}

/// Out of a transaction only redb's errors come.
impl From<JournalError> for redb::Error {
    fn from(error: JournalError) -> Self {
        redb::Error::Io(std::io::Error::other(error))
    }
}
