//! Our own short links to the router, through a guard like anybody's: the watchdog's beat, and the wills
//! of clients that are gone. Each beat is a new link: that an old one works says nothing about whether
//! the router takes new ones.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    Filter, Packet, PingReq, Publish, PublishProperties, QoS, RetainForwardRule, Subscribe,
};

use tokio_util::sync::CancellationToken;

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
    to_its_end(inner.stop.clone(), async move {
        let session =
            Line::session("", Rights::Internal { qos: 0, charged: false }, Peer::nowhere());
        let line = Line::open(&shared, &inner, session).await?;
        line.close_after(async |line| line.beat().await).await
    })
    .await
}

/// Publishes the will of a session that is over.
pub(crate) async fn publish_will(
    shared: Arc<Shared>,
    inner: Arc<Inner>,
    of: &Session,
    will: Will,
) -> io::Result<()> {
    let charged = matches!(of.charged(), User::Other(_));
    let rights = Rights::Internal { qos: will.qos, charged };
    let session = Line::session(&of.user, rights, of.peer.clone());
    to_its_end(inner.stop.clone(), async move {
        let line = Line::open(&shared, &inner, session).await?;
        line.close_after(async |line| line.publish(will).await).await
    })
    .await
}

/// Ends a session that somebody left at a place in rumqttd.
pub(crate) async fn sweep(shared: Arc<Shared>, inner: Arc<Inner>, id: InnerId) -> io::Result<()> {
    to_its_end(inner.stop.clone(), async move {
        let seat = Seat { id, clean: true, dirty: false };
        let session =
            Line::session("", Rights::Internal { qos: 0, charged: false }, Peer::nowhere());
        let line = Line::open_at(&shared, &inner, session, seat).await?;
        // The place isn't given back: somebody is waiting to take it.
        if line.way.end().await { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    })
    .await
}

/// Lets `work` end, when nobody waits for it any more, too: a link that was opened must be ended, or
/// rumqttd keeps it. With the inner broker it ends in any case.
async fn to_its_end(
    stop: CancellationToken,
    work: impl Future<Output = io::Result<()>> + Send + 'static,
) -> io::Result<()> {
    let task = tokio::spawn(async move {
        tokio::select! {
            done = work => done,
            () = stop.cancelled() => Err(io::ErrorKind::BrokenPipe.into()),
        }
    });
    task.await.unwrap_or_else(|error| Err(io::Error::other(error)))
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
    async fn open(shared: &Arc<Shared>, inner: &Inner, session: Arc<Session>) -> io::Result<Self> {
        let seat = shared
            .take_seat(&session, Wish::NOTHING_KEPT)
            .map_err(|refusal| io::Error::other(refusal.name()))?;
        Self::open_at(shared, inner, session, seat).await
    }

    fn session(user: &str, rights: Rights, peer: Peer) -> Arc<Session> {
        let granted = Granted::default();
        Session::new(user.to_owned(), String::new(), rights, Version::V5, peer, granted, None)
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
        match line.receive(kind::CONNACK, &[]).await {
            Ok(()) => Ok(line),
            Err(error) => {
                line.way.end().await;
                Err(error)
            }
        }
    }

    /// Does what there is to do, and ends the link whatever came of it.
    async fn close_after(
        mut self,
        work: impl AsyncFnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let done = work(&mut self).await;
        done.and(self.close().await)
    }

    async fn beat(&mut self) -> io::Result<()> {
        let filter = Filter {
            path: BEAT_TOPIC.to_owned(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        };
        let subscribe = Subscribe { pkid: 1, filters: vec![filter] };
        self.send(Packet::Subscribe(subscribe, None)).await?;
        self.receive(kind::SUBACK, &[]).await?;
        let nonce = Bytes::from(crate::random_hex()?);
        let topic = Bytes::from_static(BEAT_TOPIC.as_bytes());
        let publish = Publish::new(topic, nonce.clone(), false);
        self.send(Packet::Publish(publish, None)).await?;
        self.receive(kind::PUBLISH, &nonce).await
    }

    async fn publish(&mut self, will: Will) -> io::Result<()> {
        let mut publish = Publish::new(will.topic, will.payload, false);
        publish.retain = will.retain;
        self.send(Packet::Publish(publish, will.properties.map(plain))).await?;
        // The router works in order: when it has answered this, it has the message.
        self.send(Packet::PingReq(PingReq)).await?;
        self.receive(kind::PINGRESP, &[]).await
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
