//! Counts that are kept in the file, and rows that turn out to be no records.

use std::time::Instant;

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn edit(path: &std::path::Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

fn counts(path: &std::path::Path) -> Vec<u8> {
    let database = Database::open(path).unwrap();
    let meta = database.begin_read().unwrap().open_table(store::META).unwrap();
    meta.get(store::META_COUNTS).unwrap().unwrap().value().to_vec()
}

/// Five events, the first two acknowledged, and gaps of another lane.
async fn filled(dir: &std::path::Path) -> JournalConfig {
    let config = JournalConfig { max_records: 40, ..config(dir) };
    let (journal, _) = Journal::open(config.clone()).unwrap();
    for number in 0..60 {
        journal.commit(one(telemetry(number))).await.unwrap();
    }
    for number in 0..5 {
        journal.commit(one(event(number))).await.unwrap();
    }
    journal.acknowledge(vec![ack(Lane::Events, 2, 0)]).await.unwrap();
    assert!(journal.lanes()[3].dropped > 0);
    adds_up(&journal);
    journal.close().await.unwrap();
    config
}

/// Where the counts of the lane of events begin: rows, bytes.
const EVENTS_AT: usize = 8 + 20 + 20;

fn put_counts(path: &std::path::Path, told: &[u8]) {
    edit(path, |transaction| {
        transaction.open_table(store::META).unwrap().insert(store::META_COUNTS, told).unwrap();
    });
}

/// With a hash that fits.
fn sealed(mut told: Vec<u8>) -> Vec<u8> {
    let end = told.len() - 8;
    let hash = xxhash_rust::xxh3::xxh3_64(&told[..end]);
    told[end..].copy_from_slice(&hash.to_le_bytes());
    told
}

#[tokio::test]
async fn a_journal_opens_with_the_counts_of_its_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    let (journal, _) = Journal::open(config.clone()).unwrap();
    adds_up(&journal);
    journal.close().await.unwrap();
    // Wrong on purpose, and well made: nothing is counted.
    let mut told = counts(&config.path);
    told[EVENTS_AT + 8..EVENTS_AT + 16].copy_from_slice(&7_777u64.to_le_bytes());
    put_counts(&config.path, &sealed(told));
    let (journal, _) = Journal::open(config).unwrap();
    assert_eq!(journal.survey().lanes[2].bytes, 7_777);
}

#[tokio::test]
async fn counts_that_do_not_fit_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    let good = counts(&config.path);
    let changed = |at: usize, by: u8| {
        let mut told = good.clone();
        told[at] ^= by;
        told
    };
    let mut stale = changed(0, 1);
    stale[EVENTS_AT] = 77;
    let of_damaged_bytes = changed(EVENTS_AT + 14, 0x40);
    let of_too_many_rows = sealed(changed(EVENTS_AT + 6, 0x40));
    // The key of a gap of the last lane: nothing stands at another one.
    let without_its_gap = sealed(changed(good.len() - 16, 1));
    let cut = good[..good.len() - 1].to_vec();
    for told in [cut, sealed(stale), of_damaged_bytes, of_too_many_rows, without_its_gap] {
        put_counts(&config.path, &told);
        let (journal, _) = Journal::open(config.clone()).unwrap();
        adds_up(&journal);
        journal.close().await.unwrap();
    }
}

