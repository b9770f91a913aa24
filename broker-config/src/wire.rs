//! The few bytes of MQTT that we look at ourselves; the rest is rumqttd's `V4` and `V5`.
//!
//! | byte | what |
//! |---|---|
//! | 0 | packet type (4 bits), flags (4 bits) |
//! | 1 to 4 | remaining length, 7 bits a byte, low first |
//! | … | CONNECT: 0, 4, `MQTT`, level (4 is 3.1.1, 5 is 5). PUBLISH: topic length (2), topic, packet id (2, QoS > 0) |
//!
//! `V4` and `V5` panic on some packets (K7, K8), and a panic in a connection's task leaves rumqttd
//! with a dead session that still occupies its place. So they are only called behind
//! [`catch_unwind`], with what they are known to bear.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{Error, Packet, Protocol, Publish, PublishProperties, v4::V4, v5::V5};

/// The version that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// A packet's frame at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The packet type, 0 to 15.
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Bytes before the remaining length begins to count.
    pub(crate) header_len: usize,
    pub(crate) body_len: usize,
}

impl Frame {
    pub(crate) fn len(self) -> usize {
        self.header_len + self.body_len
    }

    /// QoS of a PUBLISH.
    pub(crate) fn qos(self) -> u8 {
        (self.flags >> 1) & 3
    }
}

pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
}

/// What the start of a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peek {
    /// At least so many bytes are missing, the frame being known or not.
    Missing(usize, Option<Frame>),
    /// All there.
    Whole(Frame),
    /// The length has five bytes.
    Malformed,
}

/// Looks at the frame that starts `buffer`.
pub(crate) fn peek(buffer: &[u8]) -> Peek {
    let mut body_len = 0;
    for at in 0..4 {
        let Some(&byte) = buffer.get(1 + at) else {
            return Peek::Missing(2 + at - buffer.len(), None);
        };
        body_len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let frame = Frame {
                kind: buffer[0] >> 4,
                flags: buffer[0] & 0x0F,
                header_len: 2 + at,
                body_len,
            };
            return match frame.len().checked_sub(buffer.len()) {
                None | Some(0) => Peek::Whole(frame),
                Some(missing) => Peek::Missing(missing, Some(frame)),
            };
        }
    }
    Peek::Malformed
}

/// The protocol name and level of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Known(Version),
    /// MQTT, but another one.
    Other,
    NotMqtt,
}

/// Reads name and level from a whole CONNECT.
pub(crate) fn level(packet: &[u8], frame: Frame) -> Level {
    match &packet[frame.header_len..] {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Level::Known(Version::V311),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Level::Known(Version::V5),
        [0, 4, b'M', b'Q', b'T', b'T', ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..] => {
            Level::Other
        }
        _ => Level::NotMqtt,
    }
}

/// The packet id of a PUBLISH, which rumqttd's type keeps to itself.
pub(crate) fn publish_id(packet: &[u8], frame: Frame) -> Option<u16> {
    if frame.qos() == 0 {
        return None;
    }
    let body = packet.get(frame.header_len..frame.len())?;
    let topic_len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let id = body.get(2 + topic_len..4 + topic_len)?;
    Some(u16::from_be_bytes([id[0], id[1]]))
}

/// Appends a PUBLISH with QoS 0 and without properties, what most clients get most of the time, without
/// moving rumqttd's large packet types about.
pub(crate) fn append_plain_publish(
    version: Version,
    topic: &[u8],
    payload: &[u8],
    retain: bool,
    buffer: &mut BytesMut,
) -> Result<(), Error> {
    let topic_len = u16::try_from(topic.len()).map_err(|_| Error::TopicNotUtf8)?;
    let no_properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let body_len = 2 + topic.len() + no_properties.len() + payload.len();
    if body_len > MAX_REMAINING_LEN {
        return Err(Error::PayloadTooLong);
    }
    buffer.reserve(5 + body_len);
    buffer.put_u8(kind::PUBLISH << 4 | u8::from(retain));
    put_remaining_len(buffer, body_len);
    buffer.put_u16(topic_len);
    for part in [topic, no_properties, payload] {
        buffer.put_slice(part);
    }
    Ok(())
}

/// What fits into the remaining length's four bytes.
const MAX_REMAINING_LEN: usize = (1 << 28) - 1;

fn put_remaining_len(buffer: &mut BytesMut, mut len: usize) {
    while len >= 0x80 {
        buffer.put_u8((len & 0x7F) as u8 | 0x80);
        len >>= 7;
    }
    buffer.put_u8(len as u8);
}

