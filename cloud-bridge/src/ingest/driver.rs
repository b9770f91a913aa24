//! The engine: one task that takes what gateways, the broker and the API say, in rounds.
//!
//! A round is what waits, up to a bound; it ends in one commit, and only then anything is
//! acknowledged, sent or told. So a busy hour makes larger rounds, not longer queues.
//!
//! | input | leads to |
//! |---|---|
//! | a frame of a gateway | see [`link`](super::link) |
//! | one that can't be read | it is counted and told ([`unreadable`](super::unreadable)); the gateway is refused for a while |
//! | a status with the state `offline` | the gateway is offline; its status gets `since` |
//! | silence for two of its probes' intervals | the same |
//! | a command | it goes down when its gateway is there, again after each resume and probe |
//! | time | commands expire |
//! | the wall clock is set | what waits for a time of it is moved (`commands`) |

mod commands;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use rumqttc::{AsyncClient, QoS};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use topics::{
    CommandId, ConnectionState, Event, GatewayId, GatewayStatus, StoreId, Timestamp, Topic,
    link::{AskHello, Frame, LinkError, Outcome, Resume},
};

use super::{
    link::{Link, Output, ReadBatch, SILENCE_LIMIT},
    reader::{ReadFrame, Room},
    round::{Owed, Pending},
    unreadable::Reason,
};
use crate::{
    clock::Steps,
    command::Command,
    hub::Told,
    publisher::Outgoing,
    service::{self, Nudge, Shared},
    store::{Agent, Done, StoreError, StoredEvent},
    view,
};

/// Inputs in one round at most.
const ROUND_INPUTS: usize = 256;
/// Records in one round, about: some milliseconds of work beside one fsync. A gateway has about three times as
/// many events of an ordinary size under way, so that it sends the next ones while these are committed.
const ROUND_RECORDS: usize = 800;
/// Bytes in one round, about, as its records are in memory: a few large ones are a round, too.
const ROUND_BYTES: usize = 2 << 20;
/// After a failed commit, before the next: a full disk is no reason to spin.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How often silence is looked for.
const PATROL: Duration = Duration::from_secs(1);
/// A command that the gateway has not confirmed goes down again after this, at the next probe.
const RESEND_AFTER: Duration = Duration::from_secs(5);

/// Where an output belongs to no journal.
fn no_store() -> StoreId {
    StoreId::from_bytes([0; 16])
}

/// What the engine takes in.
#[derive(Debug)]
pub(crate) enum Input {
    /// A frame of a gateway.
    Frame { gateway: GatewayId, frame: Box<ReadFrame>, room: Room },
    /// A gateway's status on the broker.
    Status(GatewayStatus),
    /// The link's connection to the broker is there.
    LinkUp(AsyncClient),
    /// It is gone.
    LinkDown,
    /// Something from the API or the broker.
    Nudge(Nudge),
}

pub(crate) struct Engine {
    service: Shared,
    inputs: mpsc::Receiver<Input>,
    nudges: mpsc::Receiver<Nudge>,
    outbox: mpsc::Sender<Outgoing>,
    heads: watch::Sender<u64>,
    client: Option<AsyncClient>,
    links: HashMap<GatewayId, Link>,
    agents: HashMap<GatewayId, Agent>,
    open: HashMap<CommandId, Command>,
    next_patrol: Timestamp,
    /// What a round that failed would have committed and told of gateways' rows.
    owed: Owed,
    steps: Steps,
    /// Milliseconds by which the clock was set and open commands' times were not moved yet.
    clock_owed_ms: i64,
    /// When gateways that did not come back after this start are published as offline.
    announce_at: Option<Timestamp>,
}

/// The engine's ends of its channels.
pub(crate) struct Channels {
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) nudges: mpsc::Receiver<Nudge>,
    pub(crate) outbox: mpsc::Sender<Outgoing>,
    pub(crate) heads: watch::Sender<u64>,
}

impl Engine {
    /// An engine that goes on from what is committed; [`start_offline`](Self::start_offline) comes next.
    pub(crate) fn new(service: Shared, channels: Channels) -> Result<Self, StoreError> {
        let agents = service.store.agents()?.into_iter().map(|agent| (agent.id.clone(), agent));
        let agents: HashMap<GatewayId, Agent> = agents.collect();
        let open = service.store.open_commands()?.into_iter();
        let open = open.filter(|command| !command.status.is_final());
        let links = service.gateways.keys().map(|id| (id.clone(), Link::new(id.clone())));
        Ok(Self {
            links: links.collect(),
            open: open.map(|command| (command.id.clone(), command)).collect(),
            agents,
            client: None,
            next_patrol: Timestamp::default(),
            owed: Owed::default(),
            steps: Steps::default(),
            clock_owed_ms: 0,
            announce_at: Some(service.clock.wall().plus(SILENCE_LIMIT)),
            inputs: channels.inputs,
            nudges: channels.nudges,
            outbox: channels.outbox,
            heads: channels.heads,
            service,
        })
    }