/// The row is met by who reads the lane, looks for an event, or asks for those after one; from then on a
/// gap stands there.
#[tokio::test]
async fn a_row_that_is_no_record_is_replaced_by_a_gap_when_it_is_met() {
    type Meet = fn(&Journal) -> bool;
    let read: Meet = |journal| journal.read(Lane::Events, 3, 10, usize::MAX).is_err();
    let follow: Meet = |journal| journal.events_after(None, 1_000).is_err();
    let oldest: Meet = |journal| journal.oldest_queued().is_err();
    for meet in [read, follow, oldest] {
        // The lane, none and another, and the number: what was damaged on the disk is as long as it was.
        for (damaged, by) in [(2, 0x70), (2, 1), (4, 0x70)] {
            let dir = tempfile::tempdir().unwrap();
            let config = filled(dir.path()).await;
            edit(&config.path, |transaction| {
                let mut rows = transaction.open_table(store::records(Lane::Events)).unwrap();
                let mut row = rows.get(3).unwrap().unwrap().value().to_vec();
                row[damaged] ^= by;
                rows.insert(3, &*row).unwrap();
            });
            let (journal, _) = Journal::open(config.clone()).unwrap();
            let mut live = journal.live();
            assert!(meet(&journal));
            let start = Instant::now();
            while meet(&journal) || journal.lanes()[2].dropped == 0 {
                assert!(start.elapsed() < PATIENCE, "nothing takes its place");
                tokio::task::yield_now().await;
            }
            adds_up(&journal);
            let records = all(&journal, Lane::Events);
            let kinds: Vec<RecordKind> = records.iter().map(Record::kind).collect();
            let (event, gap) = (RecordKind::Event, RecordKind::Gap);
            assert_eq!(kinds, [event, event, gap, event, event]);
            let text = String::from_utf8(records[2].json().to_vec()).unwrap();
            assert!(text.contains(r#""reason":"corrupt""#), "{text}");
            assert!(records[2].continues(records[1].chain()));
            assert_eq!(live.recv().await.unwrap().record, records[2], "it is told of");
            let view = &journal.lanes()[2];
            assert_eq!((view.acknowledged, view.queued, view.dropped), (2, 2, 1));
            journal.close().await.unwrap();
            let (journal, _) = Journal::open(config).unwrap();
            adds_up(&journal);
            assert_eq!(all(&journal, Lane::Events), records);
        }
    }
}

/// Nothing is done to a row that can be read, or that is not there.
#[tokio::test]
async fn a_sound_row_stays() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    let (journal, _) = Journal::open(config).unwrap();
    let before = all(&journal, Lane::Events);
    for seq in [0, 3, 99] {
        journal.requests.send(Request::Mend(Lane::Events, seq)).await.unwrap();
    }
    journal.commit(one(access())).await.unwrap();
    assert_eq!(all(&journal, Lane::Events), before);
    adds_up(&journal);
}

/// After a crash redb reads all of the file, unless the last commit was one that nobody waits for an event
/// of, or there was none for a while.
#[test]
fn a_quiet_journal_opens_quickly_after_a_crash() {
    let is_read_whole_after = |last: fn(&Journal)| {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let (journal, _) = Journal::open_with(config(dir.path()), disk.opener(true)).unwrap();
        journal.commit_blocking(one(event(1))).unwrap();
        last(&journal);
        // What a process that is killed now leaves.
        let left = Arc::new(Disk::default());
        left.written.lock().unwrap().clone_from(&disk.synced.lock().unwrap());
        left.calls_left.store(u64::MAX, Ordering::Relaxed);
        let repaired = Arc::new(AtomicBool::new(false));
        let told = repaired.clone();
        let mut builder = Database::builder();
        builder.set_repair_callback(move |_| told.store(true, Ordering::Relaxed));
        drop(builder.create_with_backend(Backend(left)).unwrap());
        repaired.load(Ordering::Relaxed)
    };
    assert!(is_read_whole_after(|_| {}));
    assert!(!is_read_whole_after(|journal| {
        journal.commit_blocking(Batch::new().put(Table::Settings, *b"key", vec![1])).unwrap();
    }));
    assert!(!is_read_whole_after(|journal| {
        let start = Instant::now();
        while journal.stats().commits < 2 {
            assert!(start.elapsed() < PATIENCE, "nothing is committed by itself");
            std::thread::yield_now();
        }
    }));
}

fn damage(path: &std::path::Path, seq: u64, at: usize) {
    edit(path, |transaction| {
        let mut rows = transaction.open_table(store::records(Lane::Events)).unwrap();
        let mut row = rows.get(seq).unwrap().unwrap().value().to_vec();
        row[at] ^= 1;
        rows.insert(seq, &*row).unwrap();
    });
}

/// The bridge would take it for another history: a fork, and all of the journal sent again.
#[tokio::test]
async fn a_damaged_text_or_chain_value_is_replaced_before_it_is_sent() {
    const CHAIN: usize = 20;
    const TEXT: usize = 100;
    for (damaged, from) in [(4, 3), (4, 4), (5, 3)] {
        for at in [CHAIN, TEXT] {
            let dir = tempfile::tempdir().unwrap();
            let config = filled(dir.path()).await;
            damage(&config.path, damaged, at);
            let (journal, _) = Journal::open(config).unwrap();
            let sound = |journal: &Journal| {
                let read = journal.read(Lane::Events, 1, 100, usize::MAX).unwrap();
                read.into_iter().filter(|record| record.seq() < damaged).collect::<Vec<_>>()
            };
            let before = sound(&journal);
            let start = Instant::now();
            while journal.lanes()[2].dropped == 0 {
                assert!(start.elapsed() < PATIENCE, "nothing takes its place");
                // What can't be vouched for is not given out.
                let read = journal.read(Lane::Events, from, 10, usize::MAX).unwrap_or_default();
                let given = read.iter().find(|record| record.seq() == damaged);
                assert!(given.is_none_or(|record| record.kind() == RecordKind::Gap), "{read:?}");
                let _ = journal.read(Lane::Events, damaged, 10, usize::MAX);
                tokio::task::yield_now().await;
            }
            let kinds: Vec<RecordKind> =
                all(&journal, Lane::Events).iter().map(Record::kind).collect();
            let expected: Vec<RecordKind> = (1..=5)
                .map(|seq| if seq == damaged { RecordKind::Gap } else { RecordKind::Event })
                .collect();
            assert_eq!(kinds, expected, "{damaged} at {at}");
            assert_eq!(sound(&journal), before);
            journal.commit(one(event(6))).await.unwrap();
            assert_eq!(all(&journal, Lane::Events).len(), 6);
            adds_up(&journal);
        }
    }
}

/// Its chain value may be made otherwise there.
#[tokio::test]
async fn what_a_newer_version_wrote_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    edit(&config.path, |transaction| {
        let mut rows = transaction.open_table(store::records(Lane::Events)).unwrap();
        for seq in 3..=4 {
            let mut row = rows.get(seq).unwrap().unwrap().value().to_vec();
            (row[0], row[20]) = (9, !row[20]);
            rows.insert(seq, &*row).unwrap();
        }
    });
    let (journal, _) = Journal::open(config).unwrap();
    assert_eq!(all(&journal, Lane::Events).len(), 5);
    for seq in 3..=5 {
        journal.requests.send(Request::Mend(Lane::Events, seq)).await.unwrap();
    }
    journal.commit(one(telemetry(1))).await.unwrap();
    assert_eq!(journal.lanes()[2].dropped, 0);
    adds_up(&journal);
}

