//! Clients that stop a bare rumqttd: here they hurt only themselves. Each kind in turn, against the
//! edge broker of a running gateway, while a 3.1.1 and a 5 client are being served.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use crate::support::{
    mosquitto::{Broker, Subscriber, Version},
    site::{Options, Site},
};

struct Witnesses {
    broker: Broker,
    listeners: [Subscriber; 2],
    round: u64,
}

impl Witnesses {
    fn new(broker: Broker) -> Self {
        let listeners = [Version::V311, Version::V5]
            .map(|version| broker.subscribe("ridgeway/v1/+/commands/request", version));
        Self { broker, listeners, round: 0 }
    }

    /// A message of a new client still reaches the old ones, on both versions.
    #[track_caller]
    fn are_served(&mut self, after: &str) {
        for version in [Version::V311, Version::V5] {
            self.round += 1;
            let id = format!("witness-{}", self.round);
            let request = json!({"id": id, "command": "health", "ttlMs": 60_000}).to_string();
            assert!(
                self.broker.publish("ridgeway/v1/hq-lobby/commands/request", &request, version),
                "after {after}: a new {version:?} client can't publish"
            );
            for listener in &self.listeners {
                listener.wait_for(|message| message.payload.contains(&id));
            }
        }
    }
}

/// What a hostile client sends after TCP connects; it then waits to be cut off, or leaves.
type Attack = fn(&Broker) -> Vec<u8>;

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_client_hurts_only_itself() {
    let mut site = Site::new(Options::default());
    site.start_gateway();
    let broker = site.edge_broker();
    let mut witnesses = Witnesses::new(broker.clone());
    witnesses.are_served("nothing yet");
    let attacks: [(&str, Attack); 11] = [
        ("K1: a topic that starts with a non-ASCII character", |b| {
            [connect(b, 4, "k1"), publish(4, "é/x", b"x")].concat()
        }),
        ("K1: such a will", |b| connect_with_will(b, "k1w", "é/will")),
        ("K3: a shared subscription", |b| {
            [connect(b, 5, "k3"), subscribe(5, "$share/g/ridgeway/v1/#")].concat()
        }),
        ("K4: a client id with wildcards", |b| connect(b, 4, "a/+#$")),
        ("K7: properties from 5 to 3.1.1", |b| {
            let topic = "ridgeway/v1/hq-lobby/commands/request";
            [connect(b, 5, "k7"), publish_with_property(topic, b"{}")].concat()
        }),
        ("K8: a client's UNSUBACK", |b| [connect(b, 5, "k8"), vec![0xb0, 4, 0, 1, 0, 0]].concat()),
        ("a second CONNECT", |b| [connect(b, 4, "twice"), connect(b, 4, "twice")].concat()),
        ("a reserved packet type", |b| [connect(b, 4, "type0"), vec![0x00, 0x00]].concat()),
        ("a length that never ends", |_| vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a packet of 64 MiB, announced", |b| {
            [connect(b, 4, "huge"), vec![0x30, 0x80, 0x80, 0x80, 0x20]].concat()
        }),
        ("bytes that are no MQTT", |_| b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (name, attack) in attacks {
        // Twice: some faults of a listener show at the second try.
        for _ in 0..2 {
            let mut stream = TcpStream::connect(&broker.address).unwrap();
            let _ = stream.write_all(&attack(&broker));
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let _ = stream.read(&mut [0; 256]);
        }
        witnesses.are_served(name);
    }
    // K5: more connections than are taken, tried again.
    let crowd: Vec<TcpStream> =
        (0..400).filter_map(|_| TcpStream::connect(&broker.address).ok()).collect();
    drop(crowd);
    witnesses.are_served("K5: a crowd");
    let health = site.local().ok("/api/health").await;
    assert_eq!(health["status"], "healthy", "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_denied() {
    let mut site = Site::new(Options::default());
    site.start_gateway();
    let broker = site.edge_broker();
    let listener = broker.subscribe("ridgeway/v1/#", Version::V5);
    for version in [Version::V311, Version::V5] {
        broker.publish("ridgeway/v1/hq-lobby/status", r#"{"state":"offline"}"#, version);
        let event = "ridgeway/v1/hq-lobby/readers/device-001/events/access/granted";
        broker.publish(event, r#"{"forged":true}"#, version);
    }
    let wrong = Broker { password: "wrong".into(), ..broker.clone() };
    let topic = "ridgeway/v1/hq-lobby/commands/request";
    assert!(!wrong.publish(topic, "{}", Version::V311), "a wrong password is refused");
    let request = json!({"id": "after", "command": "health", "ttlMs": 60_000}).to_string();
    assert!(broker.publish(topic, &request, Version::V5));
    let mut seen = Vec::new();
    listener.wait_for(|message| {
        seen.push(message.clone());
        message.topic == topic
    });
    for message in &seen {
        assert!(!message.payload.contains("forged"), "{message:?}");
        assert_ne!(message.json()["state"], "offline", "{message:?}");
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384);
    let mut bytes = vec![head];
    if body.len() >= 128 {
        bytes.extend([(body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8]);
    } else {
        bytes.push(body.len() as u8);
    }
    bytes.extend_from_slice(body);
    bytes
}

fn connect(broker: &Broker, level: u8, id: &str) -> Vec<u8> {
    let mut body = [text("MQTT"), vec![level, 0xc2, 0, 30]].concat();
    if level == 5 {
        body.push(0);
    }
    body.extend([text(id), text(&broker.user), text(&broker.password)].concat());
    packet(0x10, &body)
}

fn connect_with_will(broker: &Broker, id: &str, topic: &str) -> Vec<u8> {
    let head = [text("MQTT"), vec![4, 0xc6, 0, 30]].concat();
    let body =
        [head, text(id), text(topic), text("gone"), text(&broker.user), text(&broker.password)]
            .concat();
    packet(0x10, &body)
}

fn publish(level: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if level == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30, &body)
}

fn publish_with_property(topic: &str, payload: &[u8]) -> Vec<u8> {
    let property = [vec![0x26], text("a"), text("b")].concat();
    let body = [text(topic), vec![property.len() as u8], property, payload.to_vec()].concat();
    packet(0x30, &body)
}

fn subscribe(level: u8, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    if level == 5 {
        body.push(0);
    }
    body.extend([text(filter), vec![1]].concat());
    packet(0x82, &body)
}
