//! The accounting of one lane. Pure: sets of sequence numbers and what follows from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use topics::{EventId, Lane, Record, RecordKind, link::LaneAck};

/// Sequence numbers from the first to the second, both included.
pub type Range = (u64, u64);

/// The accounting of a lane, as others may see it. At any time
/// `next - 1 = acknowledged + queued + dropped`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneView {
    /// Which.
    pub lane: Lane,
    /// The first sequence number that is held, as an event or within a gap; `next` when none is.
    pub oldest: u64,
    /// The next one to be given out.
    pub next: u64,
    /// The bridge has all up to here.
    pub watermark: u64,
    /// The chain value there, as the bridge told it; 0 for none.
    pub chain: u64,
    /// What the bridge has above it.
    pub ranges: Vec<(u64, u64)>,
    /// Events that the bridge has.
    pub acknowledged: u64,
    /// Events that it has not, and that are held.
    pub queued: u64,
    /// Sequence numbers that only a gap stands for.
    pub dropped: u64,
    /// Up to here the edge broker has them.
    pub edge_cursor: u64,
}

impl LaneView {
    /// Whether the bridge, which has what `acks` say, lacks what it had acknowledged: it was restored.
    pub fn is_ahead_of(&self, acks: &[LaneAck]) -> bool {
        let ack = acks.iter().find(|ack| ack.lane == self.lane);
        let (watermark, ranges) = ack.map_or((0, &[][..]), |ack| (ack.watermark, &ack.ranges[..]));
        let there = whole(1, watermark).into_iter().chain(ranges.iter().copied()).collect();
        let ours = whole(1, self.watermark).into_iter().chain(self.ranges.iter().copied());
        !subtract(normalise(ours.collect()), &normalise(there)).is_empty()
    }
}

/// What is written to `lanes.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Marks {
    pub trimmed: u64,
    pub watermark: u64,
    pub chain: u64,
    pub ranges: Vec<Range>,
    pub edge_cursor: u64,
}

/// A gap row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapRow {
    pub first: u64,
    pub chain: u64,
    pub id: Option<EventId>,
    pub bytes: u64,
}

/// A lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneState {
    pub lane: Lane,
    pub next: u64,
    /// Of the last record.
    pub chain: u64,
    pub marks: Marks,
    /// By the last sequence number covered.
    pub gaps: BTreeMap<u64, GapRow>,
    pub rows: u64,
    pub bytes: u64,
}

impl LaneState {
    pub fn new(lane: Lane, marks: Marks) -> Self {
        Self { lane, next: 1, chain: 0, marks, gaps: BTreeMap::new(), rows: 0, bytes: 0 }
    }

    /// Counts a row that is in the table now. Rows at the end move the head.
    pub fn count(&mut self, record: &Record, id: Option<EventId>) {
        let bytes = record.as_bytes().len() as u64;
        self.rows += 1;
        self.bytes += bytes;
        if record.kind() == RecordKind::Gap {
            let row = GapRow { first: record.first(), chain: record.chain(), id, bytes };
            self.gaps.insert(record.seq(), row);
        }
        if record.seq() >= self.next {
            self.next = record.seq() + 1;
            self.chain = record.chain();
        }
    }

    /// Where the last record is one that the bridge has, the next one continues what the bridge has there:
    /// a gap may stand for it here.
    pub(super) fn follow_the_bridge(&mut self) {
        if self.marks.watermark + 1 == self.next && self.marks.chain != 0 {
            self.chain = self.marks.chain;
        }
    }

    /// What the bridge has.
    pub fn acked(&self) -> Vec<Range> {
        let below = (self.marks.watermark > 0).then_some((1, self.marks.watermark));
        normalise(below.into_iter().chain(self.marks.ranges.iter().copied()).collect())
    }

    fn gap_ranges(&self) -> Vec<Range> {
        normalise(self.gaps.iter().map(|(&last, row)| (row.first, last)).collect())
    }

    /// Trimmed sequence numbers that the bridge has not and that no gap covers: gaps to be made.
    pub fn uncovered(&self) -> Vec<Range> {
        let trimmed = whole(1, self.marks.trimmed);
        subtract(subtract(trimmed, &self.acked()), &self.gap_ranges())
    }

    /// Takes down what the bridge has. `Err` says what can't be.
    pub fn acknowledge(&mut self, ack: &LaneAck, may_go_back: bool) -> Result<bool, String> {
        let highest = ack.ranges.iter().map(|range| range.1).max().unwrap_or(0).max(ack.watermark);
        if highest >= self.next {
            let next = self.next;
            return Err(format!("the bridge has {highest}, this journal's next is {next}"));
        }
        let before = self.marks.clone();
        let told = ack.ranges.iter().copied().filter(|&(first, last)| 0 < first && first <= last);
        let mut ranges: Vec<Range> = told.collect();
        let mut watermark = (ack.watermark, ack.chain);
        if !may_go_back {
            ranges.extend(self.marks.ranges.iter().copied());
            if ack.watermark < self.marks.watermark {
                watermark = (self.marks.watermark, self.marks.chain);
            }
        }
        (self.marks.watermark, self.marks.chain) = watermark;
        let above = self.marks.watermark;
        ranges.retain_mut(|range| {
            range.0 = range.0.max(above + 1);
            range.0 <= range.1
        });
        self.marks.ranges = normalise(ranges);
        Ok(self.marks != before)
    }

