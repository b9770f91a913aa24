//! The core against a model: a gateway that sends, repeats, reorders, loses, drops and restarts; a
//! bridge that crashes back to what it had committed.

mod refusals;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use topics::{
    BootId, Clock, Draft, EventBody, EventId, GatewayId, Lane, Record, RecordKind, StoreId,
    Timestamp,
    event::GapReason,
    link::{AgentInfo, Batch, Frame, Hello, LaneHello, Outcome, Probe},
    record::{Cause, Moment},
};

use super::{
    cursor::{Cursor, Span, Taken},
    link::{Link, Output, ReadBatch},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn gateway() -> GatewayId {
    "hq".parse().unwrap()
}

fn store(number: u8) -> StoreId {
    StoreId::from_bytes([number; 16])
}

fn moment() -> Moment {
    Moment {
        timestamp: at(1),
        clock: Clock::Synced,
        boot: BootId::from_bytes([1; 16]),
        uptime_ms: 5,
    }
}

fn event_id(lane: Lane, seq: u64, variant: u8) -> EventId {
    let mut id = [variant; 16];
    id[0] = lane.index() as u8;
    id[8..].copy_from_slice(&seq.to_be_bytes());
    EventId::from_bytes(id)
}

fn draft(lane: Lane) -> Draft {
    let body = EventBody::ScanStarted {
        device_id: "device-001".parse().unwrap(),
        scan_id: "scan-1".into(),
    };
    Draft::new(&body, &moment(), &Cause::default()).unwrap().in_lane(lane)
}

fn gap_draft(lane: Lane, from: u64, to: u64) -> Draft {
    let body = EventBody::JournalGap {
        from,
        to,
        count: Some(to - from + 1),
        reason: GapReason::JournalFull,
        previous_store: None,
    };
    Draft::new(&body, &moment(), &Cause::default()).unwrap().in_lane(lane)
}

/// A journal of one lane: what stands at each number, gaps in place of what they cover.
#[derive(Debug, Clone)]
struct Journal {
    lane: Lane,
    store: u8,
    records: BTreeMap<u64, Record>,
    next: u64,
    chain: u64,
}

impl Journal {
    fn new(lane: Lane) -> Self {
        Self { lane, store: 1, records: BTreeMap::new(), next: 1, chain: 0 }
    }

    fn append(&mut self, count: u64, variant: u8) {
        for _ in 0..count {
            let id = event_id(self.lane, self.next, variant);
            let record = draft(self.lane).into_record(&gateway(), id, self.next, self.chain);
            self.chain = record.chain();
            self.records.insert(self.next, record);
            self.next += 1;
        }
    }

    /// Drops all below `to`, it included: one gap stands for them.
    fn drop_up_to(&mut self, to: u64) {
        let to = to.min(self.next - 1);
        let Some(first) = self.records.values().next().map(Record::first) else { return };
        if to < first || !self.records.contains_key(&to) {
            return;
        }
        self.records.retain(|seq, _| *seq > to);
        let id = event_id(self.lane, to, 200);
        let gap = gap_draft(self.lane, first, to).into_gap(&gateway(), id, (first, to), 0);
        self.records.insert(to, gap);
    }

    fn hello(&self, session: u64, watermark: u64, chain: u64) -> Hello {
        let oldest = self.records.values().next().map_or(self.next, Record::first);
        Hello {
            session,
            gateway: gateway(),
            store: store(self.store),
            boot: BootId::from_bytes([1; 16]),
            uptime_ms: 1,
            wall: at(0),
            probe_ms: None,
            lanes: vec![LaneHello { lane: self.lane, oldest, next: self.next, watermark, chain }],
            agent: AgentInfo::default(),
        }
    }

    fn batch(&self, session: u64, from: usize, count: usize) -> ReadBatch {
        let records = self.records.values().skip(from).take(count).cloned().collect();
        Batch { store: store(self.store), session, records }.into()
    }
}

/// What a bridge has committed.
#[derive(Debug, Clone, Default)]
struct Committed {
    cursors: BTreeMap<StoreId, Vec<Cursor>>,
    stored: Vec<(StoreId, u64)>,
    covered_by_gaps: u64,
}

impl Committed {
    fn commit(&mut self, outputs: &[Output], store: StoreId) {
        for output in outputs {
            match output {
                // A gap's last number may have been stored as an event before.
                Output::Store(accepted) if accepted.record.kind() == RecordKind::Gap => {}
                Output::Store(accepted) => self.stored.push((store, accepted.record.seq())),
                Output::Cursors { store, cursors } => {
                    self.cursors.insert(*store, cursors.clone());
                }
                Output::Lost { count, .. } => self.covered_by_gaps += count,
                Output::SetAside { .. }
                | Output::Greeted { .. }
                | Output::Probed { .. }
                | Output::Received(_)
                | Output::Send(_)
                | Output::Alarm(_) => {}
            }
        }
    }

    fn cursors(&self, store: StoreId) -> Vec<Cursor> {
        self.cursors.get(&store).cloned().unwrap_or_default()
    }
}

fn outcome(outputs: &[Output]) -> &Outcome {
    outputs
        .iter()
        .find_map(|output| match output {
            Output::Send(Frame::Resume(resume)) => Some(&resume.outcome),
            _ => None,
        })
        .expect("a hello is answered")
}

fn asks_hello(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Send(Frame::AskHello(_))))
}

