//! The configuration file's keys. `config/sample.toml` explains each with its default and unit; a
//! test holds that file and these defaults together.
//!
//! Unknown keys are refused, and [`Config::validate`] refuses values that can't work before anything
//! is opened or bound. Both say which key and what is allowed.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use broker_config::{LimitsSection, Listener, Tls};
use serde::{Deserialize, Serialize};
use topics::{GatewayId, Root};

/// Every key with its default and unit, as a file to start from.
pub const SAMPLE: &str = include_str!("config/sample.toml");

/// The whole configuration of a gateway.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[gateway]`
    pub gateway: GatewaySection,
    /// `[api]`
    pub api: ApiSection,
    /// `[readers]`
    pub readers: ReadersSection,
    /// `[mqtt]`
    pub mqtt: MqttSection,
    /// `[uplink]`; absent: no bridge.
    pub uplink: Option<UplinkSection>,
    /// `[journal]`
    pub journal: JournalSection,
}

/// `[gateway]`: who this is, and where it keeps its data.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// Part of topic names; unique at its bridge.
    pub id: GatewayId,
    /// For people; the id unless given.
    pub name: Option<String>,
    /// For people.
    pub location: Option<String>,
    /// Journal, keys and secrets; made on first start. One gateway a directory.
    pub data_dir: PathBuf,
}

/// `[api]`: the REST and WebSocket service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSection {
    /// Where it listens. `127.0.0.1` is joined by `[::1]` where the machine has it.
    pub listen: SocketAddr,
    /// The first API key; `{data_dir}/api.key` unless given. Made on first start.
    pub key_file: Option<PathBuf>,
    /// Further API keys.
    pub keys: Vec<ApiKeySection>,
    /// Origins of web pages that may call; none: browsers' cross-origin calls are refused.
    pub cors_origins: Vec<String>,
    /// Requests a minute and key.
    pub requests_per_minute: u32,
    /// Polls of `scan/status` a minute and key, counted apart; never fewer than requests.
    pub polls_per_minute: u32,
    /// Captures (each enrolment, verification, … is one) a minute and reader, started over the API.
    pub captures_per_minute: u32,
    /// WebSockets at a time.
    pub max_sockets: usize,
}

/// `[[api.keys]]`: one more API key.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySection {
    /// For people and logs; unique.
    pub name: String,
    /// The key itself; this or `sha256`.
    pub key: Option<String>,
    /// The SHA-256 of the key, hex; this or `key`.
    pub sha256: Option<String>,
    /// What it may do; absent: all that is not an administrator's.
    pub permissions: Option<Vec<Permission>>,
}

impl std::fmt::Debug for ApiKeySection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key itself belongs into no log.
        f.debug_struct("ApiKeySection")
            .field("name", &self.name)
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

/// What an API key may do; the documented names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are the documentation's own.
pub enum Permission {
    #[serde(rename = "fingerprint:enroll")]
    FingerprintEnroll,
    #[serde(rename = "fingerprint:verify")]
    FingerprintVerify,
    #[serde(rename = "fingerprint:identify")]
    FingerprintIdentify,
    #[serde(rename = "fingerprint:delete")]
    FingerprintDelete,
    #[serde(rename = "fingerprint:scan")]
    FingerprintScan,
    #[serde(rename = "device:read")]
    DeviceRead,
    #[serde(rename = "device:manage")]
    DeviceManage,
    #[serde(rename = "database:read")]
    DatabaseRead,
    #[serde(rename = "database:export")]
    DatabaseExport,
    #[serde(rename = "database:import")]
    DatabaseImport,
    #[serde(rename = "*")]
    All,
}

impl Permission {
    /// What a key without a list of its own may do.
    pub const ORDINARY: [Permission; 7] = [
        Permission::FingerprintEnroll,
        Permission::FingerprintVerify,
        Permission::FingerprintIdentify,
        Permission::FingerprintDelete,
        Permission::FingerprintScan,
        Permission::DeviceRead,
        Permission::DeviceManage,
    ];

    /// The documented name.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::FingerprintEnroll => "fingerprint:enroll",
            Permission::FingerprintVerify => "fingerprint:verify",
            Permission::FingerprintIdentify => "fingerprint:identify",
            Permission::FingerprintDelete => "fingerprint:delete",
            Permission::FingerprintScan => "fingerprint:scan",
            Permission::DeviceRead => "device:read",
            Permission::DeviceManage => "device:manage",
            Permission::DatabaseRead => "database:read",
            Permission::DatabaseExport => "database:export",
            Permission::DatabaseImport => "database:import",
            Permission::All => "*",
        }
    }
}

/// What a reader does when nobody asks anything of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleMode {
    /// Every touch is identified and decided on, as at a door.
    #[default]
    Identify,
    /// Every touch is reported.
    Detect,
    /// It is left alone.
    Off,
}

