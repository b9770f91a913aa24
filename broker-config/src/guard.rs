//! The guard: a rumqttd [`Protocol`] that stands between a client's bytes and rumqttd's router.
//!
//! rumqttd clones it for each connection. The first packet must be a CONNECT with a ticket of the
//! front; after that every packet gets its verdict here, and the router sees only what it can bear.
//!
//! | packet | verdict |
//! |---|---|
//! | CONNECT | first, with a ticket; a second one is refused |
//! | PUBLISH | topic is UTF-8, ASCII at its start (K1), without wildcards; alias resolved (5); granted; not a retained command; not too large; a repeated QoS 2 one is answered, not passed on |
//! | PUBACK, PUBREC, PUBCOMP | put in order; what nobody waits for is dropped |
//! | PUBREL | without properties; an unknown one is answered, not passed on |
//! | SUBSCRIBE | each filter that is not valid, not granted, shared (K3) or one too many fails in SUBACK; the client stays |
//! | UNSUBSCRIBE | passed on; one UNSUBACK comes back, whatever rumqttd sends |
//! | PINGREQ | passed on |
//! | DISCONNECT | ends the connection, not passed on: rumqttd's router dies of it (K2) |
//! | CONNACK, SUBACK, UNSUBACK, PINGRESP, AUTH | refused (K8) |
//! | anything malformed, or with wrong flags | refused |
//!
//! A refusal ends the connection; the front tells MQTT 5 clients why. In the other direction properties
//! are taken off for 3.1.1 clients (K7), and nothing is written any more once the end was seen.
//!
//! Two habits of rumqttd shape the code. It drops the packets that it has read in one go when a later
//! one of the same go fails, so after an accepted packet the end is only told at the next go. And it
//! offers no way to answer a client from here: an *echo*, a SUBSCRIBE without filters, makes the router
//! send a SUBACK at the right place in the order, which becomes the real answer on its way out.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, atomic::Ordering},
};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    ConnAckProperties, DisconnectReasonCode, Error, Packet, Protocol, PubAck, PubAckReason,
    PubComp, PubCompReason, PubRec, PubRecReason, Publish, PublishProperties, SubAck, Subscribe,
    SubscribeProperties, SubscribeReasonCode, UnsubAck, UnsubAckReason, Unsubscribe,
};

use crate::{
    names,
    refusal::Refusal,
    session::{Core, Rights, Session, lock},
    wire::{self, Frame, Level, Peek, Version, kind},
};

mod window;

use window::Window;

/// Topic aliases that an MQTT 5 client may use.
const ALIASES: u16 = 16;
/// Granted topics remembered for each connection, so that the usual PUBLISH costs one look-up.
const REMEMBERED_TOPICS: usize = 64;

/// rumqttd's view of a connection; see the module.
#[derive(Debug)]
pub(crate) struct Guard {
    core: Arc<Core>,
    link: Option<Link>,
}

impl Guard {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, link: None }
    }
}

impl Clone for Guard {
    /// For a new connection, which knows nothing of this one.
    fn clone(&self) -> Self {
        Self::new(self.core.clone())
    }
}

impl Protocol for Guard {
    fn read_mut(&mut self, stream: &mut BytesMut, max_bytes: usize) -> Result<Packet, Error> {
        match &mut self.link {
            Some(link) => link.read(&self.core, stream, max_bytes),
            None => self.read_connect(stream, max_bytes),
        }
    }

    fn write(&self, packet: Packet, buffer: &mut BytesMut) -> Result<usize, Error> {
        match &self.link {
            Some(link) => link.write(&self.core, packet, buffer),
            // rumqttd refuses a CONNECT by itself only when we let through what we shouldn't have.
            None => Err(Error::InvalidProtocol),
        }
    }
}

impl Guard {
    fn read_connect(&mut self, stream: &mut BytesMut, max_bytes: usize) -> Result<Packet, Error> {
        let frame = match wire::peek(stream) {
            Peek::Missing(missing, None) => return Err(Error::InsufficientBytes(missing)),
            Peek::Missing(_, Some(frame)) | Peek::Whole(frame) if frame.body_len > max_bytes => {
                return Err(self.around_front());
            }
            Peek::Missing(missing, Some(_)) => return Err(Error::InsufficientBytes(missing)),
            Peek::Whole(frame) => frame,
            Peek::Malformed => return Err(self.around_front()),
        };
        let version = match (frame.kind, wire::level(stream, frame)) {
            (kind::CONNECT, Level::Known(version)) => version,
            _ => return Err(self.around_front()),
        };
        let Ok(Packet::Connect(mut connect, .., Some(login))) =
            wire::decode(version, stream, max_bytes)
        else {
            return Err(self.around_front());
        };
        let Some(session) = self.core.claim(&login.username) else {
            return Err(self.around_front());
        };
        connect.client_id.clone_from(&session.inner_id);
        self.link = Some(Link::new(session));
        Ok(Packet::Connect(connect, None, None, None, None))
    }

