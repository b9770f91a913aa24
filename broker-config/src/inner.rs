//! rumqttd itself: its router, in a thread of its own, and the links to it.
//!
//! rumqttd's own listeners aren't used. Its router takes connections as *links*, two ends in public:
//! one takes packets, one gives them. The front holds these, so a message crosses no second socket, no
//! port exists that somebody could come to past the front, and what poisons rumqttd's listeners (K4, K5,
//! K6, K9) has nothing to poison.
//!
//! What a link must keep to:
//!
//! | | why |
//! |---|---|
//! | opening waits for the router in a thread of its own, one for each router | the call blocks; a router that hangs then blocks nobody else |
//! | nothing is sent while the router's channel is nearly full | sending would block the thread |
//! | nothing is sent while the router hasn't taken what was sent before | it would pile up in memory |
//! | before DISCONNECT, a word that the router answers in the order of its channel | DISCONNECT may overtake an earlier word of the same link, and the router dies of a word from someone it has seen off (K2) |

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use rumqttd::{
    Notification, Router, RouterConfig, SegmentConfig,
    local::{LinkBuilder, LinkRx, LinkTx},
    protocol::{Disconnect, DisconnectReasonCode, Packet},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{InnerError, Limits, Segments},
    guard::{End, Link},
    line,
    session::{BEAT_TOPIC, Session, lock},
    shared::Shared,
    slots::Seat,
};

/// From its start to its first answer. Generous: a busy machine starts threads late.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Links that wait to be opened; whoever finds no room waits too.
const OPENING: usize = 64;
/// What may stand in the router's channel of 1 000 before links wait. The rest is room for those that
/// looked at the same moment.
const CHANNEL_ROOM: usize = 800;
/// Packets of one link that the router hasn't taken, whatever their size; and while their bytes are few.
const UNTAKEN: usize = 400;
const UNTAKEN_SMALL: usize = 1_500;
const UNTAKEN_BYTES: usize = 256 << 10;
/// Between two looks at a router that is busy.
const BUSY: Duration = Duration::from_millis(1);
/// Tries to end a router, and the time between them.
const END_TRIES: usize = 20;
const END_PAUSE: Duration = Duration::from_millis(10);
/// For the router to answer the last word but one.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Packets are collected for a client up to this.
const COLLECT_BYTES: usize = 64 << 10;

