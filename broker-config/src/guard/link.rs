//! The connection of a session: from bytes to packets, and how it ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::Ordering},
};

use bytes::{Buf as _, Bytes, BytesMut};
use rumqttd::protocol::{
    DisconnectReasonCode, Packet, PubComp, PubCompReason, Subscribe, Unsubscribe,
};

use crate::{
    refusal::Refusal,
    session::{Session, lock},
    shared::Shared,
    traffic::TopicState,
    wire::{self, Frame, Peek, kind},
};

use super::{
    output::{Answer, Output, unshared},
    replay::is_own,
    stamp, subscription,
    window::Ack,
};

/// Packets given to the router in one go.
const BATCH: usize = 100;

/// Packets that may wait behind an UNSUBSCRIBE; usually it is through in a millisecond.
const MAX_BEHIND: usize = 200;

/// The connection of a session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) session: Arc<Session>,
    /// For the router, in order.
    pub(super) pending: VecDeque<Packet>,
    /// A message was handed over that the router may not have seen yet.
    pub(super) unsettled: bool,
    pub(super) held: Option<Held>,
    pub(super) closed: bool,
    pub(super) aliases: HashMap<u16, Bytes>,
    /// See [`stamp::publisher`].
    pub(super) publisher: u64,
    pub(super) granted_topics: HashMap<Bytes, Arc<TopicState>>,
    /// QoS 2 packet ids between PUBLISH and PUBREL, with their payloads' bytes.
    pub(super) qos2: HashMap<u16, usize>,
    pub(super) out: Mutex<Output>,
}

/// A packet, decoded.
#[derive(Debug)]
pub(super) struct Taken {
    packet: Packet,
    frame: Frame,
    publish_id: Option<u16>,
}

/// An UNSUBSCRIBE that waits until the router has seen all before it, and what came behind it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) unsubscribe: Unsubscribe,
    pub(super) behind: Vec<Taken>,
}

/// Why there is no packet for the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// More bytes are needed.
    Wait,
    /// No more will come: the client said goodbye, or was refused.
    Closed,
}

/// Why reading a packet stops the reading.
pub(super) enum Stop {
    /// Bytes are missing.
    Wait,
    /// The client said goodbye.
    Goodbye,
    Refuse(Refusal, String),
}

impl Stop {
    pub(super) fn refuse(refusal: Refusal, what: impl Into<String>) -> Self {
        Self::Refuse(refusal, what.into())
    }
}

