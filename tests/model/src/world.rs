//! One world: a schedule of work and faults, then none, and what must hold.

use std::{collections::VecDeque, time::Duration};

use gateway::{
    journal::{JournalError, ledger::AckKind},
    uplink::core::{Core, Input, Now, Output},
};
use topics::{
    BootId, Lane, Record, RecordKind, StoreId, Timestamp, UplinkState,
    link::{AgentInfo, Batch, Frame, Hello, LaneAck, LaneHello, Outcome, Probe},
};

use crate::{
    Figures,
    bridge::{Bridge, next_call},
    journal::{Answer, Fault, File, Machine, Request},
    plan::{Action, Plan, Random},
    session::Watch,
};

/// Bytes of backlog that may be sent before a live record that the core knows.
pub const BACKLOG_BEFORE_LIVE_BYTES: usize = 0;
/// Simulated time from the last fault until everything is acknowledged. The longest of what adds up:
/// a contest (60 s), a refusal's pause, probes unanswered, the back-off's cap, an hour's sleep.
pub const QUIET_AFTER: Duration = Duration::from_secs(300);

/// Steps that a world may take to become quiet: more is a loop.
const QUIET_STEPS: usize = 20_000;
/// A frame's way, once nothing fails.
const LATENCY: Duration = Duration::from_millis(2);
const WALL_MS: i64 = 1_763_821_820_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Connecting,
    Up,
}

/// See the module.
pub(crate) struct World {
    random: Random,
    plan: Plan,
    trace: bool,
    time: Duration,
    gateway_ahead_ms: i64,
    bridge_ahead_ms: i64,
    machine: Machine,
    file: File,
    /// A copy of the file.
    copy: Option<File>,
    /// Two histories of one store are in this world.
    swapped: bool,
    /// Gone while the process is down.
    core: Option<Core>,
    fault: Option<(usize, Fault)>,
    /// The core has not heard of the newest records.
    heads_due: bool,
    /// What the bridge acknowledged last, and whether the keeper has yet to look at it.
    acks: Option<(u64, StoreId, Vec<LaneAck>)>,
    acks_due: bool,
    /// What the keeper asked the journal to take down, which has not happened yet.
    in_hand: Option<(u64, Vec<LaneAck>)>,
    /// What the keeper found to be of another journal.
    fork: Option<(u64, String)>,
    way: Way,
    reachable: bool,
    up: VecDeque<Frame>,
    down: VecDeque<Frame>,
    bridge: Bridge,
    /// How often the bridge had been restored when it answered a hello.
    answered: Vec<(u64, u32)>,
    watch: Watch,
    commits: usize,
    stores: u8,
    figures: Figures,
}

macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.trace {
            println!("{:>10.3} {}", $world.time.as_secs_f64(), format!($($text)*));
        }
    };
}

impl World {
    pub(crate) fn new(mut random: Random, trace: bool) -> Self {
        let plan = Plan::new(&mut random);
        let wall = Timestamp::from_millis(WALL_MS);
        let mut machine = Machine::new(wall);
        let file = File::new(StoreId::from_bytes([1; 16]), None, &mut machine, wall, 0);
        let bridge = Bridge::new(machine.gateway.clone(), plan.in_order);
        if trace {
            println!("{plan:#?}");
        }
        let mut world = Self {
            watch: Watch::new(plan.link.clone()),
            random,
            plan,
            trace,
            time: Duration::ZERO,
            gateway_ahead_ms: 0,
            bridge_ahead_ms: 0,
            machine,
            file,
            copy: None,
            swapped: false,
            core: None,
            fault: None,
            heads_due: false,
            acks: None,
            acks_due: false,
            in_hand: None,
            fork: None,
            way: Way::Down,
            reachable: true,
            up: VecDeque::new(),
            down: VecDeque::new(),
            bridge,
            answered: Vec::new(),
            commits: 0,
            stores: 1,
            figures: Figures::default(),
        };
        world.start_gateway();
        world
    }

