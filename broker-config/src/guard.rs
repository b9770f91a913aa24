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
//! | UNSUBSCRIBE | passed on when the router has seen the messages before it; one UNSUBACK comes back, whatever rumqttd sends |
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

use std::sync::{Arc, atomic::Ordering};

use bytes::BytesMut;
use rumqttd::protocol::{Error, Packet, Protocol};

use crate::{
    names,
    refusal::Refusal,
    session::Rights,
    shared::Shared,
    wire::{self, Level, Peek, kind},
};

mod link;
mod losses;
mod output;
mod stamp;
mod verdicts;
mod window;

use link::Link;

/// rumqttd's view of a connection; see the module.
#[derive(Debug)]
pub(crate) struct Guard {
    shared: Arc<Shared>,
    link: Option<Link>,
}

impl Guard {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, link: None }
    }
}

impl Clone for Guard {
    /// For a new connection, which knows nothing of this one.
    fn clone(&self) -> Self {
        Self::new(self.shared.clone())
    }
}

impl Protocol for Guard {
    fn read_mut(&mut self, stream: &mut BytesMut, max_bytes: usize) -> Result<Packet, Error> {
        match &mut self.link {
            Some(link) => link.read(&self.shared, stream, max_bytes),
            None => self.read_connect(stream, max_bytes),
        }
    }

    fn write(&self, packet: Packet, buffer: &mut BytesMut) -> Result<usize, Error> {
        match &self.link {
            Some(link) => link.write(&self.shared, packet, buffer),
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
        let Some(session) = self.shared.claim(&login.username) else {
            return Err(self.around_front());
        };
        connect.client_id.clone_from(&session.inner_id);
        self.link = Some(Link::new(session));
        Ok(Packet::Connect(connect, None, None, None, None))
    }

    fn around_front(&self) -> Error {
        self.shared.counters.refuse(Refusal::AroundFront);
        if !self.shared.intruder_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(broker = %self.shared.name,
                "a local process tries the inner port and is refused (logged once, counted always)");
        }
        Error::InvalidProtocol
    }
}

/// Whether someone with `rights` may publish to `topic`.
pub(crate) fn check_topic(shared: &Shared, rights: &Rights, topic: &[u8]) -> Result<(), Refusal> {
    let topic = std::str::from_utf8(topic).map_err(|_| Refusal::TopicName)?;
    if !names::is_topic(topic) {
        return Err(Refusal::TopicName);
    }
    if !rights.may_publish(&shared.root, topic) {
        return Err(Refusal::Publish);
    }
    Ok(())
}

/// Whether `topic` is where commands are asked for.
pub(crate) fn is_command_request(shared: &Shared, topic: &[u8]) -> bool {
    std::str::from_utf8(topic)
        .ok()
        .and_then(|topic| topics::Topic::parse(&shared.root, topic).ok())
        .is_some_and(|topic| matches!(topic, topics::Topic::CommandRequest { .. }))
}

#[cfg(test)]
mod tests;
