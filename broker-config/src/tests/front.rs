//! Who gets in, and who gets told what.

use tokio::net::TcpListener;

use super::harness::*;
use crate::{Broker, BrokerConfig, Refusal, StartError, User, wire::Version};

#[tokio::test]
async fn a_wrong_password_is_told_by_code() {
    let broker = start().await;
    for version in BOTH {
        let code = if version == Version::V5 { 0x86 } else { 4 };
        let mut wrong = Connect::new(version, "edge", "x");
        wrong.password = "wrong".to_owned();
        let unknown = Connect::new(version, "nobody", "x");
        for connect in [wrong, unknown] {
            let (mut client, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
            assert_eq!(ack.unwrap().body[1], code);
            assert_eq!(client.next().await, None);
        }
    }
    assert_eq!(broker.stats().refused(Refusal::BadCredentials), 4);
    assert_eq!(broker.stats().accepted, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn other_versions_and_no_login_are_told_by_code() {
    let broker = start().await;
    let mut old = Raw::open(broker.local_addr(), Version::V311).await;
    old.send(&packet(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01a")).await;
    assert_eq!(old.next().await.unwrap().body, [0, 1]);
    let mut anonymous = Raw::open(broker.local_addr(), Version::V311).await;
    anonymous.send(&packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a")).await;
    assert_eq!(anonymous.next().await.unwrap().body, [0, 4]);
    let mut web = Raw::open(broker.local_addr(), Version::V311).await;
    web.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(web.rest_after_closing().await, []);
    let mut extended = Connect::new(Version::V5, "edge", "x");
    extended.properties = b"\x15\x00\x05SCRAM".to_vec();
    let (_, ack) = Raw::try_connect(broker.local_addr(), &extended).await;
    assert_eq!(ack.unwrap().body[1], 0x8C);
    broker.shutdown().await;
}

#[tokio::test]
async fn one_address_gets_only_so_many_connections() {
    let mut config = test_config();
    config.limits.max_connections_per_address = 2;
    let broker = Broker::start(config).await.unwrap();
    let mut one = Raw::user(&broker, Version::V5, "platform", "1").await;
    let mut two = Raw::user(&broker, Version::V5, "platform", "2").await;
    let connect = Connect::new(Version::V5, "platform", "3");
    let (_, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(ack.unwrap().body[1], 0x97);
    assert_eq!(broker.stats().refused(Refusal::TooManyFromAddress), 1);
    one.is_quiet().await;
    two.is_quiet().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Broker::start(BrokerConfig::new("x", address)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address}: address in use"));
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_named() {
    let start = async |change: fn(&mut BrokerConfig)| {
        let mut config = test_config();
        change(&mut config);
        Broker::start(config).await.unwrap_err()
    };
    let error = start(|c| c.listeners[0].address = "0.0.0.0:0".parse().unwrap()).await;
    assert!(matches!(error, StartError::PlainBeyondLoopback { .. }));
    let error = start(|c| c.users.push(User::new("a/b", "x", topics::Role::Viewer))).await;
    assert!(matches!(error, StartError::UserName { .. }));
    let error = start(|c| c.users.push(User::new("edge", "x", topics::Role::Viewer))).await;
    assert!(matches!(error, StartError::UserTwice { .. }));
    let error = start(|c| c.users.push(User::new("new", "", topics::Role::Viewer))).await;
    assert!(matches!(error, StartError::EmptyPassword { .. }));
    let error = start(|c| c.limits.segments.bytes = 1).await;
    assert!(matches!(error, StartError::Limit { .. }));
}

#[tokio::test]
async fn shutdown_says_goodbye_and_frees_the_port() {
    let broker = start().await;
    let address = broker.local_addr();
    let mut new = Raw::user(&broker, Version::V5, "platform", "new").await;
    let mut old = Raw::user(&broker, Version::V311, "platform", "old").await;
    broker.shutdown().await;
    assert_eq!(new.rest().await.last().unwrap().body, [0x8B, 0], "server shutting down");
    assert_eq!(old.rest().await, []);
    TcpListener::bind(address).await.expect("the port is free again");
}

#[tokio::test]
async fn a_subscriber_that_takes_nothing_is_cut_and_the_others_go_on() {
    let mut config = test_config();
    config.limits.stall_timeout = std::time::Duration::from_millis(500);
    let broker = Broker::start(config).await.unwrap();
    let mut witnesses = Witnesses::start(&broker).await;
    let mut stuck = Raw::user(&broker, Version::V311, "platform", "stuck").await;
    stuck.subscribe(&[EVENT], 0).await;
    let mut edge = Raw::user(&broker, Version::V311, "edge", "flood").await;
    eventually("it is cut", async || {
        for _ in 0..10 {
            edge.publish(EVENT, 1, false, &[0; 20_000]).await;
        }
        broker.stats().refused(Refusal::Stalled) > 0
    })
    .await;
    witnesses.check().await;
    broker.shutdown().await;
}
