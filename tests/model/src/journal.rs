//! The gateway's journal: the real accounting over a map, whose commits may fail or be the last.

use std::{collections::BTreeMap, convert::Infallible};

use gateway::journal::{
    Heads, JournalError,
    lane::{LaneState, Marks},
    ledger::{AckKind, Changes, Ledger, Rows, Stamps, follows},
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
    /// A gap says so.
    pub(crate) mended: bool,
}

impl Born {
    fn new(id: Option<EventId>) -> Self {
        Self {
            id,
            dropped: false,
            unchained: false,
            reforked: false,
            damaged: false,
            mended: false,
        }
    }
}

/// The rows as a map, with what it takes to undo a transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Map {
    /// By lane and sequence number.
    pub(crate) lanes: [BTreeMap<u64, Record>; 4],
    undo: Vec<(Lane, u64, Option<Record>)>,
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
                Some(record) => rows.insert(seq, record),
                None => rows.remove(&seq),
            };
        }
    }
}

impl Rows for Map {
    type Error = Never;

    fn get(&mut self, lane: Lane, seq: u64) -> Result<Option<Record>, Never> {
        Ok(self.lanes[lane.index()].get(&seq).cloned())
    }

    fn insert(&mut self, record: &Record) -> Result<(), Never> {
        let (lane, seq) = (record.lane(), record.seq());
        let before = self.lanes[lane.index()].insert(seq, record.clone());
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
        for (seq, record) in going {
            count += 1;
            bytes += record.as_bytes().len() as u64;
            undo.push((lane, seq, Some(record)));
        }
        Ok((count, bytes))
    }

    fn scan(
        &mut self,
        lane: Lane,
        (first, end): (u64, u64),
        mut each: impl FnMut(u64, Option<Record>) -> bool,
    ) -> Result<(), Never> {
        for (&seq, record) in self.lanes[lane.index()].range(first..end) {
            if !each(seq, Some(record.clone())) {
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
    /// A gap stands for what was a lane's last row: after a restart nothing says what the next one must
    /// continue, and that the bridge may take for a fork.
    mended_last: [bool; 4],
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
            mended_last: [false; 4],
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
            for record in self.map.lanes[lane.lane.index()].values() {
                counted.count(record, gateway::journal::event_id(record));
            }
            if self.mended_last[lane.lane.index()] {
                lane.chain = counted.chain;
            }
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
            // One whose chain value was changed takes the next one with it where nothing is before it.
            let is_damaged = history[first.saturating_sub(2)..last].iter().any(|it| it.damaged);
            for born in &mut history[first - 1..last] {
                match reason {
                    GapReason::JournalFull => born.dropped = true,
                    GapReason::NewStore => born.reforked = true,
                    GapReason::Corrupt => {
                        assert!(is_damaged, "{gap:?}: what stood there was sound");
                        (born.dropped, born.mended) = (true, true);
                        self.mended_last[lane] |= gap.seq() + 1 == self.lanes[lane].next;
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

    /// Changes the text or the chain value of an event's row, but of the last: after a restart nothing says
    /// what chain value the next one must continue, and that the bridge may take for a fork.
    pub(crate) fn damage(&mut self, random: &mut Random) {
        const CHAIN: usize = 20;
        /// Within the reader's name, so that it stays an event.
        const TEXT: usize = 56 + r#"{"type":"scan:started","deviceId":"device-"#.len();
        let lane = random.below(4);
        let (next, rows) = (self.lanes[lane].next, &mut self.map.lanes[lane]);
        let history = &mut self.history[lane];
        let events = rows.values_mut().filter(|record| {
            let is_damaged = history[record.seq() as usize - 1].damaged;
            record.kind() == RecordKind::Event && record.seq() + 1 < next && !is_damaged
        });
        let events: Vec<&mut Record> = events.collect();
        let at = random.below(events.len());
        let Some(record) = events.into_iter().nth(at) else { return };
        let mut bytes = record.as_bytes().to_vec();
        bytes[if random.once_in(2) { TEXT } else { CHAIN }] ^= 1;
        *record = Record::read(&bytes).expect("its header is as it was");
        history[record.seq() as usize - 1].damaged = true;
    }

    /// Whether a row was damaged, or is, that can't be told from a sound one or from another history's: the
    /// one before it or after it is gone, or a gap; or it is gone itself, and may be stored as it was.
    pub(crate) fn has_unseen_damage(&self) -> bool {
        let mut lanes = self.map.lanes.iter().zip(&self.history);
        let is_unseen = |rows: &BTreeMap<u64, Record>, seq: u64, born: &Born| {
            let is_event =
                |seq: u64| rows.get(&seq).is_some_and(|record| record.kind() == RecordKind::Event);
            let is_between = (seq == 1 || is_event(seq - 1)) && is_event(seq + 1);
            born.damaged && !born.mended && !(is_event(seq) && is_between)
        };
        self.mended_last.contains(&true)
            || lanes.any(|(rows, history)| {
                (1..).zip(history).any(|(seq, born)| is_unseen(rows, seq, born))
            })
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
        let rows = &self.map.lanes[lane.index()];
        let mut found: Vec<Record> = Vec::new();
        let before = rows.get(&from.saturating_sub(1));
        for record in rows.range(from..).map(|(_, record)| record).take(max_records) {
            if !follows(found.last().or(before), record) {
                if found.is_empty() {
                    return Err(record.seq());
                }
                break;
            }
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
        let bytes: usize = rows.values().map(|record| record.as_bytes().len()).sum();
        assert_eq!(lane.bytes, bytes as u64, "bytes of lane {}", lane.lane);
        let acked = lane.acked();
        let mut expected = 1;
        for (&seq, record) in rows {
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
