//! Fingers and readers, through the whole way: parent, socket, child process, `dlopen`, simulator.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Site, eventually, is_running, serial};
use minutiae::synth::Finger;
use zkfp::{Fid, HostEvent, ReaderError, SdkTemplate};

#[test]
#[ignore = "not a test: the reader host that the tests start"]
fn reader_host() {
    common::be_the_host();
}

#[tokio::test]
async fn readers_are_reported_with_what_they_are() {
    let mut site = Site::with(&[], |_| {});
    site.up().await;
    assert_eq!(site.devices().await, []);
    let new = site.path(".new-reader");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("model"), "Model Z\n").unwrap();
    fs::write(new.join("firmware"), "1.2.3\n").unwrap();
    fs::rename(new, site.path("SN-1")).unwrap();

    let devices = site.devices().await;
    let [device] = devices.as_slice() else { panic!("{devices:?}") };
    assert_eq!(device.serial, serial("SN-1"));
    assert_eq!(device.model, "Model Z");
    assert_eq!(device.firmware.as_deref(), Some("1.2.3"));
    assert_eq!((device.width, device.height, device.dpi), (300, 400, 500));
    assert_eq!(site.host.info(&device.serial).await.as_ref(), Ok(device));
    assert!(site.host.test(&device.serial).await.is_ok());
    site.host.shutdown().await;
}

#[tokio::test]
async fn one_touch_is_one_event_and_a_lift() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    let reader = site.armed("SN-1").await;
    let finger = Finger::new(1);

    let file = site.put("SN-1", "a.png", &finger, 1);
    let touch = site.touch().await;
    assert_eq!((touch.serial.clone(), touch.touch, touch.capture), (reader.clone(), 1, 1));
    assert_eq!((touch.width, touch.height), (300, 400));
    assert!(touch.quality > 30, "{}", touch.quality);

    // Another capture only when asked for, and of the same touch.
    assert_eq!(site.host.recapture(&reader).await, Ok(true));
    let again = site.touch().await;
    assert_eq!((again.touch, again.capture), (1, 2));

    fs::remove_file(file).unwrap();
    assert_eq!(site.event().await, HostEvent::Lifted { serial: reader.clone(), touch: 1 });
    assert_eq!(site.host.recapture(&reader).await, Ok(false));

    let second = site.press("SN-1", &finger, 2).await;
    assert_eq!((second.touch, second.capture), (2, 1));
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_raw_image_with_a_hold_time_lifts_by_itself_also_after_disarming() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    let reader = site.armed("SN-1").await;
    let image = Finger::new(2).impression(1);
    let name = format!("a-{}x{}@300ms.raw", image.width(), image.height());
    let file = site.put_image("SN-1", &name, &image);
    site.touch().await;
    site.host.arm(&reader, false).await.unwrap();
    site.lifted().await;
    assert!(!file.exists(), "the sensor deletes it");

    // Not armed: nobody looks, nothing is reported, the file stays.
    let file = site.put_image("SN-1", &name, &image);
    site.host.test(&reader).await.unwrap();
    assert!(file.exists() && site.events.is_empty());
    site.host.arm(&reader, true).await.unwrap();
    site.touch().await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn what_shows_no_print_is_a_bad_placement_said_once() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    let reader = site.armed("SN-1").await;
    let file = site.path("SN-1").join("nonsense.png");
    fs::write(&file, "not an image").unwrap();
    assert_eq!(site.event().await, HostEvent::BadPlacement { serial: reader.clone(), touch: 1 });
    fs::remove_file(&file).unwrap();
    assert_eq!(site.event().await, HostEvent::Lifted { serial: reader, touch: 1 });
    site.host.shutdown().await;
}

