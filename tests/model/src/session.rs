//! What a session sends, held against what is claimed: order, live first, the window.

use std::{collections::HashSet, time::Duration};

use gateway::{
    journal::{Heads, event_id},
    uplink::{
        LinkConfig,
        core::{Input, LIVE_IN_A_ROW},
    },
};
use topics::{Lane, Record, RecordKind, link::LaneAck};

/// Above so many ranges a lane's live records may wait with the backlog.
const CROWDED_RANGES: usize = 40;

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    config: LinkConfig,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    id: u64,
    /// What came before is backlog.
    began: Heads,
    /// As the core was told.
    known: Heads,
    lanes: [Sent; 4],
    flights: Vec<Flight>,
    /// Live batches since the last one of the backlog.
    live_in_a_row: u32,
}

#[derive(Debug, Default)]
struct Sent {
    /// The highest event sent so far, of the backlog and of what is live.
    highest: [u64; 2],
    sent: HashSet<u64>,
    stored: Vec<bool>,
    ranges: usize,
}

#[derive(Debug)]
struct Flight {
    spans: Vec<(Lane, u64, u64)>,
    backlog: bool,
    bytes: usize,
    until: Duration,
}

impl Watch {
    pub(crate) fn new(config: LinkConfig) -> Self {
        Self { config, session: None }
    }

    pub(crate) fn begin(&mut self, id: u64, heads: Heads) {
        let lanes = Default::default();
        let (flights, live_in_a_row) = (Vec::new(), 0);
        self.session =
            Some(Session { id, began: heads, known: heads, lanes, flights, live_in_a_row });
    }

    pub(crate) fn end(&mut self) {
        self.session = None;
    }

    /// What the core is about to be told.
    pub(crate) fn before(&mut self, now: Duration, input: &Input) {
        let Some(session) = &mut self.session else { return };
        match input {
            Input::Heads(heads) => session.known = *heads,
            Input::Acked { session: id, lanes, .. } if *id == session.id => session.acked(lanes),
            _ => {}
        }
        session.flights.retain(|flight| flight.until > now);
    }

    /// A batch goes.
    pub(crate) fn sent(&mut self, now: Duration, id: u64, records: &[Record]) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == id) else {
            panic!("session {id} sends, and was not begun");
        };
        assert!(!records.is_empty(), "an empty batch");
        check_batch(records, &self.config);
        session.flights.retain(|flight| flight.until > now);
        let backlog = records.iter().any(|record| record.seq() < session.began.next(record.lane()));
        if backlog {
            session.check_live_first();
            session.live_in_a_row = 0;
        } else {
            session.live_in_a_row += 1;
        }
        for record in records {
            session.check_order(record);
        }
        session.flights.push(Flight {
            spans: records.iter().map(|it| (it.lane(), it.first(), it.seq())).collect(),
            backlog,
            bytes: records.iter().map(|record| record.as_bytes().len()).sum(),
            until: now + self.config.resend_after,
        });
        session.check_window(&self.config);
    }
}

impl Session {
    fn acked(&mut self, acks: &[LaneAck]) {
        for ack in acks {
            let lane = &mut self.lanes[ack.lane.index()];
            lane.ranges = lane.ranges.max(ack.ranges.len());
            let below = (ack.watermark > 0).then_some((1, ack.watermark));
            for (first, last) in below.into_iter().chain(ack.ranges.iter().copied()) {
                if lane.stored.len() < last as usize {
                    lane.stored.resize(last as usize, false);
                }
                lane.stored[first as usize - 1..last as usize].fill(true);
            }
        }
        let lanes = &self.lanes;
        self.flights.retain(|flight| {
            !flight.spans.iter().all(|&(lane, first, last)| {
                let stored = &lanes[lane.index()].stored;
                let range = stored.get(first as usize - 1..last as usize);
                range.is_some_and(|range| range.iter().all(|stored| *stored))
            })
        });
    }

    /// A backlog batch goes: no live record that the core knows is still to be sent, or so many went
    /// before it that it is the backlog's turn.
    fn check_live_first(&self) {
        let waiting = Lane::ALL.into_iter().find(|&lane| {
            let sent = &self.lanes[lane.index()];
            let next = self.known.next(lane);
            next > self.began.next(lane)
                && sent.ranges < CROWDED_RANGES
                && sent.highest[1].max(self.stored_to(lane)) < next - 1
        });
        assert!(
            waiting.is_none() || self.live_in_a_row >= LIVE_IN_A_ROW,
            "the backlog goes before a live record of {waiting:?}, after {} live batches",
            self.live_in_a_row
        );
    }

    fn stored_to(&self, lane: Lane) -> u64 {
        let stored = &self.lanes[lane.index()].stored;
        stored.iter().rposition(|stored| *stored).map_or(0, |index| index as u64 + 1)
    }

    /// What goes for the first time is in order, backlog and live apart.
    fn check_order(&mut self, record: &Record) {
        let (lane, seq) = (record.lane(), record.seq());
        let live = usize::from(seq >= self.began.next(lane));
        let sent = &mut self.lanes[lane.index()];
        if record.kind() == RecordKind::Event
            && sent.sent.insert(seq)
            && sent.ranges < CROWDED_RANGES
        {
            let highest = &mut sent.highest[live];
            assert!(seq > *highest, "{record:?} goes first after {highest}");
        }
        let highest = &mut sent.highest[live];
        *highest = (*highest).max(seq);
    }

    /// What a live record can wait behind at the bridge's door.
    fn check_window(&self, config: &LinkConfig) {
        assert!(self.flights.len() <= config.window, "{} batches", self.flights.len());
        let backlog = || self.flights.iter().filter(|flight| flight.backlog);
        assert!(backlog().count() <= config.backlog_window, "{} of backlog", backlog().count());
        let bytes: usize = backlog().map(|flight| flight.bytes).sum();
        let most = config.backlog_window * config.batch_bytes;
        // A record that is larger than what is left goes alone.
        let largest = backlog().map(|flight| flight.bytes).max().unwrap_or(0);
        assert!(bytes <= most + largest, "{bytes} bytes of backlog, {most} allowed");
    }
}

/// Each lane rises, and all together are in order of event id, gaps aside.
fn check_batch(records: &[Record], config: &LinkConfig) {
    let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
    assert!(records.len() == 1 || bytes <= config.batch_bytes, "a batch of {bytes} bytes");
    assert!(records.len() <= config.batch_records);
    let mut last = [0; 4];
    for record in records {
        let last = &mut last[record.lane().index()];
        assert!(record.first() > *last, "{record:?} after {last}");
        *last = record.seq();
    }
    if records.iter().all(|record| record.kind() == RecordKind::Event) {
        let ids: Vec<_> = records.iter().map(event_id).collect();
        assert!(ids.is_sorted(), "not in order of event id: {records:?}");
    }
}
