//! Counts that are kept in the file, and how quickly it opens.

use redb::ReadableDatabase as _;

use super::*;

pub(super) fn edit(path: &std::path::Path, change: impl FnOnce(&redb::WriteTransaction)) {
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
pub(super) async fn filled(dir: &std::path::Path) -> JournalConfig {
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
const EVENTS_AT: usize = 8 + 36 + 36;

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