    pub(crate) fn run(mut self) -> Figures {
        for _ in 0..self.plan.steps {
            let action = self.plan.action(&mut self.random);
            self.act(action);
        }
        self.figures.steps = self.plan.steps;
        self.become_quiet();
        self.check_end();
        self.figures
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Append => self.append(),
            Action::Round => self.round(),
            Action::Arrive => self.arrive(),
            Action::KeepAcks => self.keep_acks(),
            Action::Pass => {
                let ms = match self.random.below(20) {
                    0 => self.random.below(90_000),
                    1..5 => self.random.below(3_000),
                    _ => self.random.below(60),
                };
                self.pass(Duration::from_millis(ms as u64));
            }
            Action::LoseUp => lose(&mut self.random, &mut self.up),
            Action::LoseDown => lose(&mut self.random, &mut self.down),
            Action::RepeatUp => repeat(&mut self.random, &mut self.up),
            Action::RepeatDown => repeat(&mut self.random, &mut self.down),
            Action::MixUp => mix(&mut self.random, &mut self.up),
            Action::MixDown => mix(&mut self.random, &mut self.down),
            Action::Cut => self.cut("cut"),
            Action::Reach => {
                self.reachable = !self.reachable;
                note!(self, "the broker is there: {}", self.reachable);
                if !self.reachable {
                    self.cut("unreachable");
                }
            }
            Action::GatewayDies => self.gateway_dies(),
            Action::BridgeDies => self.bridge_dies(),
            Action::BridgeBackup => {
                note!(self, "bridge: a backup");
                self.bridge.backup = Some(self.bridge.store.clone());
            }
            Action::BridgeRestored => {
                if self.bridge.backup.is_some() {
                    note!(self, "bridge: restored");
                    self.bridge.restore();
                    self.up.clear();
                }
            }
            Action::FileCopied => {
                note!(self, "journal: copied");
                self.copy = Some(self.file.clone());
            }
            Action::FileSwapped => self.swap_file(),
            Action::FileReplaced => self.replace_file(),
            Action::GatewayDisk => {
                let fault = (self.random.below(6), Fault::ALL[self.random.below(4)]);
                self.fault.get_or_insert(fault);
            }
            Action::BridgeDisk => {
                let fault = (self.random.below(6), Fault::ALL[self.random.below(4)]);
                self.bridge.fault.get_or_insert(fault);
            }
            Action::GatewayClock => self.gateway_ahead_ms += self.jump_ms(),
            Action::BridgeClock => self.bridge_ahead_ms += self.jump_ms(),
            Action::Sleep => {
                self.time += Duration::from_millis(self.random.below(600_000) as u64);
                note!(self, "slept");
                self.feed(Input::Tick);
            }
        }
    }

    fn jump_ms(&mut self) -> i64 {
        let most = [1_000, 100_000, 400_000_000][self.random.below(3)];
        self.random.below(2 * most) as i64 - most as i64
    }

    fn now(&self) -> Now {
        Now { monotonic: self.time, wall: self.wall() }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(WALL_MS + self.gateway_ahead_ms).plus(self.time)
    }

    fn bridge_wall(&self) -> Timestamp {
        Timestamp::from_millis(WALL_MS + self.bridge_ahead_ms).plus(self.time)
    }

    // ── the gateway ──

    fn start_gateway(&mut self) {
        if self.core.is_some() {
            return;
        }
        note!(self, "gateway: starts");
        self.machine.restart();
        self.file.reopen();
        let heads = self.file.heads();
        let seed = self.random.number();
        self.core = Some(Core::new(self.plan.link.clone(), heads, seed, self.now()));
        self.heads_due = false;
        self.watch.end();
        self.feed(Input::Tick);
    }

    /// What was in memory is gone.
    fn gateway_dies(&mut self) {
        note!(self, "gateway: dies");
        self.core = None;
        self.disconnect();
        (self.acks, self.acks_due, self.in_hand, self.fork) = (None, false, None, None);
        if !self.random.once_in(3) {
            self.start_gateway();
        }
    }

    fn swap_file(&mut self) {
        let Some(mut other) = self.copy.take() else { return };
        let keep = self.random.once_in(2);
        note!(self, "journal: the copy takes its place; it is kept: {keep}");
        (self.core, self.swapped) = (None, true);
        std::mem::swap(&mut self.file, &mut other);
        self.copy = keep.then_some(other);
        self.machine.boot = BootId::from_bytes([self.random.number() as u8; 16]);
        self.gateway_dies();
    }

    fn replace_file(&mut self) {
        note!(self, "journal: a new file");
        self.core = None;
        let (previous, wall, restored) = (self.file.store, self.wall(), self.bridge.restored);
        let store = self.new_store();
        self.machine.restart();
        self.file = File::new(store, Some(previous), &mut self.machine, wall, restored);
        self.gateway_dies();
    }

    fn new_store(&mut self) -> StoreId {
        self.stores += 1;
        StoreId::from_bytes([self.stores; 16])
    }

    /// A group of requests in one transaction, with what the keeper has in hand before it. `None`
    /// where it failed.
    fn commit(&mut self, request: Option<Request>) -> Option<Answer> {
        let mut requests = Vec::with_capacity(2);
        let kept = self.in_hand.take().map(|(session, acks)| {
            requests.push(Request::Ack(acks, AckKind::Ack));
            session
        });
        requests.extend(request);
        let fault = next_call(&mut self.fault);
        let wall = self.wall();
        let heads = self.file.heads();
        let answers = self.file.commit(&mut self.machine, &self.plan, wall, requests, fault);
        if let Some(fault) = fault {
            note!(self, "journal: a commit: {fault:?}");
        }
        self.commits += 1;
        self.file.check(self.plan.steps < 64 || self.commits.is_multiple_of(16));
        self.check_acknowledged();
        self.heads_due |= heads != self.file.heads();
        if fault.is_some_and(Fault::dies) {
            self.gateway_dies();
            return None;
        }
        let mut answers = answers?;
        if let (Some(session), Some(Answer::Refused(error))) = (kept, answers.first()) {
            self.fork = Some((session, error.to_string()));
        }
        answers.pop()
    }

    /// Claimed from a resume until the bridge is restored.
    fn check_acknowledged(&self) {
        if self.file.heard_after == self.bridge.restored {
            self.bridge.store.check_acknowledged(&self.file);
        }
    }

    fn append(&mut self) {
        if self.core.is_none() {
            return self.start_gateway();
        }
        let count = self.random.within(1, self.plan.most_appended);
        let mut events = Vec::with_capacity(count);
        let mut lane = Lane::ALL[self.random.below(4)];
        for _ in 0..count {
            if self.random.once_in(2) {
                lane = Lane::ALL[self.random.below(4)];
            }
            events.push((lane, self.plan.foreign && self.random.once_in(8)));
        }
        self.figures.events += count;
        note!(self, "journal: {events:?}");
        self.commit(Some(Request::Append(events)));
        if !self.plan.heads_late {
            self.tell();
        }
    }

    /// What the core's driver hears of the journal.
    fn tell(&mut self) {
        if let Some((session, reason)) = self.fork.take() {
            self.feed(Input::Forked { session, reason });
        }
        if std::mem::take(&mut self.heads_due) {
            self.feed(Input::Heads(self.file.heads()));
        }
    }

    /// The task that takes acknowledgements to the journal: first it looks, then that happens.
    fn keep_acks(&mut self) {
        if let Some(acks) = &self.in_hand {
            note!(self, "journal: acknowledged {acks:?}");
            self.commit(None);
        } else if std::mem::take(&mut self.acks_due)
            && let Some((session, store, lanes)) = self.acks.clone()
            && store == self.file.store
        {
            self.in_hand = Some((session, lanes));
        }
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.now();
            let Some(core) = &mut self.core else { return };
            self.watch.before(now.monotonic, &input);
            for output in core.step(now, input) {
                if self.core.is_none() {
                    return;
                }
                inputs.extend(self.perform(output));
            }
        }
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Connect => {
                note!(self, "gateway: connects");
                self.disconnect();
                self.way = Way::Connecting;
                None
            }
            Output::Disconnect => {
                note!(self, "gateway: disconnects");
                self.disconnect();
                None
            }
            Output::Hello { session } => {
                let hello = self.hello(session);
                self.send(Frame::Hello(hello));
                None
            }
            Output::Resume { session, lanes } => self.resume(session, lanes),
            Output::Acknowledge { session, store, lanes } => {
                (self.acks, self.acks_due) = (Some((session, store, lanes)), true);
                None
            }
            Output::Refork { reason } => {
                note!(self, "gateway: forked: {reason}");
                assert!(
                    self.swapped,
                    "this journal was never copied, and is taken for one: {reason}"
                );
                self.forget_acks();
                self.core.as_ref()?;
                let store = self.new_store();
                let answer = self.commit(Some(Request::Refork(store)));
                if self.file.store == store {
                    // Nothing is acknowledged of it.
                    self.file.heard_after = self.bridge.restored;
                }
                self.core.as_ref()?;
                Some(Input::Reforked { store: answer.map(|_| store) })
            }
            Output::Read { spans, max_records, max_bytes } => {
                Some(Input::Records(self.read(&spans, max_records, max_bytes)))
            }
            Output::Send { session, records } => {
                self.watch.sent(self.time, session, &records);
                self.send(Frame::Batch(Batch { store: self.file.store, session, records }));
                None
            }
            Output::Probe { session, nonce } => {
                self.probe(session, nonce);
                None
            }
            Output::Command { .. } | Output::Received { .. } => None,
        }
    }

    fn hello(&self, session: u64) -> Hello {
        let lane = |index: usize| {
            let view = self.file.lanes[index].view();
            let (lane, oldest, next) = (view.lane, view.oldest, view.next);
            LaneHello { lane, oldest, next, watermark: view.watermark, chain: view.chain }
        };
        Hello {
            session,
            gateway: self.machine.gateway.clone(),
            store: self.file.store,
            boot: self.machine.boot,
            uptime_ms: 1,
            wall: self.wall(),
            lanes: (0..4).map(lane).collect(),
            agent: AgentInfo::default(),
        }
    }

    fn resume(&mut self, session: u64, lanes: Vec<LaneAck>) -> Option<Input> {
        self.forget_acks();
        self.core.as_ref()?;
        let answer = self.commit(Some(Request::Ack(lanes.clone(), AckKind::Resume)));
        self.core.as_ref()?;
        match answer {
            Some(Answer::Refused(error @ JournalError::Forked { .. })) => {
                return Some(Input::Forked { session, reason: error.to_string() });
            }
            Some(Answer::Done) => {
                let answered = self.answered.iter().rev().find(|answer| answer.0 == session);
                self.file.heard_after = answered.map_or(0, |answer| answer.1);
                self.check_acknowledged();
            }
            // What the bridge lacks may be trimmed here.
            None if self.file.lanes.iter().any(|lane| lane.view().is_ahead_of(&lanes)) => {
                self.disconnect();
                return Some(Input::Disconnected { reason: "not resumed".to_owned() });
            }
            // It goes on: what the bridge lacks is sent whether or not this was written down.
            Some(Answer::Refused(_)) | None => {
                (self.acks, self.acks_due) = (Some((session, self.file.store, lanes)), true);
            }
        }
        let heads = self.file.heads();
        self.heads_due = false;
        self.watch.begin(session, heads);
        self.bridge.watched.push((session, heads, Default::default()));
        Some(Input::Resumed { session, heads })
    }

    /// Of the last session: what is on its way is taken down first, what waits never is.
    fn forget_acks(&mut self) {
        if self.in_hand.is_some() {
            self.commit(None);
        }
        (self.acks, self.acks_due) = (None, false);
    }

    fn read(
        &mut self,
        spans: &[(Lane, u64, u64)],
        max_records: usize,
        max_bytes: usize,
    ) -> Option<Vec<Record>> {
        if next_call(&mut self.fault).is_some() {
            return None;
        }
        let mut found = Vec::new();
        for &(lane, first, last) in spans {
            let records = self.file.read(lane, first, max_records, max_bytes);
            found.extend(records.into_iter().take_while(|record| record.first() <= last));
        }
        Some(found)
    }

    fn probe(&mut self, session: u64, nonce: u64) {
        let acks = self.acks.clone().filter(|(_, store, _)| *store == self.file.store);
        if let Some((_, _, lanes)) = acks {
            self.commit(Some(Request::Ack(lanes, AckKind::Ack)));
        }
        if self.core.is_none() || self.commit(Some(Request::Probe)).is_none() {
            return;
        }
        let queued = self.file.queued();
        self.send(Frame::Probe(Probe { session, nonce, readers: Vec::new(), queued }));
    }

    // ── the way ──

    fn send(&mut self, frame: Frame) {
        if self.way != Way::Up || self.up.len() >= self.plan.room {
            return;
        }
        note!(self, "up   {frame:?}");
        let frame = self.packed(frame);
        self.up.push_back(frame);
    }

    fn send_down(&mut self, frame: Frame) {
        if self.way != Way::Up || self.down.len() >= self.plan.room {
            return;
        }
        note!(self, "down {frame:?}");
        let frame = self.packed(frame);
        self.down.push_back(frame);
    }

    fn packed(&self, frame: Frame) -> Frame {
        if !self.plan.encode {
            return frame;
        }
        let bytes = frame.encode().expect("it is small");
        let decoded = Frame::decode(&bytes).expect("it was encoded");
        assert_eq!(decoded, frame, "what was sent");
        decoded
    }

    /// A part of what was sent is at the broker already; what would come down has no way any more.
    fn disconnect(&mut self) {
        if self.way == Way::Up {
            let kept = self.random.below(self.up.len() + 1);
            self.up.truncate(kept);
        }
        self.down.clear();
        self.way = Way::Down;
    }

    fn cut(&mut self, reason: &str) {
        if self.way == Way::Down {
            return;
        }
        note!(self, "{reason}");
        self.disconnect();
        self.feed(Input::Disconnected { reason: reason.to_owned() });
    }

    /// The next of what comes down.
    fn arrive(&mut self) {
        if self.way == Way::Connecting {
            if self.reachable {
                self.way = Way::Up;
                self.feed(Input::Connected);
            } else {
                self.cut("not reachable");
            }
        } else if let Some(frame) = self.down.pop_front()
            && let Some(input) = self.heard(frame)
        {
            self.feed(input);
        }
        self.tell();
    }

    fn heard(&self, frame: Frame) -> Option<Input> {
        match frame {
            Frame::Resume(resume) => {
                let (session, bridge_now) = (resume.session, resume.now);
                Some(match resume.outcome {
                    Outcome::Resume { lanes } => Input::Resume { session, lanes, bridge_now },
                    Outcome::Forked { reason } => Input::Forked { session, reason },
                    Outcome::Refused { reason } => Input::Refused { session, reason, bridge_now },
                })
            }
            Frame::Ack(ack) => (ack.store == self.file.store).then_some(Input::Acked {
                session: ack.session,
                store: ack.store,
                lanes: ack.lanes,
            }),
            Frame::Probed(probed) => Some(Input::Probed {
                session: probed.session,
                nonce: probed.nonce,
                bridge_now: probed.now,
            }),
            Frame::AskHello(ask) => Some(Input::AskHello { session: ask.session }),
            _ => None,
        }
    }

    // ── the bridge ──

    fn bridge_dies(&mut self) {
        note!(self, "bridge: dies");
        self.bridge.link = None;
        let lost = self.random.below(self.up.len() + 1);
        self.up.drain(..lost);
        if !self.random.once_in(3) {
            self.start_bridge();
        }
    }

    fn start_bridge(&mut self) {
        if self.bridge.link.is_none() {
            note!(self, "bridge: starts");
            self.bridge.start();
            self.send_down(Frame::AskHello(topics::link::AskHello { session: 0 }));
        }
    }

    fn round(&mut self) {
        if self.bridge.link.is_none() {
            // Its subscription is gone with it.
            self.up.clear();
            return self.start_bridge();
        }
        let count = self.random.within(1, 8).min(self.up.len());
        if count == 0 {
            return;
        }
        let frames: Vec<Frame> = self.up.drain(..count).collect();
        note!(self, "bridge: a round of {count}");
        for frame in &frames {
            if let Frame::Hello(hello) = frame {
                self.answered.push((hello.session, self.bridge.restored));
            }
        }
        let now = self.bridge_wall();
        for frame in self.bridge.round(now, frames) {
            self.send_down(frame);
        }
    }

    // ── time ──

    fn pass(&mut self, time: Duration) {
        let until = self.time + time;
        // One that wakes more often than this is in a loop.
        for _ in 0..1_000 {
            let deadline = self.core.as_ref().map_or(Duration::MAX, Core::deadline);
            if deadline > until {
                break;
            }
            self.time = self.time.max(deadline);
            self.feed(Input::Tick);
        }
        self.time = until;
        self.tell();
        self.feed(Input::Tick);
    }

    /// No more faults: all is acknowledged soon.
    fn become_quiet(&mut self) {
        note!(self, "no more faults");
        (self.fault, self.bridge.fault) = (None, None);
        self.reachable = true;
        self.start_gateway();
        self.start_bridge();
        let started = self.time;
        for _ in 0..QUIET_STEPS {
            self.tell();
            if self.way == Way::Connecting || !self.down.is_empty() {
                self.time += LATENCY;
                self.arrive();
            } else if !self.up.is_empty() {
                self.time += LATENCY;
                self.round();
            } else if self.in_hand.is_some() || self.acks_due {
                self.keep_acks();
            } else if self.is_quiet() {
                self.figures.quiet_after = self.time - started;
                return;
            } else {
                let deadline = self.core.as_ref().map_or(Duration::MAX, Core::deadline);
                let end = started + QUIET_AFTER;
                assert!(deadline <= end, "not quiet after {QUIET_AFTER:?}: {}", self.state());
                self.time = self.time.max(deadline);
                self.feed(Input::Tick);
            }
        }
        panic!("not quiet after {QUIET_STEPS} steps: {}", self.state());
    }

    fn is_quiet(&self) -> bool {
        let Some(core) = &self.core else { return false };
        let queued = self.file.queued();
        core.state(self.now(), queued) == UplinkState::Connected { queued: 0 }
            && self.file.lanes.iter().all(|lane| lane.marks.watermark == lane.next - 1)
            && self.bridge.store.is_level_with(&self.file)
    }

    fn state(&self) -> String {
        let views: Vec<_> = self.file.lanes.iter().map(|lane| lane.view()).collect();
        let state = self.core.as_ref().map(|core| core.state(self.now(), self.file.queued()));
        format!("{state:?} {views:?}")
    }

    fn check_end(&mut self) {
        self.file.check(true);
        let restored = self.bridge.restored > 0;
        self.bridge.store.check_end(&self.file, restored, self.swapped);
        for lane in &self.file.lanes {
            let rows = self.file.map.lanes[lane.lane.index()].values();
            let held = rows.filter(|record| record.kind() == RecordKind::Event);
            assert!(held.count() as u64 <= lane.next - 1);
        }
    }
}

fn lose<T>(random: &mut Random, queue: &mut VecDeque<T>) {
    if !queue.is_empty() {
        queue.remove(random.below(queue.len()));
    }
}

fn repeat<T: Clone>(random: &mut Random, queue: &mut VecDeque<T>) {
    if let Some(again) = queue.get(random.below(queue.len())).cloned() {
        queue.insert(random.below(queue.len() + 1), again);
    }
}

fn mix<T>(random: &mut Random, queue: &mut VecDeque<T>) {
    if queue.len() > 1 {
        let (a, b) = (random.below(queue.len()), random.below(queue.len()));
        queue.swap(a, b);
    }
}
