//! How many rows each lane has, where its gaps are, and the chain value that its next record continues (a gap
//! may stand for the last one, or a damaged row), beside the rows themselves: so that opening a journal need not
//! read all of it.
//!
//! They are written with each commit and carry its number and a hash. Those of another commit (an older
//! version wrote to the file since), or that don't fit what the rows and the marks show, are passed over, and
//! the rows are counted.
//!
//! # Byte layout of `counts` in `meta.v1` (numbers little-endian)
//!
//! | size | field |
//! |---|---|
//! | 8 | number of the commit |
//! | per lane: 8 | rows |
//! | 8 | bytes of their records |
//! | 8 | the next sequence number |
//! | 8 | the chain value before it |
//! | 4 | gaps among them |
//! | 8 each | their keys, rising |
//! | at the end: 8 | XXH3 of all before |

use redb::ReadableTable;
use topics::{Lane, RecordKind};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    lane::LaneState,
    rows,
    store::{State, event_id, id_ms},
};

/// With more gaps than these nothing is written: each commit would carry them.
const MAX_GAPS: usize = 512;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) commit: u64,
    lanes: [LaneCounts; 4],
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LaneCounts {
    rows: u64,
    bytes: u64,
    next: u64,
    chain: u64,
    gaps: Vec<u64>,
}

impl Counts {
    /// Of a state; none where it would be long.
    pub(super) fn of(state: &State) -> Option<Self> {
        let gaps: usize = state.lanes.iter().map(|lane| lane.gaps.len()).sum();
        let counts = |lane: &LaneState| LaneCounts {
            rows: lane.rows,
            bytes: lane.bytes,
            next: lane.next,
            chain: lane.chain,
            gaps: lane.gaps.keys().copied().collect(),
        };
        (gaps <= MAX_GAPS)
            .then(|| Self { commit: state.commit, lanes: state.lanes.each_ref().map(counts) })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.commit.to_le_bytes().to_vec();
        for lane in &self.lanes {
            for number in [lane.rows, lane.bytes, lane.next, lane.chain] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&(lane.gaps.len() as u32).to_le_bytes());
            lane.gaps.iter().for_each(|key| bytes.extend_from_slice(&key.to_le_bytes()));
        }
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// None where these are not such bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut told, hash) = bytes.split_last_chunk()?;
        if xxh3_64(told) != u64::from_le_bytes(*hash) {
            return None;
        }
        let rest = &mut told;
        let commit = u64::from_le_bytes(take(rest)?);
        let mut lanes: [LaneCounts; 4] = Default::default();
        for lane in &mut lanes {
            lane.rows = u64::from_le_bytes(take(rest)?);
            lane.bytes = u64::from_le_bytes(take(rest)?);
            lane.next = u64::from_le_bytes(take(rest)?);
            lane.chain = u64::from_le_bytes(take(rest)?);
            let gaps = u32::from_le_bytes(take(rest)?) as usize;
            if gaps > MAX_GAPS {
                return None;
            }
            for _ in 0..gaps {
                lane.gaps.push(u64::from_le_bytes(take(rest)?));
            }
        }
        rest.is_empty().then_some(Self { commit, lanes })
    }

    /// The chain value that the next record of a lane continues.
    pub(super) fn chain(&self, lane: Lane) -> u64 {
        self.lanes[lane.index()].chain
    }

    /// Whether a lane's next number is the one that these know.
    pub(super) fn is_of(&self, lane: &LaneState) -> bool {
        self.lanes[lane.lane.index()].next == lane.next
    }

    /// Sets a lane's counts, and what its last row and its gaps say. False, and nothing is set, where
    /// these can't be read, or are not what they should be.
    pub(super) fn take_up(
        &self,
        lane: &mut LaneState,
        table: &impl ReadableTable<u64, &'static [u8]>,
        newest_ms: &mut i64,
    ) -> Result<bool, redb::Error> {
        let counts = &self.lanes[lane.lane.index()];
        let mut known = lane.clone();
        let mut newest = *newest_ms;
        let mut take_row = |key: u64, bytes: &[u8], kind: Option<RecordKind>| {
            let record = rows::read(known.lane, key, bytes).ok();
            let record = record.filter(|record| kind.is_none_or(|kind| kind == record.kind()));
            record.is_some_and(|record| {
                let id = event_id(&record);
                newest = newest.max(id.map_or(0, id_ms));
                known.count(&record, id);
                true
            })
        };
        for &key in &counts.gaps {
            let is_there = table
                .get(key)?
                .is_some_and(|row| take_row(key, row.value(), Some(RecordKind::Gap)));
            if !is_there {
                return Ok(false);
            }
        }
        let last = table.last()?.map(|(key, row)| (key.value(), row.value().to_vec()));
        match last {
            Some((key, row)) if !counts.gaps.contains(&key) => {
                if !take_row(key, &row, Some(RecordKind::Event)) {
                    return Ok(false);
                }
            }
            Some((key, _)) if Some(&key) == counts.gaps.last() => {}
            None if counts.rows == 0 => {}
            Some(_) | None => return Ok(false),
        }
        if counts.rows != known.rows_by_numbers() || counts.next != known.next {
            return Ok(false);
        }
        (known.rows, known.bytes, known.chain) = (counts.rows, counts.bytes, counts.chain);
        (*lane, *newest_ms) = (known, newest);
        Ok(true)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
