//! The gateway's journal: the real accounting over a map, whose commits may fail or be the last.

use std::{collections::BTreeMap, convert::Infallible};

use gateway::journal::{
    Heads, JournalError,
    lane::{LaneState, Marks},
    ledger::{AckKind, Changes, Ledger, Rows, Stamps},
};
use topics::{
    BootId, Clock, Draft, EventBody, EventId, EventIds, GatewayId, Lane, Record, RecordKind,
    StoreId, Timestamp,
    event::GapReason,
    link::LaneAck,
    record::{Cause, Moment},
};

use crate::plan::{Plan, Random};

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and is not there.
    Fails,
    /// It fails, and is there all the same.
    FailsButIsThere,
    /// The process dies; it is not there.
    DiesBefore,
    /// The process dies; it is there.
    DiesAfter,
}

impl Fault {
    pub(crate) const ALL: [Fault; 4] =
        [Fault::Fails, Fault::FailsButIsThere, Fault::DiesBefore, Fault::DiesAfter];

    pub(crate) fn is_there(self) -> bool {
        matches!(self, Fault::FailsButIsThere | Fault::DiesAfter)
    }

    pub(crate) fn dies(self) -> bool {
        matches!(self, Fault::DiesBefore | Fault::DiesAfter)
    }
}

/// What once stood at a sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Born {
    /// The event; none where the number was given to a gap.
    pub(crate) id: Option<EventId>,
    /// A gap says that it was dropped.
    pub(crate) dropped: bool,
    /// It was acknowledged above the watermark: there no chain is told.
    pub(crate) unchained: bool,
    /// A gap says that it was acknowledged under another store id.
    pub(crate) reforked: bool,
    /// What stood there is no longer what was written.
    pub(crate) damaged: bool,
}

impl Born {
    fn new(id: Option<EventId>) -> Self {
        Self { id, dropped: false, unchained: false, reforked: false, damaged: false }
    }
}

/// The rows as a map, with what it takes to undo a transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Map {
    /// By lane and sequence number.
    lanes: [BTreeMap<u64, Row>; 4],
    undo: Vec<(Lane, u64, Option<Row>)>,
}

/// A row. What was written is known where it is damaged, but to the model alone.
#[derive(Debug, Clone)]
struct Row {
    record: Record,
    is_damaged: bool,
}

impl Row {
    fn read(&self) -> Option<&Record> {
        (!self.is_damaged).then_some(&self.record)
    }
}

/// Can't happen: a map doesn't fail, and neither do the model's stamps.
#[derive(Debug)]
pub(crate) struct Never;

impl From<JournalError> for Never {
    fn from(error: JournalError) -> Self {
        panic!("a record could not be made: {error}");
    }
}

impl From<Infallible> for Never {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Map {
    fn undo(&mut self) {
        while let Some((lane, seq, before)) = self.undo.pop() {
            let rows = &mut self.lanes[lane.index()];
            match before {
                Some(row) => rows.insert(seq, row),
                None => rows.remove(&seq),
            };
        }
    }
}

impl Rows for Map {
    type Error = Never;

    fn get(&mut self, lane: Lane, seq: u64) -> Result<Option<Record>, Never> {
        Ok(self.lanes[lane.index()].get(&seq).and_then(Row::read).cloned())
    }

    fn insert(&mut self, record: &Record) -> Result<(), Never> {
        let (lane, seq) = (record.lane(), record.seq());
        let row = Row { record: record.clone(), is_damaged: false };
        let before = self.lanes[lane.index()].insert(seq, row);
        self.undo.push((lane, seq, before));
        Ok(())
    }

    fn delete(
        &mut self,
        lane: Lane,
        (first, last): (u64, u64),
        keep: impl Fn(u64) -> bool,
    ) -> Result<(u64, u64), Never> {
        let (mut count, mut bytes) = (0, 0);
        let undo = &mut self.undo;
        let going = self.lanes[lane.index()].extract_if(first..=last, |&seq, _| !keep(seq));
        for (seq, row) in going {
            count += 1;
            bytes += row.record.as_bytes().len() as u64;
            undo.push((lane, seq, Some(row)));
        }
        Ok((count, bytes))
    }

