//! Our own short links to the router, through a guard like anybody's: the watchdog's beat, and the wills
//! of clients that are gone. Each beat is a new link: that an old one works says nothing about whether
//! the router takes new ones.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    Filter, Packet, PingReq, Publish, PublishProperties, QoS, RetainForwardRule, Subscribe,
};

use crate::{
    front::Peer,
    inner::{Gone, Inner, Way},
    session::{BEAT_TOPIC, Granted, Rights, Session, Will},
    shared::Shared,
    slots::{InnerId, Seat, Wish},
    wire::{self, Peek, Version, kind},
};

/// Subscribes, publishes and receives on a new connection.
pub(crate) async fn beat(shared: &Arc<Shared>, inner: &Inner) -> io::Result<()> {
    let mut line = Line::open(shared, inner, 0).await?;
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
    inner: &Inner,
    will: Will,
) -> io::Result<()> {
    let mut line = Line::open(shared, inner, will.qos).await?;
    let mut publish = Publish::new(will.topic, will.payload, false);
    publish.retain = will.retain;
    line.send(Packet::Publish(publish, will.properties.map(plain))).await?;
    // The router works in order: when it has answered this, it has the message.
    line.send(Packet::PingReq(PingReq)).await?;
    line.receive(kind::PINGRESP, &[]).await?;
    line.close().await
}

/// Ends a session that somebody left at a place in rumqttd.
pub(crate) async fn sweep(shared: &Arc<Shared>, inner: &Inner, id: InnerId) -> io::Result<()> {
    let seat = Seat { id, clean: true, dirty: false };
    let line = Line::open_at(shared, inner, 0, Some(seat)).await?;
    // The place isn't given back: somebody is waiting to take it.
    if line.way.end().await { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Without what belongs to the connection it came by.
fn plain(properties: PublishProperties) -> PublishProperties {
    PublishProperties { topic_alias: None, subscription_identifiers: Vec::new(), ..properties }
}

/// What was sent to it, it takes.
struct Line {
    shared: Arc<Shared>,
    way: Way,
    buffer: BytesMut,
    session: Arc<Session>,
    seat: Seat,
}

impl Line {
    /// What it publishes counts as published with this QoS.
    async fn open(shared: &Arc<Shared>, inner: &Inner, qos: u8) -> io::Result<Self> {
        Self::open_at(shared, inner, qos, None).await
    }

    async fn open_at(
        shared: &Arc<Shared>,
        inner: &Inner,
        qos: u8,
        seat: Option<Seat>,
    ) -> io::Result<Self> {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let session = Session::new(
            String::new(),
            String::new(),
            Rights::Internal { qos },
            Version::V5,
            Peer::plain(nowhere),
            Granted::default(),
            None,
        );
        let seat = match seat {
            Some(seat) => seat,
            None => shared
                .take_seat(&session, Wish::NOTHING_KEPT)
                .map_err(|refusal| io::Error::other(refusal.name()))?,
        };
        let way = inner.open(session.clone(), &seat).await?;
        let shared = shared.clone();
        let mut line = Self { shared, way, buffer: BytesMut::new(), session, seat };
        line.receive(kind::CONNACK, &[]).await?;
        Ok(line)
    }

    async fn send(&mut self, packet: Packet) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        wire::encode(Version::V5, packet, &mut bytes).map_err(io::Error::other)?;
        self.way.give(&self.shared, &mut bytes).await.map_err(gone)
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
                    let next = self.way.next().await.map_err(gone)?;
                    self.way.take(&self.shared, next, &mut self.buffer).await.map_err(gone)?;
                }
                Peek::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    async fn close(self) -> io::Result<()> {
        if !self.way.end().await {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.leave_seat(&self.session, &self.seat, true);
        Ok(())
    }
}

fn gone(_: Gone) -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
