//! What MQTT asks of a delivery and rumqttd alone doesn't do. `docs/mqtt.md` names these tests.

use bytes::{BufMut as _, BytesMut};
use topics::Role;

use super::harness::*;
use crate::{
    Broker, User,
    wire::{Version, kind},
};

const STATUS: &str = "ridgeway/v1/hq/status";
const ALL: &str = "ridgeway/v1/#";

/// In the options of an MQTT 5 filter.
const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;
const RETAIN_ONLY_NEW: u8 = 0x10;
const RETAIN_NEVER: u8 = 0x20;

/// Subscribes filters with their options and an identifier, 0 for none; the codes granted.
async fn subscribe_v5(client: &mut Raw, filters: &[(&str, u8)], id: u8) -> Vec<u8> {
    let mut body = BytesMut::from(&[0, 77][..]);
    match id {
        0 => body.put_u8(0),
        id => body.put_slice(&[2, 0x0B, id]),
    }
    for (filter, options) in filters {
        text(&mut body, filter.as_bytes());
        body.put_u8(*options);
    }
    client.send(&packet(0x82, &body)).await;
    client.expect(kind::SUBACK).await.body[3..].to_vec()
}

/// Flags and payload of the next PUBLISH, which is acknowledged if it has QoS 1.
async fn next(client: &mut Raw) -> (u8, Vec<u8>) {
    let got = client.expect(kind::PUBLISH).await;
    let (_, id, payload, _) = got.publish(client.version);
    if got.first & 6 == 2 {
        client.send(&ack(0x40, id)).await;
    }
    (got.first & 0x0F, payload)
}

async fn publish_qos2(client: &mut Raw, topic: &str, id: u16, retain: bool, payload: &[u8]) {
    let bytes = publish_with(client.version, topic, 2, id, retain, payload, &[]);
    client.send(&bytes).await;
    client.expect(kind::PUBREC).await;
    client.send(&ack(0x62, id)).await;
    client.expect(kind::PUBCOMP).await;
}

/// May publish and subscribe everything, unlike any role of ours.
async fn all_powerful() -> Broker {
    let mut config = test_config();
    let everything = || vec!["#".to_owned()];
    let role = Role::Custom { publish: everything(), subscribe: everything() };
    config.users.push(User::new("all", "all-password", role));
    Broker::start(config).await.unwrap()
}

#[tokio::test]
async fn a_message_comes_with_the_lower_of_its_own_and_the_subscription_s_qos() {
    let broker = start().await;
    for version in BOTH {
        for wanted in 0..=2 {
            let mut edge = Raw::user(&broker, version, "edge", "edge").await;
            let mut platform = Raw::user(&broker, version, "platform", "platform").await;
            assert_eq!(platform.subscribe(&[ALL], wanted).await, [wanted]);
            edge.send(&publish(version, EVENT, 0, false, b"0")).await;
            edge.publish(EVENT, 1, false, b"1").await;
            publish_qos2(&mut edge, EVENT, 2, false, b"2").await;
            for qos in 0..=2 {
                let expected = (qos.min(wanted) << 1, vec![b'0' + qos]);
                assert_eq!(next(&mut platform).await, expected, "{version:?}, asked for {wanted}");
            }
        }
    }
    broker.shutdown().await;
}

