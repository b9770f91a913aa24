//! Records on their way up, packed: what is alike in neighbouring records, and what follows from them,
//! costs next to nothing.
//!
//! # Byte layout of the payload (numbers little-endian)
//!
//! | size | field |
//! |---|---|
//! | 16 | store id |
//! | 8 | session |
//! | 4 | n, the number of records |
//! | 53 n | their heads, by columns: the first byte of each, then the second of each … |
//! | 8 each | chain values, of the records whose head says so |
//! | … | what comes after the header of each record, one after the other |
//!
//! A head is the record's header without its chain value (48), the record's length (4), and how its chain
//! value is told (1): `0`, it follows from the record before it of the same lane in this batch; `1`, it is
//! given. Each byte of a column is the difference (modulo 256) from the record before.
//!
//! The sender leaves a chain value out only where it does follow, so the records arrive byte for byte as
//! they are in the journal. A hash is what does not compress: with it a batch takes a quarter more.

use super::{LinkError, u32_at};
use crate::{
    Lane, Record, StoreId,
    record::{CHAIN, HEADER_BYTES, MAX_RECORD_BYTES, chain_after},
};

/// Before the heads.
const BATCH_HEADER_BYTES: usize = 28;
/// The header of a record without its chain value.
const PLAIN_BYTES: usize = HEADER_BYTES - (CHAIN.end - CHAIN.start);
const HEAD_BYTES: usize = PLAIN_BYTES + 5;
const FOLLOWS: u8 = 0;
const GIVEN: u8 = 1;

/// Records on their way up.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The journal they come from.
    pub store: StoreId,
    /// The hello's.
    pub session: u64,
    /// In the order to be stored and told; lanes may be mixed, each rising.
    pub records: Vec<Record>,
}

type Head = [u8; HEAD_BYTES];

impl Batch {
    /// Payload bytes that `records` records of together `record_bytes` bytes take at most.
    pub fn payload_bytes(records: usize, record_bytes: usize) -> usize {
        BATCH_HEADER_BYTES + records * super::RECORD_OVERHEAD_BYTES + record_bytes
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let record_bytes: usize = self.records.iter().map(|record| record.as_bytes().len()).sum();
        let mut payload = Vec::with_capacity(Self::payload_bytes(self.records.len(), record_bytes));
        payload.extend_from_slice(self.store.as_bytes());
        payload.extend_from_slice(&self.session.to_le_bytes());
        payload.extend_from_slice(&(self.records.len() as u32).to_le_bytes());
        let mut chains = Chains::default();
        let heads: Vec<Head> = self
            .records
            .iter()
            .map(|record| {
                let follows = chains.before(record.lane()).is_some_and(|it| record.continues(it));
                chains.note(record.lane(), record.chain());
                head(record.as_bytes(), if follows { FOLLOWS } else { GIVEN })
            })
            .collect();
        for column in 0..HEAD_BYTES {
            let mut before = 0u8;
            payload.extend(heads.iter().map(|head| {
                let difference = head[column].wrapping_sub(before);
                before = head[column];
                difference
            }));
        }
        for (record, head) in self.records.iter().zip(&heads) {
            if head[HEAD_BYTES - 1] == GIVEN {
                payload.extend_from_slice(&record.as_bytes()[CHAIN]);
            }
        }
        for record in &self.records {
            payload.extend_from_slice(&record.as_bytes()[HEADER_BYTES..]);
        }
        payload
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, LinkError> {
        if payload.len() < BATCH_HEADER_BYTES {
            return Err(LinkError::Short(payload.len()));
        }
        let mut store = [0; 16];
        store.copy_from_slice(&payload[..16]);
        let mut session = [0; 8];
        session.copy_from_slice(&payload[16..24]);
        let count = u32_at(payload, 24) as usize;
        let (heads, mut rest) = heads(&payload[BATCH_HEADER_BYTES..], count)?;
        let given = heads.iter().filter(|head| head[HEAD_BYTES - 1] == GIVEN).count();
        let mut given = cut(&mut rest, given * 8, "chain values")?.chunks_exact(8);
        let mut chains = Chains::default();
        let mut records = Vec::with_capacity(count);
        let mut bytes = Vec::new();
        for (index, head) in heads.iter().enumerate() {
            let length = u32_at(head, PLAIN_BYTES) as usize;
            if !(HEADER_BYTES..=MAX_RECORD_BYTES).contains(&length) {
                return Err(LinkError::Field { field: "record length", value: length as u64 });
            }
            bytes.clear();
            bytes.extend_from_slice(&head[..CHAIN.start]);
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&head[CHAIN.start..PLAIN_BYTES]);
            bytes.extend_from_slice(cut(&mut rest, length - HEADER_BYTES, "record length")?);
            let before = Lane::from_index(head[2].into()).and_then(|lane| chains.before(lane));
            match (head[HEAD_BYTES - 1], before) {
                (FOLLOWS, Some(before)) => {
                    let chain = chain_after(before, &bytes);
                    bytes[CHAIN].copy_from_slice(&chain.to_le_bytes());
                }
                (GIVEN, _) => bytes[CHAIN].copy_from_slice(given.next().unwrap_or(&[0; 8])),
                (told, _) => return Err(LinkError::Field { field: "chain", value: told.into() }),
            }
            let record = Record::read_foreign(&bytes)
                .map_err(|source| LinkError::Record { index, source })?;
            chains.note(record.lane(), record.chain());
            records.push(record);
        }
        if !rest.is_empty() {
            return Err(LinkError::Field { field: "trailing bytes", value: rest.len() as u64 });
        }
        let (store, session) = (StoreId::from_bytes(store), u64::from_le_bytes(session));
        Ok(Self { store, session, records })
    }
}

/// The chain value of the last record of each lane.
#[derive(Default)]
struct Chains([Option<u64>; 4]);

impl Chains {
    fn before(&self, lane: Lane) -> Option<u64> {
        self.0[lane.index()]
    }

    fn note(&mut self, lane: Lane, chain: u64) {
        self.0[lane.index()] = Some(chain);
    }
}

fn head(record: &[u8], chain: u8) -> Head {
    let mut head = [0; HEAD_BYTES];
    head[..CHAIN.start].copy_from_slice(&record[..CHAIN.start]);
    head[CHAIN.start..PLAIN_BYTES].copy_from_slice(&record[CHAIN.end..HEADER_BYTES]);
    head[PLAIN_BYTES..HEAD_BYTES - 1].copy_from_slice(&(record.len() as u32).to_le_bytes());
    head[HEAD_BYTES - 1] = chain;
    head
}

/// The heads, and what comes after them.
fn heads(payload: &[u8], count: usize) -> Result<(Vec<Head>, &[u8]), LinkError> {
    let mut rest = payload;
    let bytes = count.saturating_mul(HEAD_BYTES);
    let columns = cut(&mut rest, bytes, "number of records")?;
    let mut heads = vec![[0; HEAD_BYTES]; count];
    if count > 0 {
        for (at, column) in columns.chunks_exact(count).enumerate() {
            let mut value = 0u8;
            for (head, difference) in heads.iter_mut().zip(column) {
                value = value.wrapping_add(*difference);
                head[at] = value;
            }
        }
    }
    Ok((heads, rest))
}

fn cut<'a>(rest: &mut &'a [u8], length: usize, field: &'static str) -> Result<&'a [u8], LinkError> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(LinkError::Field { field, value: rest.len() as u64 })?;
    *rest = tail;
    Ok(head)
}
