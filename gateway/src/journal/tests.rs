use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

mod counts;
mod damage;
mod golden;
mod power_cut;

use redb::{Database, StorageBackend};
use topics::{Draft, EventBody, EventType, RecordKind, event::ServiceState, record::Cause};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn config(dir: &std::path::Path) -> JournalConfig {
    JournalConfig::new(dir.join("journal.redb"), "hq-lobby".parse().unwrap())
}

fn telemetry(uptime: u64) -> Draft {
    let status = ServiceState::Running;
    let body = EventBody::ServiceStatus { status, uptime, version: "0.1.0".into() };
    Draft::new(&body, &moment(), &Cause::default()).unwrap()
}

fn event(scan: u64) -> Draft {
    let body = EventBody::ScanStarted {
        device_id: "device-001".parse().unwrap(),
        scan_id: format!("scan-{scan}"),
    };
    Draft::new(&body, &moment(), &Cause::default()).unwrap()
}

fn access() -> Draft {
    let body = EventBody::AccessDenied {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".into(),
        reason: "unknown".into(),
        decided_at: now(),
        valid_for_ms: 5000,
    };
    Draft::new(&body, &moment(), &Cause::default()).unwrap()
}

fn one(draft: Draft) -> Batch {
    Batch::new().event(draft, Attachment::default())
}

fn ack(lane: Lane, watermark: u64, chain: u64) -> LaneAck {
    LaneAck { lane, watermark, chain, ranges: Vec::new() }
}

fn all(journal: &Journal, lane: Lane) -> Vec<Record> {
    journal.read(lane, 0, usize::MAX, usize::MAX).unwrap()
}

fn adds_up(journal: &Journal) {
    for lane in journal.lanes() {
        let sum = lane.acknowledged + lane.queued + lane.dropped;
        assert_eq!(lane.next - 1, sum, "{lane:?}");
        let mut expected = lane.oldest;
        let mut held = (0, 0, 0);
        for record in all(journal, lane.lane) {
            assert!(record.first() >= expected, "{record:?} after {expected}");
            expected = record.seq() + 1;
            let is_gap = record.kind() == RecordKind::Gap;
            held.0 += 1;
            held.1 += record.as_bytes().len() as u64;
            held.2 += u64::from(is_gap);
        }
        assert_eq!(expected, lane.next);
        // Also where the counts were taken from the file.
        let survey = journal.survey();
        let told = survey.lane(lane.lane).unwrap();
        assert_eq!((told.records, told.bytes, told.gaps), held, "{lane:?}");
    }
}

