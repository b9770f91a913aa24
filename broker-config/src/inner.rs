//! rumqttd itself: a router, a server with our [`Guard`] as its protocol, on a loopback port of its own,
//! in a runtime of its own (its tasks block their threads while the router is busy).
//!
//! rumqttd tells neither which port it got nor, in time, that it got none. So a free port is looked up
//! first, and it counts as started when a [`Line`] through our own guard has answered.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use rumqttd::{
    ConnectionSettings, LinkType, Router, RouterConfig, SegmentConfig, Server, ServerSettings,
    local::LinkBuilder,
    protocol::{Disconnect, DisconnectReasonCode, Packet},
};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{InnerError, Limits, Segments},
    guard::Guard,
    line,
    session::{BEAT_TOPIC, lock},
    shared::Shared,
};

/// Ports tried before giving up: another process may take one between our look and rumqttd's bind.
const PORT_TRIES: usize = 8;
/// From its bind to its first answer. Generous: a busy machine starts threads late.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Threads for rumqttd's connections.
const THREADS: usize = 2;

/// One rumqttd. Replaced as a whole by the watchdog.
pub(crate) struct Inner {
    pub(crate) address: SocketAddr,
    /// Ends all sessions on it.
    pub(crate) stop: CancellationToken,
    runtime: Mutex<Option<Runtime>>,
    end_router: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Inner {
    /// Starts one and waits until it answers.
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, InnerError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name(format!("mqtt-{}", shared.name))
            .enable_all()
            .build()
            .map_err(InnerError::Runtime)?;
        let router = Router::new(0, router_config(&shared.limits)).spawn();
        let sender = router.clone();
        let inner = |address| Self {
            address,
            stop,
            runtime: Mutex::default(),
            end_router: Mutex::new(Some(Box::new(move || {
                let Ok((mut tx, rx, _)) = LinkBuilder::new("line|end", sender).build() else {
                    return;
                };
                let goodbye = Packet::Disconnect(
                    Disconnect { reason_code: DisconnectReasonCode::NormalDisconnection },
                    None,
                );
                if let Ok(runtime) = Builder::new_current_thread().build() {
                    let _ = runtime.block_on(tx.send(goodbye));
                    // The router ends on a word from someone it has seen off.
                    let _ = rx.ready();
                }
            }))),
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for _ in 0..PORT_TRIES {
            let address = free_port().map_err(InnerError::Port)?;
            let settings = server_settings(shared, address);
            let mut server = Server::new(settings, router.clone(), Guard::new(shared.clone()));
            let task = runtime.spawn(async move { server.start(LinkType::Remote).await });
            match listening(address, &task).await {
                Ok(()) => {
                    let inner = inner(address);
                    *lock(&inner.runtime) = Some(runtime);
                    let first = timeout(START_TIMEOUT, line::beat(shared, address)).await;
                    let why = match first {
                        Ok(Ok(())) => return Ok(Arc::new(inner)),
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => "no answer in time".to_owned(),
                    };
                    inner.end_router();
                    return Err(InnerError::Silent(why));
                }
                Err(error) => last = error,
            }
            task.abort();
        }
        runtime.shutdown_background();
        Err(InnerError::Port(last))
    }

    /// A new connection to it.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Ends its listener and connections. The router's thread stays: rumqttd has no way to end it, and
    /// it costs nothing while nobody talks to it.
    pub(crate) fn shut_down(&self) {
        self.stop.cancel();
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }

    /// Ends the router's thread too, by the only way there is: making it panic (K2). For one that is to
    /// be replaced, so that its memory comes back. In a thread of its own, since a router that hangs
    /// would keep us.
    pub(crate) fn end_router(&self) {
        if let Some(end) = lock(&self.end_router).take() {
            let spawned = std::thread::Builder::new().name("mqtt-end".to_owned()).spawn(end);
            if let Err(error) = spawned {
                tracing::debug!(%error, "the old router stays");
            }
        }
    }
}

impl Drop for Inner {
    /// A runtime must not be dropped where blocking isn't allowed.
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn free_port() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Waits until somebody listens on `address`, or rumqttd gave up.
async fn listening<E: std::fmt::Debug>(
    address: SocketAddr,
    task: &JoinHandle<Result<(), E>>,
) -> io::Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if task.is_finished() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep_until(Instant::now() + Duration::from_millis(2)).await,
        }
    }
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

fn server_settings(shared: &Shared, listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        name: shared.name.clone(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: shared.max_packet_bytes(),
            // The guard ends batches: it must know whether it is asked in one.
            max_inflight_count: usize::MAX,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    }
}
