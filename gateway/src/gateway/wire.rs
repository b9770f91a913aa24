//! The parts and how they are put together.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker_config::{Broker, BrokerConfig, Secret, Tls, User, client::Target};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use topics::{Role, UplinkState, event::ServiceState, link::AgentInfo};

use super::{DataLock, Gateway, Stage, StartError, bind_reason, tell_state};
use crate::{
    api::{self, Api, Keys},
    command::{Commands, Source, Submission},
    config::{BrokerUrl, Config, IdleMode, MqttMode, MqttRole, ReadersSection},
    control,
    edge::{self, Edge, GATEWAY_USER},
    files,
    journal::{Journal, JournalConfig},
    keys::{LinkSecret, MasterKey},
    operation::{Operations, OperationsConfig},
    session::{self, Rules},
    tls,
    uplink::{self, Incoming, LinkConfig, Uplink, UplinkConfig},
};

/// Commands of the bridge that wait to be recorded; past it the bridge sends them again.
const COMMANDS_DOWN: usize = 64;
/// Letters of a password that is made.
const PASSWORD_CHARS: usize = 32;

/// Starts the parts in their order.
pub(super) async fn wire(
    config: Config,
    lock: DataLock,
    listener: TcpListener,
    intake: Stage,
    telling: Stage,
) -> Result<Gateway, StartError> {
    let started = Instant::now();
    let api_key = secret_file(&config.api_key_file(), "api.key_file", api::first_key)?;
    let master = Arc::new(MasterKey::load_or_create(&config.data_file("master.key"))?);
    let link = match &config.uplink {
        Some(uplink) => Some(LinkSecret::load(&uplink.secret_file)?),
        None => None,
    };
    // A long journal takes its time after a crash; the broker needs nothing of it to start.
    let (journal, edge_broker) =
        tokio::try_join!(open_journal(&config), EdgeBroker::start(&config))?;
    let operations = Operations::start_readers(
        operations_config(&config.readers),
        journal.clone(),
        master,
        &intake.tracker,
        &intake.token,
    )?;
    let health = api::health_report(journal.clone(), operations.clone(), started);
    let commands = Commands::open(
        journal.clone(),
        operations.clone(),
        link.as_ref().map(|link| Arc::new(link.seal_key())),
        health,
        intake.tracker.clone(),
        intake.token.clone(),
    )
    .await?;
    tell_state(&journal, started, ServiceState::Running).await;
    let uplink = start_uplink(&config, link.as_ref(), &journal, &commands, &operations, &telling)?;
    start_control(&config.gateway.data_dir, &journal, &uplink, started, &telling);
    let edge = Edge::start(
        edge::Parts {
            gateway: config.gateway.id.clone(),
            root: config.mqtt.root.clone(),
            target: edge_broker.target,
            generations: edge_broker.broker.as_ref().map(Broker::generation),
            journal: journal.clone(),
            commands,
            readers: operations.reader_summaries(),
            uplink: uplink.clone(),
            started,
        },
        &telling.tracker,
        telling.token.clone(),
    );
    let readers = operations.clone();
    let api = Api::start(
        listener,
        api::Parts {
            keys: Keys::new(&api_key, &config.api.keys),
            section: config.api,
            operations,
            journal: journal.clone(),
            broker: edge_broker.broker.as_ref().map(Broker::meter),
            started,
            timing: api::Timing::default(),
            tracker: intake.tracker.clone(),
            token: intake.token.clone(),
        },
    )
    .await
    .map_err(StartError::Http)?;
    tracing::info!(gateway = %config.gateway.id, http = %api.address(), "the gateway runs");
    Ok(Gateway {
        id: config.gateway.id,
        http: api.address(),
        mqtt: edge_broker.address,
        api_key,
        platform: edge_broker.platform,
        simulator_dir: config.readers.simulator_dir,
        journal,
        started,
        operations: readers,
        uplink,
        broker: edge_broker.broker,
        api,
        edge,
        intake,
        telling,
        _lock: lock,
    })
}

