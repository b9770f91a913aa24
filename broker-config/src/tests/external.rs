//! Real brokers with the generated files grant what the embedded one grants. They refuse in ways of
//! their own (a closed connection, a code, silence), so what counts is what arrives: nothing of an
//! unauthorised client reaches a witness who reads everything, nothing reaches an unauthorised reader.

mod servers;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use topics::Root;

use self::servers::{Server, everybody};
use super::{
    grants::{every_filter, every_topic},
    harness::*,
};
use crate::{
    ClientCertificates, User,
    external::Kind,
    wire::{Version, kind},
};

/// Where the witnesses end a round.
const FENCE: &str = "fence";

const UNSUBACK: u8 = 11;

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

/// The way to a broker.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    address: SocketAddr,
    version: Version,
}

impl Way {
    /// As a client that never was: NATS keeps one that comes back at once waiting.
    fn connect(self, user: &str) -> Connect {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Connect::new(self.version, user, &format!("client-{id}"))
    }

    async fn login(self, user: &str) -> Raw {
        let (client, ack) = Raw::try_connect(self.address, &self.connect(user)).await;
        let code = ack.unwrap_or_else(|| panic!("{user} gets no CONNACK")).body[1];
        assert_eq!(code, 0, "{user} gets in by {} {:?}", self.name, self.version);
        client
    }
}

/// One who reads everything, and one who writes anything.
struct Witness {
    reader: Raw,
    writer: Raw,
    fences: u32,
}

impl Witness {
    async fn start(way: Way) -> Self {
        let mut reader = way.login("witness").await;
        assert_eq!(reader.subscribe(&["#"], 0).await, [0]);
        let writer = way.login("witness").await;
        Self { reader, writer, fences: 0 }
    }

    /// The payloads that arrived since the last time.
    async fn seen(&mut self) -> BTreeSet<String> {
        self.fences += 1;
        let fence = self.fences.to_string();
        self.writer.publish(FENCE, 1, false, fence.as_bytes()).await;
        let mut seen = BTreeSet::new();
        loop {
            let (topic, payload) = self.reader.receive().await;
            let payload = String::from_utf8(payload).unwrap();
            if topic == FENCE && payload == fence {
                return seen;
            }
            assert!(topic != FENCE && seen.insert(format!("{topic} {payload}")), "{topic} twice");
        }
    }

    /// A message to every topic; they are with the broker when this returns.
    async fn write_everywhere(&mut self, version: Version) {
        // With QoS 1 all of them: others may overtake on their way through RabbitMQ.
        let mut waiting = BTreeSet::new();
        for (id, topic) in (1..).zip(every_topic()) {
            self.writer.send(&publish(version, &topic, id, false, b"everywhere")).await;
            waiting.insert(id);
        }
        while !waiting.is_empty() {
            let ack = self.writer.expect(kind::PUBACK).await;
            waiting.remove(&u16::from_be_bytes([ack.body[0], ack.body[1]]));
        }
        assert_eq!(self.seen().await.len(), every_topic().len());
    }
}

fn ways(server: &Server, versions: &[Version]) -> Vec<Way> {
    let mut ways = Vec::new();
    for (name, address) in server.addresses() {
        ways.extend(versions.iter().map(|&version| Way { name, address, version }));
    }
    ways
}

/// Everybody but the witness.
fn clients() -> Vec<User> {
    everybody().into_iter().filter(|user| user.name != "witness").collect()
}

/// Publishes to all topics.
async fn publishes(way: Way, witness: &mut Witness, user: &User) -> usize {
    let mut expected = BTreeSet::new();
    let mut client = way.login(&user.name).await;
    for topic in every_topic() {
        let granted = user.role.may_publish(&Root::default(), &topic);
        client.send(&publish(way.version, &topic, 1, false, b"x")).await;
        let answer = client.next().await;
        if granted {
            assert_eq!(answer.map(|got| got.kind()), Some(kind::PUBACK), "{topic}");
            expected.insert(format!("{topic} x"));
        } else {
            // Some brokers close the connection, now or after an answer.
            client.send(&PINGREQ).await;
            if answer.is_none() || client.next().await.is_none() {
                client = way.login(&user.name).await;
            }
        }
    }
    let seen = witness.seen().await;
    assert_eq!(seen, expected, "{} publishes by {} {:?}", user.name, way.name, way.version);
    expected.len()
}

