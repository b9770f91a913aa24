//! What becomes of the lanes within a transaction: appends, acknowledgements, a new store id, the
//! bounds. No clock and no file: rows and stamps are the caller's. The writer's rows are redb's
//! tables; those of the link's model (`tests/model`) are a map.

mod bounds;

use topics::{
    Draft, EventBody, EventId, GatewayId, Lane, Record, RecordKind, StoreId,
    event::GapReason,
    link::LaneAck,
    record::{Cause, Moment},
};

pub use bounds::Bounds;

use super::{JournalError, lane::LaneState, store::event_id};

/// The records' rows, within a transaction: by lane and sequence number.
pub trait Rows {
    /// Why one can't be read or written; the transaction is over then.
    type Error: From<JournalError>;

    /// The record at `seq`, where there is one that is what was written.
    fn get(&mut self, lane: Lane, seq: u64) -> Result<Option<Record>, Self::Error>;

    /// Sets the record at its lane's sequence number.
    fn insert(&mut self, record: &Record) -> Result<(), Self::Error>;

    /// Deletes from the range's first to its last row, but not what `keep` says. Gives how many rows and bytes that were.
    fn delete(
        &mut self,
        lane: Lane,
        range: (u64, u64),
        keep: impl Fn(u64) -> bool,
    ) -> Result<(u64, u64), Self::Error>;

    /// Shows the rows from the first to before the second in order, while `each` says so; `None`: it
    /// can't be read.
    fn scan(
        &mut self,
        lane: Lane,
        range: (u64, u64),
        each: impl FnMut(u64, Option<Record>) -> bool,
    ) -> Result<(), Self::Error>;
}

/// Rows that are replaced in one commit at most.
const MENDED_AT_ONCE: usize = 4096;

/// Gives new records their ids and their time.
pub trait Stamps {
    /// A new id, later than all before.
    fn id(&mut self) -> Result<EventId, JournalError>;

    /// Now.
    fn moment(&self) -> Moment;
}

/// Whether an acknowledgement may go backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// Within a session: no.
    Ack,
    /// At its start: yes.
    Resume,
}

/// What a transaction changed, beside the rows.
#[derive(Debug, Default)]
pub struct Changes {
    /// Gaps that were made, in order.
    pub gaps: Vec<Record>,
    /// Lanes whose marks changed.
    pub marks: [bool; 4],
    /// Whether there is anything to commit.
    pub dirty: bool,
}

/// The lanes within a transaction.
#[derive(Debug)]
pub struct Ledger<'a, R, S> {
    /// Their accounting, as it will be.
    pub lanes: &'a mut [LaneState; 4],
    /// What changed so far.
    pub changes: &'a mut Changes,
    /// Their rows.
    pub rows: &'a mut R,
    /// Of new records.
    pub stamps: &'a mut S,
    /// Whose records they are.
    pub gateway: &'a GatewayId,
}

