//! [`Gateway`]: starts the parts in their order, knows where they are, stops them in order.
//!
//! | start | fails with |
//! |---|---|
//! | 1 the configuration is checked | which key, what is allowed |
//! | 2 the data directory is made and locked | the process that holds it |
//! | 3 the HTTP address is bound | the address, `api.listen` |
//! | 4 keys and secrets are read, or made | the file, and the command that helps |
//! | 5 the journal is opened | the file |
//! | 6 the embedded broker starts | the address, `mqtt.listen` |
//! | 7 readers, commands, edge, uplink, API | |
//!
//! A stop goes the other way: no new work; what runs ends; what is committed is told; all is closed.

mod external;
pub(crate) mod lock;
mod wire;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use broker_config::Broker;
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{Draft, EventBody, GatewayId, UplinkState, event::ServiceState, record::Cause};

pub use self::external::ExternalBroker;
pub use self::lock::{DataLock, Holder, LockError, Presence};
use crate::{
    api::Api,
    config::{Config, ConfigError},
    edge::{self, Edge},
    journal::{self, Attachment, Batch, Committed, Journal, JournalError},
    keys::KeyError,
    operation::{Operations, OperationsError},
};

/// How long [`Gateway::ready`] waits for the readers: the vendor's library takes its time to start.
const READERS_PATIENCE: Duration = Duration::from_secs(10);
/// And for the edge broker, and the bridge: a site lives alone.
const EDGE_PATIENCE: Duration = Duration::from_secs(5);
const UPLINK_PATIENCE: Duration = Duration::from_secs(5);
/// The broker has acknowledged the gateway's last word; its subscribers get it in this time. A
/// broker in memory tells nobody when it has delivered.
const BROKER_LINGER: Duration = Duration::from_millis(300);

