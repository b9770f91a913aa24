//! The same users, grants and limits as configuration files for a broker that is not ours.
//!
//! Each broker says things its own way, and some it can't say. What can't be said is left out rather
//! than widened, and told in a note; `docs/external-brokers.md` has the table.
//!
//! | | users | grants | what tests do with it |
//! |---|---|---|---|
//! | `mosquitto` | PBKDF2-SHA512 | ACL file, checked at delivery | started: the whole grant matrix |
//! | `emqx` | PBKDF2-SHA512, bootstrap file | ACL file | compared with a snapshot |
//! | `nats` | bcrypt | permissions on subjects | started |
//! | `rabbitmq` | salted SHA-256 | topic permissions, regular expressions | started |
//!
//! ```
//! use broker_config::{BrokerConfig, User, external::{External, Kind}};
//! # fn example() -> Result<(), broker_config::external::ExternalError> {
//! let mut config = BrokerConfig::new("edge", "127.0.0.1:1883".parse().expect("an address"));
//! config.users.push(User::new("node-red", "a password", topics::Role::Platform));
//! let made = External::new(Kind::Mosquitto, &config, "/etc/mosquitto/ridgeway".as_ref())?;
//! assert!(made.files.iter().any(|file| file.name == "mosquitto.conf"));
//! # Ok(())
//! # }
//! # example().expect("a configuration");
//! ```

mod emqx;
mod hash;
mod mosquitto;
mod nats;
mod plan;
mod rabbitmq;

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use self::plan::Plan;
use crate::{BrokerConfig, StartError};

/// A broker that files can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Eclipse Mosquitto 2.0.
    Mosquitto,
    /// EMQX 5.
    Emqx,
    /// nats-server 2.9 with JetStream; MQTT 3.1.1 only.
    Nats,
    /// RabbitMQ 3.10 with its MQTT plugin; MQTT 3.1.1 only before 3.13.
    RabbitMq,
}

/// What was made for a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct External {
    /// To be written. They hold hashes of passwords: for their owner's eyes only.
    pub files: Vec<File>,
    /// What the broker can't do as the embedded one does, and what is left to be done by hand.
    pub notes: Vec<String>,
    /// How the broker takes the files: a line of shell, or a sentence, each.
    pub next: Vec<String>,
}

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, without a folder.
    pub name: &'static str,
    /// What is in it.
    pub text: String,
}

/// Why no files can be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum ExternalError {
    #[error(transparent)]
    Config(#[from] StartError),
    #[error("no random salt: {0}")]
    Random(#[from] io::Error),
    #[error("listener {address}: another broker needs a fixed port, not 0")]
    Port { address: SocketAddr },
    #[error("{broker} can serve none of the listeners: {}", notes.join("; "))]
    NoListener { broker: &'static str, notes: Vec<String> },
    #[error("{broker} writes topics with dots, so the root {root:?} may have none (mqtt.root)")]
    Root { broker: &'static str, root: String },
    #[error("{} is not text that a configuration file can hold", path.display())]
    Path { path: PathBuf },
    #[error("can't write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl External {
    /// Files for a broker of this kind; `at` is the folder where it will find them.
    pub fn new(kind: Kind, config: &BrokerConfig, at: &Path) -> Result<Self, ExternalError> {
        let plan = Plan::new(kind, config, at)?;
        match kind {
            Kind::Mosquitto => mosquitto::files(plan),
            Kind::Emqx => emqx::files(plan),
            Kind::Nats => nats::files(plan),
            Kind::RabbitMq => rabbitmq::files(plan),
        }
    }

    /// Writes them into `dir` (mode 0700 if it is made), each whole or not at all, mode 0600.
    pub fn write(&self, dir: &Path) -> Result<(), ExternalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ExternalError::Write { path, source }
        };
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folder, 0o700);
        folder.create(dir).map_err(failed(dir))?;
        for file in &self.files {
            let path = dir.join(file.name);
            replace(&path, &file.text).map_err(failed(&path))?;
        }
        Ok(())
    }
}

/// Never through the old file: that one may have been readable by others.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    });
    if written.is_err() {
        // What went wrong is told by the first error.
        let _ = fs::remove_file(&draft);
    }
    written
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Mosquitto, Kind::Emqx, Kind::Nats, Kind::RabbitMq];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Mosquitto => "Mosquitto",
            Kind::Emqx => "EMQX",
            Kind::Nats => "NATS",
            Kind::RabbitMq => "RabbitMQ",
        }
    }
}

#[cfg(test)]
mod tests;
