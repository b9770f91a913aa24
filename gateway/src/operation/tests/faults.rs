//! What goes wrong, as callers and listeners see it.

use std::fs;

use tokio::time::timeout;
use topics::{EventBody, ReaderState};

use super::site::{DEADLINE, Ground, Site, capture, identify, owner, scan};
use crate::{
    journal::Owner,
    operation::{Outcome, Request},
    session::IdleMode,
};

async fn until_state(site: &Site, state: ReaderState) {
    let what = format!("{state:?}");
    site.until(&what, || {
        site.operations.reader_named("SN-1").is_some_and(|view| view.status == state)
    })
    .await;
}

/// The errors told so far.
fn told_errors(site: &Site) -> Vec<u16> {
    let records = site.journal.read(topics::Lane::Events, 1, 1000, usize::MAX).unwrap();
    let code = |body: EventBody| match body {
        EventBody::ScanError { code, .. } => Some(code),
        _ => None,
    };
    records.iter().filter_map(|record| code(record.event().unwrap().body)).collect()
}

#[tokio::test]
async fn a_reader_that_does_not_answer_is_a_timeout_and_recovers() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(capture()).await.unwrap();
    ground.fault("SN-1", "slow 4000");
    let error = timeout(DEADLINE, started.finished()).await.unwrap().unwrap_err();
    assert_eq!((error.code, error.retryable), (1005, true));
    assert_eq!(told_errors(&site), [1005]);
    ground.repair("SN-1");
    until_state(&site, ReaderState::Idle).await;
    site.run_with(&ground, capture(), ("anna", 1)).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn a_reader_that_another_process_holds_is_busy_until_it_is_free() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    ground.fault("SN-1", "busy");
    let started = site.begin(capture()).await.unwrap();
    let error = timeout(DEADLINE, started.finished()).await.unwrap().unwrap_err();
    assert!([1002, 2002].contains(&error.code), "{error}");
    ground.repair("SN-1");
    until_state(&site, ReaderState::Idle).await;
    site.run_with(&ground, capture(), ("anna", 1)).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn noise_in_place_of_a_template_is_no_capture() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    ground.fault("SN-1", "garbage-template");
    let error = site.run_with(&ground, capture(), ("anna", 1)).await.unwrap_err();
    assert_eq!(error.code, 2003);
    ground.repair("SN-1");
    site.run_with(&ground, capture(), ("anna", 1)).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn a_picture_without_a_print_is_a_bad_placement() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(capture()).await.unwrap();
    let file = ground.world.path().join("SN-1/palm.png");
    fs::write(&file, "no picture").unwrap();
    let error = timeout(DEADLINE, started.finished()).await.unwrap().unwrap_err();
    assert_eq!((error.code, error.retryable), (2003, true));
    fs::remove_file(file).unwrap();
    site.stop().await;
}

#[tokio::test]
async fn three_different_fingers_do_not_enrol_and_nothing_is_stored() {
    let ground = Ground::with_readers(&["SN-1"]);
    let mut site = ground.start(IdleMode::Off).await;
    let user_id: topics::UserId = "anna".parse().unwrap();
    let request = Request::Enroll { user_id: user_id.clone(), metadata: None };
    let started = site.begin(request).await.unwrap();
    for (finger, done) in [("anna", Some(1)), ("ben", Some(2)), ("eve", None)] {
        let file = ground.place("SN-1", finger, 1);
        site.told_until(|body| match (body, done) {
            (EventBody::ScanProgress { scans_completed, .. }, Some(done)) => {
                *scans_completed == done
            }
            (EventBody::ScanError { code: 2005, .. }, None) => true,
            _ => false,
        })
        .await;
        fs::remove_file(file).unwrap();
    }
    let error = started.finished().await.unwrap_err();
    assert_eq!(error.code, 2005);
    assert_eq!(error.details["scansCompleted"], 3);
    assert!(site.operations.templates().infos(&user_id).is_empty());
    site.stop().await;
}

#[tokio::test]
async fn an_sdk_that_does_not_initialise_is_told_as_such() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    ground.fault("SN-1", "init -3");
    ground.plug("SN-2"); // a change, upon which the library is initialised again
    until_state(&site, ReaderState::Disconnected).await;
    site.until("1004", || site.operations.trouble().is_some()).await;
    for device in [None, Some("device-001")] {
        let error = site.operations.start(device, scan(), owner("a")).await.unwrap_err();
        assert_eq!(error.code, 1004, "{device:?} {error}");
    }
    ground.repair("SN-1");
    until_state(&site, ReaderState::Idle).await;
    site.run_with(&ground, capture(), ("anna", 1)).await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let started = site.begin(capture()).await.unwrap();
    site.journal.clone().close().await.unwrap();
    let file = ground.place("SN-1", "anna", 1);
    let error = timeout(DEADLINE, started.finished()).await.unwrap().unwrap_err();
    assert_eq!(error.code, 5002, "no template without its record");
    fs::remove_file(file).unwrap();
    assert_eq!(site.begin(identify()).await.unwrap_err().code, 5002);
    let mut state = site.operations.reader_summaries();
    let idle = |readers: &Vec<topics::ReaderSummary>| readers[0].status == ReaderState::Idle;
    timeout(DEADLINE, state.wait_for(idle)).await.unwrap().unwrap();
    site.token.cancel();
    site.tracker.close();
    timeout(DEADLINE, site.tracker.wait()).await.unwrap();
}

#[tokio::test]
async fn too_much_of_the_callers_own_data_is_refused() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let metadata = serde_json::json!({ "name": "x".repeat(5_000) });
    let request = Request::Enroll {
        user_id: "anna".parse().unwrap(),
        metadata: metadata.as_object().cloned(),
    };
    assert_eq!(site.begin(request).await.unwrap_err().code, 400);
    site.stop().await;
}

#[tokio::test]
async fn two_readers_work_side_by_side() {
    let ground = Ground::with_readers(&["SN-1", "SN-2"]);
    let site = ground.start(IdleMode::Off).await;
    site.until("two", || {
        site.operations.readers().iter().filter(|r| r.is_connected()).count() == 2
    })
    .await;
    let first = site.begin(capture()).await.unwrap();
    let second = site.begin(capture()).await.unwrap();
    assert_ne!(first.device_id, second.device_id, "an idle one before a busy one");
    assert_eq!(site.begin(capture()).await.unwrap_err().code, 1002);
    let serial_of =
        |id: &topics::ReaderId| site.operations.reader_named(id.as_str()).unwrap().serial_number;
    let files = [
        ground.place(&serial_of(&second.device_id), "ben", 1),
        ground.place(&serial_of(&first.device_id), "anna", 1),
    ];
    let mut templates = Vec::new();
    for started in [first, second] {
        let outcome = timeout(DEADLINE, started.finished()).await.unwrap().unwrap();
        let Outcome::Scanned { template, .. } = outcome else { panic!("{outcome:?}") };
        templates.push(template);
    }
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let same = site.operations.compare(&templates[0], &templates[1]).await.unwrap();
    assert!(!same.matched && same.confidence < 70.0);
    let same = site.operations.compare(&templates[0], &templates[0]).await.unwrap();
    assert!(same.matched);
    // An administrator may stop anybody's; who started it may not be told apart otherwise.
    let third = site.begin(scan()).await.unwrap();
    site.operations.stop(&third.scan_id, &Owner::Admin).await.unwrap();
    site.stop().await;
}
