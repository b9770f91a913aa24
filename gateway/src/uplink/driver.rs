//! Runs the core: see [`uplink`](super).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, MutexGuard, oneshot, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{
    CommandId, Lane, Record, StoreId, Timestamp, Topic, UplinkState,
    link::{Batch, CommandDown, Frame, Hello, LaneAck, LaneHello, Outcome, Probe, Received},
};

use super::{
    Incoming, Parts, UplinkConfig, UplinkHandle,
    connection::{Arrival, Connection},
    core::{Core, Input, Now, Output},
    status::{Board, Retained},
};
use crate::journal::{self, Heads, Journal, JournalError, LaneView, Table};

/// The row that each probe overwrites.
const PROBE_KEY: &str = "uplink-probe";
/// Between two looks for the oldest queued event.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The nonce of a probe whose row is not in the journal; the core's are never 0.
const PROVES_NOTHING: u64 = 0;
/// The longest sleep: deadlines "never" have to be some time.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Acknowledgements on their way into the journal: the newest says all.
#[derive(Clone)]
struct Acks {
    session: u64,
    store: StoreId,
    lanes: Vec<LaneAck>,
}

/// A session whose acknowledgements are of another journal, and why they are taken for that.
type Fork = Option<(u64, String)>;

pub(super) fn start(
    config: UplinkConfig,
    parts: Parts,
    tracker: &TaskTracker,
    token: CancellationToken,
) -> UplinkHandle {
    let heads = parts.journal.heads();
    let mut seed = [0; 8];
    // Without random numbers, gateways that start together meet at the broker; no more than that.
    let _ = getrandom::fill(&mut seed);
    let started = Instant::now();
    let now = now(started);
    let core = Core::new(config.link.clone(), *heads.borrow(), u64::from_le_bytes(seed), now);
    let (state, state_seen) = watch::channel(core.state(now, parts.journal.queued()));
    let (offset_ms, offset_seen) = watch::channel(None);
    let (acks, acks_seen) = watch::channel(None);
    let keeping = Arc::new(Mutex::new(()));
    let (forks, forks_seen) = watch::channel(None);
    tracker.spawn(keep_acks(parts.journal.clone(), acks_seen, keeping.clone(), forks));
    let driver = Driver {
        up_topic: Topic::LinkUp { gateway: config.gateway.clone() }.format(&config.root),
        board: Board::new(now.wall),
        oldest: Oldest::default(),
        config,
        parts,
        core,
        started,
        heads,
        connection: None,
        durable: JoinSet::new(),
        tracker: tracker.clone(),
        state,
        offset_ms,
        acks,
        keeping,
        forks: forks_seen,
    };
    tracker.spawn(driver.run(token));
    UplinkHandle { state: state_seen, offset_ms: offset_seen }
}

/// Takes acknowledgements down in the journal, the newest first: while one is written, others may come
/// and be passed over. Ends with the driver.
async fn keep_acks(
    journal: Journal,
    mut acks: watch::Receiver<Option<Acks>>,
    keeping: Arc<Mutex<()>>,
    forks: watch::Sender<Fork>,
) {
    while acks.changed().await.is_ok() {
        let _keeping = keeping.lock().await;
        let Some(Acks { session, store, lanes }) = acks.borrow_and_update().clone() else {
            continue;
        };
        if journal.store() != store {
            continue;
        }
        match journal.acknowledge(lanes).await {
            Ok(()) => {}
            Err(error @ JournalError::Forked { .. }) => {
                forks.send_replace(Some((session, error.to_string())));
            }
            // The next hello settles it: there the bridge says again what it has.
            Err(error) => {
                tracing::warn!(%error, "an acknowledgement of the bridge could not be taken down");
            }
        }
    }
}

fn now(started: Instant) -> Now {
    Now { monotonic: started.elapsed(), wall: journal::now() }
}

struct Driver {
    config: UplinkConfig,
    parts: Parts,
    core: Core,
    started: Instant,
    heads: watch::Receiver<Heads>,
    connection: Option<Connection>,
    /// Commands that are becoming durable.
    durable: JoinSet<Option<(u64, CommandId)>>,
    tracker: TaskTracker,
    board: Board,
    oldest: Oldest,
    up_topic: String,
    state: watch::Sender<UplinkState>,
    offset_ms: watch::Sender<Option<i64>>,
    acks: watch::Sender<Option<Acks>>,
    /// Held while one is taken down.
    keeping: Arc<Mutex<()>>,
    forks: watch::Receiver<Fork>,
}