    fn scan(
        &mut self,
        lane: Lane,
        (first, end): (u64, u64),
        mut each: impl FnMut(u64, Option<Record>) -> bool,
    ) -> Result<(), Never> {
        for (&seq, row) in self.lanes[lane.index()].range(first..end) {
            if !each(seq, row.read().cloned()) {
                break;
            }
        }
        Ok(())
    }
}

/// Ids and time of the simulated machine.
#[derive(Debug)]
struct Pen<'a> {
    ids: &'a mut EventIds,
    newest_ms: &'a mut i64,
    random: u64,
    moment: &'a Moment,
}

impl Stamps for Pen<'_> {
    fn id(&mut self) -> Result<EventId, JournalError> {
        let now_ms = self.moment.timestamp.as_millis().max(*self.newest_ms);
        *self.newest_ms = now_ms;
        self.random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
        Ok(self.ids.next(Timestamp::from_millis(now_ms), self.random))
    }

    fn moment(&self) -> Moment {
        self.moment.clone()
    }
}

/// What the journal is asked.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) enum Request {
    /// Events of these lanes; with `true` one that is no event.
    Append(Vec<(Lane, bool)>),
    Ack(Vec<LaneAck>, AckKind),
    /// Takes this store id.
    Refork(StoreId),
    /// A row of no lane.
    Probe,
    /// What stands there is not what was written.
    Mend(Lane, u64),
}

/// What it answers.
#[derive(Debug)]
#[allow(missing_docs)]
pub(crate) enum Answer {
    Done,
    Refused(JournalError),
}

/// A journal's file, and what the model knows of it.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Its store id.
    pub(crate) store: StoreId,
    /// The accounting.
    pub(crate) lanes: [LaneState; 4],
    /// The rows.
    pub(crate) map: Map,
    /// Everything that ever stood at each number, from 1.
    pub(crate) history: [Vec<Born>; 4],
    /// How often the bridge had been restored when this journal last heard where it stands.
    pub(crate) heard_after: u32,
    /// The newest event id's time.
    newest_ms: i64,
}

/// A machine's identity and its time.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Whose journal it is.
    pub(crate) gateway: GatewayId,
    other: GatewayId,
    drafts: [Draft; 4],
    /// Its run of the operating system.
    pub(crate) boot: BootId,
    ids: EventIds,
    trimmed_ms: i64,
}

fn moment(wall: Timestamp) -> Moment {
    Moment {
        timestamp: wall,
        clock: Clock::Synced,
        boot: BootId::from_bytes([1; 16]),
        uptime_ms: 1,
    }
}

impl Machine {
    /// A machine that was just started.
    pub(crate) fn new(wall: Timestamp) -> Self {
        let body = EventBody::ScanStarted {
            device_id: "device-001".parse().expect("an id"),
            scan_id: "s".into(),
        };
        let draft = |lane| {
            let draft = Draft::new(&body, &moment(wall), &Cause::default());
            draft.expect("a small event").in_lane(lane)
        };
        Self {
            gateway: "hq".parse().expect("an id"),
            other: "elsewhere".parse().expect("an id"),
            drafts: Lane::ALL.map(draft),
            boot: BootId::from_bytes([1; 16]),
            ids: EventIds::default(),
            trimmed_ms: wall.as_millis(),
        }
    }

    /// The process is another one: ids begin anew.
    pub(crate) fn restart(&mut self) {
        self.ids = EventIds::default();
    }
}

impl File {
    /// A file that was just made; `previous` is the journal that was here before.
    pub(crate) fn new(
        store: StoreId,
        previous: Option<StoreId>,
        machine: &mut Machine,
        wall: Timestamp,
        heard_after: u32,
    ) -> Self {
        let mut file = Self {
            store,
            lanes: Lane::ALL.map(|lane| LaneState::new(lane, Marks::default())),
            map: Map::default(),
            history: Default::default(),
            heard_after,
            newest_ms: 0,
        };
        if let Some(previous) = previous {
            let mut changes = Changes::default();
            let Ok(()) = file
                .with_ledger(machine, wall, &mut changes, |ledger| ledger.begin(Some(previous)))
            else {
                unreachable!("a map does not fail");
            };
            file.note(&changes.gaps);
            file.map.undo.clear();
        }
        file
    }

    /// The next numbers.
    pub(crate) fn heads(&self) -> Heads {
        Heads::of([0, 1, 2, 3].map(|index: usize| self.lanes[index].next))
    }

