//! The link to the bridge as a state machine: no I/O, no clock, no journal.
//!
//! ```text
//!            back-off over            broker there            resume           journal took it
//! Waiting ──────────────▶ Connecting ─────────────▶ Greeting ─────────▶ Resuming ─────────▶ Live
//!    ▲                        │ time-out      ▲  ▲  │   │ forked           │ forked          │
//!    │                        │               │  │  │   └────▶ Reforking ◀─┴─────────────────┤
//!    │                        │     ask hello,│  └──┼────────────┘ new store id              │
//!    │                        │     time-out  └─────┼────────────────────────────────────────┤
//!    │                        │                     │ refused ▶ Refused (a while) ▶ Greeting │
//!    └────────────────────────┴── connection lost, or probes unanswered ─────────────────────┘
//! ```
//!
//! **What is sent.** Per lane the core knows what the bridge has (from its acknowledgements) and what
//! is in flight. What was there when the session began is *backlog*, what came since is *live*. A live
//! batch holds all lanes in order of event id, the lowest missing of each; the backlog goes lane by
//! lane, highest first, and uses what live leaves of the window; one batch in nine is the backlog's
//! whatever there is of live. When more is fresh than a batch holds, higher lanes go first and each lower
//! one has a share (`session.rs`). How many bytes of both may be under way follows from how long they
//! take (`pace.rs`). A batch that is not acknowledged in time is no longer in flight, so its records are
//! missing again and go again. Losses, repeats and reordering are harmless therefore: everything follows
//! from the two sets.
//!
//! **What it costs the bridge.** At most [`MAX_RANGES`](topics::link::MAX_RANGES) ranges above a watermark
//! are kept there. When a lane comes near it (many short connections during a long backlog), its live
//! records wait with the backlog until it has closed the holes.

use std::time::Duration;

use topics::{
    CommandId, Lane, Record, StoreId, Timestamp, UplinkState,
    link::{CommandDown, LaneAck},
};

use super::{
    pace::Pace,
    session::{Flight, LaneLink, Probing, Progress, Reading, Session, select},
};
use crate::journal::Heads;

/// Bounds and times of a link.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Between two probes; "connected" means that one was answered within it.
    pub probe_interval: Duration,
    /// For a connection to the broker to be there, and for the bridge's answer to a hello.
    pub patience: Duration,
    /// Until a batch that nobody acknowledged goes again.
    pub resend_after: Duration,
    /// Before a bridge that refused is asked again.
    pub refused_pause: Duration,
    /// The last ceiling of the back-off.
    pub backoff_cap: Duration,
    /// Batches in flight.
    pub window: usize,
    /// Of these, for the backlog, at most: how much it is follows from the link.
    pub backlog_window: usize,
    /// Bytes of records in a batch.
    pub batch_bytes: usize,
    /// Records in a batch.
    pub batch_records: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(15),
            patience: Duration::from_secs(10),
            resend_after: Duration::from_secs(10),
            refused_pause: Duration::from_secs(30),
            backoff_cap: Duration::from_secs(30),
            window: 8,
            backlog_window: 6,
            // A record may be 64 KiB: with it, a batch stays below the frame's limit.
            batch_bytes: 160 * 1024,
            batch_records: 1000,
        }
    }
}

/// The first ceiling of the back-off.
const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// Probes unanswered before the connection is given up, though the bridge says something else. Where it
/// says nothing at all, one is enough: a cut is noticed within two intervals.
const PROBES_LOST: u32 = 3;
/// A journal is forked once, or the bridge is at fault: each new store id leaves a gap.
const REFORK_PAUSE: Duration = Duration::from_secs(60);
/// After so many live batches with a backlog waiting, one of the backlog goes: what is fresh may be more
/// than the link takes, for ever.
pub const LIVE_IN_A_ROW: u32 = 8;
/// A probe tells how much is queued. When that is through, the next one says so, this long after the
/// one before it at the earliest.
const DRAINED_PAUSE: Duration = Duration::from_secs(1);
/// Between two hellos on one connection.
const HELLO_PAUSE: Duration = Duration::from_millis(200);