/// `[readers]`: the fingerprint readers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadersSection {
    /// The vendor's library; absent: looked for by the loader.
    pub library: Option<PathBuf>,
    /// Simulated readers instead of real ones: the folder that is their world.
    pub simulator_dir: Option<PathBuf>,
    /// What a reader does when nobody asks anything of it.
    pub idle_mode: IdleMode,
    /// Between two looks for a finger.
    pub poll_ms: u64,
    /// A call of the vendor's library that takes longer is reported as 1005.
    pub slow_call_ms: u64,
    /// One that takes longer has its process ended and started again.
    pub dead_call_ms: u64,
    /// The least quality of an enrolment's placement, 0 to 100.
    pub enroll_quality: u8,
    /// The least quality of any other capture, 0 to 100.
    pub capture_quality: u8,
    /// A scan session waits so long for a finger.
    pub scan_timeout_ms: u64,
    /// A blocking capture, verification or identification ends after it.
    pub capture_timeout_ms: u64,
    /// An enrolment with its three placements ends after it.
    pub enroll_timeout_ms: u64,
    /// So long is a decision (`access:granted`) good for.
    pub access_valid_ms: u64,
    /// The program that hosts the vendor's library; absent: this one. For tests, whose program is
    /// another one.
    #[serde(skip)]
    pub host: Option<ReaderProgram>,
}

/// A program that hosts the vendor's library, and its arguments.
#[derive(Debug, Clone)]
pub struct ReaderProgram {
    /// The program.
    pub exe: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Whose broker it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MqttMode {
    /// The gateway runs one itself.
    #[default]
    Embedded,
    /// Another one, at `url`.
    External,
}

/// `[mqtt]`: the on-site broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttSection {
    /// Whose broker it is.
    pub mode: MqttMode,
    /// Embedded: where it listens, plain TCP. The gateway itself connects here.
    pub listen: SocketAddr,
    /// Embedded: further addresses, with TLS or WebSocket.
    pub listeners: Vec<Listener>,
    /// Embedded: the certificate of those that speak TLS, and what clients show.
    pub tls: Tls,
    /// Embedded: how much of everything.
    pub limits: LimitsSection,
    /// Allows unencrypted MQTT off this machine: passwords and events can be read on the way.
    pub allow_plain: bool,
    /// External: `mqtt://host:port` or `mqtts://host:port`.
    pub url: Option<String>,
    /// External: the gateway's user.
    pub username: Option<String>,
    /// External: a file with its password.
    pub password_file: Option<PathBuf>,
    /// External, `mqtts`: a PEM file with the issuers to trust; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// The first segments of every public topic.
    pub root: Root,
    /// Embedded: who else may connect. Empty: one platform user named `platform`, its password in
    /// `{data_dir}/mqtt-platform.password`.
    pub users: Vec<MqttUserSection>,
    /// Embedded: more users, hashed, that may change while the gateway runs (`ridgeway broker user`);
    /// `{data_dir}/mqtt-users.toml` unless given.
    pub users_file: Option<PathBuf>,
    /// Embedded: the user that a client is which gives neither name nor certificate. Absent: nobody
    /// gets in without.
    pub anonymous: Option<String>,
}

/// `[[mqtt.users]]`: a user of the embedded broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttUserSection {
    /// The name it signs in with.
    pub name: String,
    /// What it may do.
    pub role: MqttRole,
    /// A file with its password; made, with a random one, where it is missing.
    pub password_file: PathBuf,
}

/// What a user of the embedded broker may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MqttRole {
    /// Sees all that is public, sends commands.
    Platform,
    /// Sees this gateway's state and readers.
    Panel,
    /// Sees states and events.
    Viewer,
}

/// `[uplink]`: the way to the bridge.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSection {
    /// `mqtts://host:port` or `mqtt://host:port` of the cloud's broker.
    pub url: String,
    /// The user on the cloud's broker; the gateway's id unless given.
    #[serde(default)]
    pub username: Option<String>,
    /// A file with its password; derived from the secret unless given.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The secret shared with the bridge: 32 bytes, base64url, in a file that only its owner reads.
    pub secret_file: PathBuf,
    /// `mqtts`: a PEM file with the issuers to trust; absent: the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Allows `mqtt://` to another machine.
    #[serde(default)]
    pub allow_plain: bool,
    /// Between two proofs that the way works down to the bridge's store.
    #[serde(default = "UplinkSection::default_probe_ms")]
    pub probe_ms: u64,
}

impl UplinkSection {
    fn default_probe_ms() -> u64 {
        15_000
    }
}

/// `[journal]`: the bounds of what is kept on disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSection {
    /// Bytes of records; the file is about twice as large.
    pub max_bytes: u64,
    /// Records.
    pub max_records: u64,
    /// What the bridge has acknowledged is kept so long.
    pub retention_hours: u64,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self {
            id: GatewayId::new("gateway-1").expect("a valid id"),
            name: None,
            location: None,
            data_dir: "ridgeway-data".into(),
        }
    }
}

impl Default for ApiSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            key_file: None,
            keys: Vec::new(),
            cors_origins: Vec::new(),
            requests_per_minute: 100,
            polls_per_minute: 300,
            captures_per_minute: 10,
            max_sockets: 256,
        }
    }
}

impl Default for ReadersSection {
    fn default() -> Self {
        Self {
            library: None,
            simulator_dir: None,
            idle_mode: IdleMode::default(),
            poll_ms: 50,
            slow_call_ms: 1_500,
            dead_call_ms: 10_000,
            enroll_quality: 60,
            capture_quality: 50,
            scan_timeout_ms: 30_000,
            capture_timeout_ms: 25_000,
            enroll_timeout_ms: 28_000,
            access_valid_ms: 5_000,
            host: None,
        }
    }
}

impl Default for MqttSection {
    fn default() -> Self {
        Self {
            mode: MqttMode::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
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
            anonymous: None,
        }
    }
}

impl Default for JournalSection {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_records: 2_000_000, retention_hours: 72 }
    }
}

mod check;

pub use check::{BrokerUrl, ConfigError};

#[cfg(test)]
mod tests;
