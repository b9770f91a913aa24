//! Operations on a real journal, through a real child process and the simulator's library.

mod faults;
pub(crate) mod site;

use std::{fs, time::Duration};

use topics::{EventBody, ReaderState};

use super::*;
use crate::session::IdleMode;
use site::{DEADLINE, Ground, capture, identify, owner, scan, verify};

const ANNA: (&str, u64) = ("anna/right-index", 4);
const BEN: (&str, u64) = ("ben/right-index", 4);

#[tokio::test]
async fn a_scan_is_told_in_order_and_only_its_owner_gets_the_template() {
    let ground = Ground::with_readers(&["SN-1"]);
    let mut site = ground.start(IdleMode::Off).await;
    let started = site.begin(scan()).await.unwrap();
    assert_eq!(started.device_id.as_str(), "device-001");
    let status = |name| site.operations.status(&started.scan_id, &owner(name).owner);
    assert_eq!(status("a").unwrap().state, ScanState::Waiting);
    let file = ground.place("SN-1", ANNA.0, ANNA.1);
    site.until("complete", || status("a").unwrap().state == ScanState::Complete).await;
    let finished = status("a").unwrap();
    let (template, quality, _) = finished.scanned().unwrap();
    assert!(quality >= 50);
    assert_eq!(status("b"), None);
    fs::remove_file(file).unwrap();

    let Ok(Outcome::Scanned { template: answered, .. }) = started.finished().await else {
        panic!("not scanned")
    };
    assert_eq!(answered, *template);
    let mut names = Vec::new();
    loop {
        let committed = site.next().await;
        let complete = committed.event == topics::EventType::ScanComplete;
        assert_eq!(committed.attachment.extra.contains_key("template"), complete);
        let public = String::from_utf8(committed.record.json().to_vec()).unwrap();
        assert!(!public.contains(&template.base64()), "no template in a public record");
        names.push(committed.event.as_str());
        if complete {
            assert_eq!(committed.attachment.owner, Some(owner("a").owner));
            assert!(public.contains(&template.sha256()));
            break;
        }
    }
    assert_eq!(
        names,
        [
            "device:connected",
            "scan:started",
            "device:status",
            "fingerprint:detected",
            "scan:complete"
        ]
    );
    assert_eq!(site.told_until_idle().await, ["device:status"]);
    site.stop().await;
}

#[tokio::test]
async fn an_enrolled_finger_is_verified_and_identified_and_a_stranger_is_not() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let enrolled = site.enroll(&ground, "anna", ANNA.0).await;
    assert!(!site.operations.shared.marks.is_scan_output(&enrolled));

    for (finger, expected) in [(ANNA, true), (BEN, false)] {
        let outcome = site.run_with(&ground, verify("anna", &enrolled), finger).await.unwrap();
        let Outcome::Verified { matched, confidence, quality: Some(_), .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!((matched, confidence >= 70.0), (expected, expected), "{finger:?} {confidence}");

        let outcome = site.run_with(&ground, identify(), finger).await.unwrap();
        let Outcome::Identified { user_id, confidence, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(user_id.is_some(), expected);
        assert_eq!(confidence >= 70.0, expected);
        let of = |user: &str| Request::Identify {
            template: None,
            user_ids: Some(vec![user.parse().unwrap()]),
        };
        let outcome = site.run_with(&ground, of("anna"), finger).await.unwrap();
        assert!(
            matches!(outcome, Outcome::Identified { user_id, .. } if user_id.is_some() == expected)
        );
        let outcome = site.run_with(&ground, of("nobody"), finger).await.unwrap();
        assert!(matches!(outcome, Outcome::Identified { user_id: None, .. }));
    }
    // Without a template: against what is stored.
    let stored = || Request::Verify { user_id: "anna".parse().unwrap(), template: None };
    let outcome = site.run_with(&ground, stored(), ANNA).await.unwrap();
    assert!(matches!(outcome, Outcome::Verified { matched: true, .. }));
    let nobody = Request::Verify { user_id: "nobody".parse().unwrap(), template: None };
    assert_eq!(site.run(nobody).await.unwrap_err().code, 3004);
    site.stop().await;
}

#[tokio::test]
async fn a_scans_template_is_compared_with_what_is_stored_and_never_with_a_live_finger() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    site.enroll(&ground, "anna", ANNA.0).await;
    let mut scanned = Vec::new();
    for finger in [ANNA, BEN] {
        let outcome = site.run_with(&ground, capture(), finger).await.unwrap();
        let Outcome::Scanned { template, .. } = outcome else { panic!("{outcome:?}") };
        scanned.push(template);
    }
    for (template, expected) in scanned.iter().zip([true, false]) {
        // No finger is placed: this would time out if one were asked for.
        let outcome = site.run(verify("anna", template)).await.unwrap();
        assert!(
            matches!(outcome, Outcome::Verified { matched, quality: None, .. } if matched == expected)
        );
        let given = Request::Identify { template: Some(template.clone()), user_ids: None };
        let outcome = site.run(given).await.unwrap();
        assert!(
            matches!(outcome, Outcome::Identified { user_id, .. } if user_id.is_some() == expected)
        );
    }
    assert_eq!(site.run(verify("nobody", &scanned[0])).await.unwrap_err().code, 3004);
    // Without its mark, as a library writes it that drops what it doesn't know.
    let bare = minutiae::Template::read(&scanned[1]).unwrap().without_extension(0x5257);
    for bare in [bare.write_iso(), bare.write_ansi()] {
        let outcome = site.run(verify("anna", &bare.into())).await.unwrap();
        assert!(matches!(outcome, Outcome::Verified { matched: false, quality: None, .. }));
    }
    let mut altered = scanned[0].to_vec();
    altered[40] ^= 1;
    assert_eq!(site.run(verify("anna", &altered.into())).await.unwrap_err().code, 2004);
    let noise = vec![7; 300].into();
    assert_eq!(site.run(verify("anna", &noise)).await.unwrap_err().code, 2004);
    site.stop().await;
}