/// Two clocks, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some start; monotonic. Deadlines are in it.
    pub monotonic: Duration,
    /// This machine's wall clock.
    pub wall: Timestamp,
}

/// What happened.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The broker is there and the subscription stands.
    Connected,
    /// It is gone, or did not come.
    Disconnected { reason: String },
    /// The journal's heads.
    Heads(Heads),
    /// The bridge says where it stands.
    Resume { session: u64, lanes: Vec<LaneAck>, bridge_now: Timestamp },
    /// The journal took it down, at these heads.
    Resumed { session: u64, heads: Heads },
    /// The bridge, or the journal, finds that the two don't belong together.
    Forked { session: u64, reason: String },
    /// The journal has a new store id (or failed to get one).
    Reforked { store: Option<StoreId> },
    /// The bridge will not have this gateway now.
    Refused { session: u64, reason: String, bridge_now: Timestamp },
    /// The bridge asks for a hello.
    AskHello { session: u64 },
    /// Acknowledged by the bridge.
    Acked { session: u64, store: StoreId, lanes: Vec<LaneAck> },
    /// What [`Output::Read`] asked for: per span, its records as far as they fit. `None`: the
    /// journal failed.
    Records(Option<Vec<Record>>),
    /// A probe was sent that proves nothing: the journal did not take its row.
    ProbeFailed { session: u64, nonce: u64, reason: String },
    /// A probe came back.
    Probed { session: u64, nonce: u64, bridge_now: Timestamp },
    /// A command of the bridge.
    Command(Box<CommandDown>),
    /// It is durable here.
    CommandStored { session: u64, id: CommandId },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Output {
    /// Drop what is there of a connection and build a new one.
    Connect,
    /// Drop the connection.
    Disconnect,
    /// Send a hello with what the journal holds.
    Hello { session: u64 },
    /// Let the journal take down where the bridge stands; answer with [`Input::Resumed`] or
    /// [`Input::Forked`].
    Resume { session: u64, lanes: Vec<LaneAck> },
    /// Let the journal take down what is acknowledged. Where it finds that it never held that, answer
    /// with [`Input::Forked`].
    Acknowledge { session: u64, store: StoreId, lanes: Vec<LaneAck> },
    /// Let the journal take a new store id; answer with [`Input::Reforked`].
    Refork { reason: String },
    /// Read these spans, each from its first on, of each at most so much; answer with
    /// [`Input::Records`], of which the core takes what fits.
    Read { spans: Vec<(Lane, u64, u64)>, max_records: usize, max_bytes: usize },
    /// Send these.
    Send { session: u64, records: Vec<Record> },
    /// Write the journal's probe row, then send a probe; where that fails, one that proves nothing, and
    /// answer with [`Input::ProbeFailed`].
    Probe { session: u64, nonce: u64 },
    /// Take this command; answer with [`Input::CommandStored`] when it is durable.
    Command { command: Box<CommandDown>, offset_ms: Option<i64> },
    /// Tell the bridge so.
    Received { session: u64, id: CommandId },
}

/// Where the link is.
#[derive(Debug)]
enum Phase {
    Waiting { until: Duration },
    Connecting { until: Duration },
    Greeting { session: u64, until: Duration },
    Resuming { session: u64, lanes: Vec<LaneAck>, round_trip: Duration },
    Reforking,
    Refused { until: Duration, reason: String, by: Refuser },
    Live(Box<Session>),
}

/// Who will not have the link, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuser {
    Bridge,
    /// This side: a journal that is not known again and again is not sent again and again.
    Gateway,
}

/// The state machine.
#[derive(Debug)]
pub struct Core {
    config: LinkConfig,
    phase: Phase,
    heads: Heads,
    backoff_ceiling: Duration,
    random: u64,
    offset_ms: Option<i64>,
    offline: Option<(Timestamp, String)>,
    /// Connections that ended since then.
    attempts: u32,
    /// When the journal took its last new store id.
    reforked: Option<Duration>,
    hello_at: Option<Duration>,
    hello_wall: Timestamp,
    outputs: Vec<Output>,
}