fn stored(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Store(_))).count()
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Send { from: usize, count: usize, lost: bool },
    Drop(u64),
    Hello,
    CrashBridge,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..20u64).prop_map(Step::Append),
        8 => (0..40usize, 1..20usize, prop::bool::weighted(0.2))
            .prop_map(|(from, count, lost)| Step::Send { from, count, lost }),
        1 => (1..40u64).prop_map(Step::Drop),
        1 => Just(Step::Hello),
        1 => Just(Step::CrashBridge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is repeated, reordered, lost, dropped or crashed: when all has been sent once more,
    /// every number is accounted for, each event is stored once, and the sums are right.
    #[test]
    fn every_number_is_accounted_for_once(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut journal = Journal::new(Lane::Events);
        journal.append(3, 0);
        let mut committed = Committed::default();
        let mut link = Link::new(gateway());
        let mut session = 1;
        let hello = |link: &mut Link, journal: &Journal, session, committed: &mut Committed| {
            let cursors = committed.cursors(store(1));
            let outputs = link.hello(at(0), journal.hello(session, 0, 0), cursors);
            assert!(matches!(outcome(&outputs), Outcome::Resume { .. }), "{outputs:?}");
            committed.commit(&outputs, store(1));
        };
        hello(&mut link, &journal, session, &mut committed);
        for step in steps {
            match step {
                Step::Append(count) => journal.append(count, 0),
                Step::Send { lost: true, .. } => {}
                Step::Send { from, count, lost: false } => {
                    let outputs = link.batch(at(0), journal.batch(session, from, count));
                    committed.commit(&outputs, store(1));
                }
                Step::Drop(to) => journal.drop_up_to(to),
                Step::Hello => {
                    session += 1;
                    hello(&mut link, &journal, session, &mut committed);
                }
                Step::CrashBridge => {
                    link = Link::new(gateway());
                    let outputs = link.batch(at(0), journal.batch(session, 0, 1));
                    prop_assert!(asks_hello(&outputs) && stored(&outputs) == 0);
                    session += 1;
                    hello(&mut link, &journal, session, &mut committed);
                }
            }
            for cursor in committed.cursors(store(1)) {
                prop_assert!(cursor.is_sound(), "{cursor:?}");
            }
        }
        let outputs = link.batch(at(0), journal.batch(session, 0, usize::MAX));
        committed.commit(&outputs, store(1));
        let cursor = committed.cursors(store(1)).remove(Lane::Events.index());
        prop_assert_eq!((cursor.watermark, cursor.ranges.len()), (journal.next - 1, 0));
        let numbers: Vec<u64> = committed.stored.iter().map(|stored| stored.1).collect();
        let unique: BTreeSet<u64> = numbers.iter().copied().collect();
        prop_assert_eq!(numbers.len(), unique.len(), "each once");
        prop_assert_eq!(cursor.stored + cursor.lost, cursor.watermark);
        for record in journal.records.values().filter(|record| record.kind() == RecordKind::Event) {
            prop_assert!(unique.contains(&record.seq()), "{record:?} is missing");
        }
    }

    /// What the gateway is told is committed is exactly what a cursor accounts for.
    #[test]
    fn ranges_are_what_was_taken(picks in prop::collection::vec(0..120usize, 0..200)) {
        let mut journal = Journal::new(Lane::Access);
        journal.append(120, 0);
        let mut cursor = Cursor::new(Lane::Access);
        let mut model = BTreeSet::new();
        for pick in picks {
            let record = &journal.records[&(pick as u64 + 1)];
            let taken = cursor.take(record);
            match taken {
                Taken::New(count) => prop_assert!(count == 1 && model.insert(record.seq())),
                Taken::Repeat => prop_assert!(model.contains(&record.seq())),
                Taken::Later => prop_assert!(cursor.ranges.len() == 64),
                Taken::Fork => prop_assert!(false, "an honest journal does not fork"),
            }
            prop_assert!(cursor.is_sound());
        }
        let ack = cursor.ack();
        let told: BTreeSet<u64> = (1..=ack.watermark)
            .chain(ack.ranges.iter().flat_map(|(first, last)| *first..=*last))
            .collect();
        prop_assert_eq!(told, model);
    }
}

