//! What values are allowed.

use std::path::PathBuf;

use super::{
    ApiSection, Config, JournalSection, MqttMode, MqttRole, MqttSection, MqttUserSection,
    ReadersSection, UplinkSection,
};

/// A value that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {allowed}")]
pub struct ConfigError {
    /// The key with its section: `api.listen`.
    pub key: String,
    /// What it is set to.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

impl ConfigError {
    fn new(key: &str, value: impl std::fmt::Debug, allowed: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: format!("{value:?}"), allowed: allowed.into() }
    }
}

impl Config {
    /// Refuses values that can't work. Opens nothing.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.api.validate()?;
        self.readers.validate()?;
        self.mqtt.validate()?;
        if let Some(uplink) = &self.uplink {
            uplink.validate()?;
        }
        self.journal.validate()
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        self.gateway.name.as_deref().unwrap_or(self.gateway.id.as_str())
    }

    /// A file in the data directory.
    pub(crate) fn data_file(&self, name: &str) -> PathBuf {
        self.gateway.data_dir.join(name)
    }

    /// The embedded broker's file of more users.
    pub fn mqtt_users_file(&self) -> PathBuf {
        self.mqtt.users_file.clone().unwrap_or_else(|| self.data_file("mqtt-users.toml"))
    }

    /// The embedded broker's configured users, the default one included.
    pub fn mqtt_users(&self) -> Vec<MqttUserSection> {
        if !self.mqtt.users.is_empty() {
            return self.mqtt.users.clone();
        }
        vec![MqttUserSection {
            name: "platform".to_owned(),
            role: MqttRole::Platform,
            password_file: self.data_file("mqtt-platform.password"),
        }]
    }

    /// What holds for the users in it.
    pub fn mqtt_users_rules(&self) -> broker_config::users::Rules {
        let configured = self.mqtt_users().into_iter().map(|user| user.name);
        broker_config::users::Rules {
            gateway: Some(self.gateway.id.clone()),
            carries_link: false,
            taken: configured.chain([crate::edge::GATEWAY_USER.to_owned()]).collect(),
        }
    }

    /// Where the MQTT listeners' own certificate and its authority are kept.
    pub fn mqtt_tls_dir(&self) -> PathBuf {
        self.data_file("mqtt-tls")
    }

    /// Where the first API key is kept.
    pub fn api_key_file(&self) -> PathBuf {
        self.api.key_file.clone().unwrap_or_else(|| self.data_file("api.key"))
    }
}

impl ApiSection {
    fn validate(&self) -> Result<(), ConfigError> {
        let mut names = vec![crate::api::FIRST_KEY];
        for (index, key) in self.keys.iter().enumerate() {
            let at = |field: &str| format!("api.keys[{index}].{field}");
            if key.name.is_empty() || key.name.len() > 100 || names.contains(&key.name.as_str()) {
                return Err(ConfigError::new(
                    &at("name"),
                    &key.name,
                    "1 to 100 characters, each name once; \"default\" is the key of api.key_file",
                ));
            }
            names.push(&key.name);
            match (&key.key, &key.sha256) {
                (Some(text), None) if (8..=200).contains(&text.len()) => {}
                (None, Some(hash))
                    if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {}
                // The value is a secret, so the error doesn't repeat it.
                _ => {
                    return Err(ConfigError::new(
                        &at("key"),
                        "…",
                        "either key (8 to 200 characters) or sha256 (64 hex digits), not both",
                    ));
                }
            }
        }
        for origin in &self.cors_origins {
            let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if host.is_none_or(|host| host.is_empty() || host.contains(['/', '*', ' '])) {
                return Err(ConfigError::new(
                    "api.cors_origins",
                    origin,
                    "origins like https://app.example.org, without a path or a wildcard",
                ));
            }
        }
        at_least_one("api.requests_per_minute", self.requests_per_minute.into())?;
        at_least_one("api.polls_per_minute", self.polls_per_minute.into())?;
        at_least_one("api.captures_per_minute", self.captures_per_minute.into())?;
        at_least_one("api.max_sockets", self.max_sockets as u64)
    }
}

impl ReadersSection {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.library.is_some() && self.simulator_dir.is_some() {
            return Err(ConfigError::new(
                "readers.library",
                &self.library,
                "not together with readers.simulator_dir: readers are real or simulated",
            ));
        }
        within("readers.poll_ms", self.poll_ms, 10, 1_000)?;
        within("readers.slow_call_ms", self.slow_call_ms, 100, 60_000)?;
        within("readers.dead_call_ms", self.dead_call_ms, self.slow_call_ms + 1, 600_000)?;
        within("readers.enroll_quality", self.enroll_quality.into(), 0, 100)?;
        within("readers.capture_quality", self.capture_quality.into(), 0, 100)?;
        within("readers.scan_timeout_ms", self.scan_timeout_ms, 1_000, 600_000)?;
        within("readers.capture_timeout_ms", self.capture_timeout_ms, 1_000, 600_000)?;
        within("readers.enroll_timeout_ms", self.enroll_timeout_ms, 1_000, 600_000)?;
        within("readers.access_valid_ms", self.access_valid_ms, 100, 600_000)
    }
}

