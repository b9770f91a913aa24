//! The ways to the broker: TCP, TLS, WebSocket and both, client certificates, and a proxy before it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{self, Message, client::IntoClientRequest as _, http::StatusCode},
};

use super::harness::*;
use crate::{
    Broker, BrokerConfig, ClientCertificates, Listener, Refusal, Tls, Transport,
    front::{Wire, websocket::WebSocket},
    tls::{Authority, Issued},
    wire::{Version, kind},
};

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Tcp,
    Tls,
    WebSocket,
    SecureWebSocket,
}

pub(super) const WAYS: [Way; 4] = [Way::Tcp, Way::Tls, Way::WebSocket, Way::SecureWebSocket];

/// A listener for each way, in their order; certificates in `dir`.
pub(super) fn config(dir: &Path) -> BrokerConfig {
    let mut config = test_config();
    let plain = Listener::tcp("127.0.0.1:0".parse().unwrap());
    config.listeners = WAYS
        .map(|way| Listener {
            transport: match way {
                Way::Tcp | Way::Tls => Transport::Tcp,
                Way::WebSocket | Way::SecureWebSocket => Transport::WebSocket,
            },
            tls: matches!(way, Way::Tls | Way::SecureWebSocket),
            ..plain.clone()
        })
        .to_vec();
    config.tls = Some(Tls { directory: dir.to_owned(), ..Tls::default() });
    config
}

fn address(broker: &Broker, way: Way) -> SocketAddr {
    let at = WAYS.iter().position(|other| *other == way).unwrap();
    broker.local_addrs()[at]
}

/// What a client trusts, and shows.
fn client_config(authority: &Path, shows: Option<&Issued>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain =
                vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    Arc::new(config)
}

async fn tls(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, TcpStream::connect(address).await?).await
}

async fn websocket<S: Wire + 'static>(stream: S) -> Box<dyn Wire> {
    let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let (socket, response) = client_async(request, stream).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    Box::new(WebSocket::new(socket))
}

/// A stream to the broker, this way.
pub(super) async fn dial(broker: &Broker, way: Way, dir: &Path) -> Box<dyn Wire> {
    let address = address(broker, way);
    let config = || client_config(&dir.join("ca.pem"), None);
    match way {
        Way::Tcp => Box::new(TcpStream::connect(address).await.unwrap()),
        Way::Tls => Box::new(tls(address, config()).await.unwrap()),
        Way::WebSocket => websocket(TcpStream::connect(address).await.unwrap()).await,
        Way::SecureWebSocket => websocket(tls(address, config()).await.unwrap()).await,
    }
}

async fn user(broker: &Broker, way: Way, dir: &Path, connect: &Connect) -> Raw<Box<dyn Wire>> {
    let mut client = Raw::over(dial(broker, way, dir).await, connect.version);
    let ack = client.say_hello(connect).await.expect("a CONNACK");
    assert_eq!(ack.body[1], 0, "{way:?}");
    client
}

#[tokio::test]
async fn each_way_leads_to_the_same_broker() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(config(dir.path())).await.unwrap();
    for version in BOTH {
        for to in WAYS {
            let connect = Connect::new(version, "platform", "to");
            let mut subscriber = user(&broker, to, dir.path(), &connect).await;
            subscriber.subscribe(&[EVENT], 1).await;
            for from in WAYS {
                let connect = Connect::new(version, "edge", "from");
                let mut publisher = user(&broker, from, dir.path(), &connect).await;
                // Larger than any buffer on its way.
                let payload = format!("{from:?}").repeat(15_000);
                publisher.publish(EVENT, 1, false, payload.as_bytes()).await;
                let (topic, got) = subscriber.receive().await;
                assert_eq!((topic.as_str(), got.len()), (EVENT, payload.len()), "{from:?} {to:?}");
            }
        }
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_certificate_is_a_login() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.tls.as_mut().unwrap().client_certificates = ClientCertificates::Optional;
    let broker = Broker::start(config).await.unwrap();
    let ca = dir.path().join("ca.pem");
    let authority = Authority::open(dir.path()).unwrap();
    let panel = authority.issue_client("panel").unwrap();
    let way = address(&broker, Way::Tls);
    // What a client says, whether it gets in: with panel's certificate, only as panel.
    for (user, password, code) in [
        (None, None, 0),
        (Some("panel"), Some("wrong"), 0),
        (Some("edge"), Some("edge-password"), 0x87),
    ] {
        let stream = tls(way, client_config(&ca, Some(&panel))).await.unwrap();
        let mut client = Raw::over(stream, Version::V5);
        client.send(&hello(user, password)).await;
        let ack = client.expect(kind::CONNACK).await;
        assert_eq!(ack.body[1] == 0, code == 0, "{user:?}: {ack:?}");
        if code == 0 {
            assert_eq!(client.subscribe(&["ridgeway/v1/hq/status"], 1).await, [1]);
            assert_eq!(client.subscribe(&["ridgeway/v1/#"], 1).await, [0x87]);
        }
    }
    // Without one, a password does as before; nobody is nobody.
    let mut client = Raw::over(tls(way, client_config(&ca, None)).await.unwrap(), Version::V5);
    assert_eq!(
        client.say_hello(&Connect::new(Version::V5, "panel", "p")).await.unwrap().body[1],
        0
    );
    let mut client = Raw::over(tls(way, client_config(&ca, None)).await.unwrap(), Version::V5);
    client.send(&hello(None, None)).await;
    assert_ne!(client.expect(kind::CONNACK).await.body[1], 0);
    // A certificate for somebody who is no user.
    let stranger = authority.issue_client("stranger").unwrap();
    let stream = tls(way, client_config(&ca, Some(&stranger))).await.unwrap();
    let mut client = Raw::over(stream, Version::V5);
    client.send(&hello(None, None)).await;
    assert_ne!(client.expect(kind::CONNACK).await.body[1], 0);
    broker.shutdown().await;
}