fn greeted(journal: &Journal, committed: Vec<Cursor>) -> Link {
    let mut link = Link::new(gateway());
    let outputs = link.hello(at(0), journal.hello(1, 0, 0), committed);
    assert!(matches!(outcome(&outputs), Outcome::Resume { .. }), "{outputs:?}");
    link
}

/// The cursors after all of `journal` was stored.
fn all_stored(journal: &Journal) -> Vec<Cursor> {
    let outputs = greeted(journal, vec![]).batch(at(0), journal.batch(1, 0, usize::MAX));
    let mut committed = Committed::default();
    committed.commit(&outputs, store(1));
    committed.cursors(store(1))
}

#[test]
fn a_rolled_back_journal_is_a_fork() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(5, 0);
    let backup = journal.clone();
    journal.append(5, 0);
    let outputs = Link::new(gateway()).hello(at(0), backup.hello(1, 5, 0), all_stored(&journal));
    assert!(matches!(outcome(&outputs), Outcome::Forked { .. }));
    assert!(outputs.iter().any(|output| matches!(output, Output::Alarm(_))), "loudly");
}

#[test]
fn a_copied_journal_that_went_on_elsewhere_is_a_fork_at_its_first_batch() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(5, 0);
    let mut copy = journal.clone();
    journal.append(5, 0);
    copy.append(20, 7);
    let mut link = greeted(&copy, all_stored(&journal));
    let outputs = link.batch(at(0), copy.batch(1, 10, 5));
    assert!(matches!(outcome(&outputs), Outcome::Forked { .. }));
    assert_eq!(stored(&outputs), 0, "nothing of it is eaten or stored");
    assert_eq!(link.batch(at(0), copy.batch(1, 12, 5)), [], "its session is over");
}

#[test]
fn another_history_up_to_the_same_number_is_a_fork() {
    let (mut journal, mut other) = (Journal::new(Lane::Events), Journal::new(Lane::Events));
    journal.append(5, 0);
    other.append(6, 9);
    let hello = other.hello(1, 5, other.records[&5].chain());
    let outputs = Link::new(gateway()).hello(at(0), hello, all_stored(&journal));
    assert!(matches!(outcome(&outputs), Outcome::Forked { .. }));
}

