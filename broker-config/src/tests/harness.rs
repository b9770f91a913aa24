//! A broker with known users, a client that says exactly the bytes it is told, and a pair of witnesses.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use topics::{GatewayId, Role};

use crate::{
    Broker, BrokerConfig, User,
    wire::{self, Peek, Version, kind},
};

/// Nothing here takes longer, on a machine however busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const BOTH: [Version; 2] = [Version::V311, Version::V5];
pub(super) const EVENT: &str = "ridgeway/v1/hq/readers/device-001/events/scan/complete";

pub(super) fn gateway(id: &str) -> GatewayId {
    id.parse().unwrap()
}

/// Every role once; the password of `x` is `x-password`.
pub(super) fn users() -> Vec<User> {
    let roles = [
        ("edge", Role::EdgeGateway(gateway("hq"))),
        ("cloud", Role::CloudGateway(gateway("hq"))),
        ("bridge", Role::Bridge),
        ("platform", Role::Platform),
        ("panel", Role::Panel(gateway("hq"))),
        ("viewer", Role::Viewer),
    ];
    roles.into_iter().map(|(n, role)| User::new(n, format!("{n}-password"), role)).collect()
}

pub(super) fn test_config() -> BrokerConfig {
    let mut config = BrokerConfig::new("test", "127.0.0.1:0".parse().unwrap());
    config.users = users();
    config
}

pub(super) async fn start() -> Broker {
    Broker::start(test_config()).await.unwrap()
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until `condition` holds, which takes its time to find out.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A CONNECT to be filled in.
#[derive(Clone)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    /// Topic, payload, retain.
    pub(super) will: Option<(Vec<u8>, Vec<u8>, bool)>,
    /// MQTT 5 properties, encoded.
    pub(super) properties: Vec<u8>,
    pub(super) will_properties: Vec<u8>,
}

impl Connect {
    pub(super) fn new(version: Version, user: &str, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            user: user.to_owned(),
            password: format!("{user}-password"),
            clean: true,
            keep_alive: 60,
            will: None,
            properties: Vec::new(),
            will_properties: Vec::new(),
        }
    }

    pub(super) fn will(mut self, topic: impl AsRef<[u8]>, payload: &str, retain: bool) -> Self {
        self.will = Some((topic.as_ref().to_vec(), payload.as_bytes().to_vec(), retain));
        self
    }

    pub(super) fn bytes(&self) -> BytesMut {
        let v5 = self.version == Version::V5;
        let mut body = BytesMut::new();
        text(&mut body, b"MQTT");
        body.put_u8(if v5 { 5 } else { 4 });
        let will = match &self.will {
            Some((_, _, retain)) => 0x0C | (u8::from(*retain) << 5),
            None => 0,
        };
        body.put_u8(0xC0 | will | (u8::from(self.clean) << 1));
        body.put_u16(self.keep_alive);
        if v5 {
            properties(&mut body, &self.properties);
        }
        text(&mut body, self.client_id.as_bytes());
        if let Some((topic, payload, _)) = &self.will {
            if v5 {
                properties(&mut body, &self.will_properties);
            }
            text(&mut body, topic);
            text(&mut body, payload);
        }
        text(&mut body, self.user.as_bytes());
        text(&mut body, self.password.as_bytes());
        packet(0x10, &body)
    }
}

pub(super) fn text(to: &mut BytesMut, text: &[u8]) {
    to.put_u16(text.len() as u16);
    to.put_slice(text);
}

fn properties(to: &mut BytesMut, properties: &[u8]) {
    to.put_u8(u8::try_from(properties.len()).unwrap());
    to.put_slice(properties);
}

/// A packet from its first byte and its body.
pub(super) fn packet(first: u8, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_u8(first);
    let mut len = body.len();
    loop {
        let more = u8::from(len > 127) << 7;
        bytes.put_u8((len % 128) as u8 | more);
        len /= 128;
        if len == 0 {
            break;
        }
    }
    bytes.put_slice(body);
    bytes
}

/// A PUBLISH; `id` 0 is QoS 0, others QoS 1.
pub(super) fn publish(
    version: Version,
    topic: impl AsRef<[u8]>,
    id: u16,
    retain: bool,
    payload: &[u8],
) -> BytesMut {
    publish_with(version, topic, u8::from(id > 0), id, retain, payload, &[])
}

