//! The network between a gateway and its bridge, as bad as a test wants it: a TCP proxy that all of the
//! uplink's connections go through.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// How fast it carries, in each direction of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    Unbound,
    BytesPerSecond(u32),
}

/// It; ends when dropped.
#[derive(Debug)]
pub(crate) struct Wan {
    port: u16,
    rate: Arc<watch::Sender<Rate>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wan {
    /// In front of a port of this machine.
    pub(crate) async fn open(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let rate = Arc::new(watch::Sender::new(Rate::Unbound));
        let carrying = Arc::clone(&rate);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // Nobody there: the connection closes at once, as a port without a listener would.
                if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
                    join(near, far, &carrying);
                }
            }
        });
        Self { port, rate, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Of all connections, also those that stand.
    pub(crate) fn throttle(&self, rate: Rate) {
        self.rate.send_replace(rate);
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn join(near: TcpStream, far: TcpStream, rate: &watch::Sender<Rate>) {
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::spawn(carry(near_read, far_write, rate.subscribe()));
    tokio::spawn(carry(far_read, near_write, rate.subscribe()));
}

/// Carries until one side ends or fails; then the other side is told so by the halves' drop.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rate: watch::Receiver<Rate>) {
    // Small pieces: a slow line has no room for more.
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let started = Instant::now();
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
        let now = *rate.borrow_and_update();
        if let Rate::BytesPerSecond(bytes) = now {
            let over = started + Duration::from_secs(1) * length as u32 / bytes;
            tokio::select! {
                () = tokio::time::sleep_until(over.into()) => {}
                _ = rate.changed() => {}
            }
        }
    }
}
