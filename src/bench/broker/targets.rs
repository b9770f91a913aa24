//! The brokers that are measured.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use broker_config::{Broker, BrokerConfig, Limits, Listener, Secret, User, config::Tls};
use rustls::{ClientConfig, RootCertStore};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};
use topics::Role;

use super::{
    client::{Client, Door},
    cpu::Cpu,
};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// For a broker to listen.
const START: Duration = Duration::from_secs(10);
/// In flight to each subscriber: rumqttd's own limit, and what the others are set to.
const IN_FLIGHT: usize = 100;
/// Where Debian has it, which isn't in everybody's path.
const MOSQUITTO: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

pub(super) const RIDGEWAY: &str = "Ridgeway";
pub(super) const BARE: &str = "bare rumqttd";
pub(super) const MOSQUITTO_PLAIN: &str = "Mosquitto";
pub(super) const MOSQUITTO_NODELAY: &str = "Mosquitto, nodelay";

/// A broker that runs, and how to come in.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) tls: bool,
    pub(super) publisher: Door,
    pub(super) subscriber: Door,
    pub(super) cpu: Cpu,
    _running: Running,
}

/// Ends with its target, where it can.
enum Running {
    Ridgeway(#[allow(dead_code)] Broker),
    /// rumqttd can't be stopped: it ends with the process.
    Bare,
    Mosquitto(#[allow(dead_code)] Child),
}

/// A certificate for this machine's loopback address, and those who trust it.
pub(super) struct Certificate {
    certificate_file: PathBuf,
    key_file: PathBuf,
    trust: Arc<ClientConfig>,
}

/// For Mosquitto.
const OPEN_KEY: &str = "mosquitto-key.pem";

impl Certificate {
    pub(super) fn make(dir: &Path) -> anyhow::Result<Self> {
        let names = vec![Ipv4Addr::LOCALHOST.to_string(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).context("no certificate")?;
        let (certificate_file, key_file) = (dir.join("certificate.pem"), dir.join("key.pem"));
        std::fs::write(&certificate_file, made.cert.pem())?;
        let key = made.signing_key.serialize_pem();
        // Ours must be its owner's alone; Mosquitto reads its own as another user.
        crate::secret::write_private(&key_file, key.as_bytes(), true)?;
        std::fs::write(dir.join(OPEN_KEY), key)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).context("our own certificate")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { certificate_file, key_file, trust: Arc::new(trust) })
    }
}

/// The embedded broker, as the gateway runs it.
pub(super) async fn ridgeway(certificate: Option<&Certificate>) -> anyhow::Result<Target> {
    let (publisher, subscriber) = (Secret::random()?, Secret::random()?);
    let mut config = BrokerConfig::new("bench", LOOPBACK);
    let gateway = "bench".parse().context("a gateway id")?;
    config.users = vec![
        User::new("edge", publisher.expose(), Role::EdgeGateway(gateway)),
        User::new("platform", subscriber.expose(), Role::Platform),
    ];
    if let Some(certificate) = certificate {
        config.listeners = vec![Listener { tls: true, ..Listener::tcp(LOOPBACK) }];
        config.tls = Some(Tls {
            certificate_file: Some(certificate.certificate_file.clone()),
            key_file: Some(certificate.key_file.clone()),
            ..Tls::default()
        });
    }
    let broker = Broker::start(config).await?;
    let address = broker.local_addr();
    let door = |name: &str, password: &Secret| Door {
        address,
        tls: certificate.map(|certificate| certificate.trust.clone()),
        login: Some((name.to_owned(), password.expose().to_owned())),
    };
    let target = Target {
        name: RIDGEWAY,
        tls: certificate.is_some(),
        publisher: door("edge", &publisher),
        subscriber: door("platform", &subscriber),
        cpu: Cpu::Here,
        _running: Running::Ridgeway(broker),
    };
    target.answers().await
}

/// rumqttd alone, with the embedded broker's limits.
pub(super) async fn bare() -> anyhow::Result<Target> {
    let address = free_address()?;
    let limits = Limits::default();
    let settings = rumqttd::ServerSettings {
        name: "bare".to_owned(),
        listen: address,
        tls: None,
        next_connection_delay_ms: 0,
        connections: rumqttd::ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: limits.max_payload_bytes,
            max_inflight_count: IN_FLIGHT,
            auth: None,
            external_auth: None,
            dynamic_filters: false,
        },
    };
    let config = rumqttd::Config {
        router: rumqttd::RouterConfig {
            max_connections: limits.max_connections,
            max_outgoing_packet_count: 200,
            max_segment_size: limits.segments.bytes,
            max_segment_count: limits.segments.count,
            ..rumqttd::RouterConfig::default()
        },
        v4: Some(HashMap::from([("bare".to_owned(), settings)])),
        ..rumqttd::Config::default()
    };
    let mut broker = rumqttd::Broker::new(config);
    thread::Builder::new()
        .name("bare".to_owned())
        .spawn(move || broker.start().map_err(Box::new))?;
    listening(address).await?;
    let door = Door { address, tls: None, login: None };
    let target = Target {
        name: BARE,
        tls: false,
        publisher: door.clone(),
        subscriber: door,
        cpu: Cpu::Here,
        _running: Running::Bare,
    };
    target.answers().await
}

/// Mosquitto, if it is installed.
pub(super) async fn mosquitto(
    dir: &Path,
    nodelay: bool,
    certificate: Option<&Certificate>,
) -> anyhow::Result<Option<Target>> {
    let address = free_address()?;
    let (ip, port) = (address.ip(), address.port());
    // Started as root it would become a user who can't read the files of this run.
    let mut conf = format!(
        "user root\nlistener {port} {ip}\nallow_anonymous true\npersistence false\n\
         max_inflight_messages {IN_FLIGHT}\nmax_queued_messages 0\nset_tcp_nodelay {nodelay}\n"
    );
    if let Some(Certificate { certificate_file, key_file, .. }) = certificate {
        let key = key_file.with_file_name(OPEN_KEY);
        let (certificate, key) = (certificate_file.display(), key.display());
        conf += &format!("certfile {certificate}\nkeyfile {key}\n");
    }
    let file = dir.join(format!("mosquitto-{port}.conf"));
    std::fs::write(&file, conf)?;
    let started = MOSQUITTO.iter().find_map(|program| {
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true).spawn().ok()
    });
    let Some(child) = started else { return Ok(None) };
    listening(address).await.context("Mosquitto")?;
    let tls = certificate.map(|certificate| certificate.trust.clone());
    let door = Door { address, tls, login: None };
    let target = Target {
        name: if nodelay { MOSQUITTO_NODELAY } else { MOSQUITTO_PLAIN },
        tls: certificate.is_some(),
        publisher: door.clone(),
        subscriber: door,
        cpu: Cpu::Process(child.id().context("Mosquitto ended at once")?),
        _running: Running::Mosquitto(child),
    };
    target.answers().await.map(Some)
}

impl Target {
    /// Itself, if a client can come in.
    async fn answers(self) -> anyhow::Result<Self> {
        let knock = Client::connect(&self.subscriber, "knock");
        tokio::time::timeout(START, knock)
            .await
            .with_context(|| format!("{} says nothing", self.name))?
            .with_context(|| format!("{} lets nobody in", self.name))?;
        Ok(self)
    }
}

/// Free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(LOOPBACK)?.local_addr()?)
}

async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let start = Instant::now();
    while let Err(error) = TcpStream::connect(address).await {
        anyhow::ensure!(start.elapsed() < START, "nobody listens on {address}: {error}");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
