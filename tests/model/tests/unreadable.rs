//! A gateway that is newer than its bridge: one of its records can't be read there. Both real cores, their
//! frames as bytes, in simulated time.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::{collections::VecDeque, time::Duration};

use cloud_bridge::ingest::{
    cursor::Cursor,
    link::{Link, Output as Prepared},
};
use gateway::{
    journal::Heads,
    uplink::core::{Core, Input, LinkConfig, Now, Output},
};
use topics::{
    BootId, Clock, Draft, EventBody, EventId, GatewayId, Lane, Record, StoreId, Timestamp,
    UplinkState,
    link::{AgentInfo, Batch, Frame, Hello, LaneAck, LaneHello, Outcome, Probe},
    record::{Cause, Moment},
};

/// Where a frame of one record has the record's lane: behind the frame's header and the batch's, in the third
/// column.
const RECORD_LANE_AT: usize = 12 + 28 + 2;
/// One that is not there yet.
const NEW_LANE: u8 = 9;
const RECORDS: u64 = 60;
/// The one that an older bridge can't read.
const NEWER: u64 = 23;
const WALL_MS: i64 = 1_763_821_820_000;

fn gateway() -> GatewayId {
    "hq".parse().unwrap()
}

fn store() -> StoreId {
    StoreId::from_bytes([1; 16])
}

fn records() -> Vec<Record> {
    let mut chain = 0;
    let body =
        EventBody::ScanStarted { device_id: "device-001".parse().unwrap(), scan_id: "s".into() };
    (1..=RECORDS)
        .map(|seq| {
            let moment = Moment {
                timestamp: Timestamp::from_millis(WALL_MS),
                clock: Clock::Synced,
                boot: BootId::from_bytes([1; 16]),
                uptime_ms: seq,
            };
            let draft = Draft::new(&body, &moment, &Cause::default()).unwrap();
            let mut id = [0; 16];
            id[8..].copy_from_slice(&seq.to_be_bytes());
            let record = draft.into_record(&gateway(), EventId::from_bytes(id), seq, chain);
            chain = record.chain();
            record
        })
        .collect()
}

/// Both ends. What is sent arrives at once.
struct Ends {
    records: Vec<Record>,
    time: Duration,
    core: Core,
    link: Link,
    committed: Vec<Cursor>,
    /// The bridge reads what the gateway writes.
    is_updated: bool,
    down: VecDeque<Frame>,
    hellos: usize,
    unreadable: usize,
}

impl Ends {
    fn new() -> Self {
        // A record a frame, so that the others arrive.
        let config = LinkConfig { batch_records: 1, ..LinkConfig::default() };
        let now = Now { monotonic: Duration::ZERO, wall: Timestamp::from_millis(WALL_MS) };
        let mut ends = Self {
            records: records(),
            time: Duration::ZERO,
            core: Core::new(config, heads(), 7, now),
            link: Link::new(gateway()),
            committed: Vec::new(),
            is_updated: false,
            down: VecDeque::new(),
            hellos: 0,
            unreadable: 0,
        };
        ends.feed(Input::Tick);
        ends
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(WALL_MS).plus(self.time)
    }

    fn now(&self) -> Now {
        Now { monotonic: self.time, wall: self.wall() }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        loop {
            while let Some(input) = inputs.pop_front() {
                for output in self.core.step(self.now(), input) {
                    inputs.extend(self.output(output));
                }
            }
            let Some(frame) = self.down.pop_front() else { return };
            inputs.extend(self.heard(frame));
        }
    }

    /// What the gateway's driver does.
    fn output(&mut self, output: Output) -> Option<Input> {
        let frame = match output {
            Output::Connect => return Some(Input::Connected),
            Output::Hello { session } => {
                self.hellos += 1;
                Frame::Hello(self.hello(session))
            }
            Output::Resume { session, .. } => {
                return Some(Input::Resumed { session, heads: heads() });
            }
            Output::Read { spans, max_records, .. } => {
                let read = spans.iter().flat_map(|(lane, first, last)| {
                    let of_lane = self.records.iter().filter(|record| record.lane() == *lane);
                    of_lane
                        .filter(|record| (*first..=*last).contains(&record.seq()))
                        .take(max_records)
                });
                return Some(Input::Records(Some(read.cloned().collect())));
            }
            Output::Send { session, records } => {
                Frame::Batch(Batch { store: store(), session, records })
            }
            Output::Probe { session, nonce } => {
                Frame::Probe(Probe { session, nonce, readers: vec![], queued: 0 })
            }
            Output::Disconnect | Output::Acknowledge { .. } => return None,
            Output::Refork { .. } | Output::Command { .. } | Output::Received { .. } => {
                panic!("nothing leads to {output:?}")
            }
        };
        let mut bytes = frame.encode().unwrap();
        let is_newer = |record: &Record| record.seq() == NEWER;
        if matches!(&frame, Frame::Batch(batch) if batch.records.iter().any(is_newer))
            && !self.is_updated
        {
            assert_eq!(usize::from(bytes[RECORD_LANE_AT]), Lane::Events.index());
            bytes[RECORD_LANE_AT] = NEW_LANE;
        }
        self.arrive(&bytes);
        None
    }

