use redb::{Database, ReadableTable as _};
use topics::{Draft, EventBody, event::ServiceState, link::LaneAck, record::Cause};

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::journal::{
    Attachment, Batch, FileError, Integrity, Journal, JournalConfig, JournalFile, compact, is_open,
    moment,
    rows::CHECK_BYTES,
    store::{LANES, META, META_STORE, records},
};

const LANE: Lane = Lane::Telemetry;

fn telemetry(uptime: u64) -> Draft {
    let status = ServiceState::Running;
    let body = EventBody::ServiceStatus { status, uptime, version: "0.1.0".into() };
    Draft::new(&body, &moment(), &Cause::default()).unwrap()
}

fn config(dir: &std::path::Path) -> JournalConfig {
    let path = dir.join("journal.redb");
    JournalConfig { max_records: 640, ..JournalConfig::new(path, "hq-lobby".parse().unwrap()) }
}

/// A journal with `count` records, of which the bridge has `acked`.
async fn filled(config: &JournalConfig, count: u64, acked: u64) -> Journal {
    let (journal, _) = Journal::open(config.clone()).unwrap();
    for first in (0..count).step_by(10) {
        let batch = (first..count.min(first + 10)).fold(Batch::new(), |batch, uptime| {
            batch.event(telemetry(uptime), Attachment::default())
        });
        let told = journal.commit(batch).await.unwrap();
        if let Some(last) = told.iter().find(|committed| committed.record.seq() == acked) {
            let (watermark, chain) = (acked, last.record.chain());
            let ack = LaneAck { lane: LANE, watermark, chain, ranges: Vec::new() };
            journal.acknowledge(vec![ack]).await.unwrap();
        }
    }
    journal
}

/// All findings in a file.
fn verify(config: &JournalConfig) -> Vec<(Problem, Option<u64>)> {
    let file = JournalFile::open(&config.path).unwrap();
    let survey = file.survey().unwrap();
    let mut found = Findings::default();
    for lane in &survey.lanes {
        let mut check = LaneCheck::new(&survey.gateway, lane);
        let mut from = 0;
        loop {
            let rows = file.rows(lane.lane, from, 7, 100_000).unwrap();
            let Some(last) = rows.last() else { break };
            from = last.key + 1;
            rows.iter().for_each(|row| check.row(row));
        }
        found.extend(check.end(lane, None).1);
    }
    found.listed.iter().map(|finding| (finding.problem, finding.seq)).collect()
}

/// Changes rows of the lane behind the journal's back.
fn tamper(config: &JournalConfig, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let database = Database::open(&config.path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(records(LANE)).unwrap());
    transaction.commit().unwrap();
}

/// Changes a record, as damage does or, with a check that fits, as something that is wrong with us does.
fn replace(config: &JournalConfig, seq: u64, change: fn(&mut Vec<u8>), fits: bool) {
    tamper(config, |table| {
        let mut row = table.get(seq).unwrap().unwrap().value().to_vec();
        let mut record = row.split_off(CHECK_BYTES);
        change(&mut record);
        if fits {
            row[1..].copy_from_slice(&xxh3_64(&record).to_le_bytes());
        }
        row.extend(record);
        table.insert(seq, row.as_slice()).unwrap();
    });
}

#[tokio::test]
async fn a_sound_file_has_no_findings_whatever_it_went_through() {
    for (count, acked) in [(0, 0), (5, 0), (5, 3), (1_500, 0), (1_500, 700), (1_500, 1_500)] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let journal = filled(&config, count, acked).await;
        if count == 1_500 {
            // What the bridge lacks and is gone becomes a gap, and a new store another.
            journal.resume(vec![]).await.unwrap();
            journal.refork().await.unwrap();
        }
        journal.close().await.unwrap();
        assert_eq!(verify(&config), [], "{count} records, {acked} acknowledged");
    }
}

