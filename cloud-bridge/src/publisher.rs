//! The public connection: events, responses and states go out, commands come in.
//!
//! Events are read from the store behind a cursor that moves with the broker's acknowledgements. So
//! a crash between commit and publish repeats an event and never forgets one; subscribers tell
//! repeats by `id`. Responses are taken from the store the same way: a command of the broker stays
//! open until its answer is acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker_config::client::{Backoff, Target};
use bytes::Bytes;
use rumqttc::{
    Outgoing as Wrote,
    v5::{
        AsyncClient, Event, EventLoop,
        mqttbytes::{
            QoS,
            v5::{Packet, Publish, PublishProperties},
        },
    },
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use topics::{
    CommandId, CommandRequest, CommandResponse, CommandStatus, ErrorBody, GatewayId, GatewayStatus,
    Topic, event::Outline, topic,
};

use crate::{
    command::{Change, Command, Requester},
    mqtt::{Ended, pause},
    service::{self, Expires, Shared, Wish},
    store::StoredEvent,
};

/// Things that wait to be published beside events.
pub(crate) const OUTBOX_DEPTH: usize = 256;
/// Publishes that the broker has not acknowledged: below its own limit of 100.
const WINDOW: usize = 64;
/// Events read from the store at once.
const READ_AHEAD: usize = 64;
/// What the client can hold: the window and as many answers.
const REQUEST_DEPTH: usize = 4 * WINDOW;
/// How far the cursor may run ahead of what is written down, in events and in time.
const SAVE_EVERY: u64 = 512;
const SAVE_AFTER: Duration = Duration::from_millis(500);
/// Correlation data of a request, as much as is sent back.
const MAX_CORRELATION_BYTES: usize = 1_024;

/// What is published beside events.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A gateway's retained status.
    Status(GatewayStatus),
    /// A command of the broker ended.
    Answer(Box<Command>),
}

/// A publish under way.
#[derive(Debug)]
enum What {
    Event(u64),
    Answer(CommandId),
    Other,
}

pub(crate) struct Publisher {
    pub(crate) service: Shared,
    pub(crate) target: Target,
    pub(crate) outbox: mpsc::Receiver<Outgoing>,
    pub(crate) heads: watch::Receiver<u64>,
    pub(crate) up: watch::Sender<bool>,
}

impl Publisher {
    /// Keeps the connection until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            let (client, events) = AsyncClient::new(self.target.v5(), REQUEST_DEPTH);
            let (forward, incoming) = mpsc::channel(WINDOW);
            let ended = tokio::select! {
                ended = pump(events, forward) => ended,
                ended = self.serve(client, incoming, &mut backoff, &stop) => ended,
            };
            self.up.send_replace(false);
            if stop.is_cancelled() {
                break;
            }
            tracing::warn!(broker = ?self.target, reason = %ended, "the public connection ended");
            pause(&mut backoff, &stop).await;
        }
    }

    async fn serve(
        &mut self,
        client: AsyncClient,
        mut incoming: mpsc::Receiver<Event>,
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Ended {
        let mut session = match Session::new(self.service.clone(), client) {
            Ok(session) => session,
            Err(ended) => return ended,
        };
        loop {
            if session.ready {
                session.fill();
            }
            tokio::select! {
                () = stop.cancelled() => {
                    if session.unsaved() > 0 {
                        session.save().await;
                    }
                    return Ended::Stopping;
                }
                event = incoming.recv() => match event {
                    None => return Ended::Stopping,
                    Some(event) => {
                        if let Err(ended) = session.event(event).await {
                            return ended;
                        }
                        if session.ready && !*self.up.borrow() {
                            self.up.send_replace(true);
                            backoff.reset();
                            session.start();
                        }
                    }
                },
                changed = self.heads.changed() => match changed {
                    Ok(()) => session.read_more = true,
                    Err(_) => return Ended::Stopping,
                },
                Some(outgoing) = self.outbox.recv(), if session.ready => session.publish_other(outgoing),
                () = tokio::time::sleep(SAVE_AFTER), if session.unsaved() > 0 => session.save().await,
                // What could not be read.
                () = tokio::time::sleep(SAVE_AFTER), if session.is_short() => {}
            }
        }
    }
}