    fn hello(&self, session: u64) -> Hello {
        let lanes = Lane::ALL.map(|lane| LaneHello {
            lane,
            oldest: 1,
            next: heads().next(lane),
            watermark: 0,
            chain: 0,
        });
        Hello {
            session,
            gateway: gateway(),
            store: store(),
            boot: BootId::from_bytes([1; 16]),
            uptime_ms: 1,
            wall: self.wall(),
            probe_ms: None,
            lanes: lanes.to_vec(),
            agent: AgentInfo::default(),
        }
    }

    /// What the bridge's engine does; each frame is a round.
    fn arrive(&mut self, bytes: &[u8]) {
        let now = self.wall();
        let outputs = match Frame::decode(bytes) {
            Ok(Frame::Hello(hello)) => self.link.hello(now, hello, self.committed.clone()),
            Ok(Frame::Batch(batch)) => self.link.batch(now, batch.into()),
            Ok(Frame::Probe(probe)) => self.link.probe(now, probe),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                self.unreadable += 1;
                self.link.unreadable(now, format!("update the bridge: {error}"))
            }
        };
        let mut is_acknowledged = false;
        for output in outputs {
            match output {
                Prepared::Cursors { cursors, .. } => {
                    self.committed = cursors;
                    is_acknowledged = true;
                }
                Prepared::Send(frame) => self.down.push_back(frame),
                Prepared::Store(_) | Prepared::Greeted { .. } | Prepared::Probed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if is_acknowledged {
            self.down.extend(self.link.ack(now));
        }
    }

    fn heard(&self, frame: Frame) -> Option<Input> {
        Some(match Frame::decode(&frame.encode().unwrap()).unwrap() {
            Frame::Resume(resume) => {
                let (session, bridge_now) = (resume.session, resume.now);
                match resume.outcome {
                    Outcome::Resume { lanes } => Input::Resume { session, lanes, bridge_now },
                    Outcome::Refused { reason } => Input::Refused { session, reason, bridge_now },
                    Outcome::Forked { reason } => panic!("{reason}"),
                }
            }
            Frame::Ack(ack) => {
                Input::Acked { session: ack.session, store: ack.store, lanes: ack.lanes }
            }
            Frame::AskHello(ask) => Input::AskHello { session: ask.session },
            Frame::Probed(probed) => Input::Probed {
                session: probed.session,
                nonce: probed.nonce,
                bridge_now: probed.now,
            },
            other => panic!("{other:?}"),
        })
    }

    fn pass(&mut self, time: Duration) {
        let until = self.time + time;
        while self.core.deadline() <= until {
            self.time = self.time.max(self.core.deadline());
            self.feed(Input::Tick);
        }
        self.time = until;
        self.feed(Input::Tick);
    }

    fn state(&self) -> UplinkState {
        self.core.state(self.now(), 1)
    }

    fn events(&self) -> LaneAck {
        self.committed[Lane::Events.index()].ack()
    }
}

fn heads() -> Heads {
    let mut next = [1; 4];
    next[Lane::Events.index()] = RECORDS + 1;
    Heads::of(next)
}

#[test]
fn a_record_that_the_bridge_cannot_read_is_said_and_tried_twice_a_minute_at_most() {
    let mut ends = Ends::new();
    let (mut said, minutes) = (0, 10);
    for _ in 0..minutes * 60 {
        ends.pass(Duration::from_secs(1));
        said += usize::from(matches!(ends.state(), UplinkState::Degraded { reason, .. }
            if reason.contains("update the bridge") && reason.contains("record field lane")));
        assert!(ends.link.is_live(ends.wall()), "the gateway is there all the time");
    }
    assert!(said > minutes * 60 * 9 / 10, "said in {said} of {} seconds", minutes * 60);
    assert!((10..=2 * minutes + 2).contains(&ends.unreadable), "tried {} times", ends.unreadable);
    assert!(ends.hellos <= 4 * minutes + 4, "{} hellos", ends.hellos);
    assert_eq!(ends.events().watermark, NEWER - 1, "what comes before it is stored");
    assert!(ends.committed[Lane::Events.index()].is_sound());

    // The bridge is updated.
    (ends.is_updated, ends.link) = (true, Link::new(gateway()));
    ends.pass(Duration::from_secs(60));
    let LaneAck { watermark, ranges, .. } = ends.events();
    assert_eq!((watermark, ranges.len()), (RECORDS, 0));
    assert!(matches!(ends.state(), UplinkState::Connected { .. }), "{:?}", ends.state());
    assert_eq!(ends.committed[Lane::Events.index()].stored, RECORDS, "each once");
}
