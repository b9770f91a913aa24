mod power_cut;

use topics::{CommandStatus, Lane, Timestamp};

use super::*;
use crate::command::Requester;

const LIMITS: Limits = Limits { cache_bytes: 1 << 20, max_events: 1_000_000, max_commands: 100 };

fn open(dir: &Path, limits: Limits) -> (Store, Closing) {
    Store::open(&dir.join("store.redb"), limits).unwrap()
}

fn gateway(name: &str) -> GatewayId {
    name.parse().unwrap()
}

fn event(gateway_name: &str, number: u8) -> NewEvent {
    NewEvent {
        id: EventId::from_bytes([number; 16]),
        gateway: gateway(gateway_name),
        lane: Lane::Events,
        json: format!(r#"{{"seq":{number}, "kept":"as it came"}}"#),
    }
}

fn command(id: &str, created: i64) -> Command {
    Command {
        id: id.parse().unwrap(),
        agent: gateway("hq"),
        command: "devices".into(),
        params: serde_json::Value::Null,
        sealed_params: None,
        status: CommandStatus::Pending,
        requester: Requester::ApiKey { name: "main".into() },
        created_at: Timestamp::from_millis(created),
        expires_at: Timestamp::from_millis(created + 60_000),
        sent_at: None,
        received_at: None,
        started_at: None,
        finished_at: None,
        result: None,
        sealed_result: None,
        error: None,
        cancel_requested: false,
    }
}

fn cursor(watermark: u64) -> Cursor {
    Cursor { watermark, stored: watermark, ..Cursor::new(Lane::Events) }
}

#[tokio::test]
async fn what_is_committed_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let journal = StoreId::from_bytes([9; 16]);
    let round = Round {
        events: vec![event("hq", 1), event("hq-2", 2), event("hq", 3)],
        cursors: vec![(gateway("hq"), journal, vec![cursor(2)])],
        probes: vec![(gateway("hq"), 7)],
        ..Round::default()
    };
    let (store, closing) = open(dir.path(), LIMITS);
    let done = store.ingest(round).await.unwrap();
    assert_eq!(done.events.iter().map(|event| event.index).collect::<Vec<_>>(), [1, 2, 3]);
    store.set_published(2).await.unwrap();
    tokio::task::spawn_blocking(|| closing.close()).await.unwrap();
    assert_eq!(store.set_published(3).await, Err(StoreError::Closed));
    drop(store);

    let (store, _closing) = open(dir.path(), LIMITS);
    let all = store.events(0, None, 10).unwrap();
    assert_eq!(all[0].event, event("hq", 1));
    assert_eq!(all.len(), 3);
    let of_hq = store.events(0, Some(&gateway("hq")), 10).unwrap();
    assert_eq!(of_hq.iter().map(|event| event.index).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(store.events(1, Some(&gateway("hq")), 10).unwrap().len(), 1);
    assert_eq!(store.index_of(EventId::from_bytes([2; 16])).unwrap(), Some(2));
    assert_eq!(store.cursors(&gateway("hq"), journal).unwrap(), [cursor(2)]);
    assert_eq!(store.cursors(&gateway("hq"), StoreId::from_bytes([8; 16])).unwrap(), []);
    assert_eq!((store.published().unwrap(), store.last_index().unwrap()), (2, 3));
}

#[tokio::test]
async fn one_event_id_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _closing) = open(dir.path(), LIMITS);
    let round = || Round { events: vec![event("hq", 1)], ..Round::default() };
    assert_eq!(store.ingest(round()).await.unwrap().events.len(), 1);
    assert_eq!(store.ingest(round()).await.unwrap().events.len(), 0);
    assert_eq!(store.events(0, None, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn the_oldest_go_first_but_not_before_they_are_published() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _closing) = open(dir.path(), Limits { max_events: 3, ..LIMITS });
    let add = async |number| {
        let round = Round { events: vec![event("hq", number)], ..Round::default() };
        store.ingest(round).await.unwrap()
    };
    for number in 1..=5 {
        add(number).await;
    }
    assert_eq!(store.events(0, None, 10).unwrap().len(), 5, "nothing is published yet");
    store.set_published(5).await.unwrap();
    add(6).await;
    let left = store.events(0, None, 10).unwrap();
    assert_eq!(left.iter().map(|event| event.index).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(store.index_of(EventId::from_bytes([1; 16])).unwrap(), None);
    assert_eq!(store.events(0, Some(&gateway("hq")), 10).unwrap().len(), 3);
}

#[tokio::test]
async fn a_repeated_command_is_the_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _closing) = open(dir.path(), LIMITS);
    let first = store.create_command(command("c-1", 1)).await.unwrap();
    let other = Command { command: "enroll".into(), ..command("c-1", 2) };
    assert_eq!(store.create_command(other).await.unwrap(), (first.0, false));
    let at = Timestamp::from_millis(5);
    let id: CommandId = "c-1".parse().unwrap();
    let sent = store.change_command(id.clone(), Change::Sent(at)).await.unwrap().unwrap();
    assert_eq!(sent.status, CommandStatus::Sent);
    assert_eq!(store.change_command(id.clone(), Change::Sent(at)).await.unwrap(), None);
    assert_eq!(store.open_commands().unwrap(), [sent]);
    let run_limit = std::time::Duration::ZERO;
    let late = Change::Tick { now: Timestamp::from_millis(1_000_000), run_limit };
    store.change_command(id, late).await.unwrap().unwrap();
    assert!(store.open_commands().unwrap().is_empty());
}

