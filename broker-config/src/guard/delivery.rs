//! What becomes of a message on its way to the client.
//!
//! | rumqttd | here |
//! |---|---|
//! | delivers with the subscription's QoS | with the lower of that and the message's own |
//! | to the publisher too, in spite of No Local | not |
//! | live messages without the retain flag | with the one of the PUBLISH, for Retain As Published |
//! | retained messages to new subscriptions, a hundred at most | it has none: [`Replay`](super::replay) |
//! | any size | only what the client's Maximum Packet Size allows |
//! | up to 100 at a time | not more than the client's Receive Maximum ([`Room`](super::room)) |
//! | the publisher's DUP flag | without |
//!
//! rumqttd waits for an acknowledgement of everything that it sent with QoS 1 or 2. For what the client
//! doesn't get, or gets with QoS 0, the guard gives it.

use std::sync::atomic::Ordering;

use bytes::BytesMut;
use rumqttd::protocol::{Error, Publish, PublishProperties};

use crate::{
    refusal::Refusal,
    session::{BEAT_TOPIC, Rights, lock},
    shared::Shared,
    wire::{self, Peek, Version},
};

use super::{link::Link, output::Output, stamp::Stamp, subscription::Options, window::Ack};

/// In the first byte of a PUBLISH.
const DUP: u8 = 8;
const QOS: u8 = 6;

impl Link {
    pub(crate) fn deliver(
        &self,
        shared: &Shared,
        publish: &mut Publish,
        properties: &mut Option<PublishProperties>,
        buffer: &mut BytesMut,
    ) -> Result<(), Error> {
        if self.closed {
            return Err(Error::InvalidProtocol);
        }
        let stamp = Stamp::take(&mut publish.payload);
        if let Some(stamp) = stamp {
            self.note_stamp(shared, stamp);
        }
        let key = properties.as_mut().and_then(|p| p.subscription_identifiers.pop());
        let options = lock(&self.session.subscriptions).options(key, &publish.topic);
        let wanted = self.is_wanted(publish, stamp, options);
        if let Some(stamp) = stamp {
            publish.retain |= options.retain_as_published && stamp.retain;
        }
        if let Some(id) = options.id {
            properties.get_or_insert_default().subscription_identifiers = vec![id];
        }
        let qos = options.qos.min(stamp.map_or(options.qos, |stamp| stamp.qos));
        let before = buffer.len();
        self.append(shared, publish, properties, qos, wanted, buffer)?;
        if buffer.len() > before && self.is_a_clients() {
            shared.counters.delivered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Or a line of our own.
    pub(super) fn is_a_clients(&self) -> bool {
        matches!(self.session.rights, Rights::Role(_))
    }

    fn is_wanted(&self, publish: &Publish, stamp: Option<Stamp>, options: Options) -> bool {
        if !self.is_a_clients() {
            return true;
        }
        let own = stamp.is_some_and(|stamp| stamp.publisher == self.publisher);
        // Wildcards meet the beat too, but it is nobody's.
        !(options.no_local && own) && publish.topic != BEAT_TOPIC
    }

    /// Appends the PUBLISH, unless it isn't wanted, doesn't fit, or must wait.
    fn append(
        &self,
        shared: &Shared,
        publish: &Publish,
        properties: &Option<PublishProperties>,
        qos: u8,
        wanted: bool,
        buffer: &mut BytesMut,
    ) -> Result<(), Error> {
        let before = buffer.len();
        if !has_id(publish) {
            // There is nothing to acknowledge.
            if wanted {
                self.append_at_most_once(publish, properties, buffer)?;
            }
            return Ok(());
        }
        let version = self.session.version;
        wire::encode_publish(version, publish.clone(), properties.clone(), buffer)?;
        let (id, inner_qos) = id_and_qos(&buffer[before..]).ok_or(Error::MalformedPacket)?;
        let mut out = lock(&self.out);
        out.publishes.sent(id);
        let qos = qos.min(inner_qos);
        if !wanted || qos == 0 {
            buffer.truncate(before);
            if wanted {
                // What rumqttd sends with a packet id and the client gets without is encoded twice.
                self.append_at_most_once(publish, properties, buffer)?;
            }
        } else {
            buffer[before] = buffer[before] & !(DUP | QOS) | (qos << 1);
        }
        if !self.fits(buffer.len() - before) {
            buffer.truncate(before);
        }
        if buffer.len() == before || qos == 0 {
            out.acknowledge_here(id);
        } else if !out.room.enter(id) {
            let kept = out.room.wait(id, &buffer[before..]);
            buffer.truncate(before);
            if !kept {
                drop(out);
                self.session.refuse(shared, Refusal::Stalled, "acknowledges too little");
                return Err(Error::InvalidProtocol);
            }
        }
        Ok(())
    }

    fn append_at_most_once(
        &self,
        publish: &Publish,
        properties: &Option<PublishProperties>,
        buffer: &mut BytesMut,
    ) -> Result<(), Error> {
        let before = buffer.len();
        let (topic, payload) = (&publish.topic, &publish.payload);
        match (self.session.version, properties) {
            (Version::V5, Some(properties)) => {
                let plain = Publish::new(topic.clone(), payload.clone(), publish.retain);
                wire::encode_publish(Version::V5, plain, Some(properties.clone()), buffer)?;
            }
            (version, _) => {
                wire::append_plain_publish(version, topic, payload, publish.retain, buffer)?;
            }
        }
        if !self.fits(buffer.len() - before) {
            buffer.truncate(before);
        }
        Ok(())
    }

    pub(super) fn fits(&self, bytes: usize) -> bool {
        let max = self.session.granted.max_packet_bytes;
        max.is_none_or(|max| bytes <= usize::try_from(max).unwrap_or(usize::MAX))
    }

    /// Appends what waited and may go now.
    pub(super) fn append_waiting(
        &self,
        shared: &Shared,
        buffer: &mut BytesMut,
    ) -> Result<usize, Error> {
        let before = buffer.len();
        while let Some(packet) = lock(&self.out).room.next() {
            buffer.extend_from_slice(&packet);
        }
        self.append_retained(shared, buffer)?;
        Ok(buffer.len() - before)
    }

    fn note_stamp(&self, shared: &Shared, stamp: Stamp) {
        // 0 is nobody's number.
        if stamp.number == 0 {
            return;
        }
        let lost = lock(&self.out).losses.note(stamp);
        if lost > 0 {
            self.session.lose(shared, lost);
        }
    }
}

impl Output {
    /// Acknowledges for the client what it doesn't know of; `read` passes it on.
    fn acknowledge_here(&mut self, id: u16) {
        self.publishes.acknowledged(id, Ack::Taken(id));
    }
}

/// Whether rumqttd gave it a packet id. Its type keeps that to itself, but for its length.
fn has_id(publish: &Publish) -> bool {
    publish.len() > 2 + publish.topic.len() + publish.payload.len()
}

/// Of an encoded PUBLISH with QoS 1 or 2.
fn id_and_qos(packet: &[u8]) -> Option<(u16, u8)> {
    match wire::peek(packet) {
        Peek::Whole(frame) => Some((wire::publish_id(packet, frame)?, frame.qos())),
        Peek::Missing(..) | Peek::Malformed => None,
    }
}
