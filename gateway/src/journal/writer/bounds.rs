//! The writer's other half: what is deleted, and the gaps that stand for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{ReadableTable as _, WriteTransaction};
use topics::{EventType, Lane, Record, event::GapReason};

use super::{Work, Writer, chain_at};
use crate::journal::{
    Attachment, Committed, clock,
    lane::LaneState,
    store::{self, Gap, State, event_id, id_ms, records},
};

/// How often acknowledged records are looked through for old ones.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Rows trimmed for age in one commit: a long queue of old ones must not hold up what is new.
const TRIM_ROWS: u64 = 4096;
/// When the bound is reached, this part of it is freed at once, so that it is not reached again with
/// the next record, and one gap stands for many records.
const SLACK: u64 = 64;
/// Above this many gap rows in a lane, a new one swallows the one before it.
const GAP_ROWS: usize = 64;

impl Writer {
    /// Makes gaps for what was trimmed and is not acknowledged.
    pub(super) fn cover(
        &mut self,
        transaction: &WriteTransaction,
        lane: Lane,
        work: &mut Work,
    ) -> Result<(), redb::Error> {
        for (first, last) in work.state.lane(lane).uncovered() {
            let state = work.state.lane_mut(lane);
            let before = state.gaps.range(..first).next_back().map(|(&last, gap)| (last, *gap));
            let (watermark, watermark_chain) = (state.marks.watermark, state.marks.chain);
            let mut range = (first, last);
            if let Some((before_last, gap)) = before
                && state.gaps.len() >= GAP_ROWS
                && before_last + 1 == first
                && gap.first == watermark + 1
            {
                range.0 = gap.first;
                delete_gap(transaction, state, before_last)?;
            }
            // The bridge checks that a gap continues what it has right before it.
            let ends = work.chains.get(&(lane, range.0 - 1)).copied();
            let chain = match ends {
                _ if watermark + 1 == range.0 => watermark_chain,
                Some(chain) => chain,
                None => before.map_or(0, |(_, gap)| gap.chain),
            };
            let gap = Gap {
                range,
                count: Some(range.1 - range.0 + 1),
                reason: GapReason::JournalFull,
                previous_store: None,
                chain,
            };
            self.insert_gap(transaction, lane, gap, work)?;
        }
        Ok(())
    }

    pub(super) fn insert_gap(
        &mut self,
        transaction: &WriteTransaction,
        lane: Lane,
        gap: Gap,
        work: &mut Work,
    ) -> Result<(), redb::Error> {
        let (first, last) = gap.range;
        let record = store::gap(&self.config, &mut self.ids, lane, gap)
            .map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
        transaction.open_table(records(lane))?.insert(last, record.as_bytes())?;
        let state = work.state.lane_mut(lane);
        state.count(&record, event_id(&record));
        if last + 1 == state.next {
            state.chain = record.chain();
        }
        work.dirty = true;
        tracing::error!(%lane, first, last, "a gap stands for records that the bridge has not acknowledged");
        let event = EventType::JournalGap;
        work.told.push(Arc::new(Committed::new(record, event, Attachment::default())));
        Ok(())
    }

    /// Deletes what is too old or too much.
    pub(super) fn keep_bounds(
        &mut self,
        transaction: &WriteTransaction,
        work: &mut Work,
    ) -> Result<(), redb::Error> {
        if self.trimmed_at.elapsed() >= TRIM_INTERVAL {
            self.trimmed_at = Instant::now();
            self.trim_old(transaction, work)?;
        }
        let (max_records, max_bytes) = (self.config.max_records, self.config.max_bytes);
        let full = |state: &State, slack: u64| {
            let keep = |max: u64| max - max / SLACK * slack;
            state.rows() > keep(max_records) || state.bytes() > keep(max_bytes)
        };
        if !full(&work.state, 0) {
            return Ok(());
        }
        let lowest_first = || Lane::ALL.into_iter().rev();
        for lane in lowest_first() {
            let watermark = work.state.lane(lane).marks.watermark;
            self.free(transaction, lane, watermark, work, |state| full(state, 1))?;
        }
        for lane in lowest_first() {
            self.free(transaction, lane, u64::MAX, work, |state| full(state, 1))?;
            self.cover(transaction, lane, work)?;
        }
        Ok(())
    }

