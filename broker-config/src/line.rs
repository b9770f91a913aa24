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
    traffic::User,
    wire::{self, Peek, Version, kind},
};

/// Subscribes, publishes and receives on a new connection.
pub(crate) async fn beat(shared: Arc<Shared>, inner: Arc<Inner>) -> io::Result<()> {
    to_its_end(try_beat(shared, inner)).await
}

/// Lets `work` end even when nobody waits for it any more: a link that was opened must be ended, or
/// rumqttd keeps it.
async fn to_its_end(work: impl Future<Output = io::Result<()>> + Send + 'static) -> io::Result<()> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn try_beat(shared: Arc<Shared>, inner: Arc<Inner>) -> io::Result<()> {
    let mut line = Line::open(&shared, &inner, "", OWN).await?;
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

/// Publishes the will of a session that is over.
pub(crate) async fn publish_will(
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    session: &Session,
    will: Will,
) -> io::Result<()> {
    let charged = matches!(session.charged(), User::Other(_));
    let rights = Rights::Internal { qos: will.qos, charged };
    to_its_end(try_publish_will(shared, inner, session.user.clone(), rights, will)).await
}

async fn try_publish_will(
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    user: String,
    rights: Rights,
    will: Will,
) -> io::Result<()> {
    let mut line = Line::open(&shared, &inner, &user, rights).await?;
    let mut publish = Publish::new(will.topic, will.payload, false);
    publish.retain = will.retain;
    line.send(Packet::Publish(publish, will.properties.map(plain))).await?;
    // The router works in order: when it has answered this, it has the message.
    line.send(Packet::PingReq(PingReq)).await?;
    line.receive(kind::PINGRESP, &[]).await?;
    line.close().await
}

/// Ends a session that somebody left at a place in rumqttd.
pub(crate) async fn sweep(shared: Arc<Shared>, inner: Arc<Inner>, id: InnerId) -> io::Result<()> {
    to_its_end(try_sweep(shared, inner, id)).await
}

async fn try_sweep(shared: Arc<Shared>, inner: Arc<Inner>, id: InnerId) -> io::Result<()> {
    let seat = Seat { id, clean: true, dirty: false };
    let line = Line::open_at(&shared, &inner, Line::session("", OWN), seat).await?;
    // The place isn't given back: somebody is waiting to take it.
    if line.way.end().await { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Without what belongs to the connection it came by.
fn plain(properties: PublishProperties) -> PublishProperties {
    PublishProperties { topic_alias: None, subscription_identifiers: Vec::new(), ..properties }
}

const OWN: Rights = Rights::Internal { qos: 0, charged: false };

/// What was sent to it, it takes.
struct Line {
    shared: Arc<Shared>,
    way: Way,
    buffer: BytesMut,
    session: Arc<Session>,
    seat: Seat,
}

impl Line {
    async fn open(
        shared: &Arc<Shared>,
        inner: &Inner,
        user: &str,
        rights: Rights,
    ) -> io::Result<Self> {
        let session = Self::session(user, rights);
        let seat = shared
            .take_seat(&session, Wish::NOTHING_KEPT)
            .map_err(|refusal| io::Error::other(refusal.name()))?;
        Self::open_at(shared, inner, session, seat).await
    }

    fn session(user: &str, rights: Rights) -> Arc<Session> {
        let nowhere = Peer::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let granted = Granted::default();
        Session::new(user.to_owned(), String::new(), rights, Version::V5, nowhere, granted, None)
    }

    async fn open_at(
        shared: &Arc<Shared>,
        inner: &Inner,
        session: Arc<Session>,
        seat: Seat,
    ) -> io::Result<Self> {
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