pub(super) fn publish_with(
    version: Version,
    topic: impl AsRef<[u8]>,
    qos: u8,
    id: u16,
    retain: bool,
    payload: &[u8],
    property_bytes: &[u8],
) -> BytesMut {
    let mut body = BytesMut::new();
    text(&mut body, topic.as_ref());
    if qos > 0 {
        body.put_u16(id);
    }
    if version == Version::V5 {
        properties(&mut body, property_bytes);
    }
    body.put_slice(payload);
    packet(0x30 | (qos << 1) | u8::from(retain), &body)
}

pub(super) fn subscribe(version: Version, id: u16, filters: &[&str], qos: u8) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == Version::V5 {
        body.put_u8(0);
    }
    for filter in filters {
        text(&mut body, filter.as_bytes());
        body.put_u8(qos);
    }
    packet(0x82, &body)
}

pub(super) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == Version::V5 {
        body.put_u8(0);
    }
    for filter in filters {
        text(&mut body, filter.as_bytes());
    }
    packet(0xA2, &body)
}

/// A packet that is only an id: PUBACK (0x40), PUBREC (0x50), PUBREL (0x62), PUBCOMP (0x70).
pub(super) fn ack(first: u8, id: u16) -> BytesMut {
    packet(first, &id.to_be_bytes())
}

pub(super) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A packet from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) first: u8,
    pub(super) body: Vec<u8>,
}

impl Got {
    pub(super) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Topic, packet id, payload, property bytes of a PUBLISH.
    pub(super) fn publish(&self, version: Version) -> (String, u16, Vec<u8>, Vec<u8>) {
        assert_eq!(self.kind(), kind::PUBLISH, "{self:?}");
        let len = usize::from(u16::from_be_bytes([self.body[0], self.body[1]]));
        let topic = String::from_utf8(self.body[2..2 + len].to_vec()).unwrap();
        let mut rest = &self.body[2 + len..];
        let mut id = 0;
        if self.first & 6 != 0 {
            id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties = Vec::new();
        if version == Version::V5 {
            let len = usize::from(rest[0]);
            assert!(len < 128);
            properties = rest[1..1 + len].to_vec();
            rest = &rest[1 + len..];
        }
        (topic, id, rest.to_vec(), properties)
    }
}

/// A client that says what it is told.
pub(super) struct Raw<S = TcpStream> {
    pub(super) version: Version,
    pub(super) stream: S,
    buffer: BytesMut,
}

impl Raw {
    pub(super) async fn open(address: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { version, stream, buffer: BytesMut::new() }
    }

    /// Connected; the CONNACK said yes.
    pub(super) async fn connect(broker: &Broker, connect: &Connect) -> Self {
        let (client, ack) = Self::try_connect(broker.local_addr(), connect).await;
        assert_eq!(ack.expect("a CONNACK").body[1], 0, "refused");
        client
    }

    pub(super) async fn user(
        broker: &Broker,
        version: Version,
        user: &str,
        client_id: &str,
    ) -> Self {
        Self::connect(broker, &Connect::new(version, user, client_id)).await
    }

    pub(super) async fn try_connect(address: SocketAddr, connect: &Connect) -> (Self, Option<Got>) {
        let mut client = Self::open(address, connect.version).await;
        let ack = client.say_hello(connect).await;
        (client, ack)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Over a stream that is open already.
    pub(super) fn over(stream: S, version: Version) -> Self {
        Self { version, stream, buffer: BytesMut::new() }
    }

    /// CONNECT and its answer, or none at the end.
    pub(super) async fn say_hello(&mut self, connect: &Connect) -> Option<Got> {
        self.send(&connect.bytes()).await;
        let ack = self.next().await;
        if let Some(ack) = &ack {
            assert_eq!(ack.kind(), kind::CONNACK);
        }
        ack
    }

    /// Whether the bytes could be written is the broker's choice.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next packet, or none at the end.
    pub(super) async fn next(&mut self) -> Option<Got> {
        timeout(PATIENCE, self.next_inner()).await.expect("a packet or the end in time")
    }

    async fn next_inner(&mut self) -> Option<Got> {
        loop {
            match wire::peek(&self.buffer) {
                Peek::Whole(frame) => {
                    let bytes = self.buffer.split_to(frame.len());
                    let body = bytes[frame.header_len..].to_vec();
                    return Some(Got { first: bytes[0], body });
                }
                Peek::Missing(..) => match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                },
                Peek::Malformed => panic!("the broker sent nonsense: {:?}", self.buffer),
            }
        }
    }

