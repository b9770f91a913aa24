//! The bridge: the real link over a store that is a map, driven in rounds as the engine does it.

use std::collections::HashSet;

use cloud_bridge::ingest::{
    cursor::Cursor,
    link::{Link, Output},
};
use gateway::journal::{Heads, event_id, lane::LaneState};
use topics::{
    EventId, GatewayId, Lane, Record, RecordKind, StoreId, Timestamp,
    link::{Frame, Hello},
};

use crate::journal::{Born, Fault, File};

/// What the store has at a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nothing.
    Free,
    /// This event, and the chain there; none where a gap of the journal covers it too.
    Stored(EventId, Option<u64>),
    /// A record that is no event.
    Aside,
    /// Nothing, for ever.
    Lost,
}

/// What the store has of one journal.
#[derive(Debug, Clone)]
struct Journal {
    store: StoreId,
    cursors: Vec<Cursor>,
    slots: [Vec<Slot>; 4],
}

/// What is committed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    journals: Vec<Journal>,
    /// Stored events, whatever journal they came by.
    events: HashSet<EventId>,
    /// Set aside, likewise.
    aside: HashSet<EventId>,
}

/// Where the order of a session is watched: its id, its heads at the start, and what was stored last
/// of each lane's backlog and live records.
pub(crate) type Watched = (u64, Heads, [[u64; 2]; 4]);

#[derive(Debug, Default)]
struct Pending {
    outputs: Vec<Output>,
    /// The session of the batches, and the oldest numbers of a hello.
    session: u64,
    hello: Option<Hello>,
    sends: Vec<Frame>,
    ack: bool,
    dirty: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bridge {
    gateway: GatewayId,
    /// Gone while it is down.
    pub(crate) link: Option<Link>,
    /// On its disk.
    pub(crate) store: Store,
    /// An older state of it.
    pub(crate) backup: Option<Store>,
    /// How often it was restored.
    pub(crate) restored: u32,
    /// Calls to the disk until one fails.
    pub(crate) fault: Option<(usize, Fault)>,
    /// Order is claimed: nothing is lost, repeated or reordered on the way.
    pub(crate) in_order: bool,
    /// Sessions.
    pub(crate) watched: Vec<Watched>,
}

impl Bridge {
    /// A bridge that knows nothing yet.
    pub(crate) fn new(gateway: GatewayId, in_order: bool) -> Self {
        Self {
            link: Some(Link::new(gateway.clone())),
            gateway,
            store: Store::default(),
            backup: None,
            restored: 0,
            fault: None,
            in_order,
            watched: Vec::new(),
        }
    }

    /// It comes up, with what is committed.
    pub(crate) fn start(&mut self) {
        self.link.get_or_insert_with(|| Link::new(self.gateway.clone()));
    }

    /// It was copied from a backup.
    pub(crate) fn restore(&mut self) {
        if let Some(backup) = self.backup.clone() {
            self.store = backup;
            self.restored += 1;
            self.link = None;
        }
    }

    /// Takes frames in one round; gives what goes down.
    pub(crate) fn round(&mut self, now: Timestamp, frames: Vec<Frame>) -> Vec<Frame> {
        let mut down = Vec::new();
        let mut pending = Pending::default();
        for frame in frames {
            if let Frame::Hello(_) = &frame {
                self.commit(now, std::mem::take(&mut pending), &mut down);
            }
            let Some(link) = &mut self.link else { return down };
            let outputs = match frame {
                Frame::Hello(hello) => {
                    if let Some(fault) = next_call(&mut self.fault) {
                        // The cursors can't be read: the gateway says hello again.
                        if fault.dies() {
                            self.link = None;
                            return down;
                        }
                        continue;
                    }
                    let committed = self.store.cursors(hello.store);
                    pending.hello = Some(hello.clone());
                    link.hello(now, hello, committed)
                }
                Frame::Batch(batch) => {
                    let session = batch.session;
                    if link.session() == Some(session) {
                        pending.session = session;
                    }
                    let outputs = link.batch(now, batch.into());
                    pending.ack |= link.session() == Some(session);
                    outputs
                }
                Frame::Probe(probe) => link.probe(now, probe),
                Frame::Received(received) => link.received(now, received),
                _ => Vec::new(),
            };
            for output in outputs {
                match output {
                    Output::Send(frame) => pending.sends.push(frame),
                    Output::Greeted { .. } | Output::Probed { .. } => pending.dirty = true,
                    other => pending.outputs.push(other),
                }
            }
        }
        self.commit(now, pending, &mut down);
        down
    }