impl Core {
    /// A link that connects at once. `seed` makes sessions and waits differ between gateways.
    pub fn new(config: LinkConfig, heads: Heads, seed: u64, now: Now) -> Self {
        Self {
            phase: Phase::Waiting { until: now.monotonic },
            backoff_ceiling: BACKOFF_BASE.min(config.backoff_cap),
            config,
            heads,
            random: seed | 1,
            offset_ms: None,
            offline: Some((now.wall, "not connected yet".to_owned())),
            attempts: 0,
            reforked: None,
            hello_at: None,
            hello_wall: now.wall,
            outputs: Vec::new(),
        }
    }

    /// Takes an input; gives what is to be done, in order.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        self.take(now, input);
        self.pass_time(now);
        self.pump(now);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Duration {
        match &self.phase {
            Phase::Waiting { until }
            | Phase::Connecting { until }
            | Phase::Greeting { until, .. }
            | Phase::Refused { until, .. } => *until,
            Phase::Resuming { .. } | Phase::Reforking => Duration::MAX,
            Phase::Live(session) => {
                let flights = session.flights.iter().map(|flight| flight.until);
                let read_after = Some(session.read_after).filter(|at| !at.is_zero());
                let overdue = session.probe.overdue_at(self.config.probe_interval);
                flights.chain(read_after).chain(overdue).fold(session.probe.next, Duration::min)
            }
        }
    }

    /// What to add to this machine's clock to get the bridge's, once that was heard.
    pub fn offset_ms(&self) -> Option<i64> {
        self.offset_ms
    }

    /// How the link is. `queued` is the journal's count.
    pub fn state(&self, now: Now, queued: u64) -> UplinkState {
        let degraded = |reason: String| UplinkState::Degraded { queued, reason };
        match &self.phase {
            Phase::Waiting { .. } | Phase::Connecting { .. } => {
                let (since, reason) = self.offline.clone().unwrap_or((now.wall, String::new()));
                let next_try = match &self.phase {
                    Phase::Waiting { until } => {
                        Some(now.wall.plus(until.saturating_sub(now.monotonic)))
                    }
                    _ => None,
                };
                let attempts = self.attempts;
                UplinkState::Offline { queued, since, reason, attempts, next_try }
            }
            Phase::Greeting { .. } | Phase::Resuming { .. } => {
                degraded("the broker is there, the bridge has not answered yet".to_owned())
            }
            Phase::Reforking => degraded("the journal is taking a new store id".to_owned()),
            Phase::Refused { reason, .. } => degraded(format!("the bridge refuses: {reason}")),
            Phase::Live(session) => session.state(now, queued, self.config.probe_interval),
        }
    }

