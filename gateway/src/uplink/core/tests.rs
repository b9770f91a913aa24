use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use topics::{
    Draft, EventBody, EventIds, GatewayId,
    event::ServiceState,
    link::MAX_RANGES,
    record::{Cause, Moment},
};

use super::*;
use crate::journal::event_id;

const WALL_MS: i64 = 1_763_821_820_000;

fn gateway() -> GatewayId {
    "hq-lobby".parse().unwrap()
}

/// A journal, a network and a bridge, and the core between them.
struct World {
    core: Core,
    config: LinkConfig,
    monotonic: Duration,
    lanes: [Vec<Record>; 4],
    ids: EventIds,
    reachable: bool,
    connected: bool,
    up: VecDeque<Up>,
    down: VecDeque<Input>,
    bridge_session: Option<u64>,
    stored: [BTreeSet<u64>; 4],
    /// As the bridge stored them.
    told: Vec<Record>,
    /// Batches in the order sent.
    sent: Vec<Vec<Record>>,
    commands: Vec<CommandId>,
}

#[derive(Debug, Clone)]
enum Up {
    Hello(u64),
    Batch(u64, Vec<Record>),
    Probe(u64, u64),
}

impl World {
    fn new(config: LinkConfig) -> Self {
        let now = Now { monotonic: Duration::ZERO, wall: Timestamp::from_millis(WALL_MS) };
        Self {
            core: Core::new(config.clone(), Heads::of([1; 4]), 7, now),
            config,
            monotonic: Duration::ZERO,
            lanes: Default::default(),
            ids: EventIds::default(),
            reachable: true,
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            bridge_session: None,
            stored: Default::default(),
            told: Vec::new(),
            sent: Vec::new(),
            commands: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_millis(WALL_MS).plus(self.monotonic);
        Now { monotonic: self.monotonic, wall }
    }

    fn heads(&self) -> Heads {
        Heads::of(std::array::from_fn(|lane| self.lanes[lane].len() as u64 + 1))
    }

    fn append(&mut self, lane: Lane, count: usize) {
        for _ in 0..count {
            let status = ServiceState::Running;
            let body = EventBody::ServiceStatus { status, uptime: 1, version: "0".into() };
            let moment = Moment {
                timestamp: self.now().wall,
                clock: topics::Clock::Synced,
                boot: topics::BootId::from_bytes([1; 16]),
                uptime_ms: 1,
            };
            let draft = Draft::new(&body, &moment, &Cause::default()).unwrap().in_lane(lane);
            let id = self.ids.next(self.now().wall, 0);
            let rows = &mut self.lanes[lane.index()];
            let chain = rows.last().map_or(0, Record::chain);
            rows.push(draft.into_record(&gateway(), id, rows.len() as u64 + 1, chain));
        }
        self.input(Input::Heads(self.heads()));
    }

    fn input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.core.step(self.now(), input) {
                match output {
                    Output::Connect if self.reachable => {
                        self.connected = true;
                        inputs.push_back(Input::Connected);
                    }
                    Output::Connect => {
                        inputs.push_back(Input::Disconnected { reason: "unreachable".into() });
                    }
                    Output::Disconnect => self.cut(),
                    Output::Hello { session } => self.up.push_back(Up::Hello(session)),
                    Output::Resume { session, .. } => {
                        inputs.push_back(Input::Resumed { session, heads: self.heads() });
                    }
                    Output::Refork { .. } => inputs
                        .push_back(Input::Reforked { store: Some(StoreId::from_bytes([2; 16])) }),
                    Output::Read { spans, max_records, .. } => {
                        let records = spans.iter().flat_map(|&(lane, first, last)| {
                            let rows = &self.lanes[lane.index()][first as usize - 1..last as usize];
                            rows.iter().take(max_records).cloned()
                        });
                        inputs.push_back(Input::Records(Some(records.collect())));
                    }
                    Output::Send { session, records } => {
                        self.sent.push(records.clone());
                        self.up.push_back(Up::Batch(session, records));
                    }
                    Output::Probe { session, nonce } => {
                        self.up.push_back(Up::Probe(session, nonce));
                    }
                    Output::Command { command, .. } => {
                        self.commands.push(command.id.clone());
                        let (session, id) = (command.session, command.id);
                        inputs.push_back(Input::CommandStored { session, id });
                    }
                    Output::Acknowledge { lanes, .. } => {
                        for ack in lanes {
                            let stored = &self.stored[ack.lane.index()];
                            assert!((1..=ack.watermark).all(|seq| stored.contains(&seq)));
                        }
                    }
                    Output::Received { .. } => {}
                }
            }
        }
        if let Phase::Live(session) = &self.core.phase {
            assert!(session.flights.len() <= self.config.window);
        }
    }

    fn cut(&mut self) {
        self.connected = false;
        self.up.clear();
        self.down.clear();
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.cut();
            self.input(Input::Disconnected { reason: "cut".into() });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.monotonic += time;
        self.input(Input::Tick);
    }

    fn acks(&self) -> Vec<LaneAck> {
        let ack = |lane: Lane| {
            let stored = &self.stored[lane.index()];
            let watermark = (1..).take_while(|seq| stored.contains(seq)).last().unwrap_or(0);
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for &seq in stored.range(watermark + 1..) {
                match ranges.last_mut() {
                    Some(range) if range.1 + 1 == seq => range.1 = seq,
                    _ => ranges.push((seq, seq)),
                }
            }
            LaneAck { lane, watermark, chain: 0, ranges }
        };
        Lane::ALL.into_iter().map(ack).collect()
    }

    fn bridge_takes(&mut self, up: Up) {
        let bridge_now = self.now().wall.plus(Duration::from_millis(1234));
        match up {
            Up::Hello(session) => {
                self.bridge_session = Some(session);
                let lanes = self.acks();
                self.down.push_back(Input::Resume { session, lanes, bridge_now });
            }
            Up::Batch(session, _) | Up::Probe(session, _)
                if self.bridge_session != Some(session) =>
            {
                self.down.push_back(Input::AskHello { session });
            }
            Up::Batch(session, records) => {
                for record in records {
                    let ranges = &self.acks()[record.lane().index()].ranges;
                    let room = ranges.len() < MAX_RANGES
                        || ranges.iter().any(|range| range.1 + 1 == record.seq());
                    if room && self.stored[record.lane().index()].insert(record.seq()) {
                        self.told.push(record);
                    }
                }
                let store = StoreId::from_bytes([1; 16]);
                let lanes = self.acks();
                self.down.push_back(Input::Acked { session, store, lanes });
            }
            Up::Probe(session, nonce) => {
                self.down.push_back(Input::Probed { session, nonce, bridge_now });
            }
        }
    }

    /// Delivers what is under way, in order, until nothing is.
    fn settle(&mut self) {
        loop {
            if let Some(up) = self.up.pop_front() {
                self.bridge_takes(up);
            } else if let Some(input) = self.down.pop_front() {
                self.input(input);
            } else {
                return;
            }
        }
    }

    fn all_stored(&self) -> bool {
        (0..4).all(|lane| self.stored[lane].len() == self.lanes[lane].len())
    }

    fn state(&self) -> UplinkState {
        self.core.state(self.now(), 0)
    }
}

