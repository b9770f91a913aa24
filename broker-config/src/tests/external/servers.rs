//! Real brokers with the generated files, each on free ports, in a folder that goes with the test.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer},
};
use topics::Role;

use super::super::{clients::Running, harness::*};
use crate::{
    BrokerConfig, Listener, Tls, User,
    external::{External, Kind},
};

/// A broker, and its addresses: of TCP, and of a relay that speaks TLS to it.
pub(super) struct Server {
    pub(super) plain: Option<SocketAddr>,
    pub(super) tls: Option<SocketAddr>,
    /// The TLS listener itself.
    pub(super) tls_behind: Option<SocketAddr>,
    pub(super) authority: CertificateDer<'static>,
    // Dropped in this order.
    processes: Vec<Running>,
    pub(super) dir: tempfile::TempDir,
}

/// A free port, not one of those that the system gives to clients: RabbitMQ takes seconds to come to
/// it, and the other tests open thousands of connections meanwhile.
pub(super) fn free() -> SocketAddr {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).unwrap();
        let port = 10_000 + u16::from_be_bytes(bytes) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Every role once, and a witness that may do everything.
pub(super) fn everybody() -> Vec<User> {
    let mut users = users();
    let all = || vec!["#".to_owned()];
    let role = Role::Custom { publish: all(), subscribe: all() };
    users.push(User::new("witness", "witness-password", role));
    users
}

pub(super) fn config(listeners: &[(SocketAddr, bool)], dir: &Path) -> BrokerConfig {
    let mut config = test_config();
    config.users = everybody();
    config.listeners = listeners
        .iter()
        .map(|(address, tls)| Listener { tls: *tls, ..Listener::tcp(*address) })
        .collect();
    config.tls = Some(Tls {
        certificate_file: Some(dir.join("server-chain.pem")),
        key_file: Some(dir.join("server-key.pem")),
        ..Tls::default()
    });
    config
}

/// A certificate for 127.0.0.1 in `dir`; its authority.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("server-chain.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("server-key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

impl Server {
    /// Starts one that has a plain listener, one with TLS, or both.
    pub(super) async fn start(kind: Kind, plain: bool, tls: bool) -> Self {
        Self::start_with(kind, plain, tls, |_| {}).await
    }

    pub(super) async fn start_with(
        kind: Kind,
        plain: bool,
        tls: bool,
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = certificate(dir.path());
        let plain = plain.then(free);
        let tls_behind = tls.then(free);
        let listeners: Vec<_> = plain
            .map(|address| (address, false))
            .into_iter()
            .chain(tls_behind.map(|address| (address, true)))
            .collect();
        let mut config = config(&listeners, dir.path());
        change(&mut config);
        External::new(kind, &config, dir.path()).unwrap().write(dir.path()).unwrap();
        let processes = match kind {
            Kind::Mosquitto => vec![mosquitto_with(dir.path())],
            Kind::Nats => vec![nats_with(dir.path())],
            Kind::RabbitMq => rabbitmq_with(dir.path()),
            Kind::Emqx => panic!("not packaged by Debian"),
        };
        let mut server = Self { plain, tls: None, tls_behind, authority, processes, dir };
        for (address, _) in listeners {
            until(&format!("{kind:?} listens"), || {
                server.lives(kind);
                TcpStream::connect(address).is_ok()
            })
            .await;
        }
        if let Some(behind) = tls_behind {
            server.tls = Some(server.relay(behind, None).await);
        }
        server
    }

    /// Its last words, if it is dead.
    fn lives(&mut self, kind: Kind) {
        for Running(process) in &mut self.processes {
            if let Some(status) = process.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
                panic!("{kind:?} ended with {status}:\n{log}");
            }
        }
    }

    /// Plain TCP here, TLS there; with a client certificate, chain and key.
    pub(super) async fn relay(
        &self,
        behind: SocketAddr,
        client: Option<(CertificateDer<'static>, Vec<u8>)>,
    ) -> SocketAddr {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = key.try_into().unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let connector = TlsConnector::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    let far = tokio::net::TcpStream::connect(behind).await.unwrap();
                    far.set_nodelay(true).unwrap();
                    let name = "127.0.0.1".try_into().unwrap();
                    if let Ok(mut far) = connector.connect(name, far).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        address
    }

    /// Every address, with the name of what is spoken there.
    pub(super) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let plain = self.plain.map(|address| ("TCP", address));
        plain.into_iter().chain(self.tls.map(|address| ("TLS", address))).collect()
    }
}

fn log(dir: &Path) -> Stdio {
    let path = dir.join("log");
    File::options().create(true).append(true).open(path).unwrap().into()
}

fn run(mut command: Command, dir: &Path) -> Running {
    // What it leaves behind when it crashes goes with the folder.
    command.current_dir(dir).stdin(Stdio::null()).stdout(log(dir)).stderr(log(dir));
    Running(command.spawn().unwrap())
}

fn mosquitto_with(dir: &Path) -> Running {
    let conf = dir.join("mosquitto.conf");
    // As root it would become another user, who may not read the files.
    append(&conf, "user root\n");
    let mut command = mosquitto("mosquitto");
    command.arg("-c").arg(conf);
    run(command, dir)
}

fn append(path: &Path, text: &str) {
    let old = std::fs::read_to_string(path).unwrap();
    let (first, rest) = old.split_once('\n').unwrap();
    std::fs::write(path, format!("{first}\n{text}{rest}")).unwrap();
}

fn nats_with(dir: &Path) -> Running {
    let conf = dir.join("nats-server.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    // Its own clients' port is of no use here, and several tests run at once.
    std::fs::write(&conf, text.replace("port: 4222\n", "port: -1\n")).unwrap();
    let mut command = installed("nats-server", "nats-server");
    command.arg("-c").arg(conf);
    run(command, dir)
}

/// RabbitMQ's own script: Debian's would change to another user first. It wants a port mapper, which
/// would otherwise be left running.
fn rabbitmq_with(dir: &Path) -> Vec<Running> {
    let ports = free().port().to_string();
    let mut mapper = installed("epmd", "erlang-base");
    mapper.args(["-port", &ports, "-address", "127.0.0.1"]);
    let mapper = run(mapper, dir);
    let mut command = Command::new(rabbitmq_script("rabbitmq-server"));
    command
        // The script becomes the server, so that there is one process to end.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env("HOME", dir)
        .env("ERL_EPMD_PORT", &ports)
        .env("RABBITMQ_NODENAME", format!("ridgeway{ports}@localhost"))
        .env("RABBITMQ_DIST_PORT", free().port().to_string())
        .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("logs"))
        .env("RABBITMQ_FEATURE_FLAGS_FILE", dir.join("feature_flags"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("generated"))
        .env("RABBITMQ_PID_FILE", dir.join("pid"))
        .env("RABBITMQ_CONF_ENV_FILE", dir.join("no-such-file"));
    vec![run(command, dir), mapper]
}

fn rabbitmq_script(name: &str) -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/rabbitmq/lib")
        .unwrap_or_else(|_| panic!("{name} is missing: apt-get install rabbitmq-server"));
    let version = installed.map(|entry| entry.unwrap().path()).next().unwrap();
    version.join("sbin").join(name)
}

fn installed(program: &str, package: &str) -> Command {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
        .map(|dir| Path::new(dir).join(program))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is missing: apt-get install {package}"));
    Command::new(found)
}
