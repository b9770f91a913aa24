//! A finger on an idle reader: one event, the same object everywhere, once.

use serde_json::{Value, json};

use crate::support::{
    eventually,
    mosquitto::{Subscriber, Version},
    only,
    site::{Options, Site},
    text,
};

const FINGER: &str = "user-001/right-index";

#[tokio::test(flavor = "multi_thread")]
async fn a_known_finger_is_the_same_event_everywhere_once_and_a_stranger_is_nobody() {
    let site = Site::start(Options::default()).await;
    enrol(&site, "user-001", FINGER).await;

    let edge = [Version::V311, Version::V5]
        .map(|version| site.edge_broker().subscribe("ridgeway/v1/#", version));
    let cloud = site.cloud_broker().subscribe("ridgeway/v1/#", Version::V5);
    let mut local = site.local_socket().await;
    local.send(json!({"type": "subscribe", "deviceId": "*"})).await;
    local.wait_for(|message| message["type"] == "subscribe:success").await;
    let mut dashboard = site.cloud_socket().await;

    site.sensor(0).press(FINGER, 9).await;
    let on_site = local.wait_for(is_result).await;
    assert_eq!(on_site["match"], true, "{on_site}");
    assert_eq!(on_site["userId"], "user-001");
    assert!(on_site["confidence"].as_f64().unwrap() >= 70.0);
    let id = text(&on_site, "id").to_owned();

    let in_cloud = dashboard.wait_for(|message| is_result(&message["data"])).await;
    assert_eq!(without_user(&in_cloud["data"]), without_user(&on_site));
    for listener in edge.iter().chain([&cloud]) {
        let message = listener.wait_for(|message| message.topic.ends_with("identification/result"));
        assert_eq!(without_user(&message.json()), without_user(&on_site));
        assert_eq!(
            message.topic,
            "ridgeway/v1/hq-lobby/readers/device-001/events/identification/result"
        );
        assert!(!message.retained, "an event is not retained");
    }
    let stored = eventually("the bridge has stored it", async || {
        let events = site.cloud().events().await;
        let ours: Vec<Value> =
            events.into_iter().filter(|event| event["id"] == json!(id)).collect();
        (!ours.is_empty()).then_some(ours)
    })
    .await;
    assert_eq!(without_user(&only(stored, "once in the store")), without_user(&on_site));
    let kept: Vec<Value> =
        site.local().events().await.into_iter().filter(|event| event["id"] == json!(id)).collect();
    only(kept, "once in the journal");

    site.sensor(0).press("stranger/left-thumb", 1).await;
    let stranger = local.wait_for(is_result).await;
    assert_eq!(stranger["match"], false, "{stranger}");
    assert_eq!(stranger["userId"], Value::Null);
    assert_eq!(stranger["confidence"].as_f64(), Some(0.0));
    wait_for_denial(&edge[0]);
    for listener in edge.iter().chain([&cloud]) {
        let again = listener.drain().into_iter().filter(|message| message.payload.contains(&id));
        assert_eq!(again.count(), 0, "each event once, on an undisturbed site");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_lives_alone() {
    let mut site = Site::new(Options::default());
    site.start_gateway();
    enrol(&site, "user-001", FINGER).await;
    site.kill_gateway();
    site.start_gateway();
    let listener = site.edge_broker().subscribe("ridgeway/v1/#", Version::V5);
    let status = listener.wait_for(|message| message.topic == "ridgeway/v1/hq-lobby/status");
    assert!(status.retained);
    assert_eq!(status.json()["state"], "online");
    site.sensor(0).press(FINGER, 12).await;
    let granted = listener.wait_for(|message| message.topic.ends_with("access/granted"));
    assert_eq!(granted.json()["userId"], "user-001");
    assert!(granted.json()["decidedAt"].is_string() && granted.json()["validForMs"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_leaves_its_last_will_in_the_cloud() {
    let mut site = Site::start(Options::default()).await;
    let listener = site.cloud_broker().subscribe("ridgeway/v1/+/status", Version::V311);
    listener.wait_for(|message| message.json()["state"] == "online");
    site.kill_gateway();
    let will = listener.wait_for(|message| message.json()["state"] == "offline");
    assert_eq!(will.json()["gateway"], "hq-lobby");
    let cloud = site.cloud();
    eventually("the bridge knows it", async || {
        let agents = cloud.ok("/api/agents").await;
        (agents[0]["status"] == "offline").then_some(())
    })
    .await;
}

/// Enrols over the local API, with real placements.
pub(crate) async fn enrol(site: &Site, user: &str, finger: &str) {
    let mut socket = site.local_socket().await;
    let local = site.local();
    let body = json!({"userId": user, "deviceId": "device-001"});
    let answer = tokio::spawn(async move { local.post("/api/fingerprint/enroll", body).await });
    let sensor = site.sensor(0);
    for placement in 1..=3u64 {
        socket
            .wait_for(|message| {
                message["type"] == "scan:progress" && message["scansCompleted"] == placement - 1
            })
            .await;
        sensor.press(finger, placement).await;
    }
    let (status, body) = answer.await.unwrap();
    assert_eq!(status, 200, "{body}");
}

fn is_result(message: &Value) -> bool {
    message["type"] == "identification:result"
}

fn wait_for_denial(listener: &Subscriber) {
    listener.wait_for(|message| message.topic.ends_with("access/denied"));
}

/// A key that didn't start an operation doesn't see on whom it was; everything else is the same.
fn without_user(event: &Value) -> Value {
    let mut event = event.clone();
    event.as_object_mut().unwrap().remove("userId");
    event
}