fn small() -> LinkConfig {
    LinkConfig { batch_records: 10, ..LinkConfig::default() }
}

#[test]
fn what_is_fresh_does_not_wait_for_the_backlog_and_each_lane_keeps_its_order() {
    let mut world = World::new(small());
    world.append(Lane::Events, 500);
    world.append(Lane::Access, 30);
    world.append(Lane::Telemetry, 50);
    world.input(Input::Tick);
    // Hello, resume, the first part of the backlog, the first probe.
    while world.state().as_str() != "catching-up" {
        let up = world.up.pop_front().unwrap();
        world.bridge_takes(up);
        while let Some(input) = world.down.pop_front() {
            world.input(input);
        }
    }
    assert!(world.stored[2].len() < 400, "the backlog is not through yet");
    let before = world.sent.len();
    world.append(Lane::Events, 1);
    world.append(Lane::Access, 1);
    let fresh: Vec<(Lane, u64)> =
        world.sent[before..].iter().flatten().map(|r| (r.lane(), r.seq())).collect();
    assert_eq!(fresh, [(Lane::Events, 501), (Lane::Access, 31)], "sent at once, in order of time");
    world.settle();
    assert!(world.all_stored());
    assert_eq!(world.state().as_str(), "connected");
    for lane in Lane::ALL {
        let seqs = |live: bool| {
            let of_lane = world.told.iter().filter(move |record| record.lane() == lane);
            let live_from = [31, 1, 501, 51][lane.index()];
            of_lane.map(Record::seq).filter(move |&seq| (seq >= live_from) == live)
        };
        assert!(seqs(false).is_sorted() && seqs(true).is_sorted(), "{lane}");
    }
    let place =
        |lane, seq| world.told.iter().position(|r| (r.lane(), r.seq()) == (lane, seq)).unwrap();
    assert!(place(Lane::Access, 30) < place(Lane::Events, 1), "the higher lane's backlog first");
    assert!(place(Lane::Events, 500) < place(Lane::Telemetry, 1));
    assert!(place(Lane::Events, 501) < place(Lane::Events, 500), "fresh before the backlog's end");
}