#[tokio::test]
async fn every_kind_of_damage_is_found_where_it_is() {
    type Change = fn(&mut Vec<u8>);
    let in_json: Change = |bytes| {
        let at = bytes.windows(9).position(|part| part == b"\"uptime\":").unwrap();
        bytes[at + 9] = if bytes[at + 9] == b'1' { b'2' } else { b'1' };
    };
    let chain_value: Change = |bytes| bytes[20] ^= 1;
    let version: Change = |bytes| bytes[0] = 9;
    let cut: Change = |bytes| bytes.truncate(80);
    let brace: Change = |bytes| *bytes.last_mut().unwrap() = b' ';
    let other_seq: Change = |bytes| bytes[4] ^= 1;
    let as_gap: Change = |bytes| bytes[1] = 2;
    for (change, expected) in [
        (in_json, &[(Problem::Chain, Some(10))][..]),
        (chain_value, &[(Problem::Chain, Some(10)), (Problem::Chain, Some(11))]),
        (version, &[(Problem::Unreadable, Some(10))]),
        (cut, &[(Problem::Unreadable, Some(10))]),
        (brace, &[(Problem::Chain, Some(10)), (Problem::Json, Some(10))]),
        (other_seq, &[(Problem::Unreadable, Some(10))]),
        (as_gap, &[(Problem::Json, Some(10))]),
    ] {
        for (fits, expected) in [(true, expected), (false, &[(Problem::Unreadable, Some(10))][..])]
        {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path());
            filled(&config, 20, 0).await.close().await.unwrap();
            replace(&config, 10, change, fits);
            assert_eq!(verify(&config), expected);
        }
    }
}

#[tokio::test]
async fn a_lost_row_and_one_too_many_are_found_and_no_longer_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    filled(&config, 20, 5).await.close().await.unwrap();
    tamper(&config, |table| drop(table.remove(10).unwrap()));
    let found = verify(&config);
    assert_eq!(found[0], (Problem::Missing, Some(10)));
    assert!(found.iter().any(|found| found.0 == Problem::Accounting), "{found:?}");

    // A record under another's number, with a chain of its own.
    let dir = tempfile::tempdir().unwrap();
    let config = self::config(dir.path());
    filled(&config, 20, 5).await.close().await.unwrap();
    let id = topics::EventId::from_bytes([0; 16]);
    let other = telemetry(1).into_record(&config.gateway, id, 10, 7);
    tamper(&config, |table| drop(table.insert(10, other.as_bytes()).unwrap()));
    let found = verify(&config);
    let expected = [Problem::Chain, Problem::Order, Problem::Chain];
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), expected, "{found:?}");
}

#[tokio::test]
async fn marks_that_do_not_fit_the_records_are_found() {
    for marks in [
        r#"{"trimmed":8,"watermark":5,"chain":0,"ranges":[],"edge_cursor":0}"#,
        r#"{"trimmed":0,"watermark":25,"chain":0,"ranges":[],"edge_cursor":0}"#,
        r#"{"trimmed":0,"watermark":5,"chain":77,"ranges":[],"edge_cursor":0}"#,
        r#"{"trimmed":0,"watermark":5,"chain":0,"ranges":[[4,9]],"edge_cursor":0}"#,
        r#"{"trimmed":0,"watermark":5,"chain":0,"ranges":[],"edge_cursor":21}"#,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        filled(&config, 20, 5).await.close().await.unwrap();
        let database = Database::open(&config.path).unwrap();
        let transaction = database.begin_write().unwrap();
        let index = LANE.index() as u8;
        transaction.open_table(LANES).unwrap().insert(index, marks.as_bytes()).unwrap();
        transaction.commit().unwrap();
        drop(database);
        assert_ne!(verify(&config), [], "{marks}");
    }
}

#[test]
fn findings_are_bounded_and_counted() {
    let mut found = Findings::default();
    for seq in 0..MAX_FINDINGS as u64 + 5 {
        let (problem, lane, text) = (Problem::Chain, Some(LANE), String::new());
        found.add(Finding { problem, lane, seq: Some(seq), text });
    }
    assert_eq!((found.listed.len(), found.more, found.count()), (MAX_FINDINGS, 5, 105));
}

