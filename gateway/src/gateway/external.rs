//! What a broker that is not ours has to know to take the place of the embedded one.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::PathBuf};

use broker_config::BrokerConfig;

use super::{StartError, wire};
use crate::{config::Config, edge::GATEWAY_USER};

/// The embedded broker's configuration, and how the gateway itself will log in at the other one.
#[derive(Debug)]
pub struct ExternalBroker {
    /// Users, grants, listeners, limits; the gateway's own user among them.
    pub config: BrokerConfig,
    /// For `mqtt.username`.
    pub user: String,
    /// For `mqtt.password_file`.
    pub password_file: PathBuf,
}

impl ExternalBroker {
    /// Starts nothing. Passwords that are missing are made, as at a start; the gateway's own in its data
    /// directory unless `mqtt.password_file` says where it is.
    pub fn new(config: &Config) -> Result<Self, StartError> {
        // As a start makes it: for its owner only.
        let data_dir = &config.gateway.data_dir;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(|source| {
            StartError::File { path: data_dir.clone(), key: "gateway.data_dir", source }
        })?;
        let user = config.mqtt.username.clone().unwrap_or_else(|| GATEWAY_USER.to_owned());
        let own = config.data_file("mqtt-gateway.password");
        let password_file = config.mqtt.password_file.clone().unwrap_or(own);
        let password = wire::secret_file(&password_file, "mqtt.password_file", wire::password_in)?;
        let (mut config, _) = wire::broker_config(config, &user, password.into())?;
        config.users = broker_config::users::everybody(&config)
            .map_err(|error| StartError::Broker(error.into()))?;
        config.users_file = None;
        Ok(Self { config, user, password_file })
    }
}
