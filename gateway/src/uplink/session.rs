//! What a session knows: per lane what the bridge has and what is in flight, and so what is missing.

use std::time::Duration;

use topics::{
    Lane, Record, UplinkState,
    link::{LaneAck, MAX_RANGES},
};

use super::{
    core::{LinkConfig, Now},
    pace::Pace,
    spans::{Spans, lowest_missing},
};
use crate::journal::{Heads, event_id};

/// What the rate of a backlog is measured over, at least.
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Of a batch that can't hold all, each lower lane with something to send has this part.
const SHARE: usize = 8;
/// Ranges that are left to the bridge for what is lost on the way.
const SPARE_RANGES: usize = 8;

/// What is known within a session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) lanes: [LaneLink; 4],
    pub(super) flights: Vec<Flight>,
    pub(super) pace: Pace,
    /// A read is under way.
    pub(super) reading: Option<Reading>,
    pub(super) probe: Probing,
    /// Live batches since the backlog had one.
    pub(super) live_in_a_row: u32,
    /// When the bridge said something last.
    pub(super) heard: Duration,
    pub(super) progress: Progress,
    /// Reads that failed hold the next one until then.
    pub(super) read_after: Duration,
}

/// A lane within a session.
#[derive(Debug, Default)]
pub(super) struct LaneLink {
    pub(super) ack: Option<LaneAck>,
    /// What the bridge has.
    pub(super) stored: Spans,
    pub(super) in_flight: Spans,
    /// Up to here, exclusive, it was there when the session began.
    pub(super) live_from: u64,
}

/// A batch under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) spans: Vec<(Lane, u64, u64)>,
    pub(super) live: bool,
    pub(super) bytes: usize,
    pub(super) sent: Duration,
    pub(super) until: Duration,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) spans: Vec<(Lane, u64, u64)>,
    pub(super) live: bool,
    /// Bytes for its batch.
    pub(super) room: usize,
}

#[derive(Debug)]
pub(super) struct Probing {
    pub(super) nonce: u64,
    pub(super) next: Duration,
    /// When the last one went.
    pub(super) asked: Now,
    /// It told of records that the bridge did not have.
    pub(super) told_queue: bool,
    pub(super) answered: Option<Duration>,
    /// Why the last one could not be sent.
    pub(super) failed: Option<String>,
    pub(super) lost: u32,
    pub(super) waiting: bool,
    /// It has waited for so long that the link is not what it should be.
    pub(super) overdue: bool,
}

/// How fast the bridge takes what is sent.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) since: Duration,
    /// Records acknowledged since then.
    pub(super) landed: u64,
    pub(super) per_second: Option<u64>,
}

impl Probing {
    /// When the answer is late, unless that is known already.
    pub(super) fn overdue_at(&self, interval: Duration) -> Option<Duration> {
        (self.waiting && !self.overdue).then(|| self.asked.monotonic + interval / 2)
    }
}

impl LaneLink {
    pub(super) fn store(&mut self, ack: LaneAck) {
        self.stored.insert(1, ack.watermark);
        for &(first, last) in &ack.ranges {
            self.stored.insert(first, last);
        }
        if self.ack.as_ref().is_none_or(|before| before.watermark <= ack.watermark) {
            self.ack = Some(ack);
        }
    }

    /// The lowest missing of what came since the session began.
    pub(super) fn live_missing(&self, next: u64) -> Option<(u64, u64)> {
        let ranges = self.ack.as_ref().map_or(0, |ack| ack.ranges.len());
        let crowded = ranges + SPARE_RANGES >= MAX_RANGES && self.backlog_missing().is_some();
        if crowded {
            return None;
        }
        lowest_missing(&self.stored, &self.in_flight, self.live_from, next - 1)
    }

    pub(super) fn backlog_missing(&self) -> Option<(u64, u64)> {
        lowest_missing(&self.stored, &self.in_flight, 1, self.live_from - 1)
    }
}

