//! What a new user does.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use serde_json::Value;

use crate::support::{
    http::Api,
    mosquitto::{Broker, Version},
    process::{Process, run},
    text,
};

fn start(dir: &str) -> (Process, Value) {
    let any = "127.0.0.1:0";
    let process = Process::start(
        "demo",
        &[
            "demo",
            "--json",
            "--data-dir",
            dir,
            "--gateway-http",
            any,
            "--edge-mqtt",
            any,
            "--cloud-http",
            any,
            "--cloud-mqtt",
            any,
        ],
    );
    let line = process.json();
    (process, line)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_five_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let (demo, line) = start(dir);
    for (side, fields) in [
        ("gateway", &["id", "http", "mqtt", "apiKey", "simulatorDir"][..]),
        ("edge", &["mqttUser", "mqttPassword"]),
        ("cloud", &["http", "mqtt", "apiKey", "mqttUser", "mqttPassword"]),
    ] {
        for field in fields {
            assert!(!text(&line[side], field).is_empty(), "{side}.{field}");
        }
    }
    let devices = Api::new(text(&line["gateway"], "http"), text(&line["gateway"], "apiKey"))
        .ok("/api/devices")
        .await;
    assert_eq!(devices.as_array().map(Vec::len), Some(2), "two readers: {devices}");

    let listener = Broker {
        address: text(&line["gateway"], "mqtt").to_owned(),
        user: text(&line["edge"], "mqttUser").to_owned(),
        password: text(&line["edge"], "mqttPassword").to_owned(),
        extra: Vec::new(),
    }
    .subscribe("ridgeway/v1/#", Version::V311);
    let press = ["finger", "press", "user-001/right-index", "--reader", "device-001", "--data-dir"];
    let (code, out, error) = run(&[&press[..], &[dir]].concat());
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("SIM-0001"), "{out}");
    listener.wait_for(|message| message.topic.ends_with("device-001/events/identification/result"));
    loop {
        let event = demo.json();
        if event["type"] == "identification:result" {
            assert_eq!(event["match"], false);
            break;
        }
    }
    let cloud = Api::new(text(&line["cloud"], "http"), text(&line["cloud"], "apiKey"));
    let agents = cloud.ok("/api/agents").await;
    assert_eq!(agents[0]["status"], "online", "{agents}");

    let (code, out, _) = run(&["finger", "list", "--data-dir", dir]);
    assert_eq!(code, 0);
    assert!(out.contains("device-002") && out.contains("SIM-0002"), "{out}");

    let (code, _, error) = run(&["demo", "--data-dir", dir, "--json"]);
    assert_eq!(code, 1);
    assert!(error.contains("already runs") && error.contains(&demo.pid().to_string()), "{error}");

    assert!(demo.interrupt().success(), "Ctrl-C ends it cleanly");
    let (again, line) = start(dir);
    let kept =
        Api::new(text(&line["gateway"], "http"), text(&line["gateway"], "apiKey")).events().await;
    assert!(kept.iter().any(|e| e["type"] == "identification:result"), "it goes on with its data");
    assert!(again.interrupt().success());
}

#[test]
fn a_port_in_use_says_which_and_what_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--gateway-http", "--edge-mqtt", "--cloud-http", "--cloud-mqtt"] {
        let dir = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0";
        let mut args = vec!["demo", "--json", "--data-dir", dir.path().to_str().unwrap()];
        for other in ["--gateway-http", "--edge-mqtt", "--cloud-http", "--cloud-mqtt"] {
            args.extend([other, if other == flag { address.as_str() } else { any }]);
        }
        let (code, _, error) = run(&args);
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(&address) && error.contains(flag), "{flag}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_the_page_and_it_asks_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (_demo, line) = start(dir.path().to_str().unwrap());
    let address = text(&line["cloud"], "http");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {address}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.to_lowercase().contains("content-security-policy"), "{page}");
    assert!(page.contains("Ridgeway"));
    for outside in ["http://", "https://", "src=\"//"] {
        assert!(!page.contains(outside), "the page refers to {outside}");
    }
}