/// Connects with a will to each topic, and goes without a goodbye.
async fn wills(way: Way, witness: &mut Witness, user: &User) {
    let mut expected = BTreeSet::new();
    for topic in every_topic() {
        if user.role.may_publish(&Root::default(), &topic) {
            expected.insert(format!("{topic} will"));
        }
        let connect = way.connect(&user.name).will(&topic, "will", false);
        let (client, _) = Raw::try_connect(way.address, &connect).await;
        let mut client = client;
        // The broker closes once it has dealt with the will.
        client.rest_after_closing().await;
    }
    // Through TLS the end travels through a relay, and a broker may take its time over a will.
    let mut seen = BTreeSet::new();
    until_async("all wills arrive", async || {
        seen.extend(witness.seen().await);
        expected.is_subset(&seen)
    })
    .await;
    assert_eq!(seen, expected, "{} wills by {} {:?}", user.name, way.name, way.version);
}

/// Waits until `condition` holds.
async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Subscribes to each filter and sees what comes of a message to every topic.
async fn subscribes(way: Way, witness: &mut Witness, user: &User) -> usize {
    let root = Root::default();
    let mut granted_count = 0;
    let mut client = way.login(&user.name).await;
    for filter in every_filter() {
        let granted = user.role.may_subscribe(&root, &filter);
        granted_count += usize::from(granted);
        let what = format!("{} subscribes {filter} by {} {:?}", user.name, way.name, way.version);
        client.send(&subscribe(way.version, 7, &[&filter], 0)).await;
        let alive = match client.next().await {
            Some(_) => {
                witness.write_everywhere(way.version).await;
                arrives(&mut client, way, user, &filter, &what).await
            }
            None => false,
        };
        assert!(alive || !granted, "{what}: the connection ended");
        if !alive {
            client = way.login(&user.name).await;
            continue;
        }
        client.send(&unsubscribe(way.version, 8, &[&filter])).await;
        client.expect(UNSUBACK).await;
    }
    granted_count
}

/// Whether the connection lives, and all that was granted came through it, and nothing else.
async fn arrives(client: &mut Raw, way: Way, user: &User, filter: &str, what: &str) -> bool {
    let root = Root::default();
    let mut expected = every_topic();
    expected.retain(|topic| user.role.may_subscribe(&root, filter) && meets(filter, topic));
    let mut pinged = false;
    loop {
        if expected.is_empty() && !pinged {
            client.send(&PINGREQ).await;
            pinged = true;
        }
        match client.next().await {
            Some(got) if got.kind() == kind::PUBLISH => {
                let (topic, ..) = got.publish(way.version);
                assert!(user.role.may_subscribe(&root, &topic), "{what}: {topic} arrives");
                expected.retain(|waiting| *waiting != topic);
            }
            Some(got) if got.kind() == kind::PINGRESP => return true,
            Some(other) => panic!("{what}: {other:?} instead of {expected:?}"),
            None => return false,
        }
    }
}

