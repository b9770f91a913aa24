//! What ordinary clients do, on both versions.

use std::time::Duration;

use super::harness::*;
use crate::{
    Refusal,
    wire::{Version, kind},
};

#[tokio::test]
async fn a_message_crosses_between_the_versions_and_properties_reach_only_mqtt_5() {
    let broker = start().await;
    for from in BOTH {
        let mut publisher = Raw::user(&broker, from, "edge", "publisher").await;
        let mut old = Raw::user(&broker, Version::V311, "platform", "old").await;
        let mut new = Raw::user(&broker, Version::V5, "platform", "new").await;
        assert_eq!(old.subscribe(&["ridgeway/v1/#"], 1).await, [1]);
        assert_eq!(new.subscribe(&["ridgeway/v1/#"], 1).await, [1]);
        // Content type, and a user property.
        let properties: &[u8] = b"\x03\x00\x10application/json\x26\x00\x01k\x00\x01v";
        let properties = if from == Version::V5 { properties } else { b"" };
        let bytes = publish_with(from, EVENT, 1, 9, false, b"{}", properties);
        publisher.send(&bytes).await;
        publisher.expect(kind::PUBACK).await;
        assert_eq!(old.receive().await, (EVENT.to_owned(), b"{}".to_vec()));
        let got = new.expect(kind::PUBLISH).await.publish(Version::V5);
        assert_eq!((got.0.as_str(), got.2.as_slice()), (EVENT, b"{}".as_slice()));
        let mut kept = got.3;
        kept.sort_unstable();
        let mut sent = properties.to_vec();
        sent.sort_unstable();
        assert_eq!(kept, sent, "MQTT 5 properties arrive");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_published_before_a_goodbye_arrives() {
    let broker = start().await;
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "subscriber").await;
        subscriber.subscribe(&["ridgeway/v1/#"], 0).await;
        for round in 0..20u8 {
            // All in one segment, as mosquitto_pub does it: the router must not lose the batch.
            let mut client = Raw::open(broker.local_addr(), version).await;
            let mut bytes = Connect::new(version, "edge", "hasty").bytes();
            bytes.extend_from_slice(&publish(version, EVENT, 0, false, &[round, 1]));
            bytes.extend_from_slice(&publish(version, EVENT, 0, false, &[round, 2]));
            bytes.extend_from_slice(&DISCONNECT);
            client.send(&bytes).await;
            assert_eq!(subscriber.receive().await.1, [round, 1]);
            assert_eq!(subscriber.receive().await.1, [round, 2]);
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_retained_message_waits_for_subscribers() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        edge.publish(status, 1, true, b"online").await;
        let mut panel = Raw::user(&broker, version, "panel", "panel").await;
        panel.subscribe(&[status], 1).await;
        assert_eq!(panel.receive().await, (status.to_owned(), b"online".to_vec()));
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn one_unsuback_for_each_unsubscribe_whatever_was_subscribed() {
    let broker = start().await;
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "platform", "client").await;
        let filters = ["ridgeway/v1/a/#", "ridgeway/v1/b/#"];
        client.subscribe(&filters, 1).await;
        for (filters, reasons) in [
            (&[filters[0], filters[1], "ridgeway/v1/never"][..], &[0, 0, 0x11][..]),
            (&["ridgeway/v1/never"], &[0x11]),
        ] {
            client.send(&unsubscribe(version, 5, filters)).await;
            let got = client.next().await.unwrap();
            assert_eq!(got.first, 0xB0);
            match version {
                Version::V311 => assert_eq!(got.body, [0, 5]),
                Version::V5 => assert_eq!(got.body, [&[0, 5, 0], reasons].concat()),
            }
        }
        client.is_quiet().await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn aliases_are_resolved_and_unknown_ones_refused() {
    let broker = start().await;
    let mut subscriber = Raw::user(&broker, Version::V5, "platform", "subscriber").await;
    subscriber.subscribe(&["ridgeway/v1/#"], 1).await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let alias = |topic: &str, alias: u8, payload: &[u8]| {
        publish_with(Version::V5, topic, 1, 3, false, payload, &[0x23, 0, alias])
    };
    edge.send(&alias(EVENT, 1, b"first")).await;
    edge.expect(kind::PUBACK).await;
    edge.send(&alias("", 1, b"second")).await;
    edge.expect(kind::PUBACK).await;
    assert_eq!(subscriber.receive().await, (EVENT.to_owned(), b"first".to_vec()));
    assert_eq!(subscriber.receive().await, (EVENT.to_owned(), b"second".to_vec()));
    // An alias is no way around the grants: it names a topic that was checked.
    edge.send(&alias("", 2, b"unknown")).await;
    assert_eq!(edge.rest().await.last().unwrap().body, [0x94, 0]);
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    edge.send(&alias("ridgeway/v1/other/status", 1, b"not mine")).await;
    assert_eq!(edge.rest().await.last().unwrap().body, [0x87, 0]);
    broker.shutdown().await;
}

#[tokio::test]
async fn qos_2_goes_through_and_a_repeat_is_delivered_once() {
    let broker = start().await;
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "subscriber").await;
        assert_eq!(subscriber.subscribe(&["ridgeway/v1/#"], 2).await, [2]);
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        let message = publish_with(version, EVENT, 2, 8, false, b"x", &[]);
        edge.send(&message).await;
        edge.expect(kind::PUBREC).await;
        edge.send(&message).await;
        edge.expect(kind::PUBREC).await;
        edge.send(&ack(0x62, 8)).await;
        edge.expect(kind::PUBCOMP).await;
        edge.send(&ack(0x62, 8)).await;
        edge.expect(kind::PUBCOMP).await;
        let (_, id, payload, _) = subscriber.expect(kind::PUBLISH).await.publish(version);
        assert_eq!(payload, b"x");
        subscriber.send(&ack(0x50, id)).await;
        subscriber.expect(kind::PUBREL).await;
        subscriber.send(&ack(0x70, id)).await;
        subscriber.is_quiet().await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn acknowledgements_in_any_order_and_for_nothing_do_no_harm() {
    let broker = start().await;
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "subscriber").await;
        subscriber.subscribe(&["ridgeway/v1/#"], 1).await;
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        for round in 0..60u16 {
            for id in 1..=5 {
                edge.publish(EVENT, id, false, &round.to_be_bytes()).await;
            }
            let mut ids = Vec::new();
            for _ in 0..5 {
                let (_, id, payload, _) = subscriber.expect(kind::PUBLISH).await.publish(version);
                assert_eq!(payload, round.to_be_bytes());
                ids.push(id);
            }
            for id in ids.into_iter().rev() {
                subscriber.send(&ack(0x40, id)).await;
            }
            for first in [0x40, 0x50, 0x62, 0x70] {
                subscriber.send(&ack(first, 4_321)).await;
            }
            subscriber.expect(kind::PUBCOMP).await;
        }
        subscriber.is_quiet().await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "subscriber").await;
        subscriber.subscribe(&[status], 1).await;
        let connect = Connect::new(version, "edge", "edge").will(status, "offline", false);
        let mut polite = Raw::connect(&broker, &connect).await;
        polite.send(&DISCONNECT).await;
        assert!(polite.rest().await.is_empty());
        subscriber.is_quiet().await;
        drop(Raw::connect(&broker, &connect).await);
        assert_eq!(subscriber.receive().await, (status.to_owned(), b"offline".to_vec()));
        if version == Version::V5 {
            let mut client = Raw::connect(&broker, &connect).await;
            client.send(&[0xE0, 1, 4]).await;
            assert_eq!(subscriber.receive().await.1, b"offline", "disconnect with will message");
        }
    }
    until("the wills are counted", || broker.stats().wills == 3).await;
    broker.shutdown().await;
}

