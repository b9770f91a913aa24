//! What goes wrong, and what the parent makes of it: the documented error, and a reader that comes
//! back. Each through a real child process and the simulator's faults.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Site, config, eventually, is_running, serial};
use minutiae::synth::Finger;
use tokio::sync::mpsc;
use zkfp::{DownReason, HostEvent, ReaderError, ReaderHost};

#[test]
#[ignore = "not a test: the reader host that the tests start"]
fn reader_host() {
    common::be_the_host();
}

/// Until the host is down.
async fn down(site: &mut Site) -> DownReason {
    site.until(|event| match event {
        HostEvent::Down { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

/// Until a reader has an error.
async fn reader_error(site: &mut Site) -> ReaderError {
    site.until(|event| match event {
        HostEvent::ReaderError { error, .. } => Some(error),
        _ => None,
    })
    .await
}

async fn recovered(site: &mut Site) {
    site.until(|event| matches!(event, HostEvent::ReaderRecovered { .. }).then_some(())).await;
}

#[tokio::test]
async fn a_silent_unplug_is_noticed_within_a_second() {
    let mut site = Site::with(&["SN-1"], |config| {
        config.presence_period = zkfp::HostConfig::default().presence_period;
    });
    site.until_connected(&["SN-1"]).await;
    site.armed("SN-1").await;
    let started = Instant::now();
    site.fault("SN-1", "silent-unplug");
    site.until_connected(&[]).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    site.repair("SN-1");
    site.until_connected(&["SN-1"]).await;
    site.armed("SN-1").await;
    site.press("SN-1", &Finger::new(1), 1).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_crash_is_reported_fails_the_request_and_the_reader_comes_back() {
    let mut site = Site::new(&["SN-1"]);
    let first = site.up().await;
    site.until_connected(&["SN-1"]).await;
    let reader = site.armed("SN-1").await;
    site.fault("SN-1", "crash");
    let lost = loop {
        if let Err(error) = site.host.test(&reader).await {
            break error;
        }
    };
    assert_eq!(lost, ReaderError::Disconnected { operation: "test" });
    assert_eq!(lost.code(), 1003);
    assert_eq!(down(&mut site).await, DownReason::Crashed { signal: libc::SIGSEGV });

    site.repair("SN-1");
    let second = site.up().await;
    assert_ne!(first, second);
    site.until_connected(&["SN-1"]).await;
    site.armed("SN-1").await;
    site.press("SN-1", &Finger::new(1), 1).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_crash_at_every_capture_is_restarted_with_growing_pauses() {
    let mut site = Site::new(&["SN-1"]);
    site.fault("SN-1", "crash");
    for _ in 0..3 {
        // Armed by the consumer whenever the reader appears, as a gateway does.
        site.until_connected(&["SN-1"]).await;
        // Perhaps it has crashed before it could say that it is armed.
        let _ = site.host.arm(&serial("SN-1"), true).await;
        assert_eq!(down(&mut site).await, DownReason::Crashed { signal: libc::SIGSEGV });
    }
    site.repair("SN-1");
    site.until_connected(&["SN-1"]).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn while_the_host_is_down_requests_fail_at_once() {
    let mut site = Site::with(&["SN-1"], |config| {
        config.first_restart = Duration::from_secs(3600);
        config.last_restart = Duration::from_secs(3600);
        config.exe = "/nowhere/ridgeway".into();
    });
    let reason = down(&mut site).await;
    assert!(matches!(&reason, DownReason::NotStarted(text) if text.contains("/nowhere/ridgeway")));
    let started = Instant::now();
    let refused = site.host.test(&serial("SN-1")).await;
    assert_eq!(refused, Err(ReaderError::Disconnected { operation: "test" }));
    assert!(started.elapsed() < Duration::from_secs(1));
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_is_a_timeout_for_who_waits_and_recovers() {
    let mut site = Site::with(&["SN-1"], |config| {
        config.slow_call = Duration::from_millis(400);
    });
    let pid = site.up().await;
    site.until_connected(&["SN-1"]).await;
    site.armed("SN-1").await;
    site.fault("SN-1", "slow 2000");
    let error = reader_error(&mut site).await;
    assert_eq!(error.code(), 1005, "{error}");
    // The call that is on now ends at some time; of a few requests in a row one meets the next.
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(site.host.test(&serial("SN-1")).await.map_err(|error| error.code()).err());
    }
    assert!(codes.contains(&Some(1005)), "{codes:?}");
    site.repair("SN-1");
    recovered(&mut site).await;
    site.press("SN-1", &Finger::new(1), 1).await;
    assert!(is_running(pid), "slow isn't dead");
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_call_that_does_not_return_ends_the_host() {
    let mut site = Site::with(&["SN-1"], |config| {
        config.slow_call = Duration::from_millis(300);
        config.dead_call = Duration::from_millis(900);
    });
    let pid = site.up().await;
    site.until_connected(&["SN-1"]).await;
    site.fault("SN-1", "slow 3600000");
    site.armed("SN-1").await;
    let reason = down(&mut site).await;
    assert!(matches!(&reason, DownReason::CallTooLong { call, .. } if call == "capture"));
    eventually("the stuck host ends", || !is_running(pid)).await;
    site.repair("SN-1");
    site.until_connected(&["SN-1"]).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_stuck_call() {
    let mut site = Site::new(&["SN-1"]);
    let pid = site.up().await;
    site.until_connected(&["SN-1"]).await;
    site.fault("SN-1", "slow 3600000");
    site.armed("SN-1").await;
    reader_error(&mut site).await;
    let started = Instant::now();
    site.host.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(!is_running(pid));
}

#[tokio::test]
async fn a_host_that_is_stopped_is_silent_and_replaced() {
    let mut site = Site::with(&["SN-1"], |config| config.silence = Duration::from_millis(1500));
    let pid = site.up().await;
    site.until_connected(&["SN-1"]).await;
    // SAFETY: numbers only; a child of this process.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGSTOP) };
    eventually("each of its threads stands still", || common::is_stopped(pid)).await;
    let waiting = site.host.test(&serial("SN-1")).await;
    assert_eq!(waiting.map_err(|error| error.code()), Err(1003));
    assert!(matches!(down(&mut site).await, DownReason::Silent(_)));
    eventually("the stopped host ends", || !is_running(pid)).await;
    site.until_connected(&["SN-1"]).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn signals_that_are_for_the_parent_leave_the_host_alone() {
    let mut site = Site::new(&["SN-1"]);
    let pid = site.up().await;
    site.until_connected(&["SN-1"]).await;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: numbers only; a child of this process.
        unsafe { libc::kill(pid as libc::pid_t, signal) };
        assert!(site.host.test(&serial("SN-1")).await.is_ok());
    }
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::getpgid(pid as libc::pid_t) }, pid as libc::pid_t);
    assert!(is_running(pid));
    site.host.shutdown().await;
}

#[tokio::test]
async fn garbage_instead_of_a_template_is_an_error_of_that_capture_only() {
    let mut site = Site::new(&["SN-1"]);
    let pid = site.up().await;
    site.until_connected(&["SN-1"]).await;
    site.fault("SN-1", "garbage-template");
    site.armed("SN-1").await;
    let finger = Finger::new(1);
    // Every second one has a wrong length as well: both kinds.
    for impression in 1..=4 {
        let file = site.put("SN-1", "a.png", &finger, impression);
        let error = reader_error(&mut site).await;
        assert!(matches!(error, ReaderError::BadCapture { .. }), "{error}");
        assert_eq!(error.code(), 2003);
        fs::remove_file(file).unwrap();
        site.lifted().await;
    }
    site.repair("SN-1");
    site.press("SN-1", &finger, 5).await;
    assert!(is_running(pid));
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_busy_reader_says_so_once_and_recovers() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    site.fault("SN-1", "busy");
    site.armed("SN-1").await;
    assert_eq!(reader_error(&mut site).await, ReaderError::Busy { serial: serial("SN-1") });
    site.repair("SN-1");
    let next = site.event().await;
    assert_eq!(next, HostEvent::ReaderRecovered { serial: serial("SN-1") });
    site.press("SN-1", &Finger::new(1), 1).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn an_sdk_that_does_not_initialise_is_tried_again() {
    let mut site = Site::new(&["SN-1"]);
    site.until_connected(&["SN-1"]).await;
    site.fault("SN-1", "init -3");
    site.until_connected(&[]).await;
    let refused = site.host.test(&serial("SN-1")).await;
    assert_eq!(refused.map_err(|error| error.code()), Err(1001));
    site.repair("SN-1");
    site.until_connected(&["SN-1"]).await;
    // Beside a reader that is well, the failure is one to report: readers are there.
    fs::create_dir(site.path("SN-2")).unwrap();
    site.until_connected(&["SN-1", "SN-2"]).await;
    site.fault("SN-1", "init -2");
    let error = site
        .until(|event| match event {
            HostEvent::InitFailed(error) => Some(error),
            _ => None,
        })
        .await;
    assert_eq!(error.code(), 1004, "{error}");
    site.repair("SN-1");
    site.until_connected(&["SN-1", "SN-2"]).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_leak_ends_in_a_fresh_host() {
    let mut site = Site::with(&["SN-1"], |config| {
        config.memory_limit_bytes = 64 * 1024 * 1024;
        config.poll_period = Duration::from_millis(5);
    });
    site.until_connected(&["SN-1"]).await;
    site.fault("SN-1", "leak");
    site.armed("SN-1").await;
    let reason = down(&mut site).await;
    assert!(matches!(reason, DownReason::TooLarge { bytes } if bytes > 64 * 1024 * 1024));
    site.repair("SN-1");
    site.until_connected(&["SN-1"]).await;
    site.host.shutdown().await;
}

#[tokio::test]
async fn a_library_that_cannot_be_loaded_is_named() {
    let mut site = Site::with(&[], |config| config.library = Some("/nowhere/libzkfp.so".into()));
    let reason = down(&mut site).await;
    assert!(matches!(&reason, DownReason::NotLoaded(text) if text.contains("/nowhere/libzkfp.so")));
    site.host.shutdown().await;
}

#[tokio::test]
async fn an_executable_that_is_no_host_is_not_waited_for_for_ever() {
    for (exe, reason) in [
        ("/bin/sleep", DownReason::Silent(Duration::from_millis(500))),
        ("/bin/false", DownReason::Exited(Some(1))),
    ] {
        let mut site = Site::with(&[], |config| {
            config.exe = exe.into();
            config.args = vec!["3600".into()];
            config.start_deadline = Duration::from_millis(500);
        });
        assert_eq!(down(&mut site).await, reason);
        site.host.shutdown().await;
    }
}

#[tokio::test]
async fn events_that_nobody_takes_do_not_block_requests() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("SN-1")).unwrap();
    let (sender, mut events) = mpsc::channel(1);
    let host = ReaderHost::spawn(config(folder.path()), sender);
    // The first event is taken; the second fills the channel; the rest wait within.
    assert!(matches!(events.recv().await, Some(HostEvent::Up { .. })));
    eventually("the reader's event waits", || events.len() == 1).await;
    for name in ["SN-2", "SN-3"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    assert!(host.test(&serial("SN-1")).await.is_ok());
    host.shutdown().await;
}

/// Tells the parent below that it is wanted, and whether its child is to be stuck.
const PARENT_VARIABLE: &str = "ZKFP_TEST_PARENT";

/// Stands for a gateway that is killed. Not a test: the next one starts it.
#[test]
#[ignore = "not a test: a parent that the test below kills"]
fn parent_to_be_killed() {
    let Ok(kind) = std::env::var(PARENT_VARIABLE) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut site = Site::new(&["SN-1"]);
        let pid = site.up().await;
        site.until_connected(&["SN-1"]).await;
        if kind == "stuck" {
            site.fault("SN-1", "slow 3600000");
            site.armed("SN-1").await;
            reader_error(&mut site).await;
        }
        println!("\nhost {pid}");
        std::future::pending::<()>().await;
    });
}

/// The child must go when the parent does, also while it is stuck in vendor code.
#[tokio::test]
async fn a_killed_parent_takes_its_child_along() {
    for kind in ["well", "stuck"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "parent_to_be_killed", "--ignored", "--nocapture"]);
        command.env(PARENT_VARIABLE, kind);
        let mut parent = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let pid: u32 = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("host ")?.parse().ok())
            .expect("the parent tells its child's number");
        assert!(is_running(pid));
        parent.kill().unwrap();
        parent.wait().unwrap();
        eventually("the child ends", || !is_running(pid)).await;
    }
}
