//! The same users and grants as a configuration for Mosquitto.

use std::{fmt::Write as _, path::Path};

use crate::BrokerConfig;

/// The files of a Mosquitto configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `mosquitto.conf`.
    pub conf: String,
    /// `acl`.
    pub acl: String,
    /// `passwords`, in plain text: `mosquitto_passwd -U passwords` hashes them in place, and Mosquitto
    /// takes only the hashed ones.
    pub plain_passwords: String,
}

/// Users, grants and limits equal to the embedded broker's; `dir` is where the files will lie.
pub fn config(config: &BrokerConfig, dir: &Path) -> Files {
    Files { conf: conf(config, dir), acl: acl(config), plain_passwords: passwords(config) }
}

fn conf(config: &BrokerConfig, dir: &Path) -> String {
    let dir = dir.display();
    let limits = &config.limits;
    format!(
        "listener {} {}\n\
         max_connections {}\n\
         allow_anonymous false\n\
         password_file {dir}/passwords\n\
         acl_file {dir}/acl\n\
         message_size_limit {}\n\
         persistence false\n",
        config.listen.port(),
        config.listen.ip(),
        limits.max_connections,
        limits.max_payload_bytes,
    )
}

fn acl(config: &BrokerConfig) -> String {
    let mut acl = String::new();
    for user in &config.users {
        let _ = writeln!(acl, "user {}", user.name);
        for filter in user.role.publish_filters() {
            let _ = writeln!(acl, "topic write {}", filter.format(&config.root));
        }
        for filter in user.role.subscribe_filters() {
            let _ = writeln!(acl, "topic read {}", filter.format(&config.root));
        }
        acl.push('\n');
    }
    acl
}

fn passwords(config: &BrokerConfig) -> String {
    config.users.iter().map(|u| format!("{}:{}\n", u.name, u.password.expose())).collect()
}