/// When the oldest event was made that the bridge lacks. It is read from the journal, so not each time.
#[derive(Debug, Default)]
struct Oldest {
    looked: Option<Duration>,
    made: Option<Timestamp>,
}

impl Oldest {
    fn age(&mut self, journal: &Journal, now: Now) -> Option<u64> {
        let is_due = |looked| now.monotonic.saturating_sub(looked) >= LOOK_AGAIN;
        if self.looked.is_none_or(is_due) {
            self.looked = Some(now.monotonic);
            self.made = journal.oldest_queued().unwrap_or_else(|error| {
                tracing::debug!(%error, "the oldest queued event can't be read");
                None
            });
        }
        self.made.map(|made| now.wall.since(made).as_secs())
    }
}

/// What the driver waits for.
enum Event {
    Input(Input),
    Arrival(Arrival),
    Readers,
    Stop,
}

impl Driver {
    async fn run(mut self, token: CancellationToken) {
        self.step(Input::Tick).await;
        loop {
            match self.next(&token).await {
                Event::Input(input) => self.step(input).await,
                Event::Arrival(arrival) => self.arrived(arrival).await,
                Event::Readers => self.tell_readers(),
                Event::Stop => break,
            }
        }
        if let Some(connection) = self.connection.take() {
            let Retained { topic, payload } = self.board.offline(&self.config, journal::now());
            connection.publish(topic, true, payload);
            connection.say_goodbye();
        }
    }

    async fn next(&mut self, token: &CancellationToken) -> Event {
        let sleep = self.core.deadline().saturating_sub(self.started.elapsed());
        tokio::select! {
            () = token.cancelled() => Event::Stop,
            Ok(()) = self.heads.changed() => {
                Event::Input(Input::Heads(*self.heads.borrow_and_update()))
            }
            Ok(()) = self.forks.changed() => {
                Event::Input(match self.forks.borrow_and_update().clone() {
                    Some((session, reason)) => Input::Forked { session, reason },
                    None => Input::Tick,
                })
            }
            arrival = arrival(&mut self.connection) => Event::Arrival(arrival),
            Some(done) = self.durable.join_next() => Event::Input(match done {
                Ok(Some((session, id))) => Input::CommandStored { session, id },
                Ok(None) | Err(_) => Input::Tick, // not durable: the bridge sends it again
            }),
            Ok(()) = self.parts.readers.changed() => Event::Readers,
            () = tokio::time::sleep(sleep.min(LONGEST_SLEEP)) => Event::Input(Input::Tick),
        }
    }

