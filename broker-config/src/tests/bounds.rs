//! One client can't fill memory, starve others, or lose messages unseen; and what is retained outlives
//! the inner broker.

use std::time::{Duration, Instant};

use super::harness::*;
use crate::{
    Broker, Rate, Rates, Refusal, Segments,
    wire::{Version, kind},
};

#[tokio::test]
async fn ever_new_topics_end_at_a_users_share() {
    let mut config = test_config();
    config.limits.max_topics_per_user = 100;
    config.limits.client_rates = unlimited();
    let broker = Broker::start(config).await.unwrap();
    let mut witnesses = Witnesses::start(&broker).await;
    for version in BOTH {
        // The second client finds the user's share used up, but for the topics that are known.
        let mut client = Raw::user(&broker, version, "platform", "many").await;
        client.publish("ridgeway/v1/x1/commands/request", 1, false, b"{}").await;
        for at in 0..10_000 {
            let topic = format!("ridgeway/v1/x{at}/commands/request");
            client.send(&publish(version, &topic, 0, false, b"{}")).await;
        }
        let rest = client.rest().await;
        assert!(rest.iter().all(|got| got.kind() == kind::DISCONNECT), "{rest:?}");
    }
    let stats = broker.stats();
    assert_eq!(stats.refused(Refusal::TooManyTopics), 2);
    assert!(stats.topics < 110, "{}", stats.topics);
    witnesses.check().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn ever_new_filters_end_at_a_users_share() {
    let mut config = test_config();
    config.limits.max_filters_per_user = 100;
    config.limits.client_rates = unlimited();
    let broker = Broker::start(config).await.unwrap();
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "viewer", "many").await;
        let mut refused = 0;
        for at in 0..300 {
            let filter = format!("ridgeway/v1/x{at}/status");
            let code = client.subscribe(&[&filter], 1).await[0];
            assert_eq!(code >= 0x80, at >= 100, "{filter}: {code:#x}");
            refused += u32::from(code >= 0x80);
            client.send(&unsubscribe(version, 1, &[&filter])).await;
            client.expect(11).await;
        }
        assert_eq!(refused, 200);
    }
    assert_eq!(broker.stats().filters, 100 + 1, "and the watchdog's");
    let mut other = Raw::user(&broker, Version::V5, "platform", "other").await;
    assert_eq!(other.subscribe(&["ridgeway/v1/#"], 1).await, [1]);
    broker.shutdown().await;
}

fn unlimited() -> Rates {
    let rate = Rate { per_second: 1e9, burst: 1e9 };
    Rates { packets: rate, bytes: rate }
}

