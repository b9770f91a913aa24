//! Who may publish and subscribe what, asked over the wire: every way, both versions.

use std::path::Path;

use bytes::{BufMut as _, BytesMut};
use topics::{Role, Root, Topic};

use super::{
    harness::*,
    ways::{WAYS, Way},
};
use crate::{
    Broker, Refusal,
    front::Wire,
    wire::{Version, kind},
};

/// Every topic of the contract, of two gateways, and some that are nobody's.
pub(super) fn every_topic() -> Vec<String> {
    let mut all = vec!["ridgeway-broker/beat".to_owned(), "elsewhere".to_owned()];
    for gateway in ["hq", "other"].map(gateway) {
        let reader: topics::ReaderId = "device-001".parse().unwrap();
        let topics = [
            Topic::GatewayStatus { gateway: gateway.clone() },
            Topic::ReaderStatus { gateway: gateway.clone(), reader: reader.clone() },
            Topic::ReaderEvent {
                gateway: gateway.clone(),
                reader,
                event: topics::EventType::ScanComplete,
            },
            Topic::GatewayEvent {
                gateway: gateway.clone(),
                event: topics::EventType::ServiceStatus,
            },
            Topic::CommandRequest { gateway: gateway.clone() },
            Topic::CommandResponse { gateway: gateway.clone() },
            Topic::LinkUp { gateway: gateway.clone() },
            Topic::LinkDown { gateway },
        ];
        all.extend(topics.iter().map(|topic| topic.format(&Root::default())));
    }
    all
}

/// Names near those of the contract that no role may use in any way.
fn odd_names() -> Vec<Vec<u8>> {
    let near = [
        "",
        "$SYS/broker/uptime",
        "$share/g/ridgeway/v1/hq/status",
        "$share/g/#",
        "$queue/ridgeway/v1/hq/status",
        "\u{e9}/ridgeway/v1/hq/status",
        "ridgeway/v1/hq/status\u{0}",
        "ridgeway/v1/hq\u{7}/status",
        "\u{feff}ridgeway/v1/hq/status",
        "ridgeway/v1/hq#",
        "ridgeway/v1/#/status",
        "ridgeway/v1/h+/status",
        "RIDGEWAY/v1/hq/status",
        "/ridgeway/v1/hq/status",
        "ridgeway//v1/hq/status",
        "ridgeway/v10/hq/status",
        "ridgeway-link/v1/zz/hq/up/more",
    ];
    // A lone surrogate, an overlong slash, a byte that is never UTF-8.
    let bytes = [&b"ridgeway/v1/hq/\xED\xA0\x80"[..], b"ridgeway/v1/hq\xC0\xAFstatus", b"\xFF"];
    near.iter().map(|name| name.as_bytes()).chain(bytes).map(<[u8]>::to_vec).collect()
}

/// The rights as `topics.md` has them, written down a second time: what a role may publish, and subscribe.
fn granted(user: &str) -> (Vec<String>, Vec<String>) {
    let hq = || gateway("hq");
    let up = Topic::LinkUp { gateway: hq() }.format(&Root::default());
    let down = Topic::LinkDown { gateway: hq() }.format(&Root::default());
    let (publish, subscribe): (&[&str], &[&str]) = match user {
        "edge" => (&["ridgeway/v1/hq/#"], &["ridgeway/v1/hq/commands/request"]),
        "cloud" => (&[&up, "ridgeway/v1/hq/status", "ridgeway/v1/hq/readers/+/status"], &[&down]),
        "bridge" => (
            &["ridgeway-link/v1/+/+/down", "ridgeway/v1/#"],
            &[
                "ridgeway-link/v1/+/+/up",
                "ridgeway/v1/+/status",
                "ridgeway/v1/+/readers/+/status",
                "ridgeway/v1/+/commands/request",
            ],
        ),
        "platform" => (&["ridgeway/v1/+/commands/request"], &["ridgeway/v1/#"]),
        "panel" => (&[], &["ridgeway/v1/hq/status", "ridgeway/v1/hq/readers/#"]),
        "viewer" => (
            &[],
            &[
                "ridgeway/v1/+/status",
                "ridgeway/v1/+/readers/+/status",
                "ridgeway/v1/+/readers/+/events/#",
                "ridgeway/v1/+/events/#",
            ],
        ),
        "custom" => (&["elsewhere"], &["elsewhere/#"]),
        other => panic!("{other} has no rights here"),
    };
    let owned = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect();
    (owned(publish), owned(subscribe))
}

