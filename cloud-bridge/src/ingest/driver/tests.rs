//! The engine on a real store, with a clock that a test sets, and without a broker.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use redb::{Database, StorageBackend, backends::InMemoryBackend};
use serde_json::json;
use topics::{
    BootId, CommandStatus, Lane, ReaderSummary,
    link::{AgentInfo, Hello, LaneHello, Probe},
};

use super::*;
use crate::{
    clock::{Clock, Now},
    command::Requester,
    hub::Hub,
    secrets::{LinkSecret, SealingKey},
    service::{Expires, KnownGateway, Service, Wish},
    store::{Limits, Store},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;

struct Site {
    engine: Engine,
    nudged: mpsc::Receiver<Nudge>,
    clocks: Arc<Mutex<Now>>,
    is_full: Arc<AtomicBool>,
    dir: tempfile::TempDir,
    /// So that the engine's channels stay open.
    _ends: (mpsc::Sender<Input>, mpsc::Sender<Nudge>, mpsc::Receiver<Outgoing>),
}

/// In memory, and full at will.
#[derive(Debug)]
struct Disk {
    memory: Arc<InMemoryBackend>,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<&InMemoryBackend> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(&self.memory)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?.write(offset, data)
    }
}

fn hq() -> GatewayId {
    "hq".parse().unwrap()
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clocks = Arc::new(Mutex::new(Clock::of_machine().read()));
        let told = clocks.clone();
        let limits = Limits { cache_bytes: 1 << 20, max_events: 1_000, max_commands: 100 };
        let is_full = Arc::new(AtomicBool::new(false));
        let (disk, full) = (Arc::new(InMemoryBackend::new()), is_full.clone());
        let opener = move || {
            let disk = Disk { memory: disk.clone(), is_full: full.clone() };
            Ok(Database::builder().create_with_backend(disk)?)
        };
        let (store, _closing) = Store::open_with(Box::new(opener), limits).unwrap();
        let secret = LinkSecret::load_or_create(&dir.path().join("secret")).unwrap();
        let (nudges, nudged) = mpsc::channel(16);
        let service = Arc::new(Service {
            name: "bridge".into(),
            root: topics::Root::default(),
            store,
            master: SealingKey::load_or_create(&dir.path().join("master")).unwrap(),
            gateways: [(hq(), KnownGateway { name: None, link_key: secret.seal_key() })].into(),
            hub: Hub::new(16),
            default_expiry: MINUTE,
            run_limit: MINUTE,
            nudges,
            unreadable: Default::default(),
            clock: Clock::new(move || *told.lock().unwrap()),
        });
        let (inputs_in, inputs) = mpsc::channel(16);
        let (nudges_in, nudges) = mpsc::channel(16);
        let (outbox, outbox_out) = mpsc::channel(16);
        let channels = Channels { inputs, nudges, outbox, heads: watch::Sender::new(0) };
        let engine = Engine::new(service, channels).unwrap();
        Self { engine, nudged, clocks, is_full, dir, _ends: (inputs_in, nudges_in, outbox_out) }
    }

    /// The wall clock is set by so much, and so much time passes, as the engine wakes meanwhile.
    async fn pass(&mut self, set_by_ms: i64, time: Duration) {
        let mut set_by_ms = set_by_ms;
        for _ in 0..time.as_secs() {
            {
                let mut now = self.clocks.lock().unwrap();
                let wall = now.wall.plus(Duration::from_secs(1)).as_millis() + set_by_ms;
                now.wall = Timestamp::from_millis(wall);
                now.since_boot += Duration::from_secs(1);
            }
            set_by_ms = 0;
            self.engine.round(None).await;
        }
    }

    async fn command(&mut self, id: &str) -> Command {
        let wish = Wish {
            id: Some(id.parse().unwrap()),
            agent: hq(),
            command: "devices".into(),
            params: json!({}),
            expires: Expires::ByDefault,
            requester: Requester::ApiKey { name: "main".into() },
        };
        let (command, _) = self.engine.service.command(wish).await.unwrap();
        let nudge = self.nudged.recv().await.unwrap();
        self.engine.round(Some(Input::Nudge(nudge))).await;
        command
    }

    fn stored(&self, id: &str) -> Command {
        self.engine.service.store.command(&id.parse().unwrap()).unwrap().unwrap()
    }

    async fn hello(&mut self, session: u64) {
        let lanes =
            Lane::ALL.map(|lane| LaneHello { lane, oldest: 1, next: 1, watermark: 0, chain: 0 });
        let hello = Hello {
            session,
            gateway: hq(),
            store: StoreId::from_bytes([1; 16]),
            boot: BootId::from_bytes([1; 16]),
            uptime_ms: 1,
            wall: Timestamp::default(),
            probe_ms: None,
            lanes: lanes.to_vec(),
            agent: AgentInfo { readers: Vec::<ReaderSummary>::new(), ..AgentInfo::default() },
        };
        let frame = Box::new(ReadFrame::Other { frame: Frame::Hello(hello), bytes: 0 });
        let (gateway, room) = (hq(), Room::none());
        self.engine.round(Some(Input::Frame { gateway, frame, room })).await;
    }
}

