//! The edge: readers, sessions, journal, uplink, local API. See ARCHITECTURE.md for the map.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | the configuration file's keys |
//! | [`journal`] | the redb file: one writer thread, group commit, lanes, cursors, tables |
//! | [`keys`] | master key, link secret, sealing |
//! | [`readers`] | reader hosts (child processes), presence, ids, idle modes |
//! | [`session`] | pure: scan, enrolment, verification, identification of one reader |
//! | [`operation`] | what callers start, await and cancel |
//! | [`templates`] | enrolled templates, sealed; scan marks |
//! | [`command`] | commands: once, never late, with a durable result |
//! | [`edge`] | the on-site broker: publishes what the journal holds, takes commands |
//! | [`uplink`] | the link to the bridge: pure core and its driver |
//! | [`api`] | the documented REST and WebSocket service |
//! | [`control`] | the socket on which tools ask a running gateway about its journal |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = gateway::Config::default();
//! config.readers.simulator_dir = Some("simulator".into());
//! let gateway = gateway::Gateway::start(config).await?;
//! gateway.ready().await;
//! println!("http://{}  X-API-Key: {}", gateway.http_addr(), gateway.api_key());
//! gateway.stop(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod command;
pub mod config;
pub mod control;
pub mod edge;
mod files;
mod gateway;
pub mod journal;
pub mod keys;
pub mod operation;
pub mod readers;
pub mod session;
pub mod templates;
mod tls;
pub mod uplink;

pub use crate::config::Config;
pub use crate::gateway::{
    DataLock, ExternalBroker, Gateway, Holder, LockError, Presence, StartError,
};

/// The version that this is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