    /// The process is another one: it knows what the file says.
    pub(crate) fn reopen(&mut self) {
        self.newest_ms += 1;
        for lane in &mut self.lanes {
            let mut counted = LaneState::new(lane.lane, lane.marks.clone());
            for Row { record, .. } in self.map.lanes[lane.lane.index()].values() {
                counted.count(record, gateway::journal::event_id(record));
            }
            // The file says it, beside the counts.
            counted.chain = lane.chain;
            assert_eq!(
                (counted.next, counted.chain, counted.rows, counted.bytes),
                (lane.next, lane.chain, lane.rows, lane.bytes),
                "what the file says of lane {} is not what was known of it",
                lane.lane
            );
            assert_eq!(counted.view(), lane.view(), "the accounting after a restart");
            *lane = counted;
        }
    }

    fn with_ledger<T>(
        &mut self,
        machine: &mut Machine,
        wall: Timestamp,
        changes: &mut Changes,
        run: impl FnOnce(&mut Ledger<'_, Map, Pen<'_>>) -> T,
    ) -> T {
        let moment = moment(wall);
        let mut pen = Pen {
            ids: &mut machine.ids,
            newest_ms: &mut self.newest_ms,
            random: self.store.as_bytes()[0].into(),
            moment: &moment,
        };
        run(&mut Ledger {
            lanes: &mut self.lanes,
            changes,
            rows: &mut self.map,
            stamps: &mut pen,
            gateway: &machine.gateway,
        })
    }