#[test]
fn a_live_batch_holds_all_lanes_in_order_of_time() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    assert_eq!(world.state(), UplinkState::Connected { queued: 0 });
    assert_eq!(world.core.offset_ms(), Some(1234));
    // While nothing may be sent, they gather.
    let window = std::mem::replace(&mut world.core.config.window, 0);
    for lane in [Lane::Telemetry, Lane::Events, Lane::Access, Lane::Events, Lane::Results] {
        world.append(lane, 1);
    }
    world.core.config.window = window;
    world.input(Input::Tick);
    let lanes: Vec<Lane> = world.sent.concat().iter().map(Record::lane).collect();
    assert_eq!(lanes, [Lane::Telemetry, Lane::Events, Lane::Access, Lane::Events, Lane::Results]);
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn waits_between_connections_grow_to_the_cap_and_shrink_after_a_proof() {
    let mut world = World::new(small());
    world.reachable = false;
    for _ in 0..20 {
        world.pass(Duration::from_secs(40));
        let Phase::Waiting { until } = world.core.phase else { panic!("{:?}", world.core.phase) };
        assert!(until <= world.monotonic + world.config.backoff_cap);
    }
    assert_eq!(world.core.backoff_ceiling, world.config.backoff_cap);
    let UplinkState::Offline { since, .. } = world.state() else { panic!("{:?}", world.state()) };
    assert_eq!(since, Timestamp::from_millis(WALL_MS), "since the first loss, not the last");
    world.reachable = true;
    world.pass(Duration::from_secs(40));
    world.settle();
    assert_eq!(world.state().as_str(), "connected");
    assert_eq!(world.core.backoff_ceiling, BACKOFF_BASE);
}

#[test]
fn a_cut_is_noticed_within_two_intervals_whenever_it_comes() {
    let interval = small().probe_interval;
    for part in 0..15 {
        let mut world = World::new(small());
        world.input(Input::Tick);
        world.settle();
        let cut_after = interval * part / 15;
        while world.monotonic < cut_after {
            world.pass(Duration::from_secs(1));
            world.settle();
        }
        let cut = world.monotonic;
        while world.connected {
            world.pass(Duration::from_millis(500));
            world.up.clear();
            assert!(world.monotonic - cut <= interval * 2, "cut after {cut_after:?}");
        }
        let UplinkState::Offline { reason, attempts, next_try, .. } = world.state() else {
            panic!("{:?}", world.state())
        };
        assert_eq!((reason.as_str(), attempts), ("the bridge stopped answering", 1));
        assert!(next_try.is_some());
    }
}

