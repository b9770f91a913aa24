//! redb's tables of records as the ledger's rows, and the system's ids and clock as its stamps.

use redb::{ReadableTable as _, Table, WriteTransaction};
use topics::{EventId, Lane, Record, record::Moment};

use super::{
    JournalError, clock,
    ledger::{Rows, Stamps},
    store::{Ids, records},
};

/// The record of a row, or why it is none: it must also stand where it says. One that a newer version wrote
/// is one, too: whoever takes it will know what to do.
pub(super) fn read(lane: Lane, seq: u64, bytes: &[u8]) -> Result<Record, String> {
    let record = Record::read_foreign(bytes).map_err(|error| error.to_string())?;
    if (record.lane(), record.seq()) == (lane, seq) {
        Ok(record)
    } else {
        Err(format!("it says that it is {} of lane {}", record.seq(), record.lane()))
    }
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
        self.lane(record.lane())?.insert(record.seq(), record.as_bytes())?;
        Ok(())
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
                bytes += value.len() as u64;
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
