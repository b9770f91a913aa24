//! Commands whose clocks are set meanwhile, and commands whose id comes again.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;

/// Clocks that a test sets.
#[derive(Clone)]
struct Clocks(Arc<Mutex<Now>>);

impl Clocks {
    /// For `commands`, which nobody else has yet.
    fn of(commands: &mut Commands) -> Self {
        let clocks = Self(Arc::new(Mutex::new(Now::read())));
        let told = clocks.clone();
        let inner = Arc::get_mut(&mut commands.inner).unwrap();
        inner.clock = Arc::new(move || *told.0.lock().unwrap());
        clocks
    }

    fn wall(&self) -> Timestamp {
        self.0.lock().unwrap().wall
    }

    fn pass(&self, time: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = Now { wall: now.wall.plus(time), since_boot: now.since_boot + time };
    }

    fn set_wall(&self, by_ms: i64) {
        let mut now = self.0.lock().unwrap();
        now.wall = Timestamp::from_millis(now.wall.as_millis() + by_ms);
    }
}

/// Of the bridge, whose clock shows the same as this machine's did when it was learned.
fn until(id: &str, expires_at: Timestamp) -> Submission {
    let source = Source::Bridge { expires_at, offset_ms: Some(0) };
    Submission { source, ..edge(id, "devices", json!({})) }
}

#[tokio::test]
async fn a_wall_clock_set_back_makes_no_command_live_longer() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let mut commands = commands(&site, None).await;
    let clocks = Clocks::of(&mut commands);
    commands.learn_bridge_time(0);
    let in_a_minute = clocks.wall().plus(MINUTE);
    clocks.pass(MINUTE / 2);
    clocks.set_wall(-HOUR_MS);
    let early = run(&commands, until("c-1", in_a_minute)).await;
    assert_eq!(early.status, CommandStatus::Completed, "{early:?}");
    clocks.pass(MINUTE / 2);
    let late = run(&commands, until("c-2", in_a_minute)).await;
    assert_eq!(late.status, CommandStatus::Expired, "{late:?}");
    site.stop().await;
}

#[tokio::test]
async fn a_wall_clock_set_forward_ends_no_command_early() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let mut commands = commands(&site, None).await;
    let clocks = Clocks::of(&mut commands);
    commands.learn_bridge_time(0);
    let in_a_minute = clocks.wall().plus(MINUTE);
    clocks.pass(MINUTE / 2);
    clocks.set_wall(HOUR_MS);
    let early = run(&commands, until("c-1", in_a_minute)).await;
    assert_eq!(early.status, CommandStatus::Completed, "{early:?}");
    // The bridge's next answer says the same time in other words.
    commands.learn_bridge_time(-HOUR_MS);
    clocks.pass(MINUTE / 4);
    let source = Source::Bridge { expires_at: in_a_minute, offset_ms: Some(-HOUR_MS) };
    let relearned = Submission { source, ..edge("c-2", "devices", json!({})) };
    assert_eq!(run(&commands, relearned).await.status, CommandStatus::Completed);
    site.stop().await;
}

/// It is in time when it comes, and its row takes the disk a minute.
#[tokio::test]
async fn what_became_late_while_it_was_recorded_does_not_begin() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let mut commands = commands(&site, None).await;
    let start = Now::read();
    let looks = std::sync::atomic::AtomicU32::new(0);
    Arc::get_mut(&mut commands.inner).unwrap().clock = Arc::new(move || {
        let looks = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The wall clock stands still: it has no say any more.
        Now { since_boot: start.since_boot + looks * MINUTE, ..start }
    });
    let expires_at = start.wall.plus(MINUTE);
    for source in [
        Source::Edge { expires_at: Some(expires_at) },
        Source::Bridge { expires_at, offset_ms: Some(0) },
    ] {
        let id = format!("c-{}", results(&site).len());
        let submission = Submission { source, ..edge(&id, "capture", json!({})) };
        let response = run(&commands, submission).await;
        assert_eq!(response.status, CommandStatus::Expired, "{response:?}");
        let (event, _) = results(&site).pop().unwrap();
        assert_eq!((&event["commandId"], &event["status"]), (&json!(id), &json!("expired")));
        // A new start of the clock for the next one.
        commands.bridge_time().learn(1, start);
    }
    assert_eq!(site.operations.readers()[0].status, topics::ReaderState::Idle, "nothing began");
    site.stop().await;
}

#[tokio::test]
async fn a_repeated_id_gets_the_stored_result_also_after_a_restart() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let first = commands(&site, None).await;
    let done = run(&first, bridge("c-1", "devices", json!({}))).await;
    assert_eq!(done.status, CommandStatus::Completed);
    let expired = run(&first, until("c-2", Timestamp::default())).await;
    drop(first);

    // Nothing but the journal is left.
    let again = commands(&site, None).await;
    let repeat = run(&again, bridge("c-1", "capture", json!({}))).await;
    assert_eq!(repeat, done, "the first one's, whatever the second one asks for");
    assert_eq!(run(&again, bridge("c-2", "devices", json!({}))).await, expired);
    assert_eq!(results(&site).len(), 2, "each is told once");
    site.stop().await;
}

/// While an operation runs its row is in the journal already.
#[tokio::test]
async fn a_command_is_durable_before_anything_moves() {
    let ground = Ground::with_readers(&["SN-1"]);
    let site = ground.start(IdleMode::Off).await;
    let commands = commands(&site, None).await;
    let submitted = commands.submit(bridge("c-1", "capture", json!({}))).await.unwrap();
    let row = site.journal.get(Table::Commands, b"c-1").unwrap().expect("its row");
    let row: Value = serde_json::from_slice(&row).unwrap();
    assert_eq!(row["response"]["status"], "running", "{row}");
    site.until("the reader waits", || {
        site.operations.readers()[0].status == topics::ReaderState::Busy
    })
    .await;
    run(&commands, edge("c-2", "cancel", json!({"commandId": "c-1"}))).await;
    assert_eq!(submitted.finished().await.status, CommandStatus::Cancelled);
    site.stop().await;
}
