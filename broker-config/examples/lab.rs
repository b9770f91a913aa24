//! A broker with everything allowed, for interoperability suites and curious clients. Loopback only;
//! never for anything that matters.
//!
//! ```sh
//! cargo run -p broker-config --example lab -- 127.0.0.1:1883
//! ```
//!
//! Clients without a name are the user `lab`, whose password is `lab` too.

use std::{error::Error, net::SocketAddr};

use broker_config::{Broker, BrokerConfig, User};
use topics::Role;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let address: SocketAddr =
        address.parse().map_err(|error| format!("{address:?} is no address and port: {error}"))?;
    let everything = || vec!["#".to_owned()];
    let role = Role::Custom { publish: everything(), subscribe: everything() };
    let mut config = BrokerConfig::new("lab", address);
    config.users.push(User::new("lab", "lab", role));
    config.anonymous = Some("lab".to_owned());
    let broker = Broker::start(config).await?;
    println!("MQTT 3.1.1 and 5 on {}; end it with Ctrl-C", broker.local_addr());
    tokio::signal::ctrl_c().await?;
    println!("{:?}", broker.stats());
    broker.shutdown().await;
    Ok(())
}
