//! Journals as each layout of the file had them, with all that there can be in one. Every later version opens them.
//!
//! When the layout changes, a new pair of files joins these; the old ones stay.
//!
//! | file | its rows |
//! |---|---|
//! | `journal-v1` | records alone |
//! | `journal-v2` | records with a check; chain values beside the counts |

use std::{fmt::Write as _, path::PathBuf};

use topics::record::Moment;

use super::{super::*, adds_up, all, config};

/// Where the file lies, and next to it what must be read from it.
fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/journal/tests/golden").join(name)
}

const OLD: &str = "journal-v1";
const NEWEST: &str = "journal-v2";

#[tokio::test]
async fn a_journal_of_the_first_layout_opens() {
    opens(OLD).await;
}

#[tokio::test]
async fn a_journal_of_this_layout_opens() {
    opens(NEWEST).await;
}

async fn opens(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let packed = std::fs::read(golden(&format!("{name}.redb.zst"))).unwrap();
    let file = zstd::decode_all(packed.as_slice()).unwrap();
    std::fs::write(config(dir.path()).path, file).unwrap();
    let (journal, opened) = Journal::open(config(dir.path())).unwrap();
    assert_eq!((&opened.set_aside, opened.previous_store), (&None, None));
    let expected = std::fs::read_to_string(golden(&format!("{name}.txt"))).unwrap();
    let told = told(&journal);
    let differ = told.lines().zip(expected.lines()).find(|(told, expected)| told != expected);
    assert_eq!(differ, None);
    assert_eq!(told.lines().count(), expected.lines().count());
    adds_up(&journal);
    // It goes on: the chain is continued, and the bridge's acknowledgements fit.
    let before = journal.lanes()[Lane::Events.index()].clone();
    let added = journal.commit(super::one(super::event(99))).await.unwrap();
    assert_eq!(added[0].record.seq(), before.next);
    let last = all(&journal, Lane::Events);
    let [.., previous, newest] = last.as_slice() else { panic!("two records") };
    assert!(newest.continues(previous.chain()));
    journal.close().await.unwrap();
}

/// All that is in a journal, as text.
fn told(journal: &Journal) -> String {
    let mut text = format!("store {}\n", journal.store());
    for view in journal.lanes() {
        // Spelled out: what a later version adds to the view is not in the file.
        let LaneView { lane, oldest, next, watermark, chain, .. } = &view;
        let LaneView { ranges, acknowledged, queued, dropped, edge_cursor, .. } = &view;
        writeln!(
            text,
            "{lane} {oldest}..{next}, {watermark} ({chain:016x}) {ranges:?}, {acknowledged} + \
             {queued} + {dropped}, edge {edge_cursor}"
        )
        .unwrap();
        for record in all(journal, view.lane) {
            writeln!(
                text,
                "  {:?} {}..={} chain {:016x} private {} {}",
                record.kind(),
                record.first(),
                record.seq(),
                record.chain(),
                record.private().map_or(0, <[u8]>::len),
                String::from_utf8_lossy(record.json())
            )
            .unwrap();
        }
    }
    for table in [Table::Commands, Table::Settings] {
        for (key, value) in journal.scan(table, b"").unwrap() {
            writeln!(text, "{table:?} {} {}", hex::encode(key), hex::encode(value)).unwrap();
        }
    }
    text
}

/// How the pair was made: `cargo test -p gateway --lib write_the_golden -- --ignored`. Never over one
/// that is released.
#[tokio::test]
#[ignore = "writes the files that the other test reads"]
async fn write_the_golden_journal() {
    let target = golden(&format!("{NEWEST}.redb.zst"));
    assert!(!target.exists(), "{} is there: it stays as it is", target.display());
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_records: 90, ..config(dir.path()) };
    let (journal, _) = Journal::open(config.clone()).unwrap();
    for step in 1..=120_u64 {
        let draft = match step % 10 {
            0 => super::access(),
            1..4 => super::telemetry(step),
            _ => super::event(step),
        };
        let key = format!("key-{}", step % 7);
        let batch = super::one(draft).put(Table::Settings, key, step.to_le_bytes().to_vec());
        journal.commit(batch).await.unwrap();
        if step == 60 {
            let chain = all(&journal, Lane::Events)[9].chain();
            let ack = LaneAck { ranges: vec![(15, 20)], ..super::ack(Lane::Events, 10, chain) };
            journal.acknowledge(vec![ack]).await.unwrap();
        }
    }
    let old = Moment { uptime_ms: 5, ..moment() };
    let body = topics::EventBody::ScanStopped {
        device_id: "device-002".parse().unwrap(),
        scan_id: "scan-ü\"".into(),
    };
    let sealed = super::event(0).with_private(vec![0xa5; 300]).unwrap();
    journal.commit(super::one(sealed)).await.unwrap();
    let draft = topics::Draft::new(&body, &old, &topics::record::Cause::default()).unwrap();
    let command = Batch::new().event(draft, Attachment::default()).put(
        Table::Commands,
        *b"command-1",
        b"{}".to_vec(),
    );
    journal.edge_cursor_set(Lane::Events, 33).await.unwrap();
    journal.commit(command).await.unwrap();
    let text = told(&journal);
    journal.close().await.unwrap();
    std::fs::create_dir_all(golden("")).unwrap();
    let packed = zstd::encode_all(std::fs::File::open(&config.path).unwrap(), 19).unwrap();
    std::fs::write(&target, packed).unwrap();
    std::fs::write(golden(&format!("{NEWEST}.txt")), text).unwrap();
}