    fn around_front(&self) -> Error {
        self.core.counters.refuse(Refusal::AroundFront);
        if !self.core.intruder_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(broker = %self.core.name,
                "a local process tries the inner port and is refused (logged once, counted always)");
        }
        Error::InvalidProtocol
    }
}

/// The connection of a session.
#[derive(Debug)]
struct Link {
    session: Arc<Session>,
    /// For the router, in order.
    pending: VecDeque<Packet>,
    /// A packet was handed over since rumqttd last had to wait for bytes.
    in_batch: bool,
    closed: bool,
    aliases: HashMap<u16, Bytes>,
    filters: HashSet<String>,
    granted_topics: HashSet<Bytes>,
    /// QoS 2 packet ids between PUBLISH and PUBREL.
    qos2: HashSet<u16>,
    out: Mutex<Out>,
}

/// What `write`, which has no `&mut self`, keeps.
#[derive(Debug, Default)]
struct Out {
    publishes: Window<Packet>,
    releases: Window<Packet>,
    /// One for each SUBSCRIBE, real or echo, that the router was given.
    answers: VecDeque<Answer>,
}

/// What the router's next SUBACK becomes.
#[derive(Debug)]
enum Answer {
    /// Failed filters have their code; the others get the router's, in order.
    Subscribed(Vec<Option<SubscribeReasonCode>>),
    Packet(Box<Packet>),
}

/// Why reading a packet stops the reading.
enum Stop {
    /// Bytes are missing.
    Wait(usize),
    /// The client said goodbye.
    Goodbye,
    Refuse(Refusal, String),
}

impl Stop {
    fn refuse(refusal: Refusal, what: impl Into<String>) -> Self {
        Self::Refuse(refusal, what.into())
    }
}

