//! Our own short connections to the inner broker: the watchdog's beat, and the wills of clients that
//! are gone. Each is a new CONNECT; an old connection lives on when rumqttd takes no new ones (K4).

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    Connect, Filter, Login, Packet, PingReq, Publish, PublishProperties, QoS, RetainForwardRule,
    Subscribe,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    front::Peer,
    retained,
    session::{BEAT_TOPIC, Granted, Rights, Session, Will},
    shared::{InnerId, Shared},
    wire::{self, Peek, Version, kind},
};

/// Seconds; the lines live much shorter.
const KEEP_ALIVE: u16 = 60;

/// Subscribes, publishes and receives on a new connection.
pub(crate) async fn beat(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<()> {
    let mut line = Line::open(shared, address).await?;
    let filter = Filter {
        path: BEAT_TOPIC.to_owned(),
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
    };
    let subscribe = Subscribe { pkid: 1, filters: vec![filter] };
    line.send(Packet::Subscribe(subscribe, None)).await?;
    line.receive(kind::SUBACK, &[]).await?;
    let nonce = Bytes::from(crate::random_hex()?);
    let publish = Publish::new(Bytes::from_static(BEAT_TOPIC.as_bytes()), nonce.clone(), false);
    line.send(Packet::Publish(publish, None)).await?;
    line.receive(kind::PUBLISH, &nonce).await?;
    line.close().await
}

/// Publishes the will of someone else.
pub(crate) async fn publish_will(
    shared: &Arc<Shared>,
    address: SocketAddr,
    will: Will,
) -> io::Result<()> {
    let mut line = Line::open(shared, address).await?;
    let mut publish = Publish::new(will.topic, will.payload, false);
    publish.retain = will.retain;
    line.send(Packet::Publish(publish, will.properties.map(plain))).await?;
    // The router works in order: when it has answered this, it has the message.
    line.send(Packet::PingReq(PingReq)).await?;
    line.receive(kind::PINGRESP, &[]).await?;
    line.close().await
}

/// Publishes retained messages to an inner broker that has none.
pub(crate) async fn restore(
    shared: &Arc<Shared>,
    address: SocketAddr,
    messages: Vec<retained::Message>,
) -> io::Result<()> {
    let mut line = Line::open(shared, address).await?;
    for message in messages {
        let Some(properties) = message.properties_at(Instant::now()) else { continue };
        let publish = Publish::new(message.topic, message.payload, true);
        line.send(Packet::Publish(publish, properties.map(plain))).await?;
    }
    line.send(Packet::PingReq(PingReq)).await?;
    line.receive(kind::PINGRESP, &[]).await?;
    line.close().await
}

/// Without what belongs to the connection it came by.
fn plain(properties: PublishProperties) -> PublishProperties {
    PublishProperties { topic_alias: None, subscription_identifiers: Vec::new(), ..properties }
}

struct Line {
    shared: Arc<Shared>,
    stream: TcpStream,
    buffer: BytesMut,
    session: Arc<Session>,
    id: InnerId,
}

impl Line {
    async fn open(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<Self> {
        let id = shared.inner_id("", "", true).map_err(|r| io::Error::other(r.name()))?;
        let session = Session::new(
            String::new(),
            String::new(),
            id.to_string(),
            Rights::Internal,
            Version::V5,
            Peer::plain(address),
            Granted::default(),
            None,
        );
        let ticket = shared.admit(session.clone())?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let buffer = BytesMut::with_capacity(1_024);
        let mut line = Self { shared: shared.clone(), stream, buffer, session, id };
        line.send(connect_packet(&line.id, KEEP_ALIVE, true, ticket.name())).await?;
        line.receive(kind::CONNACK, &[]).await?;
        Ok(line)
    }

    async fn send(&mut self, packet: Packet) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(Version::V5, packet, &mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes).await
    }

    /// Waits for a packet of this kind that ends like this.
    async fn receive(&mut self, kind: u8, end: &[u8]) -> io::Result<()> {
        loop {
            match wire::peek(&self.buffer) {
                Peek::Whole(frame) => {
                    let packet = self.buffer.split_to(frame.len());
                    if frame.kind == kind && packet.ends_with(end) {
                        return Ok(());
                    }
                }
                Peek::Missing(..) => {
                    if self.stream.read_buf(&mut self.buffer).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Peek::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    async fn close(mut self) -> io::Result<()> {
        self.stream.write_all(&wire::disconnect(0)).await?;
        self.stream.shutdown().await?;
        self.session.ended.cancelled().await;
        self.shared.release(&self.id, &self.session);
        Ok(())
    }
}

/// The CONNECT that rumqttd gets: only what it must know, and the ticket.
pub(crate) fn connect_packet(id: &InnerId, keep_alive: u16, clean: bool, ticket: &str) -> Packet {
    let connect = Connect { keep_alive, client_id: id.to_string(), clean_session: clean };
    let login = Login { username: ticket.to_owned(), password: String::new() };
    Packet::Connect(connect, None, None, None, Some(login))
}
