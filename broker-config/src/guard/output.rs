//! What goes out to the client: rumqttd's packets, put right.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use bytes::BytesMut;
use rumqttd::protocol::{
    ConnAckProperties, Error, Packet, PubAck, PubAckReason, SubAck, SubscribeReasonCode,
};

use crate::{
    session::{BEAT_TOPIC, Rights, lock},
    shared::Shared,
    wire::{self, Peek},
};

use super::{link::Link, losses::Losses, stamp::Stamp, window::Window};

/// Topic aliases that an MQTT 5 client may use.
pub(super) const ALIASES: u16 = 16;

/// QoS 2 messages of a client whose second half hasn't come: rumqttd keeps them in memory.
pub(super) const MAX_QOS2: u16 = 100;

/// What `write`, which has no `&mut self`, keeps.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) publishes: Window<Packet>,
    pub(super) releases: Window<Packet>,
    pub(super) losses: Losses,
    /// One for each SUBSCRIBE, real or echo, that the router was given.
    pub(super) answers: VecDeque<Answer>,
    /// [`Answer::Settled`] came.
    pub(super) settled: bool,
}

/// What the router's next SUBACK becomes.
#[derive(Debug)]
pub(super) enum Answer {
    /// Failed filters have their code; the others get the router's, in order.
    Subscribed(Vec<Option<SubscribeReasonCode>>),
    Packet(Box<Packet>),
    /// Nothing: the router has seen all before it.
    Settled,
}

impl Link {
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
                let properties = Some(self.connack_properties(shared));
                wire::encode(version, Packet::ConnAck(ack, properties), buffer)
            }
            Packet::Publish(publish, mut properties) => {
                if let Some(stamp) = properties.as_mut().and_then(Stamp::take) {
                    self.note_stamp(shared, stamp, publish.retain);
                }
                let before = buffer.len();
                let is_beat = publish.topic == BEAT_TOPIC.as_bytes() && self.is_a_clients();
                let written = wire::encode(version, Packet::Publish(publish, properties), buffer)?;
                let id = self.note_publish(&buffer[before..]);
                if is_beat {
                    // Met by `#`, and nobody's business: taken in the client's place.
                    buffer.truncate(before);
                    self.take_for_client(id);
                    return Ok(0);
                }
                if self.is_a_clients() {
                    shared.counters.delivered.fetch_add(1, Ordering::Relaxed);
                }
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

    fn note_stamp(&self, shared: &Shared, stamp: Stamp, retained: bool) {
        // A retained copy says nothing of the messages since, and 0 is nobody's number.
        if retained || stamp.number == 0 {
            return;
        }
        let lost = lock(&self.out).losses.note(stamp);
        if lost > 0 {
            self.session.lose(shared, lost);
        }
    }

    /// Its packet id, if it is to be acknowledged.
    fn note_publish(&self, packet: &[u8]) -> Option<u16> {
        let Peek::Whole(frame) = wire::peek(packet) else { return None };
        let id = wire::publish_id(packet, frame)?;
        lock(&self.out).publishes.sent(id);
        Some(id)
    }

    /// Or a line of our own.
    pub(super) fn is_a_clients(&self) -> bool {
        matches!(self.session.rights, Rights::Role(_))
    }

    /// Acknowledges to the router what the client isn't sent; at the next read it goes there.
    fn take_for_client(&self, id: Option<u16>) {
        let Some(pkid) = id else { return };
        let ack = Packet::PubAck(PubAck { pkid, reason: PubAckReason::Success }, None);
        lock(&self.out).publishes.acknowledged(pkid, ack);
    }

    fn connack_properties(&self, shared: &Shared) -> ConnAckProperties {
        let granted = &self.session.granted;
        ConnAckProperties {
            assigned_client_identifier: granted.assigned_client_id.clone(),
            server_keep_alive: granted.keep_alive_secs,
            session_expiry_interval: granted.session_expiry_secs,
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

fn merge(codes: Vec<Option<SubscribeReasonCode>>, ack: SubAck) -> Vec<SubscribeReasonCode> {
    let mut granted = ack.return_codes.into_iter();
    codes
        .into_iter()
        .map(|code| code.or_else(|| granted.next()).unwrap_or(SubscribeReasonCode::Failure))
        .collect()
}
