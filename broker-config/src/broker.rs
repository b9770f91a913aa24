//! The embedded broker as its owner sees it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{BrokerConfig, Listener, StartError},
    descriptors,
    front::{Front, InnerNow, TURNED_AWAY},
    inner::Inner,
    reload,
    shared::Shared,
    stats::Stats,
    watchdog::Watchdog,
};

/// How long clients get to take their goodbye.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// A running broker. Dropping it ends it at once; [`shutdown`](Self::shutdown) says goodbye first.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    local_addrs: Vec<SocketAddr>,
    inner: InnerNow,
    generation: watch::Receiver<u64>,
    failed: CancellationToken,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Broker {
    /// Starts a broker: when this returns, its port is bound and a message has gone through it.
    pub async fn start(config: BrokerConfig) -> Result<Self, StartError> {
        config.check()?;
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let bind = |source| StartError::Bind { address: listener.address, source };
            let socket = TcpListener::bind(listener.address).await.map_err(bind)?;
            let address = socket.local_addr().map_err(bind)?;
            listeners.push((socket, Listener { address, ..listener.clone() }));
        }
        let local_addrs = listeners.iter().map(|(_, listener)| listener.address).collect();
        let fits = descriptors::clients_that_fit();
        if fits < config.limits.max_connections {
            tracing::warn!(broker = %config.name, clients = fits, wanted = config.limits.max_connections,
                "fewer clients than configured: the limit of open files is too low");
        }
        let shared = Shared::new(&config, fits)?;
        let first = Inner::start(&shared, CancellationToken::new()).await?;
        let (inner_tx, inner) = watch::channel(Some(first));
        let (generation_tx, generation) = watch::channel(1);
        let (failed, stop, tracker) =
            (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let nudge = Arc::new(Notify::new());
        let front = Front {
            shared: shared.clone(),
            inner: inner.clone(),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            nudge: nudge.clone(),
            stop: stop.clone(),
            tracker: tracker.clone(),
        };
        for (socket, listener) in listeners {
            tracing::info!(
                broker = %shared.name, address = %listener.address,
                transport = ?listener.transport, tls = listener.tls, "listening"
            );
            tracker.spawn(front.clone().accept(socket, Arc::new(listener)));
        }
        let watchdog = Watchdog {
            shared: shared.clone(),
            inner: inner_tx,
            generation: generation_tx,
            nudge,
            stop: stop.clone(),
            failed: failed.clone(),
        };
        tracker.spawn(watchdog.run());
        tracker.spawn(reload::run(shared.clone(), stop.clone()));
        Ok(Self { shared, local_addrs, inner, generation, failed, stop, tracker })
    }

    /// The first listener's address, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addrs[0]
    }

    /// All listeners' addresses, in the order of the configuration.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// What happened so far, and what there is now.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared)
    }

    /// The same for somebody else to ask for, as long as they like.
    pub fn meter(&self) -> Meter {
        Meter { shared: self.shared.clone() }
    }

    /// Starts at 1 and grows when the inner broker was replaced: what the old one had acknowledged last
    /// may not have been delivered, so whoever publishes from a journal goes back a little in it.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.clone()
    }

    /// Ends when the inner broker dies again and again, so that only a new process helps.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Takes no new clients, tells the others, ends.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tracker.close();
        if timeout(SHUTDOWN_GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!(broker = %self.shared.name, clients = self.shared.connections(),
                "some clients didn't take their goodbye");
        }
        if let Some(inner) = self.inner.borrow().as_ref() {
            inner.shut_down();
        }
        tracing::info!(broker = %self.shared.name, "stopped");
    }
}

/// Tells what a broker does, to whoever doesn't own it.
#[derive(Debug, Clone)]
pub struct Meter {
    shared: Arc<Shared>,
}

impl Meter {
    /// What happened so far, and what there is now.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared)
    }

    /// The same in Prometheus' text format.
    pub fn prometheus(&self) -> String {
        self.stats().prometheus(&self.shared.name)
    }
}

#[cfg(test)]
impl Broker {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        self.inner.borrow().clone().expect("an inner broker")
    }

    /// Ends the inner broker's router as K1 or K2 would.
    pub(crate) fn kill_router(&self) {
        self.inner().end_router();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
