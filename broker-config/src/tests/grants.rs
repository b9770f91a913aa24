//! Who may publish and subscribe what, asked over the wire on both versions.

use topics::{Role, Root, Topic};

use super::harness::*;
use crate::{
    Refusal,
    wire::{Version, kind},
};

fn every_topic() -> Vec<String> {
    let (hq, other) = (gateway("hq"), gateway("other"));
    let mut all = vec!["ridgeway-broker/beat".to_owned(), "elsewhere".to_owned()];
    for gateway in [hq, other] {
        let reader = "device-001".parse().unwrap();
        let event = topics::EventType::ScanComplete;
        all.extend(
            [
                Topic::GatewayStatus { gateway: gateway.clone() },
                Topic::ReaderStatus { gateway: gateway.clone(), reader },
                Topic::ReaderEvent {
                    gateway: gateway.clone(),
                    reader: "device-001".parse().unwrap(),
                    event,
                },
                Topic::GatewayEvent {
                    gateway: gateway.clone(),
                    event: topics::EventType::ServiceStatus,
                },
                Topic::CommandRequest { gateway: gateway.clone() },
                Topic::CommandResponse { gateway: gateway.clone() },
                Topic::LinkUp { gateway: gateway.clone() },
                Topic::LinkDown { gateway },
            ]
            .iter()
            .map(|topic| topic.format(&Root::default())),
        );
    }
    all
}

fn roles() -> Vec<(String, Role)> {
    users().into_iter().map(|user| (user.name, user.role)).collect()
}

#[tokio::test]
async fn publish_and_will_of_every_role_on_every_topic() {
    let broker = start().await;
    let root = Root::default();
    let mut allowed_count = 0;
    for version in BOTH {
        for (user, role) in roles() {
            for topic in every_topic() {
                let allowed = role.may_publish(&root, &topic);
                allowed_count += usize::from(allowed);
                let mut client = Raw::user(&broker, version, &user, "grants").await;
                client.send(&publish(version, &topic, 1, false, b"x")).await;
                if allowed {
                    client.expect(kind::PUBACK).await;
                    client.send(&DISCONNECT).await;
                } else {
                    let rest = client.rest().await;
                    assert!(
                        rest.iter().all(|got| got.kind() == kind::DISCONNECT),
                        "{user} publishes {topic}: {rest:?}"
                    );
                }
                let connect = Connect::new(version, &user, "will").will(&topic, "x", false);
                let (mut client, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
                assert_eq!(ack.unwrap().body[1] == 0, allowed, "{user} wills {topic}");
                client.send(&DISCONNECT).await;
            }
        }
    }
    assert!(allowed_count > 30, "the matrix says yes somewhere: {allowed_count}");
    broker.shutdown().await;
}

#[tokio::test]
async fn subscribe_of_every_role_on_every_topic_and_wildcard() {
    let broker = start().await;
    let root = Root::default();
    let mut filters = every_topic();
    filters.extend(
        [
            "#",
            "+",
            "+/#",
            "$SYS/#",
            "ridgeway/v1",
            "ridgeway/v1/#",
            "ridgeway/v1/hq/#",
            "ridgeway/+/#",
            "ridgeway/v1/+/status",
            "ridgeway/v1/+/commands/request",
            "ridgeway-link/#",
            "ridgeway-link/v1/+/+/up",
            "ridgeway-link/v1/+/+/down",
            "ridgeway-link/v1/+/hq/down",
            "ridgeway/v1/+/readers/+/events/#",
            "ridgeway/v1/hq/readers/#",
        ]
        .map(str::to_owned),
    );
    for version in BOTH {
        for (user, role) in roles() {
            // One SUBSCRIBE with all of them: the codes are in the order of the filters.
            let mut config_client = Raw::user(&broker, version, &user, "grants").await;
            let asked: Vec<&str> = filters.iter().map(String::as_str).collect();
            let codes = config_client.subscribe(&asked, 1).await;
            assert_eq!(codes.len(), asked.len());
            for (filter, code) in asked.iter().zip(codes) {
                let allowed = role.may_subscribe(&root, filter);
                assert_eq!(code == 1, allowed, "{user} subscribes {filter}: {code:#x}");
                assert!(code == 1 || code >= 0x80);
            }
            config_client.is_quiet().await;
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn what_was_not_granted_is_not_delivered() {
    let broker = start().await;
    for version in BOTH {
        let mut panel = Raw::user(&broker, version, "panel", "panel").await;
        let codes = panel.subscribe(&["#", "ridgeway/v1/#", "ridgeway/v1/hq/status"], 1).await;
        assert_eq!(codes[2], 1);
        let mut platform = Raw::user(&broker, version, "platform", "platform").await;
        platform.publish("ridgeway/v1/hq/commands/request", 1, false, b"{}").await;
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        edge.publish("ridgeway/v1/hq/events/service/status", 1, false, b"{}").await;
        edge.publish("ridgeway/v1/hq/status", 1, false, b"mine").await;
        assert_eq!(panel.receive().await.1, b"mine");
        panel.is_quiet().await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_retained_command_is_refused_as_a_message_and_as_a_will() {
    let broker = start().await;
    let topic = "ridgeway/v1/hq/commands/request";
    for version in BOTH {
        let mut platform = Raw::user(&broker, version, "platform", "platform").await;
        platform.publish(topic, 1, false, b"{}").await;
        platform.send(&publish(version, topic, 2, true, b"{}")).await;
        let rest = platform.rest().await;
        assert!(rest.iter().all(|got| got.kind() == kind::DISCONNECT), "{rest:?}");
        let connect = Connect::new(version, "platform", "will").will(topic, "{}", true);
        let (_, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
        assert_ne!(ack.unwrap().body[1], 0);
    }
    assert_eq!(broker.stats().refused(Refusal::RetainedCommand), 2);
    broker.shutdown().await;
}

#[tokio::test]
async fn one_client_holds_only_so_many_filters() {
    let mut config = test_config();
    config.limits.max_filters = 3;
    let broker = crate::Broker::start(config).await.unwrap();
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "platform", "many").await;
        let filters = ["ridgeway/v1/a", "ridgeway/v1/b", "ridgeway/v1/c", "ridgeway/v1/d"];
        let codes = client.subscribe(&filters, 0).await;
        assert_eq!(codes[..3], [0, 0, 0]);
        assert_eq!(codes[3], if version == Version::V5 { 0x97 } else { 0x80 });
        client.send(&unsubscribe(version, 1, &filters[..1])).await;
        client.next().await;
        assert_eq!(client.subscribe(&filters[3..], 0).await, [0]);
    }
    broker.shutdown().await;
}