impl Link {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self {
            pending: VecDeque::new(),
            unsettled: false,
            held: None,
            closed: false,
            aliases: HashMap::new(),
            publisher: stamp::publisher(&session.user, &session.client_id),
            granted_topics: HashMap::new(),
            qos2: HashMap::new(),
            out: Mutex::new(Output::new(session.granted.receive_max)),
            session,
        }
    }

    /// Appends the packets for the router that `stream` starts with to `to`, some dozens at most, and says
    /// why there are no more; nothing when there may be.
    pub(crate) fn read(
        &mut self,
        shared: &Shared,
        stream: &mut BytesMut,
        to: &mut VecDeque<Packet>,
    ) -> Option<End> {
        let mut batch = 0;
        loop {
            batch += self.pending.len();
            to.append(&mut self.pending);
            if batch >= BATCH {
                return None;
            }
            if self.closed {
                return Some(End::Closed);
            }
            self.take_resumed();
            if !self.pending.is_empty() {
                continue;
            }
            let step = match self.take_settled() {
                Some(held) => self.go_on(shared, held),
                None => self.take_packet(shared, stream),
            };
            match step {
                Ok(()) => {}
                Err(Stop::Wait) => return Some(End::Wait),
                Err(Stop::Goodbye) => self.closed = true,
                Err(Stop::Refuse(refusal, what)) => {
                    self.closed = true;
                    self.session.refuse(shared, refusal, &what);
                }
            }
        }
    }

    fn take_packet(&mut self, shared: &Shared, stream: &mut BytesMut) -> Result<(), Stop> {
        let max_bytes = shared.max_packet_bytes();
        let frame = match wire::peek(stream) {
            Peek::Malformed => return Err(Stop::refuse(Refusal::Malformed, "length")),
            Peek::Missing(_, Some(frame)) | Peek::Whole(frame) if frame.body_len > max_bytes => {
                let what = format!("packet of {} bytes", frame.body_len);
                return Err(Stop::refuse(Refusal::TooLarge, what));
            }
            Peek::Missing(_, Some(frame)) => {
                check_header(frame)?;
                return Err(Stop::Wait);
            }
            Peek::Missing(_, None) => return Err(Stop::Wait),
            Peek::Whole(frame) => frame,
        };
        check_header(frame)?;
        if let (kind::PUBACK, &[high, low]) = (frame.kind, &stream[frame.header_len..frame.len()]) {
            // Half of the packets of a client that subscribes with QoS 1: without the way through all
            // the hands that a packet goes through. Nothing else waits for it either.
            stream.advance(frame.len());
            let id = u16::from_be_bytes([high, low]);
            if self.acknowledged(id, Ack::Taken(id)) {
                self.leave(id);
            }
            return Ok(());
        }
        let publish_id = (frame.kind == kind::PUBLISH)
            .then(|| wire::publish_id(&stream[..frame.len()], frame))
            .flatten();
        let packet = wire::decode(self.session.version, stream, max_bytes)
            .map_err(|error| Stop::refuse(Refusal::Malformed, error.to_string()))?;
        self.pass(shared, Taken { packet, frame, publish_id })
    }

    fn pass(&mut self, shared: &Shared, taken: Taken) -> Result<(), Stop> {
        match &mut self.held {
            None => self.judge(shared, taken),
            Some(held) => match taken.packet {
                // The router may be waiting for these before it answers anything.
                Packet::PubAck(..)
                | Packet::PubRec(..)
                | Packet::PubComp(..)
                | Packet::PingReq(_) => self.judge(shared, taken),
                // With the connection ends what UNSUBSCRIBE asks for; the rest shall still be done.
                Packet::Disconnect(..) => {
                    let behind = std::mem::take(&mut held.behind);
                    self.held = None;
                    for earlier in behind {
                        if !matches!(earlier.packet, Packet::Unsubscribe(..)) {
                            self.judge(shared, earlier)?;
                        }
                    }
                    self.judge(shared, taken)
                }
                _ if held.behind.len() >= MAX_BEHIND => {
                    Err(Stop::refuse(Refusal::ReceiveMaximum, "packets behind an UNSUBSCRIBE"))
                }
                _ => {
                    held.behind.push(taken);
                    Ok(())
                }
            },
        }
    }

    /// Acknowledgements that were given here, and what a session that goes on is subscribed to.
    fn take_resumed(&mut self) {
        let out = unshared(&mut self.out);
        self.pending.extend(std::iter::from_fn(|| out.publishes.next()).map(Packet::from));
        if std::mem::take(&mut out.more) {
            self.echo(1, Answer::Waiting);
        }
        let out = unshared(&mut self.out);
        if !std::mem::take(&mut out.resumed) {
            return;
        }
        let held = lock(&self.session.subscriptions);
        for (key, filter, qos) in held.iter() {
            let told = held.is_told_apart().then_some(key);
            out.answers.push_back(Answer::Subscribed(None));
            self.pending.push_back(subscription::packet(1, told, filter, qos));
        }
    }

    /// What was held, once the router has seen all before it.
    fn take_settled(&mut self) -> Option<Held> {
        let settled = std::mem::take(&mut unshared(&mut self.out).settled);
        if settled { self.held.take() } else { None }
    }

    fn go_on(&mut self, shared: &Shared, held: Held) -> Result<(), Stop> {
        self.pass_unsubscribe(held.unsubscribe);
        held.behind.into_iter().try_for_each(|taken| self.pass(shared, taken))
    }

    fn judge(&mut self, shared: &Shared, taken: Taken) -> Result<(), Stop> {
        let Taken { packet, frame, publish_id } = taken;
        if !matches!(packet, Packet::PubAck(..) | Packet::PubRec(..) | Packet::PubComp(..)) {
            self.session.meter.packets.fetch_add(1, Ordering::Relaxed);
        }
        match packet {
            Packet::Publish(publish, properties) => {
                self.publish(shared, publish, properties, frame.qos(), publish_id)
            }
            Packet::PubAck(ack, _) => {
                let id = ack.pkid;
                if self.acknowledged(id, Ack::Taken(id)) {
                    self.leave(id);
                }
                Ok(())
            }
            Packet::PubRec(ack, _) => {
                self.received(ack);
                Ok(())
            }
            Packet::PubRel(release, _) => {
                if self.qos2.remove(&release.pkid).is_some() {
                    self.unsettled = true;
                    self.pending.push_back(Packet::PubRel(release, None));
                } else {
                    let reason = PubCompReason::PacketIdentifierNotFound;
                    let complete = PubComp { pkid: release.pkid, reason };
                    self.answer(release.pkid, Packet::PubComp(complete, None));
                }
                Ok(())
            }
            Packet::PubComp(ack, _) => {
                let id = ack.pkid;
                let out = unshared(&mut self.out);
                let known = if is_own(id) {
                    out.room.has(id)
                } else {
                    out.releases.acknowledged(id, Ack::Complete(id))
                };
                self.pending.extend(std::iter::from_fn(|| out.releases.next()).map(Packet::from));
                if known {
                    self.leave(id);
                } else {
                    self.session.meter.packets.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            Packet::Subscribe(subscribe, properties) => {
                self.subscribe(shared, subscribe, properties)
            }
            Packet::Unsubscribe(unsubscribe, _) => self.unsubscribe(unsubscribe),
            Packet::PingReq(ping) => {
                self.pending.push_back(Packet::PingReq(ping));
                Ok(())
            }
            Packet::Disconnect(disconnect, properties) => {
                if let Some(secs) = properties.and_then(|p| p.session_expiry_interval) {
                    self.change_expiry(secs)?;
                }
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

    fn change_expiry(&mut self, secs: u32) -> Result<(), Stop> {
        if secs > 0 && self.session.granted.expiry_secs == 0 {
            return Err(Stop::refuse(Refusal::Protocol, "session expiry in DISCONNECT only"));
        }
        self.session.expiry_secs.store(secs, Ordering::Relaxed);
        Ok(())
    }

    /// The client is through with a message of ours; another may have waited for that.
    pub(super) fn leave(&mut self, id: u16) {
        let out = unshared(&mut self.out);
        if out.room.leave(id) && (out.room.is_awaited() || !out.replays.is_empty()) {
            self.echo(id, Answer::Waiting);
        }
    }

    /// Answers the client from here, after all that is on its way already.
    pub(super) fn answer(&mut self, id: u16, packet: Packet) {
        self.echo(id, Answer::Packet(Box::new(packet)));
    }

    /// Has the router say a word that comes back as `answer`.
    pub(super) fn echo(&mut self, id: u16, answer: Answer) {
        unshared(&mut self.out).answers.push_back(answer);
        let echo = Subscribe { pkid: id, filters: Vec::new() };
        self.pending.push_back(Packet::Subscribe(echo, None));
    }
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