/// Without the socket the gateway works all the same, and only its tools don't.
fn start_control(
    data_dir: &Path,
    journal: &Journal,
    uplink: &watch::Receiver<UplinkState>,
    started: Instant,
    telling: &Stage,
) {
    let parts = control::Parts { journal: journal.clone(), uplink: uplink.clone(), started };
    let served = control::Server::start(data_dir, parts, &telling.tracker, telling.token.clone());
    if let Err(error) = served {
        let path = data_dir.join(control::SOCKET);
        tracing::warn!(
            path = %path.display(), %error,
            "no control socket: `ridgeway journal` can't ask this gateway while it runs"
        );
    }
}

async fn open_journal(config: &Config) -> Result<Journal, StartError> {
    let section = &config.journal;
    let mut journal =
        JournalConfig::new(config.data_file("journal.redb"), config.gateway.id.clone());
    journal.max_bytes = section.max_bytes;
    journal.max_records = section.max_records;
    journal.retention = Duration::from_secs(section.retention_hours * 3_600);
    // Reading back after a crash takes its time.
    let opened = tokio::task::spawn_blocking(move || Journal::open(journal)).await;
    let (journal, found) = opened.map_err(|error| StartError::Task(io::Error::other(error)))??;
    if let Some(path) = &found.set_aside {
        tracing::error!(
            set_aside = %path.display(), store = %found.store,
            "the journal could not be read: it was set aside and a new one begun"
        );
    }
    Ok(journal)
}

fn operations_config(section: &ReadersSection) -> OperationsConfig {
    let millis = Duration::from_millis;
    let mut config = OperationsConfig::default();
    config.host.library.clone_from(&section.library);
    config.host.simulator_dir.clone_from(&section.simulator_dir);
    config.host.poll_period = millis(section.poll_ms);
    config.host.slow_call = millis(section.slow_call_ms);
    config.host.dead_call = millis(section.dead_call_ms);
    if let Some(host) = &section.host {
        config.host.exe.clone_from(&host.exe);
        config.host.args.clone_from(&host.args);
    }
    config.rules = Rules {
        idle_mode: match section.idle_mode {
            IdleMode::Identify => session::IdleMode::Identify,
            IdleMode::Detect => session::IdleMode::Detect,
            IdleMode::Off => session::IdleMode::Off,
        },
        scan_quality: section.capture_quality,
        enroll_quality: section.enroll_quality,
        verify_quality: section.capture_quality,
        identify_quality: section.capture_quality,
        scan_wait: millis(section.scan_timeout_ms),
        capture_wait: millis(section.capture_timeout_ms),
        enroll_wait: millis(section.enroll_timeout_ms),
        access_validity: millis(section.access_valid_ms),
        ..Rules::default()
    };
    config
}

/// The on-site broker as the gateway's own client sees it.
struct EdgeBroker {
    broker: Option<Broker>,
    target: Target,
    /// `host:port`
    address: String,
    /// User and password of a platform; empty where there is none.
    platform: (String, String),
}

impl EdgeBroker {
    async fn start(config: &Config) -> Result<Self, StartError> {
        match config.mqtt.mode {
            MqttMode::Embedded => Self::embedded(config).await,
            MqttMode::External => Self::external(config),
        }
    }

    async fn embedded(config: &Config) -> Result<Self, StartError> {
        let own = Secret::random().map_err(StartError::Random)?;
        let (broker, platform) = broker_config(config, GATEWAY_USER, own.clone())?;
        let broker = Broker::start(broker).await.map_err(|error| match error {
            broker_config::StartError::Bind { address, source } => {
                StartError::Bind { address, key: "mqtt.listen", reason: bind_reason(&source) }
            }
            other => StartError::Broker(other),
        })?;
        let address = broker.local_addr();
        // A broker on all addresses is reached on this machine's own.
        let host = if address.ip().is_unspecified() {
            if address.is_ipv4() { "127.0.0.1".to_owned() } else { "::1".to_owned() }
        } else {
            address.ip().to_string()
        };
        let target = Target::new(host, address.port(), client_id(config)).login(GATEWAY_USER, own);
        Ok(Self { broker: Some(broker), target, address: address.to_string(), platform })
    }

