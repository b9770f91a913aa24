//! The front: the public port. It counts connections, reads CONNECT, knows the user, answers refusals
//! with their CONNACK code, and only then opens the way to the inner broker.
//!
//! | step | what can go wrong | the client gets |
//! |---|---|---|
//! | accept | as many as may be, in all or from one address (K5) | CONNACK, the first few; the others are closed |
//! | PROXY header, TLS, WebSocket | not there, wrong, not in time (K6) | closed, after what TLS or HTTP say |
//! | CONNECT | not MQTT, not in time (K6), too large | closed |
//! | user, client id, will | see [`Refusal`] | CONNACK with the code |
//! | as many of the user as may be | | CONNACK with the code |
//! | same client connected already | the earlier one is ended first, and wholly | |
//! | inner broker | doesn't answer: the watchdog is told, and the client waits for another one | CONNACK "unavailable" after 3 s |
//! | bytes both ways | guard refuses; client takes no bytes, or says none; another of the same name comes; its user is removed | closed, with DISCONNECT and reason in MQTT 5 |
//! | end without DISCONNECT | | the will is published |

use std::{io, net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Listener,
    inner::{Inner, Way},
    line,
    places::Place,
    refusal::Refusal,
    session::{Kick, Session},
    shared::{Shared, Who},
    slots::Seat,
    wire::{self, Peek, Version},
};

mod carry;
mod entry;
mod hello;
mod proxy;
mod transport;
pub(crate) mod websocket;

use entry::Entry;
use hello::Hello;
use transport::Opened;
pub(crate) use transport::{Peer, Wire};

/// For CONNACK from the inner broker, and for a session there to end.
const INNER_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients beyond those that may be who get a word at the same time; further ones are just closed.
pub(crate) const TURNED_AWAY: usize = 16;
/// And how long it may take.
const TURN_AWAY: Duration = Duration::from_secs(1);
/// For a refused client to take the reason and close.
const LINGER: Duration = Duration::from_millis(500);
/// Largest CONNECT before anybody is known; a will's payload fits.
const MAX_CONNECT_BYTES: usize = 64 << 10;

/// The inner broker of the moment; none while it is being replaced.
pub(crate) type InnerNow = watch::Receiver<Option<Arc<Inner>>>;

