//! What a broker is told when it starts: where to listen, who may come, how much is too much.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::Deserialize;
use subtle::ConstantTimeEq;
use topics::{GatewayId, Role, Root, topic::Filter};

use crate::{
    names,
    rate::{Rate, Rates},
    tls::TlsError,
    users::UsersFileError,
};

/// One embedded broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The public addresses; at least one. The first is [`Broker::local_addr`](crate::Broker::local_addr).
    pub listeners: Vec<Listener>,
    /// For the listeners that speak TLS.
    pub tls: Option<Tls>,
    /// For log lines and metrics: `edge`, `cloud`.
    pub name: String,
    /// Where the public topics lie; the grants depend on it.
    pub root: Root,
    /// Users of the owner's own making.
    pub users: Vec<User>,
    /// More users, in a file that may change while the broker runs (see [`users`](crate::users)).
    pub users_file: Option<PathBuf>,
    /// Whose panels those in the users file are that name no gateway.
    pub gateway: Option<GatewayId>,
    /// The gateways' private link goes through this broker, so no custom role may reach it.
    pub carries_link: bool,
    /// The user that a client is which gives neither name nor certificate.
    pub anonymous: Option<String>,
    /// How much of everything.
    pub limits: Limits,
    /// Listen beyond loopback without TLS. Passwords and events are readable on the network then.
    pub plain_beyond_loopback: bool,
}

/// A public address, and what is spoken there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Address and port; port 0 takes any free one.
    pub address: SocketAddr,
    /// MQTT over TCP, or over WebSocket.
    #[serde(default)]
    pub transport: Transport,
    /// With TLS, as `[mqtt.tls]` says.
    #[serde(default)]
    pub tls: bool,
    /// Proxies before this listener. Not empty: only they may connect, and each connection starts with
    /// a PROXY protocol v2 header that names the client.
    #[serde(default)]
    pub proxies: Vec<IpAddr>,
    /// WebSocket: the origins of web pages that may connect, as `https://panel.example`. Browsers
    /// always name one; a client that names none is no browser and may.
    #[serde(default)]
    pub origins: Vec<String>,
}

impl Listener {
    /// MQTT over plain TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::Tcp,
            tls: false,
            proxies: Vec::new(),
            origins: Vec::new(),
        }
    }
}

impl Listener {
    /// Refuses what can't be meant.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.transport == Transport::Tcp && !self.origins.is_empty() {
            return Err("origins are for WebSocket listeners");
        }
        let is_origin = |origin: &String| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']))
        };
        if !self.origins.iter().all(is_origin) {
            return Err("an origin is https://host or https://host:port, without a path");
        }
        Ok(())
    }
}

/// What carries MQTT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The bytes themselves.
    #[default]
    Tcp,
    /// In binary WebSocket messages, subprotocol `mqtt`.
    WebSocket,
}

/// The server's certificate, and what is asked of clients. Files are read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Where a certificate of our own and its authority lie when no file is given. The owner sets it.
    #[serde(skip)]
    pub directory: PathBuf,
    /// The chain, PEM, the server's first. Absent: one is made, and renewed, by an authority of this
    /// broker's own whose certificate, `ca.pem` in the directory, clients are given.
    pub certificate_file: Option<PathBuf>,
    /// Its key, PEM; together with the chain.
    pub key_file: Option<PathBuf>,
    /// Names and addresses for the certificate that is made, beside the machine's own.
    pub names: Vec<String>,
    /// Whether clients show a certificate. Its common name is the user.
    pub client_certificates: ClientCertificates,
    /// Who issues them, PEM. Absent: this broker's own authority.
    pub client_ca_file: Option<PathBuf>,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// Whoever has one needs no password.
    Optional,
    /// Nobody else gets in.
    Required,
}

impl BrokerConfig {
    /// A broker on `listen`, plain TCP, with the default root and limits, and no users yet.
    pub fn new(name: impl Into<String>, listen: SocketAddr) -> Self {
        Self {
            listeners: vec![Listener::tcp(listen)],
            tls: None,
            name: name.into(),
            root: Root::default(),
            users: Vec::new(),
            users_file: None,
            gateway: None,
            carries_link: false,
            anonymous: None,
            limits: Limits::default(),
            plain_beyond_loopback: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        for listener in &self.listeners {
            self.check_listener(listener)?;
        }
        for (at, user) in self.users.iter().enumerate() {
            if !is_user_name(&user.name) {
                return Err(StartError::UserName { name: user.name.clone() });
            }
            if matches!(&user.credential, Credential::Secret(secret) if secret.is_empty()) {
                return Err(StartError::EmptyPassword { name: user.name.clone() });
            }
            if self.users[..at].iter().any(|earlier| earlier.name == user.name) {
                return Err(StartError::UserTwice { name: user.name.clone() });
            }
        }
        self.limits.check()
    }

    fn check_listener(&self, listener: &Listener) -> Result<(), StartError> {
        let address = listener.address;
        if !listener.tls && !address.ip().is_loopback() && !self.plain_beyond_loopback {
            return Err(StartError::PlainBeyondLoopback { address });
        }
        if listener.tls && self.tls.is_none() {
            return Err(StartError::Listener {
                address,
                what: "it speaks TLS, and no TLS is set up",
            });
        }
        if listener.transport == Transport::Tcp && !listener.origins.is_empty() {
            return Err(StartError::Listener {
                address,
                what: "origins are for WebSocket listeners",
            });
        }
        Ok(())
    }
}

/// A user name becomes part of a client id inside the broker and of a line in other brokers'
/// password files, so it has neither rumqttd's forbidden characters nor separators.
pub(crate) fn is_user_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
}