/// Polls the client in a future of its own, so that nothing else cuts a poll short.
async fn pump(mut events: EventLoop, forward: mpsc::Sender<Event>) -> Ended {
    loop {
        match events.poll().await {
            Ok(event) => {
                if forward.send(event).await.is_err() {
                    return Ended::Stopping;
                }
            }
            Err(error) => return Ended::Connection5(Box::new(error)),
        }
    }
}

/// One connection.
struct Session {
    service: Shared,
    client: AsyncClient,
    ready: bool,
    read_more: bool,
    waiting: VecDeque<StoredEvent>,
    /// The last event read from the store.
    read: u64,
    /// Handed to the client, in order; not yet written.
    handed: VecDeque<What>,
    /// Written, by packet id.
    written: HashMap<u16, What>,
    /// Events under way.
    under_way: BTreeSet<u64>,
    answering: BTreeMap<CommandId, ()>,
    saved: u64,
}

impl Session {
    fn new(service: Shared, client: AsyncClient) -> Result<Self, Ended> {
        let published = service.store.published().map_err(|error| {
            tracing::error!(%error, "the cursor of what is published can't be read");
            Ended::Stopping
        })?;
        Ok(Self {
            service,
            client,
            ready: false,
            read_more: true,
            waiting: VecDeque::new(),
            read: published,
            handed: VecDeque::new(),
            written: HashMap::new(),
            under_way: BTreeSet::new(),
            answering: BTreeMap::new(),
            saved: published,
        })
    }

    /// Answers that an earlier connection or process still owes.
    fn start(&mut self) {
        match self.service.store.open_commands() {
            Ok(open) => open
                .into_iter()
                .filter(Command::wants_answer)
                .for_each(|command| self.publish_other(Outgoing::Answer(Box::new(command)))),
            Err(error) => tracing::error!(%error, "open commands can't be read"),
        }
    }

    /// Publishes events while there is room.
    fn fill(&mut self) {
        while self.handed.len() + self.written.len() < WINDOW {
            if self.waiting.is_empty() && self.read_more {
                self.read_store();
            }
            let Some(stored) = self.waiting.pop_front() else { break };
            if !self.publish_event(&stored) {
                self.waiting.push_front(stored);
                break;
            }
        }
    }

    fn read_store(&mut self) {
        match self.service.store.events(self.read, None, READ_AHEAD) {
            Ok(events) => {
                self.read_more = events.len() == READ_AHEAD;
                self.read = events.last().map_or(self.read, |event| event.index);
                self.waiting.extend(events);
            }
            // It is tried again a little later.
            Err(error) => service::told(&error, "events to be published can't be read"),
        }
    }