/// One router. Replaced as a whole by the watchdog.
pub(crate) struct Inner {
    /// Ends all sessions on it.
    pub(crate) stop: CancellationToken,
    opening: mpsc::Sender<Opening>,
    channel_len: Arc<dyn Fn() -> usize + Send + Sync>,
    end_router: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

struct Opening {
    id: String,
    clean: bool,
    reply: oneshot::Sender<io::Result<(LinkTx, LinkRx, Notification)>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl Inner {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, InnerError> {
        let router = Router::new(0, router_config(&shared.limits)).spawn();
        let (opening, mut asked) = mpsc::channel::<Opening>(OPENING);
        let opener = router.clone();
        let open = move || {
            while let Some(Opening { id, clean, reply }) = asked.blocking_recv() {
                let link = LinkBuilder::new(&id, opener.clone()).clean_session(clean).build();
                if let Err(Ok((mut tx, ..))) = reply.send(link.map_err(io::Error::other)) {
                    // Who asked has given up. Nothing else was said on it, so this comes last.
                    let _ = futures_util::FutureExt::now_or_never(tx.send(goodbye()));
                }
            }
        };
        std::thread::Builder::new()
            .name(format!("mqtt-open-{}", shared.name))
            .spawn(open)
            .map_err(InnerError::Thread)?;
        let ender = router.clone();
        let inner = Arc::new(Self {
            stop,
            opening,
            channel_len: Arc::new(move || router.len()),
            end_router: Mutex::new(Some(Box::new(move || {
                // Another link may get the id of the one that was seen off; then it takes one more try.
                for _ in 0..END_TRIES {
                    let link = LinkBuilder::new("line|end", ender.clone()).build();
                    let Ok((mut tx, rx, _)) = link else { return };
                    // Its future never waits: it is sent in the call.
                    let _ = futures_util::FutureExt::now_or_never(tx.send(goodbye()));
                    // The router ends on a word from someone it has seen off.
                    let _ = rx.ready();
                    std::thread::sleep(END_PAUSE);
                    if ender.is_disconnected() {
                        return;
                    }
                }
            }))),
        });
        let why = match timeout(START_TIMEOUT, line::beat(shared.clone(), inner.clone())).await {
            Ok(Ok(())) => return Ok(inner),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        inner.end_router();
        Err(InnerError::Silent(why))
    }

    /// A new link for a session.
    pub(crate) async fn open(&self, session: Arc<Session>, seat: &Seat) -> io::Result<Way> {
        let (reply, answer) = oneshot::channel();
        let opening = Opening { id: seat.id.to_string(), clean: seat.clean, reply };
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.opening.send(opening).await.map_err(|_| gone())?;
        let (tx, rx, connack) = answer.await.map_err(|_| gone())??;
        let link = Link::new(session);
        Ok(Way {
            link,
            tx,
            rx,
            connack: Some(connack),
            untaken_bytes: 0,
            channel_len: self.channel_len.clone(),
            dropped: false,
        })
    }

    /// Ends all sessions on it.
    pub(crate) fn shut_down(&self) {
        self.stop.cancel();
    }

    /// Ends the router's thread, by the only way there is: making it panic (K2). For one that is to be
    /// replaced, so that its memory comes back. In a thread of its own, since a router that hangs would
    /// keep us.
    pub(crate) fn end_router(&self) {
        if let Some(end) = lock(&self.end_router).take() {
            let spawned = std::thread::Builder::new().name("mqtt-end".to_owned()).spawn(end);
            if let Err(error) = spawned {
                tracing::debug!(%error, "the old router stays");
            }
        }
    }
}

/// Why a way to the router has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The guard said so: the client said goodbye, or was refused.
    Closed,
    /// The router is dead, or has seen the link off.
    Dropped,
}

/// A session's link to the router, with the guard before it.
pub(crate) struct Way {
    link: Link,
    tx: LinkTx,
    rx: LinkRx,
    connack: Option<Notification>,
    channel_len: Arc<dyn Fn() -> usize + Send + Sync>,
    /// Of what was given since the router was last seen to have taken all.
    untaken_bytes: usize,
    /// The router is dead, or has seen the link off: nothing more may be said.
    dropped: bool,
}

impl Way {
    /// Takes the whole packets off the front of `up` and gives the router what the guard lets pass.
    pub(crate) async fn give(&mut self, shared: &Shared, up: &mut BytesMut) -> Result<(), Gone> {
        loop {
            // Before: what is appended below is only told of behind it.
            self.room().await;
            let (end, last) = {
                let mut buffer = self.tx.buffer();
                let before = buffer.len();
                let bytes = up.len();
                let end = self.link.read(shared, up, &mut buffer);
                self.untaken_bytes += bytes - up.len();
                // With this one the router is told of all.
                (end, if buffer.len() > before { buffer.pop_back() } else { None })
            };
            if let Some(last) = last {
                self.tx.send(last).await.map_err(|_| Gone::Dropped)?;
            }
            match end {
                None => {}
                Some(End::Wait) => return Ok(()),
                Some(End::Closed) => return Err(Gone::Closed),
            }
        }
    }

    /// Waits until the router keeps up, with all and with this one.
    async fn room(&mut self) {
        self.channel_room().await;
        loop {
            let untaken = self.tx.buffer().len();
            if untaken == 0 {
                self.untaken_bytes = 0;
            }
            let few_bytes = self.untaken_bytes < UNTAKEN_BYTES;
            if untaken < if few_bytes { UNTAKEN_SMALL } else { UNTAKEN } {
                return;
            }
            sleep(BUSY).await;
        }
    }

