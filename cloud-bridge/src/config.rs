//! The bridge's configuration: TOML sections, every key with its default and unit.
//!
//! Unknown keys are refused where the file is read; [`Config::validate`] refuses what can't be
//! meant, naming the key and what is allowed. Nothing here opens a file.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use broker_config::{LimitsSection, Listener, Tls};
use serde::Deserialize;
use topics::{GatewayId, Root};

/// Every key with its default and unit, as a file to start from.
pub const SAMPLE: &str = include_str!("config/sample.toml");

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[bridge]`
    pub bridge: BridgeSection,
    /// `[api]`
    pub api: ApiSection,
    /// `[mqtt]`
    pub mqtt: MqttSection,
    /// `[[gateways]]`: the gateways that may report here. Default: none.
    pub gateways: Vec<GatewaySection>,
    /// `[store]`
    pub store: StoreSection,
    /// `[commands]`
    pub commands: CommandsSection,
}

/// `[bridge]`: the process itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeSection {
    /// Where everything is kept; one bridge at a time. Default `ridgeway-data/bridge`.
    pub data_dir: PathBuf,
    /// What the page and the logs call this bridge. Default `bridge`.
    pub name: String,
}

/// `[api]`: REST, WebSocket and the page, one port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSection {
    /// Address and port; port 0 takes any free one. Default `127.0.0.1:9090`.
    pub listen: SocketAddr,
    /// Listen beyond loopback without TLS. Default false.
    pub allow_plain: bool,
    /// The first API key; made with mode 0600 on the first start. Default `{data_dir}/api.key`.
    pub key_file: Option<PathBuf>,
    /// More keys. Default: none.
    pub keys: Vec<ApiKeySection>,
    /// Messages that wait for one slow dashboard before it is cut off, 16 to 65536. Default 1024.
    pub socket_queue: usize,
}

/// `[[api.keys]]`: one more API key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySection {
    /// Who holds it. Commands remember it, and only it sees their templates.
    pub name: String,
    /// The key itself; this or `sha256`.
    pub key: Option<String>,
    /// The key's SHA-256 in hex, so that the file holds no secret; this or `key`.
    pub sha256: Option<String>,
}

/// Whose broker it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MqttMode {
    /// In this process.
    Embedded,
    /// Another one, at `mqtt.url`.
    External,
}

/// `[mqtt]`: the cloud's broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSection {
    /// `embedded` or `external`. Default `embedded`.
    pub mode: MqttMode,
    /// Embedded: address and port, plain TCP; port 0 takes any free one. The bridge itself connects
    /// here. Default `127.0.0.1:1884`.
    pub listen: SocketAddr,
    /// Embedded: further addresses, with TLS or WebSocket. Default: none.
    pub listeners: Vec<Listener>,
    /// Embedded: the certificate of those that speak TLS, and what clients show.
    pub tls: Tls,
    /// Embedded: how much of everything.
    pub limits: LimitsSection,
    /// Embedded: listen beyond loopback without TLS; external: speak `mqtt://` beyond loopback.
    /// Default false.
    pub allow_plain: bool,
    /// External: `mqtt://host[:1883]` or `mqtts://host[:8883]`.
    pub url: Option<String>,
    /// External: the bridge's user name there. Default: none.
    pub username: Option<String>,
    /// External: a file with its password. Default: none.
    pub password_file: Option<PathBuf>,
    /// External, `mqtts`: a PEM file with the certificate authorities that the broker's
    /// certificate may come from.
    pub ca_file: Option<PathBuf>,
    /// The first segments of every public topic. Default `ridgeway/v1`.
    pub root: Root,
    /// Embedded: who else may connect. Default: one platform, `platform`, whose password is made on
    /// the first start in `{data_dir}/platform.password`.
    pub users: Vec<MqttUserSection>,
    /// Embedded: more users, hashed, that may change while the bridge runs (`ridgeway broker user`).
    /// Default `{data_dir}/mqtt-users.toml`.
    pub users_file: Option<PathBuf>,
}

/// `[[mqtt.users]]`: a user of the embedded broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttUserSection {
    /// Its user name: 1 to 64 of `A-Z a-z 0-9 - _ . @`, no gateway's id.
    pub name: String,
    /// `platform` (sees all, may send commands) or `viewer` (sees states and events).
    pub role: MqttRole,
    /// A file with its password; made with mode 0600 on the first start.
    pub password_file: PathBuf,
}

/// What a user of the embedded broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MqttRole {
    /// Sees all that is public, may send commands.
    Platform,
    /// Sees states and events.
    Viewer,
}

/// `[[gateways]]`: a gateway that may report here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySection {
    /// Its id.
    pub id: GatewayId,
    /// A file with the link secret that it shares with this bridge: 32 bytes as base64url text, mode
    /// 0600. Made on the first start where it is missing; copy it to the gateway.
    pub secret_file: PathBuf,
    /// What people call it. Default: what the gateway says.
    pub name: Option<String>,
}