    /// Until `stop`. What is committed by then is acknowledged; what is not comes again.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let mut wake = self.until_next_deadline(self.service.clock.wall());
            if self.service.store.refusal().is_some() {
                // What is due can't be committed now.
                wake = wake.max(AFTER_FAILURE);
            }
            let first = tokio::select! {
                () = stop.cancelled() => break,
                Some(input) = self.inputs.recv() => Some(input),
                Some(nudge) = self.nudges.recv() => Some(Input::Nudge(nudge)),
                () = tokio::time::sleep(wake) => None,
            };
            self.round(first).await;
            self.watch_store().await;
        }
    }

    /// Moves an outage of the store on. When there is room again, those who were turned away are asked back:
    /// what they have kept meanwhile shows whether it does.
    async fn watch_store(&mut self) {
        if self.service.store.pass_time().await {
            self.ask_hello();
        }
    }

    /// Asks the gateways that have no session for a hello.
    fn ask_hello(&self) {
        for (gateway, _) in self.links.iter().filter(|(_, link)| link.session().is_none()) {
            self.send(gateway, &Frame::AskHello(AskHello { session: 0 }));
        }
    }

    /// Nobody is online until it says so, also for who asks the API first thing. Their retained states are left
    /// alone for a while: they may be connected all the time.
    pub(crate) async fn start_offline(&mut self) {
        let mut pending = Pending::default();
        let now = self.service.clock.wall();
        let online: Vec<GatewayId> =
            self.agents.values().filter(|row| row.online).map(|row| row.id.clone()).collect();
        for gateway in online {
            self.mark_offline(&gateway, now, &mut pending);
        }
        self.commit(pending).await;
    }

    async fn round(&mut self, first: Option<Input>) {
        // Before anything is judged by it.
        self.watch_clock().await;
        let mut pending = std::mem::take(&mut self.owed).pending();
        let (mut records, mut bytes) = (0, 0);
        let mut waiting: VecDeque<Input> = first.into_iter().collect();
        for _ in 0..ROUND_INPUTS {
            let Some(input) = waiting.pop_front().or_else(|| self.next_waiting()) else { break };
            if let Input::Frame { frame, .. } = &input {
                records += frame.records();
                bytes += frame.bytes();
            }
            pending = self.take(input, pending).await;
            if records >= ROUND_RECORDS || bytes >= ROUND_BYTES {
                break;
            }
        }
        self.pass_time(self.service.clock.wall(), &mut pending);
        self.commit(pending).await;
    }

    fn next_waiting(&mut self) -> Option<Input> {
        self.inputs.try_recv().ok().or_else(|| self.nudges.try_recv().ok().map(Input::Nudge))
    }

    async fn take(&mut self, input: Input, mut pending: Pending) -> Pending {
        let now = self.service.clock.wall();
        match input {
            Input::Frame { gateway, frame, room, .. } => {
                drop(room);
                match *frame {
                    ReadFrame::Batch { batch, .. } => {
                        self.batch(&gateway, batch, now, &mut pending)
                    }
                    ReadFrame::Other { frame, .. } => {
                        return self.frame(gateway, frame, now, pending).await;
                    }
                    ReadFrame::Unreadable { error, payload } => {
                        self.unreadable(&gateway, &error, &payload, now, &mut pending);
                    }
                }
            }
            Input::Status(status) => self.status(&status, now, &mut pending),
            Input::LinkUp(client) => {
                self.client = Some(client);
                self.ask_hello();
            }
            Input::LinkDown => self.client = None,
            Input::Nudge(Nudge::Command(command)) => self.nudged(*command, now, &mut pending),
        }
        pending
    }

    fn unreadable(
        &mut self,
        gateway: &GatewayId,
        error: &LinkError,
        frame: &[u8],
        now: Timestamp,
        pending: &mut Pending,
    ) {
        let (reason, link) = (Reason::of(error, frame), self.links.get_mut(gateway));
        let message = reason.message(error);
        let known = link.is_some().then_some(gateway);
        let noted = self.service.unreadable().note(now, known, reason, &message);
        if let Some(frames) = noted.log {
            tracing::error!(%gateway, reason = reason.as_str(), frames, %error,
                "frames can't be read; this is said once an hour");
        }
        if noted.is_new {
            pending.told.push((gateway.clone(), "agent:info"));
        }
        let Some(link) = link.filter(|_| reason.is_of_gateway()) else { return };
        for output in link.unreadable(now, format!("the gateway {message}")) {
            pending.add(&self.service, gateway, no_store(), output, &self.open, now);
        }
    }

    async fn frame(
        &mut self,
        gateway: GatewayId,
        frame: Frame,
        now: Timestamp,
        mut pending: Pending,
    ) -> Pending {
        if !self.links.contains_key(&gateway) {
            refuse_unknown(&gateway, &frame, now, &mut pending);
            return pending;
        }
        if let Frame::Hello(hello) = &frame {
            // A hello is answered with what is committed, so what came before it must be.
            self.commit(std::mem::take(&mut pending)).await;
            if let Some(outage) = self.service.store.refusal() {
                let Some(link) = self.links.get_mut(&gateway) else { return pending };
                let reason = takes_nothing(&outage);
                let refusal = link.turn_away(now, hello.session, hello.store, reason);
                pending.sends.push((gateway, refusal));
                return pending;
            }
            let committed = self.service.store.cursors(&gateway, hello.store);
            let Some(link) = self.links.get_mut(&gateway) else { return pending };
            let outputs = match committed {
                Ok(cursors) => link.hello(now, hello.clone(), cursors),
                Err(StoreError::Corrupt(_)) => link.hello_of_unknown(now, hello),
                Err(error) => {
                    service::told(&error, "a gateway's cursors can't be read");
                    let reason = takes_nothing(&error);
                    vec![Output::Send(link.turn_away(now, hello.session, hello.store, reason))]
                }
            };
            self.apply(&gateway, hello.store, outputs, now, &mut pending);
            return pending;
        }
        let Some(link) = self.links.get_mut(&gateway) else { return pending };
        let outputs = match frame {
            Frame::Probe(probe) => link.probe(now, probe),
            Frame::Received(received) => link.received(now, received),
            // A batch comes read.
            Frame::Batch(_)
            | Frame::Hello(_)
            | Frame::Resume(_)
            | Frame::Ack(_)
            | Frame::Command(_)
            | Frame::Probed(_)
            | Frame::AskHello(_)
            | Frame::Unknown(_) => Vec::new(),
        };
        if !outputs.is_empty() {
            self.apply(&gateway, no_store(), outputs, now, &mut pending);
        }
        pending
    }

    fn batch(
        &mut self,
        gateway: &GatewayId,
        batch: ReadBatch,
        now: Timestamp,
        pending: &mut Pending,
    ) {
        let Some(link) = self.links.get_mut(gateway) else { return };
        let (store, session) = (batch.store, batch.session);
        let outputs = link.batch(now, batch);
        if link.session() == Some(session) {
            pending.acks.insert(gateway.clone());
        }
        self.apply(gateway, store, outputs, now, pending);
    }

    fn apply(
        &mut self,
        gateway: &GatewayId,
        store: StoreId,
        outputs: Vec<Output>,
        now: Timestamp,
        pending: &mut Pending,
    ) {
        for output in outputs {
            match output {
                Output::Greeted { store, agent } => {
                    let readers = agent.readers.clone();
                    self.online(gateway, now, pending, |row| {
                        row.store = Some(store);
                        row.info = agent;
                        row.readers = readers;
                    });
                    pending.told.push((gateway.clone(), "agent:info"));
                    pending.resumed.insert(gateway.clone());
                }
                Output::Probed { nonce, readers, queued } => {
                    pending.round.probes.push((gateway.clone(), nonce));
                    self.online(gateway, now, pending, |row| {
                        row.readers = readers;
                        row.queued = queued;
                    });
                    self.send_commands(gateway, now, RESEND_AFTER, pending);
                }
                other => pending.add(&self.service, gateway, store, other, &self.open, now),
            }
        }
        if pending.resumed.remove(gateway) {
            self.send_commands(gateway, now, Duration::ZERO, pending);
        }
    }

    fn status(&mut self, status: &GatewayStatus, now: Timestamp, pending: &mut Pending) {
        let offline = match status.state {
            ConnectionState::Offline => true,
            ConnectionState::Online => false,
        };
        // With `since` it is what this bridge published itself.
        if !offline || status.since.is_some() || !self.links.contains_key(&status.gateway) {
            return;
        }
        let gateway = &status.gateway;
        if self.agents.get(gateway).is_some_and(|row| row.online) {
            self.offline(gateway, now, pending);
        } else {
            let since = self.agents.get(gateway).map_or(now, |row| row.since);
            self.publish_offline(gateway, since);
        }
    }

    fn online(
        &mut self,
        gateway: &GatewayId,
        now: Timestamp,
        pending: &mut Pending,
        change: impl FnOnce(&mut Agent),
    ) {
        let row = self.agents.entry(gateway.clone()).or_insert_with(|| Agent {
            id: gateway.clone(),
            online: false,
            since: now,
            last_seen: now,
            created_at: now,
            store: None,
            info: topics::link::AgentInfo::default(),
            readers: Vec::new(),
            queued: 0,
        });
        if !row.online {
            (row.online, row.since) = (true, now);
            pending.told.push((gateway.clone(), "agent:online"));
            tracing::info!(%gateway, "online");
        }
        row.last_seen = now;
        change(row);
        pending.dirty.insert(gateway.clone());
    }

    fn offline(&mut self, gateway: &GatewayId, now: Timestamp, pending: &mut Pending) {
        self.mark_offline(gateway, now, pending);
        self.publish_offline(gateway, now);
    }

    fn mark_offline(&mut self, gateway: &GatewayId, now: Timestamp, pending: &mut Pending) {
        let Some(row) = self.agents.get_mut(gateway).filter(|row| row.online) else { return };
        (row.online, row.since) = (false, now);
        pending.told.push((gateway.clone(), "agent:offline"));
        pending.dirty.insert(gateway.clone());
        tracing::warn!(%gateway, "offline");
    }

    fn publish_offline(&self, gateway: &GatewayId, since: Timestamp) {
        let mut status = GatewayStatus::offline(gateway.clone());
        status.since = Some(since);
        if self.outbox.try_send(Outgoing::Status(status)).is_err() {
            tracing::warn!(%gateway, "its offline status is not published: the broker is behind");
        }
    }

    fn pass_time(&mut self, now: Timestamp, pending: &mut Pending) {
        self.expire(now, pending);
        if now < self.next_patrol {
            return;
        }
        self.next_patrol = now.plus(PATROL);
        let silent: Vec<GatewayId> = self
            .agents
            .values()
            .filter(|row| row.online)
            .filter(|row| !self.links.get(&row.id).is_some_and(|link| link.is_live(now)))
            .map(|row| row.id.clone())
            .collect();
        for gateway in silent {
            self.offline(&gateway, now, pending);
        }
        let readable = self.service.unreadable().pass_time(now);
        pending.told.extend(readable.into_iter().map(|gateway| (gateway, "agent:info")));
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce_at = None;
            for row in self.agents.values().filter(|row| !row.online) {
                self.publish_offline(&row.id, row.since);
            }
        }
    }

    fn until_next_deadline(&self, now: Timestamp) -> Duration {
        let deadlines = self.deadlines();
        let next = deadlines.chain([self.next_patrol]).min().unwrap_or(now);
        // Rounded up: a wake just before the deadline would only wake again.
        next.since(now) + Duration::from_millis(1)
    }

    /// Commits the round, then tells. A failed commit happened to nobody: the gateways of the round
    /// say hello again (and are refused while the store takes nothing), and the commands are tried at the
    /// next deadline. Whether it was committed.
    async fn commit(&mut self, mut pending: Pending) -> bool {
        if pending.is_empty() {
            return true;
        }
        pending.round.agents =
            pending.dirty.iter().filter_map(|id| self.agents.get(id)).cloned().collect();
        let gateways: Vec<GatewayId> = pending.acks.union(&pending.dirty).cloned().collect();
        let round = pending.take_round();
        let is_refused = self.service.store.refusal().is_some();
        let done = if round.is_empty() {
            Ok(Done::default())
        } else {
            self.service.store.ingest(round).await
        };
        match done {
            Ok(done) => {
                self.tell(pending, done);
                true
            }
            Err(error) => {
                self.not_committed(&error, pending, &gateways);
                if !is_refused {
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                false
            }
        }
    }

    /// Nothing that rests on the round is told. What rows said is owed, who was resumed is refused, and the
    /// others are asked for a hello, to be refused with the reason. They are there all the same.
    fn not_committed(&mut self, error: &StoreError, pending: Pending, gateways: &[GatewayId]) {
        service::told(error, "a round was not committed; its gateways send again");
        let now = self.service.clock.wall();
        let mut answered = BTreeSet::new();
        for (gateway, frame) in &pending.sends {
            let (Frame::Resume(resume), Some(link)) = (frame, self.links.get_mut(gateway)) else {
                continue;
            };
            match &resume.outcome {
                Outcome::Resume { .. } => {
                    link.forget(now);
                    let reason = takes_nothing(error);
                    let refusal = link.turn_away(now, resume.session, resume.store, reason);
                    self.send(gateway, &refusal);
                }
                // These rest on no commit.
                Outcome::Forked { .. } | Outcome::Refused { .. } => self.send(gateway, frame),
            }
            answered.insert(gateway);
        }
        for gateway in gateways.iter().filter(|gateway| !answered.contains(gateway)) {
            if let Some(session) = self.links.get_mut(gateway).and_then(|link| link.forget(now)) {
                self.send(gateway, &Frame::AskHello(AskHello { session }));
            }
        }
        self.owed.take_over(pending);
    }

    fn tell(&mut self, pending: Pending, done: Done) {
        let now = self.service.clock.wall();
        for (gateway, frame) in pending.sends {
            self.send(&gateway, &frame);
        }
        for gateway in &pending.acks {
            if let Some(ack) = self.links.get(gateway).and_then(|link| link.ack(now)) {
                self.send(gateway, &ack);
            }
        }
        for (gateway, kind) in pending.told {
            let view = self.service.shown(&gateway, self.agents.get(&gateway));
            let message = view::agent_message(kind, &gateway, view, now);
            self.service.hub.tell(Told::Agent { agent: gateway, message });
        }
        if self.service.hub.is_heard() {
            self.broadcast(&pending.parsed, &done.events);
        }
        if let Some(last) = done.events.last() {
            self.heads.send_replace(last.index);
        }
        self.refresh(
            pending.ticked.into_iter().filter(|id| done.commands.iter().all(|c| c.id != *id)),
        );
        for command in done.commands {
            if command.status.is_final() {
                self.open.remove(&command.id);
                self.service.hub.tell(Told::Ended(Box::new(command.clone())));
                self.answer(command);
            } else {
                self.open.insert(command.id.clone(), command);
            }
        }
    }

    /// `stored` are those of the `parsed` that are new, in the same order.
    fn broadcast(&self, parsed: &[Event], stored: &[StoredEvent]) {
        let mut parsed = parsed.iter();
        for StoredEvent { index, event: row } in stored {
            let Some(event) = parsed.find(|event| event.id == row.id) else { continue };
            self.service.hub.tell(Told::Event {
                index: *index,
                agent: row.gateway.clone(),
                device: event.body.reader().cloned(),
                message: view::broadcast(row, event),
            });
        }
    }

    /// What doesn't reach the broker is sent again: acknowledgements and probes by the gateway's
    /// asking, commands by the next resume or probe.
    fn send(&self, gateway: &GatewayId, frame: &Frame) {
        let Some(client) = &self.client else { return };
        let topic = Topic::LinkDown { gateway: gateway.clone() }.format(&self.service.root);
        match frame.encode() {
            Ok(bytes) => {
                if client.try_publish(topic, QoS::AtLeastOnce, false, bytes).is_err() {
                    tracing::warn!(%gateway, "a frame is not sent: the broker is behind");
                }
            }
            Err(error) => tracing::error!(%gateway, %error, "a frame can't be made"),
        }
    }
}

fn takes_nothing(outage: &StoreError) -> String {
    match outage {
        StoreError::Full => "its disk is full".to_owned(),
        StoreError::Closed
        | StoreError::Reopening
        | StoreError::GivenUp
        | StoreError::Corrupt(_)
        | StoreError::Database(_) => "its store takes nothing".to_owned(),
    }
}

fn refuse_unknown(gateway: &GatewayId, frame: &Frame, now: Timestamp, pending: &mut Pending) {
    let Frame::Hello(hello) = frame else { return };
    tracing::error!(%gateway, "this gateway is not configured here; it is refused");
    let reason = format!("gateway {gateway} is not configured at this bridge ([[gateways]])");
    let outcome = Outcome::Refused { reason };
    let resume = Resume { session: hello.session, store: hello.store, now, outcome };
    pending.sends.push((gateway.clone(), Frame::Resume(resume)));
}
