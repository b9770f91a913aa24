//! The documented local service, as its documented clients use it.

use serde_json::json;

use crate::{
    identify_by_touch::enrol,
    support::{
        eventually,
        site::{Options, Site},
        text,
    },
};

const FINGER: &str = "user-001/right-index";

async fn site() -> Site {
    let mut site = Site::new(Options { idle_mode: "off", ..Options::default() });
    site.start_gateway();
    site
}

/// S1: the template of a scan is never compared with a fresh capture. A stranger who scans, and
/// sends that scan as the template to verify against, must not be anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_just_scanned_template_is_never_compared_with_a_fresh_capture() {
    let mut site = site().await;
    enrol(&site, "user-001", FINGER).await;
    let scanned = scan(&site, "stranger/left-thumb").await;
    let own = scan(&site, FINGER).await;

    // Also after a restart: what tells a scan from a reference is in the template itself.
    site.kill_gateway();
    site.start_gateway();
    let api = site.local();
    let stranger = json!({"template": scanned, "userId": "user-001"});
    let (status, answer) = api.post("/api/fingerprint/verify", stranger).await;
    assert_eq!((status, &answer["match"]), (200, &json!(false)), "{answer}");
    let (status, answer) =
        api.post("/api/fingerprint/verify", json!({"template": own, "userId": "user-001"})).await;
    assert_eq!((status, &answer["match"]), (200, &json!(true)), "{answer}");
    let (status, answer) =
        api.post("/api/fingerprint/verify", json!({"template": own, "userId": "nobody"})).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(3004)), "{answer}");
}

/// S2: an enrolment's template is a reference: a live finger is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_template_is_verified_with_a_live_finger() {
    let site = site().await;
    let mut socket = site.local_socket().await;
    enrol(&site, "user-001", FINGER).await;
    let complete = socket.wait_for(|m| m["type"] == "scan:complete").await;
    let template = text(&complete, "template").to_owned();
    for (finger, expected) in [(FINGER, true), ("stranger/left-thumb", false)] {
        let api = site.local();
        let body = json!({"templateData": template, "userId": "user-001", "deviceId": null});
        let answer = tokio::spawn(async move { api.post("/api/fingerprint/verify", body).await });
        socket.wait_for(|m| m["type"] == "scan:started").await;
        site.sensor(0).press(finger, 7).await;
        let (status, answer) = answer.await.unwrap();
        assert_eq!((status, &answer["match"]), (200, &json!(expected)), "{finger}: {answer}");
        assert_eq!(answer["matched"], answer["match"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_the_documented_ones() {
    let site = site().await;
    let api = site.local();
    let (status, error) = api.get("/api/devices/device-999/info").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!(1001)));
    assert_eq!(error["error"]["name"], "DEVICE_NOT_FOUND");
    assert_eq!((&error["code"], &error["success"]), (&json!(1001), &json!(false)));
    assert!(text(&error, "message").to_lowercase().contains("device not found"));
    let (status, error) = api
        .post(
            "/api/fingerprint/verify",
            json!({"template": "AAAA", "userId": "u", "deviceId": "x"}),
        )
        .await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (404, &json!(1001)),
        "the reader is checked first"
    );
    let (status, error) = api.get("/api/fingerprint/scan/status/unknown").await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!(3004)));
    let (status, error) = api.post("/api/fingerprint/enroll", json!({})).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!(400)));
}

async fn scan(site: &Site, finger: &str) -> String {
    let api = site.local();
    let started = api.ok("/api/fingerprint/scan/start").await;
    let path = format!("/api/fingerprint/scan/status/{}", text(&started, "scanId"));
    site.sensor(0).press(finger, 5).await;
    let done = eventually("the scan is complete", async || {
        let status = api.ok(&path).await;
        assert_ne!(status["status"], "error", "{status}");
        (status["status"] == "complete").then_some(status)
    })
    .await;
    text(&done, "template").to_owned()
}