    fn take(&mut self, now: Now, input: Input) {
        match input {
            Input::Tick => {}
            Input::Heads(heads) => self.heads = heads,
            Input::Connected => match &self.phase {
                Phase::Connecting { .. } => self.greet(now),
                Phase::Waiting { .. }
                | Phase::Greeting { .. }
                | Phase::Resuming { .. }
                | Phase::Reforking
                | Phase::Refused { .. }
                | Phase::Live(_) => {}
            },
            Input::Disconnected { reason } => self.lost(now, reason),
            Input::Resume { session, lanes, bridge_now } => {
                if self.is_greeting(session) {
                    self.hear_clock(self.hello_wall, bridge_now);
                    self.outputs.push(Output::Resume { session, lanes: lanes.clone() });
                    let round_trip =
                        now.monotonic.saturating_sub(self.hello_at.unwrap_or(now.monotonic));
                    self.phase = Phase::Resuming { session, lanes, round_trip };
                }
            }
            Input::Resumed { session, heads } => self.resumed(now, session, heads),
            Input::Forked { session, reason } => {
                if self.session() == Some(session) {
                    self.phase = Phase::Reforking;
                    self.outputs.push(Output::Refork { reason });
                }
            }
            Input::Reforked { store } => match (&self.phase, store) {
                (Phase::Reforking, Some(_)) => {
                    let before = self.reforked.replace(now.monotonic);
                    if before.is_some_and(|at| now.monotonic.saturating_sub(at) < REFORK_PAUSE) {
                        let until = now.monotonic + self.config.refused_pause;
                        let reason = "it does not know this journal, again and again".to_owned();
                        self.phase = Phase::Refused { until, reason, by: Refuser::Gateway };
                    } else {
                        self.greet(now);
                    }
                }
                (Phase::Reforking, None) => {
                    self.outputs.push(Output::Disconnect);
                    self.lost(now, "the journal could not take a new store id".to_owned());
                }
                (
                    Phase::Waiting { .. }
                    | Phase::Connecting { .. }
                    | Phase::Greeting { .. }
                    | Phase::Resuming { .. }
                    | Phase::Refused { .. }
                    | Phase::Live(_),
                    _,
                ) => {}
            },
            Input::Refused { session, reason, bridge_now } => {
                if self.is_greeting(session) {
                    self.hear_clock(self.hello_wall, bridge_now);
                    let until = now.monotonic + self.config.refused_pause;
                    self.phase = Phase::Refused { until, reason, by: Refuser::Bridge };
                }
            }
            Input::AskHello { session } => self.asked(now, session),
            Input::Acked { session, store, lanes } => {
                if let Some(live) = self.live(session) {
                    live.heard = now.monotonic;
                    self.acked(now, store, lanes);
                }
            }
            Input::Records(records) => self.records(now, records),
            Input::ProbeFailed { session, nonce, reason } => {
                if let Some(live) = self.live(session)
                    && live.probe.nonce == nonce
                {
                    live.probe.waiting = false;
                    live.probe.failed = Some(reason);
                }
            }
            Input::Probed { session, nonce, bridge_now } => {
                let asked = self.live(session).and_then(|live| {
                    live.heard = now.monotonic;
                    let probe = &mut live.probe;
                    let ours = probe.nonce == nonce && probe.waiting;
                    if ours {
                        probe.answered = Some(now.monotonic);
                        (probe.waiting, probe.overdue, probe.lost) = (false, false, 0);
                        probe.failed = None;
                    }
                    ours.then_some(probe.asked.wall)
                });
                if let Some(asked) = asked {
                    self.hear_clock(asked, bridge_now);
                    self.backoff_ceiling = BACKOFF_BASE.min(self.config.backoff_cap);
                }
            }
            Input::Command(command) => {
                if let Some(live) = self.live(command.session) {
                    live.heard = now.monotonic;
                    let offset_ms = self.offset_ms;
                    self.outputs.push(Output::Command { command, offset_ms });
                }
            }
            Input::CommandStored { session, id } => {
                if self.live(session).is_some() {
                    self.outputs.push(Output::Received { session, id });
                }
            }
        }
    }

    fn pass_time(&mut self, now: Now) {
        let monotonic = now.monotonic;
        match &mut self.phase {
            Phase::Waiting { until } if monotonic >= *until => {
                self.outputs.push(Output::Connect);
                self.phase = Phase::Connecting { until: monotonic + self.config.patience };
            }
            Phase::Connecting { until } if monotonic >= *until => {
                self.outputs.push(Output::Disconnect);
                self.lost(now, "the broker did not answer in time".to_owned());
            }
            Phase::Greeting { until, .. } | Phase::Refused { until, .. } if monotonic >= *until => {
                self.greet(now);
            }
            Phase::Live(session) => {
                session.land_late(monotonic);
                session.measure(monotonic);
                let overdue_at = session.probe.overdue_at(self.config.probe_interval);
                session.probe.overdue |= overdue_at.is_some_and(|at| monotonic >= at);
                if monotonic >= session.read_after {
                    session.read_after = Duration::ZERO;
                }
                let probe = &session.probe;
                if probe.told_queue && !probe.waiting && session.has_all(self.heads) {
                    let soon = probe.asked.monotonic + DRAINED_PAUSE;
                    session.probe.next = session.probe.next.min(soon);
                }
                if monotonic >= session.probe.next {
                    self.probe(now);
                }
            }
            Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Greeting { .. }
            | Phase::Refused { .. }
            | Phase::Resuming { .. }
            | Phase::Reforking => {}
        }
    }