    /// False where the client has no room.
    fn publish_event(&mut self, stored: &StoredEvent) -> bool {
        let json = &stored.event.json;
        let event: Outline = match serde_json::from_str(json) {
            Ok(event) => event,
            // It was parsed before it was stored.
            Err(error) => {
                tracing::error!(index = stored.index, %error, "a stored event can't be read");
                return true;
            }
        };
        let root = &self.service.root;
        let name = event.topic().format(root);
        let attribute = |name: &str, value: String| (name.to_owned(), value);
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some("application/json".into()),
            user_properties: vec![
                attribute("specversion", "1.0".into()),
                attribute("id", event.id.to_string()),
                attribute("source", format!("/{root}/{}", event.gateway)),
                attribute("type", event.event.as_str().into()),
                attribute("time", event.timestamp.to_string()),
            ],
            ..PublishProperties::default()
        };
        let taken = self.hand(name, false, json.clone(), properties, What::Event(stored.index));
        if taken {
            self.under_way.insert(stored.index);
        }
        taken
    }

    fn publish_other(&mut self, outgoing: Outgoing) {
        let taken = match outgoing {
            Outgoing::Status(status) => {
                let topic = Topic::GatewayStatus { gateway: status.gateway.clone() };
                let name = topic.format(&self.service.root);
                match serde_json::to_string(&status) {
                    Ok(json) => self.hand(name, true, json, json_properties(), What::Other),
                    Err(_) => true,
                }
            }
            Outgoing::Answer(command) => self.publish_answer(*command),
        };
        if !taken {
            tracing::warn!("something is not published: the broker is behind");
        }
    }

    fn publish_answer(&mut self, command: Command) -> bool {
        if self.answering.contains_key(&command.id) {
            return true;
        }
        let Requester::Mqtt { response_topic, correlation, .. } = &command.requester else {
            return true;
        };
        let (topic, correlation) = (response_topic.clone(), correlation.clone());
        let id = command.id.clone();
        let what = What::Answer(id.clone());
        let taken = self.respond(&command.agent.clone(), topic, correlation, answer(command), what);
        if taken {
            self.answering.insert(id, ());
        }
        taken
    }

    fn respond(
        &mut self,
        gateway: &GatewayId,
        response_topic: Option<String>,
        correlation: Option<String>,
        response: CommandResponse,
        what: What,
    ) -> bool {
        let topic = Topic::CommandResponse { gateway: gateway.clone() };
        let name = response_topic.unwrap_or_else(|| topic.format(&self.service.root));
        let correlation_data =
            correlation.and_then(|text| STANDARD.decode(text).ok()).map(Bytes::from);
        let properties = PublishProperties { correlation_data, ..json_properties() };
        match serde_json::to_string(&response) {
            Ok(json) => self.hand(name, false, json, properties, what),
            Err(_) => true,
        }
    }

    fn hand(
        &mut self,
        topic: String,
        retain: bool,
        json: String,
        properties: PublishProperties,
        what: What,
    ) -> bool {
        let qos = QoS::AtLeastOnce;
        let handed =
            self.client.try_publish_with_properties(topic, qos, retain, json, properties).is_ok();
        if handed {
            self.handed.push_back(what);
        }
        handed
    }

    async fn event(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                let filter = topic::Filter::CommandRequests(None).format(&self.service.root);
                self.client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|_| Ended::Queue)?;
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
                if !answer.return_codes.iter().all(|code| matches!(code, Success(_))) {
                    return Err(Ended::Refused);
                }
                self.ready = true;
                tracing::info!("the public connection is up");
            }
            Event::Outgoing(Wrote::Publish(packet)) => {
                if let Some(what) = self.handed.pop_front() {
                    self.written.insert(packet, what);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(what) = self.written.remove(&ack.pkid) {
                    self.acknowledged(what).await;
                }
            }
            Event::Incoming(Packet::Publish(message)) => self.requested(message).await,
            Event::Incoming(Packet::Disconnect(_)) => return Err(Ended::Refused),
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(())
    }

    async fn acknowledged(&mut self, what: What) {
        match what {
            What::Event(index) => {
                self.under_way.remove(&index);
                if self.unsaved() >= SAVE_EVERY {
                    self.save().await;
                }
            }
            What::Answer(id) => {
                self.answering.remove(&id);
                let change = self.service.store.change_command(id.clone(), Change::Answered);
                if let Err(error) = change.await {
                    tracing::error!(command = %id, %error, "it will be answered again");
                }
            }
            What::Other => {}
        }
    }

    /// All up to here are with the broker.
    fn published(&self) -> u64 {
        let next = self.under_way.first().copied();
        let next = next.or_else(|| self.waiting.front().map(|event| event.index));
        next.map_or(self.read, |index| index - 1)
    }

    /// Whether there is room for events that were not read yet.
    fn is_short(&self) -> bool {
        self.ready && self.read_more && self.waiting.is_empty()
    }

    fn unsaved(&self) -> u64 {
        self.published().saturating_sub(self.saved)
    }

    async fn save(&mut self) {
        let published = self.published();
        match self.service.store.set_published(published).await {
            Ok(()) => self.saved = published,
            Err(error) => service::told(&error, "the cursor of what is published is not saved"),
        }
    }

    /// A command of the broker. What can be answered is answered.
    async fn requested(&mut self, message: Publish) {
        let name = String::from_utf8_lossy(&message.topic).into_owned();
        let Ok(Topic::CommandRequest { gateway }) = Topic::parse(&self.service.root, &name) else {
            tracing::warn!(topic = %name, "a command on a topic that is no gateway's");
            return;
        };
        if message.retain {
            tracing::warn!(%gateway, "a retained command is refused");
            return;
        }
        let (response_topic, correlation) = self.reply_to(&gateway, message.properties);
        match read_request(&message.payload) {
            Err((None, reason)) => {
                tracing::warn!(%gateway, reason, "a command without an id is refused");
            }
            Err((Some(id), reason)) => {
                let response = failed(id, service::invalid("request", &reason));
                self.respond(&gateway, response_topic, correlation, response, What::Other);
            }
            Ok(request) => {
                let requester = Requester::Mqtt {
                    response_topic: response_topic.clone(),
                    correlation: correlation.clone(),
                    answered: false,
                };
                let id = request.id.clone();
                match self.service.command(wish(&gateway, request, requester)).await {
                    // A new one is answered at its end; so is a repeat, with the same end.
                    Ok((command, new)) => {
                        if !new && command.status.is_final() && command.agent == gateway {
                            let response = answer(command);
                            let what = What::Other;
                            self.respond(&gateway, response_topic, correlation, response, what);
                        }
                    }
                    Err(error) => {
                        let response = failed(id, error);
                        self.respond(&gateway, response_topic, correlation, response, What::Other);
                    }
                }
            }
        }
    }

    fn reply_to(
        &self,
        gateway: &GatewayId,
        properties: Option<PublishProperties>,
    ) -> (Option<String>, Option<String>) {
        let properties = properties.unwrap_or_default();
        let allowed =
            |name: &String| topic::accepts_response_topic(&self.service.root, gateway, name);
        let correlation =
            properties.correlation_data.filter(|data| data.len() <= MAX_CORRELATION_BYTES);
        (properties.response_topic.filter(allowed), correlation.map(|data| STANDARD.encode(data)))
    }
}

