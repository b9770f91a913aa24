//! The ledger's other half: what is deleted, and the gaps that stand for it.

use std::time::Duration;

use topics::{Lane, event::GapReason};

use super::{DeleteGaps, Gap, Ledger, Rows, Stamps};
use crate::journal::{
    lane::LaneState,
    store::{event_id, id_ms},
};

/// Rows trimmed for age in one commit: a long queue of old ones must not hold up what is new.
const TRIM_ROWS: u64 = 4096;
/// When the bound is reached, this part of it is freed at once, so that it is not reached again with
/// the next record, and one gap stands for many records.
const SLACK: u64 = 64;
/// Above this many gap rows in a lane, a new one swallows the one before it.
const GAP_ROWS: usize = 64;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most records.
    pub records: u64,
    /// The most bytes of them.
    pub bytes: u64,
}

impl Bounds {
    fn are_reached(self, lanes: &[LaneState; 4], slack: u64) -> bool {
        let keep = |max: u64| max - max / SLACK * slack;
        let rows: u64 = lanes.iter().map(|lane| lane.rows).sum();
        let bytes: u64 = lanes.iter().map(|lane| lane.bytes).sum();
        rows > keep(self.records) || bytes > keep(self.bytes)
    }
}

impl<R: Rows, S: Stamps> Ledger<'_, R, S> {
    /// Makes gaps for what was trimmed and is not acknowledged.
    pub(super) fn cover(&mut self, lane: Lane) -> Result<(), R::Error> {
        for (first, last) in self.lanes[lane.index()].uncovered() {
            let state = &self.lanes[lane.index()];
            let before = state.gaps.range(..first).next_back().map(|(&last, gap)| (last, *gap));
            let (watermark, watermark_chain) = (state.marks.watermark, state.marks.chain);
            let mut range = (first, last);
            if let Some((before_last, gap)) = before
                && state.gaps.len() >= GAP_ROWS
                && before_last + 1 == first
                && gap.first == watermark + 1
            {
                range.0 = gap.first;
                self.delete_gap(lane, before_last)?;
            }
            // For who reads the file: the bridge takes a gap whatever its chain.
            let follows_watermark = watermark + 1 == range.0;
            let before_chain = before.map_or(0, |(_, gap)| gap.chain);
            let chain = if follows_watermark { watermark_chain } else { before_chain };
            let gap = Gap {
                range,
                count: Some(range.1 - range.0 + 1),
                reason: GapReason::JournalFull,
                previous_store: None,
                chain,
            };
            self.insert_gap(lane, gap)?;
        }
        Ok(())
    }

    /// Deletes what is too much: acknowledged records first, then the oldest of the lowest lane.
    pub fn keep_bounds(&mut self, bounds: Bounds) -> Result<(), R::Error> {
        if !bounds.are_reached(self.lanes, 0) {
            return Ok(());
        }
        let lowest_first = || Lane::ALL.into_iter().rev();
        for lane in lowest_first() {
            let watermark = self.lanes[lane.index()].marks.watermark;
            self.free(lane, watermark, bounds)?;
        }
        for lane in lowest_first() {
            self.free(lane, u64::MAX, bounds)?;
            self.cover(lane)?;
        }
        Ok(())
    }

    /// Deletes from the front of a lane, to `last` at most, while the bounds are reached.
    fn free(&mut self, lane: Lane, last: u64, bounds: Bounds) -> Result<(), R::Error> {
        const STEP: u64 = 64;
        loop {
            let state = &self.lanes[lane.index()];
            let last = last.min(state.next.saturating_sub(2));
            let trimmed = state.marks.trimmed;
            if trimmed >= last || !bounds.are_reached(self.lanes, 1) {
                return Ok(());
            }
            let to = last.min(trimmed + STEP);
            self.delete_to(lane, to, DeleteGaps::No)?;
            self.changes.marks[lane.index()] = true;
        }
    }

    /// Deletes acknowledged records that are older than `retention`.
    pub fn trim_old(&mut self, retention: Duration) -> Result<(), R::Error> {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let now_ms = self.stamps.moment().timestamp.as_millis();
        let before_ms = now_ms.saturating_sub(retention_ms);
        for lane in Lane::ALL {
            let state = &self.lanes[lane.index()];
            let from = state.marks.trimmed + 1;
            let limit = state.marks.watermark.min(state.next.saturating_sub(2));
            let mut to = 0;
            self.rows.scan(lane, (from, from.saturating_add(TRIM_ROWS)), |seq, record| {
                let id = record.and_then(|record| event_id(&record));
                let goes = seq <= limit && id.is_none_or(|id| id_ms(id) < before_ms);
                to = if goes { seq } else { to };
                goes
            })?;
            if to >= from {
                self.delete_to(lane, to, DeleteGaps::No)?;
                self.changes.marks[lane.index()] = true;
            }
        }
        Ok(())
    }
}
