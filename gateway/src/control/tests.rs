use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    time::Instant,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{Draft, EventBody, UplinkState, event::ServiceState, record::Cause};

use super::*;
use crate::journal::{Attachment, Batch, Journal, JournalConfig, moment};

struct Site {
    dir: tempfile::TempDir,
    data_dir: PathBuf,
    journal: Journal,
    token: CancellationToken,
    tracker: TaskTracker,
    _uplink: watch::Sender<UplinkState>,
}

impl Site {
    fn start(data_dir: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join(data_dir);
        std::fs::create_dir_all(&data_dir).unwrap();
        let config = JournalConfig::new(data_dir.join("journal.redb"), "hq-lobby".parse().unwrap());
        let (journal, _) = Journal::open(config).unwrap();
        let (_uplink, uplink) = watch::channel(UplinkState::Disabled);
        let (token, tracker) = (CancellationToken::new(), TaskTracker::new());
        let parts = Parts { journal: journal.clone(), uplink, started: Instant::now() };
        Server::start(&data_dir, parts, &tracker, token.clone()).unwrap();
        Self { dir, data_dir, journal, token, tracker, _uplink }
    }

    async fn commit(&self, count: u64) {
        let batch = (0..count).fold(Batch::new(), |batch, uptime| {
            let (status, version) = (ServiceState::Running, "0.1.0".to_owned());
            let body = EventBody::ServiceStatus { status, uptime, version };
            let draft = Draft::new(&body, &moment(), &Cause::default()).unwrap();
            batch.event(draft, Attachment::default())
        });
        self.journal.commit(batch).await.unwrap();
    }

    fn connect(&self) -> Control {
        Control::connect(&self.data_dir).unwrap().expect("a gateway runs")
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_reads_what_the_gateway_holds() {
    let site = Site::start("data");
    site.commit(3_000).await;
    let mode = std::fs::metadata(site.data_dir.join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let expected = site.journal.survey();
    let held = site.journal.rows(Lane::Telemetry, 0, usize::MAX, usize::MAX).unwrap();
    let mut control = site.connect();
    let (survey, rows, control) = blocking(move || {
        let survey = control.survey().unwrap();
        let mut rows = Vec::new();
        loop {
            let from = rows.len() as u64 + 1;
            let more = control.rows(Lane::Telemetry, from, usize::MAX, usize::MAX).unwrap();
            assert!(more.len() <= MAX_ROWS, "an answer is bounded");
            if more.is_empty() {
                break;
            }
            rows.extend(more);
        }
        (survey, rows, control)
    })
    .await;
    assert!(rows == held, "every row as it is");
    assert_eq!((survey.store, &survey.lanes), (expected.store, &expected.lanes));
    let live = survey.live.unwrap();
    assert_eq!((live.process, live.commits), (std::process::id(), 1));
    assert!(live.last_commit.is_some());

    // What comes is told as it comes.
    let mut control = control;
    let waits = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let next = control.wait([1, 1, 1, 3_001]).unwrap();
        (next, started.elapsed(), control)
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    site.commit(1).await;
    let (next, took, mut control) = waits.await.unwrap();
    assert_eq!(next, [1, 1, 1, 3_002]);
    assert!(took < std::time::Duration::from_secs(4), "{took:?}");

    // The gateway's end is told, and the socket goes with it.
    site.token.cancel();
    site.tracker.close();
    site.tracker.wait().await;
    let ended = blocking(move || control.survey()).await;
    assert!(matches!(ended, Err(ControlError::Ended)), "{ended:?}");
    assert!(Control::connect(&site.data_dir).unwrap().is_none());
    assert!(!site.data_dir.join(SOCKET).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_path_and_a_dead_gateways_socket_are_no_obstacle() {
    let site = Site::start(&"deep/".repeat(40));
    let mut control = site.connect();
    blocking(move || control.survey().unwrap()).await;
    drop(site);

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("data").join(SOCKET)).unwrap());
    assert!(Control::connect(&dir.path().join("data")).unwrap().is_none(), "nobody listens");
    let (_uplink, uplink) = watch::channel(UplinkState::Disabled);
    let config = JournalConfig::new(dir.path().join("journal.redb"), "hq".parse().unwrap());
    let (journal, _) = Journal::open(config).unwrap();
    let parts = Parts { journal, uplink, started: Instant::now() };
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    Server::start(&dir.path().join("data"), parts, &tracker, token).unwrap();
    assert!(Control::connect(&dir.path().join("data")).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_and_too_many_are_refused() {
    let site = Site::start("data");
    let path = site.data_dir.join(SOCKET);
    blocking(move || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        stream.write_all(b"{\"ask\":\"everything\"}\n").unwrap();
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.contains("error") && answer.contains("everything"), "{answer}");
        // A line without an end takes no memory.
        stream.write_all(&[b'x'; 10_000]).unwrap();
        let cut = stream.read(&mut [0; 1]);
        let waits = cut.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(!waits && !matches!(cut, Ok(1)), "{cut:?}");
    })
    .await;
    let mut held: Vec<Control> = (0..8).map(|_| site.connect()).collect();
    for control in &mut held {
        tokio::task::block_in_place(|| control.survey()).unwrap();
    }
    let mut more = site.connect();
    let refused = tokio::task::block_in_place(|| more.survey());
    assert!(matches!(refused, Err(ControlError::Refused(_))), "{refused:?}");
    drop(site.dir);
}