    pub(super) async fn expect(&mut self, kind: u8) -> Got {
        let got = self.next().await.unwrap_or_else(|| panic!("ended before packet {kind}"));
        assert_eq!(got.kind(), kind, "{got:?}");
        got
    }

    /// The SUBACK's codes.
    pub(super) async fn subscribe(&mut self, filters: &[&str], qos: u8) -> Vec<u8> {
        let bytes = subscribe(self.version, 77, filters, qos);
        self.send(&bytes).await;
        let ack = self.expect(kind::SUBACK).await;
        assert_eq!(ack.body[..2], [0, 77]);
        ack.body[if self.version == Version::V5 { 3 } else { 2 }..].to_vec()
    }

    /// Publishes with QoS 1 and waits for the PUBACK.
    pub(super) async fn publish(&mut self, topic: &str, id: u16, retain: bool, payload: &[u8]) {
        let bytes = publish(self.version, topic, id, retain, payload);
        self.send(&bytes).await;
        let ack = self.expect(kind::PUBACK).await;
        assert_eq!(ack.body[..2], id.to_be_bytes());
    }

    /// Receives a PUBLISH and acknowledges QoS 1.
    pub(super) async fn receive(&mut self) -> (String, Vec<u8>) {
        let got = self.expect(kind::PUBLISH).await;
        let (topic, id, payload, _) = got.publish(self.version);
        if got.first & 6 == 2 {
            self.send(&ack(0x40, id)).await;
        }
        (topic, payload)
    }

    /// Sends a ping and expects its answer next: so nothing else was on its way.
    pub(super) async fn is_quiet(&mut self) {
        self.send(&PINGREQ).await;
        self.expect(kind::PINGRESP).await;
    }

    /// Says no more, and reads to the end.
    pub(super) async fn rest_after_closing(&mut self) -> Vec<Got> {
        let _ = self.stream.shutdown().await;
        self.rest().await
    }

    /// Reads to the end; the packets that still came.
    pub(super) async fn rest(&mut self) -> Vec<Got> {
        let mut all = Vec::new();
        while let Some(got) = self.next().await {
            all.push(got);
        }
        all
    }
}

/// Publishers and subscribers of both versions that must not notice anything.
pub(super) struct Witnesses {
    pairs: Vec<(Raw, Raw)>,
    sent: u32,
}

impl Witnesses {
    pub(super) async fn start(broker: &Broker) -> Self {
        let mut pairs = Vec::new();
        for (at, version) in BOTH.into_iter().enumerate() {
            let mut subscriber =
                Raw::user(broker, version, "platform", &format!("witness-sub-{at}")).await;
            assert_eq!(subscriber.subscribe(&[&Self::topic(at)], 1).await, [1]);
            let publisher = Raw::user(broker, version, "edge", &format!("witness-pub-{at}")).await;
            pairs.push((publisher, subscriber));
        }
        Self { pairs, sent: 0 }
    }

    fn topic(at: usize) -> String {
        format!("ridgeway/v1/hq/readers/witness-{at}/events/scan/complete")
    }

    /// Some more messages on the same connections, all delivered in order.
    pub(super) async fn check(&mut self) {
        for _ in 0..5 {
            self.sent += 1;
            let payload = self.sent.to_be_bytes();
            for (at, (publisher, subscriber)) in self.pairs.iter_mut().enumerate() {
                publisher.publish(&Self::topic(at), 1, false, &payload).await;
                assert_eq!(subscriber.receive().await, (Self::topic(at), payload.to_vec()));
            }
        }
    }
}

/// One of Mosquitto's programs; a clear word if it isn't there.
pub(super) fn mosquitto(program: &str) -> Command {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
        .map(|dir| std::path::Path::new(dir).join(program))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| {
            panic!("{program} is missing: apt-get install mosquitto mosquitto-clients")
        });
    let mut command = Command::new(found);
    command.stdin(Stdio::null());
    command
}