#[test]
fn a_bridge_that_takes_batches_but_no_probes_is_degraded_at_first() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    let interval = world.config.probe_interval;
    let mut states = Vec::new();
    let mut degraded_at = None;
    while world.connected {
        world.pass(Duration::from_secs(1));
        world.append(Lane::Events, 1);
        world.up.retain(|up| !matches!(up, Up::Probe(..)));
        world.settle();
        states.push(world.state().as_str());
        if *states.last().unwrap() == "degraded" {
            degraded_at.get_or_insert(world.monotonic);
        }
        assert!(world.monotonic < interval * 6);
    }
    assert_eq!(degraded_at, Some(Duration::from_secs(23)), "half an interval after the question");
    assert!(world.monotonic >= interval * 3, "it was given time: it does answer");
}

#[test]
fn a_journal_that_fails_the_probe_is_named_and_the_link_stays() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    let interval = world.config.probe_interval;
    for _ in 0..6 {
        world.pass(interval);
        let Some(Up::Probe(session, nonce)) = world.up.pop_front() else { panic!("a probe") };
        let reason = "no space is left".to_owned();
        world.input(Input::ProbeFailed { session, nonce, reason });
        world.bridge_takes(Up::Probe(session, 0));
        world.settle();
        let UplinkState::Degraded { reason, .. } = world.state() else { panic!() };
        assert!(reason.contains("no space is left"), "{reason}");
    }
    assert!(world.connected);
    world.pass(interval);
    world.settle();
    assert_eq!(world.state().as_str(), "connected");
}

#[test]
fn a_journal_that_fails_probes_does_not_hide_a_cut() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    let interval = world.config.probe_interval;
    for _ in 0..2 {
        assert!(world.connected);
        world.pass(interval);
        if let Some(Up::Probe(session, nonce)) = world.up.pop_front() {
            let reason = "no space is left".to_owned();
            world.input(Input::ProbeFailed { session, nonce, reason });
        }
    }
    assert_eq!(world.state().as_str(), "offline");
}

#[test]
fn without_a_backlog_all_that_is_fresh_goes_as_such() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    for _ in 0..30 {
        world.append(Lane::Events, 1);
        world.append(Lane::Telemetry, 1);
        assert_eq!(world.state().as_str(), "connected");
        world.settle();
    }
}

#[test]
fn a_bridge_that_forks_again_and_again_is_answered_slowly() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    let mut forks = 0;
    while world.monotonic < Duration::from_secs(100) {
        while let Some(up) = world.up.pop_front() {
            if let Up::Hello(session) = up {
                forks += 1;
                assert!(forks <= 6, "{forks} new store ids in {:?}", world.monotonic);
                world.input(Input::Forked { session, reason: "another history".into() });
            }
        }
        world.pass(Duration::from_millis(100));
    }
    assert!(forks > 2, "it is asked again");
}

#[test]
fn the_backlog_is_not_starved_by_what_is_fresh() {
    let mut world = World::new(small());
    world.append(Lane::Events, 200);
    world.input(Input::Tick);
    // As much is fresh as the link takes: each batch that is acknowledged is followed by a full one.
    for _ in 0..300 {
        world.append(Lane::Access, 10);
        for _ in 0..2 {
            let Some(up) = world.up.pop_front() else { break };
            world.bridge_takes(up);
        }
        if let Some(input) = world.down.pop_front() {
            world.input(input);
        }
    }
    assert!(world.stored[Lane::Access.index()].len() > 1_000);
    assert_eq!(world.stored[Lane::Events.index()].len(), 200, "all of the backlog came through");
}

