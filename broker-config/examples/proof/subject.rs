//! What the attacks go against: the broker with all its protections, or a bare rumqttd, which shows that
//! the attacks are real.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use broker_config::{Broker, BrokerConfig, Listener, Stats, Tls, Transport, User};
use rumqttd::{
    ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings,
    protocol::{v4::V4, v5::V5},
};
use rustls::ClientConfig;
use topics::Role;

use super::{attack::Scenario, client::dial, packets::Version, ways};

/// The most clients that K5's broker takes; ten are well-behaved.
pub(crate) const FEW: usize = 40;

/// Where to find it.
#[derive(Clone)]
pub(crate) struct Addresses {
    pub(crate) v311: SocketAddr,
    pub(crate) v5: SocketAddr,
    /// Of a broker that has them.
    pub(crate) others: Option<Others>,
}

/// Listeners beside plain TCP.
#[derive(Clone)]
pub(crate) struct Others {
    pub(crate) tls: SocketAddr,
    pub(crate) websocket: SocketAddr,
    pub(crate) trust: Arc<ClientConfig>,
}

impl Addresses {
    pub(crate) fn of(&self, version: Version) -> SocketAddr {
        match version {
            Version::V311 => self.v311,
            Version::V5 => self.v5,
        }
    }
}

/// A running broker.
pub(crate) enum Subject {
    Ours { broker: Box<Broker>, addresses: Addresses, _certificates: tempfile::TempDir },
    Bare { addresses: Addresses, runtime: Option<tokio::runtime::Runtime> },
}

impl Subject {
    /// Our broker with its default limits, but where a scenario is about one of them.
    pub(crate) async fn ours(scenario: Scenario) -> anyhow::Result<Self> {
        let certificates = tempfile::tempdir().context("a directory for certificates")?;
        let mut config = config(certificates.path());
        match scenario {
            Scenario::K5 => {
                config.limits.max_connections = FEW;
                config.limits.max_connections_per_address = FEW;
            }
            Scenario::Together => config.limits.max_connections_per_address = FEW,
            _ => {}
        }
        let broker = Broker::start(config).await?;
        let [plain, tls, websocket] = *broker.local_addrs() else {
            anyhow::bail!("three listeners were asked for");
        };
        let trust = ways::trust(&certificates.path().join("ca.pem"))?;
        let others = Some(Others { tls, websocket, trust });
        let addresses = Addresses { v311: plain, v5: plain, others };
        Ok(Self::Ours { broker: Box::new(broker), addresses, _certificates: certificates })
    }

    /// rumqttd alone, with a listener for each version.
    pub(crate) async fn bare(scenario: Scenario) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("rumqttd's runtime")?;
        let most = if scenario == Scenario::K5 { FEW } else { 1_000 };
        let router = Router::new(
            0,
            RouterConfig {
                max_connections: most,
                max_outgoing_packet_count: 200,
                max_segment_size: 1 << 20,
                max_segment_count: 8,
                ..RouterConfig::default()
            },
        )
        .spawn();
        let (v311, v5) = (free_port()?, free_port()?);
        let mut old = Server::new(settings(v311), router.clone(), V4);
        let mut new = Server::new(settings(v5), router, V5);
        runtime.spawn(async move { old.start(LinkType::Remote).await });
        runtime.spawn(async move { new.start(LinkType::Remote).await });
        for address in [v311, v5] {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            while let Err(error) = dial(address, 1).await {
                anyhow::ensure!(tokio::time::Instant::now() < deadline, "rumqttd: {error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let addresses = Addresses { v311, v5, others: None };
        Ok(Self::Bare { addresses, runtime: Some(runtime) })
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        match self {
            Subject::Ours { addresses, .. } | Subject::Bare { addresses, .. } => addresses,
        }
    }

    /// None of a bare rumqttd.
    pub(crate) fn stats(&self) -> Option<Stats> {
        match self {
            Subject::Ours { broker, .. } => Some(broker.stats()),
            Subject::Bare { .. } => None,
        }
    }

    pub(crate) async fn end(self) {
        match self {
            Subject::Ours { broker, .. } => broker.shutdown().await,
            Subject::Bare { mut runtime, .. } => {
                if let Some(runtime) = runtime.take() {
                    runtime.shutdown_background();
                }
            }
        }
    }
}

/// Plain TCP, TLS and WebSocket on free ports; certificates in `directory`. The password of `x` is
/// `x-password`.
pub(crate) fn config(directory: &std::path::Path) -> BrokerConfig {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = BrokerConfig::new("proof", any);
    let plain = Listener::tcp(any);
    config.listeners = vec![
        plain.clone(),
        Listener { tls: true, ..plain.clone() },
        Listener { transport: Transport::WebSocket, ..plain },
    ];
    config.tls = Some(Tls { directory: directory.to_owned(), ..Tls::default() });
    let hq: topics::GatewayId = "hq".parse().expect("a gateway id");
    let attic = vec!["attic/#".to_owned()];
    config.users = [
        // Who behaves.
        ("edge", Role::EdgeGateway(hq.clone())),
        ("platform", Role::Platform),
        ("visitor", Role::Viewer),
        // Who doesn't.
        ("rogue", Role::EdgeGateway(hq)),
        ("intruder", Role::Platform),
        ("hoarder", Role::Custom { publish: attic.clone(), subscribe: attic }),
    ]
    .map(|(name, role)| User::new(name, format!("{name}-password"), role))
    .into();
    config
}

/// The broker's log, and rumqttd's, on standard error, as `RUST_LOG` asks; nothing if it doesn't.
pub(crate) fn log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    }
}

fn free_port() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn settings(listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        name: listen.to_string(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: 262_144,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    }
}