    /// Takes the core through an input and what follows from it.
    async fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let outputs = self.core.step(now(self.started), input);
            for output in outputs {
                // An answer is the core's next input; there is one at most for each output.
                if let Some(answer) = self.perform(output).await {
                    inputs.insert(0, answer);
                }
            }
        }
        self.publish_state();
    }

    async fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Connect => {
                self.connection = Some(Connection::start(&self.config, &self.tracker));
                None
            }
            Output::Disconnect => {
                self.connection = None;
                None
            }
            Output::Hello { session } => {
                self.send(&Frame::Hello(self.hello(session)));
                None
            }
            Output::Resume { session, lanes } => Some(self.resume(session, lanes).await),
            Output::Acknowledge { session, store, lanes } => {
                self.acks.send_replace(Some(Acks { session, store, lanes }));
                None
            }
            Output::Refork { reason } => Some(self.refork(&reason).await),
            Output::Read { spans, max_records, max_bytes } => {
                Some(Input::Records(self.read(&spans, max_records, max_bytes)))
            }
            Output::Send { session, records } => {
                let store = self.parts.journal.store();
                self.send(&Frame::Batch(Batch { store, session, records }));
                None
            }
            Output::Probe { session, nonce } => {
                let failed = self.probe(session, nonce).await.err();
                failed.map(|reason| Input::ProbeFailed { session, nonce, reason })
            }
            Output::Command { command, offset_ms } => {
                self.command(*command, offset_ms);
                None
            }
            Output::Received { session, id } => {
                self.send(&Frame::Received(Received { session, command: id }));
                None
            }
        }
    }

    async fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Up => {
                self.board.connected(journal::now());
                self.step(Input::Connected).await;
                self.tell_gateway();
                self.tell_readers();
            }
            Arrival::Frame(bytes) => {
                if let Some(input) = self.frame(&bytes) {
                    self.step(input).await;
                }
            }
            Arrival::Down(reason) => {
                self.connection = None;
                tracing::warn!(%reason, "the connection to the bridge's broker is lost");
                self.step(Input::Disconnected { reason }).await;
            }
        }
    }

    fn frame(&self, bytes: &Bytes) -> Option<Input> {
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "a frame of the bridge can't be read");
                return None;
            }
        };
        match frame {
            Frame::Resume(resume) => Some(match resume.outcome {
                Outcome::Resume { lanes } => {
                    Input::Resume { session: resume.session, lanes, bridge_now: resume.now }
                }
                Outcome::Forked { reason } => Input::Forked { session: resume.session, reason },
                Outcome::Refused { reason } => {
                    Input::Refused { session: resume.session, reason, bridge_now: resume.now }
                }
            }),
            Frame::Ack(ack) => (ack.store == self.parts.journal.store()).then_some(Input::Acked {
                session: ack.session,
                store: ack.store,
                lanes: ack.lanes,
            }),
            Frame::Command(command) => Some(Input::Command(Box::new(command))),
            Frame::Probed(probed) => Some(Input::Probed {
                session: probed.session,
                nonce: probed.nonce,
                bridge_now: probed.now,
            }),
            Frame::AskHello(ask) => Some(Input::AskHello { session: ask.session }),
            // Ours to send, or of a newer bridge.
            Frame::Hello(_)
            | Frame::Batch(_)
            | Frame::Received(_)
            | Frame::Probe(_)
            | Frame::Unknown(_) => None,
        }
    }

    fn hello(&self, session: u64) -> Hello {
        let mut agent = self.config.agent.clone();
        agent.readers.clone_from(&self.parts.readers.borrow());
        Hello {
            session,
            gateway: self.config.gateway.clone(),
            store: self.parts.journal.store(),
            boot: journal::boot_id(),
            uptime_ms: journal::uptime_ms(),
            wall: journal::now(),
            probe_ms: u64::try_from(self.config.link.probe_interval.as_millis()).ok(),
            lanes: self.parts.journal.lanes().into_iter().map(lane_hello).collect(),
            agent,
        }
    }

    async fn resume(&mut self, session: u64, lanes: Vec<LaneAck>) -> Input {
        let nothing_kept = self.forget_acks().await;
        match self.parts.journal.resume(lanes.clone()).await {
            Ok(()) => {}
            Err(error @ JournalError::Forked { .. }) => {
                return Input::Forked { session, reason: error.to_string() };
            }
            // A bridge that was restored lacks what may be trimmed here: without the gaps that a resume
            // makes there would be nothing to send.
            Err(error) if self.parts.journal.lanes().iter().any(|it| it.is_ahead_of(&lanes)) => {
                drop(nothing_kept);
                self.connection = None;
                return Input::Disconnected { reason: error.to_string() };
            }
            // It goes on: what the bridge lacks is sent whether or not this was written down. What it
            // has is tried again, with each probe at the latest.
            Err(error) => {
                tracing::warn!(%error, "where the bridge stands was not written down");
                let store = self.parts.journal.store();
                self.acks.send_replace(Some(Acks { session, store, lanes }));
            }
        }
        Input::Resumed { session, heads: *self.parts.journal.heads().borrow() }
    }

    /// What the last session acknowledged must not reach the journal after a resume: a bridge restored
    /// from a backup has no longer all of it. None does while the guard is there.
    async fn forget_acks(&self) -> MutexGuard<'_, ()> {
        let guard = self.keeping.lock().await;
        self.acks.send_replace(None);
        guard
    }

    async fn refork(&self, reason: &str) -> Input {
        tracing::error!(%reason, "the bridge knows another journal under this store id");
        let _nothing_kept = self.forget_acks().await;
        match self.parts.journal.refork().await {
            Ok(store) => {
                tracing::error!(%store, "the journal has a new store id");
                Input::Reforked { store: Some(store) }
            }
            Err(error) => {
                tracing::error!(%error, "the journal could not take a new store id");
                Input::Reforked { store: None }
            }
        }
    }

    fn read(
        &self,
        spans: &[(Lane, u64, u64)],
        max_records: usize,
        max_bytes: usize,
    ) -> Option<Vec<Record>> {
        let mut found = Vec::new();
        let mut failed = false;
        for &(lane, first, last) in spans {
            match self.parts.journal.read(lane, first, max_records, max_bytes) {
                Ok(records) => {
                    found.extend(records.into_iter().take_while(|record| record.first() <= last));
                }
                Err(error) => {
                    // The others must not wait for this one.
                    tracing::error!(%lane, first, %error, "the journal can't be read");
                    failed = true;
                }
            }
        }
        (!failed || !found.is_empty()).then_some(found)
    }

    /// The way that a probe proves begins in the journal.
    async fn probe(&mut self, session: u64, nonce: u64) -> Result<(), String> {
        let row = journal::Batch::new().put(
            Table::Settings,
            PROBE_KEY,
            journal::now().to_string().into_bytes(),
        );
        // What the bridge acknowledged before is taken down first, or the count would be an old one.
        let acks = self.acks.borrow().clone();
        if let Some(Acks { lanes, .. }) =
            acks.filter(|acks| acks.store == self.parts.journal.store())
            && let Err(error) = self.parts.journal.acknowledge(lanes).await
        {
            tracing::warn!(%error, "an acknowledgement of the bridge could not be taken down");
        }
        let committed = self.parts.journal.commit(row).await.map(drop).map_err(|error| {
            tracing::warn!(%error, "the journal failed the probe");
            error.to_string()
        });
        self.publish_state();
        let queued = self.parts.journal.queued();
        let readers = self.parts.readers.borrow().clone();
        // It goes all the same, so that the bridge knows that somebody is here; its answer proves nothing.
        let nonce = if committed.is_ok() { nonce } else { PROVES_NOTHING };
        self.send(&Frame::Probe(Probe { session, nonce, readers, queued }));
        self.tell_gateway();
        committed
    }

    fn command(&mut self, command: CommandDown, offset_ms: Option<i64>) {
        let (session, id) = (command.session, command.id.clone());
        let (durable, became) = oneshot::channel();
        if self.parts.commands.try_send(Incoming { command, offset_ms, durable }).is_err() {
            tracing::warn!(command = %id, "no room for a command; the bridge will send it again");
            return;
        }
        self.durable.spawn(async move { became.await.ok().map(|()| (session, id)) });
    }

    fn send(&self, frame: &Frame) {
        let Some(connection) = &self.connection else { return };
        match frame.encode() {
            Ok(payload) => {
                if !connection.publish(self.up_topic.clone(), false, payload) {
                    tracing::debug!("no room for a frame; it goes again");
                }
            }
            Err(error) => tracing::error!(%error, "a frame can't be sent"),
        }
    }

    fn publish_state(&mut self) {
        let now = now(self.started);
        let mut state = self.core.state(now, self.parts.journal.queued());
        if let UplinkState::CatchingUp { oldest_seconds, .. } = &mut state {
            *oldest_seconds = self.oldest.age(&self.parts.journal, now);
        }
        let word = state.as_str();
        let before = self.state.send_replace(state);
        if before.as_str() != word {
            tracing::info!(from = before.as_str(), to = word, "uplink");
            self.tell_gateway();
        }
        let offset_ms = self.core.offset_ms();
        self.offset_ms.send_if_modified(|told| std::mem::replace(told, offset_ms) != offset_ms);
    }

    fn tell_gateway(&self) {
        let Some(connection) = &self.connection else { return };
        let readers = self.parts.readers.borrow().clone();
        let state = self.state.borrow().clone();
        let Retained { topic, payload } = self.board.gateway(&self.config, state, &readers);
        connection.publish(topic, true, payload);
    }

    fn tell_readers(&mut self) {
        let readers = self.parts.readers.borrow_and_update().clone();
        let Some(connection) = &self.connection else { return };
        for Retained { topic, payload } in
            self.board.readers(&self.config, &readers, journal::now())
        {
            connection.publish(topic, true, payload);
        }
    }
}

async fn arrival(connection: &mut Option<Connection>) -> Arrival {
    match connection {
        Some(connection) => connection.arrival().await,
        None => std::future::pending().await,
    }
}

fn lane_hello(lane: LaneView) -> LaneHello {
    let LaneView { lane, oldest, next, watermark, chain, .. } = lane;
    LaneHello { lane, oldest, next, watermark, chain }
}
