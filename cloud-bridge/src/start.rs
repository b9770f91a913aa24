//! Putting it together, and taking it apart again.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use broker_config::{Broker, BrokerConfig, Limits, Secret, Tls, User, client::Target};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::Role;

use crate::{
    api::{self, Api, Connections, auth::Keys},
    clock::Clock,
    config::{
        BRIDGE_USER, BrokerUrl, Config, ConfigError, DataFiles, MAIN_KEY, MqttMode, MqttRole,
    },
    hub::Hub,
    ingest::{
        driver::{Channels, Engine},
        reader::{self, ARRIVAL_DEPTH, READ_DEPTH},
    },
    mqtt,
    publisher::{OUTBOX_DEPTH, Publisher},
    secrets::{self, LinkSecret, SealingKey, SecretError},
    service::{KnownGateway, Service, Shared},
    store::{self, Closing, Store, StoreError},
};

/// Commands that wait for the engine at most.
const NUDGE_DEPTH: usize = 256;
/// What a slow goodbye to clients of the broker may take of the grace.
const BROKER_GRACE: Duration = Duration::from_secs(5);

/// Why a bridge does not start. Each names the file or address, and the key that changes it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("the data directory {path} (bridge.data_dir) can't be used: {source}")]
    DataDir { path: PathBuf, source: io::Error },
    #[error(
        "another bridge (process {pid}) already runs on {path}; end it, or choose another \
         directory with bridge.data_dir"
    )]
    Locked { path: PathBuf, pid: String },
    #[error("{key}: {source}")]
    Secret { key: &'static str, source: SecretError },
    #[error("the store {path} (below bridge.data_dir) can't be opened: {source}")]
    Store { path: PathBuf, source: StoreError },
    #[error("the API can't listen on {address}: {source}; choose another address with api.listen")]
    Api { address: SocketAddr, source: io::Error },
    #[error("the cloud's broker can't start: {0} (mqtt.listen, mqtt.users)")]
    Broker(#[from] broker_config::StartError),
    #[error("mqtt.ca_file {path} can't be used: {reason}")]
    Authorities { path: PathBuf, reason: String },
}

/// How long requests may take to end once the bridge stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A running bridge.
#[derive(Debug)]
pub struct Bridge {
    http_addr: SocketAddr,
    mqtt_addr: String,
    api_key: String,
    platform: (String, String),
    connections: Connections,
    stop: CancellationToken,
    tracker: TaskTracker,
    sockets: TaskTracker,
    broker: Option<Broker>,
    closing: Option<Closing>,
    _lock: File,
}

impl Bridge {
    /// Starts a bridge: when this returns, it listens, and gateways may come.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let lock = lock(&config.bridge.data_dir)?;
        let files = DataFiles(&config.bridge.data_dir);
        let master = SealingKey::load_or_create(&files.master_key())
            .map_err(|source| StartError::Secret { key: "bridge.data_dir", source })?;
        let links = Links::load(&config)?;
        let (keys, api_key) = api_keys(&config)?;
        let cloud = Cloud::start(&config, &links).await?;
        let address = config.api.listen;
        let listener = TcpListener::bind(address)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|source| StartError::Api { address, source })?;
        let path = files.store();
        let failed = |source| StartError::Store { path: path.clone(), source };
        let (store, closing) = Store::open(&path, limits(&config)).map_err(failed)?;

        let (nudges, nudged) = mpsc::channel(NUDGE_DEPTH);
        let service: Shared = Arc::new(Service {
            name: config.bridge.name.clone(),
            root: config.mqtt.root.clone(),
            master,
            gateways: links.known,
            hub: Hub::new(config.api.socket_queue),
            default_expiry: Duration::from_millis(config.commands.default_expiry_ms),
            run_limit: Duration::from_millis(config.commands.run_limit_ms),
            nudges,
            store,
            unreadable: Default::default(),
            clock: Clock::of_machine(),
        });
        let tasks = Tasks::start(&service, &cloud, nudged).await.map_err(failed)?;
        let (http_addr, listener) = listener;
        let api = Api {
            service,
            keys: Arc::new(keys),
            connections: tasks.connections.clone(),
            broker: cloud.broker.as_ref().map(Broker::meter),
            started: Instant::now(),
            stop: tasks.stop.clone(),
            sockets: TaskTracker::new(),
        };
        let sockets = api.sockets.clone();
        let serve = axum::serve(listener, api::router(api))
            .with_graceful_shutdown(tasks.stop.clone().cancelled_owned());
        let stop = tasks.stop.clone();
        tasks.tracker.spawn(async move {
            tokio::select! {
                ended = serve => if let Err(error) = ended {
                    tracing::error!(%error, "the API ended");
                },
                // A client that never ends its request must not hold up the store's close.
                () = async {
                    stop.cancelled().await;
                    tokio::time::sleep(STOP_PATIENCE).await;
                } => tracing::info!("some HTTP connections did not end by themselves; they are cut"),
            }
        });
        tracing::info!(http = %http_addr, mqtt = cloud.address, "the bridge is up");
        Ok(Self {
            http_addr,
            mqtt_addr: cloud.address,
            api_key,
            platform: cloud.platform,
            connections: tasks.connections,
            stop: tasks.stop,
            tracker: tasks.tracker,
            sockets,
            broker: cloud.broker,
            closing: Some(closing),
            _lock: lock,
        })
    }

    /// Where REST, WebSocket and the page are.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where the cloud's broker is, `host:port`.
    pub fn mqtt_addr(&self) -> String {
        self.mqtt_addr.clone()
    }

    /// The first API key.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// User name and password of the first platform on the embedded broker; empty with an external
    /// one, whose users are not the bridge's.
    pub fn platform_login(&self) -> (&str, &str) {
        (&self.platform.0, &self.platform.1)
    }

    /// Waits until the bridge's own connections to the broker are there.
    pub async fn ready(&self) {
        self.connections.wait().await;
    }

    /// Waits until the bridge can't go on by itself: the embedded broker failed for good.
    pub async fn failed(&self) {
        match &self.broker {
            Some(broker) => broker.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Stops: no new work, what was taken is committed and told, then all is closed; within `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        self.stop.cancel();
        self.tracker.close();
        self.sockets.close();
        let tasks = async {
            self.tracker.wait().await;
            self.sockets.wait().await;
        };
        if tokio::time::timeout_at(deadline, tasks).await.is_err() {
            tracing::warn!("some connections did not end within the grace; they are cut");
        }
        if let Some(closing) = self.closing.take()
            && let Err(error) = tokio::task::spawn_blocking(move || closing.close()).await
        {
            tracing::error!(%error, "the store's end failed");
        }
        if let Some(broker) = self.broker.take()
            && timeout(BROKER_GRACE, broker.shutdown()).await.is_err()
        {
            tracing::warn!("the broker's clients did not take their goodbye");
        }
        tracing::info!("the bridge has stopped");
    }
}

impl Drop for Bridge {
    /// Without [`stop`](Self::stop): at once, as after a crash.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The bridge's tasks.
struct Tasks {
    connections: Connections,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    async fn start(
        service: &Shared,
        cloud: &Cloud,
        nudges: mpsc::Receiver<crate::service::Nudge>,
    ) -> Result<Self, StoreError> {
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVAL_DEPTH);
        let (inputs_in, inputs) = mpsc::channel(READ_DEPTH);
        let (outbox_in, outbox) = mpsc::channel(OUTBOX_DEPTH);
        let (heads_in, heads) = watch::channel(0);
        let (link_in, link) = watch::channel(false);
        let (public_in, public) = watch::channel(false);
        let channels = Channels { inputs, nudges, outbox: outbox_in, heads: heads_in };
        let mut engine = Engine::new(service.clone(), channels)?;
        engine.start_offline().await;
        tracker.spawn(engine.run(stop.clone()));
        tracker.spawn(reader::run(arrivals, inputs_in));
        tracker.spawn(mqtt::keep_link(
            cloud.target("link"),
            service.root.clone(),
            arrivals_in,
            link_in,
            stop.clone(),
        ));
        let service = service.clone();
        let target = cloud.target("public");
        let publisher = Publisher { service, target, outbox, heads, up: public_in };
        tracker.spawn(publisher.run(stop.clone()));
        Ok(Self { connections: Connections { link, public }, stop, tracker })
    }
}

/// What is shared with gateways.
pub(crate) struct Links {
    known: std::collections::BTreeMap<topics::GatewayId, KnownGateway>,
    users: Vec<User>,
}

impl Links {
    pub(crate) fn load(config: &Config) -> Result<Self, StartError> {
        let mut links = Self { known: Default::default(), users: Vec::new() };
        for gateway in &config.gateways {
            let secret = LinkSecret::load_or_create(&gateway.secret_file)
                .map_err(|source| StartError::Secret { key: "gateways.secret_file", source })?;
            let role = Role::CloudGateway(gateway.id.clone());
            links.users.push(User::new(gateway.id.as_str(), secret.mqtt_password(), role));
            let known = KnownGateway { name: gateway.name.clone(), link_key: secret.seal_key() };
            links.known.insert(gateway.id.clone(), known);
        }
        Ok(links)
    }
}

/// The cloud's broker: our own, or somebody's.
struct Cloud {
    broker: Option<Broker>,
    address: String,
    target: Target,
    platform: (String, String),
}

impl Cloud {
    async fn start(config: &Config, links: &Links) -> Result<Self, StartError> {
        match config.mqtt.mode {
            MqttMode::Embedded => Self::embedded(config, links).await,
            MqttMode::External => Self::external(config),
        }
    }

    async fn embedded(config: &Config, links: &Links) -> Result<Self, StartError> {
        // Nobody else ever needs it, so it lives as long as the process.
        let own = secrets::new_password()
            .map_err(|source| StartError::Secret { key: "mqtt.mode", source })?;
        let (broker, platform) = broker_config(config, links, BRIDGE_USER, &own)?;
        let broker = Broker::start(broker).await?;
        let address = broker.local_addr();
        let host = match address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            ip => ip.to_string(),
        };
        let target = Target::new(host, address.port(), "").login(BRIDGE_USER, own.into());
        Ok(Self { broker: Some(broker), address: address.to_string(), target, platform })
    }

    fn external(config: &Config) -> Result<Self, StartError> {
        // Checked by `validate`.
        let url = config.mqtt.url.as_deref().and_then(BrokerUrl::parse).ok_or(ConfigError {
            key: "mqtt.url".into(),
            problem: "it is missing".into(),
            allowed: "mqtt://host[:port] or mqtts://host[:port]".into(),
        })?;
        let key = "mqtt.password_file";
        let password = match &config.mqtt.password_file {
            Some(path) => {
                secrets::read_password(path).map_err(|source| StartError::Secret { key, source })?
            }
            None => String::new(),
        };
        let user = config.mqtt.username.clone().unwrap_or_default();
        let address = format!("{}:{}", url.host, url.port);
        let mut target = Target::new(url.host, url.port, "").login(user, Secret::from(password));
        if let (true, Some(path)) = (url.tls, &config.mqtt.ca_file) {
            target.tls = Some(Arc::new(tls(path)?));
        }
        Ok(Self { broker: None, address, target, platform: Default::default() })
    }

    /// The target of one of the bridge's connections. Its client id is the same as long as the
    /// process lives, so that a new connection takes the place of one that the broker still believes
    /// in.
    fn target(&self, purpose: &str) -> Target {
        let client_id = format!("ridgeway-bridge-{purpose}-{}", std::process::id());
        Target { client_id, ..self.target.clone() }
    }
}

/// The cloud's broker as configured, with the bridge's own user; user and password of the first
/// platform, empty where there is none.
pub(crate) fn broker_config(
    config: &Config,
    links: &Links,
    own_user: &str,
    own_password: &str,
) -> Result<(BrokerConfig, (String, String)), StartError> {
    let mut users = links.users.clone();
    let mut platform = (String::new(), String::new());
    for user in config.mqtt_users() {
        let key = "mqtt.users.password_file";
        let password = secrets::load_or_create_text(&user.password_file, secrets::new_password)
            .map_err(|source| StartError::Secret { key, source })?;
        let role = match user.role {
            MqttRole::Platform => Role::Platform,
            MqttRole::Viewer => Role::Viewer,
        };
        if platform.0.is_empty() && role == Role::Platform {
            platform = (user.name.clone(), password.clone());
        }
        users.push(User::new(user.name, password, role));
    }
    users.push(User::new(own_user, own_password, Role::Bridge));
    let section = &config.mqtt;
    let mut broker = BrokerConfig {
        root: section.root.clone(),
        users,
        limits: section.limits.over(Limits::cloud()),
        plain_beyond_loopback: section.allow_plain,
        carries_link: true,
        users_file: Some(config.mqtt_users_file()),
        ..BrokerConfig::new("cloud", section.listen)
    };
    broker.listeners.extend(section.listeners.iter().cloned());
    broker.tls = Some(Tls { directory: config.mqtt_tls_dir(), ..section.tls.clone() })
        .filter(|_| section.listeners.iter().any(|listener| listener.tls));
    Ok((broker, platform))
}

fn tls(path: &Path) -> Result<rustls::ClientConfig, StartError> {
    let failed = |reason: String| StartError::Authorities { path: path.into(), reason };
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let authority = authority.map_err(|error| failed(error.to_string()))?;
        roots.add(authority).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn api_keys(config: &Config) -> Result<(Keys, String), StartError> {
    let main = secrets::load_or_create_text(&config.key_file(), secrets::new_api_key)
        .map_err(|source| StartError::Secret { key: "api.key_file", source })?;
    let mut keys = vec![(MAIN_KEY.to_owned(), secrets::sha256(main.as_bytes()))];
    for key in &config.api.keys {
        let hash = match (&key.key, &key.sha256) {
            (Some(key), _) => secrets::sha256(key.as_bytes()),
            (None, hash) => {
                let mut bytes = [0; 32];
                // Checked by `validate`.
                let hash = hash.as_deref().unwrap_or_default();
                if hex::decode_to_slice(hash, &mut bytes).is_err() {
                    continue;
                }
                bytes
            }
        };
        keys.push((key.name.clone(), hash));
    }
    Ok((Keys::new(keys), main))
}

fn limits(config: &Config) -> store::Limits {
    store::Limits {
        cache_bytes: config.store.cache_mib << 20,
        max_events: config.store.max_events,
        max_commands: config.store.max_commands,
    }
}

/// Held while the bridge runs, so that a second one can't take the same data.
fn lock(data_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: data_dir.into(), source };
    // For its owner only: the store knows who was where, and when.
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let path = DataFiles(data_dir).lock();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            write!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Without it the message only says less.
            let _ = file.read_to_string(&mut pid);
            Err(StartError::Locked { path: data_dir.into(), pid })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
