//! The cloud side of Ridgeway: takes what gateways report, keeps it, and shows it.
//!
//! ```text
//!  gateways ── link ──▶ ingest ── commit ──▶ store ──▶ REST, the page
//!     ▲                   │ after the commit   │
//!     └──── commands ─────┤                    └─────▶ publisher ──▶ the cloud's broker
//!                         └──▶ hub ──▶ dashboards' WebSockets
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | every key, with its default and unit |
//! | [`ingest`] | cursors and sessions of the link (pure), the engine that commits in rounds |
//! | [`command`] | a command's record and its states (pure) |
//! | [`store`] | the one redb file |
//! | `publisher`, `mqtt` | the two connections to the cloud's broker |
//! | `clock` | the wall clock, the monotonic one, and when the first is set |
//! | `service` | what they share, and how a command comes into being |
//! | `api`, [`hub`], `view` | REST, WebSocket, the page |
//! | [`secrets`] | key files, sealing |
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let bridge = cloud_bridge::Bridge::start(cloud_bridge::Config::default()).await?;
//! bridge.ready().await;
//! println!("http://{} with the key {}", bridge.http_addr(), bridge.api_key());
//! bridge.stop(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod api;
mod clock;
pub mod command;
pub mod config;
mod external;
pub mod hub;
pub mod ingest;
mod mqtt;
mod publisher;
pub mod secrets;
mod service;
mod start;
pub mod store;
mod view;

pub use config::{Config, ConfigError};
pub use external::ExternalBroker;
pub use start::{Bridge, StartError};
