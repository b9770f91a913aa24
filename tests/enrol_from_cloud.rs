//! A dashboard asks a gateway to enrol a finger, and sees every step of it.

use serde_json::{Value, json};

use crate::support::{
    eventually,
    mosquitto::Version,
    site::{GATEWAY, Options, Site},
    text,
};

const USER: &str = "user-001";
const FINGER: &str = "user-001/right-index";

#[tokio::test(flavor = "multi_thread")]
async fn enrol_from_the_cloud_shows_every_step_and_no_template_on_any_topic() {
    let site = Site::start(Options::default()).await;
    let (edge, cloud_broker) = (site.edge_broker(), site.cloud_broker());
    let listeners = [
        edge.subscribe("ridgeway/v1/#", Version::V311),
        edge.subscribe("ridgeway/v1/#", Version::V5),
        cloud_broker.subscribe("ridgeway/v1/#", Version::V5),
    ];
    let mut dashboard = site.cloud_socket().await;
    let cloud = site.cloud();

    let path = format!("/api/agents/{GATEWAY}/commands");
    let request = json!({"command": "enroll", "params": {"userId": USER}});
    let (status, created) = cloud.post(&path, request).await;
    assert_eq!(status, 202, "{created}");
    let command = text(&created, "commandId").to_owned();

    let sensor = site.sensor(0);
    for placement in 1..=3u8 {
        if placement > 1 {
            dashboard.wait_for(|m| progress(m) == Some(u64::from(placement) - 1)).await;
        } else {
            dashboard.wait_for(|m| m["data"]["type"] == "scan:progress").await;
        }
        sensor.press(FINGER, placement.into()).await;
    }
    let told = dashboard.wait_for(|m| m["type"] == "command:result").await;
    assert_eq!(told["status"], "completed", "{told}");
    assert_eq!(told["commandId"], json!(command));
    let template = text(&told["result"], "template").to_owned();
    assert!(template.len() > 200, "a template of three placements");

    assert_in_order(
        &dashboard.types(),
        &[
            "scan:started",
            "device:status",
            "scan:progress",
            "fingerprint:detected",
            "scan:progress",
            "fingerprint:detected",
            "scan:progress",
            "fingerprint:detected",
            "scan:complete",
            "fingerprint:enrolled",
            "device:status",
            "command:result",
        ],
    );
    // Whether a reader is busy is its own state, not a step of the command.
    let is_step = |m: &&Value| m["type"] == "event" && m["event"] != "device:status";
    for step in dashboard.seen.iter().filter(is_step) {
        assert_eq!(
            step["data"]["commandId"],
            json!(command),
            "each step names its command: {step}"
        );
    }

    let record = cloud.ok(&format!("/api/commands/{command}")).await;
    assert_eq!(record["status"], "completed");
    assert_eq!(text(&record["result"], "template"), template);

    let user = format!("/api/users/{USER}/template");
    let (status, stored) = cloud.post(&user, json!({"template": template, "quality": 80})).await;
    assert!(status == 200 || status == 201, "{status} {stored}");
    assert_eq!(text(&cloud.ok(&user).await, "template"), template);

    // The last message of the operation has arrived everywhere: nothing on the way held a template.
    for listener in &listeners {
        let mut seen = String::new();
        listener.wait_for(|message| {
            seen.push_str(&message.payload);
            message.topic.ends_with("events/command/result")
        });
        assert!(!seen.contains(&template[..60]), "a template on a topic");
        assert!(!seen.contains("\"template\""), "a template's field on a topic");
        assert!(seen.contains("templateSha256"), "its digest stands in");
    }
    let (_, events) = cloud.get("/api/events?limit=1000").await;
    assert!(!events.to_string().contains(&template[..60]), "nor in the events that are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_runs_once_and_an_expired_one_never() {
    let mut site = Site::start(Options::default()).await;
    let cloud = site.cloud();
    let path = format!("/api/agents/{GATEWAY}/commands");
    let request = json!({"id": "once-1", "command": "devices", "params": {}});
    let first = cloud.post(&path, request.clone()).await;
    let again = cloud.post(&path, request).await;
    assert_eq!(first.0, 202, "{first:?}");
    assert_eq!(first.1["commandId"], again.1["commandId"]);
    eventually("the command is done", async || {
        let record = cloud.ok("/api/commands/once-1").await;
        (record["status"] == "completed").then_some(())
    })
    .await;

    site.kill_gateway();
    let late = json!({"id": "late-1", "command": "capture", "params": {}, "ttlMs": 300});
    assert_eq!(cloud.post(&path, late).await.0, 202, "an offline gateway's command waits");
    eventually("the command is too late", async || {
        let record = cloud.ok("/api/commands/late-1").await;
        (record["status"] == "expired").then_some(())
    })
    .await;
    site.start_gateway();
    site.connected().await;
    let events = cloud.events().await;
    let results: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "command:result").collect();
    assert_eq!(results.len(), 1, "once-1 ran once, late-1 never: {results:#?}");
}

/// The number of placements taken, of a progress message.
fn progress(message: &Value) -> Option<u64> {
    let data = &message["data"];
    (data["type"] == "scan:progress").then(|| data["scansCompleted"].as_u64()).flatten()
}

/// `wanted` occurs in `seen` in this order (other things may lie between).
#[track_caller]
fn assert_in_order(seen: &[String], wanted: &[&str]) {
    let mut rest = seen.iter();
    for step in wanted {
        assert!(rest.any(|name| name == step), "{step} is missing or out of order in {seen:#?}");
    }
}
