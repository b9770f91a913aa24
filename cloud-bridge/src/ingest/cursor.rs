//! What is committed of one lane of one journal: the whole of deduplication.
//!
//! ```text
//!   1 ............ watermark | hole | first..=last | hole | first..=last
//!   all accounted for          ?      a range        ?      a range
//! ```
//!
//! | a record that | is |
//! |---|---|
//! | lies within what is accounted for | a repeat: passed over |
//! | follows the watermark or a range, and continues its chain | taken |
//! | follows one, and doesn't continue its chain | a fork: another history under the same store id |
//! | starts a range beyond the 64th | left for later: not taken, not acknowledged |
//! | is a gap | taken, whatever its chain, for the numbers that it covers and nothing else does |
//!
//! Invariant: stored + set aside + lost = watermark + the numbers in ranges.
//!
//! The chain behind a gap is not known (the records it stands for are gone), so the record after a
//! gap is taken at its word; so is one that closes a hole, towards the range above it; so is a gap,
//! because what is right before it may be here as an event and a gap in the journal by now.

use serde::{Deserialize, Serialize};
use topics::{
    Lane, Record, RecordKind,
    link::{LaneAck, MAX_RANGES},
};

/// The cursor of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Which.
    pub lane: Lane,
    /// All up to here, it included, are accounted for.
    pub watermark: u64,
    /// The chain at the watermark; 0 where it is not known.
    pub chain: u64,
    /// Whether the record after the watermark must continue the chain.
    pub anchored: bool,
    /// Accounted for above the watermark, rising, not touching.
    pub ranges: Vec<Span>,
    /// Sequence numbers whose events are stored.
    pub stored: u64,
    /// Sequence numbers whose records were set aside as unusable.
    pub set_aside: u64,
    /// Sequence numbers that the gateway, or its absence, says are lost.
    pub lost: u64,
}

/// A range above the watermark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
    /// The chain at the last.
    pub chain: u64,
    /// Whether the record after it must continue the chain.
    pub anchored: bool,
}

/// What a record is to a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// To be stored: it accounts for this many numbers.
    New(u64),
    /// Already accounted for.
    Repeat,
    /// No room for another range.
    Later,
    /// It doesn't continue the chain before it.
    Fork,
}

impl Cursor {
    /// The cursor of a lane of which nothing is known.
    pub fn new(lane: Lane) -> Self {
        Self {
            lane,
            watermark: 0,
            chain: 0,
            anchored: true,
            ranges: Vec::new(),
            stored: 0,
            set_aside: 0,
            lost: 0,
        }
    }

    /// Takes a record, counting it as stored (an event) or lost (a gap).
    pub fn take(&mut self, record: &Record) -> Taken {
        let (first, last) = (record.first(), record.seq());
        let new = self.uncovered(first, last);
        if new == 0 {
            return Taken::Repeat;
        }
        if self.breaks_chain(record) {
            return Taken::Fork;
        }
        let gap = match record.kind() {
            RecordKind::Gap => true,
            RecordKind::Event => false,
        };
        let span = Span { first, last, chain: record.chain(), anchored: !gap };
        if !self.insert(span) {
            return Taken::Later;
        }
        if gap {
            self.lost += new
        } else {
            self.stored += new
        }
        Taken::New(new)
    }

    /// Moves one number from stored to set aside: its record turned out to be unusable.
    pub fn set_aside(&mut self) {
        self.stored = self.stored.saturating_sub(1);
        self.set_aside += 1;
    }

    /// The gateway no longer has anything below `oldest`: what is missing there is lost. Tells how
    /// many numbers that is.
    pub fn give_up_below(&mut self, oldest: u64) -> u64 {
        let Some(last) = oldest.checked_sub(1).filter(|last| *last > self.watermark) else {
            return 0;
        };
        let new = self.uncovered(self.watermark + 1, last);
        if new > 0 {
            // It touches the watermark, so it needs no range of its own.
            self.insert(Span { first: self.watermark + 1, last, chain: 0, anchored: false });
            self.lost += new;
        }
        new
    }

    /// What is told to the gateway.
    pub fn ack(&self) -> LaneAck {
        LaneAck {
            lane: self.lane,
            watermark: self.watermark,
            chain: self.chain,
            ranges: self.ranges.iter().map(|span| (span.first, span.last)).collect(),
        }
    }

    /// The highest number accounted for.
    pub fn top(&self) -> u64 {
        self.ranges.last().map_or(self.watermark, |span| span.last)
    }

    /// Whether the counts add up.
    pub fn is_sound(&self) -> bool {
        let sum =
            |numbers: &[u64]| numbers.iter().try_fold(0u64, |sum, &number| sum.checked_add(number));
        let mut before = self.watermark;
        let mut above = vec![self.watermark];
        for span in &self.ranges {
            // Rising, and not touching.
            if before.checked_add(1).is_none_or(|next| span.first <= next) || span.last < span.first
            {
                return false;
            }
            above.push((span.last - span.first).saturating_add(1));
            before = span.last;
        }
        let counted = sum(&[self.stored, self.set_aside, self.lost]);
        counted.is_some() && counted == sum(&above)
    }

    /// How many of `first..=last` are not accounted for.
    fn uncovered(&self, first: u64, last: u64) -> u64 {
        let overlap = |from: u64, to: u64| match (from.max(first), to.min(last)) {
            (from, to) if from <= to => to - from + 1,
            _ => 0,
        };
        let below = if self.watermark == 0 { 0 } else { overlap(1, self.watermark) };
        let above: u64 = self.ranges.iter().map(|span| overlap(span.first, span.last)).sum();
        (last - first + 1) - below - above
    }

    fn breaks_chain(&self, record: &Record) -> bool {
        match record.kind() {
            RecordKind::Event => {}
            // It was made where the journal did not know yet which of the records before it are here.
            RecordKind::Gap => return false,
        }
        let before = record.first() - 1;
        let link = if before == self.watermark {
            self.anchored.then_some(self.chain)
        } else {
            let span = self.ranges.iter().find(|span| span.last == before);
            span.and_then(|span| span.anchored.then_some(span.chain))
        };
        link.is_some_and(|chain| !record.continues(chain))
    }

    /// Adds a range and joins what touches; false where that would make too many.
    fn insert(&mut self, new: Span) -> bool {
        if self.ranges.is_empty() && new.first == self.watermark + 1 {
            (self.watermark, self.chain, self.anchored) = (new.last, new.chain, new.anchored);
            return true;
        }
        let mut spans = Vec::with_capacity(self.ranges.len() + 2);
        if self.watermark > 0 {
            let (chain, anchored) = (self.chain, self.anchored);
            spans.push(Span { first: 1, last: self.watermark, chain, anchored });
        }
        spans.extend(self.ranges.iter().cloned());
        let at = spans.partition_point(|span| span.first <= new.first);
        spans.insert(at, new);
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(before) if span.first <= before.last.saturating_add(1) => {
                    // The one that reaches further says what follows.
                    if span.last > before.last {
                        *before = Span { first: before.first, ..span };
                    }
                }
                _ => joined.push(span),
            }
        }
        let base = joined.first().filter(|span| span.first == 1).cloned();
        let above = joined.len() - usize::from(base.is_some());
        if above > MAX_RANGES {
            return false;
        }
        if let Some(base) = base {
            (self.watermark, self.chain, self.anchored) = (base.last, base.chain, base.anchored);
            joined.remove(0);
        }
        self.ranges = joined;
        true
    }
}