fn json_properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("application/json".into()),
        ..PublishProperties::default()
    }
}

fn wish(gateway: &GatewayId, request: CommandRequest, requester: Requester) -> Wish {
    let expires = match (request.expires_at, request.ttl_ms) {
        (Some(at), _) => Expires::At(at),
        (None, Some(ms)) => Expires::AfterMs(ms),
        (None, None) => Expires::ByDefault,
    };
    Wish {
        id: Some(request.id),
        agent: gateway.clone(),
        command: request.command,
        params: request.params,
        expires,
        requester,
    }
}

/// The request, or why not and whom to tell.
fn read_request(payload: &[u8]) -> Result<CommandRequest, (Option<CommandId>, String)> {
    let value: serde_json::Value =
        serde_json::from_slice(payload).map_err(|_| (None, "it is not JSON".to_owned()))?;
    let id = value.get("id").and_then(|id| CommandId::new(id.as_str()?).ok());
    let request: CommandRequest =
        serde_json::from_value(value).map_err(|error| (id.clone(), error.to_string()))?;
    if request.expires_at.is_none() && request.ttl_ms.is_none() {
        return Err((id, "it has neither expiresAt nor ttlMs".to_owned()));
    }
    Ok(request)
}

fn answer(command: Command) -> CommandResponse {
    CommandResponse {
        id: command.id,
        status: command.status,
        result: command.result,
        error: command.error,
        finished_at: command.finished_at,
    }
}

fn failed(id: CommandId, error: ErrorBody) -> CommandResponse {
    let status = if error.error_code() == Some(topics::ErrorCode::Expired) {
        CommandStatus::Expired
    } else {
        CommandStatus::Failed
    };
    let finished_at = Some(service::now());
    CommandResponse { id, status, result: None, error: Some(error), finished_at }
}
