//! A gateway's operations on a real journal and the simulator in its real child process.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use minutiae::{GrayImage, synth::Finger};
use tempfile::TempDir;
use tokio::{sync::broadcast, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{ErrorBody, EventBody, ReaderState, record::Cause};
use zkfp::HostConfig;

use crate::{
    journal::{Committed, Journal, JournalConfig, Owner},
    keys::MasterKey,
    operation::{Operations, OperationsConfig, Origin, Outcome, Request, Started, TemplateBytes},
    readers::EngineState,
    session::{IdleMode, Rules},
};

/// Nothing that is waited for takes longer on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "not a test: the reader host that the tests start"]
fn reader_host() {
    let code = zkfp::host::run(&[]);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

/// What outlives a restart.
pub(crate) struct Ground {
    pub(crate) world: TempDir,
    pub(crate) data: TempDir,
}

impl Ground {
    pub(crate) fn with_readers(serials: &[&str]) -> Self {
        let ground = Self { world: TempDir::new().unwrap(), data: TempDir::new().unwrap() };
        serials.iter().for_each(|serial| ground.plug(serial));
        ground
    }

    pub(crate) fn plug(&self, serial: &str) {
        fs::create_dir(self.world.path().join(serial)).unwrap();
    }

    pub(crate) fn unplug(&self, serial: &str) {
        fs::remove_dir_all(self.world.path().join(serial)).unwrap();
    }

    pub(crate) fn fault(&self, serial: &str, fault: &str) {
        let hidden = self.world.path().join(".fault");
        fs::write(&hidden, fault).unwrap();
        fs::rename(hidden, self.world.path().join(serial).join("fault")).unwrap();
    }

    pub(crate) fn repair(&self, serial: &str) {
        fs::remove_file(self.world.path().join(serial).join("fault")).unwrap();
    }

    /// Puts a finger on a reader; it stays until the file is removed.
    pub(crate) fn place(&self, serial: &str, finger: &str, impression: u64) -> PathBuf {
        self.place_image(serial, &Self::image(finger, impression), impression)
    }

    fn image(finger: &str, impression: u64) -> GrayImage {
        Finger::named(finger).impression(impression)
    }

    fn place_image(&self, serial: &str, image: &GrayImage, impression: u64) -> PathBuf {
        let name = format!("f{impression}-{}x{}.raw", image.width(), image.height());
        let folder = self.world.path().join(serial);
        fs::write(folder.join(".new"), image.pixels()).unwrap();
        fs::rename(folder.join(".new"), folder.join(&name)).unwrap();
        folder.join(name)
    }

    pub(crate) async fn start(&self, idle_mode: IdleMode) -> Site {
        let config =
            JournalConfig::new(self.data.path().join("journal.redb"), "test-site".parse().unwrap());
        let (journal, _) = Journal::open(config).unwrap();
        let key = MasterKey::load_or_create(&self.data.path().join("master.key")).unwrap();
        let host = HostConfig {
            exe: std::env::current_exe().unwrap(),
            args: ["--exact", "operation::tests::site::reader_host", "--ignored", "--nocapture"]
                .map(Into::into)
                .into(),
            simulator_dir: Some(self.world.path().to_owned()),
            poll_period: Duration::from_millis(20),
            presence_period: Duration::from_millis(50),
            first_restart: Duration::from_millis(50),
            last_restart: Duration::from_millis(500),
            ..HostConfig::default()
        };
        let rules = Rules { idle_mode, ..Rules::default() };
        let config = OperationsConfig { host, rules, ..OperationsConfig::default() };
        let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
        let live = journal.live();
        let operations =
            Operations::start_readers(config, journal.clone(), Arc::new(key), &tracker, &token)
                .unwrap();
        let site = Site { journal, operations, tracker, token, live };
        site.until_loaded().await;
        site
    }
}

/// A running one.
pub(crate) struct Site {
    pub(crate) journal: Journal,
    pub(crate) operations: Operations,
    pub(crate) tracker: TaskTracker,
    pub(crate) token: CancellationToken,
    live: broadcast::Receiver<Arc<Committed>>,
}

impl Site {
    async fn until_loaded(&self) {
        let mut state = self.operations.engine_state();
        let loaded = state.wait_for(|state| *state == EngineState::Up { loaded: true });
        timeout(DEADLINE, loaded).await.expect("the engine is up in time").unwrap();
        self.until("an idle reader", || {
            self.operations.readers().iter().any(|view| view.status == ReaderState::Idle)
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            assert!(began.elapsed() < DEADLINE, "{what}: not in time");
            tick.tick().await;
        }
    }

    /// The next record; whatever it is.
    pub(crate) async fn next(&mut self) -> Arc<Committed> {
        timeout(DEADLINE, self.live.recv()).await.expect("an event in time").unwrap()
    }

    /// The names of what is told up to and with the first event that fits.
    pub(crate) async fn told_until(&mut self, fits: impl Fn(&EventBody) -> bool) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let committed = self.next().await;
            told.push(committed.event.as_str().to_owned());
            if fits(&committed.record.event().unwrap().body) {
                return told;
            }
        }
    }

    /// What is told up to the moment at which the reader is idle again.
    pub(crate) async fn told_until_idle(&mut self) -> Vec<String> {
        self.told_until(|body| {
            matches!(body, EventBody::DeviceStatus { status: ReaderState::Idle, .. })
        })
        .await
    }

    pub(crate) async fn begin(&self, request: Request) -> Result<Started, ErrorBody> {
        self.operations.start(None, request, owner("a")).await
    }

    pub(crate) async fn run(&self, request: Request) -> Result<Outcome, ErrorBody> {
        let started = self.begin(request).await?;
        timeout(DEADLINE, started.finished()).await.expect("an outcome in time")
    }

    /// Begins, then places a finger on the first reader until it is over.
    pub(crate) async fn run_with(
        &self,
        ground: &Ground,
        request: Request,
        (finger, impression): (&str, u64),
    ) -> Result<Outcome, ErrorBody> {
        let image = Ground::image(finger, impression); // takes a while
        let started = self.begin(request).await?;
        let file = ground.place_image("SN-1", &image, impression);
        let outcome = timeout(DEADLINE, started.finished()).await.expect("an outcome in time");
        fs::remove_file(file).unwrap();
        outcome
    }

    /// Enrols impressions 1 to 3 of the finger of this name; its template.
    pub(crate) async fn enroll(&self, ground: &Ground, user: &str, finger: &str) -> TemplateBytes {
        let request = Request::Enroll { user_id: user.parse().unwrap(), metadata: None };
        let started = self.begin(request).await.unwrap();
        let place = |impression| ground.place("SN-1", finger, impression);
        let scan_id = started.scan_id.clone();
        for (impression, done) in [(1, 1), (2, 2)] {
            let mut live = self.journal.live();
            let file = place(impression);
            loop {
                let next = timeout(DEADLINE, live.recv()).await.expect("progress").unwrap();
                let body = next.record.event().unwrap().body;
                if matches!(&body, EventBody::ScanProgress { scans_completed, scan_id: of, .. }
                    if *scans_completed == done && *of == scan_id)
                {
                    break;
                }
            }
            fs::remove_file(file).unwrap();
        }
        let file = place(3);
        let outcome = timeout(DEADLINE, started.finished()).await.expect("an outcome in time");
        fs::remove_file(file).unwrap();
        match outcome.unwrap() {
            Outcome::Enrolled { template, .. } => template,
            other => panic!("not enrolled: {other:?}"),
        }
    }

    /// Ends everything, as the gateway does.
    pub(crate) async fn stop(self) {
        self.token.cancel();
        self.tracker.close();
        timeout(DEADLINE, self.tracker.wait()).await.expect("all tasks end in time");
        drop(self.operations);
        self.journal.close().await.unwrap();
    }
}

pub(crate) fn owner(name: &str) -> Origin {
    Origin { owner: Owner::ApiKey(name.to_owned()), cause: Cause::default() }
}

pub(crate) fn scan() -> Request {
    Request::Scan { timeout: None, quality_threshold: None }
}

pub(crate) fn capture() -> Request {
    Request::Capture { timeout: None, quality_threshold: None }
}

pub(crate) fn identify() -> Request {
    Request::Identify { template: None, user_ids: None }
}

pub(crate) fn verify(user: &str, template: &TemplateBytes) -> Request {
    Request::Verify { user_id: user.parse().unwrap(), template: Some(template.clone()) }
}
