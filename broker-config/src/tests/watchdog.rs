//! A dead inner broker is noticed and replaced, and clients find everything as it was but for retained
//! messages.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::harness::*;
use crate::{Broker, Refusal, wire::Version};

async fn wait_for_rebuild(broker: &Broker, generation: u64) {
    let mut now = broker.generation();
    timeout(PATIENCE, now.wait_for(|g| *g >= generation)).await.expect("a rebuild").unwrap();
}

async fn is_served(broker: &Broker) {
    let mut subscriber = Raw::user(broker, Version::V5, "platform", "after").await;
    subscriber.subscribe(&[EVENT], 1).await;
    let mut edge = Raw::user(broker, Version::V311, "edge", "after").await;
    edge.publish(EVENT, 1, false, b"again").await;
    assert_eq!(subscriber.receive().await.1, b"again");
}

#[tokio::test]
async fn a_dead_router_is_replaced() {
    let broker = start().await;
    assert_eq!(*broker.generation().borrow(), 1);
    let mut client = Raw::user(&broker, Version::V311, "platform", "client").await;
    let before = broker.inner();
    broker.kill_router();
    let began = Instant::now();
    wait_for_rebuild(&broker, 2).await;
    println!("noticed and replaced in {:?}", began.elapsed());
    assert_eq!(client.next().await, None, "the client sees its connection end");
    assert!(!std::sync::Arc::ptr_eq(&broker.inner(), &before));
    assert_eq!(broker.stats().rebuilds, 1);
    is_served(&broker).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn clients_that_come_during_the_replacement_wait_for_it() {
    let mut config = test_config();
    config.limits.beat_interval = Duration::from_secs(600);
    let broker = Broker::start(config).await.unwrap();
    broker.kill_router();
    // Nobody need be told "unavailable": whoever finds it dead has the watchdog look at once. Who came
    // just before it died may see the connection end.
    while *broker.generation().borrow() == 1 {
        for version in BOTH {
            let mut eager = Raw::user(&broker, version, "platform", "eager").await;
            eager.send(&PINGREQ).await;
            eager.next().await;
        }
    }
    assert_eq!(broker.stats().refused(Refusal::Unavailable), 0);
    wait_for_rebuild(&broker, 2).await;
    is_served(&broker).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_dies_again_and_again_gives_up() {
    let broker = start().await;
    for generation in 2..=7 {
        broker.kill_router();
        wait_for_rebuild(&broker, generation).await;
    }
    timeout(PATIENCE, broker.failed()).await.expect("it gives up");
    is_served(&broker).await;
    broker.shutdown().await;
}
