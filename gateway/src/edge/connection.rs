//! One connection to the broker after the other: the driver of [`Outbox`], [`Board`] and requests.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use rumqttc::v5::{
    AsyncClient, ClientError, ConnectionError, Event, EventLoop, Incoming,
    mqttbytes::{
        QoS,
        v5::{LastWill, PubAckReason, Publish, PublishProperties, SubscribeReasonCode},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, interval, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use topics::{
    CommandId, CommandRequest, CommandResponse, Event as RecordedEvent, Lane, Record, Timestamp,
    Topic, topic::Filter,
};

use super::{
    Counters, Parts,
    outbox::{Acknowledged, Outbox, Tag, WINDOW},
    request::{self, ReplyTo},
    status::{Board, Retained},
};
use crate::{
    command::Submission,
    journal::{Heads, JournalError},
};

/// The client's queue: the window, states of a few dozen readers, responses. Never full while the
/// event loop turns, because records stop at the window.
const CLIENT_QUEUE: usize = 4 * WINDOW;
/// What the event loop told and nobody has looked at yet.
const LOOP_EVENTS: usize = 64;
/// Responses that wait for the connection; past it the oldest is dropped (the event
/// `command:result` tells the same, and the journal keeps it).
const MAX_RESPONSES: usize = 1_024;
/// Requesters that asked for a topic of their own, or gave correlation data.
const MAX_ASKING: usize = 1_024;
/// Records read at a time of a lane.
const CHUNK_RECORDS: usize = 16;
const CHUNK_BYTES: usize = 64 * 1024;
/// A status on change at most this often, and without one this often.
const STATUS_AT_MOST: Duration = Duration::from_secs(1);
const STATUS_AT_LEAST: Duration = Duration::from_secs(60);
/// A broker that does not answer within this wait is not there.
const CONNECT_WAIT_SECONDS: u64 = 5;
/// The last word has this long to arrive.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Connection(#[from] Box<ConnectionError>),
    #[error("the broker refused a publish: {0:?}")]
    PublishRefused(PubAckReason),
    #[error("the broker refused the subscription to commands: {0:?}")]
    SubscribeRefused(SubscribeReasonCode),
    #[error("the client's queue is full or closed")]
    Client,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<ClientError> for Ended {
    fn from(_: ClientError) -> Self {
        Ended::Client
    }
}

/// What stays from one connection to the next.
pub(super) struct Connection {
    parts: Parts,
    counters: Arc<Counters>,
    outbox: Outbox,
    /// Of the embedded broker, at the last connection.
    generation: u64,
    board: Board,
    /// Whom the response to a running command goes to.
    asking: HashMap<CommandId, ReplyTo>,
    /// Results from here on are of commands that were asked for in this process.
    asked_from: u64,
    /// To be published, in order.
    responses: VecDeque<Response>,
    /// Published, and not acknowledged yet.
    under_way: BTreeMap<u64, Response>,
    numbers: u64,
}

struct Response {
    reply: ReplyTo,
    body: CommandResponse,
}

impl Connection {
    pub(super) fn new(parts: Parts, counters: Arc<Counters>) -> Self {
        let outbox = Outbox::new(Lane::ALL.map(|lane| parts.journal.edge_cursor(lane)));
        let (gateway, root) = (parts.gateway.clone(), parts.root.clone());
        let board = Board::new(gateway, root, now(), parts.started);
        let generation = parts.generations.as_ref().map_or(0, |generations| *generations.borrow());
        let asked_from = parts.journal.heads().borrow().next(Lane::Results);
        Self {
            parts,
            counters,
            outbox,
            generation,
            board,
            asking: HashMap::new(),
            asked_from,
            responses: VecDeque::new(),
            under_way: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// Connects and publishes until the connection breaks, or `token` is cancelled.
    pub(super) async fn run(&mut self, token: &CancellationToken) -> Result<(), Ended> {
        self.outbox.restart();
        self.board.restart();
        while let Some((_, response)) = self.under_way.pop_last() {
            self.responses.push_front(response);
        }
        let mut options = self.parts.target.v5();
        let (topic, payload) = self.board.will();
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true, None));
        options.set_manual_acks(true);
        options.set_connection_timeout(CONNECT_WAIT_SECONDS);
        let (client, eventloop) = AsyncClient::new(options, CLIENT_QUEUE);
        let (events, seen) = mpsc::channel(LOOP_EVENTS);
        tokio::select! {
            error = turn(eventloop, events) => Err(Ended::from(Box::new(error))),
            ended = self.talk(&client, seen, token) => ended,
        }
    }

    /// Whether the embedded broker isn't the one of the last connection.
    fn was_replaced(&mut self) -> bool {
        let Some(generations) = &self.parts.generations else { return false };
        let now = *generations.borrow();
        std::mem::replace(&mut self.generation, now) != now
    }

    async fn talk(
        &mut self,
        client: &AsyncClient,
        mut seen: mpsc::Receiver<Event>,
        token: &CancellationToken,
    ) -> Result<(), Ended> {
        // The event loop only ends with an error, and then the whole connection does.
        while let Some(event) = seen.recv().await {
            if matches!(event, Event::Incoming(Incoming::ConnAck(_))) {
                break;
            }
        }
        // Only now is it certain which one this connection is to.
        if self.was_replaced() {
            self.outbox.restart_behind();
        }
        let commands = Filter::CommandRequests(Some(self.parts.gateway.clone()));
        client.try_subscribe(commands.format(&self.parts.root), QoS::AtLeastOnce)?;
        let mut heads = self.parts.journal.heads();
        let mut readers = self.parts.readers.clone();
        let mut uplink = self.parts.uplink.clone();
        readers.mark_changed();
        let mut status = StatusClock::new();
        let mut minute = interval(STATUS_AT_LEAST);
        loop {
            self.fill(client, &mut heads)?;
            let room = self.outbox.room() > 0;
            tokio::select! {
                () = token.cancelled() => return self.goodbye(client, seen).await,
                event = seen.recv() => match event {
                    Some(event) => self.event(client, event).await?,
                    None => std::future::pending().await,
                },
                changed = heads.changed(), if room => journal_alive(changed)?,
                changed = readers.changed() => {
                    if changed.is_err() {
                        return self.stopping(client, seen, token).await;
                    }
                    let now: Vec<_> = readers.borrow_and_update().clone();
                    for retained in self.board.changed(&now) {
                        self.publish_retained(client, retained)?;
                    }
                    status.ask();
                }
                changed = uplink.changed() => {
                    if changed.is_err() {
                        return self.stopping(client, seen, token).await;
                    }
                    status.ask();
                }
                _ = minute.tick() => status.ask(),
                () = status.due() => {
                    status.told();
                    let online = self.board.online(&readers.borrow(), &uplink.borrow_and_update());
                    self.publish_retained(client, online)?;
                }
            }
        }
    }

    /// Another part is gone already: the gateway is stopping, and there is a last word to say.
    async fn stopping(
        &mut self,
        client: &AsyncClient,
        seen: mpsc::Receiver<Event>,
        token: &CancellationToken,
    ) -> Result<(), Ended> {
        token.cancelled().await;
        self.goodbye(client, seen).await
    }

    async fn event(&mut self, client: &AsyncClient, event: Event) -> Result<(), Ended> {
        match event {
            Event::Outgoing(rumqttc::Outgoing::Publish(packet)) => self.outbox.wrote(packet),
            Event::Incoming(Incoming::PubAck(ack)) => match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {
                    self.counters.acknowledged.fetch_add(1, Ordering::Relaxed);
                    match self.outbox.acknowledged(ack.pkid, Instant::now().into_std()) {
                        Acknowledged::Cursor(lane, seq) => {
                            self.parts.journal.edge_cursor_set(lane, seq).await?;
                        }
                        Acknowledged::Response(number) => drop(self.under_way.remove(&number)),
                        Acknowledged::Nothing => {}
                    }
                }
                refused => return Err(Ended::PublishRefused(refused)),
            },
            Event::Incoming(Incoming::SubAck(ack)) => {
                let refused = ack
                    .return_codes
                    .iter()
                    .find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if let Some(code) = refused {
                    return Err(Ended::SubscribeRefused(*code));
                }
                tracing::info!(broker = ?self.parts.target, "connected to the edge broker");
                self.counters.connected.send_replace(true);
            }
            Event::Incoming(Incoming::Publish(publish)) => self.requested(client, publish).await?,
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(())
    }

    /// Takes a request. It is acknowledged when it is durable; one that isn't comes again.
    async fn requested(&mut self, client: &AsyncClient, publish: Publish) -> Result<(), Ended> {
        let reply = request::reply_to(&publish, &self.parts.root, &self.parts.gateway);
        match request::read(&publish.payload, publish.retain) {
            Ok(request) => self.submit(request, reply).await,
            Err(refused) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %refused.error, "a command request was refused");
                if let Some(response) = refused.response(now()) {
                    self.respond(reply, response);
                }
            }
        }
        client.try_ack(&publish)?;
        Ok(())
    }

    async fn submit(&mut self, request: CommandRequest, reply: ReplyTo) {
        let id = request.id.clone();
        let submission = Submission::of_request(request, now());
        match self.parts.commands.submit(submission).await {
            Ok(submitted) if submitted.response.status.is_final() => {
                self.respond(reply, submitted.response);
            }
            Ok(_) => {
                if self.asking.len() >= MAX_ASKING {
                    tracing::warn!("too many commands wait for their response");
                    self.asking.clear();
                }
                self.asking.insert(id, reply);
            }
            Err(error) => self.respond(reply, request::failed(id, error, now())),
        }
    }

    fn respond(&mut self, reply: ReplyTo, body: CommandResponse) {
        if self.responses.len() >= MAX_RESPONSES {
            tracing::warn!("a response to a command was dropped: the broker takes none");
            self.responses.pop_front();
        }
        self.responses.push_back(Response { reply, body });
    }

    /// Publishes what the window has room for.
    fn fill(
        &mut self,
        client: &AsyncClient,
        heads: &mut watch::Receiver<Heads>,
    ) -> Result<(), Ended> {
        loop {
            while self.outbox.room() > 0 {
                let Some(response) = self.responses.pop_front() else { break };
                self.publish_response(client, response)?;
            }
            let heads = *heads.borrow_and_update();
            let records = self.next_records(&heads)?;
            if records.is_empty() || self.outbox.room() == 0 {
                return Ok(());
            }
            for record in records {
                if self.outbox.room() == 0 {
                    return Ok(());
                }
                self.publish_record(client, &record)?;
            }
        }
    }

    /// The next records to publish: in order of time where all that waits is here; else, with a
    /// backlog, the higher lane first.
    fn next_records(&self, heads: &Heads) -> Result<Vec<Record>, Ended> {
        let mut records = Vec::new();
        let mut all = true;
        let mut unreadable = None;
        for lane in Lane::ALL {
            let next = self.outbox.next(lane);
            if next >= heads.next(lane) {
                continue;
            }
            let chunk = match self.parts.journal.read(lane, next, CHUNK_RECORDS, CHUNK_BYTES) {
                Ok(chunk) => chunk,
                Err(error @ JournalError::Unreadable { .. }) => {
                    // The other lanes must not wait for this one.
                    unreadable = Some(error);
                    all = false;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            all &= chunk.last().is_some_and(|last| last.seq() + 1 >= heads.next(lane));
            records.extend(chunk);
        }
        if all && records.len() <= self.outbox.room() {
            records.sort_by_cached_key(|record| record.event().ok().map(|event| event.id));
        }
        match unreadable {
            // Tried again on another connection, by when a gap stands there.
            Some(error) if records.is_empty() => Err(error.into()),
            Some(_) | None => Ok(records),
        }
    }

    fn publish_record(&mut self, client: &AsyncClient, record: &Record) -> Result<(), Ended> {
        let event = match record.event() {
            Ok(event) => event,
            // Its header is right, its text is not. It must not stand in the way of the others.
            Err(error) => {
                tracing::error!(?record, %error, "a record can't be published: it is passed over");
                self.outbox.pass_over(record.lane(), record.seq());
                return Ok(());
            }
        };
        let topic = event.topic().format(&self.parts.root);
        let payload = Bytes::copy_from_slice(record.json());
        let properties = cloud_event(&event);
        client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)?;
        self.outbox.queue(Tag::Record { lane: record.lane(), seq: record.seq() });
        if let Some(response) = request::response(&event) {
            self.command_ended(record.seq(), response);
        }
        Ok(())
    }

    /// The end of a command becomes its response, where it was asked for here.
    fn command_ended(&mut self, seq: u64, response: CommandResponse) {
        let reply = match self.asking.remove(&response.id) {
            Some(reply) => reply,
            // Asked for before a restart: who asked is known, but not where they wanted it.
            None if seq < self.asked_from && self.parts.commands.is_from_edge(&response.id) => {
                let gateway = self.parts.gateway.clone();
                let topic = Topic::CommandResponse { gateway }.format(&self.parts.root);
                ReplyTo { topic, correlation: None }
            }
            None => return,
        };
        self.respond(reply, response);
    }

    fn publish_response(&mut self, client: &AsyncClient, response: Response) -> Result<(), Ended> {
        let Ok(payload) = serde_json::to_vec(&response.body) else { return Ok(()) };
        let properties = PublishProperties {
            correlation_data: response.reply.correlation.clone(),
            content_type: Some("application/json".to_owned()),
            ..PublishProperties::default()
        };
        let topic = &response.reply.topic;
        client.try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)?;
        self.numbers += 1;
        self.outbox.queue(Tag::Response(self.numbers));
        self.under_way.insert(self.numbers, response);
        Ok(())
    }

    fn publish_retained(
        &mut self,
        client: &AsyncClient,
        (topic, payload): Retained,
    ) -> Result<(), Ended> {
        client.try_publish(topic, QoS::AtLeastOnce, true, payload)?;
        self.outbox.queue(Tag::State);
        Ok(())
    }

    /// Says that the gateway goes, so that nobody waits for the Last Will. What is committed and
    /// not yet published is published first, as far as the time goes.
    async fn goodbye(
        &mut self,
        client: &AsyncClient,
        mut seen: mpsc::Receiver<Event>,
    ) -> Result<(), Ended> {
        let deadline = Instant::now() + GOODBYE;
        let mut heads = self.parts.journal.heads();
        self.fill(client, &mut heads)?;
        let offline = self.board.offline(now());
        self.publish_retained(client, offline)?;
        while !self.outbox.is_empty() {
            match timeout_at(deadline, seen.recv()).await {
                Ok(Some(Event::Incoming(Incoming::Publish(_)))) => {} // comes again
                Ok(Some(event)) => self.event(client, event).await?,
                Ok(None) | Err(_) => break,
            }
        }
        client.try_disconnect()?;
        while let Ok(Some(event)) = timeout_at(deadline, seen.recv()).await {
            if matches!(event, Event::Outgoing(rumqttc::Outgoing::Disconnect)) {
                break;
            }
        }
        Ok(())
    }
}

