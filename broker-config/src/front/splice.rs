//! Bytes both ways between a client and the inner broker, until one of the ends.
//!
//! However it ends, the way to the inner broker is closed first and what it still sends is carried to
//! the client: so rumqttd has read all that the client said, and what the client got last is a whole
//! packet. A client that sends faster than it may isn't read for a while ([`crate::rate`]).

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    rate::Throttle,
    refusal::Refusal,
    session::{Kick, Session},
};

use super::Front;

/// What one read takes. rumqttd writes up to about this much at once.
const CHUNK_BYTES: usize = 8 << 10;

/// Carries until the end; says why if the end is ours. `silence` is how long the client may say nothing:
/// rumqttd forgets its own count of that whenever it has something to deliver.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    front: &Front,
    client: &mut S,
    first_up: Bytes,
    inner: TcpStream,
    first_down: BytesMut,
    session: &Arc<Session>,
    silence: Duration,
) -> Option<Kick> {
    let stall = front.shared.limits.stall_timeout;
    let (client_read, client_write) = split(client);
    let (inner_read, mut inner_write) = inner.into_split();
    let mut down =
        pin!(carry(first_down, inner_read, client_write, stall, Duration::MAX, |read, _| {
            acknowledge_at_once(read.as_ref());
            Duration::ZERO
        }));
    let mut throttle =
        Throttle::new(&session.rights, front.shared.limits.client_rates, Instant::now());
    let mut counted = 0;
    let slow_down = |_: &_, bytes| {
        let packets = session.meter.packets.load(Ordering::Relaxed);
        let wait = throttle.take(Instant::now(), packets - counted, bytes);
        counted = packets;
        if !wait.is_zero() {
            front.shared.counters.throttled.fetch_add(1, Ordering::Relaxed);
        }
        wait
    };
    let first_up = BytesMut::from(first_up);
    let kick = {
        let up = pin!(carry(first_up, client_read, &mut inner_write, stall, silence, slow_down));
        tokio::select! {
            ended = &mut down => {
                match ended {
                    Ended::Stalled => {
                        session.refuse(&front.shared, Refusal::Stalled, "takes no bytes");
                    }
                    // Perhaps it is dead: better to look now than at the next beat.
                    Ended::Closed | Ended::Silent => front.nudge.notify_one(),
                }
                return None;
            }
            ended = up => {
                if ended == Ended::Silent {
                    session.refuse(&front.shared, Refusal::KeepAlive, "says nothing");
                }
                None
            }
            () = session.closing.cancelled() => None,
            () = session.taken_over.cancelled() => Some(Kick::TakenOver),
            () = session.revoked.cancelled() => Some(Kick::Revoked),
            () = front.stop.cancelled() => Some(Kick::Shutdown),
        }
    };
    let _ = inner_write.shutdown().await;
    let _ = timeout(drain(kick), down).await;
    kick
}

/// How long the inner broker's last words may take. A client that came back waits for it.
fn drain(kick: Option<Kick>) -> Duration {
    match kick {
        Some(Kick::TakenOver) => Duration::from_millis(200),
        Some(Kick::Shutdown | Kick::Revoked | Kick::Replaced) | None => Duration::from_secs(3),
    }
}

/// rumqttd leaves Nagle's algorithm on, so a small packet of its waits for the acknowledgement of the
/// one before, which the kernel delays by 40 ms unless told otherwise, anew for each read.
fn acknowledge_at_once(inner: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = inner.set_quickack(true);
    #[cfg(not(target_os = "linux"))]
    let _ = inner;
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By one of the two sides.
    Closed,
    /// The one side takes nothing.
    Stalled,
    /// The other says nothing.
    Silent,
}

/// `after_read` is told how much was read, and says how long not to read more.
async fn carry<R: AsyncRead + Unpin>(
    mut chunk: BytesMut,
    mut from: R,
    mut to: impl AsyncWrite + Unpin,
    stall: Duration,
    silence: Duration,
    mut after_read: impl FnMut(&R, usize) -> Duration,
) -> Ended {
    chunk.reserve(CHUNK_BYTES);
    loop {
        if !chunk.is_empty() {
            let write = async {
                to.write_all(&chunk).await?;
                to.flush().await
            };
            match timeout(stall, write).await {
                Ok(Ok(())) => chunk.clear(),
                Ok(Err(_)) => return Ended::Closed,
                Err(_) => return Ended::Stalled,
            }
        }
        match timeout(silence, from.read_buf(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => return Ended::Closed,
            Ok(Ok(bytes)) => {
                let wait = after_read(&from, bytes);
                if !wait.is_zero() {
                    sleep(wait).await;
                }
            }
            Err(_) => return Ended::Silent,
        }
    }
}