    /// The rows that there must be: one for each number that is held, and the gaps.
    pub(super) fn rows_by_numbers(&self) -> u64 {
        let held = whole(self.marks.trimmed + 1, self.next - 1);
        count(&subtract(held, &self.gap_ranges())) + self.gaps.len() as u64
    }

    pub fn oldest(&self) -> u64 {
        let held = self.marks.trimmed + 1;
        self.gaps.values().next().map_or(held, |gap| gap.first.min(held))
    }

    /// The first event that the bridge has not, and that is held.
    pub(super) fn first_queued(&self) -> Option<u64> {
        let held = subtract(whole(self.marks.trimmed + 1, self.next - 1), &self.gap_ranges());
        subtract(held, &self.acked()).first().map(|range| range.0)
    }

    pub fn view(&self) -> LaneView {
        let (acked, gaps) = (self.acked(), self.gap_ranges());
        let held = subtract(whole(self.marks.trimmed + 1, self.next - 1), &gaps);
        LaneView {
            lane: self.lane,
            oldest: self.oldest(),
            next: self.next,
            watermark: self.marks.watermark,
            chain: self.marks.chain,
            ranges: self.marks.ranges.clone(),
            acknowledged: count(&subtract(acked.clone(), &gaps)),
            queued: count(&subtract(held, &acked)),
            dropped: count(&gaps),
            edge_cursor: self.marks.edge_cursor,
        }
    }
}

pub(super) fn whole(first: u64, last: u64) -> Vec<Range> {
    if first <= last { vec![(first, last)] } else { Vec::new() }
}

pub(super) fn count(ranges: &[Range]) -> u64 {
    ranges.iter().map(|(first, last)| last - first + 1).sum()
}

/// Sorted, without overlaps, neighbours joined.
pub(super) fn normalise(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            Some(_) | None => joined.push((first, last)),
        }
    }
    joined
}

/// `from` without `holes`; both normalised.
pub(super) fn subtract(from: Vec<Range>, holes: &[Range]) -> Vec<Range> {
    let mut rest = Vec::with_capacity(from.len());
    for (mut first, last) in from {
        for &(hole_first, hole_last) in holes {
            if hole_last < first || hole_first > last {
                continue;
            }
            if hole_first > first {
                rest.push((first, hole_first - 1));
            }
            first = hole_last + 1;
        }
        if first <= last {
            rest.push((first, last));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(next: u64) -> LaneState {
        LaneState { next, ..LaneState::new(Lane::Events, Marks::default()) }
    }

    fn ack(watermark: u64, ranges: &[Range]) -> LaneAck {
        LaneAck { lane: Lane::Events, watermark, chain: watermark * 7, ranges: ranges.to_vec() }
    }

    #[test]
    fn sets() {
        assert_eq!(normalise(vec![(5, 6), (1, 2), (3, 3), (6, 9)]), [(1, 3), (5, 9)]);
        assert_eq!(subtract(vec![(1, 10)], &[(1, 2), (4, 4), (9, 12)]), [(3, 3), (5, 8)]);
        assert_eq!(subtract(vec![(3, 4)], &[(1, 9)]), []);
        assert_eq!(count(&[(1, 3), (7, 7)]), 4);
    }

    #[test]
    fn acknowledgements_add_up_and_never_go_back() {
        let mut lane = lane(101);
        assert_eq!(lane.acknowledge(&ack(10, &[(20, 30)]), false), Ok(true));
        assert_eq!(lane.acknowledge(&ack(5, &[(31, 40)]), false), Ok(true));
        assert_eq!((lane.marks.watermark, lane.marks.chain), (10, 70));
        assert_eq!(lane.marks.ranges, [(20, 40)]);
        assert_eq!(lane.acknowledge(&ack(10, &[(20, 30)]), false), Ok(false), "a repeat");
        assert_eq!(lane.view().queued, 100 - 10 - 21);
    }

    #[test]
    fn a_resume_may_go_back() {
        let mut lane = lane(101);
        lane.acknowledge(&ack(50, &[]), false).unwrap();
        lane.acknowledge(&ack(20, &[(30, 31)]), true).unwrap();
        assert_eq!((lane.marks.watermark, lane.marks.ranges.clone()), (20, vec![(30, 31)]));
        lane.marks.trimmed = 45;
        assert_eq!(lane.uncovered(), [(21, 29), (32, 45)], "no longer held, and the bridge asks");
    }

    #[test]
    fn a_bridge_that_was_restored_lacks_what_it_acknowledged() {
        let mut lane = lane(101);
        lane.acknowledge(&ack(50, &[(60, 70)]), false).unwrap();
        let is_ahead = |acks: &[LaneAck]| lane.view().is_ahead_of(acks);
        assert!(!is_ahead(&[ack(50, &[(60, 70)])]) && !is_ahead(&[ack(80, &[])]));
        assert!(is_ahead(&[]) && is_ahead(&[ack(49, &[])]) && is_ahead(&[ack(55, &[(61, 90)])]));
    }

    #[test]
    fn what_was_never_given_out_is_refused() {
        let mut lane = lane(11);
        let before = lane.clone();
        assert!(lane.acknowledge(&ack(11, &[]), true).is_err());
        assert!(lane.acknowledge(&ack(3, &[(9, 11)]), false).is_err());
        assert_eq!(lane, before);
        assert!(lane.acknowledge(&ack(10, &[]), false).is_ok());
    }
}
