//! The REST service.

use serde_json::json;

use crate::support::{Site, text, types};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_ends_the_capture_it_carried() {
    let site = Site::start(|_| {}).await;
    let mut socket = site.socket().await;
    let key = site.gateway().api_key().to_owned();
    let capture = site.client.post(site.url("/api/fingerprint/capture")).header("X-API-Key", key);
    let capture = tokio::spawn(capture.send());
    let scan_id = text(&socket.until("scan:started").await, "scanId").to_owned();
    capture.abort();
    let stopped = socket.until("scan:stopped").await;
    assert_eq!(stopped["scanId"], scan_id.as_str());
    // The event is told with its commit, a moment before the reader's own task goes on.
    site.until("the reader is idle", async || {
        let info = site.get("/api/devices/device-001/info").await.1;
        (info["status"] == "idle").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_polled_to_its_template_and_that_is_never_a_reference() {
    let site = Site::start(|_| {}).await;
    let (status, started) = site.get("/api/fingerprint/scan/start?deviceId=SIM-0001").await;
    assert_eq!((status, &started["status"]), (200, &json!("waiting")), "{started}");
    let poll = format!("/fingerprint/scan/status/{}", text(&started, "scanId"));
    assert_eq!(site.get(&poll).await.1["status"], "waiting");
    let finger = site.press("stranger/left-thumb", 1);
    let done = site
        .until("the scan is complete", async || {
            let (status, answer) = site.get(&poll).await;
            assert_eq!(status, 200);
            (answer["status"] == "complete").then_some(answer)
        })
        .await;
    drop(finger);
    assert!(done["quality"].is_u64() && done["scanTime"].is_u64(), "{done}");
    let body = json!({"template": done["template"], "userId": "nobody"});
    let (status, error) = site.post("/api/fingerprint/verify", body).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!(3004)), "{error}");
    let alone = json!({"template": done["template"], "candidates": [
        {"id": "same", "userId": 5, "template": done["template"]}
    ]});
    let (status, answer) = site.post("/api/fingerprint/match", alone).await;
    assert_eq!(
        (status, &answer["match"], &answer["userId"]),
        (200, &json!(true), &json!("5")),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_and_kept() {
    let site = Site::start(|config| {
        config.api.requests_per_minute = 5;
        config.api.polls_per_minute = 300;
        config.api.captures_per_minute = 1;
    })
    .await;
    let key = site.gateway().api_key().to_owned();
    let ask = |path: &str| site.client.get(site.url(path)).header("X-API-Key", &key).send();
    let mut last = None;
    for _ in 0..6 {
        last = Some(ask("/api/devices").await.unwrap());
    }
    let refused = last.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["x-ratelimit-limit"], "5");
    assert_eq!(refused.headers()["x-ratelimit-remaining"], "0");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    let body: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["error"]["code"], &body["error"]["retryAfter"]),
        (&json!(4004), &json!(wait))
    );
    let polled = ask("/api/fingerprint/scan/status/x").await.unwrap();
    assert_eq!(polled.status(), 404, "polls have a limit of their own");
    assert_eq!(ask("/health").await.unwrap().status(), 200, "health has none");
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_are_limited_by_reader_and_a_start_that_fails_costs_nothing() {
    let site = Site::start(|config| config.api.captures_per_minute = 2).await;
    let body = || json!({"timeout": 1000});
    let mut socket = site.socket().await;
    let (first, second) = tokio::join!(site.post("/api/fingerprint/capture", body()), async {
        socket.until("scan:started").await;
        site.post("/api/fingerprint/enroll", json!({"userId": "u"})).await
    });
    assert_eq!((first.0, &first.1["code"]), (422, &json!(2002)), "{first:?}");
    assert_eq!((second.0, &second.1["code"]), (503, &json!(1002)), "{second:?}");
    let third = site.post("/api/fingerprint/capture", body()).await;
    assert_eq!((third.0, &third.1["code"]), (422, &json!(2002)), "{third:?}");
    let fourth = site.post("/api/fingerprint/capture", body()).await;
    assert_eq!((fourth.0, &fourth.1["code"]), (429, &json!(4004)), "{fourth:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_itself_gets_wrong_is_answered_in_the_envelope() {
    let site = Site::start(|config| {
        config.api.cors_origins = vec!["https://app.example.org".to_owned()];
    })
    .await;
    let client = &site.client;
    let enroll = || client.post(site.url("/api/fingerprint/enroll"));
    for (request, expected) in [
        (client.get(site.url("/api/nothing")), 404),
        (client.delete(site.url("/api/devices")), 405),
        (client.get(site.url("/ws")), 426),
        (enroll().body("{"), 400),
        (enroll().body("<a/>").header("content-type", "text/xml"), 415),
        (enroll().body(vec![b' '; 1_100_000]), 413),
        (enroll().json(&json!({"userId": "u", "deviceId": "x"})), 404),
        (
            client.get(site.url("/api/fingerprint/scan/start")).header("Sec-Purpose", "prefetch"),
            400,
        ),
    ] {
        let (status, body) = site.send(request).await;
        assert_eq!(status, expected, "{body}");
        assert_eq!(
            (&body["success"], &body["error"]["statusCode"]),
            (&json!(false), &json!(status))
        );
        assert_eq!(body["code"], body["error"]["code"]);
    }
    let head = client.head(site.url("/api/fingerprint/scan/start"));
    let head = head.header("X-API-Key", site.gateway().api_key()).send().await.unwrap();
    assert_eq!(head.status(), 405, "a HEAD starts no scan");
    let preflight = |origin: &'static str| {
        client
            .request(reqwest::Method::OPTIONS, site.url("/api/devices"))
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "GET")
            .send()
    };
    let allowed = preflight("https://app.example.org").await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.example.org");
    assert_eq!(allowed.headers()["access-control-allow-private-network"], "true");
    let foreign = preflight("https://evil.example").await.unwrap();
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));
}
