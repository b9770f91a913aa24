//! The WebSocket.

use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PATIENCE, Site, text, types};

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_without_a_finger_times_out_with_the_documented_two_messages() {
    let site = Site::start(|_| {}).await;
    let mut socket = site.socket().await;
    let start = json!({"type": "scan:start", "deviceId": null, "requestId": "r-1", "options": {"timeout": 1000}});
    socket.say(start).await;
    let seen = socket.through("scan:error").await;
    assert_eq!(types(&seen), ["scan:started", "scan:timeout", "scan:error"]);
    let error = seen.last().unwrap();
    assert_eq!((&error["code"], &error["retryable"]), (&json!(2002), &json!(false)));
    assert!(seen.iter().all(|message| message["requestId"] == "r-1"), "{seen:#?}");
    assert!(seen.iter().all(|message| message["event"] == message["type"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_goes_on_when_its_socket_closes() {
    let site = Site::start(|_| {}).await;
    let mut first = site.socket().await;
    first.say(json!({"type": "scan:start"})).await;
    let scan_id = text(&first.until("scan:started").await, "scanId").to_owned();
    drop(first);
    let mut second = site.bare_socket(&format!("/?apiKey={}", site.gateway().api_key())).await;
    assert_eq!(second.next().await["type"], "auth:success", "unasked, for a key in the handshake");
    let finger = site.press("somebody/right-index", 1);
    let complete = second.until("scan:complete").await;
    drop(finger);
    assert_eq!(complete["scanId"], scan_id.as_str());
    assert!(complete["template"].is_string(), "{complete}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_is_closed() {
    let site = Site::start(|_| {}).await;
    let mut silent = site.bare_socket("/").await;
    assert_eq!(silent.until("auth:error").await["code"], 4001);
    assert_eq!(silent.closed().await, 1008);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_closes_only_its_own_socket() {
    let site = Site::start(|_| {}).await;
    let mut witness = site.socket().await;
    let mut socket = site.socket().await;
    let huge = Message::text("x".repeat(300 * 1024));
    // The other end may close before all of it is written.
    let _ = socket.stream.send(huge).await;
    assert_eq!(socket.closed().await, 1009);
    witness.say(json!({"type": "ping"})).await;
    assert_eq!(witness.next().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_of_the_same_key_replaces_its_own_waiting_scan() {
    let site = Site::start(|_| {}).await;
    let first = site.get("/api/fingerprint/scan/start").await.1;
    let mut socket = site.socket().await;
    socket.say(json!({"type": "scan:start", "deviceId": "device-001"})).await;
    let started = socket.until("scan:started").await;
    assert_ne!(started["scanId"], first["scanId"]);
    socket.say(json!({"type": "scan:stop", "scanId": started["scanId"]})).await;
    socket.until("scan:stopped").await;
    socket.say(json!({"type": "scan:stop", "scanId": "scan-unknown"})).await;
    assert_eq!(socket.until("scan:error").await["code"], 3004);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_cut_and_holds_nobody_up() {
    let site = Site::start(|_| {}).await;
    let mut witness = site.socket().await;
    let mut deaf = site.socket().await;
    let asking = async {
        // Answers to these pile up. The end comes as an error, or as the count below.
        while deaf.stream.send(Message::text(r#"{"type":"ping"}"#)).await.is_ok() {}
    };
    let served = async {
        while site.gateway().api().sockets_overflowed() == 0 {
            witness.say(json!({"type": "ping"})).await;
            assert_eq!(witness.next().await["type"], "pong");
        }
    };
    let both = async {
        tokio::select! {
            () = served => {}
            () = async { asking.await; std::future::pending().await } => {}
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
}