    fn commit(&mut self, now: Timestamp, pending: Pending, down: &mut Vec<Frame>) {
        let Some(link) = &mut self.link else { return };
        if pending.dirty || !pending.outputs.is_empty() {
            let fault = next_call(&mut self.fault);
            if fault.is_none_or(Fault::is_there) {
                let watched = self.watched.iter_mut().find(|it| it.0 == pending.session);
                let watched = watched.filter(|_| self.in_order);
                self.store.commit(&pending.outputs, pending.hello.as_ref(), watched);
            }
            if fault.is_some_and(Fault::dies) {
                self.link = None;
                return;
            }
            if fault.is_some() {
                if pending.ack || pending.dirty {
                    link.forget(now);
                }
                return;
            }
        }
        down.extend(pending.sends);
        if pending.ack
            && let Some(ack) = link.ack(now)
        {
            self.store.check_ack(&ack);
            down.push(ack);
        }
    }
}

/// Counts a call to a disk that is to fail at one of them.
pub(crate) fn next_call(fault: &mut Option<(usize, Fault)>) -> Option<Fault> {
    let (left, kind) = fault.as_mut()?;
    if *left > 0 {
        *left -= 1;
        return None;
    }
    let kind = *kind;
    *fault = None;
    Some(kind)
}

impl Store {
    fn cursors(&self, store: StoreId) -> Vec<Cursor> {
        let journal = self.journals.iter().find(|journal| journal.store == store);
        journal.map_or_else(Vec::new, |journal| journal.cursors.clone())
    }

    fn journal(&mut self, store: StoreId) -> &mut Journal {
        let place = self.journals.iter().position(|journal| journal.store == store);
        let place = place.unwrap_or_else(|| {
            let cursors = Lane::ALL.map(Cursor::new).to_vec();
            self.journals.push(Journal { store, cursors, slots: Default::default() });
            self.journals.len() - 1
        });
        &mut self.journals[place]
    }

    /// One transaction: what the outputs say, held against what it must be.
    fn commit(
        &mut self,
        outputs: &[Output],
        hello: Option<&Hello>,
        mut watched: Option<&mut Watched>,
    ) {
        let mut records: Vec<(&Record, Slot)> = Vec::new();
        let mut lost = [None; 4];
        let mut journals = Vec::new();
        for output in outputs {
            match output {
                Output::Store(accepted) => {
                    let id = accepted.event.id;
                    self.events.insert(id);
                    let chain = Some(accepted.record.chain());
                    records.push((&accepted.record, Slot::Stored(id, chain)));
                }
                Output::SetAside { record, .. } => {
                    self.aside.extend(event_id(record));
                    records.push((record, Slot::Aside));
                }
                Output::Lost { lane, count } => lost[lane.index()] = Some(*count),
                Output::Cursors { store, cursors } => {
                    let journal = self.journal(*store);
                    if let Some(hello) = hello.filter(|hello| hello.store == *store) {
                        journal.give_up(hello, &mut lost);
                    }
                    for (record, slot) in records.drain(..) {
                        journal.take(record, slot);
                        if let Some(watched) = watched.as_deref_mut() {
                            check_order(watched, record);
                        }
                    }
                    journal.cursors.clone_from(cursors);
                    if !journals.contains(store) {
                        journals.push(*store);
                    }
                }
                Output::Greeted { .. }
                | Output::Probed { .. }
                | Output::Received(_)
                | Output::Send(_)
                | Output::Alarm(_) => {}
            }
        }
        assert!(records.is_empty(), "stored without a cursor: {records:?}");
        for store in journals {
            self.journal(store).check();
        }
    }

    /// What is acknowledged is what is committed.
    fn check_ack(&self, ack: &Frame) {
        let Frame::Ack(ack) = ack else { panic!("{ack:?}") };
        let committed = self.cursors(ack.store);
        for lane in &ack.lanes {
            let ours = committed.get(lane.lane.index()).map(Cursor::ack);
            let empty = lane.watermark == 0 && lane.ranges.is_empty();
            assert!(empty || ours.as_ref() == Some(lane), "{lane:?} is told, {ours:?} committed");
        }
    }

    /// Whether all of `first..=last` is accounted for.
    fn has_all(&self, store: StoreId, lane: Lane, (first, last): (u64, u64)) -> bool {
        let Some(journal) = self.journals.iter().find(|it| it.store == store) else { return false };
        let slots = &journal.slots[lane.index()];
        slots.get(first as usize - 1..last as usize).is_some_and(|it| !it.contains(&Slot::Free))
    }

    /// Whether all of the journal is accounted for.
    pub(crate) fn is_level_with(&self, file: &File) -> bool {
        let all = |lane: &LaneState| self.has_all(file.store, lane.lane, (1, lane.next - 1));
        file.lanes.iter().filter(|lane| lane.next > 1).all(all)
    }

    /// What the gateway takes for acknowledged is committed here.
    pub(crate) fn check_acknowledged(&self, file: &File) {
        for lane in &file.lanes {
            for range in lane.acked() {
                assert!(
                    self.has_all(file.store, lane.lane, range),
                    "the gateway takes {range:?} of lane {} for acknowledged, and it is not here",
                    lane.lane
                );
            }
        }
    }