#[test]
fn a_full_batch_has_the_higher_lanes_and_a_share_of_each_lower_one() {
    let mut world = World::new(LinkConfig::default());
    for lane in [Lane::Telemetry, Lane::Events, Lane::Results] {
        world.append(lane, 40);
    }
    let all: Vec<Record> = world.lanes.concat();
    let config = LinkConfig { batch_records: 48, ..LinkConfig::default() };
    let batch = select(all.clone(), config.batch_bytes, &config);
    let of = |lane| batch.iter().filter(|record| record.lane() == lane).count();
    assert_eq!(of(Lane::Results), 36, "all but two shares");
    assert_eq!((of(Lane::Events), of(Lane::Telemetry)), (6, 6));
    let ids: Vec<_> = batch.iter().map(event_id).collect();
    assert!(ids.is_sorted());
    for lane in Lane::ALL {
        let mut seqs = batch.iter().filter(|record| record.lane() == lane).map(Record::seq);
        assert!(seqs.by_ref().enumerate().all(|(at, seq)| seq == at as u64 + 1), "{lane}");
    }
    let config = LinkConfig::default();
    assert_eq!(select(all.clone(), config.batch_bytes, &config).len(), 120, "all that fits goes");
    // A slow line: the room is small, and each lane has one record at least.
    let batch = select(all, 2 << 10, &config);
    let bytes: usize = batch.iter().map(|record| record.as_bytes().len()).sum();
    let record = world.lanes[3][0].as_bytes().len();
    assert!(bytes < (2 << 10) + record, "{bytes}: a share may be a record too many");
    let of = |lane| batch.iter().filter(|record| record.lane() == lane).count();
    assert!(of(Lane::Results) > of(Lane::Events) && of(Lane::Events) > 0, "{batch:?}");
    assert!(of(Lane::Telemetry) > 0);
}

#[test]
fn refused_forked_and_asked_lead_to_a_new_hello() {
    let mut world = World::new(small());
    let hello = |world: &mut World| match world.up.pop_front() {
        Some(Up::Hello(session)) => session,
        other => panic!("{other:?}"),
    };
    world.input(Input::Tick);
    let first = hello(&mut world);
    let bridge_now = world.now().wall;
    world.input(Input::Refused { session: first, reason: "two of you".into(), bridge_now });
    let UplinkState::Degraded { reason, .. } = world.state() else { panic!() };
    assert!(reason.contains("two of you"));
    world.pass(world.config.refused_pause);
    let second = hello(&mut world);
    world.input(Input::Forked { session: first, reason: "of an old session".into() });
    assert!(world.up.is_empty());
    world.input(Input::Forked { session: second, reason: "copied".into() });
    let third = hello(&mut world);
    assert!(first != second && second != third);
    world.up.push_back(Up::Hello(third));
    world.settle();
    assert_eq!(world.state().as_str(), "connected");
    world.input(Input::AskHello { session: second });
    assert!(world.up.is_empty(), "of an old session");
    world.input(Input::AskHello { session: third });
    let fourth = hello(&mut world);
    assert_ne!(fourth, third);
    // Again so soon, and it pauses, also where anybody is asked.
    world.input(Input::Forked { session: fourth, reason: "copied".into() });
    world.input(Input::AskHello { session: 0 });
    world.pass(HELLO_PAUSE);
    assert!(world.up.is_empty(), "{:?}", world.up);
}

/// A bridge whose disk was full asks for those it turned away, rather than that they wait out their pause.
#[test]
fn one_that_was_refused_comes_back_at_once_when_it_is_asked() {
    let mut world = World::new(small());
    world.pass(Duration::from_secs(1));
    let Some(&Up::Hello(session)) = world.up.front() else { panic!("{:?}", world.up) };
    let refused = Input::Refused { session, reason: "disk".into(), bridge_now: world.now().wall };
    world.input(refused);
    world.up.clear();
    world.pass(HELLO_PAUSE);
    assert!(world.up.is_empty(), "it waits");
    // To another session that is gone: not to this one.
    world.input(Input::AskHello { session: session ^ 1 });
    world.pass(HELLO_PAUSE);
    assert!(world.up.is_empty(), "it waits");
    world.input(Input::AskHello { session: 0 });
    world.pass(Duration::ZERO);
    assert!(matches!(world.up.front(), Some(Up::Hello(_))), "{:?}", world.up);
}