/// CONNECT of MQTT 5 with or without a name and a password.
fn hello(user: Option<&str>, password: Option<&str>) -> bytes::BytesMut {
    let flags = u8::from(user.is_some()) << 7 | u8::from(password.is_some()) << 6 | 2;
    let mut body = bytes::BytesMut::from(&b"\x00\x04MQTT\x05"[..]);
    body.extend([flags, 0, 60, 0]);
    text(&mut body, b"");
    for part in [user, password].into_iter().flatten() {
        text(&mut body, part.as_bytes());
    }
    packet(0x10, &body)
}

#[tokio::test]
async fn required_certificates_are_required_and_of_the_right_authority() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(dir.path());
    config.tls.as_mut().unwrap().client_certificates = ClientCertificates::Required;
    let broker = Broker::start(config).await.unwrap();
    let forged = Authority::open(other.path()).unwrap().issue_client("panel").unwrap();
    let way = address(&broker, Way::Tls);
    for shows in [None, Some(&forged)] {
        // TLS 1.3 clients learn of it only when they read.
        let config = client_config(&dir.path().join("ca.pem"), shows);
        if let Ok(stream) = tls(way, config).await {
            let mut client = Raw::over(stream, Version::V5);
            client.send(&Connect::new(Version::V5, "panel", "p").bytes()).await;
            assert_eq!(client.next().await, None);
        }
    }
    until("both are counted", || broker.stats().refused(Refusal::Tls) == 2).await;
    assert_eq!(broker.stats().accepted, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let (dir, next) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(dir.path());
    let files = |dir: &Path| Authority::open(dir).unwrap().server_files(&[]).unwrap();
    let (certificate, key) = files(dir.path());
    let tls_section = config.tls.as_mut().unwrap();
    tls_section.certificate_file = Some(certificate.clone());
    tls_section.key_file = Some(key.clone());
    let broker = Broker::start(config).await.unwrap();
    let way = address(&broker, Way::Tls);
    let ca = dir.path().join("ca.pem");
    let stream = tls(way, client_config(&ca, None)).await.unwrap();
    let mut old = Raw::over(stream, Version::V5);
    old.say_hello(&Connect::new(Version::V5, "platform", "old")).await.unwrap();

    let (new_certificate, new_key) = files(next.path());
    fs::copy(&new_key, &key).unwrap();
    // A key without its certificate: for a moment, or because of a mistake. The old pair stays.
    let acceptor = broker.shared().tls.as_ref().unwrap();
    eventually("the mistake is found", async || acceptor.saw(&fs::read(&new_key).unwrap())).await;
    tls(way, client_config(&ca, None)).await.unwrap();

    fs::copy(&new_certificate, &certificate).unwrap();
    let new_ca = next.path().join("ca.pem");
    eventually("the new certificate is offered", async || {
        tls(way, client_config(&new_ca, None)).await.is_ok()
    })
    .await;
    assert!(tls(way, client_config(&ca, None)).await.is_err());
    old.is_quiet().await;
    broker.shutdown().await;
}