/// What every connection's task needs.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inner: InnerNow,
    /// See [`TURNED_AWAY`].
    pub(crate) turned_away: Arc<Semaphore>,
    /// Asks the watchdog for a beat at once.
    pub(crate) nudge: Arc<Notify>,
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Front {
    /// Accepts on one listener until told to stop.
    pub(crate) async fn accept(self, socket: TcpListener, listener: Arc<Listener>) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => self.admit(stream, from, &listener),
                Err(error) => {
                    // Usually out of descriptors: others must close first.
                    tracing::warn!(broker = %self.shared.name, %error, "accept failed");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, from: SocketAddr, listener: &Arc<Listener>) {
        let (front, listener) = (self.clone(), listener.clone());
        match self
            .shared
            .places
            .enter(listener.proxies.is_empty() && from.ip().to_canonical().is_loopback())
        {
            Ok(place) => {
                self.tracker.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    front.receive(stream, from, &listener, place).await;
                });
            }
            Err(refusal) => {
                self.refuse(refusal, from, "");
                let Ok(permit) = self.turned_away.clone().try_acquire_owned() else { return };
                self.tracker.spawn(async move {
                    front.turn_away(stream, from, &listener, refusal).await;
                    drop(permit);
                });
            }
        }
    }

    /// One connection: whose it is, what carries it, and then MQTT.
    async fn receive(
        &self,
        mut stream: TcpStream,
        from: SocketAddr,
        listener: &Listener,
        mut place: Place,
    ) {
        let opened = async {
            let address = transport::address(&mut stream, from, listener)
                .await
                .map_err(|refusal| (refusal, from))?;
            let located = place.locate(address.ip());
            let opened = transport::open(stream, address, listener, &self.shared)
                .await
                .map_err(|refusal| (refusal, address))?;
            Ok((opened, located))
        };
        let opened = tokio::select! {
            opened = opened => opened,
            () = self.stop.cancelled() => return,
        };
        match opened {
            Ok((Opened { stream, peer }, Ok(()))) => self.serve(stream, peer).await,
            Ok((Opened { mut stream, peer }, Err(refusal))) => {
                // No place is held while it is told: another of the address may have it at once.
                drop(place);
                self.refuse(refusal, peer.address, "");
                let Ok(_permit) = self.turned_away.try_acquire() else { return };
                let _ = timeout(TURN_AWAY, self.tell_no_room(&mut stream, refusal)).await;
            }
            Err((refusal, address)) => self.refuse(refusal, address, ""),
        }
    }

    /// Takes a client for which there is no place as far as its CONNECT, and tells it so.
    async fn turn_away(
        &self,
        mut stream: TcpStream,
        from: SocketAddr,
        listener: &Listener,
        refusal: Refusal,
    ) {
        let tell = async {
            let address = transport::address(&mut stream, from, listener).await?;
            let mut opened = transport::open(stream, address, listener, &self.shared).await?;
            self.tell_no_room(&mut opened.stream, refusal).await;
            Ok::<_, Refusal>(())
        };
        let _ = timeout(TURN_AWAY, tell).await;
    }

    async fn tell_no_room(&self, stream: &mut Box<dyn Wire>, refusal: Refusal) {
        if let Ok(hello) = self.read_connect(stream).await {
            let answer = wire::refuse_connect(hello.version, refusal);
            let _ = say_and_close(stream, &answer, true).await;
        }
    }

    /// MQTT, from its first byte to its end.
    async fn serve(&self, mut stream: Box<dyn Wire>, peer: Peer) {
        let hello = tokio::select! {
            hello = self.read_connect(&mut stream) => hello,
            () = self.stop.cancelled() => return,
        };
        let (version, result) = match hello {
            Ok(hello) => (hello.version, self.open(&mut stream, hello, &peer).await),
            Err((refusal, None)) => return self.refuse(refusal, peer.address, ""),
            Err((refusal, Some(version))) => (version, Err((refusal, String::new()))),
        };
        if let Err((refusal, user)) = result {
            self.refuse(refusal, peer.address, &user);
            let answer = wire::refuse_connect(version, refusal);
            let _ = timeout(LINGER, say_and_close(&mut stream, &answer, true)).await;
        }
    }

    fn refuse(&self, refusal: Refusal, address: SocketAddr, user: &str) {
        self.shared.tell_refusal(refusal, Who { user, client: "", address }, "the connection");
    }

    async fn read_connect<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
    ) -> Result<Hello, (Refusal, Option<Version>)> {
        let mut buffer = BytesMut::with_capacity(1_024);
        match timeout(self.shared.limits.connect_timeout, read_packet(stream, &mut buffer)).await {
            Ok(Ok(frame)) => hello::parse(buffer, frame),
            Ok(Err(_)) => Err((Refusal::NotMqtt, None)),
            Err(_) => Err((Refusal::SlowConnect, None)),
        }
    }

    /// Checks the client, opens the way to the inner broker, and carries bytes until the end.
    async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        hello: Hello,
        peer: &Peer,
    ) -> Result<(), (Refusal, String)> {
        let entry = match self.enter(&hello, peer).await {
            Ok(entry) => entry,
            Err(refusal) => return Err((refusal, hello.user())),
        };
        self.shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let Entry { session, seat, registered, inner, mut way } = entry;
        let silence = hello.silence();
        let kick = tokio::select! {
            kick = carry::run(self, stream, hello.rest, &mut way, &session, silence) => kick,
            () = inner.stop.cancelled() => Some(Kick::Replaced),
        };
        self.finish(stream, &session, way, &seat, &inner, kick).await;
        drop(registered);
        Ok(())
    }

    /// Tells the client why, and settles what it leaves behind.
    async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        session: &Arc<Session>,
        way: Way,
        seat: &Seat,
        inner: &Arc<Inner>,
        kick: Option<Kick>,
    ) {
        let reason =
            session.refused().map(Refusal::reason_code).or(kick.and_then(Kick::reason_code));
        let word = match (reason, session.version) {
            (Some(code), Version::V5) => &wire::disconnect(code)[..],
            _ => &[],
        };
        let linger = session.refused().is_some();
        let goodbye = async {
            let close = timeout(LINGER, say_and_close(stream, word, linger));
            if linger {
                // Unless it is back already, on another connection.
                tokio::select! {
                    biased;
                    _ = close => {}
                    () = session.taken_over.cancelled() => {}
                }
            } else {
                let _ = close.await;
            }
        };
        let _ = tokio::join!(goodbye, self.settle(session, way, seat, inner, kick));
    }

    /// Ends the way to the router, and publishes the will.
    async fn settle(
        &self,
        session: &Session,
        way: Way,
        seat: &Seat,
        inner: &Arc<Inner>,
        kick: Option<Kick>,
    ) {
        if kick != Some(Kick::Replaced) {
            let safe = way.end().await;
            self.shared.leave_seat(session, seat, safe);
        }
        match kick {
            // The broker that the will would tell of the client is ending itself.
            Some(Kick::Shutdown | Kick::Replaced) => return,
            // Whoever isn't a user any more has no say.
            Some(Kick::Revoked) => return,
            Some(Kick::TakenOver) | None => {}
        }
        let Some(will) = session.take_will() else { return };
        if !will.delay.is_zero() {
            tokio::select! {
                () = sleep(will.delay) => {}
                () = session.taken_over.cancelled() => return,
                () = session.revoked.cancelled() => return,
                () = inner.stop.cancelled() => return,
                () = self.stop.cancelled() => return,
            }
        }
        if session.revoked.is_cancelled() {
            return;
        }
        match timeout(
            INNER_TIMEOUT,
            line::publish_will(self.shared.clone(), inner.clone(), session, will),
        )
        .await
        {
            Ok(Ok(())) => {
                self.shared.counters.wills.fetch_add(1, Ordering::Relaxed);
            }
            // Then the inner broker is dead, which the watchdog tells; retained state is published anew.
            Ok(Err(error)) => {
                tracing::debug!(broker = %self.shared.name, user = %session.user, %error, "no will");
            }
            Err(_) => {
                tracing::debug!(broker = %self.shared.name, user = %session.user, "no will in time");
            }
        }
    }
}

/// Reads until `buffer` starts with a whole packet, of a size that is fine before anybody is known.
async fn read_packet<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<wire::Frame> {
    loop {
        match wire::peek(buffer) {
            Peek::Whole(frame) => return Ok(frame),
            Peek::Missing(_, Some(frame)) if frame.body_len > MAX_CONNECT_BYTES => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Peek::Missing(..) => {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Peek::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Says a last word and closes. With `linger`, what the client still sends is read and thrown away until
/// it closes too: closing a socket with unread bytes would take the word back.
async fn say_and_close<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    word: &[u8],
    linger: bool,
) -> io::Result<()> {
    stream.write_all(word).await?;
    stream.shutdown().await?;
    let mut waste = [0; 1_024];
    while linger && stream.read(&mut waste).await? > 0 {}
    Ok(())
}