/// While a lane is read its oldest records may become gaps.
#[tokio::test]
async fn a_running_journal_may_trim_what_is_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let journal = filled(&config, 600, 0).await;
    let lane_of = |journal: &Journal| journal.survey().lane(LANE).unwrap().clone();
    let before = lane_of(&journal);
    let mut check = LaneCheck::new("hq-lobby", &before);
    let mut from = 0;
    while from < before.next {
        let rows = journal.rows(LANE, from, 50, 100_000).unwrap();
        from = rows.last().unwrap().key + 1;
        rows.iter().for_each(|row| check.row(row));
        for _ in 0..6 {
            let batch = (0..10).fold(Batch::new(), |batch, uptime| {
                batch.event(telemetry(uptime), Attachment::default())
            });
            journal.commit(batch).await.unwrap();
        }
    }
    let now = lane_of(&journal);
    assert!(now.dropped > 300, "{now:?}");
    let front = journal.rows(LANE, 0, 1_000, 1_000_000).unwrap();
    let front: Vec<Row> = front.into_iter().filter(|row| row.key <= now.trimmed).collect();
    let (_, found) = check.end(&now, Some(&front));
    assert_eq!(found, Findings::default());
}

#[tokio::test]
async fn looking_changes_no_byte_of_the_file_not_even_of_an_unclean_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let journal = filled(&config, 50, 10).await;
    // As a power cut leaves it.
    let unclean = JournalConfig { path: dir.path().join("cut.redb"), ..config.clone() };
    std::fs::copy(&config.path, &unclean.path).unwrap();
    let live = journal.survey();
    assert!(is_open(&config.path) && !is_open(&unclean.path));
    assert!(matches!(compact(&config.path), Err(FileError::Locked { .. })));
    journal.close().await.unwrap();
    for config in [&config, &unclean] {
        let before = std::fs::read(&config.path).unwrap();
        assert_eq!(verify(config), []);
        assert_eq!(JournalFile::check_integrity(&config.path).unwrap(), Integrity::Sound);
        let survey = JournalFile::open(&config.path).unwrap().survey().unwrap();
        assert_eq!((survey.store, survey.lanes), (live.store, live.lanes.clone()));
        assert!(std::fs::read(&config.path).unwrap() == before, "{:?}", config.path);
    }
    let beside = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(beside, 3, "the two files and the store's note");
}

#[tokio::test]
async fn what_is_no_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let refused = |path| JournalFile::open(path).unwrap_err();
    assert!(matches!(refused(&path), FileError::Missing { .. }));
    assert!(!path.exists());
    for bytes in [vec![], vec![0x5a; 70_000]] {
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(refused(&path), FileError::Damaged { .. }), "{:?}", refused(&path));
        assert!(matches!(compact(&path), Err(FileError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    std::fs::remove_file(&path).unwrap();
    drop(Database::create(&path).unwrap());
    assert!(matches!(refused(&path), FileError::Other { .. }));
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(META_STORE, &[1; 16][..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(refused(&path), FileError::Other { .. }), "it names no gateway");
}

#[tokio::test]
async fn a_compacted_file_is_smaller_and_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_records: 10_000, ..config(dir.path()) };
    let (journal, _) = Journal::open(config.clone()).unwrap();
    let batch = (0..9_000)
        .fold(Batch::new(), |batch, uptime| batch.event(telemetry(uptime), Attachment::default()));
    let told = journal.commit(batch).await.unwrap();
    let chain = told.last().unwrap().record.chain();
    let ack = LaneAck { lane: LANE, watermark: 9_000, chain, ranges: Vec::new() };
    journal.acknowledge(vec![ack]).await.unwrap();
    journal.close().await.unwrap();
    // Now fewer are to be held.
    let small = JournalConfig { max_records: 640, ..config };
    let journal = filled(&small, 1, 0).await;
    let survey = journal.survey();
    journal.close().await.unwrap();
    let length = || std::fs::metadata(&small.path).unwrap().len();
    let before = length();
    compact(&small.path).unwrap();
    assert!(length() < before / 2, "{before} before, {} after", length());
    let after = JournalFile::open(&small.path).unwrap().survey().unwrap();
    assert_eq!(after.lanes, survey.lanes);
    assert_eq!(verify(&small), []);
}
