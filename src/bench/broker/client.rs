//! A small MQTT 3.1.1 client that costs next to nothing: prepared packets, one write for many, frames
//! read in place. It says what the measurements need and no more, so that the broker is what limits.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Buf as _, BytesMut};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// One read takes up to this much.
const READ_BYTES: usize = 64 << 10;
/// Seconds. rumqttd refuses 0; no measurement is that long.
const KEEP_ALIVE: u16 = 60;

const CONNACK: u8 = 2;
pub(super) const PUBLISH: u8 = 3;
pub(super) const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// Where a broker is, and as whom to come.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Name and password.
    pub(super) login: Option<(String, String)>,
}

/// A connection that CONNACK has come for.
pub(super) struct Client {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl Client {
    pub(super) async fn connect(door: &Door, client_id: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(door.address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer): (Box<dyn AsyncRead + Send + Unpin>, Writer) = match &door.tls {
            None => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Some(config) => {
                let name = ServerName::IpAddress(door.address.ip().into());
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
                let (reader, writer) = tokio::io::split(stream);
                (Box::new(reader), Box::new(writer))
            }
        };
        let buffer = BytesMut::with_capacity(READ_BYTES);
        let mut client = Self { reader: Reader { stream: reader, buffer }, writer };
        client.send(&connect_packet(client_id, door.login.as_ref())).await?;
        client.expect(CONNACK, |body| body == [0, 0]).await?;
        Ok(client)
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        let mut body = vec![0, 1];
        put_text(&mut body, filter);
        body.push(qos);
        self.send(&packet(0x82, &body)).await?;
        self.expect(SUBACK, |body| body == [0, 1, qos]).await
    }

    async fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.writer.write_all(packet).await?;
        self.writer.flush().await
    }

    /// Takes the next packet, which must be this one.
    async fn expect(&mut self, kind: u8, right: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        loop {
            if let Some((got, body)) = self.reader.next()? {
                return if got == kind && right(&body) {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("packet type {got} with {:?}", &body[..])))
                };
            }
            self.reader.fill().await?;
        }
    }
}

/// The packets that come.
pub(super) struct Reader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    buffer: BytesMut,
}

impl Reader {
    /// Waits for bytes.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next whole packet of those read: its first four bits, and what follows the length.
    pub(super) fn next(&mut self) -> io::Result<Option<(u8, BytesMut)>> {
        let mut body_len = 0;
        for at in 0..4 {
            let Some(&byte) = self.buffer.get(1 + at) else { return Ok(None) };
            body_len |= usize::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                let header = 2 + at;
                if self.buffer.len() < header + body_len {
                    return Ok(None);
                }
                let kind = self.buffer[0] >> 4;
                self.buffer.advance(header);
                return Ok(Some((kind, self.buffer.split_to(body_len))));
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn connect_packet(client_id: &str, login: Option<&(String, String)>) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, "MQTT");
    // Level 4, clean session.
    body.extend([4, if login.is_some() { 0xC2 } else { 0x02 }]);
    body.extend(KEEP_ALIVE.to_be_bytes());
    put_text(&mut body, client_id);
    if let Some((name, password)) = login {
        put_text(&mut body, name);
        put_text(&mut body, password);
    }
    packet(0x10, &body)
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let more = if rest > 0x7F { 0x80 } else { 0 };
        packet.push((rest & 0x7F) as u8 | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// A PUBLISH of which only packet id, time and number change.
pub(super) struct Message {
    packet: Vec<u8>,
    /// Where the packet id is, with QoS 1.
    id_at: Option<usize>,
    payload_at: usize,
}

/// Send time and number, the start of each payload.
pub(super) const STAMP_BYTES: usize = 16;

impl Message {
    pub(super) fn new(topic: &str, qos: u8, payload: &[u8]) -> Self {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        if qos > 0 {
            body.extend([0, 0]);
        }
        body.extend(payload);
        let packet = packet(0x30 | (qos << 1), &body);
        let payload_at = packet.len() - payload.len();
        let id_at = (qos > 0).then(|| payload_at - 2);
        Self { packet, id_at, payload_at }
    }

    /// Appends the `number`-th, sent at `nanos`.
    pub(super) fn append(&mut self, to: &mut Vec<u8>, number: u64, nanos: u64) {
        if let Some(at) = self.id_at {
            // 1 to 65 535 in turn.
            let id = (number % 0xFFFF) as u16 + 1;
            self.packet[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        let stamp = &mut self.packet[self.payload_at..self.payload_at + STAMP_BYTES];
        stamp[..8].copy_from_slice(&nanos.to_be_bytes());
        stamp[8..].copy_from_slice(&number.to_be_bytes());
        to.extend_from_slice(&self.packet);
    }
}

/// Number and send time of the message in a PUBLISH's body.
pub(super) fn stamp(body: &[u8], payload_bytes: usize) -> Option<(u64, u64)> {
    let stamp = body.get(body.len().checked_sub(payload_bytes)?..)?.get(..STAMP_BYTES)?;
    let (nanos, number) = stamp.split_at(8);
    Some((u64::from_be_bytes(number.try_into().ok()?), u64::from_be_bytes(nanos.try_into().ok()?)))
}

/// The packet id in a PUBLISH's body, with QoS 1.
pub(super) fn publish_id(body: &[u8]) -> Option<[u8; 2]> {
    let topic_len = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    body.get(2 + topic_len..4 + topic_len)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader { stream: Box::new(tokio::io::empty()), buffer: BytesMut::from(bytes) }
    }

    #[test]
    fn what_is_sent_can_be_read() {
        for qos in [0, 1] {
            let mut bytes = Vec::new();
            let mut message = Message::new("a/b", qos, &[9; 256]);
            message.append(&mut bytes, 7, 1_234);
            message.append(&mut bytes, 0xFFFF, 5);
            let mut reader = reader(&bytes);
            for (number, nanos, id) in [(7, 1_234, 8_u16), (0xFFFF, 5, 1)] {
                let (kind, body) = reader.next().unwrap().expect("a packet");
                assert_eq!(kind, PUBLISH);
                assert_eq!(stamp(&body, 256), Some((number, nanos)));
                if qos == 1 {
                    assert_eq!(publish_id(&body), Some(id.to_be_bytes()));
                }
            }
            assert!(reader.next().unwrap().is_none());
        }
    }

    #[test]
    fn half_a_packet_is_none() {
        let mut bytes = Vec::new();
        Message::new("a/b", 1, &[9; 256]).append(&mut bytes, 7, 1_234);
        for len in 0..bytes.len() {
            assert!(reader(&bytes[..len]).next().unwrap().is_none(), "{len}");
        }
    }
}