/// When the next status goes out: at once where the last one is long enough ago.
struct StatusClock {
    last: Option<Instant>,
    asked: bool,
}

impl StatusClock {
    fn new() -> Self {
        Self { last: None, asked: true }
    }

    fn ask(&mut self) {
        self.asked = true;
    }

    fn told(&mut self) {
        (self.last, self.asked) = (Some(Instant::now()), false);
    }

    async fn due(&self) {
        match (self.asked, self.last) {
            (true, Some(last)) => sleep_until(last + STATUS_AT_MOST).await,
            (true, None) => {}
            (false, _) => std::future::pending().await,
        }
    }
}

/// Turns the event loop until it fails. Nothing else waits on it, so that no step of it is ever
/// abandoned half-way.
async fn turn(mut eventloop: EventLoop, events: mpsc::Sender<Event>) -> ConnectionError {
    loop {
        match eventloop.poll().await {
            Ok(event) => {
                if events.send(event).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Err(error) => return error,
        }
    }
}

/// Without the journal there is nothing to publish from.
fn journal_alive(changed: Result<(), watch::error::RecvError>) -> Result<(), Ended> {
    changed.map_err(|_| Ended::Journal(JournalError::Closed))
}

/// The event's CloudEvents attributes, in binary mode: beside the payload, which stays as it is.
fn cloud_event(event: &RecordedEvent) -> PublishProperties {
    let attributes = [
        ("specversion", "1.0".to_owned()),
        ("id", event.id.to_string()),
        ("source", format!("urn:ridgeway:{}", event.gateway)),
        ("type", event.event.as_str().to_owned()),
        ("time", event.timestamp.to_string()),
    ];
    PublishProperties {
        user_properties: attributes.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        content_type: Some("application/json".to_owned()),
        ..PublishProperties::default()
    }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