    fn probe(&mut self, now: Now) {
        let nonce = self.next_random();
        let Phase::Live(session) = &mut self.phase else { return };
        let told_queue = !session.has_all(self.heads);
        let interval = self.config.probe_interval;
        let is_silent = now.monotonic.saturating_sub(session.heard) > interval;
        let probe = &mut session.probe;
        if std::mem::replace(&mut probe.waiting, true) {
            probe.lost += 1;
        }
        let is_unheard = is_silent && (probe.lost > 0 || probe.failed.is_some());
        if probe.lost >= PROBES_LOST || is_unheard {
            self.outputs.push(Output::Disconnect);
            self.lost(now, "the bridge stopped answering".to_owned());
            return;
        }
        (probe.nonce, probe.next) = (nonce, now.monotonic + interval);
        (probe.asked, probe.told_queue) = (now, told_queue);
        let session = session.id;
        self.outputs.push(Output::Probe { session, nonce });
    }

    /// Asks for records, while the window has room.
    fn pump(&mut self, now: Now) {
        let (config, heads) = (&self.config, self.heads);
        let Phase::Live(session) = &mut self.phase else { return };
        let held = now.monotonic < session.read_after;
        if session.reading.is_some() || held || session.flights.len() >= config.window {
            return;
        }
        let live = session.live_spans(heads);
        let (reading, max_bytes) = if !live.is_empty() {
            // Without room it waits: the backlog doesn't go before it.
            let Some(room) = session.live_room(config) else { return };
            let is_its_turn = session.live_in_a_row >= LIVE_IN_A_ROW
                && session.lacks_backlog()
                && session.takes_backlog(config);
            match session.backlog_span(heads).filter(|_| is_its_turn) {
                Some(span) => (Reading { spans: vec![span], live: false, room }, room),
                None => (Reading { spans: live, live: true, room }, room),
            }
        } else if let Some(room) = session.backlog_room(config)
            && let Some(span) = session.backlog_span(heads)
        {
            (Reading { spans: vec![span], live: false, room }, room)
        } else {
            return;
        };
        self.outputs.push(Output::Read {
            spans: reading.spans.clone(),
            max_records: config.batch_records,
            max_bytes,
        });
        session.reading = Some(reading);
    }

    fn records(&mut self, now: Now, records: Option<Vec<Record>>) {
        const AFTER_FAILURE: Duration = Duration::from_secs(1);
        let config = &self.config;
        let Phase::Live(session) = &mut self.phase else { return };
        let Some(reading) = session.reading.take() else { return };
        let Some(records) = records else {
            session.read_after = now.monotonic + AFTER_FAILURE;
            return;
        };
        let records = select(records, reading.room, config);
        if records.is_empty() {
            // Nothing stands for them in the journal, which its accounting rules out.
            tracing::error!(spans = ?reading.spans, "the journal lacks what the bridge lacks");
            session.read_after = now.monotonic + config.resend_after;
            return;
        }
        let spans: Vec<(Lane, u64, u64)> =
            records.iter().map(|record| (record.lane(), record.first(), record.seq())).collect();
        for &(lane, first, last) in &spans {
            session.lanes[lane.index()].in_flight.insert(first, last);
        }
        let bytes = records.iter().map(|record| record.as_bytes().len()).sum();
        let (sent, until) = (now.monotonic, now.monotonic + config.resend_after);
        session.flights.push(Flight { spans, live: reading.live, bytes, sent, until });
        let is_passed_over = reading.live && session.lacks_backlog();
        session.live_in_a_row = if is_passed_over { session.live_in_a_row + 1 } else { 0 };
        let session = session.id;
        self.outputs.push(Output::Send { session, records });
    }

    fn acked(&mut self, now: Now, store: StoreId, lanes: Vec<LaneAck>) {
        let Phase::Live(session) = &mut self.phase else { return };
        for ack in lanes {
            session.lanes[ack.lane.index()].store(ack);
        }
        session.land_stored(now.monotonic);
        let lanes = session.lanes.iter().filter_map(|lane| lane.ack.clone()).collect();
        let session = session.id;
        self.outputs.push(Output::Acknowledge { session, store, lanes });
    }