#[tokio::test]
async fn fingers_are_told_apart_merged_and_searched() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    site.armed("SN-1").await;
    let (alice, bob) = (Finger::new(11), Finger::new(12));
    let mut placements = Vec::new();
    for impression in 1..=3 {
        placements.push(site.press("SN-1", &alice, impression).await.template);
    }
    let probe = site.press("SN-1", &alice, 4).await.template;
    let stranger = site.press("SN-1", &bob, 1).await.template;
    let host = &site.host;

    assert!(host.match_templates(&placements[0], &probe).await.unwrap() >= 50);
    assert!(host.match_templates(&stranger, &probe).await.unwrap() < 50);

    let [a, b, c] = placements.as_slice() else { panic!() };
    let enrolled = host.merge(a, b, c).await.unwrap();
    assert!(host.match_templates(&enrolled, &probe).await.unwrap() >= 50);
    let refused = host.merge(a, &stranger, c).await;
    assert_eq!(refused.map_err(|error| error.code()), Err(2005));

    // A fresh host knows nobody, and says so instead of calling everybody a stranger.
    assert_eq!(host.db_identify(&probe).await, Err(ReaderError::GalleryNotLoaded));
    let fid = Fid::new(7).unwrap();
    assert_eq!(host.db_load([(fid, enrolled.clone())]).await, Ok(vec![]));
    let found = host.db_identify(&probe).await.unwrap().expect("enrolled");
    assert!(found.fid == fid && found.score >= 70, "{found:?}");
    assert_eq!(host.db_identify(&stranger).await, Ok(None));

    // Added again under the same number: replaced. Removed twice: removed.
    assert_eq!(host.db_add(fid, &stranger).await, Ok(true));
    assert_eq!(host.db_identify(&stranger).await.unwrap().map(|found| found.fid), Some(fid));
    assert_eq!(host.db_identify(&probe).await, Ok(None));
    assert_eq!(host.db_remove(fid).await, Ok(()));
    assert_eq!(host.db_remove(fid).await, Ok(()));
    assert_eq!(host.db_identify(&stranger).await, Ok(None));

    // The SDK forgets its cache when readers come and go; the host doesn't.
    host.db_add(fid, &enrolled).await.unwrap();
    fs::create_dir(site.path("SN-2")).unwrap();
    site.until_connected(&["SN-1", "SN-2"]).await;
    let found = site.host.db_identify(&probe).await.unwrap();
    assert_eq!(found.map(|found| found.fid), Some(fid));
    site.host.db_clear().await.unwrap();
    assert_eq!(site.host.db_identify(&probe).await, Ok(None));
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_gallery_larger_than_a_frame_is_loaded() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    site.armed("SN-1").await;
    let template = site.press("SN-1", &Finger::new(3), 1).await.template;
    let many = (1..=300).map(|fid| (Fid::new(fid).unwrap(), template.clone()));
    assert_eq!(site.host.db_load(many).await, Ok(vec![]));
    assert!(site.host.db_identify(&template).await.unwrap().is_some());
    site.host.shutdown().await;
}

#[tokio::test]
async fn several_readers_work_at_once_and_only_armed_ones() {
    let mut site = Site::new(&["SN-1", "SN-2", "SN-3"]);
    site.until_connected(&["SN-1", "SN-2", "SN-3"]).await;
    for reader in ["SN-1", "SN-3"] {
        site.armed(reader).await;
    }
    let finger = Finger::new(4);
    for reader in ["SN-2", "SN-1", "SN-3"] {
        site.put(reader, "a.png", &finger, 1);
    }
    let mut touched = vec![site.touch().await.serial, site.touch().await.serial];
    touched.sort();
    assert_eq!(touched, [serial("SN-1"), serial("SN-3")]);
    site.armed("SN-2").await;
    assert_eq!(site.touch().await.serial, serial("SN-2"));
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_reader_that_was_plugged_out_comes_back_disarmed_and_the_others_go_on() {
    let mut site = Site::new(&["SN-1", "SN-2"]);
    site.until_connected(&["SN-1", "SN-2"]).await;
    for reader in ["SN-1", "SN-2"] {
        site.armed(reader).await;
    }
    let away = site.path(".away");
    fs::rename(site.path("SN-1"), &away).unwrap();
    site.until_connected(&["SN-2"]).await;
    let gone = site.host.test(&serial("SN-1")).await;
    assert_eq!(gone, Err(ReaderError::UnknownReader { serial: serial("SN-1") }));
    fs::rename(&away, site.path("SN-1")).unwrap();
    site.until_connected(&["SN-1", "SN-2"]).await;
    let finger = Finger::new(5);
    let waiting = site.put("SN-1", "a.png", &finger, 1);
    assert_eq!(site.press("SN-2", &finger, 1).await.serial, serial("SN-2"), "still armed");
    site.armed("SN-1").await;
    assert_eq!(site.touch().await.serial, serial("SN-1"));
    fs::remove_file(waiting).unwrap();
    site.lifted().await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_stop_ends_the_child() {
    let mut site = Site::new(&["SN-1"]);
    let pid = site.up().await;
    assert!(is_running(pid));
    let started = Instant::now();
    site.host.shutdown().await;
    assert!(!is_running(pid));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let late = site.host.test(&serial("SN-1")).await;
    assert_eq!(late, Err(ReaderError::Stopping { operation: "test" }));
}

#[tokio::test]
async fn dropping_the_host_ends_the_child() {
    let mut site = Site::new(&["SN-1"]);
    let pid = site.up().await;
    drop(site.host);
    eventually("the child ends", || !is_running(pid)).await;
}

#[tokio::test]
async fn malformed_templates_never_reach_the_host() {
    let good = minutiae::extract(&Finger::new(6).impression(1)).unwrap().template.write_iso();
    assert!(SdkTemplate::new(good.clone()).is_ok());
    for damaged in [Vec::new(), vec![0; 2048], good[..good.len() - 1].to_vec(), vec![0; 5000]] {
        let error = SdkTemplate::new(damaged).unwrap_err();
        assert_eq!(error.code(), 2004, "{error}");
    }
    let mut vendor = vec![0xa5; 300];
    vendor[2..10].copy_from_slice(b"SS21\0\0\x01\x2c");
    assert_eq!(SdkTemplate::new(vendor.clone()).unwrap().format(), minutiae::Format::ZkFinger10);
    vendor.pop();
    assert!(SdkTemplate::new(vendor).is_err(), "another length than stated");
}
