//! The bridge as its neighbours see it: a gateway that speaks frames over the real broker, a
//! platform, a dashboard, the API.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod support;

use serde_json::{Value, json};
use topics::{
    CommandId, CommandStatus, EventBody, Lane, Timestamp,
    link::{Batch, Frame, Outcome},
};

use support::{Api, Client, Dashboard, GATEWAY, Gateway, eventually, now, start, stop};

const TEMPLATE: &str = "Rk1SACAyMAAAAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn stored(api: &Api) -> Vec<Value> {
    api.ok("/api/events?limit=1000").await["events"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_once_and_told_everywhere_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut platform = Client::platform(&bridge).await;
    let mut dashboard = Dashboard::following(&bridge).await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    dashboard.wait_for(|message| message["type"] == "agent:online").await;

    let records: Vec<_> = (0..3).map(|_| gateway.scan_started()).collect();
    gateway.deliver(records.clone()).await;
    gateway.deliver(records.clone()).await;

    for record in &records {
        let event = platform.wait_for(|message| message.topic.contains("/events/")).await;
        assert_eq!(text(&event.payload), text(record.json()), "the same bytes, in order");
        assert_eq!(event.topic, "ridgeway/v1/hq/readers/device-001/events/scan/started");
    }
    dashboard.wait_for(|message| message["data"]["seq"] == 3).await;
    let told: Vec<&String> = dashboard.seen.iter().filter(|m| m.contains("scan:started")).collect();
    assert_eq!(told.len(), 3, "each once");
    assert!(told[2].contains(text(records[2].json())), "the same bytes");

    let api = Api::new(&bridge);
    let events = stored(&api).await;
    assert_eq!(events.len(), 3);
    assert_eq!(events[0], serde_json::from_slice::<Value>(records[0].json()).unwrap());
    let first = events[0]["id"].as_str().unwrap();
    let rest = api.ok(&format!("/api/events?after={first}&limit=1&agentId={GATEWAY}")).await;
    assert_eq!(rest["events"], json!([events[1]]));
    assert_eq!(rest["next"], events[1]["id"]);
    let agent = api.ok(&format!("/api/agents/{GATEWAY}")).await;
    assert_eq!((&agent["status"], &agent["name"]), (&json!("online"), &json!("Lobby")));
    let lane = &agent["journals"][Lane::Events.index()];
    assert_eq!((&lane["watermark"], &lane["stored"]), (&json!(3), &json!(3)), "{agent}");
    gateway.probe(77).await;
    assert_eq!(api.ok("/api/agents").await[0]["queued"], 3);
    assert!(platform.drain().iter().all(|message| !message.topic.contains("/events/")));
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_cloud_events_attributes_in_mqtt_5() {
    use rumqttc::v5::{
        AsyncClient, Event,
        mqttbytes::{QoS, v5::Packet},
    };
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let address = bridge.mqtt_addr();
    let (host, port) = address.rsplit_once(':').unwrap();
    let (user, password) = bridge.platform_login();
    let options = broker_config::client::Target::new(host, port.parse().unwrap(), "five")
        .login(user, password.to_owned().into())
        .v5();
    let (client, mut events) = AsyncClient::new(options, 16);
    client.try_subscribe("ridgeway/v1/+/readers/+/events/#", QoS::AtLeastOnce).unwrap();
    loop {
        if let Event::Incoming(Packet::SubAck(_)) = events.poll().await.unwrap() {
            break;
        }
    }
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let record = gateway.scan_started();
    let id = record.event().unwrap().id.to_string();
    gateway.deliver(vec![record]).await;
    let found = async {
        loop {
            if let Event::Incoming(Packet::Publish(message)) = events.poll().await.unwrap() {
                return message.properties.unwrap();
            }
        }
    };
    let properties = tokio::time::timeout(support::PATIENCE, found).await.unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    for (name, value) in [("specversion", "1.0"), ("id", id.as_str()), ("type", "scan:started")] {
        assert!(
            properties.user_properties.contains(&(name.into(), value.into())),
            "{properties:?}"
        );
    }
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_from_the_cloud_gives_its_template_to_the_requester_only() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut platform = Client::platform(&bridge).await;
    let mut dashboard = Dashboard::following(&bridge).await;
    let mut other = Dashboard::open(&bridge, "another-key-0123456789").await;
    other.send(json!({"type": "subscribe"})).await;
    other.wait_for(|message| message["type"] == "subscribe:success").await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let api = Api::new(&bridge);

    let body = json!({"command": "enroll", "params": {"userId": "user-001"}});
    let (status, created) = api.post(&format!("/api/agents/{GATEWAY}/commands"), body).await;
    assert_eq!((status, &created["status"]), (202, &json!("pending")), "{created}");
    let command = gateway.command().await;
    assert_eq!(
        (command.command.as_str(), &command.params["userId"]),
        ("enroll", &json!("user-001"))
    );
    assert_eq!(created["commandId"], json!(command.id));

    let device_id = "device-001".parse().unwrap();
    let progress = EventBody::ScanProgress {
        device_id,
        scan_id: "scan-1".into(),
        message: "place finger 1 of 3".into(),
        scans_completed: 0,
        scans_required: 3,
        quality: None,
    };
    let progress = gateway.record(&progress, Some(&command.id));
    gateway.deliver(vec![progress]).await;
    let path = format!("/api/commands/{}", command.id);
    eventually("the command runs", async || {
        (api.ok(&path).await["status"] == "running").then_some(())
    })
    .await;
    let done = EventBody::CommandResult {
        command: "enroll".into(),
        status: CommandStatus::Completed,
        result: Some(json!({"quality": 88, "enrollmentId": "enr-1", "templateSha256": "ab"})),
        error: None,
        finished_at: now(),
    };
    let private = json!({"template": TEMPLATE});
    let done = gateway.record_with(&done, Some(&command.id), Some(private));
    gateway.deliver(vec![done]).await;

    let told = dashboard.wait_for(|message| message["type"] == "command:result").await;
    assert_eq!(told["result"]["template"], TEMPLATE);
    assert_eq!((&told["status"], &told["commandId"]), (&json!("completed"), &json!(command.id)));
    let foreign = other.wait_for(|message| message["type"] == "command:result").await;
    assert_eq!(foreign["result"]["quality"], 88);
    assert!(!other.seen.iter().any(|message| message.contains(TEMPLATE)));
    assert_eq!(api.ok(&path).await["result"]["template"], TEMPLATE);
    let others = Api::with_key(&bridge, "another-key-0123456789");
    assert_eq!(others.ok(&path).await["result"].get("template"), None);
    let kept = api.ok("/api/users/user-001/template").await;
    assert_eq!((&kept["template"], &kept["quality"]), (&json!(TEMPLATE), &json!(88)));

    let result = platform.wait_for(|m| m.topic.ends_with("events/command/result")).await;
    assert!(text(&result.payload).contains("templateSha256"));
    assert!(!text(&result.payload).contains(TEMPLATE) && !stored(&api).await.is_empty());
    assert!(!stored(&api).await.iter().any(|event| event.to_string().contains(TEMPLATE)));
    stop(bridge).await;
    let store = std::fs::read(dir.path().join("bridge/store.redb")).unwrap();
    let found = store.windows(TEMPLATE.len()).any(|window| window == TEMPLATE.as_bytes());
    assert!(!found, "the template lies in the store in the clear");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_goes_down_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let api = Api::new(&bridge);
    let params = json!({"userId": "u", "template": TEMPLATE});
    let body = json!({"agentId": GATEWAY, "command": "verify", "params": params});
    let (status, created) = api.post("/commands", body).await;
    assert_eq!(status, 202, "{created}");
    assert!(!created.to_string().contains(TEMPLATE));
    let command = gateway.command().await;
    assert_eq!(command.params, json!({"userId": "u"}));
    assert_eq!(gateway.open(&command.id, &command.sealed.unwrap()), json!({"template": TEMPLATE}));
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_starts_again_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let records: Vec<_> = (0..5).map(|_| gateway.scan_started()).collect();
    gateway.deliver(records.clone()).await;
    let body = json!({"id": "later", "command": "devices", "ttlMs": 60_000});
    let api = Api::new(&bridge);
    // Not confirmed by the gateway, so it goes down again.
    api.post(&format!("/api/agents/{GATEWAY}/commands"), body).await;
    stop(bridge).await;

    let bridge = start(dir.path()).await;
    let mut platform = Client::platform(&bridge).await;
    let api = Api::new(&bridge);
    assert_eq!(stored(&api).await.len(), 5);
    assert_eq!(api.ok("/api/agents").await[0]["status"], "offline");
    gateway.reconnect(&bridge, dir.path()).await;
    let (session, store) = (gateway.session, gateway.store);
    gateway.send(&Frame::Batch(Batch { store, session, records: records.clone() })).await;
    gateway.wait_for(|frame| matches!(frame, Frame::AskHello(_)).then_some(())).await;
    let lanes = gateway.hello().await;
    assert_eq!(lanes[Lane::Events.index()].watermark, 5);
    assert_eq!(lanes[Lane::Events.index()].chain, records[4].chain());
    assert_eq!(gateway.command().await.id.as_str(), "later");
    let fresh = gateway.scan_started();
    gateway.deliver(vec![fresh.clone()]).await;
    let event = platform.wait_for(|message| message.topic.contains("/events/")).await;
    assert_eq!(text(&event.payload), text(fresh.json()), "what was published is not repeated");
    assert_eq!(stored(&api).await.len(), 6);
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_the_broker_is_recorded_forwarded_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut platform = Client::platform(&bridge).await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let ask = async |platform: &Client, body: Value| {
        let topic = format!("ridgeway/v1/{GATEWAY}/commands/request");
        let qos = rumqttc::QoS::AtLeastOnce;
        platform.client.publish(topic, qos, false, body.to_string()).await.unwrap();
    };
    let answered = async |platform: &mut Client| -> Value {
        let message = platform.wait_for(|m| m.topic.ends_with("commands/response")).await;
        serde_json::from_slice(&message.payload).unwrap()
    };
    ask(&platform, json!({"id": "m-1", "command": "devices", "ttlMs": 30_000})).await;
    let command = gateway.command().await;
    assert_eq!(command.id.as_str(), "m-1");
    let done = EventBody::CommandResult {
        command: "devices".into(),
        status: CommandStatus::Completed,
        result: Some(json!({"devices": []})),
        error: None,
        finished_at: now(),
    };
    let done = gateway.record(&done, Some(&command.id));
    gateway.deliver(vec![done]).await;
    let answer = answered(&mut platform).await;
    assert_eq!((&answer["id"], &answer["status"]), (&json!("m-1"), &json!("completed")));

    for (body, code) in [
        (json!({"id": "m-2", "command": "format-disk", "ttlMs": 1_000}), 400),
        (json!({"id": "m-3", "command": "devices"}), 400),
        (
            json!({"id": "m-4", "command": "verify", "ttlMs": 1_000, "params": {"template": "x"}}),
            400,
        ),
        (json!({"id": "m-5", "command": "devices", "expiresAt": "2020-01-01T00:00:00.000Z"}), 408),
    ] {
        ask(&platform, body.clone()).await;
        let answer = answered(&mut platform).await;
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&body["id"], &json!(code)),
            "{answer}"
        );
    }
    for nothing in ["no JSON", r#"{"command":"devices","ttlMs":1}"#] {
        ask(&platform, json!(nothing)).await;
    }
    ask(&platform, json!({"id": "m-1", "command": "devices", "ttlMs": 30_000})).await;
    assert_eq!(answered(&mut platform).await["status"], "completed", "a repeat, with its result");
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_gateway_is_offline_since_then_and_its_commands_expire() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut platform = Client::platform(&bridge).await;
    let mut dashboard = Dashboard::following(&bridge).await;
    let gateway = Gateway::online(&bridge, dir.path()).await;
    dashboard.wait_for(|message| message["type"] == "agent:online").await;
    drop(gateway);
    dashboard.wait_for(|message| message["type"] == "agent:offline").await;
    let status = platform
        .wait_for(|m| m.topic == "ridgeway/v1/hq/status" && text(&m.payload).contains("since"))
        .await;
    let status: Value = serde_json::from_slice(&status.payload).unwrap();
    assert_eq!(status["state"], "offline");
    assert!(status["since"].as_str().unwrap().parse::<Timestamp>().is_ok());
    let late = Client::platform(&bridge).await;
    drop(late);

    let api = Api::new(&bridge);
    let body = json!({"id": "late", "command": "capture", "ttlMs": 200});
    let path = format!("/api/agents/{GATEWAY}/commands");
    assert_eq!(api.post(&path, body.clone()).await.0, 202, "it waits for its gateway");
    assert_eq!(api.post(&path, body).await.1["commandId"], "late", "a repeat is the same command");
    let ended = dashboard.wait_for(|message| message["type"] == "command:result").await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("expired"), &json!(408)));
    assert_eq!(api.ok("/api/commands/late").await["status"], "expired");
    assert_eq!(api.ok(&path).await.as_array().unwrap().len(), 1);

    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    gateway.probe(5).await;
    let id: CommandId = "late".parse().unwrap();
    assert_eq!(id.as_str(), "late");
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_its_gateway_also_through_a_restart_and_its_result_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let path = format!("/api/agents/{GATEWAY}/commands");
    let body = json!({"id": "c-1", "command": "devices", "ttlMs": 60_000});
    let (status, waiting) = Api::new(&bridge).post(&path, body.clone()).await;
    assert_eq!((status, &waiting["status"]), (202, &json!("pending")), "nobody is there");
    stop(bridge).await;

    let bridge = start(dir.path()).await;
    let api = Api::new(&bridge);
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let command = gateway.command().await;
    assert_eq!((command.id.as_str(), command.command.as_str()), ("c-1", "devices"));
    assert_eq!(json!(command.expires_at), waiting["expiresAt"]);
    // The gateway goes before it can tell the result, and comes back with it in its journal.
    let finished = EventBody::CommandResult {
        command: "devices".into(),
        status: CommandStatus::Completed,
        result: Some(json!({"devices": []})),
        error: None,
        finished_at: now(),
    };
    let result = gateway.record(&finished, Some(&command.id));
    gateway.reconnect(&bridge, dir.path()).await;
    gateway.hello().await;
    gateway.deliver(vec![result.clone()]).await;
    gateway.deliver(vec![result]).await;
    let ended = api.ok("/api/commands/c-1").await;
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("completed"), &json!({"devices": []}))
    );
    assert_eq!(api.post(&path, body).await.1["status"], "completed", "a repeat is the same one");
    assert_eq!(stored(&api).await.len(), 1);
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_command_can_be_cancelled_and_a_running_one_is_asked_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let api = Api::new(&bridge);
    let path = format!("/api/agents/{GATEWAY}/commands");
    api.post(&path, json!({"id": "c-1", "command": "capture"})).await;
    let (status, cancelled) = api.post("/api/commands/c-1/cancel", json!({})).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));

    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    api.post(&path, json!({"id": "c-2", "command": "capture"})).await;
    assert_eq!(gateway.command().await.id.as_str(), "c-2", "c-1 never goes down");
    let (_, asked) = api.post("/api/commands/c-2/cancel", json!({})).await;
    assert_eq!(asked["cancelRequested"], true, "{asked}");
    let cancel = gateway.command().await;
    assert_eq!((cancel.command.as_str(), cancel.params), ("cancel", json!({"commandId": "c-2"})));
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_be_read_is_refused_with_the_reason_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let api = Api::new(&bridge);
    let mut dashboard = Dashboard::following(&bridge).await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    // Something else on its topic: counted and shown, no fault of the gateway.
    gateway.send_bytes(b"no frame at all".to_vec()).await;
    let told = dashboard.wait_for(|message| !message["agent"]["problem"].is_null()).await;
    assert_eq!(told["agent"]["problem"]["reason"], "not-a-frame");
    let record = gateway.scan_started();
    gateway.deliver(vec![record]).await;

    let (session, store) = (gateway.session, gateway.store);
    let batch = Batch { store, session, records: vec![gateway.scan_started()] };
    let mut newer = Frame::Batch(batch).encode().unwrap();
    newer[2] += 1;
    for _ in 0..3 {
        gateway.send_bytes(newer.clone()).await;
    }
    let asked = |frame| match frame {
        Frame::AskHello(ask) => Some(ask.session),
        _ => None,
    };
    assert_eq!(gateway.wait_for(asked).await, session, "once; the rest is silence");
    let told = dashboard.wait_for(|m| m["agent"]["problem"]["reason"] == "version").await;
    let message = told["agent"]["problem"]["message"].as_str().unwrap();
    assert!(message.contains("update the bridge") && message.contains("link version 2"), "{told}");
    let Outcome::Refused { reason } = gateway.greet().await else { panic!("not refused") };
    assert!(reason.contains("update the bridge"), "{reason}");

    let agent = api.ok(&format!("/api/agents/{GATEWAY}")).await;
    assert_eq!((&agent["status"], &agent["problem"]["frames"]), (&json!("online"), &json!(4)));
    assert_eq!(api.ok("/api/agents").await[0]["problem"]["reason"], "version");
    let metrics = api.ok("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        r#"ridgeway_bridge_unreadable_frames_total{gateway="hq",reason="version"} 3"#,
        r#"ridgeway_bridge_unreadable_frames_total{gateway="hq",reason="not-a-frame"} 1"#,
        "ridgeway_bridge_store_outage 0",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in {metrics}");
    }
    assert_eq!(stored(&api).await.len(), 1);
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_and_a_taken_port_are_refused_with_the_key_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let locked = cloud_bridge::Bridge::start(support::config(dir.path())).await.unwrap_err();
    let said = locked.to_string();
    assert!(said.contains("bridge.data_dir") && said.contains(&std::process::id().to_string()));
    let other = tempfile::tempdir().unwrap();
    let mut config = support::config(other.path());
    config.api.listen = bridge.http_addr();
    let taken = cloud_bridge::Bridge::start(config).await.unwrap_err().to_string();
    assert!(
        taken.contains("api.listen") && taken.contains(&bridge.http_addr().to_string()),
        "{taken}"
    );
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_refuses_in_the_documented_envelope() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let api = Api::new(&bridge);
    let bad = Api::with_key(&bridge, "ak_live_nobody");
    let (status, body) = bad.get("/api/agents").await;
    assert_eq!(status, 401);
    assert_eq!((&body["success"], &body["code"]), (&json!(false), &json!(4001)), "{body}");
    assert_eq!(body["message"], body["error"]["message"]);
    assert_eq!(body["error"]["statusCode"], 401);
    assert_eq!(bad.get("/health").await.0, 200, "without a key");

    let agents = api.ok("/api/agents").await;
    assert_eq!((&agents[0]["id"], &agents[0]["status"]), (&json!(GATEWAY), &json!("offline")));
    for (path, status, code) in [
        ("/api/agents/nobody", 404, 3004),
        ("/api/agents/No%20Body", 400, 400),
        ("/api/commands/none", 404, 3004),
        ("/api/users/none/template", 404, 3004),
        ("/api/events?after=0199c0de-0000-7000-8000-000000000001", 404, 3004),
        ("/api/events?after=yesterday", 400, 400),
        ("/nowhere", 404, 404),
        ("/commands", 405, 405),
        ("/ws", 426, 426),
    ] {
        let (got, body) = api.get(path).await;
        assert_eq!((got, &body["error"]["code"]), (status, &json!(code)), "{path}: {body}");
    }
    let commands = format!("/api/agents/{GATEWAY}/commands");
    for body in [
        json!({}),
        json!({"command": "format-disk"}),
        json!({"command": "devices", "params": 3}),
        json!({"command": "devices", "ttlMs": 0}),
        json!({"command": "devices", "ttlMs": 100_000_000_000u64}),
        json!({"command": "devices", "id": "no spaces"}),
    ] {
        assert_eq!(api.post(&commands, body.clone()).await.0, 400, "{body}");
    }
    assert_eq!(api.post_text(&commands, "{").await.0, 400);
    assert_eq!(api.post("/api/agents/nobody/commands", json!({"command": "devices"})).await.0, 404);
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_kept_by_finger_under_both_paths() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let api = Api::new(&bridge);
    let body = json!({"template": TEMPLATE, "quality": 80.4, "enrollmentId": null,
        "enrollmentDate": "2026-01-01T00:00:00Z"});
    let (status, posted) = api.post("/api/users/7/template", body).await;
    assert_eq!((status, &posted["success"]), (201, &json!(true)), "{posted}");
    let left = json!({"templateData": TEMPLATE, "fingerPosition": "left-index"});
    assert_eq!(api.post("/api/users/7/fingerprint", left).await.0, 201);
    let found = api.ok("/api/users/7/fingerprint").await;
    assert_eq!((&found["userId"], &found["template"]), (&json!("7"), &json!(TEMPLATE)));
    assert_eq!(
        (&found["fingerPosition"], found["templates"].as_array().unwrap().len()),
        (&json!("left-index"), 2)
    );
    assert_eq!(found["templates"][1]["quality"], 80);
    for bad in [json!({}), json!({"template": "!"}), json!({"template": TEMPLATE, "quality": 101})]
    {
        assert_eq!(api.post("/api/users/7/template", bad.clone()).await.0, 400, "{bad}");
    }
    assert_eq!(api.post("/api/users/a%20b/template", json!({"template": TEMPLATE})).await.0, 400);
    assert_eq!(api.delete("/api/users/7/template").await.1["deleted"], 2);
    assert_eq!(api.delete("/api/users/7/template").await.0, 404);
    stop(bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_needs_a_key_and_hears_nothing_before() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let mut stranger = Dashboard::stranger(&bridge, "").await;
    stranger.send(json!({"type": "subscribe", "requestId": "r-1"})).await;
    let refused = stranger.wait_for(|message| message["type"] == "error").await;
    assert_eq!((&refused["code"], &refused["requestId"]), (&json!(4001), &json!("r-1")));
    stranger.send(json!({"type": "ping"})).await;
    stranger.wait_for(|message| message["type"] == "pong").await;
    for _ in 0..3 {
        stranger.send(json!({"type": "auth", "apiKey": "wrong"})).await;
    }
    let error = stranger.wait_for(|message| message["type"] == "auth:error").await;
    assert_eq!(error["code"], 4001);
    assert_eq!(stranger.closed().await, 1008);

    let query = format!("?apiKey={}", bridge.api_key());
    let mut known = Dashboard::stranger(&bridge, &query).await;
    known.wait_for(|message| message["type"] == "auth:success").await;
    known.send(json!({"type": "subscribe", "agentId": "nobody"})).await;
    known.wait_for(|message| message["type"] == "subscribe:error").await;
    known.send(json!({"type": "subscribe", "agentId": GATEWAY, "deviceId": "device-002"})).await;
    known.wait_for(|message| message["type"] == "subscribe:success").await;
    let mut gateway = Gateway::online(&bridge, dir.path()).await;
    let record = gateway.scan_started();
    gateway.deliver(vec![record]).await;
    known.send(json!({"type": "nonsense"})).await;
    known.wait_for(|message| message["type"] == "error").await;
    assert!(!known.seen.iter().any(|message| message.contains("scan:started")), "another reader's");
    stop(bridge).await;
    assert_eq!(known.closed().await, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_and_comes_from_here_only() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = start(dir.path()).await;
    let api = Api::new(&bridge);
    let page = api.get("/").await.1;
    let page = page.as_str().unwrap();
    for asset in ["/assets/app.js", "/assets/app.css", "/assets/icon.svg"] {
        assert!(page.contains(asset));
        assert_eq!(api.get(asset).await.0, 200, "{asset}");
    }
    assert!(!page.contains("http") && !page.contains("style=") && !page.contains("onclick"));
    stop(bridge).await;
}