impl Session {
    /// How the link is, while there is a session.
    pub(super) fn state(&self, now: Now, queued: u64, interval: Duration) -> UplinkState {
        let degraded = |reason: String| UplinkState::Degraded { queued, reason };
        let probe = &self.probe;
        if let Some(reason) = &probe.failed {
            return degraded(format!("the journal did not take a probe: {reason}"));
        }
        let Some(answered) = probe.answered else {
            return degraded("the bridge answered, its store not yet".to_owned());
        };
        // On a slow line an answer may stand behind batches whose acknowledgements come.
        let is_heard = now.monotonic.saturating_sub(self.heard) < interval;
        if probe.overdue && !(is_heard && self.has_backlog()) {
            let silent = now.monotonic.saturating_sub(answered).as_secs();
            return degraded(format!("the bridge has not answered a probe for {silent} s"));
        }
        if !self.has_backlog() {
            return UplinkState::Connected { queued };
        }
        let per_second = self.progress.per_second;
        let seconds_left = per_second.filter(|rate| *rate > 0).map(|rate| queued.div_ceil(rate));
        UplinkState::CatchingUp { queued, oldest_seconds: None, per_second, seconds_left }
    }

    /// Takes the rate of the last seconds.
    pub(super) fn measure(&mut self, monotonic: Duration) {
        let Progress { since, landed, per_second } = &mut self.progress;
        let window = monotonic.saturating_sub(*since);
        if window < RATE_WINDOW {
            return;
        }
        *per_second = Some((*landed as f64 / window.as_secs_f64()).round() as u64);
        (*since, *landed) = (monotonic, 0);
    }

    pub(super) fn live_spans(&self, heads: Heads) -> Vec<(Lane, u64, u64)> {
        let lanes = Lane::ALL.into_iter().zip(&self.lanes);
        lanes
            .filter_map(|(lane, link)| {
                let (first, last) = link.live_missing(heads.next(lane))?;
                Some((lane, first, last))
            })
            .collect()
    }

    /// The backlog's next, of the highest lane that has one; last of all, live records of a lane
    /// with too many ranges.
    pub(super) fn backlog_span(&self, heads: Heads) -> Option<(Lane, u64, u64)> {
        let lanes = || Lane::ALL.into_iter().zip(&self.lanes);
        lanes().find_map(|(lane, link)| link.backlog_missing().map(|(f, l)| (lane, f, l))).or_else(
            || {
                lanes().find_map(|(lane, link)| {
                    let last = heads.next(lane) - 1;
                    let missing = lowest_missing(&link.stored, &link.in_flight, 1, last);
                    missing.map(|(f, l)| (lane, f, l))
                })
            },
        )
    }

    pub(super) fn has_backlog(&self) -> bool {
        self.flights.iter().any(|flight| !flight.live)
            || self.lanes.iter().any(|link| link.backlog_missing().is_some())
    }

    /// Whether the bridge has all that there is.
    pub(super) fn has_all(&self, heads: Heads) -> bool {
        let mut lanes = Lane::ALL.into_iter().zip(&self.lanes);
        lanes.all(|(lane, link)| match heads.next(lane) - 1 {
            0 => true,
            last => link.stored.holds_all(1, last),
        })
    }

    /// Bytes for the next live batch, if one may go. The backlog is not in its way.
    pub(super) fn live_room(&self, config: &LinkConfig) -> Option<usize> {
        let live = self.flights.iter().filter(|flight| flight.live);
        let room = self.pace.room(live.map(|flight| flight.bytes).sum())?;
        Some(room.min(config.batch_bytes))
    }

    /// The same for the backlog, which uses what live batches leave.
    pub(super) fn backlog_room(&self, config: &LinkConfig) -> Option<usize> {
        if !self.takes_backlog(config) {
            return None;
        }
        let room = self.pace.room(self.bytes_in_flight())?;
        Some(room.min(config.batch_bytes))
    }

    /// Whether some of the backlog is neither there nor under way.
    pub(super) fn lacks_backlog(&self) -> bool {
        self.lanes.iter().any(|link| link.backlog_missing().is_some())
    }