    fn external(config: &Config) -> Result<Self, StartError> {
        let section = &config.mqtt;
        let url = BrokerUrl::parse("mqtt.url", section.url.as_deref().unwrap_or_default())?;
        let mut target = Target::new(&url.host, url.port, client_id(config));
        if let (Some(user), Some(path)) = (&section.username, &section.password_file) {
            let password = secret_file(path, "mqtt.password_file", existing)?;
            target = target.login(user, password.into());
        }
        if url.tls {
            target.tls = Some(trust(section.ca_file.as_deref(), "mqtt.ca_file")?);
        }
        let address = format!("{}:{}", url.host, url.port);
        Ok(Self { broker: None, target, address, platform: Default::default() })
    }
}

/// The on-site broker as configured, with the gateway's own user; user and password of the first
/// platform, empty where there is none.
pub(super) fn broker_config(
    config: &Config,
    own_user: &str,
    own_password: Secret,
) -> Result<(BrokerConfig, (String, String)), StartError> {
    let section = &config.mqtt;
    let mut broker = BrokerConfig::new("edge", section.listen);
    broker.root = section.root.clone();
    broker.plain_beyond_loopback = section.allow_plain;
    broker.gateway = Some(config.gateway.id.clone());
    broker.users_file = Some(config.mqtt_users_file());
    broker.anonymous = section.anonymous.clone();
    broker.listeners.extend(section.listeners.iter().cloned());
    broker.tls = Some(Tls { directory: config.mqtt_tls_dir(), ..section.tls.clone() })
        .filter(|_| section.listeners.iter().any(|listener| listener.tls));
    broker.limits = section.limits.over(broker.limits);
    let role = Role::EdgeGateway(config.gateway.id.clone());
    broker.users.push(User::new(own_user, own_password, role));
    let mut platform = (String::new(), String::new());
    for user in config.mqtt_users() {
        let password = secret_file(&user.password_file, "mqtt.users.password_file", password_in)?;
        let role = match user.role {
            MqttRole::Platform => Role::Platform,
            MqttRole::Panel => Role::Panel(config.gateway.id.clone()),
            MqttRole::Viewer => Role::Viewer,
        };
        if role == Role::Platform && platform.0.is_empty() {
            platform = (user.name.clone(), password.clone());
        }
        broker.users.push(User::new(user.name, password, role));
    }
    Ok((broker, platform))
}

fn client_id(config: &Config) -> String {
    format!("ridgeway-edge-{}", config.gateway.id)
}

pub(super) fn password_in(path: &Path) -> io::Result<String> {
    files::text_or_made(path, || api::random_text(PASSWORD_CHARS))
}

fn existing(path: &Path) -> io::Result<String> {
    files::text_or_made(path, || Err(io::Error::from(io::ErrorKind::NotFound)))
}