/// The one after it is met first: it stays, and the damaged one goes. What the bridge says of that is no
/// fork.
#[tokio::test]
async fn a_damaged_chain_value_of_what_the_bridge_has_is_no_fork() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    let (journal, _) = Journal::open(config.clone()).unwrap();
    let chain = all(&journal, Lane::Events)[2].chain();
    journal.close().await.unwrap();
    damage(&config.path, 3, 20);
    let (journal, _) = Journal::open(config).unwrap();
    journal.resume(vec![ack(Lane::Events, 3, chain)]).await.unwrap();
    let start = Instant::now();
    while journal.read(Lane::Events, 4, 10, usize::MAX).is_err() {
        assert!(start.elapsed() < PATIENCE, "nothing takes its place");
        tokio::task::yield_now().await;
    }
    let records = all(&journal, Lane::Events);
    let kinds: Vec<RecordKind> = records.iter().map(Record::kind).collect();
    let (event, gap) = (RecordKind::Event, RecordKind::Gap);
    assert_eq!(kinds, [event, event, gap, event, event]);
    journal.commit(one(telemetry(6))).await.unwrap();
    adds_up(&journal);
    // Another history is one all the same.
    let other = journal.resume(vec![ack(Lane::Events, 4, chain ^ 1)]).await;
    assert!(matches!(other, Err(JournalError::Forked { .. })), "{other:?}");
}

/// Many in a row are replaced in one commit, and what comes after the last one continues what the bridge has.
#[tokio::test]
async fn damaged_rows_at_the_end_of_what_the_bridge_has_are_no_fork() {
    for is_met_at_once in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let (journal, _) = Journal::open(config.clone()).unwrap();
        for number in 0..5 {
            journal.commit(one(event(number))).await.unwrap();
        }
        let chain = all(&journal, Lane::Events)[4].chain();
        journal.acknowledge(vec![ack(Lane::Events, 5, chain)]).await.unwrap();
        journal.close().await.unwrap();
        edit(&config.path, |transaction| {
            let mut rows = transaction.open_table(store::records(Lane::Events)).unwrap();
            for seq in 3..=5 {
                let mut row = rows.get(seq).unwrap().unwrap().value().to_vec();
                row[2] = 9;
                rows.insert(seq, &*row).unwrap();
            }
        });
        let (mut journal, _) = Journal::open(config.clone()).unwrap();
        let commits = journal.stats().commits;
        let read = |journal: &Journal| journal.read(Lane::Events, 1, 10, usize::MAX);
        let start = Instant::now();
        while read(&journal).unwrap().len() < 5 {
            assert!(start.elapsed() < PATIENCE, "nothing takes their place");
            let _ = journal.read(Lane::Events, 3, 10, usize::MAX);
            tokio::task::yield_now().await;
        }
        // The last row is met when the file is opened, and then all are looked at.
        assert!(journal.stats().commits <= commits + 1, "all in one commit");
        if !is_met_at_once {
            journal.close().await.unwrap();
            journal = Journal::open(config).unwrap().0;
        }
        let next = journal.commit(one(event(6))).await.unwrap()[0].record.clone();
        assert!(next.continues(chain), "as the bridge expects it");
        adds_up(&journal);
    }
}