/// `[store]`: the embedded store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// Events kept; the oldest go first, never before they were published. At least 1000. Default
    /// 1000000.
    pub max_events: u64,
    /// Commands kept, at least 100; the oldest finished ones go first. Default 10000.
    pub max_commands: u64,
    /// Memory for the store's pages, in MiB, 1 to 4096. Default 32.
    pub cache_mib: usize,
}

/// `[commands]`: how long things may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommandsSection {
    /// How long a command waits for its gateway when the caller doesn't say, in milliseconds, 1000
    /// to 86400000. Default 60000.
    pub default_expiry_ms: u64,
    /// How long a command that reached its gateway may run past its expiry before it counts as
    /// `timeout`, in milliseconds, 1000 to 3600000. Default 120000.
    pub run_limit_ms: u64,
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Default for BridgeSection {
    fn default() -> Self {
        Self { data_dir: "ridgeway-data/bridge".into(), name: "bridge".into() }
    }
}

impl Default for ApiSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(LOCAL, 9090),
            allow_plain: false,
            key_file: None,
            keys: Vec::new(),
            socket_queue: 1024,
        }
    }
}

impl Default for MqttSection {
    fn default() -> Self {
        Self {
            mode: MqttMode::Embedded,
            listen: SocketAddr::new(LOCAL, 1884),
            listeners: Vec::new(),
            tls: Tls::default(),
            limits: LimitsSection::default(),
            allow_plain: false,
            url: None,
            username: None,
            password_file: None,
            ca_file: None,
            root: Root::default(),
            users: Vec::new(),
            users_file: None,
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { max_events: 1_000_000, max_commands: 10_000, cache_mib: 32 }
    }
}

impl Default for CommandsSection {
    fn default() -> Self {
        Self { default_expiry_ms: 60_000, run_limit_ms: 120_000 }
    }
}

/// A key with a value that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}; allowed: {allowed}")]
pub struct ConfigError {
    /// The key, with its section.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub allowed: String,
}

fn wrong<T>(key: &str, problem: impl Into<String>, allowed: &str) -> Result<T, ConfigError> {
    Err(ConfigError { key: key.into(), problem: problem.into(), allowed: allowed.into() })
}

impl Config {
    /// Checks what the types alone can't.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_bridge()?;
        self.validate_api()?;
        self.validate_mqtt()?;
        self.validate_gateways()?;
        self.validate_numbers()
    }

    /// The file of the first API key.
    pub fn key_file(&self) -> PathBuf {
        self.api.key_file.clone().unwrap_or_else(|| self.bridge.data_dir.join("api.key"))
    }

    /// The embedded broker's file of more users.
    pub fn mqtt_users_file(&self) -> PathBuf {
        let usual = || self.bridge.data_dir.join("mqtt-users.toml");
        self.mqtt.users_file.clone().unwrap_or_else(usual)
    }

    /// What holds for the users in it.
    pub fn mqtt_users_rules(&self) -> broker_config::users::Rules {
        let configured = self.mqtt_users().into_iter().map(|user| user.name);
        let gateways = self.gateways.iter().map(|gateway| gateway.id.to_string());
        broker_config::users::Rules {
            gateway: None,
            carries_link: true,
            taken: configured.chain(gateways).chain([BRIDGE_USER.to_owned()]).collect(),
        }
    }

    /// Where the MQTT listeners' own certificate and its authority are kept.
    pub fn mqtt_tls_dir(&self) -> PathBuf {
        self.bridge.data_dir.join("mqtt-tls")
    }

    /// The embedded broker's users, the default one included.
    pub fn mqtt_users(&self) -> Vec<MqttUserSection> {
        if !self.mqtt.users.is_empty() {
            return self.mqtt.users.clone();
        }
        vec![MqttUserSection {
            name: "platform".into(),
            role: MqttRole::Platform,
            password_file: self.bridge.data_dir.join("platform.password"),
        }]
    }

    fn validate_bridge(&self) -> Result<(), ConfigError> {
        if self.bridge.data_dir.as_os_str().is_empty() {
            return wrong("bridge.data_dir", "it is empty", "a directory");
        }
        if self.bridge.name.is_empty() || self.bridge.name.len() > 100 {
            return wrong("bridge.name", "its length is wrong", "1 to 100 characters");
        }
        Ok(())
    }