/// rumqttd alone publishes the *new* connection's will when the old one ends, and then never again.
#[tokio::test]
async fn a_client_that_comes_back_ends_its_earlier_connection_and_keeps_its_own_will() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "subscriber").await;
        subscriber.subscribe(&[status], 1).await;
        let connect = |n: u32| {
            Connect::new(version, "edge", "same").will(status, &format!("will {n}"), false)
        };
        let mut current = Raw::connect(&broker, &connect(0)).await;
        for n in 1..30 {
            let next = Raw::connect(&broker, &connect(n)).await;
            let mut earlier = std::mem::replace(&mut current, next);
            let last = earlier.rest().await;
            if version == Version::V5 {
                assert_eq!(last.last().unwrap().body, [0x8E, 0], "session taken over");
            }
            assert_eq!(subscriber.receive().await.1, format!("will {}", n - 1).as_bytes());
        }
        current.is_quiet().await;
        subscriber.is_quiet().await;
        drop(current);
        assert_eq!(subscriber.receive().await.1, b"will 29");
    }
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn users_do_not_share_client_ids() {
    let broker = start().await;
    let mut one = Raw::user(&broker, Version::V311, "platform", "same").await;
    let mut other = Raw::user(&broker, Version::V5, "viewer", "same").await;
    one.is_quiet().await;
    other.is_quiet().await;
    assert_eq!(broker.stats().connections, 2);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_kept_session_goes_on_and_a_clean_one_does_not() {
    let broker = start().await;
    let mut connect = Connect::new(Version::V311, "platform", "keeper");
    connect.clean = false;
    let (mut keeper, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(ack.unwrap().body, [0, 0]);
    keeper.subscribe(&["ridgeway/v1/#"], 1).await;
    drop(keeper);
    until("the session is over", || broker.stats().connections == 0).await;
    let mut edge = Raw::user(&broker, Version::V311, "edge", "edge").await;
    edge.publish(EVENT, 1, false, b"while away").await;
    let (mut keeper, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(ack.unwrap().body, [1, 0], "session present");
    assert_eq!(keeper.receive().await.1, b"while away");
    drop(keeper);
    // Another user with the same client id gets nothing of it.
    let mut stranger = Connect::new(Version::V311, "viewer", "keeper");
    stranger.clean = false;
    let (_stranger, ack) = Raw::try_connect(broker.local_addr(), &stranger).await;
    assert_eq!(ack.unwrap().body, [0, 0]);
    connect.clean = true;
    let (keeper, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(ack.unwrap().body, [0, 0]);
    drop(keeper);
    connect.clean = false;
    let (_keeper, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(ack.unwrap().body, [0, 0], "the clean one ended it");
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_without_an_id_gets_one_and_keep_alive_0_is_allowed() {
    let broker = start().await;
    let mut connect = Connect::new(Version::V5, "platform", "");
    connect.keep_alive = 0;
    let (mut client, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    let body = ack.unwrap().body;
    assert_eq!(body[1], 0);
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(text.contains("auto-"), "assigned client id in {text:?}");
    assert!(body.windows(3).any(|w| w == [0x13, 0xFF, 0xFF]), "server keep alive");
    client.is_quiet().await;
    connect.version = Version::V311;
    let mut client = Raw::connect(&broker, &connect).await;
    client.is_quiet().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn thousands_of_messages_arrive_in_order() {
    let broker = start().await;
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "subscriber").await;
        subscriber.subscribe(&["ridgeway/v1/#"], 1).await;
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        let publish_all = async {
            for block in 0..40u32 {
                let mut bytes = bytes::BytesMut::new();
                for n in 0..50 {
                    let payload = (block * 50 + n).to_be_bytes();
                    bytes.extend_from_slice(&publish(
                        version,
                        EVENT,
                        1 + n as u16,
                        false,
                        &payload,
                    ));
                }
                edge.send(&bytes).await;
                for _ in 0..50 {
                    edge.expect(kind::PUBACK).await;
                }
            }
        };
        let receive_all = async {
            for n in 0..2_000u32 {
                assert_eq!(subscriber.receive().await.1, n.to_be_bytes());
            }
        };
        tokio::join!(publish_all, receive_all);
    }
    broker.shutdown().await;
}

/// rumqttd starts its count anew whenever it delivers, and so never misses a dead subscriber.
#[tokio::test]
async fn a_client_that_says_nothing_is_missed_though_much_is_said_to_it() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    let mut watcher = Raw::user(&broker, Version::V311, "platform", "watcher").await;
    watcher.subscribe(&[status], 1).await;
    let mut publisher = Raw::user(&broker, Version::V311, "bridge", "publisher").await;
    let mut connect = Connect::new(Version::V5, "edge", "dead").will(status, "offline", false);
    connect.keep_alive = 1;
    let mut dead = Raw::connect(&broker, &connect).await;
    dead.subscribe(&["ridgeway/v1/hq/commands/request"], 0).await;
    let chatter = async {
        loop {
            publisher.publish("ridgeway/v1/hq/commands/request", 1, false, b"{}").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = chatter => {}
        will = watcher.receive() => assert_eq!(will.1, b"offline"),
    }
    assert_eq!(broker.stats().refused(Refusal::KeepAlive), 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn only_so_many_qos_2_messages_stay_half_sent() {
    let broker = start().await;
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        for id in 1..=100 {
            edge.send(&publish_with(version, EVENT, 2, id, false, b"x", &[])).await;
            edge.expect(kind::PUBREC).await;
        }
        edge.send(&publish_with(version, EVENT, 2, 101, false, b"x", &[])).await;
        assert!(edge.rest().await.iter().all(|got| got.kind() == kind::DISCONNECT));
    }
    assert_eq!(broker.stats().refused(Refusal::ReceiveMaximum), 2);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_comes_back_quickly_though_its_earlier_connection_takes_nothing() {
    let broker = start().await;
    for version in BOTH {
        let mut stuck = Raw::user(&broker, version, "platform", "same").await;
        stuck.subscribe(&[EVENT], 0).await;
        let mut edge = Raw::user(&broker, version, "edge", "flood").await;
        // More than all the buffers on the way hold.
        for _ in 0..800 {
            edge.publish(EVENT, 1, false, &[0; 40_000]).await;
        }
        let began = std::time::Instant::now();
        Raw::user(&broker, version, "platform", "same").await.is_quiet().await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    broker.shutdown().await;
}

/// The guard waits for the router before it passes an UNSUBSCRIBE on; what comes after it must not be
/// lost when the client is gone by then.
#[tokio::test]
async fn what_is_said_after_an_unsubscribe_counts_although_the_client_leaves_at_once() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut watcher = Raw::user(&broker, version, "platform", "watcher").await;
        watcher.subscribe(&["ridgeway/v1/hq/#"], 1).await;
        for round in 0..20u8 {
            let connect = Connect::new(version, "bridge", "hasty").will(status, "lost", false);
            let mut bytes = connect.bytes();
            bytes.extend_from_slice(&subscribe(version, 1, &["ridgeway/v1/+/status"], 1));
            bytes.extend_from_slice(&publish(version, status, 0, false, &[round, 1]));
            bytes.extend_from_slice(&unsubscribe(version, 2, &["ridgeway/v1/+/status"]));
            bytes.extend_from_slice(&publish(version, status, 0, false, &[round, 2]));
            bytes.extend_from_slice(&DISCONNECT);
            let mut client = Raw::open(broker.local_addr(), version).await;
            client.send(&bytes).await;
            client.rest_after_closing().await;
            assert_eq!(watcher.receive().await.1, [round, 1]);
            assert_eq!(watcher.receive().await.1, [round, 2]);
        }
        watcher.is_quiet().await;
    }
    assert_eq!(broker.stats().wills, 0);
    broker.shutdown().await;
}

/// rumqttd keeps something for every client id for ever.
#[tokio::test]
async fn clients_with_ever_new_ids_leave_nothing_behind() {
    let broker = start().await;
    for n in 0..60 {
        let mut client = Raw::user(&broker, BOTH[n % 2], "platform", &format!("random-{n}")).await;
        client.send(&DISCONNECT).await;
        client.rest().await;
        until("it is gone", || broker.stats().connections == 0).await;
    }
    let slots = broker.shared().slots_used();
    assert!(slots < 10, "{slots} ids were used");
    broker.shutdown().await;
}

/// rumqttd answers nothing while a hundred messages are unacknowledged.
#[tokio::test]
async fn an_unsubscribe_of_a_client_that_owes_acknowledgements_gets_through() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "bridge", "owing").await;
        client.subscribe(&["ridgeway/v1/+/status"], 1).await;
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        for n in 0..150u8 {
            edge.publish(status, 1, false, &[n]).await;
        }
        let mut ids = Vec::new();
        for _ in 0..100 {
            ids.push(client.expect(kind::PUBLISH).await.publish(version).1);
        }
        client.send(&publish(version, status, 0, false, b"own")).await;
        client.send(&unsubscribe(version, 9, &["ridgeway/v1/+/status"])).await;
        client.send(&publish(version, "ridgeway/v1/hq/x", 3, false, b"behind")).await;
        for id in ids {
            client.send(&ack(0x40, id)).await;
        }
        let mut kinds = Vec::new();
        while kinds.last() != Some(&kind::PUBACK) {
            let got = client.next().await.unwrap();
            if got.kind() != kind::PUBLISH {
                kinds.push(got.kind());
            }
        }
        assert_eq!(kinds, [11, kind::PUBACK], "UNSUBACK, then the PUBACK of what was behind");
    }
    broker.shutdown().await;
}

/// In one go with a message of its own, rumqttd alone forgets half of the subscription only.
#[tokio::test]
async fn an_unsubscribe_right_behind_an_own_message_ends_the_delivery() {
    let broker = start().await;
    let status = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "bridge", "client").await;
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        for _ in 0..10 {
            client.subscribe(&["ridgeway/v1/+/status"], 0).await;
            client.is_quiet().await;
            let mut bytes = publish(version, status, 0, false, b"own");
            bytes.extend_from_slice(&unsubscribe(version, 9, &["ridgeway/v1/+/status"]));
            client.send(&bytes).await;
            while client.next().await.unwrap().kind() != 11 {}
            edge.publish(status, 1, false, b"after").await;
            client.send(&PINGREQ).await;
            loop {
                let got = client.next().await.unwrap();
                if got.kind() == kind::PINGRESP {
                    break;
                }
                assert_ne!(got.publish(version).2, b"after");
            }
        }
    }
    broker.shutdown().await;
}

/// It may keep its old connection open, as if nothing had been said.
#[tokio::test]
async fn a_client_that_was_refused_may_come_back_at_once() {
    let broker = start().await;
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let mut refused = Raw::user(&broker, Version::V5, "edge", "hasty").await;
        refused.send(&publish(Version::V5, "not/mine", 0, false, b"x")).await;
        assert_eq!(refused.expect(14).await.body, [0x87, 0]);
        let began = std::time::Instant::now();
        let mut again = Raw::user(&broker, Version::V5, "edge", "hasty").await;
        fastest = fastest.min(began.elapsed());
        again.is_quiet().await;
    }
    assert!(fastest < Duration::from_millis(250), "it took {fastest:?} at best");
    broker.shutdown().await;
}
