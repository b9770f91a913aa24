//! Commands on a real journal, through a real child process and the simulator's library.

mod expiry;

use std::fs;

use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::{
    journal::Table,
    operation::tests::site::{DEADLINE, Ground, Site},
    session::IdleMode,
};

const ANNA: &str = "anna/right-index";

async fn commands(site: &Site, link: Option<Arc<SealKey>>) -> Commands {
    let health: HealthReport = Arc::new(|| json!({ "status": "healthy" }));
    let (tracker, token) = (site.tracker.clone(), site.token.clone());
    Commands::open(site.journal.clone(), site.operations.clone(), link, health, tracker, token)
        .await
        .unwrap()
}

fn edge(id: &str, command: &str, params: Value) -> Submission {
    let request = json!({ "id": id, "command": command, "params": params, "ttlMs": 60_000 });
    Submission::of_request(serde_json::from_value(request).unwrap(), journal::now())
}

fn bridge(id: &str, command: &str, params: Value) -> Submission {
    let expires_at = journal::now().plus(Duration::from_secs(60));
    let source = Source::Bridge { expires_at, offset_ms: Some(0) };
    Submission { source, ..edge(id, command, params) }
}

async fn run(commands: &Commands, submission: Submission) -> CommandResponse {
    let submitted = commands.submit(submission).await.unwrap();
    timeout(DEADLINE, submitted.finished()).await.expect("a result in time")
}

/// The `command:result` events so far: their JSON and private parts.
fn results(site: &Site) -> Vec<(Value, Option<Vec<u8>>)> {
    let records = site.journal.read(topics::Lane::Results, 1, 1000, usize::MAX).unwrap();
    records
        .iter()
        .map(|record| {
            let event = serde_json::from_slice(record.json()).unwrap();
            (event, record.private().map(<[u8]>::to_vec))
        })
        .collect()
}

#[tokio::test]
async fn a_capture_runs_once_and_its_template_goes_to_the_bridge_only_and_sealed() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let link = Arc::new(test_link());
    let commands = commands(&site, Some(Arc::clone(&link))).await;
    for (submit, sealed) in [(edge as fn(&str, &str, Value) -> Submission, false), (bridge, true)] {
        let id = format!("c-{sealed}");
        let submitted = commands.submit(submit(&id, "scan", json!({}))).await.unwrap();
        assert_eq!(submitted.response.status, CommandStatus::Running);
        let repeat = commands.submit(submit(&id, "scan", json!({}))).await.unwrap();
        assert_eq!(repeat.response.status, CommandStatus::Running);
        let file = ground.place("SN-1", ANNA, 4);
        let response = timeout(DEADLINE, submitted.finished()).await.unwrap();
        assert_eq!(timeout(DEADLINE, repeat.finished()).await.unwrap(), response);
        fs::remove_file(file).unwrap();
        assert_eq!(response.status, CommandStatus::Completed, "{response:?}");
        let result = response.result.clone().unwrap();
        assert_eq!(result["deviceId"], "device-001");
        assert!(result.get("template").is_none());

        let (event, private) = results(&site).pop().unwrap();
        assert_eq!(event["commandId"], id.as_str());
        assert_eq!(event["result"], result);
        let template = private.map(|private| {
            let plain = link.open(RESULT_SEAL, &id, &private).unwrap();
            let plain: Value = serde_json::from_slice(&plain).unwrap();
            use base64::Engine as _;
            let text = plain["template"].as_str().unwrap();
            TemplateBytes::from(base64::engine::general_purpose::STANDARD.decode(text).unwrap())
        });
        assert_eq!(template.is_some(), sealed);
        if let Some(template) = template {
            assert_eq!(template.sha256(), result["templateSha256"]);
        }
        // A repeat, now that it has ended: no finger is there, and none is asked for.
        assert_eq!(run(&commands, submit(&id, "scan", json!({}))).await, response);
        let count = results(&site).iter().filter(|(e, _)| e["commandId"] == id.as_str()).count();
        assert_eq!(count, 1);
    }
    site.stop().await;
}