#[test]
fn damaged_cursors_are_not_sound() {
    let span = |first, last| Span { first, last, chain: 0, anchored: true };
    let cursor = |watermark, ranges, stored| Cursor {
        watermark,
        ranges,
        stored,
        ..Cursor::new(Lane::Events)
    };
    assert!(cursor(5, vec![span(8, 9), span(12, 12)], 8).is_sound());
    for damaged in [
        cursor(5, vec![], 6),
        cursor(5, vec![span(9, 8)], 5),
        cursor(5, vec![span(6, 7)], 7),
        cursor(5, vec![span(12, 12), span(8, 9)], 8),
        cursor(5, vec![span(7, u64::MAX)], 5),
        Cursor { lost: u64::MAX, ..cursor(5, vec![], 5) },
    ] {
        assert!(!damaged.is_sound(), "{damaged:?}");
    }
}

/// Under a new store id it sends what it has not heard of; its own ids tell what of that is here.
#[test]
fn a_journal_of_which_nothing_can_be_read_here_gets_a_new_store_id() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(5, 0);
    let mut link = greeted(&journal, vec![]);
    let outputs = link.hello_of_unknown(at(1), &journal.hello(2, 0, 0));
    assert!(matches!(outcome(&outputs), Outcome::Forked { .. }));
    assert!(outputs.iter().any(|output| matches!(output, Output::Alarm(_))), "loudly");
    assert_eq!(link.session(), None);
    // One that is refused for something else is refused for that.
    link.unreadable(at(2), "newer".into());
    let outputs = link.hello_of_unknown(at(3), &journal.hello(3, 0, 0));
    assert!(matches!(outcome(&outputs), Outcome::Refused { .. }));
}

#[test]
fn what_a_gateway_no_longer_has_is_counted_as_lost() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(10, 0);
    journal.records.retain(|seq, _| *seq > 6);
    let outputs = Link::new(gateway()).hello(at(0), journal.hello(1, 6, 1), vec![]);
    assert!(outputs.contains(&Output::Lost { lane: Lane::Events, count: 6 }));
    let Outcome::Resume { lanes } = outcome(&outputs) else { panic!("{outputs:?}") };
    assert_eq!(lanes[Lane::Events.index()].watermark, 6);
}

#[test]
fn a_record_that_is_no_event_is_set_aside_and_counted() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(1, 0);
    let id = event_id(Lane::Events, 2, 0);
    let foreign = draft(Lane::Events).into_record(&"other".parse().unwrap(), id, 2, journal.chain);
    (journal.chain, journal.next) = (foreign.chain(), 3);
    journal.records.insert(2, foreign);
    journal.append(1, 0);
    let mut link = greeted(&journal, vec![]);
    let outputs = link.batch(at(0), journal.batch(1, 0, 10));
    assert_eq!(stored(&outputs), 2);
    assert!(outputs.iter().any(|output| matches!(output,
        Output::SetAside { reason, .. } if reason.contains("other"))));
    let Some(Output::Cursors { cursors, .. }) = outputs.last() else { panic!("{outputs:?}") };
    let cursor = &cursors[Lane::Events.index()];
    assert_eq!((cursor.stored, cursor.set_aside, cursor.watermark), (2, 1, 3));
    assert!(cursor.is_sound());
}

#[test]
fn a_session_that_is_not_known_is_asked_to_say_hello() {
    let mut link = Link::new(gateway());
    let probe = Probe { session: 5, nonce: 1, readers: vec![], queued: 0 };
    assert!(asks_hello(&link.probe(at(0), probe)));
}

#[test]
fn a_gateway_is_silent_after_two_of_its_own_intervals() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(1, 0);
    for (probe_ms, limit) in [(None, 30), (Some(1_000), 5), (Some(15_000), 30), (Some(60_000), 120)]
    {
        let mut link = Link::new(gateway());
        link.hello(at(0), Hello { probe_ms, ..journal.hello(1, 0, 0) }, vec![]);
        assert!(link.is_live(at(limit - 1)), "{probe_ms:?}");
        assert!(!link.is_live(at(limit)), "{probe_ms:?}");
    }
}

