//! The whole gateway as its clients see it: HTTP, WebSocket and MQTT, simulated readers behind.

mod support;

use serde_json::json;
use support::{Site, text, types};

/// Not a test: the readers' child process.
#[test]
#[ignore = "started by the gateways of the other tests"]
fn reader_host() {
    support::be_the_host();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key_and_everything_else_does() {
    let site = Site::start(|_| {}).await;
    let health: serde_json::Value =
        site.client.get(site.url("/api/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&health["status"], &health["dbStatus"]),
        (&json!("healthy"), &json!("operational"))
    );
    assert_eq!(health["deviceStatus"], "connected");
    let short: serde_json::Value =
        site.client.get(site.url("/health")).send().await.unwrap().json().await.unwrap();
    assert_eq!(short["status"], "ok");
    for path in ["/api/devices", "/api/events", "/api/fingerprint/scan/start"] {
        let refused = site.client.get(site.url(path)).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{path}");
        assert!(refused.headers().contains_key("x-request-id"));
        let body: serde_json::Value = refused.json().await.unwrap();
        assert_eq!((&body["error"]["code"], &body["code"]), (&json!(4001), &json!(4001)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment_is_told_step_by_step_and_then_the_finger_is_known() {
    let site = Site::start(|_| {}).await;
    let mut socket = site.socket().await;
    socket.say(json!({"type": "subscribe", "deviceId": "device-001"})).await;
    let enrolment = async {
        site.post(
            "/fingerprint/enroll",
            json!({"userId": 17, "metadata": {"fingerPosition": "right_index"}}),
        )
        .await
    };
    let placements = async {
        let mut seen = Vec::new();
        for impression in 1..=3 {
            if impression == 1 {
                seen.extend(socket.through("device:status").await);
            }
            let finger = site.press("user-17/right-index", impression);
            seen.extend(socket.through("fingerprint:detected").await);
            let next = if impression < 3 { "scan:progress" } else { "scan:complete" };
            seen.extend(socket.through(next).await);
            drop(finger);
        }
        seen.extend(socket.through("device:status").await);
        seen
    };
    let ((status, answer), seen) = tokio::join!(enrolment, placements);
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["success"], &answer["userId"]), (&json!(true), &json!("17")));
    assert_eq!((&answer["scansCompleted"], &answer["deviceId"]), (&json!(3), &json!("device-001")));
    let kinds = types(&seen);
    assert_eq!(
        kinds.iter().filter(|kind| **kind == "fingerprint:detected").count(),
        3,
        "{kinds:?}"
    );
    assert_eq!(kinds.iter().filter(|kind| **kind == "scan:complete").count(), 1, "{kinds:?}");
    assert_eq!(kinds[kinds.len() - 2..], ["fingerprint:enrolled", "device:status"], "{kinds:?}");
    let complete = seen.iter().find(|message| message["type"] == "scan:complete").unwrap();
    assert_eq!(complete["template"], answer["template"], "the owner's socket gets the template");

    let identify = site.post("/api/fingerprint/identify", json!({"deviceId": null}));
    let press = async {
        socket.until("scan:started").await;
        let finger = site.press("user-17/right-index", 9);
        socket.until("identification:result").await;
        drop(finger);
    };
    let ((status, answer), ()) = tokio::join!(identify, press);
    assert_eq!(
        (status, &answer["matched"], &answer["userId"]),
        (200, &json!(true), &json!("17")),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_can_be_asked_for_in_pages() {
    let site = Site::start(|_| {}).await;
    let started = site.get("/api/fingerprint/scan/start").await.1;
    let stop = format!("/api/fingerprint/scan/stop/{}", text(&started, "scanId"));
    assert_eq!(site.post(&stop, json!({})).await.0, 200);
    let mut after = String::new();
    let mut types = Vec::new();
    let all = site
        .until("the scan's end is there", async || {
            let (status, page) = site.get("/api/events?limit=1000").await;
            assert_eq!(status, 200);
            let events = page["events"].as_array().unwrap().clone();
            events.iter().any(|event| event["type"] == "scan:stopped").then_some(events)
        })
        .await;
    loop {
        let (status, page) = site.get(&format!("/api/events?limit=2{after}")).await;
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap();
        let Some(last) = events.last() else { break };
        assert_eq!(page["next"], last["id"]);
        after = format!("&after={}", text(last, "id"));
        types.extend(events.iter().map(|event| text(event, "type").to_owned()));
    }
    assert!(types.len() >= all.len());
    for expected in ["service:status", "device:connected", "scan:started", "scan:stopped"] {
        assert!(types.iter().any(|kind| kind == expected), "{expected} in {types:?}");
    }
    let (status, error) = site.get("/api/events?after=0199c0de-0000-7000-8000-000000000000").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!(3004)));
    assert_eq!(site.get("/api/events?limit=0").await.0, 400);
}
