use proptest::prelude::*;
use topics::{
    BootId, Clock, Draft, EventBody, EventId, ReaderState,
    event::ServiceState,
    record::{Cause, Moment},
};

use super::*;
use crate::{config::ApiKeySection, journal::Attachment};

fn at() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn keys() -> Keys {
    let section = |name: &str, key: &str, permissions| ApiKeySection {
        name: name.to_owned(),
        key: Some(key.to_owned()),
        sha256: None,
        permissions,
    };
    Keys::new(
        "first-key",
        &[
            section("other", "other-key", None),
            section("narrow", "narrow-key", Some(vec![Permission::DeviceRead])),
        ],
    )
}

fn reader(wanted: &str) -> Result<ReaderId, ErrorBody> {
    match wanted {
        "device-001" | "SERIAL-1" => Ok("device-001".parse().unwrap()),
        "device-002" => Ok("device-002".parse().unwrap()),
        _ => Err(ErrorBody::new(ErrorCode::DeviceNotFound, "device not found")),
    }
}

fn talk() -> Talk {
    Talk::new(Instant::now(), Timing::default())
}

fn say(talk: &mut Talk, message: Value) -> Vec<Ask> {
    talk.text(&message.to_string(), &keys(), &reader, at())
}

/// The one message that came back.
fn answer(asked: Vec<Ask>) -> Value {
    match asked.as_slice() {
        [Ask::Answer(Answer::Message(value))] => value.clone(),
        other => panic!("not one answer: {other:?}"),
    }
}

fn signed_in(key: &str) -> Talk {
    let mut talk = talk();
    assert_eq!(
        answer(say(&mut talk, json!({"type": "auth", "apiKey": key})))["type"],
        "auth:success"
    );
    talk
}

#[test]
fn signing_in_tells_the_permissions() {
    let mut talk = talk();
    let welcome =
        answer(say(&mut talk, json!({"type": "auth", "apiKey": "first-key", "requestId": "r"})));
    assert_eq!(welcome["event"], "auth:success", "one documented client reads `event`");
    assert!(welcome["permissions"].as_array().unwrap().contains(&json!("fingerprint:scan")));
    assert_eq!((&welcome["requestId"], &welcome["timestamp"]), (&json!("r"), &json!(at())));
}

#[test]
fn a_wrong_key_may_be_corrected_twice() {
    let mut talk = talk();
    for _ in 0..2 {
        let refusal = answer(say(&mut talk, json!({"type": "auth", "apiKey": "guess"})));
        assert_eq!((&refusal["type"], &refusal["code"]), (&json!("auth:error"), &json!(4001)));
    }
    let asked = say(&mut talk, json!({"type": "auth", "token": "guess"}));
    assert!(matches!(&asked[..], [Ask::Answer(Answer::Message(_)), Ask::Answer(Answer::Close(_))]));
}

#[test]
fn nothing_but_ping_is_done_before_signing_in() {
    let mut talk = talk();
    assert_eq!(answer(say(&mut talk, json!({"type": "ping"})))["type"], "pong");
    for kind in ["subscribe", "scan:start", "scan:stop", "enroll", "nonsense"] {
        let error = answer(say(&mut talk, json!({"type": kind})));
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(4001)), "{kind}");
    }
}

#[test]
fn malformed_messages_are_answered_and_the_conversation_goes_on() {
    let mut talk = signed_in("first-key");
    for text in ["", "no json", "[]", "{}", r#"{"type":7}"#, r#"{"type":"dance"}"#] {
        let error = answer(talk.text(text, &keys(), &reader, at()));
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(400)), "{text}");
    }
    assert_eq!(answer(say(&mut talk, json!({"type": "ping"})))["type"], "pong");
    assert!(say(&mut talk, json!({"type": "pong"})).is_empty());
}