/// MQTT's own matching, without the names that start with `$`.
fn meets(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) =
        (filter.split('/').collect(), topic.split('/').collect());
    filter.iter().enumerate().all(|(at, part)| {
        *part == "#" || topic.get(at).is_some_and(|level| *part == "+" || part == level)
    }) && (filter.len() == topic.len() || filter.last() == Some(&"#"))
}

/// Topics with which a filter is probed: those of the contract, and relatives of theirs.
fn probes() -> Vec<String> {
    let mut probes = every_topic();
    for topic in every_topic() {
        let levels: Vec<&str> = topic.split('/').collect();
        for at in 1..=levels.len() {
            probes.push(levels[..at].join("/"));
            probes.push(format!("{}/else", levels[..at].join("/")));
            let mut other = levels.clone();
            other[at - 1] = "else";
            probes.push(other.join("/"));
        }
    }
    probes
}

fn may_subscribe(granted: &[String], filter: &str, probes: &[String]) -> bool {
    probes
        .iter()
        .filter(|topic| meets(filter, topic))
        .all(|topic| granted.iter().any(|granted| meets(granted, topic)))
}

fn matrix_users() -> Vec<crate::User> {
    let mut users = users();
    let custom =
        Role::Custom { publish: vec!["elsewhere".into()], subscribe: vec!["elsewhere/#".into()] };
    users.push(crate::User::new("custom", "custom-password", custom));
    users
}

async fn matrix_broker(dir: &Path) -> Broker {
    let mut config = super::ways::config(dir);
    config.users = matrix_users();
    Broker::start(config).await.unwrap()
}

type Client = Raw<Box<dyn Wire>>;

/// One cell after the other of a column of the matrix: a way and a version.
struct Column<'a> {
    broker: &'a Broker,
    dir: &'a Path,
    way: Way,
    version: Version,
}

impl Column<'_> {
    async fn connect(&self, connect: &Connect) -> (Client, bool) {
        let stream = super::ways::dial(self.broker, self.way, self.dir).await;
        let mut client = Raw::over(stream, self.version);
        let ack = client.say_hello(connect).await.expect("a CONNACK");
        (client, ack.body[1] == 0)
    }

    async fn client(&self, user: &str) -> Client {
        let (client, accepted) = self.connect(&Connect::new(self.version, user, "cell")).await;
        assert!(accepted, "{user}");
        client
    }

    /// Whether a publish of these bytes was taken; nothing but a goodbye may come if it wasn't.
    async fn publishes(&self, user: &str, packets: &[BytesMut]) -> bool {
        let mut client = self.client(user).await;
        for packet in packets {
            client.send(packet).await;
            let Some(got) = client.next().await else { return false };
            match got.kind() {
                kind::PUBACK => {}
                kind::DISCONNECT => return false,
                other => panic!("{user}: packet {other}"),
            }
        }
        client.send(&DISCONNECT).await;
        true
    }

    async fn wills(&self, user: &str, topic: &[u8]) -> bool {
        let connect = Connect::new(self.version, user, "will").will(topic, "x", false);
        let (mut client, accepted) = self.connect(&connect).await;
        client.send(&DISCONNECT).await;
        accepted
    }

    /// The SUBACK's code for one filter; none if it ended the connection.
    async fn subscribes(&self, user: &str, filter: &[u8]) -> Option<u8> {
        let mut client = self.client(user).await;
        let mut body = BytesMut::from(&[0, 7][..]);
        if self.version == Version::V5 {
            body.put_u8(0);
        }
        text(&mut body, filter);
        body.put_u8(1);
        client.send(&packet(0x82, &body)).await;
        let got = client.next().await?;
        client.send(&DISCONNECT).await;
        (got.kind() == kind::SUBACK).then(|| *got.body.last().expect("a code"))
    }

    async fn check_publish(&self, user: &str, topic: &[u8], allowed: bool) {
        let cell = format!("{user} {topic:?} {:?} {:?}", self.way, self.version);
        let exact = publish(self.version, topic, 1, false, b"x");
        assert_eq!(self.publishes(user, &[exact]).await, allowed, "publishes {cell}");
        assert_eq!(self.wills(user, topic).await, allowed, "wills {cell}");
        if self.version == Version::V5 {
            // By an alias, and then by the alias alone.
            let alias =
                |topic: &[u8]| publish_with(self.version, topic, 1, 2, false, b"x", &[0x23, 0, 1]);
            let taken = self.publishes(user, &[alias(topic), alias(b"")]).await;
            // The empty name with an alias that was never set is no topic either.
            assert_eq!(taken, allowed, "publishes by alias {cell}");
        }
    }

    async fn check_subscribe(&self, user: &str, filter: &[u8], allowed: bool) {
        let cell = format!("{user} {filter:?} {:?} {:?}", self.way, self.version);
        match self.subscribes(user, filter).await {
            Some(code) if allowed => assert_eq!(code, 1, "subscribes {cell}"),
            Some(code) => assert!(code >= 0x80, "subscribes {cell}: {code:#x}"),
            None => assert!(!allowed, "subscribes {cell}: ended"),
        }
    }
}

