//! What goes out to the client: rumqttd's packets, put right.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::BytesMut;
use rumqttd::protocol::{ConnAckProperties, Error, Packet};

use crate::{session::lock, shared::Shared, wire};

use super::{
    link::Link,
    losses::Losses,
    replay::Replay,
    room::Room,
    window::{Ack, Window},
};

/// Topic aliases that an MQTT 5 client may use.
pub(super) const ALIASES: u16 = 16;

/// QoS 2 messages of a client whose second half hasn't come: rumqttd keeps them in memory.
pub(super) const MAX_QOS2: u16 = 100;
/// And bytes of their payloads.
pub(super) const MAX_QOS2_BYTES: usize = 1 << 20;

/// What `write`, which has no `&mut self`, keeps.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) publishes: Window<Ack>,
    pub(super) releases: Window<Ack>,
    pub(super) room: Room,
    /// Filters whose retained messages are to come, one after the other.
    pub(super) replays: VecDeque<Replay>,
    /// There are more, and the client has room.
    pub(super) more: bool,
    pub(super) losses: Losses,
    /// One for each SUBSCRIBE, real or echo, that the router was given.
    pub(super) answers: VecDeque<Answer>,
    /// [`Answer::Settled`] came.
    pub(super) settled: bool,
    /// The session went on from an earlier connection: rumqttd is to hear again what is subscribed.
    pub(super) resumed: bool,
}

impl Output {
    pub(super) fn new(receive_max: Option<u16>) -> Self {
        Self {
            publishes: Window::default(),
            releases: Window::default(),
            room: Room::new(receive_max.unwrap_or(u16::MAX)),
            replays: VecDeque::new(),
            more: false,
            losses: Losses::default(),
            answers: VecDeque::new(),
            settled: false,
            resumed: false,
        }
    }
}

/// What the router's next SUBACK becomes.
#[derive(Debug)]
pub(super) enum Answer {
    Packet(Box<Packet>),
    /// Nothing; retained messages come later, if any.
    Subscribed(Option<Replay>),
    /// What waits until the client has room.
    Waiting,
    /// Nothing: the router has seen all before it.
    Settled,
}

impl Link {
    /// All but PUBLISH, which [`deliver`](Self::deliver) takes.
    pub(crate) fn write(
        &self,
        shared: &Shared,
        packet: Packet,
        buffer: &mut BytesMut,
    ) -> Result<usize, Error> {
        if self.closed {
            return Err(Error::InvalidProtocol);
        }
        let version = self.session.version;
        match packet {
            Packet::ConnAck(ack, _) => {
                self.resume(ack.session_present);
                let properties = Some(self.connack_properties(shared));
                wire::encode(version, Packet::ConnAck(ack, properties), buffer)
            }
            Packet::PubRel(release, _) => {
                let mut out = lock(&self.out);
                out.releases.sent(release.pkid);
                out.room.hold(release.pkid);
                drop(out);
                wire::encode(version, Packet::PubRel(release, None), buffer)
            }
            Packet::SubAck(..) => {
                let answer = lock(&self.out).answers.pop_front();
                match answer {
                    Some(Answer::Packet(packet)) => wire::encode(version, *packet, buffer),
                    Some(Answer::Subscribed(replay)) => {
                        lock(&self.out).replay(replay);
                        Ok(0)
                    }
                    Some(Answer::Waiting) => self.append_waiting(shared, buffer),
                    Some(Answer::Settled) => {
                        lock(&self.out).settled = true;
                        Ok(0)
                    }
                    None => Err(Error::InvalidProtocol),
                }
            }
            Packet::UnsubAck(..) => Ok(0),
            other => wire::encode(version, other, buffer),
        }
    }

    fn resume(&self, session_present: bool) {
        if session_present {
            lock(&self.session.subscriptions).resume();
            lock(&self.out).resumed = true;
        } else {
            lock(&self.session.subscriptions).clear();
        }
    }

    fn connack_properties(&self, shared: &Shared) -> ConnAckProperties {
        let granted = &self.session.granted;
        ConnAckProperties {
            assigned_client_identifier: granted.assigned_client_id.clone(),
            server_keep_alive: granted.keep_alive_secs,
            receive_max: Some(MAX_QOS2),
            topic_alias_max: Some(ALIASES),
            max_packet_size: u32::try_from(shared.max_packet_bytes()).ok(),
            shared_subscription_available: Some(0),
            ..ConnAckProperties::default()
        }
    }
}

/// A lock that needs no locking.
pub(super) fn unshared(out: &mut Mutex<Output>) -> &mut Output {
    out.get_mut().unwrap_or_else(PoisonError::into_inner)
}