    /// A transaction, as the writer does it. `None` where it failed, whether or not it is there.
    pub(crate) fn commit(
        &mut self,
        machine: &mut Machine,
        plan: &Plan,
        wall: Timestamp,
        requests: Vec<Request>,
        fault: Option<Fault>,
    ) -> Option<Vec<Answer>> {
        let before = (self.lanes.clone(), self.store);
        let lengths = self.history.each_ref().map(Vec::len);
        let mut changes = Changes::default();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let Ok(answer) = self.apply(machine, wall, &mut changes, request) else {
                unreachable!("a map does not fail");
            };
            answers.push(answer);
        }
        if !changes.dirty {
            return Some(answers);
        }
        const TRIM_INTERVAL_MS: i64 = 60_000;
        let trim = wall.as_millis() - machine.trimmed_ms >= TRIM_INTERVAL_MS;
        if trim || wall.as_millis() < machine.trimmed_ms {
            machine.trimmed_ms = wall.as_millis();
        }
        let Ok(()) = self.with_ledger(machine, wall, &mut changes, |ledger| {
            if trim {
                ledger.trim_old(plan.retention)?;
            }
            ledger.keep_bounds(plan.bounds)
        }) else {
            unreachable!("a map does not fail");
        };
        if fault.is_some_and(|fault| !fault.is_there()) {
            (self.lanes, self.store) = before;
            self.map.undo();
            for (history, length) in self.history.iter_mut().zip(lengths) {
                history.truncate(length);
            }
            return None;
        }
        self.note(&changes.gaps);
        self.note_ranges();
        self.map.undo.clear();
        fault.is_none().then_some(answers)
    }

    fn apply(
        &mut self,
        machine: &mut Machine,
        wall: Timestamp,
        changes: &mut Changes,
        request: Request,
    ) -> Result<Answer, Never> {
        match request {
            Request::Append(events) => {
                for (lane, foreign) in events {
                    let draft = machine.drafts[lane.index()].clone();
                    let other = foreign.then(|| machine.other.clone());
                    let id = self.with_ledger(machine, wall, changes, |ledger| {
                        let id = ledger.stamps.id()?;
                        match other {
                            // As a record that the bridge can't take for an event.
                            Some(other) => Ledger {
                                lanes: ledger.lanes,
                                changes: ledger.changes,
                                rows: ledger.rows,
                                stamps: ledger.stamps,
                                gateway: &other,
                            }
                            .append(draft, id)?,
                            None => ledger.append(draft, id)?,
                        };
                        Ok::<_, Never>(id)
                    })?;
                    self.history[lane.index()].push(Born::new(Some(id)));
                }
                Ok(Answer::Done)
            }
            Request::Ack(lanes, kind) => {
                let taken = self.with_ledger(machine, wall, changes, |ledger| {
                    ledger.acknowledge(&lanes, kind)
                })?;
                Ok(taken.map_or_else(Answer::Refused, |()| Answer::Done))
            }
            Request::Refork(store) => {
                let previous = std::mem::replace(&mut self.store, store);
                self.with_ledger(machine, wall, changes, |ledger| ledger.refork(previous))?;
                Ok(Answer::Done)
            }
            Request::Probe => {
                changes.dirty = true;
                Ok(Answer::Done)
            }
            Request::Mend(lane, seq) => {
                self.with_ledger(machine, wall, changes, |ledger| ledger.mend(lane, seq))?;
                Ok(Answer::Done)
            }
        }
    }

    /// Takes down which numbers gaps stand for.
    fn note(&mut self, gaps: &[Record]) {
        for gap in gaps {
            let lane = gap.lane().index();
            let history = &mut self.history[lane];
            while (history.len() as u64) < gap.seq() {
                history.push(Born::new(None));
            }
            let body = gap.event().expect("a gap is an event").body;
            let EventBody::JournalGap { reason, .. } = body else {
                panic!("{gap:?} is no gap");
            };
            let (first, last) = (gap.first() as usize, gap.seq() as usize);
            for born in &mut history[first - 1..last] {
                match reason {
                    GapReason::JournalFull => born.dropped = true,
                    GapReason::NewStore => born.reforked = true,
                    GapReason::Corrupt => {
                        assert!(born.damaged, "{gap:?}: what stood there was sound");
                        born.dropped = true;
                    }
                }
            }
        }
    }

    fn note_ranges(&mut self) {
        for (lane, history) in self.lanes.iter().zip(&mut self.history) {
            for &(first, last) in &lane.marks.ranges {
                let range = &mut history[first as usize - 1..last as usize];
                range.iter_mut().for_each(|born| born.unchained = true);
            }
        }
    }

    /// A row is no longer what was written.
    pub(crate) fn damage(&mut self, random: &mut Random) {
        let lane = random.below(4);
        let rows = &mut self.map.lanes[lane];
        if rows.is_empty() {
            return;
        }
        let at = random.below(rows.len());
        let Some(row) = rows.values_mut().nth(at) else { return };
        row.is_damaged = true;
        let (first, last) = (row.record.first() as usize, row.record.seq() as usize);
        self.history[lane][first - 1..last].iter_mut().for_each(|born| born.damaged = true);
    }

    /// Whether a row is not what was written.
    pub(crate) fn is_damaged(&self) -> bool {
        self.map.lanes.iter().flat_map(BTreeMap::values).any(|row| row.is_damaged)
    }

    /// What [`Journal::read`](gateway::journal::Journal::read) gives, or which row is not what was written.
    pub(crate) fn read(
        &self,
        lane: Lane,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Record>, u64> {
        let mut bytes = 0;
        let mut found: Vec<Record> = Vec::new();
        for (&seq, row) in self.map.lanes[lane.index()].range(from..).take(max_records) {
            let Some(record) = row.read() else {
                if found.is_empty() {
                    return Err(seq);
                }
                break;
            };
            bytes += record.as_bytes().len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(record.clone());
        }
        Ok(found)
    }

    /// What is held, not acknowledged and no gap.
    pub(crate) fn queued(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.view().queued).sum()
    }

    /// `next - 1 = acknowledged + queued + dropped`, and what the bridge has not is held or covered.
    pub(crate) fn check(&self, thoroughly: bool) {
        for lane in &self.lanes {
            let view = lane.view();
            let sum = view.acknowledged + view.queued + view.dropped;
            assert_eq!(view.next - 1, sum, "the gateway's accounts: {view:?}");
            let rows = &self.map.lanes[lane.lane.index()];
            assert_eq!(lane.rows, rows.len() as u64, "rows of {view:?}");
            if thoroughly {
                self.check_rows(lane);
            }
        }
    }

    fn check_rows(&self, lane: &LaneState) {
        let rows = &self.map.lanes[lane.lane.index()];
        let bytes: usize = rows.values().map(|row| row.record.as_bytes().len()).sum();
        assert_eq!(lane.bytes, bytes as u64, "bytes of lane {}", lane.lane);
        let acked = lane.acked();
        let mut expected = 1;
        for (&seq, Row { record, .. }) in rows {
            assert!(record.first() >= expected, "{record:?} overlaps what is before it");
            for missing in expected..record.first() {
                let is_acked = acked.iter().any(|&(a, b)| (a..=b).contains(&missing));
                assert!(is_acked, "lane {}: nothing stands for {missing}", lane.lane);
            }
            let is_gap = record.kind() == RecordKind::Gap;
            assert_eq!(is_gap, lane.gaps.contains_key(&seq), "{record:?}");
            expected = seq + 1;
        }
        assert_eq!(expected, lane.next, "lane {} ends elsewhere", lane.lane);
    }
}
