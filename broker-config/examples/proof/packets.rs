//! MQTT's packets as bytes. Nothing is checked: the proofs also say what no client should.

/// The version that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

pub(crate) const BOTH: [Version; 2] = [Version::V311, Version::V5];

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const SUBACK: u8 = 9;

/// A CONNECT to be filled in. The password of user `x` is `x-password`.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) user: String,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive_secs: u16,
    /// Topic and payload.
    pub(crate) will: Option<(Vec<u8>, Vec<u8>)>,
}

impl Connect {
    pub(crate) fn new(version: Version, user: &str, client_id: impl Into<String>) -> Self {
        Self {
            version,
            user: user.to_owned(),
            client_id: client_id.into(),
            clean: true,
            keep_alive_secs: 60,
            will: None,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let v5 = self.version == Version::V5;
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(if v5 { 5 } else { 4 });
        let will = if self.will.is_some() { 0x04 } else { 0 };
        body.push(0xC0 | will | (u8::from(self.clean) << 1));
        body.extend(self.keep_alive_secs.to_be_bytes());
        if v5 && !self.clean {
            body.extend([5, 0x11, 0, 0, 0x0E, 0x10]); // Session expiry: an hour.
        } else if v5 {
            body.push(0);
        }
        text(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload)) = &self.will {
            if v5 {
                body.push(0);
            }
            text(&mut body, topic);
            text(&mut body, payload);
        }
        text(&mut body, self.user.as_bytes());
        text(&mut body, format!("{}-password", self.user).as_bytes());
        packet(0x10, &body)
    }
}

/// A PUBLISH to be filled in.
#[derive(Debug, Clone)]
pub(crate) struct Publish<'a> {
    pub(crate) version: Version,
    pub(crate) topic: &'a [u8],
    pub(crate) qos: u8,
    /// For QoS 1 and 2.
    pub(crate) id: u16,
    pub(crate) retain: bool,
    pub(crate) again: bool,
    /// Encoded, without their length; for MQTT 5.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// QoS 0 for id 0, else QoS 1.
    pub(crate) fn new(version: Version, topic: &'a str, id: u16, payload: &'a [u8]) -> Self {
        Self {
            version,
            topic: topic.as_bytes(),
            qos: u8::from(id > 0),
            id,
            retain: false,
            again: false,
            properties: &[],
            payload,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.topic.len() + self.payload.len() + 8);
        text(&mut body, self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if self.version == Version::V5 {
            length(&mut body, self.properties.len());
            body.extend(self.properties);
        }
        body.extend(self.payload);
        let flags = (u8::from(self.again) << 3) | (self.qos << 1) | u8::from(self.retain);
        packet(0x30 | flags, &body)
    }
}

pub(crate) fn subscribe(version: Version, id: u16, filters: &[&str], qos: u8) -> Vec<u8> {
    let mut body = id_and_no_properties(version, id);
    for filter in filters {
        text(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet(0x82, &body)
}

pub(crate) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id_and_no_properties(version, id);
    for filter in filters {
        text(&mut body, filter.as_bytes());
    }
    packet(0xA2, &body)
}

fn id_and_no_properties(version: Version, id: u16) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body
}

/// A packet that is only an id: PUBACK (0x40), PUBREC (0x50), PUBREL (0x62), PUBCOMP (0x70).
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// A packet from its first byte and its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(first);
    length(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

fn length(to: &mut Vec<u8>, mut len: usize) {
    loop {
        let more = u8::from(len > 127) << 7;
        to.push((len % 128) as u8 | more);
        len /= 128;
        if len == 0 {
            return;
        }
    }
}

/// Two bytes of length, and the text.
pub(crate) fn text(to: &mut Vec<u8>, text: &[u8]) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text);
}

/// Where the packet that starts `buffer` has its body, and where it ends; none while bytes are missing.
pub(crate) fn frame(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut len = 0;
    for at in 0..4 {
        let byte = *buffer.get(1 + at)?;
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let end = 2 + at + len;
            return (buffer.len() >= end).then_some((2 + at, end));
        }
    }
    None
}

/// Topic, packet id (0 for QoS 0) and payload of a PUBLISH's body.
pub(crate) fn read_publish(
    version: Version,
    first: u8,
    body: &[u8],
) -> Option<(&[u8], u16, &[u8])> {
    let len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let topic = body.get(2..2 + len)?;
    let mut rest = &body[2 + len..];
    let mut id = 0;
    if first & 6 != 0 {
        id = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
        rest = &rest[2..];
    }
    if version == Version::V5 {
        let mut len = 0;
        for at in 0.. {
            let byte = *rest.first()?;
            rest = &rest[1..];
            len |= usize::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                break;
            }
        }
        rest = rest.get(len..)?;
    }
    Some((topic, id, rest))
}