#[tokio::test]
async fn a_clock_that_is_set_makes_no_command_wait_longer_or_shorter() {
    for set_by_ms in [-HOUR_MS, -1_500] {
        let mut site = Site::start();
        let command = site.command("c-1").await;
        site.pass(0, MINUTE / 2).await;
        site.pass(set_by_ms, Duration::from_secs(29)).await;
        let waiting = site.stored("c-1");
        assert_eq!(waiting.status, CommandStatus::Pending, "set by {set_by_ms}");
        assert_eq!(waiting.expires_at, crate::clock::moved(command.expires_at, set_by_ms));
        // What goes down says when it ends by the clock as it is now.
        let now = site.engine.service.clock.wall();
        let down = site.engine.command_down(&site.engine.open[&waiting.id], 1, now).unwrap();
        assert_eq!(down.expires_at.since(down.now), Duration::from_secs(1), "set by {set_by_ms}");
        site.pass(0, Duration::from_secs(2)).await;
        assert_eq!(site.stored("c-1").status, CommandStatus::Expired, "set by {set_by_ms}");
    }
}

/// Set forward, or the machine was paused and an hour is gone: the command is not done late.
#[tokio::test]
async fn a_clock_that_goes_forward_ends_what_is_too_late_by_it() {
    let mut site = Site::start();
    let command = site.command("c-1").await;
    site.pass(1_500, Duration::from_secs(58)).await;
    assert_eq!(site.stored("c-1").status, CommandStatus::Pending);
    assert_eq!(site.stored("c-1").expires_at, command.expires_at);
    site.pass(0, Duration::from_secs(1)).await;
    assert_eq!(site.stored("c-1").status, CommandStatus::Expired, "earlier, rather than later");
    site.command("c-2").await;
    site.pass(HOUR_MS, Duration::from_secs(1)).await;
    assert_eq!(site.stored("c-2").status, CommandStatus::Expired);
}

#[tokio::test]
async fn after_a_clock_was_set_a_gateway_is_still_there_and_learns_the_time_anew() {
    for set_by_ms in [-HOUR_MS, HOUR_MS] {
        let mut site = Site::start();
        site.hello(7).await;
        let mut pending = Pending::default();
        site.engine.move_times(set_by_ms, &mut pending);
        let asked = Frame::AskHello(AskHello { session: 7 });
        assert_eq!(pending.sends, [(hq(), asked)]);

        let mut site = Site::start();
        site.hello(7).await;
        site.pass(set_by_ms, SILENCE_LIMIT - Duration::from_secs(1)).await;
        assert!(site.engine.agents[&hq()].online, "set by {set_by_ms}");
        site.pass(0, Duration::from_secs(2)).await;
        assert!(
            !site.engine.agents[&hq()].online,
            "set by {set_by_ms}: silence is noticed in time"
        );
    }
}