#[tokio::test]
async fn websocket_handshakes_that_are_not_ours_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.listeners[2].origins = vec!["https://panel.example".to_owned()];
    let broker = Broker::start(config).await.unwrap();
    let way = address(&broker, Way::WebSocket);
    for (protocol, origin, status) in [
        (Some("mqtt"), None, 101),
        (Some("mqttv3.1, mqtt"), None, 101),
        (Some("mqtt"), Some("https://panel.example"), 101),
        (Some("mqtt"), Some("https://evil.example"), 403),
        (Some("mqtt"), Some("null"), 403),
        (Some("mqtt"), Some("http://localhost"), 101),
        (Some("mqtt"), Some("https://localhost"), 403),
        (Some("mqtt"), Some("http://localhost:1"), 403),
        (Some("chat"), None, 400),
        (None, None, 400),
    ] {
        let mut request = "ws://localhost/any/path".into_client_request().unwrap();
        for (name, value) in [("sec-websocket-protocol", protocol), ("origin", origin)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        let got = match client_async(request, TcpStream::connect(way).await.unwrap()).await {
            Ok((_, response)) => response.status(),
            Err(tungstenite::Error::Http(response)) => response.status(),
            // 101 without the protocol that was asked for is an error of the client's.
            Err(error) => panic!("{protocol:?} {origin:?}: {error}"),
        };
        assert_eq!(got, StatusCode::from_u16(status).unwrap(), "{protocol:?} {origin:?}");
    }
    assert_eq!(broker.stats().refused(Refusal::Origin), 4);
    assert_eq!(broker.stats().refused(Refusal::WebSocket), 2);
    broker.shutdown().await;
}

#[tokio::test]
async fn packets_cross_the_borders_of_messages_and_text_is_no_mqtt() {
    use futures_util::{SinkExt as _, StreamExt as _};
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(config(dir.path())).await.unwrap();
    let way = address(&broker, Way::WebSocket);
    let open = async || {
        let mut request = "ws://localhost/".into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
        client_async(request, TcpStream::connect(way).await.unwrap()).await.unwrap().0
    };
    let mut socket = open().await;
    let bytes = [&Connect::new(Version::V311, "edge", "x").bytes()[..], &PINGREQ].concat();
    for byte in bytes {
        socket.send(Message::binary(vec![byte])).await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 6 {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => got.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, [0x20, 2, 0, 0, 0xD0, 0]);
    let mut socket = open().await;
    socket.send(Message::text("CONNECT")).await.unwrap();
    assert!(!matches!(socket.next().await, Some(Ok(Message::Binary(_)))));
    broker.shutdown().await;
}

fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[10, 0, 0, 1], &[0x12, 0x34], &[0, 80]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &addresses].concat()
}

#[tokio::test]
async fn behind_a_proxy_the_clients_own_address_counts() {
    let mut config = test_config();
    config.listeners[0].proxies = vec!["127.0.0.1".parse().unwrap()];
    config.limits.max_connections_per_address = 1;
    let broker = Broker::start(config).await.unwrap();
    let connect = Connect::new(Version::V5, "platform", "");
    let mut kept = Vec::new();
    for (address, code) in [([192, 0, 2, 1], 0), ([192, 0, 2, 2], 0), ([192, 0, 2, 1], 0x97)] {
        let mut client = Raw::open(broker.local_addr(), Version::V5).await;
        client.send(&proxy_header(address)).await;
        assert_eq!(client.say_hello(&connect).await.unwrap().body[1], code, "{address:?}");
        kept.push(client);
    }
    let (mut client, ack) = Raw::try_connect(broker.local_addr(), &connect).await;
    assert_eq!(ack, None, "nobody comes without the proxy's header");
    assert_eq!(client.next().await, None);
    broker.shutdown().await;

    let mut config = test_config();
    config.listeners[0].proxies = vec!["192.0.2.9".parse().unwrap()];
    let broker = Broker::start(config).await.unwrap();
    let mut client = Raw::open(broker.local_addr(), Version::V5).await;
    client.send(&proxy_header([192, 0, 2, 1])).await;
    assert_eq!(client.next().await, None, "and no proxy but those that are named");
    assert_eq!(broker.stats().refused(Refusal::Proxy), 1);
    broker.shutdown().await;
}

#[tokio::test]
async fn k6_silent_peers_on_tls_and_websocket_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(config(dir.path())).await.unwrap();
    let mut silent = Vec::new();
    for way in WAYS {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address(&broker, way)).await.unwrap();
            // Half a TLS record, half a request line.
            let _ = stream.write_all(&[0x16, 3, 1, 2]).await;
            silent.push(stream);
        }
    }
    for way in WAYS {
        user(&broker, way, dir.path(), &Connect::new(Version::V5, "platform", "x")).await;
    }
    let turned_away = || {
        let stats = broker.stats();
        let by = [Refusal::Tls, Refusal::WebSocket, Refusal::SlowConnect, Refusal::NotMqtt];
        by.iter().map(|refusal| stats.refused(*refusal)).sum::<u64>()
    };
    until("the silent ones are turned away", || turned_away() == 80).await;
    broker.shutdown().await;
}