    fn resumed(&mut self, now: Now, resumed: u64, heads: Heads) {
        let Phase::Resuming { session, lanes, round_trip } = &mut self.phase else { return };
        if *session != resumed {
            return;
        }
        let most = self.config.backlog_window * self.config.batch_bytes;
        let (acks, pace) = (std::mem::take(lanes), Pace::new(*round_trip, most));
        let mut lanes: [LaneLink; 4] = Default::default();
        for lane in Lane::ALL {
            lanes[lane.index()].live_from = heads.next(lane);
        }
        for ack in acks {
            lanes[ack.lane.index()].store(ack);
        }
        self.heads = heads;
        (self.offline, self.attempts) = (None, 0);
        self.phase = Phase::Live(Box::new(Session {
            id: resumed,
            lanes,
            flights: Vec::new(),
            pace,
            reading: None,
            live_in_a_row: 0,
            heard: now.monotonic,
            progress: Progress { since: now.monotonic, landed: 0, per_second: None },
            // The first probe goes at once.
            probe: Probing {
                nonce: 0,
                next: now.monotonic,
                asked: now,
                told_queue: false,
                answered: None,
                failed: None,
                lost: 0,
                waiting: false,
                overdue: false,
            },
            read_after: Duration::ZERO,
        }));
    }

    fn greet(&mut self, now: Now) {
        let session = self.next_random();
        (self.hello_at, self.hello_wall) = (Some(now.monotonic), now.wall);
        self.phase = Phase::Greeting { session, until: now.monotonic + self.config.patience };
        self.outputs.push(Output::Hello { session });
    }

    /// The bridge has restarted, or lost track. One that asks without end is answered slowly.
    fn asked(&mut self, now: Now, asked: u64) {
        let ours = asked == 0 || self.session() == Some(asked);
        match &mut self.phase {
            // One that refused asks anybody when the reason is gone, rather than that the pause ends.
            Phase::Greeting { until, .. } | Phase::Refused { until, by: Refuser::Bridge, .. }
                if ours =>
            {
                let soon = self.hello_at.unwrap_or_default() + HELLO_PAUSE;
                *until = (*until).min(soon.max(now.monotonic));
            }
            Phase::Live(_) if ours => self.greet(now),
            Phase::Greeting { .. }
            | Phase::Live(_)
            | Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Resuming { .. }
            | Phase::Reforking
            | Phase::Refused { .. } => {}
        }
    }

    fn lost(&mut self, now: Now, reason: String) {
        let since = self.offline.take().map_or(now.wall, |(since, _)| since);
        self.offline = Some((since, reason));
        self.attempts = self.attempts.saturating_add(1);
        let ceiling = self.backoff_ceiling;
        self.backoff_ceiling = (ceiling * 2).min(self.config.backoff_cap);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        let wait = Duration::from_nanos(self.next_random() % nanos.saturating_add(1));
        self.phase = Phase::Waiting { until: now.monotonic + wait };
    }

    /// Only answers set the clock: between question and answer the bridge's time lies. What comes
    /// unasked may have been long under way, and a command that set the clock by itself would never
    /// be late. Counted from the question, the bridge's time is rather too late than too early.
    fn hear_clock(&mut self, asked: Timestamp, bridge_now: Timestamp) {
        self.offset_ms = Some(bridge_now.as_millis() - asked.as_millis());
    }

    fn is_greeting(&self, session: u64) -> bool {
        match &self.phase {
            Phase::Greeting { session: ours, .. } => *ours == session,
            Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Resuming { .. }
            | Phase::Reforking
            | Phase::Refused { .. }
            | Phase::Live(_) => false,
        }
    }

    /// The session under way or asked for.
    fn session(&self) -> Option<u64> {
        match &self.phase {
            Phase::Greeting { session, .. } | Phase::Resuming { session, .. } => Some(*session),
            Phase::Live(session) => Some(session.id),
            Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Reforking
            | Phase::Refused { .. } => None,
        }
    }

    fn live(&mut self, session: u64) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Live(live) if live.id == session => Some(live),
            Phase::Live(_)
            | Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Greeting { .. }
            | Phase::Resuming { .. }
            | Phase::Reforking
            | Phase::Refused { .. } => None,
        }
    }

    /// xorshift64*: spreads waits and names sessions; no secret hangs on it.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests;
