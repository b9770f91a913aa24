//! Panels and platforms that come over the network: TLS with the gateway's own authority, WebSocket,
//! users and certificates that come and go while it runs, and a bridge's broker behind TLS.

use std::{io::Write as _, net::TcpListener, process::Command};

use crate::support::{
    eventually,
    mosquitto::{Broker, Version},
    process::run,
    site::{GATEWAY, Options, Site},
};

const STATUS: &str = "ridgeway/v1/hq-lobby/status";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A site whose broker also speaks TLS, and WebSocket in TLS, with certificates for who has one.
async fn secure_site() -> (Site, u16, u16) {
    let (tls, wss) = (free_port(), free_port());
    let gateway_extra = format!(
        "[[mqtt.listeners]]\naddress = \"127.0.0.1:{tls}\"\ntls = true\n\
         [[mqtt.listeners]]\naddress = \"127.0.0.1:{wss}\"\ntls = true\ntransport = \"websocket\"\n\
         [mqtt.tls]\nclient_certificates = \"optional\"\n"
    );
    let mut site = Site::new(Options { gateway_extra, ..Options::default() });
    site.start_gateway();
    (site, tls, wss)
}

fn ok(args: &[&str]) -> String {
    let (code, out, error) = run(args);
    assert_eq!(code, 0, "{args:?}: {error}");
    out
}

/// A client of the TLS listener.
fn client(site: &Site, port: u16, user: &str, password: &str) -> Broker {
    Broker {
        address: format!("localhost:{port}"),
        user: user.to_owned(),
        password: password.to_owned(),
        extra: vec!["--cafile".into(), site.path("gateway/mqtt-tls/ca.pem")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_certificates_come_and_go_while_it_runs() {
    let (site, tls, _) = secure_site().await;
    let config = site.path("gateway.toml");
    let said = ok(&["broker", "user", "add", "door-3", "--role", "panel", "--config", &config]);
    let password = said
        .lines()
        .find_map(|line| line.strip_prefix("Its password, shown only now: "))
        .unwrap_or_else(|| panic!("a password is shown: {said}"));
    let panel = client(&site, tls, "door-3", password);
    let command = "ridgeway/v1/hq-lobby/commands/request";
    // The broker takes the file within two seconds; a client is told until then that it is nobody.
    eventually("the new user gets in", async || {
        panel.subscribe_once(STATUS).map(|status| assert_eq!(status.json()["gateway"], GATEWAY))
    })
    .await;
    assert!(!panel.publish(command, "{}", Version::V5), "a panel may not command");
    let wrong = client(&site, tls, "door-3", "not the password");
    assert!(wrong.subscribe_once(STATUS).is_none());

    // By certificate, without a password.
    let out = site.path("card");
    ok(&["broker", "certificate", "door-3", "--out", &out, "--config", &config]);
    let mut carded = client(&site, tls, "", "");
    carded.extra = vec![
        "--cafile".into(),
        format!("{out}/ca.pem"),
        "--cert".into(),
        format!("{out}/door-3.pem"),
        "--key".into(),
        format!("{out}/door-3.key"),
    ];
    assert!(carded.subscribe_once(STATUS).is_some());

    let listed = ok(&["broker", "user", "list", "--json", "--config", &config]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["name"], "door-3");
    assert!(!listed.to_string().contains("argon2"), "{listed}");
    let metrics = site.local().text("/metrics").await;
    assert!(metrics.contains("ridgeway_mqtt_refusals_total{broker=\"edge\",reason="), "{metrics}");

    let kept = panel.subscribe("ridgeway/v1/hq-lobby/readers/#", Version::V5);
    let clients = async || site.local().text("/metrics").await.contains("role=\"panel\"");
    eventually("it is counted", async || clients().await.then_some(())).await;
    ok(&["broker", "user", "remove", "door-3", "--config", &config]);
    eventually("its connection ends", async || (!clients().await).then_some(())).await;
    assert!(panel.subscribe_once(STATUS).is_none());
    assert!(carded.subscribe_once(STATUS).is_none(), "nor does its certificate let it in");
    drop(kept);
    let (code, _, error) = run(&["broker", "user", "remove", "door-3", "--config", &config]);
    assert_eq!(code, 1);
    assert!(error.contains("no user \"door-3\""), "{error}");
}

/// Subscribes with paho over secure WebSocket, prints the first message.
const PAHO: &str = r#"
import ssl, sys
import paho.mqtt.client as mqtt
port, ca, user, password, version = sys.argv[1:]
protocol = {"3": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
client = mqtt.Client(transport="websockets", protocol=protocol)
client.tls_set(ca)
client.username_pw_set(user, password)
client.on_connect = lambda client, *_: client.subscribe("ridgeway/v1/hq-lobby/status", 1)
def on_message(client, _, message):
    print(message.topic, message.payload.decode(), flush=True)
    client.disconnect()
client.on_message = on_message
client.connect("localhost", int(port))
client.loop_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_client_over_tls() {
    let (site, _, wss) = secure_site().await;
    let script = site.path("client.py");
    std::fs::File::create(&script).unwrap().write_all(PAHO.as_bytes()).unwrap();
    let broker = site.edge_broker();
    for version in ["3", "5"] {
        let (port, ca) = (wss.to_string(), site.path("gateway/mqtt-tls/ca.pem"));
        let output = Command::new("timeout")
            .args(["30", "/usr/bin/python3", &script, &port, &ca])
            .args([&broker.user, &broker.password, version])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(STATUS) && said.contains("\"online\""), "{said} {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_reports_to_a_bridge_behind_tls() {
    let port = free_port();
    let mut site = Site::new(Options::default());
    let listener = format!("[[mqtt.listeners]]\naddress = \"127.0.0.1:{port}\"\ntls = true\n");
    site.append("bridge.toml", &listener);
    site.start_bridge();
    let config = std::fs::read_to_string(site.path("gateway.toml")).unwrap();
    let (before, rest) = config.split_once("[uplink]\nurl = ").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let ca = site.path("bridge/mqtt-tls/ca.pem");
    let uplink = format!("[uplink]\nurl = \"mqtts://localhost:{port}\"\nca_file = \"{ca}\"\n");
    std::fs::write(site.path("gateway.toml"), format!("{before}{uplink}{rest}")).unwrap();
    site.start_gateway();
    site.connected().await;
    let metrics = site.cloud().text("/metrics").await;
    let kind = "role=\"cloud-gateway\",transport=\"tls\"} 1";
    assert!(metrics.contains(kind), "{metrics}");
}