#[tokio::test]
async fn what_cannot_or_must_not_run_is_refused_and_stays_so() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let commands = commands(&site, None).await;
    let late = |id: &str, offset_ms| {
        let expires_at = journal::now();
        Submission {
            source: Source::Bridge { expires_at, offset_ms },
            ..edge(id, "capture", json!({}))
        }
    };
    let no_expiry = Submission {
        source: Source::Edge { expires_at: None },
        ..edge("c-1", "devices", json!({}))
    };
    let for_ever = Submission {
        source: Source::Edge { expires_at: Some(Timestamp::from_millis(i64::MAX)) },
        ..edge("c-12", "devices", json!({}))
    };
    let unsealable = Submission { sealed: Some(vec![1; 40]), ..bridge("c-8", "verify", json!({})) };
    let cases = [
        (no_expiry, CommandStatus::Failed, 400),
        (edge("c-2", "format-disk", json!({})), CommandStatus::Failed, 400),
        (edge("c-3", "enroll", json!([1])), CommandStatus::Failed, 400),
        (edge("c-4", "enroll", json!({})), CommandStatus::Failed, 400),
        (
            edge("c-5", "verify", json!({"userId": "a", "template": "AAAA"})),
            CommandStatus::Failed,
            400,
        ),
        (late("c-6", Some(0)), CommandStatus::Expired, 408),
        (late("c-7", None), CommandStatus::Failed, 5002),
        (unsealable, CommandStatus::Failed, 400),
        (edge("c-9", "cancel", json!({"commandId": "c-1"})), CommandStatus::Failed, 3004),
        (edge("c-10", "capture", json!({"deviceId": "x"})), CommandStatus::Failed, 1001),
        (edge("c-11", "verify", json!({"userId": "nobody"})), CommandStatus::Failed, 3004),
        (for_ever, CommandStatus::Failed, 400),
    ];
    let count = cases.len();
    for (submission, status, code) in cases {
        let id = submission.id.clone();
        let response = run(&commands, submission.clone()).await;
        assert_eq!(run(&commands, submission).await, response);
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(response.error.as_ref().unwrap().code, code, "{response:?}");
        // The same id with something harmless: the refusal stands.
        assert_eq!(run(&commands, edge(id.as_str(), "devices", json!({}))).await, response);
    }
    assert_eq!(results(&site).len(), count, "each is told once");
    site.stop().await;
}

#[tokio::test]
async fn the_bridges_time_decides_about_its_commands() {
    let hour_ms = 3_600_000;
    // This machine's clock is an hour behind: by it the command would still be good.
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let commands = commands(&site, None).await;
    let in_a_minute = journal::now().plus(Duration::from_secs(60));
    let source = Source::Bridge { expires_at: in_a_minute, offset_ms: Some(hour_ms) };
    let submission = Submission { source, ..edge("c-1", "devices", json!({})) };
    assert_eq!(run(&commands, submission).await.status, CommandStatus::Expired);
    let source = Source::Bridge {
        expires_at: in_a_minute.plus(Duration::from_millis(hour_ms as u64)),
        offset_ms: Some(hour_ms),
    };
    let submission = Submission { source, ..edge("c-2", "devices", json!({})) };
    assert_eq!(run(&commands, submission).await.status, CommandStatus::Completed);
    site.stop().await;
}

#[tokio::test]
async fn readers_and_health_are_told() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let commands = commands(&site, None).await;
    let devices = run(&commands, edge("c-1", "device:info", json!(null))).await.result.unwrap();
    assert_eq!(devices["devices"][0]["id"], "device-001");
    assert_eq!(devices["devices"][0]["status"], "connected");
    assert_eq!(devices["devices"][0]["state"], "idle");
    let test = run(&commands, edge("c-2", "device:test", json!({}))).await.result.unwrap();
    assert_eq!(test["status"], "success");
    let health = run(&commands, edge("c-3", "health", json!({}))).await.result.unwrap();
    assert_eq!(health["status"], "healthy");
    site.stop().await;
}