    /// Whether another batch of the backlog may be under way.
    pub(super) fn takes_backlog(&self, config: &LinkConfig) -> bool {
        self.flights.iter().filter(|flight| !flight.live).count() < config.backlog_window
    }

    fn bytes_in_flight(&self) -> usize {
        self.flights.iter().map(|flight| flight.bytes).sum()
    }

    /// Batches whose records are all stored are no longer in flight.
    pub(super) fn land_stored(&mut self, monotonic: Duration) {
        let (lanes, in_flight) = (&self.lanes, self.bytes_in_flight());
        let is_stored = |flight: &mut Flight| {
            let mut spans = flight.spans.iter();
            spans.all(|&(lane, first, last)| lanes[lane.index()].stored.holds_all(first, last))
        };
        for flight in self.flights.extract_if(.., is_stored) {
            self.pace.landed(flight.bytes, in_flight, flight.sent, monotonic);
            let records = flight.spans.iter().map(|(_, first, last)| last - first + 1);
            self.progress.landed += records.sum::<u64>();
        }
        self.recount();
    }

    /// Batches that nobody acknowledged in time are taken for lost.
    pub(super) fn land_late(&mut self, monotonic: Duration) {
        let mut late = false;
        for flight in self.flights.extract_if(.., |flight| flight.until <= monotonic) {
            self.pace.lost(flight.sent, monotonic);
            late = true;
        }
        if late {
            self.recount();
        }
    }

    pub(super) fn recount(&mut self) {
        for link in &mut self.lanes {
            link.in_flight = Spans::default();
        }
        for flight in &self.flights {
            for &(lane, first, last) in &flight.spans {
                self.lanes[lane.index()].in_flight.insert(first, last);
            }
        }
    }
}

/// As many as fit into `room` bytes, in order of event id; each lane stays in order of its numbers also
/// where ids don't follow them (gaps). Where not all fit, higher lanes go first, but for the share of each
/// lower one, at least one record: a command's result doesn't wait behind telemetry, and telemetry doesn't
/// wait for ever.
pub(super) fn select(records: Vec<Record>, room: usize, config: &LinkConfig) -> Vec<Record> {
    let mut lanes: [Vec<Record>; 4] = Default::default();
    for record in records {
        lanes[record.lane().index()].push(record);
    }
    let bytes_of = |record: Option<&Record>| record.map_or(0, |record| record.as_bytes().len());
    let share = (room / SHARE, config.batch_records / SHARE);
    let (mut bytes, mut count) = (0, 0);
    let mut taken = [0; 4];
    // Each takes what the lower ones' shares leave; then what these did not need.
    for (share_bytes, share_records) in [share, (0, 0)] {
        for at in 0..lanes.len() {
            let lower = || lanes[at + 1..].iter().filter(|lane| !lane.is_empty());
            let kept_bytes = share_bytes * lower().count();
            let kept_records = share_records * lower().count();
            let firsts: usize = lower().map(|lane| bytes_of(lane.first())).sum();
            while let Some(record) = lanes[at].get(taken[at]) {
                let with = bytes + record.as_bytes().len();
                let is_room =
                    with + kept_bytes <= room && count + kept_records < config.batch_records;
                // Whatever its size, within the frame's bound.
                let is_due = taken[at] == 0 && with + firsts <= config.batch_bytes;
                let goes = count == 0 || is_room || is_due;
                if !goes || count >= config.batch_records {
                    break;
                }
                (bytes, count) = (with, count + 1);
                taken[at] += 1;
            }
        }
    }
    let mut keyed: Vec<_> = Vec::new();
    for (lane, taken) in lanes.into_iter().zip(taken) {
        let mut newest = None;
        for record in lane.into_iter().take(taken) {
            newest = newest.max(event_id(&record));
            keyed.push((newest, record));
        }
    }
    keyed.sort_by_key(|(id, _)| *id);
    keyed.into_iter().map(|(_, record)| record).collect()
}