    fn validate_api(&self) -> Result<(), ConfigError> {
        refuse_plain("api", self.api.listen, self.api.allow_plain)?;
        if !(16..=65_536).contains(&self.api.socket_queue) {
            return wrong("api.socket_queue", self.api.socket_queue.to_string(), "16 to 65536");
        }
        let mut names = std::collections::HashSet::from([MAIN_KEY]);
        for key in &self.api.keys {
            if key.name.is_empty() || key.name.len() > 100 || !names.insert(&key.name) {
                let problem = format!("{:?} is empty, too long or taken", key.name);
                return wrong("api.keys.name", problem, "1 to 100 characters, each name once");
            }
            match (&key.key, &key.sha256) {
                (Some(key), None) if key.len() >= 16 => {}
                (None, Some(hash)) if hash.len() == 64 && hex::decode(hash).is_ok() => {}
                _ => {
                    return wrong(
                        "api.keys",
                        format!("{:?} has no usable secret", key.name),
                        "either key (16 characters or more) or sha256 (64 hex digits)",
                    );
                }
            }
        }
        Ok(())
    }

    fn validate_mqtt(&self) -> Result<(), ConfigError> {
        match self.mqtt.mode {
            MqttMode::Embedded => {
                refuse_plain("mqtt", self.mqtt.listen, self.mqtt.allow_plain)?;
                for listener in &self.mqtt.listeners {
                    let address = listener.address;
                    if !listener.tls && !address.ip().is_loopback() && !self.mqtt.allow_plain {
                        return wrong(
                            "mqtt.listeners.tls",
                            format!("{address} can be reached from outside, without TLS"),
                            "true, or a loopback address, or mqtt.allow_plain = true",
                        );
                    }
                    if let Err(allowed) = listener.check() {
                        return wrong("mqtt.listeners", address.to_string(), allowed);
                    }
                }
                Ok(())
            }
            MqttMode::External => {
                let allowed = "mqtt://host[:port] or mqtts://host[:port]";
                let Some(url) = &self.mqtt.url else {
                    return wrong("mqtt.url", "it is missing, and mqtt.mode is external", allowed);
                };
                match BrokerUrl::parse(url) {
                    None => wrong("mqtt.url", format!("{url:?} is not an address"), allowed),
                    Some(url) if url.tls && self.mqtt.ca_file.is_none() => wrong(
                        "mqtt.ca_file",
                        "it is missing, and mqtt.url is mqtts://",
                        "a PEM file with the authorities to trust",
                    ),
                    Some(url) if !url.tls && !url.is_loopback() && !self.mqtt.allow_plain => wrong(
                        "mqtt.url",
                        format!("mqtt:// to {} would send secrets in the clear", url.host),
                        "mqtts://, or mqtt.allow_plain = true",
                    ),
                    Some(_) => Ok(()),
                }
            }
        }
    }

    fn validate_gateways(&self) -> Result<(), ConfigError> {
        let mut ids = std::collections::HashSet::new();
        for gateway in &self.gateways {
            if !ids.insert(gateway.id.as_str()) {
                let problem = format!("{} stands there twice", gateway.id);
                return wrong("gateways.id", problem, "each gateway once");
            }
        }
        for user in &self.mqtt.users {
            if ids.contains(user.name.as_str()) || user.name == BRIDGE_USER {
                let problem = format!("{:?} is taken by a gateway or the bridge", user.name);
                return wrong("mqtt.users.name", problem, "a name of its own");
            }
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), ConfigError> {
        let (store, commands) = (&self.store, &self.commands);
        for (key, value, low, high) in [
            ("store.max_events", store.max_events, 1_000, u64::MAX),
            ("store.max_commands", store.max_commands, 100, u64::MAX),
            ("store.cache_mib", store.cache_mib as u64, 1, 4_096),
            ("commands.default_expiry_ms", commands.default_expiry_ms, 1_000, 86_400_000),
            ("commands.run_limit_ms", commands.run_limit_ms, 1_000, 3_600_000),
        ] {
            if !(low..=high).contains(&value) {
                let allowed = match high {
                    u64::MAX => format!("at least {low}"),
                    high => format!("{low} to {high}"),
                };
                return wrong(key, value.to_string(), &allowed);
            }
        }
        Ok(())
    }
}

/// The name of the key in `api.key_file`.
pub(crate) const MAIN_KEY: &str = "main";
/// The bridge's own user on the embedded broker.
pub(crate) const BRIDGE_USER: &str = "bridge";

fn refuse_plain(section: &str, listen: SocketAddr, allowed: bool) -> Result<(), ConfigError> {
    if allowed || listen.ip().is_loopback() {
        return Ok(());
    }
    wrong(
        &format!("{section}.listen"),
        format!("{listen} can be reached from outside, without TLS"),
        &format!("a loopback address, or {section}.allow_plain = true"),
    )
}

/// Where an external broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl BrokerUrl {
    pub(crate) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok()?,
            None if tls => 8883,
            None => 1883,
        };
        let valid = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        valid.then(|| Self { tls, host: host.to_owned(), port })
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

/// The files below the data directory.
pub(crate) struct DataFiles<'a>(pub(crate) &'a Path);

impl DataFiles<'_> {
    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store.redb")
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.0.join("master.key")
    }
}

#[cfg(test)]
mod tests;