#[tokio::test]
async fn a_restart_forgets_nobody() {
    let ground = Ground::with_readers(&["SN-2"]);
    let site = ground.start(IdleMode::Off).await;
    site.stop().await;
    ground.plug("SN-1");
    let site = ground.start(IdleMode::Off).await;
    site.until("two readers", || {
        site.operations.readers().iter().filter(|view| view.is_connected()).count() == 2
    })
    .await;
    let id_of = |site: &site::Site, serial| site.operations.reader_named(serial).unwrap().id;
    assert_eq!(id_of(&site, "SN-2").as_str(), "device-001", "first seen, first numbered");
    assert_eq!(id_of(&site, "SN-1").as_str(), "device-002");
    ground.unplug("SN-2");
    site.until("one reader", || {
        site.operations.reader_named("SN-2").unwrap().status == ReaderState::Disconnected
    })
    .await;
    site.enroll(&ground, "anna", ANNA.0).await;
    let outcome = site.run_with(&ground, capture(), ANNA).await.unwrap();
    let Outcome::Scanned { template: scanned, .. } = outcome else { panic!("{outcome:?}") };
    site.stop().await;

    let site = ground.start(IdleMode::Off).await;
    assert_eq!(site.operations.readers().len(), 2);
    assert_eq!(id_of(&site, "SN-1").as_str(), "device-002");
    let outcome = site.run_with(&ground, identify(), ANNA).await.unwrap();
    assert!(matches!(outcome, Outcome::Identified { user_id: Some(_), .. }));
    let outcome = site.run(verify("anna", &scanned)).await.unwrap();
    assert!(matches!(outcome, Outcome::Verified { matched: true, quality: None, .. }));

    let anna = "anna".parse().unwrap();
    assert_eq!(site.operations.delete_user(&anna).await, Ok(1));
    assert_eq!(site.operations.delete_user(&anna).await.unwrap_err().code, 3004);
    let outcome = site.run_with(&ground, identify(), ANNA).await.unwrap();
    assert!(matches!(outcome, Outcome::Identified { user_id: None, .. }));
    site.stop().await;
}

#[tokio::test]
async fn enrolling_the_same_finger_again_replaces_it_and_another_one_is_added() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let first = site.enroll(&ground, "anna", ANNA.0).await;
    let second = site.enroll(&ground, "anna", "anna/left-thumb").await;
    let anna = "anna".parse().unwrap();
    let stored = site.operations.templates().of_user(&anna).unwrap();
    assert_eq!(stored.len(), 1, "no position, twice: the same finger");
    assert_eq!(stored[0].template, second);
    assert_ne!(stored[0].template, first);
    let outcome = site.run_with(&ground, identify(), ANNA).await.unwrap();
    assert!(matches!(outcome, Outcome::Identified { user_id: None, .. }), "the old one is gone");
    site.stop().await;
}

#[tokio::test]
async fn an_idle_reader_decides_on_every_touch_once() {
    let ground = Ground::with_readers(&["SN-1"]);
    let mut site = ground.start(IdleMode::Identify).await;
    site.enroll(&ground, "anna", ANNA.0).await;
    site.told_until_idle().await;
    let decided = |body: &EventBody| {
        matches!(body, EventBody::AccessGranted { .. } | EventBody::AccessDenied { .. })
    };
    for (finger, decision) in [(ANNA, "access:granted"), (BEN, "access:denied")] {
        let file = ground.place("SN-1", finger.0, finger.1);
        let told = site.told_until(decided).await;
        assert_eq!(
            told,
            ["fingerprint:detected", "scan:complete", "identification:result", decision]
        );
        fs::remove_file(file).unwrap();
    }
    site.stop().await;
}

