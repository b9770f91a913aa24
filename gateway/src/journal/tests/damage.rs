//! Rows that are not what was written.

use redb::ReadableTable as _;

use super::{
    counts::{edit, filled},
    *,
};
use crate::journal::rows::{self, RowError};

fn row(transaction: &redb::WriteTransaction, seq: u64) -> Vec<u8> {
    let rows = transaction.open_table(store::records(Lane::Events)).unwrap();
    rows.get(seq).unwrap().unwrap().value().to_vec()
}

/// Changes a byte of each of these rows.
fn damage(path: &std::path::Path, seqs: &[u64], at: usize) {
    edit(path, |transaction| {
        for &seq in seqs {
            let mut row = row(transaction, seq);
            row[at] ^= 1;
            let mut rows = transaction.open_table(store::records(Lane::Events)).unwrap();
            rows.insert(seq, &*row).unwrap();
        }
    });
}

/// Where in a row the tag, the check, the lane, the number, the chain value and the text are.
const PLACES: [usize; 6] = [0, 5, 9 + 2, 9 + 4, 9 + 20, 9 + 100];

/// Asks until it is so.
async fn until(journal: &Journal, what: &str, mut is_so: impl FnMut(&Journal) -> bool) {
    let start = Instant::now();
    while !is_so(journal) {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

fn kinds(journal: &Journal) -> String {
    let letter = |record: &Record| if record.kind() == RecordKind::Gap { 'g' } else { 'e' };
    all(journal, Lane::Events).iter().map(letter).collect()
}

#[tokio::test]
async fn no_bit_of_a_row_changes_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    edit(&config.path, |transaction| {
        let row = row(transaction, 3);
        assert!(rows::read(Lane::Events, 3, &row).is_ok());
        for bit in 0..row.len() * 8 {
            let mut changed = row.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = rows::read(Lane::Events, 3, &changed);
            assert!(read.is_err(), "bit {bit}");
        }
        for length in 0..row.len() {
            assert!(rows::read(Lane::Events, 3, &row[..length]).is_err(), "{length} bytes");
        }
        let misplaced = rows::read(Lane::Events, 4, &row);
        assert_eq!(misplaced, Err(RowError::Misplaced { lane: Lane::Events, seq: 3 }));
        // As the first format wrote it.
        let bare = rows::record_bytes(&row).unwrap();
        assert_eq!(rows::read(Lane::Events, 3, bare).unwrap().as_bytes(), bare);
        assert_eq!(
            (rows::record_len(&row), rows::record_len(bare)),
            (bare.len() as u64, bare.len() as u64)
        );
    });
}

/// The row is met by who reads the lane, looks for an event, asks for those after one, or for the oldest; from
/// then on a gap stands there. Nobody is given what stood there before.
#[tokio::test]
async fn a_damaged_row_is_replaced_by_a_gap_when_it_is_met() {
    type Meet = fn(&Journal) -> bool;
    let read: Meet = |journal| journal.read(Lane::Events, 3, 10, usize::MAX).is_err();
    let follow: Meet = |journal| journal.events_after(None, 1_000).is_err();
    let oldest: Meet = |journal| journal.oldest_queued().is_err();
    for (meet, at) in
        [read, follow, oldest].into_iter().flat_map(|meet| PLACES.map(|at| (meet, at)))
    {
        let dir = tempfile::tempdir().unwrap();
        let config = filled(dir.path()).await;
        damage(&config.path, &[3], at);
        let (journal, _) = Journal::open(config.clone()).unwrap();
        let mut live = journal.live();
        assert!(meet(&journal), "the byte at {at}");
        until(&journal, "nothing takes its place", |journal| {
            !meet(journal) && journal.lanes()[2].dropped > 0
        })
        .await;
        adds_up(&journal);
        assert_eq!(kinds(&journal), "eegee");
        let records = all(&journal, Lane::Events);
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

/// Each is known by itself: its neighbours, damaged or sound, say nothing of it.
#[tokio::test]
async fn neighbours_are_neither_taken_along_nor_vouched_for() {
    for (damaged, from, expected) in
        [(&[3, 4][..], 3, "eegge"), (&[4], 4, "eeege"), (&[1], 1, "geeee"), (&[1, 2], 1, "ggeee")]
    {
        for at in PLACES {
            let dir = tempfile::tempdir().unwrap();
            let config = filled(dir.path()).await;
            damage(&config.path, damaged, at);
            let (journal, _) = Journal::open(config).unwrap();
            until(&journal, "nothing takes their place", |journal| {
                let read = journal.read(Lane::Events, from, 10, usize::MAX).unwrap_or_default();
                let given = read.iter().find(|record| damaged.contains(&record.seq()));
                assert!(given.is_none_or(|record| record.kind() == RecordKind::Gap), "{read:?}");
                journal.lanes()[2].dropped == damaged.len() as u64
            })
            .await;
            assert_eq!(kinds(&journal), expected, "{damaged:?} at {at}");
            adds_up(&journal);
        }
    }
}

/// Found when the file is opened: what it stood for is still accounted for.
#[tokio::test]
async fn a_damaged_gap_stands_for_what_it_stood_for() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    let (journal, _) = Journal::open(config.clone()).unwrap();
    let before = journal.lanes()[3].clone();
    let gap = all(&journal, Lane::Telemetry).remove(0);
    assert!(gap.kind() == RecordKind::Gap && gap.first() < gap.seq());
    journal.close().await.unwrap();
    edit(&config.path, |transaction| {
        let mut rows = transaction.open_table(store::records(Lane::Telemetry)).unwrap();
        let mut row = rows.get(gap.seq()).unwrap().unwrap().value().to_vec();
        row[9 + 12] ^= 1;
        rows.insert(gap.seq(), &*row).unwrap();
    });
    for _ in 0..2 {
        let (journal, _) = Journal::open(config.clone()).unwrap();
        adds_up(&journal);
        let view = journal.lanes()[3].clone();
        assert_eq!((view.dropped, view.queued), (before.dropped, before.queued));
        journal.close().await.unwrap();
    }
}

/// What it says of itself may be otherwise there.
#[tokio::test]
async fn what_a_newer_version_wrote_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    edit(&config.path, |transaction| {
        for seq in 3..=4 {
            let mut bytes = rows::record_bytes(&row(transaction, seq)).unwrap().to_vec();
            (bytes[0], bytes[20]) = (9, !bytes[20]);
            let mut table = transaction.open_table(store::records(Lane::Events)).unwrap();
            rows::insert(&mut table, &Record::read_foreign(&bytes).unwrap()).unwrap();
        }
    });
    let (journal, _) = Journal::open(config).unwrap();
    assert_eq!(kinds(&journal), "eeeee");
    assert_eq!(journal.lanes()[2].dropped, 0);
    adds_up(&journal);
}

/// What the bridge says of a row that is damaged here is held against what it said before; another history is
/// one all the same.
#[tokio::test]
async fn a_damaged_row_of_what_the_bridge_has_is_no_fork() {
    let dir = tempfile::tempdir().unwrap();
    let config = filled(dir.path()).await;
    let (journal, _) = Journal::open(config.clone()).unwrap();
    let chain = all(&journal, Lane::Events)[2].chain();
    journal.resume(vec![ack(Lane::Events, 3, chain)]).await.unwrap();
    journal.close().await.unwrap();
    damage(&config.path, &[3], 9 + 20);
    let (journal, _) = Journal::open(config).unwrap();
    let other = journal.resume(vec![ack(Lane::Events, 3, chain ^ 1)]).await;
    assert!(matches!(other, Err(JournalError::Forked { .. })), "{other:?}");
    journal.resume(vec![ack(Lane::Events, 3, chain)]).await.unwrap();
    until(&journal, "nothing takes its place", |journal| {
        journal.read(Lane::Events, 3, 10, usize::MAX).is_ok() && journal.lanes()[2].dropped == 1
    })
    .await;
    assert_eq!(kinds(&journal), "eegee");
    adds_up(&journal);
    let other = journal.resume(vec![ack(Lane::Events, 4, chain ^ 1)]).await;
    assert!(matches!(other, Err(JournalError::Forked { .. })), "{other:?}");
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

/// Many in a row are replaced in one commit, and what comes after the last one continues what stood there: the
/// bridge may have it, or some of it.
#[tokio::test]
async fn after_damaged_rows_at_the_end_the_next_one_continues_what_was_written() {
    for (acknowledged, is_met_at_once) in [(5, true), (5, false), (3, false), (0, false)] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let (journal, _) = Journal::open(config.clone()).unwrap();
        for number in 0..5 {
            journal.commit(one(event(number))).await.unwrap();
        }
        let chains: Vec<u64> = all(&journal, Lane::Events).iter().map(Record::chain).collect();
        if let Some(before) = u64::checked_sub(acknowledged, 1) {
            let told = ack(Lane::Events, acknowledged, chains[before as usize]);
            journal.acknowledge(vec![told]).await.unwrap();
        }
        journal.close().await.unwrap();
        damage(&config.path, &[3, 4, 5], 9 + 2);
        let (mut journal, _) = Journal::open(config.clone()).unwrap();
        let commits = journal.stats().commits;
        until(&journal, "nothing takes their place", |journal| {
            let _ = journal.read(Lane::Events, 3, 10, usize::MAX);
            journal.read(Lane::Events, 1, 10, usize::MAX).unwrap().len() == 5
        })
        .await;
        // The last row is met when the file is opened, and then all are looked at.
        assert!(journal.stats().commits <= commits + 1, "all in one commit");
        if !is_met_at_once {
            journal.close().await.unwrap();
            journal = Journal::open(config).unwrap().0;
        }
        let next = journal.commit(one(event(6))).await.unwrap()[0].record.clone();
        assert!(next.continues(chains[4]), "as the bridge expects it");
        adds_up(&journal);
    }
}
