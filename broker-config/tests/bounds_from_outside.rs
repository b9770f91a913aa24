//! Bounds on what one client, and one user, can do to others: speed, memory, places.
#![allow(clippy::unwrap_used)] // Also in what the tests share.

#[path = "../examples/proof/mod.rs"]
mod proof;

use std::time::Duration;

use broker_config::{Broker, Rate};
use proof::{
    client::Client,
    packets::{self, Connect, DISCONNECT, Publish, Version},
};
use tokio::time::{Instant, timeout};

const TOPIC: &str = "ridgeway/v1/hq/commands/request";

async fn start() -> (Broker, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(proof::subject::config(directory.path())).await.unwrap();
    (broker, directory)
}

async fn intruder(broker: &Broker, id: &str) -> Client {
    let connect = Connect::new(Version::V311, "intruder", id);
    Client::connect(broker.local_addr(), 2, &connect).await.unwrap()
}

/// Sends as many of the smallest messages as are taken in `time`.
async fn flood(client: &mut Client, time: Duration) {
    let bytes = Publish::new(Version::V311, TOPIC, 0, b"x").bytes().repeat(20);
    let until = Instant::now() + time;
    while let Ok(sent) =
        timeout(until.saturating_duration_since(Instant::now()), client.send(&bytes)).await
    {
        sent.unwrap();
    }
}

/// Also with the smallest messages, of which one read takes thousands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stays_within_its_packet_rate() {
    let (broker, _directory) = start().await;
    let Rate { per_second, burst } = broker_config::Rates::CLIENT.packets;
    let mut client = intruder(&broker, "fast").await;
    let time = Duration::from_secs(3);
    flood(&mut client, time).await;
    let most = burst + per_second * time.as_secs_f64();
    let published = broker.stats().published as f64;
    assert!(published < 1.5 * most, "{published} messages, {most} were allowed");
    broker.shutdown().await;
}

/// A user's rate outlives its connections, and is four times a client's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_again_is_no_way_around_the_packet_rate() {
    let (broker, _directory) = start().await;
    let Rate { per_second, burst } = broker_config::Rates::CLIENT.packets;
    let began = Instant::now();
    // Each within a connection's burst.
    for _ in 0..10 {
        let mut client = intruder(&broker, "again").await;
        client
            .send(&Publish::new(Version::V311, TOPIC, 0, b"x").bytes().repeat(3_900))
            .await
            .unwrap();
        client.send(&packets::PINGREQ).await.unwrap();
        client.expect(13).await.unwrap();
        client.send(&DISCONNECT).await.unwrap();
        client.rest().await.unwrap();
    }
    let most = 4.0 * (burst + per_second * began.elapsed().as_secs_f64());
    let published = broker.stats().published as f64;
    assert!(broker.stats().throttled > 0);
    assert!(published < 1.1 * most, "{published} messages, {most} were allowed");
    broker.shutdown().await;
}

/// Filters that overlap have a log each, and rumqttd's limit counts only topics and payloads: a few MiB of
/// the smallest messages are ten times as many. It gives none of it back, so it is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_users_filters_hold_only_so_much() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = proof::subject::config(directory.path());
    config.limits.max_held_bytes = 16 << 20;
    let broker = Broker::start(config).await.unwrap();
    let mut subscriber = intruder(&broker, "fan").await;
    let levels = ["hq", "commands", "request"];
    for mask in 0..8 {
        let level = |at: usize| if mask & (1 << at) == 0 { levels[at] } else { "+" };
        let filter = format!("ridgeway/v1/{}/{}/{}", level(0), level(1), level(2));
        subscriber.subscribe(&filter, 0).await.unwrap();
        subscriber.subscribe(&format!("{filter}/#"), 0).await.unwrap();
    }
    subscriber.send(&DISCONNECT).await.unwrap();
    subscriber.rest().await.unwrap();
    let mut most = 0;
    let mut rebuilds = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while rebuilds == 0 {
        assert!(Instant::now() < deadline, "nothing was done about it");
        let mut fast = intruder(&broker, "fast").await;
        let bytes = Publish::new(Version::V311, TOPIC, 0, b"x").bytes().repeat(500);
        let _ = fast.send(&bytes).await;
        let _ = fast.send(&packets::PINGREQ).await;
        let _ = fast.expect(13).await;
        most = most.max(broker.stats().held_bytes);
        rebuilds = broker.stats().rebuilds;
    }
    // On top comes what a user may send between two looks of the watchdog, half a second apart: its
    // burst, once for each filter that meets it, some 400 bytes each.
    let burst = 4.0 * broker_config::Rates::CLIENT.packets.burst;
    let most_allowed = (16 << 20) + (burst * 1.2) as u64 * 16 * 400;
    assert!(most < most_allowed, "{} MiB were held", most >> 20);
    assert!(broker.stats().held_bytes < 16 << 20);
    let mut subscriber = intruder(&broker, "fan").await;
    let mut allowed = 0;
    while subscriber.subscribe(&format!("ridgeway/v1/x{allowed}/#"), 0).await.is_ok() {
        allowed += 1;
        assert!(allowed < 10, "it may bring up as many as before");
    }
    broker.shutdown().await;
}

/// A client that waits for its rate isn't read, so its end is noticed late; but soon enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sent_too_fast_and_went_is_gone() {
    let (broker, _directory) = start().await;
    let mut client = intruder(&broker, "fast").await;
    flood(&mut client, Duration::from_secs(1)).await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    let deadline = Instant::now() + Duration::from_secs(5);
    while broker.stats().sockets > 0 {
        assert!(Instant::now() < deadline, "it is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.shutdown().await;
}