    async fn channel_room(&self) {
        while (self.channel_len)() >= CHANNEL_ROOM {
            sleep(BUSY).await;
        }
    }

    /// The next that the router has for the client. May be dropped without loss.
    pub(crate) async fn next(&mut self) -> Result<Option<Notification>, Gone> {
        if let Some(connack) = self.connack.take() {
            return Ok(Some(connack));
        }
        match self.rx.next().await {
            Ok(next) => Ok(next),
            Err(_) => {
                self.dropped = true;
                Err(Gone::Dropped)
            }
        }
    }

    /// Appends to `down` what [`next`](Self::next) gave and what else is there already.
    pub(crate) async fn take(
        &mut self,
        shared: &Shared,
        first: Option<Notification>,
        down: &mut BytesMut,
    ) -> Result<(), Gone> {
        let mut next = first;
        while let Some(notification) = next {
            match notification {
                Notification::Unschedule => {
                    // The router waits until it is told that there is room again.
                    self.rx.wake().await.map_err(|_| Gone::Dropped)?;
                }
                Notification::Shadow(_) => {}
                // Nearly all that comes, and large: it is looked at where it lies.
                Notification::Forward(mut forward) => {
                    let (publish, properties) = (&mut forward.publish, &mut forward.properties);
                    let delivered = self.link.deliver(shared, publish, properties, down);
                    delivered.map_err(|_| Gone::Closed)?;
                }
                packet => {
                    if let Some(packet) = Option::<Packet>::from(packet) {
                        self.link.write(shared, packet, down).map_err(|_| Gone::Closed)?;
                    }
                }
            }
            if down.len() >= COLLECT_BYTES {
                break;
            }
            next = match futures_util::FutureExt::now_or_never(self.rx.next()) {
                None => None,
                Some(Ok(next)) => next,
                Some(Err(_)) => {
                    self.dropped = true;
                    return Err(Gone::Dropped);
                }
            };
        }
        // An UNSUBSCRIBE may have waited for what came.
        self.give(shared, &mut BytesMut::new()).await
    }

    /// Ends the link. False when the router can't be heard to have taken it, so that the session's id
    /// must not be used again.
    pub(crate) async fn end(mut self) -> bool {
        self.dropped || timeout(END_TIMEOUT, self.say_goodbye()).await.unwrap_or(false)
    }

    async fn say_goodbye(&mut self) -> bool {
        self.channel_room().await;
        if self.tx.shadow(BEAT_TOPIC).is_err() {
            return false;
        }
        loop {
            match self.rx.next().await {
                Ok(Some(Notification::Shadow(_))) => break,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
        // What was appended and not told of yet goes with it.
        self.channel_room().await;
        self.tx.send(goodbye()).await.is_ok()
    }
}

fn goodbye() -> Packet {
    let reason_code = DisconnectReasonCode::NormalDisconnection;
    Packet::Disconnect(Disconnect { reason_code }, None)
}

fn router_config(limits: &Limits) -> RouterConfig {
    let beat = (BEAT_TOPIC.to_owned(), Segments { bytes: 1_024, count: 1 });
    let custom = limits
        .segments_of
        .iter()
        .chain(std::iter::once(&beat))
        .map(|(filter, segments)| {
            let config = SegmentConfig {
                max_segment_size: segments.bytes,
                max_segment_count: segments.count,
            };
            (filter.clone(), config)
        })
        .collect();
    RouterConfig {
        // Above the front's cap, so that the router never refuses (K5), with room for our own lines.
        max_connections: limits.max_connections + limits.max_connections / 10 + 32,
        max_outgoing_packet_count: 200,
        max_segment_size: limits.segments.bytes,
        max_segment_count: limits.segments.count,
        custom_segment: Some(custom),
        initialized_filters: None,
        ..RouterConfig::default()
    }
}
