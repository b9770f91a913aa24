//! What stops a bare rumqttd, and everything malformed: the others must not notice.

use super::harness::*;
use crate::{
    Refusal,
    wire::{Version, kind},
};

/// How often each attack is repeated.
const TIMES: usize = 20;

#[tokio::test]
async fn k1_topics_and_wills_that_start_beyond_ascii() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    for _ in 0..TIMES {
        for version in BOTH {
            for topic in ["é", "\u{1F525}/x", "ü/v1"] {
                let mut client = Raw::user(&broker, version, "edge", "k1").await;
                client.send(&publish(version, topic, 1, true, b"x")).await;
                assert!(!client.rest().await.iter().any(|got| got.kind() == kind::PUBACK));
                let connect = Connect::new(version, "edge", "k1").will(topic, "x", true);
                let (_, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
                assert_ne!(ack.expect("a CONNACK").body[1], 0);
            }
        }
        witnesses.check().await;
    }
    assert_eq!(broker.stats().refused(Refusal::TopicName), TIMES as u64 * 6);
    assert_eq!(broker.stats().refused(Refusal::Will), TIMES as u64 * 6);
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k2_a_goodbye_with_a_backlog() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    // Many small messages in one go fill the subscriber's buffer in the broker; the goodbye arrives
    // while there is more to fetch.
    let mut flood = bytes::BytesMut::new();
    for _ in 0..2_000 {
        flood.extend_from_slice(&publish(Version::V311, EVENT, 0, false, &[7; 100]));
    }
    for n in 0..TIMES * 2 {
        let mut slow = Raw::user(&broker, BOTH[n % 2], "platform", "k2").await;
        slow.subscribe(&[EVENT], 0).await;
        let mut edge = Raw::user(&broker, Version::V311, "edge", "k2").await;
        let goodbye = async {
            for _ in 0..1 + n * 20 {
                slow.receive().await;
            }
            slow.send(&DISCONNECT).await;
            slow.rest().await;
        };
        tokio::join!(edge.send(&flood), goodbye);
        edge.send(&DISCONNECT).await;
        edge.rest().await;
    }
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k3_shared_subscriptions() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "platform", "k3").await;
        let codes = client.subscribe(&["$share/g/ridgeway/v1/#", EVENT], 1).await;
        assert_eq!(codes, [if version == Version::V5 { 0x9E } else { 0x80 }, 1]);
        let mut edge = Raw::user(&broker, version, "edge", "k3").await;
        edge.publish(EVENT, 1, false, b"unacknowledged").await;
        client.expect(kind::PUBLISH).await;
        drop(client);
        witnesses.check().await;
    }
    assert_eq!(broker.stats().refused(Refusal::SharedSubscription), 2);
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k4_client_ids_that_poison_the_listener() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    for _ in 0..TIMES {
        for version in BOTH {
            for id in ["a/b", "a+b", "a#", "$a"] {
                let connect = Connect::new(version, "platform", id);
                let (_, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
                let code = ack.expect("a CONNACK").body[1];
                assert_eq!(code, if version == Version::V5 { 0x85 } else { 2 });
            }
            Raw::user(&broker, version, "platform", "newcomer").await.is_quiet().await;
        }
    }
    witnesses.check().await;
    assert_eq!(broker.stats().refused(Refusal::ClientId), TIMES as u64 * 8);
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k5_more_clients_than_may_be() {
    let mut config = test_config();
    config.limits.max_connections = 12;
    let broker = crate::Broker::start(config).await.unwrap();
    let mut witnesses = Witnesses::start(&broker).await;
    let mut crowd = Vec::new();
    for n in 0..8 {
        crowd.push(Raw::user(&broker, Version::V311, "platform", &format!("crowd-{n}")).await);
    }
    for n in 0..TIMES {
        let version = BOTH[n % 2];
        let connect = Connect::new(version, "platform", "one-too-many");
        let (_, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
        assert_eq!(ack.unwrap().body[1], if version == Version::V5 { 0x97 } else { 3 });
    }
    // Silent ones in numbers are just closed.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(Raw::open(broker.local_addr(), Version::V311).await);
    }
    for client in &mut silent {
        assert_eq!(client.next().await, None);
    }
    witnesses.check().await;
    assert_eq!(broker.stats().refused(Refusal::TooManyConnections), TIMES as u64 + 40);
    drop(crowd);
    until("there is room again", || broker.stats().connections == 4).await;
    let connect = Connect::new(Version::V311, "platform", "one-too-many");
    let mut late = None;
    for _ in 0..100 {
        let (client, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
        if ack.is_some_and(|ack| ack.body[1] == 0) {
            late = Some(client);
            break;
        }
    }
    late.expect("the one that was too many gets in").is_quiet().await;
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k6_silent_and_slow_peers() {
    let mut config = test_config();
    config.limits.connect_timeout = std::time::Duration::from_millis(300);
    let broker = crate::Broker::start(config).await.unwrap();
    let mut witnesses = Witnesses::start(&broker).await;
    let mut silent = Raw::open(broker.local_addr(), Version::V311).await;
    let mut slow = Raw::open(broker.local_addr(), Version::V5).await;
    slow.send(&Connect::new(Version::V5, "platform", "slow").bytes()[..20]).await;
    witnesses.check().await;
    assert_eq!(silent.next().await, None);
    assert_eq!(slow.next().await, None);
    assert_eq!(broker.stats().refused(Refusal::SlowConnect), 2);
    witnesses.check().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn k7_mqtt_5_properties_for_a_3_1_1_subscriber() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    let mut old = Raw::user(&broker, Version::V311, "platform", "k7-old").await;
    old.subscribe(&[EVENT], 1).await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "k7-new").await;
    let every_property = [
        b"\x01\x01".as_slice(),
        b"\x02\x00\x00\x00\x3C",
        b"\x03\x00\x01j",
        b"\x08\x00\x01r",
        b"\x09\x00\x01c",
        b"\x23\x00\x01",
        b"\x26\x00\x01k\x00\x01v",
    ];
    for _ in 0..TIMES {
        for property in every_property {
            let bytes = publish_with(Version::V5, EVENT, 1, 2, false, b"p", property);
            edge.send(&bytes).await;
            edge.expect(kind::PUBACK).await;
            assert_eq!(old.receive().await, (EVENT.to_owned(), b"p".to_vec()));
        }
    }
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k8_packets_that_only_a_server_sends() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    for _ in 0..TIMES {
        for version in BOTH {
            for bytes in [
                [0x20u8, 3, 0, 0, 0].as_slice(),
                &[0x90, 4, 0, 1, 0, 1],
                &[0xB0, 4, 0, 1, 0, 0],
                &[0xB0, 2, 0, 1],
                &[0xD0, 0],
                &[0xF0, 2, 0, 0],
                &[0x00, 0],
            ] {
                let mut client = Raw::user(&broker, version, "platform", "k8").await;
                client.send(bytes).await;
                let last = client.rest().await;
                if version == Version::V5 {
                    assert_eq!(last.last().unwrap().body, [0x82, 0]);
                } else {
                    assert!(last.is_empty());
                }
            }
        }
    }
    witnesses.check().await;
    assert_eq!(broker.stats().refused(Refusal::Protocol), TIMES as u64 * 14);
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn k9_clients_that_vanish_while_connecting() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    for n in 0..TIMES * 10 {
        let mut client = Raw::open(broker.local_addr(), BOTH[n % 2]).await;
        // A reset instead of an orderly end.
        client.stream.set_zero_linger().unwrap();
        client.send(&Connect::new(BOTH[n % 2], "platform", "k9").bytes()).await;
        drop(client);
    }
    // Under another id: one of those that vanished may still be taken in, and would end this one.
    Raw::user(&broker, Version::V5, "platform", "after-k9").await.is_quiet().await;
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn malformed_packets_end_only_their_own_connection() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    let endless = [0x30u8, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    let mut bad: Vec<Vec<u8>> = vec![
        endless.to_vec(),
        // QoS 3; packet id 0; topic longer than the packet; no topic at all.
        publish_with(Version::V311, EVENT, 3, 1, false, b"", &[]).to_vec(),
        publish_with(Version::V311, EVENT, 1, 0, false, b"", &[]).to_vec(),
        packet(0x30, &[0xFF, 0xFF, b'a']).to_vec(),
        packet(0x32, &[0]).to_vec(),
        // SUBSCRIBE with wrong flags, with no filter, with id 0, with QoS 3, cut short.
        packet(0x80, &[0, 1, 0, 1, b'a', 0]).to_vec(),
        packet(0x82, &[0, 1]).to_vec(),
        subscribe(Version::V311, 0, &[EVENT], 1).to_vec(),
        packet(0x82, &[0, 1, 0, 1, b'a', 3]).to_vec(),
        packet(0x82, &[0, 1, 0, 9, b'a']).to_vec(),
        packet(0xA2, &[0]).to_vec(),
        packet(0xA2, &[0, 1]).to_vec(),
        packet(0xA2, &[0, 1, 0, 9]).to_vec(),
        packet(0x40, &[1]).to_vec(),
        packet(0x62, &[]).to_vec(),
        packet(0x60, &[0, 1]).to_vec(),
        // A second CONNECT, and PINGREQ with flags.
        Connect::new(Version::V311, "platform", "bad").bytes().to_vec(),
        vec![0xC1, 0],
    ];
    for name in [b"\xFF\xFE".as_slice(), b"a\0b", b"", b"ridgeway/v1/+/x", b"#", b"\xC3"] {
        bad.push(publish(Version::V311, name, 1, false, b"x").to_vec());
        bad.push(publish(Version::V5, name, 1, false, b"x").to_vec());
    }
    for bytes in &bad {
        for version in BOTH {
            let mut client = Raw::user(&broker, version, "edge", "bad").await;
            client.send(bytes).await;
            let last = client.rest().await;
            assert!(last.iter().all(|got| got.kind() == kind::DISCONNECT), "{bytes:?}: {last:?}");
        }
        // And before anybody is known.
        let mut nobody = Raw::open(broker.local_addr(), Version::V311).await;
        nobody.send(bytes).await;
        let last = nobody.rest_after_closing().await;
        assert!(last.iter().all(|got| got.kind() == kind::CONNACK), "{bytes:?}: {last:?}");
    }
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn oversized_packets_are_refused_before_they_are_read() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    let limit = test_config().limits.max_payload_bytes;
    for version in BOTH {
        let mut subscriber = Raw::user(&broker, version, "platform", "large").await;
        subscriber.subscribe(&[EVENT], 1).await;
        let mut edge = Raw::user(&broker, version, "edge", "large").await;
        edge.publish(EVENT, 1, false, &vec![1; limit]).await;
        assert_eq!(subscriber.receive().await.1.len(), limit);
        edge.send(&publish(version, EVENT, 1, false, &vec![1; limit + 1])).await;
        assert!(edge.rest().await.iter().all(|got| got.kind() == kind::DISCONNECT));
        subscriber.is_quiet().await;
        // 256 MB announced, nothing sent.
        let mut edge = Raw::user(&broker, version, "edge", "large").await;
        edge.send(&[0x32, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        assert!(edge.rest().await.iter().all(|got| got.kind() == kind::DISCONNECT));
        let mut nobody = Raw::open(broker.local_addr(), version).await;
        nobody.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]).await;
        assert_eq!(nobody.next().await, None);
    }
    assert_eq!(broker.stats().refused(Refusal::TooLarge), 4);
    witnesses.check().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn random_bytes_after_a_good_connect() {
    let broker = start().await;
    let mut witnesses = Witnesses::start(&broker).await;
    let mut random = seeded();
    for n in 0..300usize {
        let version = BOTH[n % 2];
        let mut client = Raw::user(&broker, version, "edge", "noise").await;
        // Half of them with a length that fits, so that the body is looked at.
        let body: Vec<u8> = (0..random() % 60).map(|_| random() as u8).collect();
        let first = random() as u8;
        let bytes = if n % 4 < 2 { packet(first, &body).to_vec() } else { body };
        client.send(&bytes).await;
        client.send(&DISCONNECT).await;
        client.rest_after_closing().await;
    }
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    broker.shutdown().await;
}

/// Valid packets in any order, from clients that come, go, come back and share their names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valid_packets_in_invalid_orders() {
    let broker = std::sync::Arc::new(start().await);
    let mut witnesses = Witnesses::start(&broker).await;
    let mut random = seeded();
    let rounds: usize = std::env::var("ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let broker = broker.clone();
            let mut state = random() | 1;
            tokio::spawn(async move {
                for _ in 0..rounds {
                    wander(&broker, &mut || xorshift(&mut state)).await;
                }
            })
        })
        .collect();
    while clients.iter().any(|client| !client.is_finished()) {
        witnesses.check().await;
    }
    for client in clients {
        client.await.unwrap();
    }
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    println!("{:?}", broker.stats());
}

/// One connection that says valid things at random.
async fn wander(broker: &crate::Broker, random: &mut impl FnMut() -> u64) {
    let version = BOTH[random() as usize % 2];
    // Both may publish what they may subscribe, so that they also meet their own messages.
    let (user, leaf) =
        [("platform", "commands/request"), ("bridge", "status")][random() as usize % 2];
    let wide = format!("ridgeway/v1/+/{leaf}");
    // Few names, so that they meet themselves.
    let mut connect = Connect::new(version, user, &format!("w{}", random() % 4));
    connect.clean = !random().is_multiple_of(3);
    if version == Version::V5 && !connect.clean {
        connect.properties = vec![0x11, 0, 0, 0, 60];
    }
    if random().is_multiple_of(2) {
        connect = connect.will(format!("ridgeway/v1/g1/{leaf}"), "offline", false);
    }
    let (mut client, answer) = Raw::try_connect(broker.local_addr(), &connect).await;
    if answer.is_none_or(|answer| answer.body[1] != 0) {
        return;
    }
    for _ in 0..random() % 60 {
        let id = (random() % 8 + 1) as u16;
        let topic = format!("ridgeway/v1/g{}/{leaf}", random() % 5);
        let bytes = match random() % 16 {
            0..5 => {
                let qos = (random() % 3) as u8;
                let payload = vec![1; (random() % 3_000) as usize];
                publish_with(version, &topic, qos, id, user == "bridge", &payload, &[])
            }
            5..8 => {
                let filters = [topic.as_str(), &wide, "ridgeway/v1/#"];
                subscribe(version, id, &filters[random() as usize % 3..], (random() % 3) as u8)
            }
            8 => unsubscribe(version, id, &[&topic, &wide]),
            9 | 10 => ack(0x40, (random() % 100 + 1) as u16),
            11 => ack(0x50, (random() % 100 + 1) as u16),
            12 => ack(0x62, id),
            13 => ack(0x70, (random() % 100 + 1) as u16),
            14 => bytes::BytesMut::from(&PINGREQ[..]),
            // Takes what is there, and acknowledges it well. rumqttd doesn't answer while a hundred
            // messages are unacknowledged, so not for ever.
            _ => {
                let take = take_all(&mut client);
                let _ = tokio::time::timeout(std::time::Duration::from_millis(300), take).await;
                continue;
            }
        };
        // It reads rarely, so the broker may well stop reading it.
        let sent = tokio::time::timeout(std::time::Duration::from_secs(1), client.send(&bytes));
        if sent.await.is_err() {
            return;
        }
    }
    match random() % 3 {
        0 => client.send(&DISCONNECT).await,
        1 => client.stream.set_zero_linger().unwrap(),
        _ => {}
    }
}

async fn take_all(client: &mut Raw) {
    client.send(&PINGREQ).await;
    while let Some(got) = client.next().await {
        match (got.kind(), got.first & 6) {
            (kind::PINGRESP, _) => return,
            (kind::PUBLISH, 2) => {
                let id = got.publish(client.version).1;
                client.send(&ack(0x40, id)).await;
            }
            _ => {}
        }
    }
}

fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Random numbers from a seed that is printed.
fn seeded() -> impl FnMut() -> u64 {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let mut state = u64::from_le_bytes(seed) | 1;
    println!("seed {state}");
    move || xorshift(&mut state)
}

/// Everything at once, from several sides, while the witnesses go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_together() {
    let broker = std::sync::Arc::new(start().await);
    let mut witnesses = Witnesses::start(&broker).await;
    let attackers: Vec<_> = (0..4usize)
        .map(|who| {
            let broker = broker.clone();
            tokio::spawn(async move {
                for round in 0..40 {
                    attack(&broker, who, round).await;
                }
            })
        })
        .collect();
    while attackers.iter().any(|attacker| !attacker.is_finished()) {
        witnesses.check().await;
    }
    for attacker in attackers {
        attacker.await.unwrap();
    }
    witnesses.check().await;
    assert_eq!(broker.stats().rebuilds, 0);
    println!("{:?}", broker.stats());
}

async fn attack(broker: &crate::Broker, who: usize, round: usize) {
    let version = BOTH[round % 2];
    let id = format!("attacker-{who}");
    let edge = Raw::user(broker, version, "edge", &id);
    match (who + round) % 8 {
        0 => edge.await.send(&publish(version, "é", 1, true, b"x")).await,
        1 => {
            let connect = Connect::new(version, "edge", "a/b").will("ü", "x", true);
            let _ = Raw::try_connect(broker.local_addr(), &connect).await;
        }
        2 => {
            let mut client = Raw::user(broker, version, "platform", &id).await;
            client.subscribe(&["$share/g/#", "ridgeway/v1/#"], 1).await;
            client.send(&DISCONNECT).await;
        }
        3 => edge.await.send(&[0xB0, 4, 0, 1, 0, 0]).await,
        4 => {
            let mut client = edge.await;
            client.stream.set_zero_linger().unwrap();
            client.send(&publish(version, EVENT, 0, false, &[1; 5_000])).await;
        }
        5 => {
            let property = b"\x26\x00\x01k\x00\x01v";
            let property = if version == Version::V5 { &property[..] } else { b"" };
            let bytes = publish_with(version, EVENT, 1, 1, false, b"x", property);
            edge.await.send(&bytes).await;
        }
        6 => {
            let mut client = Raw::user(broker, version, "platform", &id).await;
            client.subscribe(&[EVENT], 0).await;
            let mut edge = edge.await;
            for _ in 0..500 {
                edge.send(&publish(version, EVENT, 0, false, &[7; 100])).await;
            }
            client.receive().await;
            client.send(&DISCONNECT).await;
        }
        _ => edge.await.send(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]).await,
    }
}