    /// At the end: each number of the journal is accounted for, as what it is. Less is claimed after
    /// the bridge was restored, and where the journal was copied and both went on: see the crate.
    pub(crate) fn check_end(&mut self, file: &File, restored: bool, copied: bool) {
        let journal = self.journal(file.store).clone();
        for lane in Lane::ALL {
            let history = &file.history[lane.index()];
            let slots = &journal.slots[lane.index()];
            assert_eq!(history.len(), slots.len(), "lane {lane}: not all is accounted for");
            for (index, (born, slot)) in history.iter().zip(slots).enumerate() {
                let unknown = copied && born.unchained;
                let is_same = |stored| born.id == Some(stored);
                let fits = match *slot {
                    Slot::Free => false,
                    // Another history had it, and this one no longer knows: nobody can tell them apart.
                    // What a restored bridge lost, and the journal no longer holds, a copy may have filled.
                    Slot::Stored(stored, _) => {
                        is_same(stored) || born.dropped || unknown || (copied && restored)
                    }
                    Slot::Aside => true,
                    Slot::Lost => {
                        let by_copy =
                            copied && (!born.reforked || self.is_lost_elsewhere(file, lane, index));
                        self.has(born) || born.dropped || restored || unknown || by_copy
                    }
                };
                assert!(fits, "lane {lane}, {}: {born:?} ended as {slot:?}", index + 1);
            }
        }
    }

    fn has(&self, born: &Born) -> bool {
        born.id.is_none_or(|id| self.events.contains(&id) || self.aside.contains(&id))
    }

    /// A copy of the journal dropped it.
    fn is_lost_elsewhere(&self, file: &File, lane: Lane, index: usize) -> bool {
        let others = self.journals.iter().filter(|journal| journal.store != file.store);
        others.map(|it| it.slots[lane.index()].get(index)).any(|slot| slot == Some(&Slot::Lost))
    }
}

impl Journal {
    fn slot(&mut self, lane: Lane, seq: u64) -> &mut Slot {
        let slots = &mut self.slots[lane.index()];
        while (slots.len() as u64) < seq {
            slots.push(Slot::Free);
        }
        &mut slots[seq as usize - 1]
    }

    /// Each number once: an event at a free one, a gap at what is free of its numbers.
    fn take(&mut self, record: &Record, slot: Slot) {
        let lane = record.lane();
        match record.kind() {
            RecordKind::Event => {
                let place = self.slot(lane, record.seq());
                assert_eq!(*place, Slot::Free, "{record:?} is stored once more");
                *place = slot;
                let before = (record.seq() as usize).checked_sub(2);
                let before = before.map(|index| self.slots[lane.index()][index]);
                if let Some(Slot::Stored(_, Some(chain))) = before {
                    assert!(record.continues(chain), "{record:?} follows another history");
                }
            }
            RecordKind::Gap => {
                let mut free = 0;
                for seq in record.first()..=record.seq() {
                    let place = self.slot(lane, seq);
                    match place {
                        Slot::Free => {
                            *place = Slot::Lost;
                            free += 1;
                        }
                        Slot::Stored(_, chain) => *chain = None,
                        Slot::Aside | Slot::Lost => {}
                    }
                }
                assert!(free > 0, "{record:?} is stored once more");
            }
        }
    }

    fn give_up(&mut self, hello: &Hello, lost: &mut [Option<u64>; 4]) {
        for said in &hello.lanes {
            let Some(told) = lost[said.lane.index()].take() else { continue };
            let mut count = 0;
            for seq in 1..said.oldest {
                let place = self.slot(said.lane, seq);
                if *place == Slot::Free {
                    *place = Slot::Lost;
                    count += 1;
                }
            }
            assert_eq!(told, count, "lane {}: so many are lost", said.lane);
        }
    }

    /// `stored + set aside + lost = watermark + ranges`, and each of them is what was committed.
    fn check(&self) {
        for (cursor, slots) in self.cursors.iter().zip(&self.slots) {
            assert!(cursor.is_sound(), "the bridge's accounts: {cursor:?}");
            let (mut stored, mut aside, mut lost) = (0, 0, 0);
            let mut runs: Vec<(u64, u64)> = Vec::new();
            for (seq, slot) in (1..).zip(slots) {
                match slot {
                    Slot::Free => continue,
                    Slot::Stored(..) => stored += 1,
                    Slot::Aside => aside += 1,
                    Slot::Lost => lost += 1,
                }
                match runs.last_mut() {
                    Some(run) if run.1 + 1 == seq => run.1 = seq,
                    _ => runs.push((seq, seq)),
                }
            }
            let watermark = runs.first().filter(|run| run.0 == 1).map_or(0, |run| run.1);
            runs.retain(|run| run.0 > 1);
            let ack = cursor.ack();
            assert_eq!((ack.watermark, &ack.ranges), (watermark, &runs), "of {cursor:?}");
            assert_eq!((cursor.stored, cursor.set_aside, cursor.lost), (stored, aside, lost));
        }
    }
}

/// Within a session each lane's backlog and its live records are stored in order.
fn check_order((session, heads, last): &mut Watched, record: &Record) {
    let (lane, seq) = (record.lane(), record.seq());
    let live = usize::from(seq >= heads.next(lane));
    let last = &mut last[lane.index()][live];
    if record.kind() == RecordKind::Event {
        assert!(seq > *last, "session {session}: {record:?} is stored after {last}");
        *last = seq;
    }
}