#[test]
fn a_command_is_told_received_when_it_is_durable() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    let session = world.bridge_session.unwrap();
    let command = |session| {
        Input::Command(Box::new(CommandDown {
            session,
            id: "c-1".parse().unwrap(),
            command: "health".into(),
            params: serde_json::Value::Null,
            sealed: None,
            issued_at: Timestamp::default(),
            expires_at: Timestamp::default(),
            now: Timestamp::from_millis(WALL_MS + 500),
        }))
    };
    world.input(command(session ^ 1));
    assert!(world.commands.is_empty(), "of another session");
    let outputs = world.core.step(world.now(), command(session));
    let [Output::Command { offset_ms: Some(1234), .. }] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    let id: CommandId = "c-1".parse().unwrap();
    let outputs = world.core.step(world.now(), Input::CommandStored { session, id: id.clone() });
    assert_eq!(outputs, [Output::Received { session, id }]);
}

#[test]
fn what_was_long_under_way_does_not_set_the_clock_back() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    world.settle();
    let sent = world.now().wall.plus(Duration::from_millis(1234));
    let session = world.bridge_session.unwrap();
    let store = StoreId::from_bytes([1; 16]);
    let late = Input::Acked { session, store, lanes: world.acks() };
    let command = Input::Command(Box::new(CommandDown {
        session,
        id: "c-1".parse().unwrap(),
        command: "enroll".into(),
        params: serde_json::Value::Null,
        sealed: None,
        issued_at: sent,
        expires_at: sent.plus(Duration::from_secs(5)),
        now: sent,
    }));
    // They lay in a broker, or this machine slept.
    world.monotonic += Duration::from_secs(10);
    world.core.step(world.now(), late);
    let outputs = world.core.step(world.now(), command);
    let Some(Output::Command { offset_ms: Some(offset), .. }) = outputs.last() else {
        panic!("{outputs:?}")
    };
    assert_eq!(*offset, 1234, "the command's expiry is judged by it");
}

#[test]
fn an_answer_that_takes_long_makes_the_bridges_time_later_not_earlier() {
    let mut world = World::new(small());
    world.input(Input::Tick);
    let hello = world.up.pop_front().unwrap();
    world.bridge_takes(hello);
    world.monotonic += Duration::from_secs(3);
    world.settle();
    assert_eq!(world.core.offset_ms(), Some(1234), "the probe's answer came at once");
    world.pass(world.config.probe_interval);
    let probe = world.up.pop_front().unwrap();
    world.monotonic += Duration::from_secs(3);
    world.bridge_takes(probe);
    world.settle();
    assert_eq!(world.core.offset_ms(), Some(1234 + 3000));
}

#[test]
fn a_queue_that_was_told_is_told_to_be_empty_once_it_is() {
    let mut world = World::new(small());
    world.append(Lane::Events, 25);
    world.input(Input::Tick);
    world.settle();
    assert!(world.all_stored());
    let probes = |world: &mut World| {
        let mut count = 0;
        for _ in 0..100 {
            world.pass(Duration::from_millis(100));
            count += world.up.iter().filter(|up| matches!(up, Up::Probe(..))).count();
            world.settle();
        }
        count
    };
    assert_eq!(probes(&mut world), 1, "soon, and once");
    assert!(world.monotonic < world.config.probe_interval);
    world.append(Lane::Events, 1);
    world.settle();
    assert_eq!(probes(&mut world), 1, "the next in its time: no queue was told");
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    DeliverUp(usize),
    DeliverDown(usize),
    LoseUp(usize),
    LoseDown(usize),
    RepeatUp(usize),
    RepeatDown(usize),
    Pass(u64),
    Cut,
    Unreachable(bool),
    BridgeRestarts,
    GatewayRestarts,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4usize, 1..30usize).prop_map(|(lane, count)| Step::Append(lane, count)),
        12 => (0..8usize).prop_map(Step::DeliverUp),
        12 => (0..8usize).prop_map(Step::DeliverDown),
        2 => (0..8usize).prop_map(Step::LoseUp),
        2 => (0..8usize).prop_map(Step::LoseDown),
        2 => (0..8usize).prop_map(Step::RepeatUp),
        2 => (0..8usize).prop_map(Step::RepeatDown),
        6 => (1..20_000u64).prop_map(Step::Pass),
        1 => Just(Step::Cut),
        1 => any::<bool>().prop_map(Step::Unreachable),
        1 => Just(Step::BridgeRestarts),
        1 => Just(Step::GatewayRestarts),
    ]
}