impl Link {
    fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            pending: VecDeque::new(),
            in_batch: false,
            closed: false,
            aliases: HashMap::new(),
            filters: HashSet::new(),
            granted_topics: HashSet::new(),
            qos2: HashSet::new(),
            out: Mutex::default(),
        }
    }

    fn read(
        &mut self,
        core: &Core,
        stream: &mut BytesMut,
        max_bytes: usize,
    ) -> Result<Packet, Error> {
        loop {
            if let Some(packet) = self.pending.pop_front() {
                self.in_batch = true;
                return Ok(packet);
            }
            if self.closed {
                return Err(self.end_of_batch(1, Error::InvalidProtocol));
            }
            match self.take_packet(core, stream, max_bytes) {
                Ok(()) => {}
                Err(Stop::Wait(missing)) => {
                    self.in_batch = false;
                    return Err(Error::InsufficientBytes(missing));
                }
                Err(Stop::Goodbye) => {
                    self.closed = true;
                    self.session.closing.cancel();
                }
                Err(Stop::Refuse(refusal, what)) => {
                    self.closed = true;
                    self.session.refuse(core, refusal, &what);
                }
            }
        }
    }

    /// Within a batch only "wait", so that rumqttd passes the batch on; then the error. Should it
    /// really wait: the front closes its side when the session is closing.
    fn end_of_batch(&mut self, missing: usize, error: Error) -> Error {
        if std::mem::take(&mut self.in_batch) { Error::InsufficientBytes(missing) } else { error }
    }

    fn take_packet(
        &mut self,
        core: &Core,
        stream: &mut BytesMut,
        max_bytes: usize,
    ) -> Result<(), Stop> {
        let frame = match wire::peek(stream) {
            Peek::Malformed => return Err(Stop::refuse(Refusal::Malformed, "length")),
            Peek::Missing(_, Some(frame)) | Peek::Whole(frame) if frame.body_len > max_bytes => {
                let what = format!("packet of {} bytes", frame.body_len);
                return Err(Stop::refuse(Refusal::TooLarge, what));
            }
            Peek::Missing(missing, Some(frame)) => {
                check_header(frame)?;
                return Err(Stop::Wait(missing));
            }
            Peek::Missing(missing, None) => return Err(Stop::Wait(missing)),
            Peek::Whole(frame) => frame,
        };
        check_header(frame)?;
        let publish_id = (frame.kind == kind::PUBLISH)
            .then(|| wire::publish_id(&stream[..frame.len()], frame))
            .flatten();
        let packet = wire::decode(self.session.version, stream, max_bytes)
            .map_err(|error| Stop::refuse(Refusal::Malformed, error.to_string()))?;
        self.judge(core, packet, frame, publish_id)
    }

    fn judge(
        &mut self,
        core: &Core,
        packet: Packet,
        frame: Frame,
        publish_id: Option<u16>,
    ) -> Result<(), Stop> {
        match packet {
            Packet::Publish(publish, properties) => {
                self.publish(core, publish, properties, frame.qos(), publish_id)
            }
            Packet::PubAck(ack, _) => {
                let id = ack.pkid;
                self.acknowledged(id, Packet::PubAck(ack, None));
                Ok(())
            }
            Packet::PubRec(ack, _) => {
                self.received(ack);
                Ok(())
            }
            Packet::PubRel(release, _) => {
                if self.qos2.remove(&release.pkid) {
                    self.pending.push_back(Packet::PubRel(release, None));
                } else {
                    let reason = PubCompReason::PacketIdentifierNotFound;
                    let complete = PubComp { pkid: release.pkid, reason };
                    self.answer(release.pkid, Packet::PubComp(complete, None));
                }
                Ok(())
            }
            Packet::PubComp(ack, _) => {
                let out = lock_mut(&mut self.out);
                out.releases.acknowledged(ack.pkid, Packet::PubComp(ack, None));
                self.pending.extend(std::iter::from_fn(|| out.releases.next()));
                Ok(())
            }
            Packet::Subscribe(subscribe, properties) => self.subscribe(core, subscribe, properties),
            Packet::Unsubscribe(unsubscribe, _) => self.unsubscribe(unsubscribe),
            Packet::PingReq(ping) => {
                self.pending.push_back(Packet::PingReq(ping));
                Ok(())
            }
            Packet::Disconnect(disconnect, _) => {
                if disconnect.reason_code == DisconnectReasonCode::NormalDisconnection {
                    self.session.disarm_will();
                }
                Err(Stop::Goodbye)
            }
            Packet::Connect(..)
            | Packet::ConnAck(..)
            | Packet::SubAck(..)
            | Packet::UnsubAck(..)
            | Packet::PingResp(_) => Err(Stop::refuse(Refusal::Protocol, "packet type")),
        }
    }

    fn publish(
        &mut self,
        core: &Core,
        mut publish: Publish,
        mut properties: Option<PublishProperties>,
        qos: u8,
        id: Option<u16>,
    ) -> Result<(), Stop> {
        if let Some(properties) = &mut properties {
            if !properties.subscription_identifiers.is_empty() {
                return Err(Stop::refuse(Refusal::Protocol, "subscription identifier in PUBLISH"));
            }
            if let Some(alias) = properties.topic_alias.take() {
                self.resolve_alias(&mut publish, alias)?;
            }
        }
        self.check_publish(core, &publish)?;
        match (qos, id) {
            (2, Some(id)) if !self.qos2.insert(id) => {
                let again = PubRec { pkid: id, reason: PubRecReason::Success };
                self.answer(id, Packet::PubRec(again, None));
            }
            _ => self.pending.push_back(Packet::Publish(publish, properties)),
        }
        Ok(())
    }

    fn resolve_alias(&mut self, publish: &mut Publish, alias: u16) -> Result<(), Stop> {
        if alias == 0 || alias > ALIASES {
            return Err(Stop::refuse(Refusal::TopicAlias, format!("alias {alias}")));
        }
        if publish.topic.is_empty() {
            let Some(topic) = self.aliases.get(&alias) else {
                return Err(Stop::refuse(Refusal::TopicAlias, format!("unknown alias {alias}")));
            };
            publish.topic = topic.clone();
        } else {
            self.aliases.insert(alias, Bytes::copy_from_slice(&publish.topic));
        }
        Ok(())
    }

    fn check_publish(&mut self, core: &Core, publish: &Publish) -> Result<(), Stop> {
        if publish.payload.len() > core.limits.max_payload_bytes {
            let what = format!("payload of {} bytes", publish.payload.len());
            return Err(Stop::refuse(Refusal::TooLarge, what));
        }
        if !self.granted_topics.contains(&publish.topic) {
            check_topic(core, &self.session.rights, &publish.topic)
                .map_err(|refusal| Stop::refuse(refusal, excerpt(&publish.topic)))?;
            if self.granted_topics.len() >= REMEMBERED_TOPICS {
                self.granted_topics.clear();
            }
            self.granted_topics.insert(Bytes::copy_from_slice(&publish.topic));
        }
        if publish.retain && is_command_request(core, &publish.topic) {
            return Err(Stop::refuse(Refusal::RetainedCommand, excerpt(&publish.topic)));
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        core: &Core,
        mut subscribe: Subscribe,
        properties: Option<SubscribeProperties>,
    ) -> Result<(), Stop> {
        if subscribe.pkid == 0 {
            return Err(Stop::refuse(Refusal::Malformed, "packet id 0"));
        }
        if properties.as_ref().is_some_and(|p| p.id == Some(0)) {
            return Err(Stop::refuse(Refusal::Protocol, "subscription identifier 0"));
        }
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut kept = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters.drain(..) {
            match self.check_filter(core, &filter.path) {
                Ok(()) => {
                    self.filters.insert(filter.path.clone());
                    kept.push(filter);
                    codes.push(None);
                }
                Err(refusal) => {
                    self.session.warn(core, refusal, &excerpt(filter.path.as_bytes()));
                    codes.push(Some(self.failure_code(refusal)));
                }
            }
        }
        let passed_on = Subscribe { pkid: subscribe.pkid, filters: kept };
        lock_mut(&mut self.out).answers.push_back(Answer::Subscribed(codes));
        self.pending.push_back(Packet::Subscribe(passed_on, properties));
        Ok(())
    }

    fn check_filter(&self, core: &Core, filter: &str) -> Result<(), Refusal> {
        if filter.starts_with("$share/") {
            return Err(Refusal::SharedSubscription);
        }
        if !names::is_filter(filter) {
            return Err(Refusal::TopicFilter);
        }
        if !self.session.rights.may_subscribe(&core.root, filter) {
            return Err(Refusal::Subscribe);
        }
        if self.filters.len() >= core.limits.max_filters && !self.filters.contains(filter) {
            return Err(Refusal::TooManyFilters);
        }
        Ok(())
    }

    fn failure_code(&self, refusal: Refusal) -> SubscribeReasonCode {
        match (self.session.version, refusal) {
            (Version::V311, _) => SubscribeReasonCode::Failure,
            (Version::V5, Refusal::Subscribe) => SubscribeReasonCode::NotAuthorized,
            (Version::V5, Refusal::SharedSubscription) => {
                SubscribeReasonCode::SharedSubscriptionsNotSupported
            }
            (Version::V5, Refusal::TooManyFilters) => SubscribeReasonCode::QuotaExceeded,
            (Version::V5, _) => SubscribeReasonCode::TopicFilterInvalid,
        }
    }

    fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), Stop> {
        let id = unsubscribe.pkid;
        if id == 0 || unsubscribe.filters.is_empty() {
            return Err(Stop::refuse(Refusal::Malformed, "UNSUBSCRIBE without id or filter"));
        }
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| match self.filters.remove(filter) {
                true => UnsubAckReason::Success,
                false => UnsubAckReason::NoSubscriptionExisted,
            })
            .collect();
        // rumqttd answers once for each filter that it knows, or never: `write` drops those.
        self.pending.push_back(Packet::Unsubscribe(unsubscribe, None));
        self.answer(id, Packet::UnsubAck(UnsubAck { pkid: id, reasons }, None));
        Ok(())
    }

    fn received(&mut self, ack: PubRec) {
        let id = ack.pkid;
        let accepted =
            matches!(ack.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers);
        let packet = if accepted {
            Packet::PubRec(PubRec { pkid: id, reason: PubRecReason::Success }, None)
        } else {
            // The client refuses the message, so there is no second half.
            Packet::PubAck(PubAck { pkid: id, reason: PubAckReason::Success }, None)
        };
        self.acknowledged(id, packet);
    }

    fn acknowledged(&mut self, id: u16, packet: Packet) {
        let out = lock_mut(&mut self.out);
        out.publishes.acknowledged(id, packet);
        self.pending.extend(std::iter::from_fn(|| out.publishes.next()));
    }

    /// Answers the client from here, after all that is on its way already.
    fn answer(&mut self, id: u16, packet: Packet) {
        lock_mut(&mut self.out).answers.push_back(Answer::Packet(Box::new(packet)));
        let echo = Subscribe { pkid: id, filters: Vec::new() };
        self.pending.push_back(Packet::Subscribe(echo, None));
    }

    fn write(&self, core: &Core, packet: Packet, buffer: &mut BytesMut) -> Result<usize, Error> {
        if self.closed {
            return Err(Error::InvalidProtocol);
        }
        let version = self.session.version;
        match packet {
            Packet::ConnAck(ack, _) => {
                let properties = Some(self.connack_properties(core));
                wire::encode(version, Packet::ConnAck(ack, properties), buffer)
            }
            Packet::Publish(publish, properties) => {
                let before = buffer.len();
                let written = wire::encode(version, Packet::Publish(publish, properties), buffer)?;
                self.note_publish(&buffer[before..]);
                Ok(written)
            }
            Packet::PubRel(release, _) => {
                lock(&self.out).releases.sent(release.pkid);
                wire::encode(version, Packet::PubRel(release, None), buffer)
            }
            Packet::SubAck(ack, _) => {
                let answer = lock(&self.out).answers.pop_front();
                match answer {
                    Some(Answer::Subscribed(codes)) => {
                        let ack = SubAck { pkid: ack.pkid, return_codes: merge(codes, ack) };
                        wire::encode(version, Packet::SubAck(ack, None), buffer)
                    }
                    Some(Answer::Packet(packet)) => wire::encode(version, *packet, buffer),
                    None => Err(Error::InvalidProtocol),
                }
            }
            Packet::UnsubAck(..) => Ok(0),
            other => wire::encode(version, other, buffer),
        }
    }

    fn note_publish(&self, packet: &[u8]) {
        if let Peek::Whole(frame) = wire::peek(packet)
            && let Some(id) = wire::publish_id(packet, frame)
        {
            lock(&self.out).publishes.sent(id);
        }
    }

    fn connack_properties(&self, core: &Core) -> ConnAckProperties {
        let granted = &self.session.granted;
        ConnAckProperties {
            assigned_client_identifier: granted.assigned_client_id.clone(),
            server_keep_alive: granted.keep_alive_secs,
            session_expiry_interval: granted.session_expiry_secs,
            topic_alias_max: Some(ALIASES),
            max_packet_size: u32::try_from(core.max_packet_bytes()).ok(),
            shared_subscription_available: Some(0),
            ..ConnAckProperties::default()
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.session.tainted.store(true, Ordering::Relaxed);
        }
        self.session.ended.cancel();
    }
}