/// rumqttd sends at most 100 messages that nobody acknowledges, and nobody acknowledges QoS 0.
#[tokio::test]
async fn many_qos_0_messages_reach_a_qos_2_subscription() {
    let broker = start().await;
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        let mut platform = Raw::user(&broker, version, "platform", "platform").await;
        platform.subscribe(&[ALL], 2).await;
        for n in 0..500u16 {
            edge.send(&publish(version, EVENT, 0, false, &n.to_be_bytes())).await;
        }
        for n in 0..500u16 {
            assert_eq!(next(&mut platform).await, (0, n.to_be_bytes().to_vec()));
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_subscription_with_no_local_hears_only_others() {
    let broker = all_powerful().await;
    let mut one = Raw::user(&broker, Version::V5, "all", "one").await;
    let mut other = Raw::user(&broker, Version::V5, "all", "other").await;
    for client in [&mut one, &mut other] {
        assert_eq!(subscribe_v5(client, &[("x", 1 | NO_LOCAL)], 0).await, [1]);
    }
    // More than rumqttd sends unacknowledged.
    for n in 1..=120 {
        one.publish("x", n, false, b"mine").await;
        assert_eq!(next(&mut other).await, (2, b"mine".to_vec()));
    }
    one.is_quiet().await;
    other.publish("x", 1, false, b"theirs").await;
    assert_eq!(next(&mut one).await, (2, b"theirs".to_vec()));
    other.is_quiet().await;
    // A client that comes back is the same client.
    drop(one);
    let mut one = Raw::user(&broker, Version::V5, "all", "one").await;
    subscribe_v5(&mut one, &[("x", 1 | NO_LOCAL)], 0).await;
    one.publish("x", 1, false, b"mine again").await;
    one.is_quiet().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn the_retain_flag_is_kept_for_those_who_asked() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let mut plain = Raw::user(&broker, Version::V5, "platform", "plain").await;
    subscribe_v5(&mut plain, &[(STATUS, 1)], 0).await;
    let mut keen = Raw::user(&broker, Version::V5, "platform", "keen").await;
    subscribe_v5(&mut keen, &[(STATUS, 1 | RETAIN_AS_PUBLISHED)], 0).await;
    for (id, retain, flags) in [(1, true, 3), (2, false, 2)] {
        edge.publish(STATUS, id, retain, b"online").await;
        assert_eq!(next(&mut plain).await, (2, b"online".to_vec()));
        assert_eq!(next(&mut keen).await, (flags, b"online".to_vec()));
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn retain_handling_says_whether_retained_messages_come() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    edge.publish(STATUS, 1, true, b"online").await;
    let mut client = Raw::user(&broker, Version::V5, "platform", "client").await;
    subscribe_v5(&mut client, &[(ALL, 1 | RETAIN_NEVER)], 0).await;
    client.is_quiet().await;
    subscribe_v5(&mut client, &[(STATUS, 1 | RETAIN_ONLY_NEW)], 0).await;
    assert_eq!(next(&mut client).await, (3, b"online".to_vec()));
    subscribe_v5(&mut client, &[(STATUS, 1 | RETAIN_ONLY_NEW)], 0).await;
    client.is_quiet().await;
    edge.publish(STATUS, 1, true, b"busy").await;
    for _ in 0..2 {
        assert_eq!(
            next(&mut client).await,
            (2, b"busy".to_vec()),
            "live ones come by both filters"
        );
    }
    broker.shutdown().await;
}

/// Not so by default: whoever subscribes again gets them again.
#[tokio::test]
async fn subscribing_again_brings_the_retained_messages_again() {
    let broker = start().await;
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        edge.publish(STATUS, 1, true, b"online").await;
        let mut client = Raw::user(&broker, version, "platform", "client").await;
        for _ in 0..3 {
            client.subscribe(&[ALL], 1).await;
            assert_eq!(next(&mut client).await, (3, b"online".to_vec()));
        }
        client.is_quiet().await;
    }
    broker.shutdown().await;
}

/// rumqttd sends a hundred.
#[tokio::test]
async fn all_retained_messages_come_with_their_qos_and_within_the_receive_maximum() {
    let broker = start().await;
    let topic = |n: u16| format!("ridgeway/v1/hq/readers/r{n:03}/status");
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        for n in 0..300 {
            match n % 3 {
                0 => edge.send(&publish(version, topic(n), 0, true, &n.to_be_bytes())).await,
                1 => edge.publish(&topic(n), 1, true, &n.to_be_bytes()).await,
                _ => publish_qos2(&mut edge, &topic(n), 2, true, &n.to_be_bytes()).await,
            }
        }
        let mut connect = Connect::new(version, "platform", "client");
        let mut room = 100;
        if version == Version::V5 {
            (connect.properties, room) = (vec![0x21, 0, 5], 5);
        }
        let mut client = Raw::connect(&broker, &connect).await;
        client.subscribe(&[ALL], 2).await;
        let mut open = std::collections::VecDeque::new();
        for n in 0..300u16 {
            let got = client.expect(kind::PUBLISH).await;
            let (name, id, payload, _) = got.publish(version);
            assert_eq!((name, payload), (topic(n), n.to_be_bytes().to_vec()));
            assert_eq!(got.first & 7, (n % 3) as u8 * 2 + 1);
            if id > 0 {
                assert!(id > 100, "no id of rumqttd's");
                open.push_back((n % 3, id));
            }
            if open.len() < room || (n + 1).is_multiple_of(3) {
                continue;
            }
            assert_eq!(open.len(), room);
            client.is_quiet().await;
            let (qos, done) = open.pop_front().unwrap();
            if qos == 1 {
                client.send(&ack(0x40, done)).await;
            } else {
                client.send(&ack(0x50, done)).await;
                assert_eq!(client.expect(6).await.body, done.to_be_bytes());
                client.send(&ack(0x70, done)).await;
            }
        }
        // Beside all that, live messages go their way.
        for (_, id) in open {
            client.send(&ack(0x40, id)).await;
        }
        edge.publish(STATUS, 1, false, b"live").await;
        assert_eq!(next(&mut client).await, (2, b"live".to_vec()));
        drop(client);
        until("it is gone", || broker.stats().connections == 1).await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn large_retained_messages_come_in_pieces_and_what_is_retained_then() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let topic = |n: u8| format!("ridgeway/v1/hq/readers/r{n:02}/status");
    for n in 0..50u8 {
        edge.publish(&topic(n), 1, true, &[n; 20_000]).await;
    }
    let mut client = Raw::user(&broker, Version::V5, "platform", "client").await;
    let mut bytes = subscribe(Version::V5, 7, &[ALL], 0);
    bytes.extend_from_slice(&PINGREQ);
    client.send(&bytes).await;
    client.expect(kind::SUBACK).await;
    let mut payloads = Vec::new();
    while payloads.len() < 50 {
        let got = client.next().await.unwrap();
        if got.kind() == kind::PUBLISH {
            payloads.push(got.publish(Version::V5).2[0]);
        }
    }
    assert_eq!(payloads, (0..50).collect::<Vec<u8>>());
    broker.shutdown().await;
}

#[tokio::test]
async fn only_an_empty_message_with_the_retain_flag_clears_a_retained_one() {
    let broker = start().await;
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        let mut client = Raw::user(&broker, version, "platform", "client").await;
        edge.publish(STATUS, 1, true, b"online").await;
        client.subscribe(&[ALL], 1).await;
        assert_eq!(next(&mut client).await, (3, b"online".to_vec()));
        edge.publish(STATUS, 2, false, b"").await;
        assert_eq!(next(&mut client).await, (2, Vec::new()), "it is empty for subscribers");
        let mut late = Raw::user(&broker, version, "platform", "late").await;
        late.subscribe(&[STATUS], 1).await;
        assert_eq!(next(&mut late).await, (3, b"online".to_vec()));
        edge.publish(STATUS, 3, true, b"").await;
        assert_eq!(next(&mut late).await, (2, Vec::new()));
        let mut later = Raw::user(&broker, version, "platform", "later").await;
        later.subscribe(&[STATUS], 1).await;
        later.is_quiet().await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_packet_that_is_too_large_for_the_client_is_left_out() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let mut connect = Connect::new(Version::V5, "platform", "small");
    connect.properties = vec![0x27, 0, 0, 0, 100];
    let mut small = Raw::connect(&broker, &connect).await;
    small.subscribe(&[ALL], 1).await;
    for n in 1..=120 {
        edge.publish(EVENT, n, false, &[b'x'; 100]).await;
    }
    edge.send(&publish(Version::V5, EVENT, 0, false, &[b'x'; 100])).await;
    edge.publish(EVENT, 1, false, b"small").await;
    assert_eq!(next(&mut small).await, (2, b"small".to_vec()));
    broker.shutdown().await;
}

#[tokio::test]
async fn a_client_gets_no_more_at_a_time_than_its_receive_maximum() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    for qos in 1..=2 {
        let mut connect = Connect::new(Version::V5, "platform", "careful");
        connect.properties = vec![0x21, 0, 2];
        let mut careful = Raw::connect(&broker, &connect).await;
        careful.subscribe(&[ALL], qos).await;
        for n in 0..20 {
            publish_qos2(&mut edge, EVENT, 9, false, &[n]).await;
        }
        let mut open = Vec::new();
        for n in 0..20u8 {
            let (_, id, payload, _) = careful.expect(kind::PUBLISH).await.publish(Version::V5);
            assert_eq!(payload, [n]);
            open.push(id);
            if open.len() < 2 {
                continue;
            }
            careful.is_quiet().await;
            if qos == 1 {
                // It may be quick with one and slow with another.
                let done = open.remove(usize::from(n % 3 == 0));
                careful.send(&ack(0x40, done)).await;
                continue;
            }
            // A message is done with PUBCOMP, not before.
            let done = open.remove(0);
            careful.send(&ack(0x50, done)).await;
            assert_eq!(careful.expect(6).await.body, done.to_be_bytes());
            careful.is_quiet().await;
            careful.send(&ack(0x70, done)).await;
        }
        drop(careful);
        until("it is gone", || broker.stats().connections == 1).await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn each_filter_s_copy_has_its_own_identifier_and_qos() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let mut client = Raw::user(&broker, Version::V5, "platform", "client").await;
    subscribe_v5(&mut client, &[(ALL, 1), ("ridgeway/v1/+/status", 0)], 7).await;
    subscribe_v5(&mut client, &[(STATUS, 2)], 8).await;
    subscribe_v5(&mut client, &[("ridgeway/v1/hq/+", 1)], 0).await;
    edge.publish(STATUS, 1, false, b"x").await;
    let mut got = Vec::new();
    for _ in 0..4 {
        let packet = client.expect(kind::PUBLISH).await;
        let (_, _, payload, properties) = packet.publish(Version::V5);
        assert_eq!(payload, b"x");
        got.push((packet.first & 6, properties));
    }
    got.sort();
    let expected = [(0, &[0x0B, 7][..]), (2, &[]), (2, &[0x0B, 7]), (2, &[0x0B, 8])];
    assert_eq!(got, expected.map(|(qos, properties)| (qos, properties.to_vec())));
    broker.shutdown().await;
}

#[tokio::test]
async fn subscribing_again_changes_the_options_but_grants_no_higher_qos() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let mut client = Raw::user(&broker, Version::V5, "platform", "client").await;
    assert_eq!(subscribe_v5(&mut client, &[(ALL, 1)], 7).await, [1]);
    for (asked, granted) in [(0, 0), (2, 1)] {
        assert_eq!(subscribe_v5(&mut client, &[(ALL, asked)], 8).await, [granted]);
        edge.publish(STATUS, 1, false, b"x").await;
        let got = client.expect(kind::PUBLISH).await;
        assert_eq!(got.first & 6, granted << 1);
        assert_eq!(got.publish(Version::V5).3, [0x0B, 8]);
    }
    broker.shutdown().await;
}

/// rumqttd forgets the identifiers and the way to unsubscribe.
#[tokio::test]
async fn a_session_that_goes_on_has_its_options_and_can_unsubscribe() {
    let broker = start().await;
    for version in BOTH {
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        let mut connect = Connect::new(version, "platform", "keeper");
        connect.clean = false;
        if version == Version::V5 {
            connect.properties = vec![0x11, 0, 0, 0xFF, 0xFF];
        }
        let mut keeper = Raw::connect(&broker, &connect).await;
        match version {
            Version::V311 => keeper.subscribe(&[ALL], 1).await,
            Version::V5 => subscribe_v5(&mut keeper, &[(ALL, 1 | RETAIN_AS_PUBLISHED)], 9).await,
        };
        for _ in 0..3 {
            drop(keeper);
            until("it is gone", || broker.stats().connections == 1).await;
            edge.publish(STATUS, 1, true, b"while away").await;
            let (client, connack) = Raw::try_connect(broker.local_addr(), &connect).await;
            keeper = client;
            assert_eq!(connack.unwrap().body[..2], [1, 0]);
            assert_eq!(next(&mut keeper).await.1, b"while away");
            edge.publish(STATUS, 2, true, b"again").await;
            let got = keeper.expect(kind::PUBLISH).await;
            let (_, id, payload, properties) = got.publish(version);
            assert_eq!(payload, b"again");
            keeper.send(&ack(0x40, id)).await;
            if version == Version::V5 {
                assert_eq!((got.first & 1, properties.as_slice()), (1, &[0x0B, 9][..]));
            }
        }
        keeper.send(&unsubscribe(version, 5, &[ALL])).await;
        let reasons: &[u8] = if version == Version::V5 { &[0, 5, 0, 0] } else { &[0, 5] };
        assert_eq!(keeper.expect(11).await.body, reasons);
        edge.publish(STATUS, 3, false, b"not for it").await;
        keeper.is_quiet().await;
        edge.publish(STATUS, 4, true, b"").await;
    }
    broker.shutdown().await;
}

/// A CONNECT of MQTT 5 with a session expiry, 0 for none.
fn lasting(client_id: &str, clean_start: bool, expiry_secs: u32) -> Connect {
    let mut connect = Connect::new(Version::V5, "platform", client_id);
    connect.clean = clean_start;
    if expiry_secs > 0 {
        connect.properties.push(0x11);
        connect.properties.extend(expiry_secs.to_be_bytes());
    }
    connect
}

/// Connects; whether the session went on.
async fn comes_back(broker: &Broker, connect: &Connect) -> (Raw, bool) {
    let (client, connack) = Raw::try_connect(broker.local_addr(), connect).await;
    let body = connack.unwrap().body;
    assert_eq!(body[1], 0);
    (client, body[0] == 1)
}

async fn leaves(broker: &Broker, mut client: Raw, disconnect: &[u8]) {
    client.send(disconnect).await;
    assert!(client.rest().await.is_empty());
    until("it is gone", || broker.stats().connections == 1).await;
}

#[tokio::test]
async fn a_clean_start_begins_a_session_that_goes_on() {
    let broker = start().await;
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    for round in 0..3u8 {
        let (mut client, present) = comes_back(&broker, &lasting("x", true, 100)).await;
        assert!(!present, "nothing of the one before");
        client.subscribe(&[ALL], 1).await;
        leaves(&broker, client, &DISCONNECT).await;
        edge.publish(STATUS, 1, false, &[round]).await;
        let (mut client, present) = comes_back(&broker, &lasting("x", false, 100)).await;
        assert!(present);
        assert_eq!(next(&mut client).await, (2, vec![round]));
        leaves(&broker, client, &DISCONNECT).await;
        edge.publish(STATUS, 1, false, b"for nobody").await;
    }
    assert!(broker.shared().slots_used() < 8);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_session_without_expiry_goes_on_once_more_and_ends() {
    let broker = start().await;
    let _edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let (client, _) = comes_back(&broker, &lasting("x", true, 100)).await;
    leaves(&broker, client, &DISCONNECT).await;
    for went_on in [true, false] {
        let (client, present) = comes_back(&broker, &lasting("x", false, 0)).await;
        assert_eq!(present, went_on);
        leaves(&broker, client, &DISCONNECT).await;
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_goodbye_may_end_the_session_but_not_begin_one() {
    let broker = start().await;
    let _edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let ends_now = [0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0];
    let goes_on = [0xE0, 7, 0, 5, 0x11, 0, 0, 0xFF, 0xFF];
    for (disconnect, went_on) in [(goes_on, true), (ends_now, false)] {
        let (client, _) = comes_back(&broker, &lasting("x", true, 1)).await;
        leaves(&broker, client, &disconnect).await;
        let (client, present) = comes_back(&broker, &lasting("x", false, 100)).await;
        assert_eq!(present, went_on);
        leaves(&broker, client, &DISCONNECT).await;
    }
    let (mut client, _) = comes_back(&broker, &lasting("y", true, 0)).await;
    client.send(&goes_on).await;
    assert_eq!(client.rest().await.last().unwrap().body, [0x82, 0], "protocol error");
    broker.shutdown().await;
}

#[tokio::test]
async fn the_publisher_s_dup_flag_is_its_own_affair() {
    let broker = start().await;
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "bridge", "client").await;
        client.subscribe(&["ridgeway/v1/+/status"], 2).await;
        let mut edge = Raw::user(&broker, version, "edge", "edge").await;
        let mut bytes = publish(version, STATUS, 1, false, b"x");
        bytes[0] |= 8;
        edge.send(&bytes).await;
        assert_eq!(next(&mut client).await, (2, b"x".to_vec()));
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn the_beat_is_nobody_s() {
    let broker = all_powerful().await;
    for version in BOTH {
        let mut client = Raw::user(&broker, version, "all", "client").await;
        assert_eq!(client.subscribe(&["#", "+/+", crate::session::BEAT_TOPIC], 1).await.len(), 3);
        let inner = broker.inner();
        for _ in 0..3 {
            crate::line::beat(broker.shared().clone(), inner.clone()).await.unwrap();
        }
        client.publish("x", 1, false, b"last").await;
        assert_eq!(next(&mut client).await.1, b"last");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn what_is_not_offered_is_said() {
    let broker = all_powerful().await;
    let mut connect = Connect::new(Version::V5, "all", "client");
    // It asks for response information; there is none, nor a reason string.
    connect.properties = vec![0x19, 1, 0x17, 1];
    let (mut client, connack) = Raw::try_connect(broker.local_addr(), &connect).await;
    let max_packet = u32::try_from(broker.shared().max_packet_bytes()).unwrap().to_be_bytes();
    let mut properties = vec![0x21, 0, 100, 0x27];
    properties.extend(max_packet);
    // Topic aliases, and shared subscriptions.
    properties.extend([0x22, 0, 16, 0x2A, 0]);
    let mut expected = vec![0, 0, properties.len() as u8];
    expected.extend(properties);
    assert_eq!(connack.unwrap().body, expected);
    let filters = ["$SYS/#", "$share/g/x", "é/x", "a/#/b"];
    assert_eq!(client.subscribe(&filters, 1).await, [0x8F, 0x9E, 0x8F, 0x8F]);
    let mut old = Raw::user(&broker, Version::V311, "all", "old").await;
    assert_eq!(old.subscribe(&filters, 1).await, [0x80; 4]);
    // SCRAM and the like.
    connect.properties = vec![0x15, 0, 1, b'x'];
    let (_, connack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(connack.unwrap().body, [0, 0x8C, 0]);
    broker.shutdown().await;
}

/// What rumqttd makes of QoS 2 when a connection breaks: `docs/mqtt.md` warns of it.
#[tokio::test]
async fn qos_2_across_a_reconnect() {
    let broker = all_powerful().await;
    let lasting = |id, fresh| {
        let mut connect = lasting(id, fresh, 100);
        (connect.user, connect.password) = ("all".to_owned(), "all-password".to_owned());
        connect
    };
    let mut from = Raw::connect(&broker, &lasting("from", true)).await;
    let mut to = Raw::connect(&broker, &lasting("to", true)).await;
    to.subscribe(&["x"], 2).await;
    let message = publish_with(Version::V5, "x", 2, 8, false, b"m", &[]);
    from.send(&message).await;
    from.expect(kind::PUBREC).await;
    drop(from);
    let (mut from, present) = comes_back(&broker, &lasting("from", false)).await;
    assert!(present);
    from.send(&ack(0x62, 8)).await;
    assert_eq!(from.expect(kind::PUBCOMP).await.body[..3], [0, 8, 0x92], "nothing known of it");
    to.is_quiet().await;
    // A client that sends the whole message again is fine.
    from.send(&message).await;
    from.expect(kind::PUBREC).await;
    from.send(&ack(0x62, 8)).await;
    from.expect(kind::PUBCOMP).await;
    assert_eq!(next(&mut to).await, (4, b"m".to_vec()));
    // What the subscriber didn't answer comes again, without the DUP flag.
    drop(to);
    let (mut to, _) = comes_back(&broker, &lasting("to", false)).await;
    let got = to.expect(kind::PUBLISH).await;
    assert_eq!(got.first & 0x0F, 4);
    let id = got.publish(Version::V5).1;
    to.send(&ack(0x50, id)).await;
    to.expect(6).await;
    drop(to);
    let (mut to, _) = comes_back(&broker, &lasting("to", false)).await;
    assert_eq!(to.expect(6).await.body, id.to_be_bytes(), "PUBREL until it is answered");
    to.send(&ack(0x70, id)).await;
    to.is_quiet().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn who_is_away_too_long_misses_the_oldest() {
    let mut config = test_config();
    config.limits.segments = crate::Segments { bytes: 1_024, count: 2 };
    let broker = Broker::start(config).await.unwrap();
    let mut edge = Raw::user(&broker, Version::V5, "edge", "edge").await;
    let (mut client, _) = comes_back(&broker, &lasting("x", true, 100)).await;
    client.subscribe(&[ALL], 1).await;
    leaves(&broker, client, &DISCONNECT).await;
    for n in 0..100u8 {
        edge.publish(STATUS, 1, false, &[n; 100]).await;
    }
    let (mut client, present) = comes_back(&broker, &lasting("x", false, 100)).await;
    assert!(present);
    let first = next(&mut client).await.1[0];
    assert!((60..95).contains(&first), "{first} is the oldest that is left");
    for n in first + 1..100 {
        assert_eq!(next(&mut client).await.1[0], n);
    }
    client.is_quiet().await;
    broker.shutdown().await;
}
