//! One world: a schedule of work and faults, then none, and what must hold.

use std::{collections::VecDeque, time::Duration};

use gateway::uplink::core::{Core, Input, Now};
use topics::{
    StoreId, Timestamp, UplinkState,
    link::{Frame, LaneAck},
};

/// A line of the trace.
macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.trace {
            println!("{:>10.3} {}", $world.time.as_secs_f64(), format!($($text)*));
        }
    };
}

mod gateway_side;
mod way;

use crate::{
    Figures,
    bridge::Bridge,
    journal::{Fault, File, Machine},
    plan::{Action, Plan, Random},
    session::Watch,
};

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
            Action::RowDamaged => {
                note!(self, "journal: a row is damaged");
                self.file.damage(&mut self.random);
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