#[test]
fn operations_are_asked_for_with_their_permission() {
    let mut talk = signed_in("first-key");
    for (message, permission) in [
        (json!({"type": "scan:start"}), Permission::FingerprintScan),
        (
            json!({"type": "scan:start", "deviceId": null, "options": {"timeout": 5000, "qualityThreshold": 60}}),
            Permission::FingerprintScan,
        ),
        (json!({"type": "enroll", "userId": 17}), Permission::FingerprintEnroll),
        (
            json!({"type": "verify", "userId": "u", "template": "QUJD", "deviceId": "SERIAL-1"}),
            Permission::FingerprintVerify,
        ),
        (json!({"type": "identify", "deviceId": "device-001"}), Permission::FingerprintIdentify),
    ] {
        let asked = say(&mut talk, message.clone());
        let [Ask::Start(caller, start)] = &asked[..] else { panic!("{message}: {asked:?}") };
        assert_eq!((start.permission, caller.key()), (permission, "default"), "{message}");
    }
    let asked = say(&mut talk, json!({"type": "scan:stop", "scanId": "scan-1", "requestId": "r"}));
    assert!(matches!(&asked[..], [Ask::Stop { scan_id, .. }] if scan_id == "scan-1"));
}

#[test]
fn an_operation_that_can_not_begin_is_a_scan_error() {
    let mut talk = signed_in("first-key");
    for (message, code) in [
        (json!({"type": "enroll"}), 400),
        (json!({"type": "scan:stop"}), 400),
        (json!({"type": "scan:start", "options": {"timeout": 1}}), 400),
        (json!({"type": "verify", "userId": "u", "template": "%%%%"}), 400),
        (json!({"type": "verify", "userId": "u", "template": "%%%%", "deviceId": "x"}), 1001),
    ] {
        let error = answer(say(&mut talk, message.clone()));
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("scan:error"), &json!(code)),
            "{message}"
        );
        assert_eq!(error["error"], error["message"]);
        assert!(error["retryable"].is_boolean());
    }
}

#[test]
fn a_silent_client_is_given_up_and_a_sign_of_life_helps() {
    let start = Instant::now();
    let timing = Timing::default();
    let mut talk = Talk::new(start, timing);
    assert_eq!(talk.deadline(), start + timing.auth);
    talk.alive(start + Duration::from_secs(5));
    assert_eq!(talk.deadline(), start + timing.auth, "noise doesn't extend the time to sign in");
    talk.signed_in(
        keys().caller(Some(Credential::ApiKey("first-key"))).map_err(|_| unreachable!()),
        None,
        at(),
    );
    assert_eq!(talk.deadline(), start + Duration::from_secs(5) + timing.silence);
}

// ---- who gets which event -----------------------------------------------------------------------

fn committed(body: EventBody, owner: Option<Owner>) -> Committed {
    let moment = Moment {
        timestamp: at(),
        clock: Clock::Synced,
        boot: BootId::from_bytes([1; 16]),
        uptime_ms: 1,
    };
    let reader = body.reader().cloned();
    let draft = Draft::new(&body, &moment, &Cause::default()).unwrap();
    let event = draft.event_type();
    let record = draft.into_record(&"hq".parse().unwrap(), EventId::from_bytes([7; 16]), 1, 0);
    let mut extra = Map::new();
    if owner.is_some() {
        extra.insert("template".to_owned(), "VEVNUExBVEU=".into());
    }
    Committed { record, event, reader, attachment: Attachment { owner, extra } }
}

fn complete(owner: Option<Owner>) -> Committed {
    let body = EventBody::ScanComplete {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".to_owned(),
        quality: 90,
        scan_time: 10,
        template_sha256: None,
        placements: None,
    };
    committed(body, owner)
}

fn identified(owner: Option<Owner>) -> Committed {
    let body = EventBody::IdentificationResult {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".to_owned(),
        r#match: true,
        user_id: Some("u-1".parse().unwrap()),
        confidence: 90.0,
        identification_time: 3,
        matched_template: Some("t".to_owned()),
    };
    committed(body, owner)
}

fn owner(key: &str) -> Option<Owner> {
    Some(Owner::ApiKey(key.to_owned()))
}

fn seen(talk: &Talk, event: &Committed) -> Option<Value> {
    talk.admit(event).map(|text| serde_json::from_str(&text).unwrap())
}

#[test]
fn who_is_not_signed_in_hears_nothing() {
    let status = EventBody::ServiceStatus {
        status: ServiceState::Running,
        uptime: 1,
        version: "1".to_owned(),
    };
    assert_eq!(seen(&talk(), &committed(status.clone(), None)), None);
    assert!(seen(&signed_in("first-key"), &committed(status, None)).is_some());
}