/// A PUBLISH with QoS 0 as one with a higher QoS and a packet id.
pub(crate) fn with_id(packet: &[u8], qos: u8, id: u16) -> Option<BytesMut> {
    let Peek::Whole(frame) = peek(packet) else { return None };
    let body = packet.get(frame.header_len..frame.len())?;
    let topic_len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let (topic, rest) = body.split_at_checked(2 + topic_len)?;
    let mut changed = BytesMut::with_capacity(packet.len() + 3);
    changed.put_u8(packet[0] | (qos << 1));
    put_remaining_len(&mut changed, body.len() + 2);
    changed.put_slice(topic);
    changed.put_u16(id);
    changed.put_slice(rest);
    Some(changed)
}

/// Takes the packet that starts `stream`.
pub(crate) fn decode(
    version: Version,
    stream: &mut BytesMut,
    max_bytes: usize,
) -> Result<Packet, Error> {
    let read = AssertUnwindSafe(|| match version {
        Version::V311 => V4.read_mut(stream, max_bytes),
        Version::V5 => V5.read_mut(stream, max_bytes),
    });
    catch_unwind(read).unwrap_or(Err(Error::MalformedPacket))
}

/// Appends `packet`. On an error nothing stays behind in `buffer`.
pub(crate) fn encode(
    version: Version,
    packet: Packet,
    buffer: &mut BytesMut,
) -> Result<usize, Error> {
    match version {
        Version::V311 => write(version, without_properties(packet), buffer),
        Version::V5 => write(version, packet, buffer),
    }
}

/// The same for a PUBLISH, which for 3.1.1 has no properties.
pub(crate) fn encode_publish(
    version: Version,
    publish: Publish,
    properties: Option<PublishProperties>,
    buffer: &mut BytesMut,
) -> Result<usize, Error> {
    let properties = if version == Version::V5 { properties } else { None };
    write(version, Packet::Publish(publish, properties), buffer)
}

fn write(version: Version, packet: Packet, buffer: &mut BytesMut) -> Result<usize, Error> {
    let before = buffer.len();
    let write = AssertUnwindSafe(|| match version {
        Version::V311 => V4.write(packet, buffer),
        Version::V5 => V5.write(packet, buffer),
    });
    let written = catch_unwind(write).unwrap_or(Err(Error::IncorrectPacketFormat));
    if written.is_err() {
        buffer.truncate(before);
    }
    written
}

/// `V4` panics on a packet with properties (K7).
fn without_properties(packet: Packet) -> Packet {
    match packet {
        Packet::Connect(connect, _, will, _, login) => {
            Packet::Connect(connect, None, will, None, login)
        }
        Packet::ConnAck(ack, _) => Packet::ConnAck(ack, None),
        Packet::Publish(publish, _) => Packet::Publish(publish, None),
        Packet::PubAck(ack, _) => Packet::PubAck(ack, None),
        Packet::PubRec(ack, _) => Packet::PubRec(ack, None),
        Packet::PubRel(ack, _) => Packet::PubRel(ack, None),
        Packet::PubComp(ack, _) => Packet::PubComp(ack, None),
        Packet::Subscribe(subscribe, _) => Packet::Subscribe(subscribe, None),
        Packet::SubAck(ack, _) => Packet::SubAck(ack, None),
        Packet::Unsubscribe(unsubscribe, _) => Packet::Unsubscribe(unsubscribe, None),
        Packet::UnsubAck(ack, _) => Packet::UnsubAck(ack, None),
        Packet::Disconnect(disconnect, _) => Packet::Disconnect(disconnect, None),
        Packet::PingReq(ping) => Packet::PingReq(ping),
        Packet::PingResp(ping) => Packet::PingResp(ping),
    }
}

/// A CONNACK that refuses.
pub(crate) fn refuse_connect(version: Version, refusal: crate::Refusal) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(5);
    match version {
        Version::V311 => bytes.put_slice(&[0x20, 2, 0, refusal.return_code()]),
        Version::V5 => bytes.put_slice(&[0x20, 3, 0, refusal.reason_code(), 0]),
    }
    bytes
}

/// MQTT 5's DISCONNECT from the server.
pub(crate) fn disconnect(reason_code: u8) -> [u8; 4] {
    [0xE0, 2, reason_code, 0]
}

#[cfg(test)]
mod tests;
