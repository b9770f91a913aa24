//! The network between a gateway and a broker, as bad as a test wants it: a TCP proxy that all of its
//! connections go through, switched while they stand.
//!
//! | fault | how |
//! |---|---|
//! | cut off, told so | [`Wan::shut`], then [`Wan::cut`]: RST or FIN to both ends |
//! | a cut cable, plugged in again later | [`Way::Stalled`]: nothing moves, nothing is closed, nothing is lost |
//! | a firewall that forgot the connections | [`Wan::forget`]: what is sent on them is gone; new ones work |
//! | one direction dropped | [`Way::Lost`] for it, also on new connections |
//! | half-closed | [`Wan::half_close`]: one end reads the end, and may go on writing |
//! | slow | [`Way::BytesPerSecond`] |
//! | flapping | [`Wan::flap`] |

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use super::random::Random;

/// How one direction of each connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    BytesPerSecond(u32),
    /// Nothing is read: it waits where it is.
    Stalled,
    /// Read and thrown away. A connection that lost something never carries anything again.
    Lost,
}

/// Away from the gateway, or towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Reset,
    Close,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    ways: [Way; 2],
    is_shut: bool,
    /// Connections accepted so far.
    connections: u64,
    /// Of these, the first so many are forgotten.
    forgotten: u64,
    cuts: (u64, Cut),
    half_closes: [u64; 2],
}

/// It; ends when dropped.
#[derive(Debug)]
pub(crate) struct Wan {
    port: u16,
    line: Arc<watch::Sender<Line>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wan {
    /// In front of a port of this machine.
    pub(crate) fn open(to: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Arc::new(watch::Sender::new(Line {
            ways: [Way::Open; 2],
            is_shut: false,
            connections: 0,
            forgotten: 0,
            cuts: (0, Cut::Close),
            half_closes: [0; 2],
        }));
        let accepting = tokio::spawn(accept(listener, to, Arc::clone(&line)));
        Self { port, line, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections that were asked for so far.
    pub(crate) fn connections(&self) -> u64 {
        self.line.borrow().connections
    }

    /// One direction of all connections, also of those that stand.
    pub(crate) fn set(&self, direction: Direction, way: Way) {
        self.line.send_modify(|line| line.ways[direction as usize] = way);
    }

    pub(crate) fn set_both(&self, way: Way) {
        self.line.send_modify(|line| line.ways = [way; 2]);
    }

    /// New connections end at once, as on a port where nobody listens.
    pub(crate) fn shut(&self) {
        self.line.send_modify(|line| line.is_shut = true);
    }

    /// Ends all connections.
    pub(crate) fn cut(&self, cut: Cut) {
        self.line.send_modify(|line| line.cuts = (line.cuts.0 + 1, cut));
    }

    /// Ends one direction of all connections; the other one stays open.
    pub(crate) fn half_close(&self, direction: Direction) {
        self.line.send_modify(|line| line.half_closes[direction as usize] += 1);
    }

    /// From now on all that stands carries nothing, and never says so.
    pub(crate) fn forget(&self) {
        self.line.send_modify(|line| line.forgotten = line.connections);
    }

    /// As good as new, for what comes and for what still can.
    pub(crate) fn mend(&self) {
        self.line.send_modify(|line| (line.ways, line.is_shut) = ([Way::Open; 2], false));
    }

    /// Up and down for so long; up at last.
    pub(crate) async fn flap(&self, random: &mut Random, lasting: Duration) {
        let started = Instant::now();
        while started.elapsed() < lasting {
            match random.below(3) {
                0 => self.set_both(Way::Stalled),
                reset_or_close => {
                    self.shut();
                    self.cut(if reset_or_close == 1 { Cut::Reset } else { Cut::Close });
                }
            }
            tokio::time::sleep(random.millis(50, 1_000)).await;
            self.mend();
            tokio::time::sleep(random.millis(50, 1_500)).await;
        }
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: std::net::TcpListener, to: u16, line: Arc<watch::Sender<Line>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((near, _)) = listener.accept().await {
        line.send_modify(|line| line.connections += 1);
        let now = line.subscribe();
        let (is_shut, number) = (now.borrow().is_shut, now.borrow().connections);
        if is_shut {
            continue;
        }
        // Nobody there: the connection closes at once, as a port without a listener would.
        if let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await {
            tokio::spawn(join(near, far, number, now));
        }
    }
}

async fn join(mut near: TcpStream, mut far: TcpStream, number: u64, line: watch::Receiver<Line>) {
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let cut = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let up = carry(near_read, far_write, Direction::Up, number, line.clone());
        let down = carry(far_read, near_write, Direction::Down, number, line.clone());
        tokio::select! {
            cut = cut(line) => cut,
            _ = async { tokio::join!(up, down) } => Cut::Close,
        }
    };
    if cut == Cut::Reset {
        let _ = near.set_zero_linger();
        let _ = far.set_zero_linger();
    }
}

/// Waits until this connection is to end.
async fn cut(mut line: watch::Receiver<Line>) -> Cut {
    let before = line.borrow().cuts.0;
    let cut = line.wait_for(|line| line.cuts.0 != before).await;
    cut.map_or(Cut::Close, |line| line.cuts.1)
}

/// Carries until one side ends or fails, and then tells the other side so, if the line does.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    number: u64,
    mut line: watch::Receiver<Line>,
) {
    let half_closes = line.borrow().half_closes[direction as usize];
    // Small pieces: a slow line has no room for more.
    let mut piece = [0; 1024];
    let (mut is_lost, mut has_ended) = (false, false);
    loop {
        let now = *line.borrow_and_update();
        let way = now.ways[direction as usize];
        is_lost |= way == Way::Lost || number <= now.forgotten;
        let is_half_closed = now.half_closes[direction as usize] != half_closes;
        if is_half_closed || (has_ended && !is_lost) {
            let _ = to.shutdown().await;
            return;
        }
        if has_ended || (way == Way::Stalled && !is_lost) {
            if line.changed().await.is_err() {
                return;
            }
            continue;
        }
        let length = tokio::select! {
            read = from.read(&mut piece) => read.unwrap_or(0),
            changed = line.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        has_ended = length == 0;
        if is_lost || has_ended {
            continue;
        }
        let started = Instant::now();
        if to.write_all(&piece[..length]).await.is_err() {
            has_ended = true;
        } else if let Way::BytesPerSecond(bytes) = way {
            let over = started + Duration::from_secs(1) * length as u32 / bytes;
            tokio::select! {
                () = tokio::time::sleep_until(over.into()) => {}
                _ = line.changed() => {}
            }
        }
    }
}
