use serde_json::json;

use super::*;

#[test]
fn the_table_is_in_the_order_of_the_enum() {
    for (index, (event, name, _)) in TYPES.iter().enumerate() {
        assert_eq!(*event as usize, index, "{name}");
        assert_eq!(EventType::parse(name), Some(*event));
        assert_eq!(name.matches(':').count(), 1, "{name}");
    }
}

fn example(body: EventBody) -> Event {
    Event {
        event: body.event_type(),
        body,
        timestamp: "2026-11-22T14:30:20.512Z".parse().unwrap(),
        clock: Clock::Synced,
        command_id: None,
        request_id: None,
        gateway: "hq-lobby".parse().unwrap(),
        id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
        lane: Lane::Events,
        seq: 4711,
    }
}

#[test]
fn an_event_is_the_documented_message_and_an_envelope() {
    let event = example(EventBody::ScanComplete {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".into(),
        quality: 92,
        scan_time: 1250,
        template_sha256: None,
        placements: None,
    });
    let value = serde_json::to_value(&event).unwrap();
    assert_eq!(
        value,
        json!({"type": "scan:complete", "event": "scan:complete", "id":
            "0199c0de-0000-7000-8000-000000000001", "gateway": "hq-lobby", "lane": "events",
            "seq": 4711, "deviceId": "device-001", "scanId": "scan-1", "quality": 92,
            "scanTime": 1250, "timestamp": "2026-11-22T14:30:20.512Z", "clock": "synced"})
    );
    assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
    let text = serde_json::to_string(&event).unwrap();
    assert!(text.starts_with(r#"{"type":"scan:complete","#), "a person reads the type first");
}

#[test]
fn unknown_fields_are_tolerated_on_the_wire() {
    let event = example(EventBody::ScanStarted {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".into(),
    });
    let mut value = serde_json::to_value(&event).unwrap();
    value["fromTheFuture"] = json!({"a": 1});
    assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
}

#[test]
fn a_stranger_is_a_null_user_and_no_confidence() {
    let value = serde_json::to_value(EventBody::IdentificationResult {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".into(),
        r#match: false,
        user_id: None,
        confidence: 0.0,
        identification_time: 12,
        matched_template: None,
    })
    .unwrap();
    assert_eq!(value["match"], json!(false));
    assert_eq!(value["userId"], json!(null));
    assert_eq!(value["confidence"], json!(0.0));
}

#[test]
fn an_enrolments_scan_complete_has_its_placements_flat() {
    let value = serde_json::to_value(EventBody::ScanComplete {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".into(),
        quality: 92,
        scan_time: 1250,
        template_sha256: Some("ab".into()),
        placements: Some(Placements {
            scans_completed: 3,
            scans_required: 3,
            enrollment_id: "enroll-1".into(),
            user_id: "user-001".parse().unwrap(),
        }),
    })
    .unwrap();
    assert_eq!(value["scansCompleted"], 3);
    assert_eq!(value["userId"], "user-001");
    assert_eq!(value["templateSha256"], "ab");
}

#[test]
fn an_outline_has_the_topic_of_its_event() {
    let reader: ReaderId = "device-001".parse().unwrap();
    let bodies = [
        EventBody::ScanStarted { device_id: reader.clone(), scan_id: "scan-1".into() },
        EventBody::DeviceDisconnected { device_id: reader, reason: None },
        EventBody::ServiceStatus {
            status: ServiceState::Running,
            uptime: 1,
            version: "1.0.0".into(),
        },
    ];
    for event in bodies.map(example) {
        let text = serde_json::to_string(&event).unwrap();
        let outline: Outline = serde_json::from_str(&text).unwrap();
        assert_eq!(outline.topic(), event.topic());
        assert_eq!((outline.id, outline.timestamp), (event.id, event.timestamp));
        if event.body.reader().is_some() {
            continue;
        }
        // What a newer version adds makes it no other event's.
        for added in [r#""device-001""#, r#""no id, but text""#, "7", "null"] {
            let text = text.replacen('{', &format!(r#"{{"deviceId":{added},"#), 1);
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap().topic(), event.topic());
            assert_eq!(serde_json::from_str::<Outline>(&text).unwrap().topic(), event.topic());
        }
    }
}