#[test]
fn own_operations_are_heard_without_a_subscription_and_with_the_template() {
    let event = complete(owner("default"));
    let own = seen(&signed_in("first-key"), &event).unwrap();
    assert_eq!(own["template"], "VEVNUExBVEU=");
    let text = signed_in("first-key").admit(&event).unwrap();
    let journal = std::str::from_utf8(event.record.json()).unwrap();
    assert!(
        text.as_str().starts_with(&journal[..journal.len() - 1]),
        "the event as it is, and more"
    );
    assert_eq!(seen(&signed_in("other-key"), &event), None);
}

#[test]
fn a_subscriber_hears_of_its_reader_but_no_templates_and_users_of_others() {
    let mut talk = signed_in("other-key");
    let answer = answer(say(&mut talk, json!({"type": "subscribe", "deviceId": "SERIAL-1"})));
    assert_eq!(
        (&answer["type"], &answer["deviceId"]),
        (&json!("subscribe:success"), &json!("SERIAL-1"))
    );
    assert!(seen(&talk, &complete(owner("default"))).unwrap().get("template").is_none());
    let foreign = seen(&talk, &identified(owner("default"))).unwrap();
    assert!(foreign.get("userId").is_none() && foreign["match"] == true);
    let at_the_door = identified(None);
    let whole = talk.admit(&at_the_door).unwrap();
    assert_eq!(whole.as_bytes(), at_the_door.record.json(), "byte for byte");
    say(&mut talk, json!({"type": "unsubscribe", "deviceId": "device-001"}));
    assert_eq!(seen(&talk, &at_the_door), None);
}

#[test]
fn without_the_right_to_identify_no_event_names_anybody() {
    let mut talk = signed_in("narrow-key");
    say(&mut talk, json!({"type": "subscribe"}));
    assert!(seen(&talk, &identified(None)).unwrap().get("userId").is_none());
}

#[test]
fn an_unknown_reader_can_not_be_subscribed_but_unsubscribed() {
    let mut talk = signed_in("first-key");
    let error = answer(say(&mut talk, json!({"type": "subscribe", "deviceId": "x"})));
    assert_eq!((&error["type"], &error["code"]), (&json!("subscribe:error"), &json!(1001)));
    let fine = answer(say(&mut talk, json!({"type": "unsubscribe", "deviceId": "x"})));
    assert_eq!(fine["type"], "unsubscribe:success");
}

#[test]
fn a_readers_state_needs_a_subscription() {
    let body = EventBody::DeviceStatus {
        device_id: "device-001".parse().unwrap(),
        status: ReaderState::Busy,
        previous_status: ReaderState::Idle,
    };
    let event = committed(body, None);
    let mut talk = signed_in("first-key");
    assert_eq!(seen(&talk, &event), None);
    say(&mut talk, json!({"type": "subscribe", "deviceId": "*"}));
    assert!(seen(&talk, &event).is_some());
}

proptest! {
    /// Whatever is said in whatever order: no panic, no template of another key, and never an
    /// operation before a key was shown.
    #[test]
    fn no_conversation_leaks_or_breaks(
        messages in prop::collection::vec(prop_oneof![
            Just(json!({"type": "auth", "apiKey": "other-key"})),
            Just(json!({"type": "auth", "apiKey": "narrow-key"})),
            Just(json!({"type": "auth", "apiKey": "wrong"})),
            Just(json!({"type": "subscribe"})),
            Just(json!({"type": "subscribe", "deviceId": "device-001"})),
            Just(json!({"type": "unsubscribe", "deviceId": "device-001"})),
            Just(json!({"type": "scan:start", "deviceId": {"userIds": [1]}})),
            Just(json!({"type": "identify", "userIds": ["a"]})),
            ".*".prop_map(|text| json!({"type": text})),
        ], 0..24)
    ) {
        let mut talk = talk();
        let mut shown = false;
        for message in messages {
            shown |= message["apiKey"] == "other-key" || message["apiKey"] == "narrow-key";
            let asked = say(&mut talk, message);
            if !shown {
                prop_assert!(asked.iter().all(|ask| matches!(ask, Ask::Answer(_))));
            }
            prop_assert_eq!(talk.is_signed_in(), shown);
            if let Some(event) = seen(&talk, &complete(owner("default"))) {
                prop_assert!(event.get("template").is_none());
            }
        }
    }
}