/// Every topic as a filter, and wildcards: granted ones, wider ones, others'.
pub(super) fn every_filter() -> Vec<String> {
    let mut filters: Vec<String> = every_topic();
    filters.extend(
        [
            "#",
            "+",
            "+/#",
            "+/+/+/#",
            "ridgeway/#",
            "ridgeway/v1",
            "ridgeway/v1/#",
            "ridgeway/v1/hq/#",
            "ridgeway/+/#",
            "ridgeway/v1/+/status",
            "ridgeway/v1/+/commands/request",
            "ridgeway/v1/+/commands/+",
            "ridgeway-link/#",
            "ridgeway-link/v1/+/+/up",
            "ridgeway-link/v1/+/+/down",
            "ridgeway-link/v1/+/hq/down",
            "ridgeway/v1/+/readers/+/events/#",
            "ridgeway/v1/+/readers/#",
            "ridgeway/v1/hq/readers/#",
            "elsewhere/#",
            "ridgeway-broker/#",
        ]
        .map(str::to_owned),
    );
    filters
}

/// Every role, on every topic of the contract and on odd names, exactly and by alias, as message and as
/// will; on every wildcard made of them; by every way and in both versions. Denied is denied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grant_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let broker = matrix_broker(dir.path()).await;
    let probes = probes();
    let filters = every_filter();
    let (mut yes, mut no) = (0, 0);
    for way in WAYS {
        for version in BOTH {
            let column = Column { broker: &broker, dir: dir.path(), way, version };
            for user in matrix_users() {
                let (may_publish, subscribe) = granted(&user.name);
                for topic in every_topic() {
                    let allowed = may_publish.iter().any(|granted| meets(granted, &topic));
                    column.check_publish(&user.name, topic.as_bytes(), allowed).await;
                    *(if allowed { &mut yes } else { &mut no }) += 1;
                }
                for filter in &filters {
                    let allowed = may_subscribe(&subscribe, filter, &probes);
                    column.check_subscribe(&user.name, filter.as_bytes(), allowed).await;
                    *(if allowed { &mut yes } else { &mut no }) += 1;
                }
                for name in odd_names() {
                    column.check_publish(&user.name, &name, false).await;
                    column.check_subscribe(&user.name, &name, false).await;
                    no += 2;
                }
            }
        }
    }
    println!("{yes} cells allowed, {no} denied");
    assert!(yes > 300 && no > 3_000, "the matrix says both: {yes}, {no}");
    assert_eq!(broker.stats().rebuilds, 0);
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