/// Why a gateway can't start. Says what can be done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error(
        "the data directory {} is in use by another gateway (process {holder}): stop that one, or \
         set gateway.data_dir",
        directory.display()
    )]
    InUse { directory: PathBuf, holder: String },
    #[error("can't use {}: {source} (set by {key})", path.display())]
    File { path: PathBuf, key: &'static str, source: io::Error },
    #[error("can't listen on {address}: {reason} (set by {key})")]
    Bind { address: SocketAddr, key: &'static str, reason: String },
    #[error("the embedded broker: {0}")]
    Broker(#[source] broker_config::StartError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Operations(#[from] OperationsError),
    #[error("the HTTP service: {0}")]
    Http(#[source] io::Error),
    #[error("a part of the start failed: {0}")]
    Task(#[source] io::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(#[source] io::Error),
}

/// A running gateway.
pub struct Gateway {
    id: GatewayId,
    http: SocketAddr,
    mqtt: String,
    api_key: String,
    platform: (String, String),
    simulator_dir: Option<PathBuf>,
    journal: Journal,
    started: Instant,
    operations: Operations,
    uplink: watch::Receiver<UplinkState>,
    broker: Option<Broker>,
    api: Api,
    edge: Edge,
    /// What takes new work: API, commands, readers.
    intake: Stage,
    /// What tells others: edge, uplink.
    telling: Stage,
    _lock: DataLock,
}

/// Tasks that end together.
#[derive(Clone, Default)]
struct Stage {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Stage {
    /// Ends the tasks, and waits for them no longer than until `deadline`.
    async fn end(&self, name: &str, deadline: tokio::time::Instant) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout_at(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(stage = name, "not all tasks ended in time");
        }
    }
}

impl Gateway {
    /// Starts a gateway. When this returns, its API and its broker answer.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let lock = take_lock(&config.gateway.data_dir)?;
        let listener = bind(config.api.listen).await?;
        let (intake, telling) = (Stage::default(), Stage::default());
        let started = wire::wire(config, lock, listener, intake.clone(), telling.clone()).await;
        if started.is_err() {
            // What had started already must not outlive the failure.
            let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
            intake.end("intake", deadline).await;
            telling.end("telling", deadline).await;
        }
        started
    }

    /// Its id.
    pub fn id(&self) -> &GatewayId {
        &self.id
    }

    /// Where the REST and WebSocket service listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// `host:port` of the on-site broker.
    pub fn mqtt_addr(&self) -> String {
        self.mqtt.clone()
    }

    /// The first API key.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// User and password of a platform on the embedded broker; empty with an external one, or where
    /// no platform user is configured.
    pub fn platform_login(&self) -> (&str, &str) {
        (&self.platform.0, &self.platform.1)
    }

    /// The simulated readers' folder.
    pub fn simulator_dir(&self) -> Option<&Path> {
        self.simulator_dir.as_deref()
    }

    /// Every event from now on, in order of commit.
    pub fn events(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.journal.live()
    }

    /// What the edge side did.
    pub fn edge_stats(&self) -> edge::Stats {
        self.edge.stats()
    }

    /// The running service's counters.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Waits until readers can be used, commands are listened for, and the bridge answers; for each only
    /// some seconds: a site lives alone, and says what it has.
    pub async fn ready(&self) {
        if timeout(READERS_PATIENCE, self.operations.readers_up()).await.is_err() {
            tracing::warn!("the readers can't be used yet; see the lines above for the reason");
        }
        if timeout(EDGE_PATIENCE, self.edge.connected()).await.is_err() {
            tracing::warn!("the edge broker does not answer yet; what happens is kept for it");
        }
        let mut uplink = self.uplink.clone();
        let connected = uplink.wait_for(|state| match state {
            UplinkState::Disabled
            | UplinkState::Connected { .. }
            | UplinkState::CatchingUp { .. } => true,
            UplinkState::Degraded { .. } | UplinkState::Offline { .. } => false,
        });
        if timeout(UPLINK_PATIENCE, connected).await.is_err() {
            tracing::warn!("the bridge does not answer yet; what happens is kept for it");
        }
    }

    /// Its journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Waits until the gateway can't go on by itself: the embedded broker failed for good.
    pub async fn failed(&self) {
        match &self.broker {
            Some(broker) => broker.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Stops: no new work, what runs ends, what is committed is told, all is closed; within `grace`.
    pub async fn stop(self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        tell_state(&self.journal, self.started, ServiceState::Stopping).await;
        self.intake.end("intake", deadline).await;
        self.telling.end("telling", deadline).await;
        if let Some(broker) = self.broker {
            let linger = (tokio::time::Instant::now() + BROKER_LINGER).min(deadline);
            tokio::time::sleep_until(linger).await;
            if tokio::time::timeout_at(deadline, broker.shutdown()).await.is_err() {
                tracing::warn!("the embedded broker did not end in time");
            }
        }
        match tokio::time::timeout_at(deadline, self.journal.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the journal was not closed cleanly"),
            Err(_) => tracing::warn!("the journal was not closed in time"),
        }
    }
}

/// Records the service's own state.
async fn tell_state(journal: &Journal, started: Instant, status: ServiceState) {
    let uptime = started.elapsed().as_secs();
    let body = EventBody::ServiceStatus { status, uptime, version: crate::VERSION.to_owned() };
    let committed = match Draft::new(&body, &journal::moment(), &Cause::default()) {
        Ok(draft) => {
            journal.commit(Batch::new().event(draft, Attachment::default())).await.map(drop)
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = committed {
        tracing::error!(%error, "the service's state can't be recorded");
    }
}

fn take_lock(directory: &Path) -> Result<DataLock, StartError> {
    DataLock::take(directory).map_err(|error| match error {
        LockError::Held(holder) => StartError::InUse { directory: directory.to_owned(), holder },
        LockError::Io(source) => {
            StartError::File { path: directory.to_owned(), key: "gateway.data_dir", source }
        }
    })
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind {
        address,
        key: "api.listen",
        reason: bind_reason(&error),
    })
}

fn bind_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not take that port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}