/// MQTT's own matching.
fn meets(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Nobody gets in with another's password, without one, or under an unknown name.
async fn logins(way: Way) {
    for (user, password) in
        [("edge", "wrong"), ("edge", "panel-password"), ("edge", ""), ("nobody", "nobody-password")]
    {
        let mut connect = way.connect(user);
        connect.password = password.to_owned();
        let (_, ack) = Raw::try_connect(way.address, &connect).await;
        assert!(ack.is_none_or(|ack| ack.body[1] != 0), "{user} with {password:?}");
    }
}

/// RabbitMQ listens some seconds before it knows its users.
async fn ready(way: Way) {
    until_async("the witness gets in", async || {
        let (_, ack) = Raw::try_connect(way.address, &way.connect("witness")).await;
        ack.is_some_and(|ack| ack.body[1] == 0)
    })
    .await;
}

/// A state that was there before the subscription, for those who may read it. RabbitMQ keeps its word
/// only to a filter without wildcards.
async fn retained(way: Way, witness: &mut Witness, to_wildcards: bool) {
    let topic = "ridgeway/v1/hq/status";
    witness.writer.publish(topic, 1, true, b"retained").await;
    let mut viewer = way.login("viewer").await;
    let filter = if to_wildcards { "ridgeway/v1/+/status" } else { topic };
    viewer.subscribe(&[filter], 0).await;
    assert_eq!(viewer.receive().await, (topic.to_owned(), b"retained".to_vec()));
    let mut other = way.login("cloud").await;
    other.send(&subscribe(way.version, 7, &[topic], 0)).await;
    other.send(&PINGREQ).await;
    while let Some(got) = other.next().await {
        assert_ne!(got.kind(), kind::PUBLISH, "{} {:?}", way.name, way.version);
        if got.kind() == kind::PINGRESP {
            break;
        }
    }
    witness.writer.publish(topic, 1, true, b"").await;
    let _ = witness.seen().await;
}

/// The whole matrix.
async fn matrix(server: &Server, versions: &[Version], retained_to_wildcards: bool) {
    for way in ways(server, versions) {
        ready(way).await;
        logins(way).await;
        let mut witness = Witness::start(way).await;
        retained(way, &mut witness, retained_to_wildcards).await;
        let (mut published, mut subscribed) = (0, 0);
        for user in clients() {
            published += publishes(way, &mut witness, &user).await;
            wills(way, &mut witness, &user).await;
            subscribed += subscribes(way, &mut witness, &user).await;
        }
        assert!(published > 20 && subscribed > 20, "says yes: {published}, {subscribed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_grants_the_same() {
    let server = Server::start(Kind::Mosquitto, true, true).await;
    matrix(&server, &BOTH, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_grants_the_same() {
    for tls in [false, true] {
        let server = Server::start(Kind::Nats, !tls, tls).await;
        matrix(&server, &[Version::V311], true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_grants_the_same() {
    let server = Server::start(Kind::RabbitMq, true, true).await;
    matrix(&server, &[Version::V311], false).await;
}

/// A client certificate is the login: its common name is the user, whatever CONNECT says.
#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_takes_the_user_from_the_client_certificate() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, key);
    let server = Server::start_with(Kind::Mosquitto, false, true, |config| {
        let tls = config.tls.as_mut().unwrap();
        let file = tls.key_file.as_ref().unwrap().with_file_name("clients.pem");
        std::fs::write(&file, &pem).unwrap();
        tls.client_certificates = ClientCertificates::Required;
        tls.client_ca_file = Some(file);
    })
    .await;
    let behind = server.tls_behind.unwrap();
    let login = async |common_name: Option<&str>, version| {
        let certificate = common_name.map(|name| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            let (kind, name) = match name.strip_prefix("O=") {
                Some(name) => (rcgen::DnType::OrganizationName, name),
                None => (rcgen::DnType::CommonName, name),
            };
            params.distinguished_name.push(kind, name);
            (params.signed_by(&key, &issuer).unwrap().der().clone(), key.serialize_der())
        });
        let way = Way { name: "TLS", address: server.relay(behind, certificate).await, version };
        let mut connect = way.connect("platform");
        connect.password = "wrong".to_owned();
        let (client, ack) = Raw::try_connect(way.address, &connect).await;
        ack.filter(|ack| ack.body[1] == 0).map(|_| client)
    };
    for version in BOTH {
        assert!(login(None, version).await.is_none(), "no certificate");
        assert!(login(Some("O=panel"), version).await.is_none(), "no common name");
        let mut witness = login(Some("witness"), version).await.expect("the witness");
        let mut panel = login(Some("panel"), version).await.expect("the panel");
        panel.subscribe(&["ridgeway/v1/#"], 0).await;
        // An empty name gets in, and is nobody.
        let mut nobody = login(Some(""), version).await.expect("a certificate of the authority");
        nobody.subscribe(&["#"], 0).await;
        witness.publish("ridgeway/v1/other/status", 1, false, b"another's").await;
        witness.publish("ridgeway/v1/hq/status", 2, false, b"its own").await;
        assert_eq!(panel.receive().await.1, b"its own");
        nobody.is_quiet().await;
    }
}