/// Someone who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// 1 to 64 of `A-Z a-z 0-9 - _ . @`.
    pub name: String,
    /// How it proves who it is. A client certificate with its name does, too.
    pub credential: Credential,
    /// What it may publish and subscribe.
    pub role: Role,
}

/// How a user proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// By a random password that a machine made: compared in constant time.
    Secret(Secret),
    /// By a password whose Argon2id hash this is (`$argon2id$…`).
    Argon2id(String),
    /// Only by a client certificate.
    Certificate,
}

impl User {
    /// A user with a random password that a machine made.
    pub fn new(name: impl Into<String>, password: impl Into<Secret>, role: Role) -> Self {
        Self { name: name.into(), credential: Credential::Secret(password.into()), role }
    }
}

/// A password: never printed, compared in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself. For a client that logs in with it, or to show it once to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A new one: 32 hex digits from the system's randomness, for a process's own clients.
    pub fn random() -> io::Result<Self> {
        Ok(Self(crate::random_hex()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How much is too much. The defaults suit an edge broker; see [`Limits::cloud`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Clients at the same time.
    pub max_connections: usize,
    /// Clients at the same time from one address.
    pub max_connections_per_address: usize,
    /// Clients at the same time of one user.
    pub max_connections_per_user: usize,
    /// Bytes of one message's payload.
    pub max_payload_bytes: usize,
    /// Filters that one client holds at the same time.
    pub max_filters: usize,
    /// Different filters that one user may bring up; rumqttd keeps a log for each until it is rebuilt.
    pub max_filters_per_user: usize,
    /// Different topics that one user may bring up; rumqttd forgets none.
    pub max_topics_per_user: usize,
    /// Bytes that rumqttd's logs may hold, as far as can be told. Beyond it rumqttd is replaced, and the
    /// user whose filters hold most may bring up fewer.
    pub max_held_bytes: u64,
    /// Bytes of a retained message's payload.
    pub max_retained_bytes: usize,
    /// Bytes of all retained messages of one user, with their topics.
    pub max_retained_bytes_per_user: usize,
    /// How fast a client may send that isn't the owner's or a gateway.
    pub client_rates: Rates,
    /// Sessions that outlive their connection (clean session off), over all clients.
    pub max_kept_sessions: usize,
    /// From the accepted connection to the whole CONNECT.
    pub connect_timeout: Duration,
    /// How long a client may refuse to take a byte that is waiting for it.
    pub stall_timeout: Duration,
    /// Between two beats of the watchdog.
    pub beat_interval: Duration,
    /// How long one beat may take.
    pub beat_timeout: Duration,
    /// What is kept in memory for each filter.
    pub segments: Segments,
    /// Other sizes for filters that match: the cloud's `down` filters are thousands.
    pub segments_of: Vec<(String, Segments)>,
}

/// A filter's log in memory: `count` pieces of `bytes` each, oldest dropped first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of one piece, 1 024 or more.
    pub bytes: usize,
    /// Pieces, 1 or more.
    pub count: usize,
}

/// What an operator may set of [`Limits`]; absent keys stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Clients at the same time.
    pub max_connections: Option<usize>,
    /// Clients at the same time from one address.
    pub max_connections_per_address: Option<usize>,
    /// Clients at the same time of one user.
    pub max_connections_per_user: Option<usize>,
    /// Different topics that one user may bring up.
    pub max_topics_per_user: Option<usize>,
    /// Different filters that one user may bring up.
    pub max_filters_per_user: Option<usize>,
    /// What the broker's logs may hold, in MiB.
    pub max_held_mib: Option<u32>,
    /// Packets a second from one client in the long run, twice as many at once.
    pub packets_per_second: Option<u32>,
    /// Bytes a second from one client in the long run, four times as many at once.
    pub bytes_per_second: Option<u32>,
}

impl LimitsSection {
    /// These in place of those.
    #[must_use]
    pub fn over(&self, limits: Limits) -> Limits {
        let rate = |set: Option<u32>, burst: f64, usual| match set {
            None => usual,
            Some(set) => Rate { per_second: set.into(), burst: f64::from(set) * burst },
        };
        Limits {
            max_connections: self.max_connections.unwrap_or(limits.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .unwrap_or(limits.max_connections_per_address),
            max_connections_per_user: self
                .max_connections_per_user
                .unwrap_or(limits.max_connections_per_user),
            max_topics_per_user: self.max_topics_per_user.unwrap_or(limits.max_topics_per_user),
            max_filters_per_user: self.max_filters_per_user.unwrap_or(limits.max_filters_per_user),
            max_held_bytes: self
                .max_held_mib
                .map_or(limits.max_held_bytes, |mib| u64::from(mib) << 20),
            client_rates: Rates {
                packets: rate(self.packets_per_second, 2.0, limits.client_rates.packets),
                bytes: rate(self.bytes_per_second, 4.0, limits.client_rates.bytes),
            },
            ..limits
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1_000,
            max_connections_per_address: 250,
            max_connections_per_user: 250,
            max_payload_bytes: 262_144,
            max_filters: 64,
            max_filters_per_user: 256,
            max_topics_per_user: 1_000,
            max_held_bytes: 256 << 20,
            max_retained_bytes: 65_536,
            max_retained_bytes_per_user: 4 << 20,
            client_rates: Rates::CLIENT,
            max_kept_sessions: 1_000,
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(60),
            beat_interval: Duration::from_millis(500),
            beat_timeout: Duration::from_secs(2),
            segments: Segments { bytes: 512 << 10, count: 8 },
            segments_of: Vec::new(),
        }
    }
}

impl Limits {
    /// For the cloud's broker: more clients, and larger logs except for the filters that exist once a
    /// gateway.
    pub fn cloud() -> Self {
        Self {
            segments: Segments { bytes: 4 << 20, count: 8 },
            max_held_bytes: 1 << 30,
            max_connections: 5_000,
            max_connections_per_address: 2_000,
            max_connections_per_user: 1_000,
            segments_of: vec![(
                Filter::LinkDown(None).format(&Root::default()),
                Segments { bytes: 64 << 10, count: 2 },
            )],
            ..Self::default()
        }
    }

    /// What rumqttd will keep for `filter`.
    pub(crate) fn segments_for(&self, filter: &str) -> Segments {
        self.segments_of
            .iter()
            .rev()
            .find(|(of, _)| names::meets(of, filter))
            .map_or(self.segments, |(_, segments)| *segments)
    }

    fn check(&self) -> Result<(), StartError> {
        let all = std::iter::once(&self.segments).chain(self.segments_of.iter().map(|(_, s)| s));
        for segments in all {
            if segments.bytes < 1_024 || segments.count < 1 {
                return Err(StartError::Limit { what: "a filter's log needs 1 x 1024 bytes" });
            }
        }
        if self.max_connections == 0 || self.max_connections_per_address == 0 {
            return Err(StartError::Limit { what: "at least one connection must be allowed" });
        }
        for rate in [self.client_rates.packets, self.client_rates.bytes] {
            if !(rate.per_second >= 1.0 && rate.burst >= 1.0) {
                return Err(StartError::Limit { what: "a client must be allowed one a second" });
            }
        }
        if !(1_024..=64 << 20).contains(&self.max_payload_bytes) {
            return Err(StartError::Limit { what: "max_payload_bytes is 1 KiB to 64 MiB" });
        }
        Ok(())
    }
}

/// Why a broker didn't start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum StartError {
    #[error("cannot listen on {address}: {}", bind_reason(source))]
    Bind { address: SocketAddr, source: io::Error },
    #[error("{address} is not loopback, and without TLS everybody on the network could read along")]
    PlainBeyondLoopback { address: SocketAddr },
    #[error("listener {address}: {what}")]
    Listener { address: SocketAddr, what: &'static str },
    #[error("user name {name:?} is not valid: 1 to 64 of A-Z a-z 0-9 - _ . @")]
    UserName { name: String },
    #[error("user {name:?} is there twice")]
    UserTwice { name: String },
    #[error("user {name:?} has an empty password")]
    EmptyPassword { name: String },
    #[error("a limit is out of range: {what}")]
    Limit { what: &'static str },
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("users file {0}")]
    Users(#[from] UsersFileError),
    #[error("clients without a login shall be {name:?}, who is no user")]
    Anonymous { name: String },
    #[error("the system gives no random numbers")]
    Random,
    #[error("the inner broker did not start: {0}")]
    Inner(#[from] InnerError),
}

fn bind_reason(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        _ => source.to_string(),
    }
}

/// Why rumqttd behind the front didn't come up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum InnerError {
    #[error("its threads could not be started: {0}")]
    Thread(io::Error),
    #[error("it does not answer: {0}")]
    Silent(String),
}
