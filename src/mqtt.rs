//! A subscription for the command line's own tools.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use rumqttc::{AsyncClient, ConnectReturnCode, Event, EventLoop, MqttOptions, Packet, QoS};
use topics::{Root, topic::Filter};

use crate::announce::Login;

/// How long a connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Requests waiting for the event loop: our subscriptions, made at once.
const REQUESTS: usize = 16;
/// Larger than any event.
const MAX_PACKET_BYTES: usize = 256 * 1024;

/// A live subscription. Dropping it closes the connection.
pub(crate) struct Subscription {
    _client: AsyncClient,
    events: EventLoop,
}

impl Subscription {
    /// Connects and subscribes.
    pub(crate) async fn open(
        address: &str,
        login: &Login,
        root: &Root,
        filters: &[Filter],
    ) -> anyhow::Result<Self> {
        let (host, port) = split(address)?;
        let mut random = [0u8; 6];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("{error}"))?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = MqttOptions::new(format!("ridgeway-cli-{id}"), host, port);
        options
            .set_credentials(&login.mqtt_user, &login.mqtt_password)
            .set_keep_alive(Duration::from_secs(15))
            .set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        for filter in filters {
            client.subscribe(filter.format(root), QoS::AtLeastOnce).await?;
        }
        let connected = async {
            loop {
                if let Event::Incoming(Packet::ConnAck(ack)) = events.poll().await? {
                    return match ack.code {
                        ConnectReturnCode::Success => anyhow::Ok(()),
                        code => bail!("the broker refuses: {code:?}"),
                    };
                }
            }
        };
        tokio::time::timeout(CONNECT_TIME, connected)
            .await
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("can't connect to the MQTT broker at {address}"))?;
        Ok(Self { _client: client, events })
    }

    /// The next message's payload.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            let event = self.events.poll().await.context("the connection to the broker is lost")?;
            if let Event::Incoming(Packet::Publish(publish)) = event {
                return Ok(publish.payload.to_vec());
            }
        }
    }
}

fn split(address: &str) -> anyhow::Result<(String, u16)> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let (host, port) = address.rsplit_once(':').context("write the address as host:port")?;
    Ok((host.to_owned(), port.parse().context("the port is a number up to 65535")?))
}