#[tokio::test]
async fn numbers_are_contiguous_ids_rise_and_both_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    let mut store = None;
    for round in 0..3_u64 {
        let (journal, opened) = Journal::open(config(dir.path())).unwrap();
        assert_eq!(*store.get_or_insert(opened.store), opened.store);
        assert_eq!((opened.previous_store, opened.set_aside), (None, None));
        let mut live = journal.live();
        let batch = one(event(round)).event(telemetry(round), Attachment::default());
        let told = journal.commit(batch).await.unwrap();
        assert_eq!(told[0].record.seq(), round + 1);
        assert_eq!(told[0].reader, Some("device-001".parse().unwrap()));
        assert_eq!((told[1].event, told[1].reader.clone()), (EventType::ServiceStatus, None));
        for committed in &told {
            assert_eq!(live.recv().await.unwrap().record, committed.record);
            ids.push(event_id(&committed.record).unwrap());
            assert_eq!(ids.last(), Some(&committed.record.event().unwrap().id));
        }
        assert_eq!(journal.heads().borrow().next(Lane::Events), round + 2);
        adds_up(&journal);
        journal.close().await.unwrap();
    }
    assert!(ids.is_sorted());
    let (journal, _) = Journal::open(config(dir.path())).unwrap();
    let records = all(&journal, Lane::Events);
    assert_eq!(records.len(), 3);
    assert!(records.windows(2).all(|pair| pair[1].continues(pair[0].chain())));

    let found = |after| {
        let records = journal.events_after(after, 100).unwrap().unwrap();
        records.iter().map(|record| event_id(record).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found(None), ids);
    for (index, &id) in ids.iter().enumerate() {
        assert_eq!(event_id(&journal.find(id).unwrap().unwrap()), Some(id));
        assert_eq!(found(Some(id)), ids[index + 1..]);
    }
    let unknown = EventId::from_bytes([7; 16]);
    assert_eq!(journal.find(unknown).unwrap(), None);
    assert_eq!(journal.events_after(Some(unknown), 1).unwrap(), None);
    assert_eq!(journal.events_after(None, 2).unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(config(dir.path())).unwrap();
    let batch = || {
        one(event(1)).put_if_absent(Table::Commands, "c-1", b"pending".to_vec()).put(
            Table::Readers,
            "device-001",
            b"x".to_vec(),
        )
    };
    journal.commit(batch()).await.unwrap();
    let again = batch().put(Table::Settings, "k", b"v".to_vec());
    assert!(matches!(journal.commit(again).await, Err(JournalError::Exists(Table::Commands))));
    assert_eq!(journal.get(Table::Settings, b"k").unwrap(), None);
    assert_eq!(all(&journal, Lane::Events).len(), 1);

    let delete = Batch::new().delete(Table::Commands, "c-1").put(Table::Commands, "d", vec![2]);
    journal.commit(delete).await.unwrap();
    assert_eq!(journal.get(Table::Commands, b"c-1").unwrap(), None);
    assert_eq!(journal.scan(Table::Commands, b"").unwrap(), [(b"d".to_vec(), vec![2])]);
    assert_eq!(journal.scan(Table::Commands, b"e").unwrap(), []);
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(config(dir.path())).unwrap();
    let commits = (0..500).map(|scan| journal.commit(one(event(scan))));
    let results = futures_util::future::join_all(commits).await;
    assert!(results.iter().all(Result::is_ok));
    let stats = journal.stats();
    assert_eq!((stats.records, stats.committed_records), (500, 500));
    assert!(stats.commits < 250, "{stats:?}");
    adds_up(&journal);
}

#[tokio::test]
async fn when_full_the_lowest_lane_goes_first_and_leaves_gaps_that_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_records: 640, ..config(dir.path()) };
    let (journal, _) = Journal::open(config.clone()).unwrap();
    let mut live = journal.live();
    for _ in 0..20 {
        journal.commit(one(access())).await.unwrap();
    }
    let many = |draft: &dyn Fn(u64) -> Draft| {
        (0..100).fold(Batch::new(), |batch, n| batch.event(draft(n), Attachment::default()))
    };
    for _ in 0..10 {
        journal.commit(many(&event)).await.unwrap();
        journal.commit(many(&telemetry)).await.unwrap();
        adds_up(&journal);
        assert!(journal.stats().records <= 640 + 1, "{:?}", journal.stats());
    }
    let lanes = journal.lanes();
    assert_eq!(lanes[0].dropped, 0, "decisions are kept");
    assert!(lanes[2].dropped > 0);
    assert!(lanes[3].dropped >= 999 - 64, "telemetry went before events: {lanes:?}");
    let gaps: Vec<Record> = all(&journal, Lane::Events)
        .into_iter()
        .filter(|record| record.kind() == RecordKind::Gap)
        .collect();
    let covered: u64 = gaps.iter().map(|gap| gap.seq() - gap.first() + 1).sum();
    assert_eq!(covered, lanes[2].dropped);
    let told = std::iter::from_fn(|| live.try_recv().ok());
    assert!(told.filter(|it| it.event == EventType::JournalGap).count() >= gaps.len());
    let listed = journal.events_after(None, 10_000).unwrap().unwrap();
    assert_eq!(listed.len() as u64, journal.stats().records);

    journal.close().await.unwrap();
    let (journal, _) = Journal::open(config).unwrap();
    assert_eq!(journal.lanes(), lanes, "the accounting survives a restart");
}