#[tokio::test]
async fn a_running_command_can_be_cancelled() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let commands = commands(&site, None).await;
    let enroll = edge("c-1", "enroll", json!({ "userId": 7 }));
    let submitted = commands.submit(enroll).await.unwrap();
    site.until("the reader waits", || {
        site.operations.readers()[0].status == topics::ReaderState::Busy
    })
    .await;
    let cancelled = run(&commands, edge("c-2", "cancel", json!({ "commandId": "c-1" }))).await;
    assert_eq!(cancelled.status, CommandStatus::Completed, "{cancelled:?}");
    let response = timeout(DEADLINE, submitted.finished()).await.unwrap();
    assert_eq!(response.status, CommandStatus::Cancelled);
    site.stop().await;
}

#[tokio::test]
async fn a_command_without_a_finger_times_out() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let commands = commands(&site, None).await;
    let response = run(&commands, edge("c-1", "capture", json!({ "timeout": 300 }))).await;
    assert_eq!(response.status, CommandStatus::Timeout);
    assert_eq!(response.error.unwrap().code, 2002);
    site.stop().await;
}

#[tokio::test]
async fn a_command_that_ran_when_the_gateway_died_has_failed_and_is_not_run_again() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let id: CommandId = "c-1".parse().unwrap();
    // As a crash leaves it: taken, and nothing more.
    let row = Row::new(true, "enroll", response(&id, CommandStatus::Running));
    let value = serde_json::to_vec(&row).unwrap();
    site.journal.commit(Batch::new().put(Table::Commands, "c-1", value)).await.unwrap();

    let commands = commands(&site, None).await;
    let (event, _) = results(&site).pop().unwrap();
    assert_eq!((&event["commandId"], &event["status"]), (&json!("c-1"), &json!("failed")));
    assert_eq!(event["error"]["code"], 5002);
    let repeat = run(&commands, bridge("c-1", "enroll", json!({ "userId": "anna" }))).await;
    assert_eq!(repeat.status, CommandStatus::Failed);
    assert_eq!(repeat.error.unwrap().code, 5002);
    assert_eq!(results(&site).len(), 1);
    site.stop().await;
}

#[tokio::test]
async fn a_verification_takes_its_template_sealed() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let link = Arc::new(test_link());
    let commands = commands(&site, Some(Arc::clone(&link))).await;
    let enrolled = site.enroll(&ground, "anna", ANNA).await;
    let secret = json!({ "template": enrolled.base64() }).to_string();
    let sealed = link.seal(PARAMS_SEAL, "c-1", secret.as_bytes()).unwrap();
    let params = json!({ "userId": "somebody-of-the-cloud" });
    let submission = Submission { sealed: Some(sealed), ..bridge("c-1", "verify", params) };
    let submitted = commands.submit(submission).await.unwrap();
    let file = ground.place("SN-1", ANNA, 4);
    let response = timeout(DEADLINE, submitted.finished()).await.unwrap();
    fs::remove_file(file).unwrap();
    assert_eq!(response.status, CommandStatus::Completed, "{response:?}");
    assert_eq!(response.result.unwrap()["match"], true);
    site.stop().await;
}

#[test]
fn an_edge_request_ends_at_the_sooner_of_its_two_times() {
    let now = Timestamp::from_millis(1_000);
    let request = |expires_at: Option<i64>, ttl_ms| CommandRequest {
        id: "c-1".parse().unwrap(),
        command: "devices".into(),
        params: Value::Null,
        expires_at: expires_at.map(Timestamp::from_millis),
        ttl_ms,
    };
    for (expires_at, ttl_ms, expected) in [
        (None, None, None),
        (Some(5_000), None, Some(5_000)),
        (None, Some(2_000), Some(3_000)),
        (Some(5_000), Some(2_000), Some(3_000)),
    ] {
        let expires_at = match Source::edge(&request(expires_at, ttl_ms), now) {
            Source::Edge { expires_at } => expires_at.map(Timestamp::as_millis),
            Source::Bridge { .. } => unreachable!(),
        };
        assert_eq!(expires_at, expected);
    }
}

fn test_link() -> SealKey {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link.secret");
    std::fs::write(&path, "A".repeat(43)).unwrap(); // 32 bytes of zero, base64url
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    crate::keys::LinkSecret::load(&path).unwrap().seal_key()
}
