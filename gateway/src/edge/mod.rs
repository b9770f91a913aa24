//! The on-site broker: publishes what the journal holds, takes commands.
//!
//! The gateway is a client of its own embedded broker like any other, and of an external one alike.
//! Each connection is a new client: what it had in flight is sent again from the journal, where one
//! cursor a lane says what the broker has (`outbox`).
//!
//! | published | when | retained |
//! |---|---|---|
//! | every record, on its event's topic, with its CloudEvents attributes as user properties | after its commit, in order of lane | no |
//! | `{root}/{gateway}/status` | on connection, on change (at most once a second), each minute; `offline` at a stop and as Last Will | yes |
//! | `{root}/{gateway}/readers/{reader}/status` | on connection, on change | yes |
//! | `{root}/{gateway}/commands/response`, or below it | when a command has ended, or was refused | no |
//!
//! | goes wrong | then |
//! |---|---|
//! | the embedded broker was replaced | what it acknowledged in the last 5 s is published again |
//! | no connection, or it breaks | again after a back-off with full jitter, up to 5 s; nothing is lost |
//! | the broker refuses a publish | the same, and loudly: a grant or a limit is wrong |
//! | the journal can't be read | the same |
//! | a request can't be taken | a `failed` response where it has an id; counted (`request`) |

mod connection;
mod outbox;
mod request;
mod status;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use broker_config::client::{Backoff, Target};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{GatewayId, ReaderSummary, Root, UplinkState};

use self::connection::Connection;
use crate::{command::Commands, journal::Journal};

/// The gateway's own user on the embedded broker.
pub const GATEWAY_USER: &str = "gateway";

/// Panels wait for the broker: back soon.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What the edge side is made of.
#[derive(Clone)]
pub struct Parts {
    /// Whose edge it is.
    pub gateway: GatewayId,
    /// Where the public topics lie.
    pub root: Root,
    /// The broker, and as whom.
    pub target: Target,
    /// Grows when the embedded broker was replaced; none for an external one.
    pub generations: Option<watch::Receiver<u64>>,
    /// What is published.
    pub journal: Journal,
    /// Who carries commands out.
    pub commands: Commands,
    /// The readers as they are now.
    pub readers: watch::Receiver<Vec<ReaderSummary>>,
    /// The way to the bridge as it is now.
    pub uplink: watch::Receiver<UplinkState>,
    /// When the gateway started.
    pub started: Instant,
}

/// The running edge side.
#[derive(Clone)]
pub struct Edge {
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    /// Connected, and subscribed to commands.
    connected: watch::Sender<bool>,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

/// What the edge side did since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Whether the broker answers, and commands are listened for.
    pub connected: bool,
    /// Publishes that the broker acknowledged, repeats and states included.
    pub acknowledged: u64,
    /// Requests on `commands/request` that could not be taken.
    pub refused: u64,
}

impl Edge {
    /// Starts publishing; ends, with a last status, when `token` is cancelled.
    pub fn start(parts: Parts, tracker: &TaskTracker, token: CancellationToken) -> Self {
        let counters = Arc::new(Counters::default());
        tracker.spawn(run(parts, counters.clone(), token));
        Self { counters }
    }

    /// Waits until the broker answers, and commands are listened for.
    pub async fn connected(&self) {
        // Fails only when the sender is gone, which is held here.
        let _ = self.counters.connected.subscribe().wait_for(|connected| *connected).await;
    }

    /// What it did since the start.
    pub fn stats(&self) -> Stats {
        Stats {
            connected: *self.counters.connected.borrow(),
            acknowledged: self.counters.acknowledged.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
        }
    }
}

async fn run(parts: Parts, counters: Arc<Counters>, token: CancellationToken) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut connection = Connection::new(parts, counters.clone());
    while !token.is_cancelled() {
        let ended = connection.run(&token).await;
        if counters.connected.send_replace(false) {
            backoff.reset();
        }
        let Err(error) = ended else { break };
        let wait = backoff.next(getrandom::u64().unwrap_or(0));
        tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "no connection to the edge broker");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = token.cancelled() => {}
        }
    }
}