#[tokio::test]
async fn who_sends_too_fast_waits_and_nobody_else_does() {
    let mut config = test_config();
    config.limits.client_rates = Rates {
        packets: Rate { per_second: 100.0, burst: 50.0 },
        bytes: Rate { per_second: 1e6, burst: 1e6 },
    };
    let broker = Broker::start(config).await.unwrap();
    let mut witnesses = Witnesses::start(&broker).await;
    let mut fast = Raw::user(&broker, Version::V311, "platform", "fast").await;
    let began = Instant::now();
    // Two writes: the first is read as a whole, the second waits for what it owes.
    fast.send(&PINGREQ.repeat(100)).await;
    for _ in 0..100 {
        fast.expect(kind::PINGRESP).await;
    }
    fast.send(&PINGREQ.repeat(100)).await;
    witnesses.check().await;
    for _ in 0..100 {
        fast.expect(kind::PINGRESP).await;
    }
    fast.is_quiet().await;
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    assert!(broker.stats().throttled > 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn what_a_slow_subscriber_loses_is_counted() {
    const SENT: u64 = 30_000;
    let mut config = test_config();
    config.limits.segments = Segments { bytes: 64 << 10, count: 2 };
    let broker = Broker::start(config).await.unwrap();
    let mut slow = Raw::user(&broker, Version::V5, "platform", "slow").await;
    slow.subscribe(&["ridgeway/v1/hq/readers/+/events/#"], 0).await;
    let mut quick = Raw::user(&broker, Version::V311, "viewer", "quick").await;
    quick.subscribe(&[EVENT], 1).await;
    let mut edge = Raw::user(&broker, Version::V311, "edge", "edge").await;
    let payload = [7; 1_000];
    // The quick one takes each before the next is sent; the slow one reads nothing until the end.
    for id in 1..=SENT {
        edge.publish(EVENT, (id % 60_000) as u16 + 1, false, &payload).await;
        if id % 50 == 0 {
            for _ in 0..50 {
                quick.receive().await;
            }
        }
    }
    // Then a marker on another topic: when it comes, all that was to come has.
    let marker = "ridgeway/v1/hq/readers/device-002/events/scan/complete";
    edge.publish(marker, 1, false, b"end").await;
    let mut got = 0;
    while slow.receive().await.0 != marker {
        got += 1;
    }
    let stats = broker.stats();
    assert!(got < SENT, "the test's subscriber wasn't slow enough");
    let missing = SENT - got;
    // The newest 63 may still come, as far as the count goes.
    assert!(
        (missing - missing.min(63)..=missing).contains(&stats.lost),
        "{} of {missing}",
        stats.lost
    );
    assert_eq!(stats.slow.len(), 1);
    assert_eq!(stats.slow[0].client_id, "slow");
    broker.shutdown().await;
}

#[tokio::test]
async fn retained_messages_outlive_the_inner_broker() {
    let broker = Broker::start(test_config()).await.unwrap();
    let status = "ridgeway/v1/hq/status";
    let reader = "ridgeway/v1/hq/readers/device-001/status";
    let will = Connect::new(Version::V5, "edge", "with-will").will(reader, "by will", true);
    let dies = Raw::connect(&broker, &will).await;
    let _ = dies.stream.set_zero_linger();
    drop(dies);
    until("its will is published", || broker.stats().wills == 1).await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    edge.publish(status, 1, true, b"old").await;
    edge.publish(status, 2, true, b"online").await;
    edge.publish("ridgeway/v1/hq/events/x/y", 3, true, b"soon gone").await;
    edge.publish("ridgeway/v1/hq/events/x/y", 4, true, b"").await;
    assert_eq!(broker.stats().retained, 2);
    broker.kill_router();
    assert_eq!(edge.next().await, None);
    for version in BOTH {
        // Whoever gets in finds them: a new inner broker has them before its first client.
        let mut client = Raw::user(&broker, version, "platform", "after").await;
        client.subscribe(&["ridgeway/v1/#"], 1).await;
        let mut got = [client.receive().await, client.receive().await];
        got.sort();
        assert_eq!(got[0], (reader.to_owned(), b"by will".to_vec()));
        assert_eq!(got[1], (status.to_owned(), b"online".to_vec()));
        client.is_quiet().await;
    }
    assert_eq!(broker.stats().rebuilds, 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_large_retained_message_is_refused() {
    let mut config = test_config();
    config.limits.max_retained_bytes = 100;
    let broker = Broker::start(config).await.unwrap();
    let topic = "ridgeway/v1/hq/status";
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        edge.publish(topic, 1, false, &[b'x'; 101]).await;
        edge.publish(topic, 2, true, &[b'x'; 100]).await;
        edge.send(&publish(version, topic, 3, true, &[b'x'; 101])).await;
        assert!(edge.rest().await.iter().all(|got| got.kind() == kind::DISCONNECT));
        let will = Connect::new(version, "edge", "will").will(topic, &"x".repeat(101), true);
        let (_, ack) = Raw::try_connect(broker.local_addr(), &will).await;
        assert_ne!(ack.unwrap().body[1], 0);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn what_wills_bring_up_is_charged_to_their_user() {
    let mut config = test_config();
    let role = topics::Role::Custom { publish: vec!["x/#".into()], subscribe: vec![] };
    config.users.push(crate::User::new("mortal", "mortal-password", role));
    config.limits.max_topics_per_user = 3;
    config.limits.max_retained_bytes_per_user = 20;
    let broker = Broker::start(config).await.unwrap();
    let wills = [
        ("x/1", "12345", true),
        ("x/2", "12345", true),
        ("x/3", "123456789", false),
        ("x/4", "", false),
        ("x/5", "", false),
    ];
    let (mut published, mut refused) = (0, 0);
    for (topic, payload, taken) in wills {
        let will = Connect::new(Version::V5, "mortal", "mortal").will(topic, payload, true);
        drop(Raw::connect(&broker, &will).await);
        if taken {
            published += 1
        } else {
            refused += 1
        }
        until("its will is published or refused", || {
            let stats = broker.stats();
            (stats.wills, stats.refusals.values().sum::<u64>()) == (published, refused)
        })
        .await;
    }
    let stats = broker.stats();
    assert_eq!(stats.retained, 2);
    assert_eq!(stats.refusals["retained_full"], 1);
    assert_eq!(stats.refusals["too_many_topics"], 2);
    // The links that were to publish them are ended: their places are used again.
    let places = broker.shared().slots_used();
    for _ in 0..20 {
        let will = Connect::new(Version::V5, "mortal", "mortal").will("x/6", "", true);
        drop(Raw::connect(&broker, &will).await);
        refused += 1;
        until("its will is refused", || broker.stats().refusals.values().sum::<u64>() == refused)
            .await;
    }
    until("no more places than before", || broker.shared().slots_used() <= places + 2).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_message_with_very_many_properties_is_refused() {
    let broker = Broker::start(test_config()).await.unwrap();
    for (properties, taken) in [(64, true), (65, false)] {
        let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
        let topic = "ridgeway/v1/hq/status";
        let mut packet = vec![0x30];
        let body = {
            let mut body = (topic.len() as u16).to_be_bytes().to_vec();
            body.extend(topic.as_bytes());
            let len = properties * 5;
            body.extend([(len & 0x7F) as u8 | 0x80, (len >> 7) as u8]);
            (0..properties).for_each(|_| body.extend([0x26, 0, 0, 0, 0]));
            body
        };
        packet.extend([(body.len() & 0x7F) as u8 | 0x80, (body.len() >> 7) as u8]);
        packet.extend(body);
        edge.send(&packet).await;
        if taken {
            edge.is_quiet().await;
        } else {
            assert!(edge.rest().await.iter().all(|got| got.kind() == kind::DISCONNECT));
        }
    }
    assert_eq!(broker.stats().refusals["too_large"], 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn the_watchdogs_beat_is_nobodys_business() {
    let mut config = test_config();
    let role = topics::Role::Custom { publish: vec!["x".into()], subscribe: vec!["#".into()] };
    config.users.push(crate::User::new("all", "all-password", role));
    config.limits.beat_interval = Duration::from_millis(1);
    let broker = Broker::start(config).await.unwrap();
    for version in BOTH {
        for qos in [0, 1, 2] {
            let mut all = Raw::user(&broker, version, "all", "all").await;
            assert_eq!(all.subscribe(&["#"], qos).await, [qos]);
            // More beats than rumqttd lets wait unacknowledged; then a message of others still comes.
            let before = broker.shared().traffic.amount().held_bytes;
            let start = broker.stats().beats;
            until("many beats", || broker.stats().beats > start + 150).await;
            all.send(&publish(version, "x", 0, false, b"mine")).await;
            assert_eq!(all.receive().await.0, "x", "{version:?} {qos}");
            assert!(broker.shared().traffic.amount().held_bytes < before + (1 << 20));
        }
    }
    broker.shutdown().await;
}

/// Each filter of a SUBSCRIBE is a packet to the router, which hears of them all together.
#[tokio::test]
async fn hundreds_of_filters_in_one_packet_hang_nobody() {
    let mut config = test_config();
    config.limits.client_rates = unlimited();
    let broker = Broker::start(config).await.unwrap();
    let mut witnesses = Witnesses::start(&broker).await;
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "platform", "many").await;
        for _ in 0..10 {
            let codes = client.subscribe(&["ridgeway/v1/#"; 256], 1).await;
            assert_eq!(codes, [1; 256]);
        }
        // Behind an UNSUBSCRIBE that waits for the router, many at once.
        let topic = "ridgeway/v1/hq/commands/request";
        let mut bytes = publish(version, topic, 1, false, b"x");
        bytes.extend_from_slice(&unsubscribe(version, 2, &["ridgeway/v1/#"]));
        for id in 3..13 {
            bytes.extend_from_slice(&subscribe(version, id, &["ridgeway/v1/+/status"; 200], 1));
        }
        client.send(&bytes).await;
        let mut acknowledged = 0;
        while acknowledged < 10 {
            let got = client.next().await.expect("it goes on");
            acknowledged += u32::from(got.kind() == kind::SUBACK);
        }
        client.send(&subscribe(version, 77, &["ridgeway/v1/#"; 257], 1)).await;
        let rest = client.rest().await;
        assert!(rest.iter().all(|got| got.kind() == kind::DISCONNECT), "{rest:?}");
    }
    witnesses.check().await;
    until("all have left", || broker.stats().sockets == 4).await;
    broker.shutdown().await;
}

#[tokio::test]
async fn a_user_that_was_changed_keeps_neither_session_nor_will() {
    let broker = start().await;
    for version in BOTH {
        let mut connect = Connect::new(version, "edge", "kept").will(
            "ridgeway/v1/hq/events/x/y",
            "last words",
            false,
        );
        connect.clean = false;
        if version == Version::V5 {
            connect.properties = [&[0x11][..], &600u32.to_be_bytes()].concat();
            connect.will_properties = [&[0x18][..], &1u32.to_be_bytes()].concat();
        }
        // Connected, or away: when its user is changed, the session is gone.
        for is_away in [false, true] {
            let mut client = Raw::connect(&broker, &connect).await;
            client.subscribe(&["ridgeway/v1/hq/commands/request"], 1).await;
            if is_away {
                client.send(&DISCONNECT).await;
                client.rest().await;
                until("it has left", || broker.stats().connections == 0).await;
            }
            broker.shared().revoke("edge");
            client.rest().await;
            until("it has left", || broker.stats().connections == 0).await;
            let mut client = Raw::open(broker.local_addr(), version).await;
            let ack = client.say_hello(&connect).await.unwrap();
            assert_eq!(ack.body[..2], [0, 0], "{version:?} {is_away}: no session is present");
            client.send(&DISCONNECT).await;
            client.rest().await;
            until("it has left", || broker.stats().connections == 0).await;
        }
    }
    assert_eq!(broker.stats().wills, 0);
    broker.shutdown().await;
}
