//! Mosquitto's bridge with the same number of events: from one Mosquitto's queue into another's memory.
//!
//! The first is as Debian ships it, but without the bound of its queue; the second stores nothing, and
//! hands the events to a subscriber with QoS 1. So the far end's acknowledgement means less than that of
//! Ridgeway's bridge: nothing is on a disk there.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::PATIENCE;

/// Debian installs it where only root's path looks.
const MOSQUITTO: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];
const EVENT_BYTES: usize = 256;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    /// From the first event to the last.
    pub(super) seconds: f64,
    /// With the bridge's pause before it connects.
    pub(super) seconds_from_start: f64,
}

/// None where it is not installed.
pub(super) async fn measure(dir: &Path, events: u64) -> anyhow::Result<Option<Figures>> {
    std::fs::create_dir(dir)?;
    let (edge, cloud) = (free_address()?, free_address()?);
    let edge_conf = format!(
        "user root\nlistener {} 127.0.0.1\nallow_anonymous true\npersistence true\n\
         persistence_location {}/\nmax_queued_messages 0\nconnection cloud\naddress {cloud}\n\
         topic # out 1\ncleansession false\nrestart_timeout 1\nnotifications false\n",
        edge.port(),
        dir.display()
    );
    let Some(_edge) = start(&dir.join("edge.conf"), &edge_conf)? else { return Ok(None) };
    listening(edge).await?;
    queue(edge, events).await?;
    let cloud_conf = format!(
        "user root\nlistener {} 127.0.0.1\nallow_anonymous true\npersistence false\n\
         max_queued_messages 0\n",
        cloud.port()
    );
    let began = Instant::now();
    let Some(_cloud) = start(&dir.join("cloud.conf"), &cloud_conf)? else { return Ok(None) };
    listening(cloud).await?;
    let (first, last) = timeout(PATIENCE, receive(cloud, events))
        .await
        .context("Mosquitto's bridge does not drain")??;
    Ok(Some(Figures {
        seconds: (last - first).as_secs_f64(),
        seconds_from_start: (last - began).as_secs_f64(),
    }))
}

/// Publishes, and waits until all are acknowledged.
async fn queue(edge: SocketAddr, events: u64) -> anyhow::Result<()> {
    let (client, mut link) = connect(edge, "publisher");
    let publishing = tokio::spawn(async move {
        for _ in 0..events {
            client.publish("events", QoS::AtLeastOnce, false, vec![b'x'; EVENT_BYTES]).await?;
        }
        // Held until the acknowledgements are in.
        Ok::<_, rumqttc::ClientError>(client)
    });
    let mut acknowledged = 0;
    while acknowledged < events {
        let event = timeout(PATIENCE, link.poll()).await.context("Mosquitto takes no events")??;
        acknowledged += u64::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
    }
    publishing.await??;
    Ok(())
}

/// When the first and the last came.
async fn receive(cloud: SocketAddr, events: u64) -> anyhow::Result<(Instant, Instant)> {
    let (client, mut link) = connect(cloud, "subscriber");
    client.subscribe("events", QoS::AtLeastOnce).await?;
    let mut first = None;
    let mut received = 0;
    loop {
        if let Event::Incoming(Packet::Publish(_)) = link.poll().await? {
            let first = *first.get_or_insert_with(Instant::now);
            received += 1;
            if received == events {
                return Ok((first, Instant::now()));
            }
        }
    }
}

fn connect(to: SocketAddr, name: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, to.ip().to_string(), to.port());
    options.set_inflight(100);
    AsyncClient::new(options, 1_000)
}

fn start(file: &Path, conf: &str) -> anyhow::Result<Option<Child>> {
    std::fs::write(file, conf)?;
    Ok(MOSQUITTO.iter().find_map(|program| {
        let mut command = Command::new(program);
        command.arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        command.kill_on_drop(true).spawn().ok()
    }))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let start = Instant::now();
    while let Err(error) = TcpStream::connect(address).await {
        anyhow::ensure!(start.elapsed() < PATIENCE, "nobody listens on {address}: {error}");
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