impl MqttSection {
    fn validate(&self) -> Result<(), ConfigError> {
        match self.mode {
            MqttMode::Embedded => self.validate_embedded(),
            MqttMode::External => self.validate_external(),
        }
    }

    fn validate_embedded(&self) -> Result<(), ConfigError> {
        if let Some(url) = &self.url {
            return Err(ConfigError::new("mqtt.url", url, "only with mqtt.mode = \"external\""));
        }
        if !self.listen.ip().is_loopback() && !self.allow_plain {
            return Err(ConfigError::new(
                "mqtt.listen",
                self.listen,
                "an address of this machine (127.0.0.1); an unencrypted listener that others can \
                 reach needs mqtt.allow_plain = true",
            ));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            let at = |field: &str| format!("mqtt.listeners[{index}].{field}");
            if !listener.tls && !listener.address.ip().is_loopback() && !self.allow_plain {
                return Err(ConfigError::new(
                    &at("tls"),
                    listener.tls,
                    "true where others can reach it; without only with mqtt.allow_plain = true",
                ));
            }
            listener
                .check()
                .map_err(|allowed| ConfigError::new(&at("origins"), &listener.origins, allowed))?;
        }
        if self.anonymous.as_deref() == Some(crate::edge::GATEWAY_USER) {
            return Err(ConfigError::new(
                "mqtt.anonymous",
                &self.anonymous,
                "a user's name, not the gateway's own",
            ));
        }
        let mut names = Vec::new();
        for (index, user) in self.users.iter().enumerate() {
            let key = format!("mqtt.users[{index}].name");
            let fits = (1..=64).contains(&user.name.len())
                && user.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !fits || names.contains(&&user.name) || user.name == crate::edge::GATEWAY_USER {
                return Err(ConfigError::new(
                    &key,
                    &user.name,
                    "1 to 64 of A-Z a-z 0-9 - _ ., each name once; the gateway's own is taken",
                ));
            }
            names.push(&user.name);
        }
        Ok(())
    }

    fn validate_external(&self) -> Result<(), ConfigError> {
        let Some(url) = &self.url else {
            return Err(ConfigError::new(
                "mqtt.url",
                "",
                "needed with mqtt.mode = \"external\": mqtt://host:port or mqtts://host:port",
            ));
        };
        BrokerUrl::parse("mqtt.url", url)?.check_plain("mqtt", self.allow_plain)?;
        if self.username.is_some() != self.password_file.is_some() {
            return Err(ConfigError::new(
                "mqtt.username",
                &self.username,
                "together with mqtt.password_file, or neither",
            ));
        }
        Ok(())
    }
}

impl UplinkSection {
    fn validate(&self) -> Result<(), ConfigError> {
        BrokerUrl::parse("uplink.url", &self.url)?.check_plain("uplink", self.allow_plain)?;
        within("uplink.probe_ms", self.probe_ms, 100, 600_000)
    }

    /// The address of the cloud's broker.
    pub fn broker(&self) -> Result<BrokerUrl, ConfigError> {
        BrokerUrl::parse("uplink.url", &self.url)
    }
}

impl JournalSection {
    fn validate(&self) -> Result<(), ConfigError> {
        within("journal.max_bytes", self.max_bytes, 1 << 20, 1 << 40)?;
        within("journal.max_records", self.max_records, 1_000, 1_000_000_000)?;
        within("journal.retention_hours", self.retention_hours, 0, 24 * 366)
    }
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether it is `mqtts`.
    pub tls: bool,
}

impl BrokerUrl {
    /// Reads `mqtt://host[:1883]` or `mqtts://host[:8883]`; `key` is for the error.
    pub fn parse(key: &str, url: &str) -> Result<Self, ConfigError> {
        let bad = || {
            ConfigError::new(
                key,
                url,
                "mqtt://host:port or mqtts://host:port, without a user, a password or a path",
            )
        };
        let (tls, rest) = match (url.strip_prefix("mqtts://"), url.strip_prefix("mqtt://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(bad()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (rest, if tls { 8883 } else { 1883 }),
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) || port == 0 {
            return Err(bad());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, tls })
    }

    fn check_plain(&self, section: &str, allow_plain: bool) -> Result<(), ConfigError> {
        let loopback = self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if self.tls || loopback || allow_plain {
            return Ok(());
        }
        Err(ConfigError::new(
            &format!("{section}.url"),
            format!("mqtt://{}:{}", self.host, self.port),
            format!(
                "mqtts:// to another machine; without encryption only with \
                 {section}.allow_plain = true"
            ),
        ))
    }
}

fn at_least_one(key: &str, value: u64) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::new(key, value, "1 or more")) } else { Ok(()) }
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(key, value, format!("{least} to {most}")))
    }
}