#[test]
fn the_newer_session_wins_and_the_older_is_passed_over() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(3, 0);
    let mut link = greeted(&journal, vec![]);
    link.hello(at(1), journal.hello(2, 0, 0), vec![]);
    assert_eq!(link.batch(at(1), journal.batch(1, 0, 3)), []);
    assert_eq!(stored(&link.batch(at(1), journal.batch(2, 0, 3))), 3);
}

#[test]
fn two_gateways_with_one_id_are_both_refused_after_a_while_and_loudly() {
    let first = Journal::new(Lane::Events);
    let second = Journal { store: 2, ..Journal::new(Lane::Events) };
    let mut link = greeted(&first, vec![]);
    let mut refused = None;
    for round in 1..20 {
        let journal = if round % 2 == 1 { &second } else { &first };
        let outputs = link.hello(at(round), journal.hello(round as u64 + 10, 0, 0), vec![]);
        if matches!(outcome(&outputs), Outcome::Refused { .. }) {
            assert!(outputs.iter().any(|output| matches!(output, Output::Alarm(_))));
            refused.get_or_insert(round);
        }
    }
    assert_eq!(refused, Some(4));
    let later = link.hello(at(100), first.hello(99, 0, 0), vec![]);
    assert!(matches!(outcome(&later), Outcome::Resume { .. }), "not for ever");
}

#[test]
fn a_gateway_that_only_reconnects_is_never_refused() {
    let journal = Journal::new(Lane::Events);
    let mut link = greeted(&journal, vec![]);
    for round in 1..100 {
        let outputs = link.hello(at(round), journal.hello(round as u64 + 1, 0, 0), vec![]);
        assert!(matches!(outcome(&outputs), Outcome::Resume { .. }));
    }
}

/// The journal dropped what it had sent and not yet heard of: its gaps continue each other, and not the
/// event that is stored here.
#[test]
fn a_gap_behind_an_event_that_was_dropped_meanwhile_is_no_fork() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(4, 0);
    let mut link = greeted(&journal, vec![]);
    assert_eq!(stored(&link.batch(at(0), journal.batch(1, 0, 2))), 2);
    journal.drop_up_to(2);
    let id = event_id(Lane::Events, 3, 200);
    let gap = gap_draft(Lane::Events, 3, 3);
    let gap = gap.into_gap(&gateway(), id, (3, 3), journal.records[&2].chain());
    journal.records.insert(3, gap);
    let outputs = link.batch(at(0), journal.batch(1, 0, 9));
    let Some(Output::Cursors { cursors, .. }) = outputs.last() else { panic!("{outputs:?}") };
    let cursor = &cursors[Lane::Events.index()];
    assert_eq!((cursor.watermark, cursor.stored, cursor.lost), (4, 3, 1));
}

#[test]
fn a_hello_that_comes_again_is_neither_a_fork_nor_a_new_session() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(3, 0);
    let (mut link, hello) = (greeted(&journal, vec![]), journal.hello(1, 0, 0));
    journal.append(2, 0);
    link.batch(at(0), journal.batch(1, 0, 5));
    let again = link.hello(at(0), hello.clone(), all_stored(&journal));
    assert!(matches!(outcome(&again), Outcome::Resume { .. }), "{again:?}");
    link.hello(at(1), journal.hello(2, 0, 0), all_stored(&journal));
    assert_eq!(link.hello(at(1), hello, all_stored(&journal)), [], "it was displaced");
    assert_eq!(link.session(), Some(2));
}

#[test]
fn a_refusal_ends_also_where_the_clock_is_set_back() {
    let first = Journal::new(Lane::Events);
    let second = Journal { store: 2, ..Journal::new(Lane::Events) };
    let mut link = greeted(&first, vec![]);
    let day = 86_400;
    let refused = (1..20).any(|round| {
        let journal = if round % 2 == 1 { &second } else { &first };
        let hello = journal.hello(round as u64 + 10, 0, 0);
        matches!(outcome(&link.hello(at(day + round), hello, vec![])), Outcome::Refused { .. })
    });
    assert!(refused);
    let later = link.hello(at(0), first.hello(99, 0, 0), vec![]);
    assert!(matches!(outcome(&later), Outcome::Resume { .. }));
}