fn taken<T>(queue: &mut VecDeque<T>, index: usize) -> Option<T> {
    let length = queue.len();
    if length == 0 { None } else { queue.remove(index % length) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Whatever is lost, repeated, reordered or restarted: afterwards everything is stored, once.
    #[test]
    fn everything_is_stored_once(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new(small());
        world.input(Input::Tick);
        for step in steps {
            match step {
                Step::Append(lane, count) => world.append(Lane::ALL[lane], count),
                Step::DeliverUp(index) => {
                    if let Some(up) = taken(&mut world.up, index) {
                        world.bridge_takes(up);
                    }
                }
                Step::DeliverDown(index) => {
                    if let Some(input) = taken(&mut world.down, index) {
                        world.input(input);
                    }
                }
                Step::LoseUp(index) => drop(taken(&mut world.up, index)),
                Step::LoseDown(index) => drop(taken(&mut world.down, index)),
                Step::RepeatUp(index) => {
                    let up = taken(&mut world.up, index);
                    world.up.extend(up.clone().into_iter().chain(up));
                }
                Step::RepeatDown(index) => {
                    let input = taken(&mut world.down, index);
                    world.down.extend(input.clone().into_iter().chain(input));
                }
                Step::Pass(ms) => world.pass(Duration::from_millis(ms)),
                Step::Cut => world.disconnect(),
                Step::Unreachable(unreachable) => {
                    world.reachable = !unreachable;
                    if unreachable {
                        world.disconnect();
                    }
                }
                Step::BridgeRestarts => {
                    world.bridge_session = None;
                    world.disconnect();
                }
                Step::GatewayRestarts => {
                    world.cut();
                    let (config, heads) = (world.config.clone(), world.heads());
                    world.core = Core::new(config, heads, 11, world.now());
                    world.input(Input::Tick);
                }
            }
        }
        world.reachable = true;
        for _ in 0..60 {
            world.pass(Duration::from_secs(5));
            world.settle();
        }
        prop_assert!(world.all_stored(), "{:?} {:?}", world.core.phase, world.acks());
        prop_assert_eq!(world.state().as_str(), "connected");
        let total: usize = world.lanes.iter().map(Vec::len).sum();
        prop_assert_eq!(world.told.len(), total);
    }
}

/// Each short connection leaves a range of live records above the backlog's hole; the bridge keeps
/// only so many. It must not come to a stop.
#[test]
fn many_short_connections_during_a_backlog_do_not_wedge_the_link() {
    let mut world = World::new(small());
    world.append(Lane::Events, 3000);
    for _ in 0..200 {
        world.pass(Duration::from_secs(40));
        // Only hello and live records get through.
        while let Some(up) = world.up.pop_front() {
            let backlog = matches!(&up, Up::Batch(_, records)
                if records.iter().any(|record| record.seq() <= 3000));
            if !backlog {
                world.bridge_takes(up);
            }
            while let Some(input) = world.down.pop_front() {
                world.input(input);
            }
        }
        world.append(Lane::Events, 1);
        while let Some(up) = world.up.pop_front() {
            let live = matches!(&up, Up::Batch(_, records)
                if records.iter().all(|record| record.seq() > 3000));
            if live {
                world.bridge_takes(up);
            }
        }
        world.append(Lane::Events, 1);
        world.disconnect();
    }
    assert!(world.acks()[2].ranges.len() <= MAX_RANGES);
    for _ in 0..20 {
        world.pass(Duration::from_secs(40));
        world.settle();
    }
    assert!(world.all_stored());
}