impl<R: Rows, S: Stamps> Ledger<'_, R, S> {
    /// Gives an event its place and its record.
    pub fn append(&mut self, draft: Draft, id: EventId) -> Result<Record, R::Error> {
        let lane = &mut self.lanes[draft.lane().index()];
        let record = draft.into_record(self.gateway, id, lane.next, lane.chain);
        self.rows.insert(&record)?;
        lane.count(&record, Some(id));
        self.changes.dirty = true;
        Ok(record)
    }

    /// Takes down what the bridge has, of all lanes or of none. Lanes that a resume doesn't name are
    /// at zero. Refused where it is of another journal.
    pub fn acknowledge(
        &mut self,
        acks: &[LaneAck],
        kind: AckKind,
    ) -> Result<Result<(), JournalError>, R::Error> {
        let mut lanes = self.lanes.clone();
        let mut changed = [false; 4];
        for lane in &mut lanes {
            let nothing = LaneAck { lane: lane.lane, watermark: 0, chain: 0, ranges: Vec::new() };
            let told = acks.iter().find(|ack| ack.lane == lane.lane);
            let ack = match (told, kind) {
                (Some(ack), AckKind::Ack | AckKind::Resume) => ack,
                (None, AckKind::Resume) => &nothing,
                (None, AckKind::Ack) => continue,
            };
            // 0: the bridge doesn't know it, behind a gap.
            if ack.chain != 0 {
                let seq = ack.watermark;
                let reason = match chain_at(self.rows, lane, seq)? {
                    Chain::Known(ours) if ours != ack.chain => {
                        Some(format!("another record at {seq} was stored"))
                    }
                    // Taken for another's what the bridge has is known by its ids when it comes again; taken
                    // for ours, what it has not would be lost.
                    Chain::Damaged if kind == AckKind::Resume => {
                        Some(format!("the record at {seq} is damaged here"))
                    }
                    Chain::Known(_) | Chain::Damaged | Chain::Unknown => None,
                };
                if let Some(reason) = reason {
                    return Ok(Err(JournalError::Forked { lane: lane.lane, reason }));
                }
            }
            match lane.acknowledge(ack, kind == AckKind::Resume) {
                Ok(moved) => changed[lane.lane.index()] = moved,
                Err(reason) => {
                    return Ok(Err(JournalError::Forked { lane: lane.lane, reason }));
                }
            }
        }
        *self.lanes = lanes;
        for (index, moved) in changed.into_iter().enumerate().filter(|(_, moved)| *moved) {
            self.changes.marks[index] |= moved;
            self.changes.dirty = true;
        }
        if kind == AckKind::Resume {
            for lane in Lane::ALL {
                self.cover(lane)?;
            }
        }
        Ok(Ok(()))
    }

    /// The bridge knows another journal under the store id so far, `previous`: what it had
    /// acknowledged becomes a gap.
    pub fn refork(&mut self, previous: StoreId) -> Result<(), R::Error> {
        self.changes.dirty = true;
        self.changes.marks = [true; 4];
        for lane in Lane::ALL {
            let state = &mut self.lanes[lane.index()];
            let watermark = state.marks.watermark;
            (state.marks.watermark, state.marks.chain) = (0, 0);
            state.marks.ranges.clear();
            let end = state.next;
            let (range, chain) = if watermark > 0 {
                // A gap that begins below ends above where the bridge had some of what was dropped.
                let across = state.gaps.range(watermark..).next();
                let across = across.filter(|(_, gap)| gap.first <= watermark);
                let last = across.map_or(watermark, |(&last, _)| last);
                self.delete_to(lane, last, DeleteGaps::Yes)?;
                ((1, last), 0)
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
            self.insert_gap(lane, gap)?;
        }
        for lane in Lane::ALL {
            // What the bridge had above its watermark may be trimmed already.
            for range in self.lanes[lane.index()].uncovered() {
                let gaps = &self.lanes[lane.index()].gaps;
                let before = gaps.range(..range.0).next_back();
                let gap = Gap {
                    range,
                    count: None,
                    reason: GapReason::NewStore,
                    previous_store: Some(previous),
                    chain: before.map_or(0, |(_, gap)| gap.chain),
                };
                self.insert_gap(lane, gap)?;
            }
        }
        Ok(())
    }

    /// The first record of a store that is not the first.
    pub fn begin(&mut self, previous_store: Option<StoreId>) -> Result<(), R::Error> {
        let lane = &self.lanes[Lane::Access.index()];
        let gap = Gap {
            range: (lane.next, lane.next),
            count: None,
            reason: GapReason::NewStore,
            previous_store,
            chain: lane.chain,
        };
        self.insert_gap(Lane::Access, gap)
    }

    /// A row that is no record, and those right after it that are none either: a gap stands in the place of
    /// each, for what it stood for.
    pub fn mend(&mut self, lane: Lane, seq: u64) -> Result<(), R::Error> {
        for seq in (seq..).take(MENDED_AT_ONCE) {
            if self.rows.get(lane, seq)?.is_some() {
                return Ok(());
            }
            let (rows, bytes) = self.rows.delete(lane, (seq, seq), |_| false)?;
            if rows == 0 {
                return Ok(());
            }
            let before = self.rows.get(lane, seq.saturating_sub(1))?;
            let state = &mut self.lanes[lane.index()];
            state.rows = state.rows.saturating_sub(rows);
            state.bytes = state.bytes.saturating_sub(bytes);
            let first = state.gaps.remove(&seq).map_or(seq, |gap| gap.first);
            let gap = Gap {
                range: (first, seq),
                count: Some(seq - first + 1),
                reason: GapReason::Corrupt,
                previous_store: None,
                chain: before.map_or(0, |record| record.chain()),
            };
            // The next record continues what stood here: the bridge may have it.
            let chain = state.chain;
            self.insert_gap(lane, gap)?;
            self.lanes[lane.index()].chain = chain;
        }
        Ok(())
    }

    fn insert_gap(&mut self, lane: Lane, gap: Gap) -> Result<(), R::Error> {
        let (first, last) = gap.range;
        let record = self::gap(self.gateway, self.stamps, lane, gap)?;
        self.rows.insert(&record)?;
        let state = &mut self.lanes[lane.index()];
        state.count(&record, event_id(&record));
        if last + 1 == state.next {
            state.chain = record.chain();
        }
        self.changes.dirty = true;
        tracing::error!(%lane, first, last, "a gap stands for records that are no longer held");
        self.changes.gaps.push(record);
        Ok(())
    }

    /// Deletes the rows of a lane up to `last`.
    fn delete_to(&mut self, lane: Lane, last: u64, gaps: DeleteGaps) -> Result<(), R::Error> {
        let state = &mut self.lanes[lane.index()];
        let from = if gaps == DeleteGaps::Yes { 0 } else { state.marks.trimmed + 1 };
        let keep = |seq: u64| gaps == DeleteGaps::No && state.gaps.contains_key(&seq);
        let (rows, bytes) = self.rows.delete(lane, (from, last), keep)?;
        if gaps == DeleteGaps::Yes {
            state.gaps.retain(|&seq, _| seq > last);
        }
        state.rows = state.rows.saturating_sub(rows);
        state.bytes = state.bytes.saturating_sub(bytes);
        state.marks.trimmed = state.marks.trimmed.max(last);
        Ok(())
    }

    fn delete_gap(&mut self, lane: Lane, last: u64) -> Result<(), R::Error> {
        self.rows.delete(lane, (last, last), |_| false)?;
        let state = &mut self.lanes[lane.index()];
        if let Some(gap) = state.gaps.remove(&last) {
            state.rows = state.rows.saturating_sub(1);
            state.bytes = state.bytes.saturating_sub(gap.bytes);
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeleteGaps {
    Yes,
    No,
}

/// What is known of the chain value at a sequence number.
enum Chain {
    Known(u64),
    /// A record is held there, and is not what was written.
    Damaged,
    /// It is no longer held, or a gap stands there.
    Unknown,
}

fn chain_at<R: Rows>(rows: &mut R, lane: &LaneState, seq: u64) -> Result<Chain, R::Error> {
    let marks = &lane.marks;
    Ok(match rows.get(lane.lane, seq)?.map(|record| (record.kind(), record.chain())) {
        Some((RecordKind::Event, chain)) => Chain::Known(chain),
        Some((RecordKind::Gap, _)) => Chain::Unknown,
        None if seq > 0 && seq == marks.watermark => Chain::Known(marks.chain),
        None if marks.trimmed < seq && seq < lane.next => Chain::Damaged,
        None => Chain::Unknown,
    })
}

/// A gap to be made.
pub(super) struct Gap {
    pub(super) range: (u64, u64),
    pub(super) count: Option<u64>,
    pub(super) reason: GapReason,
    pub(super) previous_store: Option<StoreId>,
    pub(super) chain: u64,
}

/// The record of a gap.
pub(super) fn gap(
    gateway: &GatewayId,
    stamps: &mut impl Stamps,
    lane: Lane,
    gap: Gap,
) -> Result<Record, JournalError> {
    let (from, to) = gap.range;
    let body = EventBody::JournalGap {
        from,
        to,
        count: gap.count,
        reason: gap.reason,
        previous_store: gap.previous_store,
    };
    let draft = Draft::new(&body, &stamps.moment(), &Cause::default())?.in_lane(lane);
    Ok(draft.into_gap(gateway, stamps.id()?, gap.range, gap.chain))
}
