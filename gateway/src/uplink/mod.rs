//! The link to the bridge: a pure core and its driver.
//!
//! The driver has one place where it waits: for the connection, the journal's heads, commands that
//! became durable, the readers, and the core's next deadline. Each becomes an input of the core; each
//! output of the core is done at once. MQTT 3.1.1, clean session, QoS 1; a new event loop for each
//! connection, because the old one's pending packets are the old session's.
//!
//! | what fails | what happens |
//! |---|---|
//! | the connection | back-off with full jitter, hello, resume |
//! | the bridge, behind a broker that answers | hellos every few seconds; `degraded` |
//! | a frame on the way | its batch is not acknowledged, and goes again |
//! | the journal | the probe proves nothing: `degraded`, with the reason; reading is tried again |
//! | a row of the journal can't be read | its lane stands still, and below it the backlog, until a restart puts a gap there |
//! | the driver's queue to the broker is full | the frame is dropped, counted, and goes again |

mod connection;
pub mod core;
mod driver;
mod pace;
mod session;
mod spans;
mod status;

use broker_config::client::Target;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{
    GatewayId, ReaderSummary, Root, UplinkState,
    link::{AgentInfo, CommandDown},
};

pub use self::core::LinkConfig;
use crate::journal::Journal;

/// The way to the bridge.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    /// Who this is.
    pub gateway: GatewayId,
    /// The public topics' root on the cloud's broker.
    pub root: Root,
    /// The cloud's broker, with the gateway's user and password there.
    pub target: Target,
    /// For people. The readers in it are not looked at: they come from [`Parts::readers`].
    pub agent: AgentInfo,
    /// Bounds and times.
    pub link: LinkConfig,
}

/// What the uplink works with.
#[derive(Debug)]
pub struct Parts {
    /// What it sends from.
    pub journal: Journal,
    /// Takes the bridge's commands. A full channel drops them: the bridge sends them again.
    pub commands: mpsc::Sender<Incoming>,
    /// The readers, now.
    pub readers: watch::Receiver<Vec<ReaderSummary>>,
}

/// A command of the bridge.
#[derive(Debug)]
pub struct Incoming {
    /// It. The same may come again until it was told durable.
    pub command: CommandDown,
    /// What to add to this machine's clock to get the bridge's, in milliseconds.
    pub offset_ms: Option<i64>,
    /// To be told once its row is durable; dropped where that failed.
    pub durable: oneshot::Sender<()>,
}

/// What others see of the uplink.
#[derive(Debug, Clone)]
pub struct UplinkHandle {
    /// How it is.
    pub state: watch::Receiver<UplinkState>,
    /// What to add to this machine's clock to get the bridge's, in milliseconds; none until heard.
    pub offset_ms: watch::Receiver<Option<i64>>,
}

/// The link to the bridge.
#[derive(Debug)]
pub struct Uplink;

impl Uplink {
    /// Starts it; it ends with `token`, after a goodbye to the broker.
    pub fn start(
        config: UplinkConfig,
        parts: Parts,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> UplinkHandle {
        driver::start(config, parts, tracker, token)
    }
}

#[cfg(test)]
mod tests;
