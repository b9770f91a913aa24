//! The MQTT broker Ridgeway embeds: rumqttd behind a front, a guard and a watchdog, with users and
//! grants.
//!
//! rumqttd is fast and small, and dies of single packets. So its clients never reach it directly:
//!
//! ```text
//! client ── public port ── front ─────────── guard ──────────────── rumqttd's router
//!          TCP, TLS, WS    who is it?        may this packet pass?
//!                            watchdog: a new link, a message through, twice a second
//! ```
//!
//! ```no_run
//! use broker_config::{Broker, BrokerConfig, User};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = BrokerConfig::new("edge", "127.0.0.1:1883".parse()?);
//! config.users.push(User::new("node-red", "a password", topics::Role::Platform));
//! let broker = Broker::start(config).await?;
//! println!("MQTT on {}", broker.local_addr());
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | listeners, users, limits, what a start can fail of |
//! | [`users`], [`tls`] | who may connect, and how that is proved; both may change while it runs |
//! | `front`, `guard`, `watchdog` | the three protections, each with its table |
//! | `inner`, `line` | rumqttd itself, and our own connections to it |
//! | `places`, `rate`, `traffic` | the bounds: connections, speed, names |
//! | `retained`, `stats`, `notices`, `reload` | what outlives the inner broker; what is told; what changes |
//! | `session`, `slots`, `shared`, `wire`, `names` | what they share |
//! | [`client`] | options and back-off for the clients of both sides |
//! | [`external`] | the same users and grants as files for Mosquitto, EMQX, NATS, RabbitMQ |
#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod external;
pub mod tls;
pub mod users;

mod broker;
mod descriptors;
mod front;
mod guard;
mod inner;
mod line;
mod names;
mod notices;
mod places;
mod rate;
mod refusal;
mod reload;
mod retained;
mod session;
mod shared;
mod slots;
mod stats;
mod traffic;
mod watchdog;
mod wire;

pub use broker::{Broker, Meter};
pub use config::{
    BrokerConfig, ClientCertificates, Credential, InnerError, Limits, LimitsSection, Listener,
    Secret, Segments, StartError, Tls, Transport, User,
};
pub use rate::{Rate, Rates};
pub use refusal::Refusal;
pub use stats::{Clients, SlowClient, Stats};

/// For the log filter of whoever embeds the broker. rumqttd calls every connection that ends an error,
/// the watchdog's two a second among them; what matters of it is logged here.
pub const LOG_DIRECTIVE: &str = "rumqttd=off";

/// The content type of [`Stats::prometheus`].
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// 32 hex digits from the system's randomness.
fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