pub(super) fn secret_file(
    path: &Path,
    key: &'static str,
    read: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<String, StartError> {
    read(path).map_err(|source| StartError::File { path: path.to_owned(), key, source })
}

fn trust(
    ca_file: Option<&Path>,
    key: &'static str,
) -> Result<Arc<rustls::ClientConfig>, StartError> {
    tls::client(ca_file).map_err(|source| {
        let path = ca_file.unwrap_or(Path::new("the system's certificates")).to_owned();
        StartError::File { path, key, source }
    })
}

/// The way to the bridge; `disabled` where none is configured.
fn start_uplink(
    config: &Config,
    link: Option<&LinkSecret>,
    journal: &Journal,
    commands: &Commands,
    operations: &Operations,
    telling: &Stage,
) -> Result<watch::Receiver<UplinkState>, StartError> {
    let (Some(section), Some(link)) = (&config.uplink, link) else {
        return Ok(no_uplink(telling));
    };
    let url = section.broker()?;
    let id = &config.gateway.id;
    let user = section.username.as_deref().unwrap_or(id.as_str());
    let password = match &section.password_file {
        Some(path) => secret_file(path, "uplink.password_file", existing)?.into(),
        None => link.mqtt_password(),
    };
    let mut target =
        Target::new(url.host, url.port, format!("ridgeway-gateway-{id}")).login(user, password);
    if url.tls {
        target.tls = Some(trust(section.ca_file.as_deref(), "uplink.ca_file")?);
    }
    let (sender, inbox) = mpsc::channel(COMMANDS_DOWN);
    let handle = Uplink::start(
        UplinkConfig {
            gateway: id.clone(),
            root: config.mqtt.root.clone(),
            target,
            agent: agent(config),
            link: LinkConfig {
                probe_interval: Duration::from_millis(section.probe_ms),
                ..LinkConfig::default()
            },
        },
        uplink::Parts {
            journal: journal.clone(),
            commands: sender,
            readers: operations.reader_summaries(),
        },
        &telling.tracker,
        telling.token.clone(),
    );
    let (offset_ms, token) = (handle.offset_ms, &telling.token);
    telling.tracker.spawn(bridge_time(offset_ms.clone(), commands.clone(), token.clone()));
    let down = commands_down(inbox, offset_ms, commands.clone(), token.clone());
    telling.tracker.spawn(down);
    Ok(handle.state)
}

fn no_uplink(telling: &Stage) -> watch::Receiver<UplinkState> {
    let (sender, state) = watch::channel(UplinkState::Disabled);
    let token = telling.token.clone();
    // Whoever watches takes a sender that is gone for the end of the gateway.
    telling.tracker.spawn(async move {
        token.cancelled().await;
        drop(sender);
    });
    state
}

fn agent(config: &Config) -> AgentInfo {
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let os = line("/etc/os-release").ok().and_then(|text| {
        let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        name.map(|name| name.trim_matches('"').to_owned())
    });
    AgentInfo {
        name: config.name().to_owned(),
        hostname: line("/proc/sys/kernel/hostname").unwrap_or_default(),
        os: os.unwrap_or_else(|| std::env::consts::OS.to_owned()),
        version: crate::VERSION.to_owned(),
        location: config.gateway.location.clone(),
        readers: Vec::new(),
    }
}

/// Tells the commands' clock each time that the bridge's time is learned.
async fn bridge_time(
    mut offset_ms: watch::Receiver<Option<i64>>,
    commands: Commands,
    token: CancellationToken,
) {
    let learn = async {
        while offset_ms.changed().await.is_ok() {
            if let Some(offset_ms) = *offset_ms.borrow_and_update() {
                commands.learn_bridge_time(offset_ms);
            }
        }
    };
    token.run_until_cancelled(learn).await;
}

/// Hands the bridge's commands on; tells when each is durable. One that isn't comes again.
async fn commands_down(
    mut inbox: mpsc::Receiver<Incoming>,
    learned_offset_ms: watch::Receiver<Option<i64>>,
    commands: Commands,
    token: CancellationToken,
) {
    loop {
        let incoming = tokio::select! {
            () = token.cancelled() => return,
            incoming = inbox.recv() => incoming,
        };
        let Some(Incoming { command, offset_ms, durable }) = incoming else { return };
        // It may be judged before the other task has run.
        if let Some(offset_ms) = *learned_offset_ms.borrow() {
            commands.learn_bridge_time(offset_ms);
        }
        let submission = Submission {
            source: Source::Bridge { expires_at: command.expires_at, offset_ms },
            id: command.id.clone(),
            command: command.command,
            params: command.params,
            // What is not base64 doesn't open either, and is refused for that.
            sealed: command.sealed.map(|text| STANDARD.decode(text).unwrap_or_default()),
        };
        match commands.submit(submission).await {
            // The uplink may have lost its session meanwhile: then the command comes again.
            Ok(_) => drop(durable.send(())),
            Err(error) => {
                tracing::warn!(command = %command.id, %error, "a command of the bridge is not recorded");
            }
        }
    }
}