#[tokio::test]
async fn a_crash_of_the_engine_ends_the_operation_and_nothing_else() {
    let ground = Ground::with_readers(&["SN-1"]);
    let mut site = ground.start(IdleMode::Off).await;
    site.enroll(&ground, "anna", ANNA.0).await;
    let started = site.begin(identify()).await.unwrap();
    ground.fault("SN-1", "crash");
    let error = tokio::time::timeout(DEADLINE, started.finished()).await.unwrap().unwrap_err();
    assert_eq!((error.code, error.retryable), (1003, false));
    ground.repair("SN-1");
    site.told_until(|body| matches!(body, EventBody::DeviceDisconnected { .. })).await;
    let told = site.told_until(|body| matches!(body, EventBody::DeviceConnected { .. })).await;
    assert_eq!(told, ["scan:error", "device:connected"]);
    // It may have crashed once more before it was repaired: until then it is not there.
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let outcome = tokio::time::timeout(DEADLINE, async {
        loop {
            tick.tick().await;
            match site.run_with(&ground, identify(), ANNA).await {
                Ok(outcome) => break outcome,
                Err(error) => assert!([1001, 1003, 5002].contains(&error.code), "{error}"),
            }
        }
    });
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome, Outcome::Identified { user_id: Some(_), .. }), "reloaded");
    site.stop().await;
}

#[tokio::test]
async fn an_unplugged_reader_ends_the_operation_and_is_not_there() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(scan()).await.unwrap();
    ground.unplug("SN-1");
    let error = tokio::time::timeout(DEADLINE, started.finished()).await.unwrap().unwrap_err();
    assert_eq!(error.code, 1003);
    let named = site.operations.start(Some("device-001"), scan(), owner("a")).await;
    assert_eq!(named.unwrap_err().code, 1003, "known, but not there");
    assert_eq!(site.begin(scan()).await.unwrap_err().code, 1001, "none at all");
    let unknown = site.operations.start(Some("device-009"), scan(), owner("a")).await;
    assert_eq!(unknown.unwrap_err().code, 1001);
    assert_eq!(site.operations.test(Some("device-001")).await.unwrap_err().code, 1003);
    ground.plug("SN-1");
    site.until("back", || site.operations.readers()[0].is_connected()).await;
    site.operations.test(Some("SN-1")).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn one_operation_at_a_time_and_who_started_it_ends_it() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(capture()).await.unwrap();
    let busy = site.operations.start(None, scan(), owner("b")).await.unwrap_err();
    assert_eq!((busy.code, &busy.details["retryAfter"]), (1002, &serde_json::json!(2)));
    let foreign = site.operations.stop(&started.scan_id, &owner("b").owner).await;
    assert_eq!(foreign.unwrap_err().code, 3004);
    site.operations.stop(&started.scan_id, &owner("a").owner).await.unwrap();
    let stopped = started.finished().await.unwrap_err();
    assert_eq!(stopped.details["reason"], "stopped");

    let first = site.begin(scan()).await.unwrap();
    let second = site.begin(scan()).await.unwrap();
    let replaced = first.finished().await.unwrap_err();
    assert_eq!(replaced.details["reason"], "replaced");
    site.operations.abandon(&second.scan_id, &owner("a").owner);
    assert_eq!(second.finished().await.unwrap_err().details["reason"], "stopped");
    site.stop().await;
}

#[tokio::test]
async fn a_finger_that_stays_is_not_taken_again() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(capture()).await.unwrap();
    let file = ground.place("SN-1", ANNA.0, ANNA.1);
    started.finished().await.unwrap();
    let timeout = Some(Duration::from_millis(600));
    let again = Request::Capture { timeout, quality_threshold: None };
    assert_eq!(site.run(again).await.unwrap_err().code, 2002, "it was not lifted");
    fs::remove_file(file).unwrap();
    site.run_with(&ground, capture(), ANNA).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn a_finger_that_was_only_told_of_is_taken_where_it_lies() {
    let ground = Ground::with_readers(&["SN-1"]);
    let mut site = ground.start(IdleMode::Detect).await;
    let file = ground.place("SN-1", ANNA.0, ANNA.1);
    site.told_until(|body| matches!(body, EventBody::FingerprintDetected { .. })).await;
    let outcome = site.run(capture()).await.unwrap();
    assert!(matches!(outcome, Outcome::Scanned { .. }));
    fs::remove_file(file).unwrap();
    site.stop().await;
}

#[tokio::test]
async fn stopping_the_service_ends_what_runs() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(scan()).await.unwrap();
    site.stop().await;
    assert_eq!(started.finished().await.unwrap_err().code, 5002);
}