#[tokio::test]
async fn old_commands_go_and_open_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _closing) = open(dir.path(), LIMITS);
    for number in 0..105 {
        let ended = Command {
            status: CommandStatus::Completed,
            ..command(&format!("c-{number:03}"), number)
        };
        store.create_command(ended).await.unwrap();
    }
    let kept = store.commands_of(&gateway("hq"), 1_000).unwrap();
    assert_eq!(kept.len(), 100);
    assert_eq!((kept[0].id.as_str(), kept[99].id.as_str()), ("c-104", "c-005"));
    assert_eq!(store.command(&"c-000".parse().unwrap()).unwrap(), None);
}

#[tokio::test]
async fn a_finger_has_one_template_and_a_user_may_have_ten() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _closing) = open(dir.path(), LIMITS);
    let template = |user: &str, finger: &str, sealed: &str| Template {
        user: user.parse().unwrap(),
        finger: finger.into(),
        sealed: sealed.into(),
        sha256: String::new(),
        quality: Some(80),
        enrollment_id: None,
        enrolled_at: Timestamp::from_millis(0),
    };
    for (user, finger, sealed) in
        [("u", "left", "1"), ("u", "left", "2"), ("u", "right", "3"), ("u2", "left", "4")]
    {
        store.put_template(template(user, finger, sealed)).await.unwrap();
    }
    let found = store.templates(&"u".parse().unwrap()).unwrap();
    assert_eq!(found.iter().map(|row| row.sealed.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!(store.delete_templates("u".parse().unwrap()).await.unwrap(), 2);
    assert_eq!(store.delete_templates("u".parse().unwrap()).await.unwrap(), 0);
    assert_eq!(store.templates(&"u2".parse().unwrap()).unwrap().len(), 1);
}

/// A disk gave back something else than what was written: the rows around it are served, and what comes is
/// stored.
#[tokio::test]
async fn a_row_that_can_not_be_read_holds_up_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_events: 3, ..LIMITS };
    let journal = StoreId::from_bytes([9; 16]);
    let (store, closing) = open(dir.path(), limits);
    let other = Cursor::new(Lane::Access);
    let agent = Agent {
        id: gateway("hq"),
        online: true,
        since: Timestamp::default(),
        last_seen: Timestamp::default(),
        created_at: Timestamp::default(),
        store: None,
        info: topics::link::AgentInfo::default(),
        readers: Vec::new(),
        queued: 0,
    };
    let round = Round {
        events: (1..=3).map(|number| event("hq", number)).collect(),
        cursors: vec![(gateway("hq"), journal, vec![other.clone(), cursor(2)])],
        agents: vec![agent.clone(), Agent { id: gateway("hq-2"), ..agent.clone() }],
        ..Round::default()
    };
    store.ingest(round).await.unwrap();
    store.create_command(command("c-1", 1)).await.unwrap();
    store.create_command(command("c-2", 2)).await.unwrap();
    tokio::task::spawn_blocking(|| closing.close()).await.unwrap();
    drop(store);
    {
        let database = Database::open(dir.path().join("store.redb")).unwrap();
        let tx = database.begin_write().unwrap();
        let damaged = [b'{'].as_slice();
        tx.open_table(EVENTS).unwrap().insert(1, damaged).unwrap();
        tx.open_table(AGENTS).unwrap().insert("hq-2", damaged).unwrap();
        tx.open_table(COMMANDS).unwrap().insert("c-1", damaged).unwrap();
        let key = ("hq", *journal.as_bytes(), Lane::Events.index() as u8);
        tx.open_table(CURSORS).unwrap().insert(key, damaged).unwrap();
        tx.commit().unwrap();
    }
    let (store, _closing) = open(dir.path(), limits);
    let numbers =
        |events: Vec<StoredEvent>| -> Vec<u64> { events.iter().map(|event| event.index).collect() };
    assert_eq!(numbers(store.events(0, None, 2).unwrap()), [2, 3]);
    assert_eq!(numbers(store.events(0, Some(&gateway("hq")), 2).unwrap()), [2, 3]);
    assert_eq!(numbers(store.newest(3).unwrap()), [2, 3]);
    // But what is stored of that journal nobody knows.
    assert_eq!(store.cursors(&gateway("hq"), journal), Err(StoreError::Corrupt(A_CURSOR)));
    assert_eq!(store.all_cursors(&gateway("hq")).unwrap(), [(journal, other)]);
    let unsound = Cursor { stored: 7, ..cursor(2) };
    let another = StoreId::from_bytes([8; 16]);
    let cursors = vec![(gateway("hq"), another, vec![unsound])];
    store.ingest(Round { cursors, ..Round::default() }).await.unwrap();
    assert_eq!(store.cursors(&gateway("hq"), another), Err(StoreError::Corrupt(A_CURSOR)));
    // A command of that id is refused, and another one in the same commit is not.
    let (damaged, next) = tokio::join!(
        store.create_command(command("c-1", 3)),
        store.create_command(command("c-3", 3))
    );
    assert_eq!(damaged, Err(StoreError::Corrupt(A_COMMAND)));
    assert!(next.unwrap().1);
    assert_eq!(store.agents().unwrap(), [agent]);
    let ids = |commands: Vec<Command>| -> Vec<String> {
        commands.iter().map(|command| command.id.to_string()).collect()
    };
    assert_eq!(ids(store.open_commands().unwrap()), ["c-2", "c-3"]);
    assert_eq!(ids(store.commands_of(&gateway("hq"), 10).unwrap()), ["c-3", "c-2"]);
    // It is pruned like any other, and its command's end changes nothing.
    store.set_published(3).await.unwrap();
    let sent = |id: &str| (id.parse().unwrap(), Change::Sent(Timestamp::from_millis(5)));
    let round = Round {
        events: vec![event("hq", 4), event("hq", 5)],
        changes: vec![sent("c-1"), sent("c-2")],
        ..Round::default()
    };
    let done = store.ingest(round).await.unwrap();
    assert_eq!((done.events.len(), ids(done.commands)), (2, vec!["c-2".to_owned()]));
    assert_eq!(numbers(store.events(0, None, 10).unwrap()), [3, 4, 5]);
    assert_eq!(numbers(store.events(0, Some(&gateway("hq")), 10).unwrap()), [3, 4, 5]);
}

/// What was answered is in the file at that moment: a copy of it, taken while the store runs, is
/// what a killed process leaves.
#[tokio::test]
async fn what_was_answered_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _closing) = open(dir.path(), LIMITS);
    for number in 1..=20 {
        let round = Round { events: vec![event("hq", number)], ..Round::default() };
        store.ingest(round).await.unwrap();
        if number % 5 == 0 {
            let crashed = dir.path().join(format!("crash-{number}"));
            std::fs::create_dir(&crashed).unwrap();
            std::fs::copy(dir.path().join("store.redb"), crashed.join("store.redb")).unwrap();
            let (after, _closing) = open(&crashed, LIMITS);
            assert_eq!(after.events(0, None, 100).unwrap().len(), usize::from(number));
        }
    }
}

#[test]
fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path(), LIMITS);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}