#[tokio::test]
async fn acknowledged_records_go_first_and_silently() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_records: 640, ..config(dir.path()) };
    let (journal, _) = Journal::open(config).unwrap();
    for seq in 1..=1000 {
        let told = journal.commit(one(event(seq))).await.unwrap();
        let chain = told[0].record.chain();
        journal.acknowledge(vec![ack(Lane::Events, seq, chain)]).await.unwrap();
    }
    let lane = journal.lanes().remove(2);
    assert_eq!((lane.dropped, lane.queued, lane.acknowledged), (0, 0, 1000));
    assert!(lane.oldest > 300);
    adds_up(&journal);

    // A bridge that was restored from a backup lacks what is gone: a gap says so.
    journal.resume(vec![]).await.unwrap();
    let lane = journal.lanes().remove(2);
    assert_eq!((lane.oldest, lane.watermark), (1, 0));
    assert_eq!(lane.dropped + lane.queued, 1000);
    assert!(lane.dropped > 300);
    adds_up(&journal);
}

#[tokio::test]
async fn a_journal_that_is_not_the_one_the_bridge_knows_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, opened) = Journal::open(config(dir.path())).unwrap();
    let mut chain = 0;
    for scan in 0..3 {
        chain = journal.commit(one(event(scan))).await.unwrap()[0].record.chain();
    }
    let forked = |result| assert!(matches!(result, Err(JournalError::Forked { .. })), "{result:?}");
    forked(journal.acknowledge(vec![ack(Lane::Events, 4, chain)]).await);
    forked(journal.resume(vec![ack(Lane::Events, 3, chain ^ 1)]).await);
    assert_eq!(journal.lanes()[2].watermark, 0);
    journal.resume(vec![ack(Lane::Events, 3, chain)]).await.unwrap();
    journal.commit(one(event(9))).await.unwrap();

    let store = journal.refork().await.unwrap();
    assert_ne!(store, opened.store);
    assert_eq!(journal.store(), store);
    let records = all(&journal, Lane::Events);
    assert_eq!(records.len(), 2);
    let EventBody::JournalGap { from, to, count, previous_store, .. } =
        records[0].event().unwrap().body
    else {
        panic!("{:?}", records[0])
    };
    assert_eq!((from, to, count, previous_store), (1, 3, None, Some(opened.store)));
    assert_eq!(all(&journal, Lane::Access)[0].kind(), RecordKind::Gap);
    adds_up(&journal);
    let lanes = journal.lanes();
    journal.close().await.unwrap();
    let (journal, opened) = Journal::open(config(dir.path())).unwrap();
    assert_eq!((opened.store, opened.previous_store), (store, None));
    assert_eq!(journal.lanes(), lanes);
}

#[tokio::test]
async fn an_unreadable_file_is_set_aside_and_a_missing_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, first) = Journal::open(config.clone()).unwrap();
    journal.commit(one(event(1))).await.unwrap();
    journal.close().await.unwrap();

    std::fs::write(&config.path, vec![0x5a; 70_000]).unwrap();
    let (journal, second) = Journal::open(config.clone()).unwrap();
    assert_eq!(second.previous_store, Some(first.store));
    assert_eq!(std::fs::read(second.set_aside.unwrap()).unwrap().len(), 70_000);
    let record = all(&journal, Lane::Access).remove(0);
    assert_eq!(record.event().unwrap().event, EventType::JournalGap);
    adds_up(&journal);
    journal.close().await.unwrap();

    std::fs::remove_file(&config.path).unwrap();
    let (journal, third) = Journal::open(config.clone()).unwrap();
    assert_eq!(third.previous_store, Some(second.store));
    assert_eq!(journal.lanes()[0].next, 2);
    journal.close().await.unwrap();

    let other = JournalConfig { gateway: "other".parse().unwrap(), ..config.clone() };
    assert!(matches!(Journal::open(other), Err(JournalError::OtherGateway { .. })));
    // Nor is one of a later layout, which this version would take for damaged.
    counts::edit(&config.path, |transaction| {
        let mut meta = transaction.open_table(store::META).unwrap();
        meta.insert(store::META_LAYOUT, [3].as_slice()).unwrap();
    });
    let looked_at = JournalFile::open(&config.path).unwrap_err();
    assert!(looked_at.to_string().contains("newer version"), "{looked_at}");
    let newer = Journal::open(config);
    assert!(matches!(newer, Err(JournalError::Newer { layout: 3, .. })), "{newer:?}");
}