    /// Deletes from the front of a lane, to `last` at most, while `more` says so.
    fn free(
        &self,
        transaction: &WriteTransaction,
        lane: Lane,
        last: u64,
        work: &mut Work,
        more: impl Fn(&State) -> bool,
    ) -> Result<(), redb::Error> {
        const STEP: u64 = 64;
        loop {
            let state = work.state.lane(lane);
            let last = last.min(state.next.saturating_sub(2));
            let trimmed = state.marks.trimmed;
            if trimmed >= last || !more(&work.state) {
                return Ok(());
            }
            let to = last.min(trimmed + STEP);
            self.note_range_ends(transaction, lane, to, work)?;
            delete_to(transaction, work.state.lane_mut(lane), to, DeleteGaps::No)?;
            work.marks[lane.index()] = true;
        }
    }

    /// Before records up to `to` are deleted: what a gap right behind an acknowledged range continues.
    fn note_range_ends(
        &self,
        transaction: &WriteTransaction,
        lane: Lane,
        to: u64,
        work: &mut Work,
    ) -> Result<(), redb::Error> {
        let state = work.state.lane(lane);
        let from = state.marks.trimmed + 1;
        let ends = state.marks.ranges.iter().map(|range| range.1);
        for end in ends.filter(|end| (from..=to).contains(end)) {
            if let Some(chain) = chain_at(transaction, state, end)? {
                work.chains.insert((lane, end), chain);
            }
        }
        Ok(())
    }

    fn trim_old(&self, transaction: &WriteTransaction, work: &mut Work) -> Result<(), redb::Error> {
        let retention_ms = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        let before_ms = clock::now().as_millis().saturating_sub(retention_ms);
        for lane in Lane::ALL {
            let state = work.state.lane(lane);
            let from = state.marks.trimmed + 1;
            let limit = state.marks.watermark.min(state.next.saturating_sub(2));
            let mut to = 0;
            {
                let table = transaction.open_table(records(lane))?;
                for row in table.range(from..from.saturating_add(TRIM_ROWS))? {
                    let (seq, value) = row?;
                    let record = Record::read(value.value()).ok();
                    let id = record.and_then(|record| event_id(&record));
                    if seq.value() > limit || id.is_some_and(|id| id_ms(id) >= before_ms) {
                        break;
                    }
                    to = seq.value();
                }
            }
            if to >= from {
                delete_to(transaction, work.state.lane_mut(lane), to, DeleteGaps::No)?;
                work.marks[lane.index()] = true;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeleteGaps {
    Yes,
    No,
}

/// Deletes the rows of a lane up to `last`.
pub(super) fn delete_to(
    transaction: &WriteTransaction,
    lane: &mut LaneState,
    last: u64,
    gaps: DeleteGaps,
) -> Result<(), redb::Error> {
    let from = if gaps == DeleteGaps::Yes { 0 } else { lane.marks.trimmed + 1 };
    let mut table = transaction.open_table(records(lane.lane))?;
    let (mut rows, mut bytes) = (0, 0);
    table.retain_in(from..=last, |seq, value| {
        let keep = gaps == DeleteGaps::No && lane.gaps.contains_key(&seq);
        if !keep {
            rows += 1;
            bytes += value.len() as u64;
        }
        keep
    })?;
    if gaps == DeleteGaps::Yes {
        lane.gaps.retain(|&seq, _| seq > last);
    }
    lane.rows -= rows;
    lane.bytes -= bytes;
    lane.marks.trimmed = lane.marks.trimmed.max(last);
    Ok(())
}

fn delete_gap(
    transaction: &WriteTransaction,
    lane: &mut LaneState,
    last: u64,
) -> Result<(), redb::Error> {
    transaction.open_table(records(lane.lane))?.remove(last)?;
    if let Some(gap) = lane.gaps.remove(&last) {
        lane.rows -= 1;
        lane.bytes -= gap.bytes;
    }
    Ok(())
}