/// A lock that needs no locking.
fn lock_mut(out: &mut Mutex<Out>) -> &mut Out {
    out.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn merge(codes: Vec<Option<SubscribeReasonCode>>, ack: SubAck) -> Vec<SubscribeReasonCode> {
    let mut granted = ack.return_codes.into_iter();
    codes
        .into_iter()
        .map(|code| code.or_else(|| granted.next()).unwrap_or(SubscribeReasonCode::Failure))
        .collect()
}

/// Whether a client may send this kind of packet, with these flags, after CONNECT.
fn check_header(frame: Frame) -> Result<(), Stop> {
    let flags = match frame.kind {
        kind::PUBLISH if frame.qos() == 3 => {
            return Err(Stop::refuse(Refusal::Malformed, "QoS 3"));
        }
        kind::PUBLISH => return Ok(()),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 2,
        kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::PINGREQ | kind::DISCONNECT => 0,
        other => return Err(Stop::refuse(Refusal::Protocol, format!("packet type {other}"))),
    };
    if frame.flags == flags {
        Ok(())
    } else {
        Err(Stop::refuse(Refusal::Malformed, format!("flags of packet type {}", frame.kind)))
    }
}

/// Whether someone with `rights` may publish to `topic`.
pub(crate) fn check_topic(core: &Core, rights: &Rights, topic: &[u8]) -> Result<(), Refusal> {
    let topic = std::str::from_utf8(topic).map_err(|_| Refusal::TopicName)?;
    if !names::is_topic(topic) {
        return Err(Refusal::TopicName);
    }
    if !rights.may_publish(&core.root, topic) {
        return Err(Refusal::Publish);
    }
    Ok(())
}

/// Whether `topic` is where commands are asked for.
pub(crate) fn is_command_request(core: &Core, topic: &[u8]) -> bool {
    std::str::from_utf8(topic)
        .ok()
        .and_then(|topic| topics::Topic::parse(&core.root, topic).ok())
        .is_some_and(|topic| matches!(topic, topics::Topic::CommandRequest { .. }))
}

/// The start of a name from outside, for a log line.
fn excerpt(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(120).collect()
}

#[cfg(test)]
mod tests;
