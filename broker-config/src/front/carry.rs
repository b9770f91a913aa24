//! Packets both ways between a client and the router, until one of them ends it.
//!
//! One task does both, so what a client says is passed on before anything else is done for it. A client
//! that sends faster than it may isn't read for a while ([`crate::rate`]); one that takes no bytes is
//! cut after a while, and until then costs no more memory than what is collected for one write.

use std::{
    pin::pin,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    inner::{Gone, Way},
    rate::Throttle,
    refusal::Refusal,
    session::{Kick, Session, lock},
};

use super::Front;

/// What one read takes from a client that has much to say, and from one that hasn't: thousands of these
/// are connected at a time.
const READ_BYTES: usize = 16 << 10;
const SMALL_READ_BYTES: usize = 2 << 10;
/// Buffers that grew beyond this are given back when little goes through them.
const KEPT_BYTES: usize = 16 << 10;
/// What may wait to be written to a client.
const WRITE_BYTES: usize = 64 << 10;
/// For a client that is ended to take what was on its way, so that its last packet is whole.
const LAST_BYTES: Duration = Duration::from_millis(200);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By the client, or by the guard.
    Closed,
    /// By the router.
    Dropped,
    /// The client takes nothing.
    Stalled,
    /// The client says nothing.
    Silent,
}

impl From<Gone> for Ended {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Closed => Ended::Closed,
            Gone::Dropped => Ended::Dropped,
        }
    }
}

/// Carries until the end; says why if the end is ours. `silence` is how long the client may say nothing.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    front: &Front,
    client: &mut S,
    first_up: Bytes,
    way: &mut Way,
    session: &Arc<Session>,
    silence: Duration,
) -> Option<Kick> {
    let (reader, writer) = split(client);
    let now = Instant::now().into_std();
    let throttle = Throttle::new(&session.rights, front.shared.limits.client_rates, now);
    let users_throttle = front.shared.throttle_of(session, now);
    let mut carrier = Carrier {
        front,
        session,
        way,
        reader,
        writer,
        up: BytesMut::from(first_up),
        down: BytesMut::new(),
        throttle,
        users_throttle,
        counted: 0,
    };
    // First of all CONNACK, whatever comes then.
    if let Ok(connack) = carrier.way.next().await {
        let _ = carrier.way.take(&front.shared, connack, &mut carrier.down).await;
    }
    let kick = tokio::select! {
        ended = carrier.carry(silence) => {
            match ended {
                Ended::Closed => {}
                // Perhaps it is dead: better to look now than at the next beat.
                Ended::Dropped => front.nudge.notify_one(),
                Ended::Stalled => session.refuse(&front.shared, Refusal::Stalled, "takes no bytes"),
                Ended::Silent => session.refuse(&front.shared, Refusal::KeepAlive, "says nothing"),
            }
            None
        }
        () = session.taken_over.cancelled() => Some(Kick::TakenOver),
        () = session.revoked.cancelled() => Some(Kick::Revoked),
        () = front.stop.cancelled() => Some(Kick::Shutdown),
    };
    let _ = timeout(LAST_BYTES, carrier.write()).await;
    kick
}

struct Carrier<'a, S> {
    front: &'a Front,
    session: &'a Session,
    way: &'a mut Way,
    reader: ReadHalf<&'a mut S>,
    writer: WriteHalf<&'a mut S>,
    up: BytesMut,
    down: BytesMut,
    throttle: Throttle,
    users_throttle: Arc<Mutex<Throttle>>,
    /// Of the session's packets, those that were throttled for.
    counted: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<'_, S> {
    async fn carry(&mut self, silence: Duration) -> Ended {
        let shared = &*self.front.shared;
        let stall = shared.limits.stall_timeout;
        let mut heard = Instant::now();
        let mut silent = pin!(sleep_until(heard + silence));
        let mut stalled = pin!(sleep_until(heard + stall));
        // Until then the client isn't read.
        let mut pause = pin!(sleep_until(heard));
        let mut paused = false;
        let mut chunk = SMALL_READ_BYTES;
        if let Err(gone) = self.way.give(shared, &mut self.up).await {
            return gone.into();
        }
        loop {
            // Who doesn't take what it is sent is neither read nor served further.
            let room = self.down.len() < WRITE_BYTES;
            if self.up.is_empty() && self.up.capacity() > KEPT_BYTES && chunk == SMALL_READ_BYTES {
                self.up = BytesMut::new();
            }
            self.up.reserve(chunk);
            tokio::select! {
                read = self.reader.read_buf(&mut self.up), if room && !paused => match read {
                    Ok(0) | Err(_) => return Ended::Closed,
                    Ok(bytes) => {
                        heard = Instant::now();
                        chunk = if bytes < SMALL_READ_BYTES { SMALL_READ_BYTES } else { READ_BYTES };
                        // What was read passes first; what it owes is waited for after.
                        if let Err(gone) = self.way.give(shared, &mut self.up).await {
                            return gone.into();
                        }
                        let wait = self.owes(heard, bytes);
                        if !wait.is_zero() {
                            paused = true;
                            pause.as_mut().reset(heard + wait);
                        }
                    }
                },
                next = self.way.next(), if room => {
                    if self.down.is_empty() {
                        stalled.as_mut().reset(Instant::now() + stall);
                    }
                    let taken = match next {
                        Ok(next) => self.way.take(shared, next, &mut self.down).await,
                        Err(gone) => Err(gone),
                    };
                    if let Err(gone) = taken {
                        return gone.into();
                    }
                }
                written = self.writer.write_buf(&mut self.down), if !self.down.is_empty() => {
                    let Ok(written) = written else { return Ended::Closed };
                    stalled.as_mut().reset(Instant::now() + stall);
                    if self.down.is_empty() {
                        if written < SMALL_READ_BYTES && self.down.capacity() > KEPT_BYTES {
                            self.down = BytesMut::new();
                        }
                        match timeout(stall, self.writer.flush()).await {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => return Ended::Closed,
                            Err(_) => return Ended::Stalled,
                        }
                    }
                }
                () = &mut stalled, if !self.down.is_empty() => return Ended::Stalled,
                () = &mut pause, if paused => paused = false,
                () = &mut silent => {
                    // Whoever isn't read can't be heard.
                    let unread = paused || !room;
                    if heard.elapsed() >= silence && !unread {
                        return Ended::Silent;
                    }
                    let from = if unread { Instant::now() } else { heard };
                    silent.as_mut().reset(from + silence);
                }
            }
        }
    }

    /// How long not to read, after this much was read.
    fn owes(&mut self, now: Instant, bytes: usize) -> Duration {
        let packets = self.session.meter.packets.load(Ordering::Relaxed);
        let (now, more) = (now.into_std(), packets - self.counted);
        let of_user = lock(&self.users_throttle).take(now, more, bytes);
        let wait = self.throttle.take(now, more, bytes).max(of_user);
        self.counted = packets;
        if !wait.is_zero() {
            self.front.shared.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        wait
    }

    /// What was taken for it and not yet written.
    async fn write(&mut self) -> std::io::Result<()> {
        self.writer.write_all_buf(&mut self.down).await?;
        self.writer.flush().await
    }
}