#[tokio::test]
async fn the_edge_cursor_reaches_the_disk_with_the_next_commit_or_the_close() {
    let dir = tempfile::tempdir().unwrap();
    for seq in [5, 9] {
        let (journal, _) = Journal::open(config(dir.path())).unwrap();
        journal.edge_cursor_set(Lane::Events, seq).await.unwrap();
        journal.edge_cursor_set(Lane::Events, 2).await.unwrap();
        journal.close().await.unwrap();
        let (journal, _) = Journal::open(config(dir.path())).unwrap();
        assert_eq!(journal.edge_cursor(Lane::Events), seq);
        journal.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_edge_cursor_reaches_the_disk_though_nothing_else_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(config(dir.path())).unwrap();
    let before = journal.stats().commits;
    journal.edge_cursor_set(Lane::Events, 7).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while journal.stats().commits == before {
        assert!(tokio::time::Instant::now() < deadline, "it is never committed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(journal.edge_cursor(Lane::Events), 7);
}

/// A disk in memory whose n-th call fails, and every call after it until it is opened again. What
/// was written since the last sync is lost then.
#[derive(Debug, Default)]
struct Disk {
    written: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    calls_left: AtomicU64,
    full: AtomicBool,
    /// The file can't grow.
    no_room: AtomicBool,
    /// Writing is the end of the thread.
    panics: AtomicBool,
}

#[derive(Debug)]
struct Backend(Arc<Disk>);

impl Backend {
    fn call<T>(&self, run: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let left = self.0.calls_left.load(Ordering::Relaxed);
        if left == 0 {
            let full = self.0.full.load(Ordering::Relaxed);
            let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            return Err(kind.into());
        }
        self.0.calls_left.store(left - 1, Ordering::Relaxed);
        Ok(run(&mut self.0.written.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.call(|bytes| bytes.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.call(|bytes| out.copy_from_slice(&bytes[offset..offset + out.len()]))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = self.0.written.lock().unwrap().len() < len as usize;
        if grows && self.0.no_room.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.call(|bytes| bytes.resize(len as usize, 0))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.call(|bytes| self.0.synced.lock().unwrap().clone_from(bytes))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        assert!(!self.0.panics.load(Ordering::Relaxed), "as the test wants it");
        let offset = offset as usize;
        self.call(|bytes| bytes[offset..offset + data.len()].copy_from_slice(data))
    }
}

impl Disk {
    fn opener(self: &Arc<Self>, lose_unsynced: bool) -> store::Opener {
        let disk = self.clone();
        Box::new(move || {
            disk.calls_left.store(u64::MAX, Ordering::Relaxed);
            if lose_unsynced {
                let synced = disk.synced.lock().unwrap().clone();
                *disk.written.lock().unwrap() = synced;
            }
            Database::builder().create_with_backend(Backend(disk.clone()))
        })
    }
}

/// For each n: the n-th call to the disk fails during a commit. Whatever was answered with a success
/// is there, whatever was answered with an error is not, and nothing was told that is not there.
#[test]
fn a_disk_that_fails_at_any_call_never_makes_the_journal_lie() {
    for lose_unsynced in [true, false] {
        let mut failures = 0;
        for n in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let disk = Arc::new(Disk::default());
            disk.full.store(n % 2 == 0, Ordering::Relaxed);
            let opener = disk.opener(lose_unsynced);
            let (journal, _) = Journal::open_with(config(dir.path()), opener).unwrap();
            let mut live = journal.live();
            let mut kept = Vec::new();
            for step in 0..6_u64 {
                if step == 3 {
                    disk.calls_left.store(n, Ordering::Relaxed);
                }
                let key = step.to_be_bytes();
                let batch = one(event(step)).put(Table::Settings, key, key.to_vec());
                match journal.commit_blocking(batch) {
                    Ok(told) => kept.push((step, told[0].record.clone())),
                    Err(error) => {
                        failures += 1;
                        let full = matches!(error, JournalError::Full { .. });
                        assert!(full == (n % 2 == 0), "n {n} step {step}: {error}");
                    }
                }
            }
            let told: Vec<Record> = std::iter::from_fn(|| live.try_recv().ok())
                .map(|committed| committed.record.clone())
                .collect();
            let records: Vec<Record> = kept.iter().map(|(_, record)| record.clone()).collect();
            assert_eq!(told, records, "n {n}");
            assert_eq!(all(&journal, Lane::Events), records, "n {n}");
            let keys: Vec<Vec<u8>> =
                journal.scan(Table::Settings, b"").unwrap().into_iter().map(|row| row.0).collect();
            let expected: Vec<Vec<u8>> =
                kept.iter().map(|(step, _)| step.to_be_bytes().to_vec()).collect();
            assert_eq!(keys, expected, "n {n}");
            assert!(kept.len() >= 5, "n {n}: one failure fails one commit");
            adds_up(&journal);
        }
        assert!(failures >= 3, "the failing calls were met ({failures})");
    }
}

/// Nothing is committed any more, and whoever asks for the journal's health learns it.
#[test]
fn a_writer_that_panics_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let (journal, _) = Journal::open_with(config(dir.path()), disk.opener(false)).unwrap();
    journal.commit_blocking(one(event(1))).unwrap();
    assert!(journal.is_sound());
    disk.panics.store(true, Ordering::Relaxed);
    let refused = journal.commit_blocking(one(event(2)));
    assert!(matches!(refused, Err(JournalError::Closed)), "{refused:?}");
    let start = Instant::now();
    while journal.is_sound() {
        assert!(start.elapsed() < PATIENCE, "it counts as sound");
        std::thread::yield_now();
    }
    // redb would panic again, of its own locks.
    std::mem::forget(journal);
}

/// A full disk is a state to live in: what is there can be read, what is new is refused, and when
/// there is room again everything goes on.
#[test]
fn on_a_full_disk_reads_go_on_and_room_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let opener = disk.opener(true);
    let (journal, _) = Journal::open_with(config(dir.path()), opener).unwrap();
    disk.no_room.store(true, Ordering::Relaxed);
    let mut kept = 0;
    let mut refused = 0;
    while refused < 3 {
        let large = vec![0x5a; 100_000];
        let batch = one(event(kept)).put(Table::Settings, kept.to_be_bytes(), large);
        match journal.commit_blocking(batch) {
            Ok(_) => kept += 1,
            Err(JournalError::Full { .. }) => {
                refused += 1;
                assert!(!journal.is_sound());
            }
            Err(other) => panic!("{other}"),
        }
        assert!(kept < 10_000, "the disk is never full");
        assert_eq!(all(&journal, Lane::Events).len() as u64, kept);
    }
    disk.no_room.store(false, Ordering::Relaxed);
    journal.commit_blocking(one(event(kept))).unwrap();
    assert_eq!(all(&journal, Lane::Events).len() as u64, kept + 1);
    adds_up(&journal);
}

/// An acknowledgement that was under way while the journal was full is of records that a gap stands for
/// by then; a range of them was trimmed silently.
#[tokio::test]
async fn after_a_new_store_id_every_number_is_held_or_covered_and_once() {
    for acked in
        [ack(Lane::Events, 5, 0), LaneAck { ranges: vec![(3, 4)], ..ack(Lane::Events, 0, 0) }]
    {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) =
            Journal::open(JournalConfig { max_records: 10, ..config(dir.path()) }).unwrap();
        let commit = async |count: u64| {
            for scan in 0..count {
                journal.commit(one(event(scan))).await.unwrap();
            }
        };
        commit(5).await;
        // The one before the journal is full, the other one after.
        let (before, after) = if acked.watermark == 0 { (0, 20) } else { (20, 0) };
        commit(before).await;
        journal.acknowledge(vec![acked]).await.unwrap();
        commit(after).await;
        adds_up(&journal);
        journal.refork().await.unwrap();
        adds_up(&journal);
        assert_eq!(journal.lanes()[2].oldest, 1);
    }
}
