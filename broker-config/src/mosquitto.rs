//! The same users and grants as a configuration for Mosquitto.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    num::NonZeroU32,
    path::Path,
};

use aws_lc_rs::{digest, pbkdf2};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{BrokerConfig, Credential};

/// Rounds of PBKDF2. Mosquitto checks a password once a connection; these cost it some ten milliseconds.
const ROUNDS: NonZeroU32 = NonZeroU32::new(20_000).expect("not zero");
const SALT_BYTES: usize = 12;

/// The files of a Mosquitto configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    /// `mosquitto.conf`.
    pub conf: String,
    /// `acl`.
    pub acl: String,
    /// `passwords`, hashed.
    pub passwords: String,
}

/// Users, grants and limits equal to the embedded broker's; `dir` is where the files will lie.
pub fn config(config: &BrokerConfig, dir: &Path) -> io::Result<Files> {
    Ok(Files { conf: conf(config, dir), acl: acl(config), passwords: passwords(config)? })
}

impl Files {
    /// Writes them into `dir`, for their owner's eyes only.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        for (name, text) in
            [("mosquitto.conf", &self.conf), ("acl", &self.acl), ("passwords", &self.passwords)]
        {
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(dir.join(name))?.write_all(text.as_bytes())?;
        }
        Ok(())
    }
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
        config.listeners[0].address.port(),
        config.listeners[0].address.ip(),
        limits.max_connections,
        limits.max_payload_bytes,
    )
}

fn acl(config: &BrokerConfig) -> String {
    let mut acl = String::new();
    for user in &config.users {
        let _ = writeln!(acl, "user {}", user.name);
        for filter in user.role.publish_filters(&config.root) {
            let _ = writeln!(acl, "topic write {filter}");
        }
        for filter in user.role.subscribe_filters(&config.root) {
            let _ = writeln!(acl, "topic read {filter}");
        }
        acl.push('\n');
    }
    acl
}

fn passwords(config: &BrokerConfig) -> io::Result<String> {
    let mut file = String::new();
    for user in &config.users {
        let Credential::Secret(password) = &user.credential else { continue };
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let _ = writeln!(file, "{}:{}", user.name, hash(password.expose(), &salt));
    }
    Ok(file)
}

/// A password as `mosquitto_passwd` writes it: PBKDF2 with SHA-512.
fn hash(password: &str, salt: &[u8]) -> String {
    let mut key = [0; digest::SHA512_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ROUNDS, salt, password.as_bytes(), &mut key);
    format!("$7${ROUNDS}${}${}", STANDARD.encode(salt), STANDARD.encode(key))
}
