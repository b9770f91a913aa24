//! What a broker that is not ours has to know to take the place of the embedded one.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::PathBuf};

use broker_config::{BrokerConfig, users};

use crate::{
    Config, StartError,
    config::BRIDGE_USER,
    secrets,
    start::{Links, broker_config},
};

/// The embedded broker's configuration, and how the bridge itself will log in at the other one.
#[derive(Debug)]
pub struct ExternalBroker {
    /// Users, grants, listeners, limits; the gateways and the bridge's own user among them.
    pub config: BrokerConfig,
    /// For `mqtt.username`.
    pub user: String,
    /// For `mqtt.password_file`.
    pub password_file: PathBuf,
}

impl ExternalBroker {
    /// Starts nothing. Passwords and link secrets that are missing are made, as at a start; the
    /// bridge's own password in its data directory unless `mqtt.password_file` says where it is.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        // As a start makes it: for its owner only.
        let data_dir = &config.bridge.data_dir;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
        let user = config.mqtt.username.clone().unwrap_or_else(|| BRIDGE_USER.to_owned());
        let own = config.bridge.data_dir.join("bridge.password");
        let password_file = config.mqtt.password_file.clone().unwrap_or(own);
        let password = secrets::load_or_create_text(&password_file, secrets::new_password)
            .map_err(|source| StartError::Secret { key: "mqtt.password_file", source })?;
        let links = Links::load(config)?;
        let (mut config, _) = broker_config(config, &links, &user, &password)?;
        config.users =
            users::everybody(&config).map_err(|error| StartError::Broker(error.into()))?;
        Ok(Self { config, user, password_file })
    }
}