#[tokio::test]
async fn what_could_not_be_committed_of_a_row_is_committed_when_there_is_room() {
    let mut site = Site::start();
    let mut told = site.engine.service.hub.listen().other;
    let row = |site: &Site| site.engine.service.store.agent(&hq());
    site.hello(7).await;
    assert!(row(&site).unwrap().unwrap().online);
    site.is_full.store(true, Ordering::Relaxed);
    // At once: after a failure the engine pauses a second of its own.
    site.clocks.lock().unwrap().wall = site.engine.service.clock.wall().plus(SILENCE_LIMIT);
    site.clocks.lock().unwrap().since_boot += SILENCE_LIMIT;
    site.engine.round(None).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while site.engine.service.store.health().failed_commits < 2 && Instant::now() < deadline {
        site.engine.watch_store().await;
    }
    let outage = site.engine.service.store.health();
    assert!(outage.outage.is_some() && outage.failed_commits > 1, "{outage:?}");
    let online = "agent:online";
    let heard = |told: &mut tokio::sync::broadcast::Receiver<Arc<Told>>| -> Vec<String> {
        let texts = std::iter::from_fn(|| told.try_recv().ok()).filter_map(|it| match &*it {
            Told::Agent { message, .. } => Some(message.clone()),
            Told::Event { .. } | Told::Ended(_) => None,
        });
        let types = texts.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        types.map(|message| message["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(heard(&mut told), [online, "agent:info"], "nothing that is not committed");
    // While it lasts a hello is refused, and the gateway is not lost for that.
    site.hello(8).await;
    assert_eq!(site.engine.links[&hq()].session(), None);

    site.is_full.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    while site.engine.service.store.refusal().is_some() && Instant::now() < deadline {
        site.engine.watch_store().await;
    }
    assert_eq!(site.engine.service.store.refusal(), None);
    site.pass(0, Duration::from_secs(1)).await;
    assert!(!row(&site).unwrap().unwrap().online);
    assert_eq!(heard(&mut told), ["agent:offline"], "once");
    site.hello(9).await;
    assert!(row(&site).unwrap().unwrap().online && site.engine.agents[&hq()].online);
}

/// Its session is over, for what it sent could not be committed; it says hello again, and is refused.
#[tokio::test]
async fn a_gateway_whose_round_was_not_committed_is_still_there() {
    let mut site = Site::start();
    site.hello(7).await;
    site.is_full.store(true, Ordering::Relaxed);
    for nonce in 1..=2 {
        let probe = Probe { session: 7, nonce, readers: Vec::new(), queued: 0 };
        let frame = Box::new(ReadFrame::Other { frame: Frame::Probe(probe), bytes: 0 });
        let (gateway, room) = (hq(), Room::none());
        site.engine.round(Some(Input::Frame { gateway, frame, room })).await;
        assert_eq!(site.engine.links[&hq()].session(), None);
        {
            let mut clocks = site.clocks.lock().unwrap();
            clocks.wall = clocks.wall.plus(Duration::from_secs(2));
            clocks.since_boot += Duration::from_secs(2);
        }
        site.engine.round(None).await;
        assert!(site.engine.agents[&hq()].online, "after {nonce}");
    }
}

/// After a restart there is only the wall clock, also where that was set while the bridge was down.
#[tokio::test]
async fn a_bridge_that_starts_goes_by_the_wall_clock() {
    let mut site = Site::start();
    site.command("c-1").await;
    let Site { mut engine, clocks, _ends, dir, .. } = site;
    {
        let mut now = clocks.lock().unwrap();
        now.wall = crate::clock::moved(now.wall, HOUR_MS);
    }
    let (inputs, nudges) = (mpsc::channel(1).1, mpsc::channel(1).1);
    let channels =
        Channels { inputs, nudges, outbox: mpsc::channel(1).0, heads: watch::Sender::new(0) };
    engine = Engine::new(engine.service.clone(), channels).unwrap();
    engine.round(None).await;
    let id = "c-1".parse().unwrap();
    let status = engine.service.store.command(&id).unwrap().unwrap().status;
    assert_eq!(status, CommandStatus::Expired);
    drop(dir);
}
