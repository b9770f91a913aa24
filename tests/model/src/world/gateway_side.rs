//! The gateway's process and its journal, as its driver runs them.

use std::collections::VecDeque;

use gateway::{
    journal::{JournalError, ledger::AckKind},
    uplink::core::{Core, Input, Output},
};
use topics::{
    BootId, Lane, Record, StoreId,
    link::{AgentInfo, Batch, Frame, Hello, LaneAck, LaneHello, Probe},
};

use super::{Way, World};
use crate::{
    bridge::next_call,
    journal::{Answer, Fault, File, Request},
};

impl World {
    pub(super) fn start_gateway(&mut self) {
        if self.core.is_some() {
            return;
        }
        note!(self, "gateway: starts");
        self.machine.restart();
        self.file.reopen();
        let heads = self.file.heads();
        let seed = self.random.number();
        self.core = Some(Core::new(self.plan.link.clone(), heads, seed, self.now()));
        self.heads_due = false;
        self.watch.end();
        self.feed(Input::Tick);
    }

    /// What was in memory is gone.
    pub(super) fn gateway_dies(&mut self) {
        note!(self, "gateway: dies");
        self.core = None;
        self.disconnect();
        (self.acks, self.acks_due, self.in_hand, self.fork) = (None, false, None, None);
        if !self.random.once_in(3) {
            self.start_gateway();
        }
    }

    pub(super) fn swap_file(&mut self) {
        let Some(mut other) = self.copy.take() else { return };
        let keep = self.random.once_in(2);
        note!(self, "journal: the copy takes its place; it is kept: {keep}");
        (self.core, self.swapped) = (None, true);
        std::mem::swap(&mut self.file, &mut other);
        self.copy = keep.then_some(other);
        self.machine.boot = BootId::from_bytes([self.random.number() as u8; 16]);
        self.gateway_dies();
    }

    pub(super) fn replace_file(&mut self) {
        note!(self, "journal: a new file");
        self.core = None;
        let (previous, wall, restored) = (self.file.store, self.wall(), self.bridge.restored);
        let store = self.new_store();
        self.machine.restart();
        self.file = File::new(store, Some(previous), &mut self.machine, wall, restored);
        self.gateway_dies();
    }

    pub(super) fn new_store(&mut self) -> StoreId {
        self.stores += 1;
        StoreId::from_bytes([self.stores; 16])
    }

    /// A group of requests in one transaction, with what the keeper has in hand before it. `None`
    /// where it failed.
    pub(super) fn commit(&mut self, request: Option<Request>) -> Option<Answer> {
        let mut requests = Vec::with_capacity(2);
        let kept = self.in_hand.take().map(|(session, acks)| {
            requests.push(Request::Ack(acks, AckKind::Ack));
            session
        });
        requests.extend(request);
        let fault = next_call(&mut self.fault);
        let wall = self.wall();
        let heads = self.file.heads();
        let answers = self.file.commit(&mut self.machine, &self.plan, wall, requests, fault);
        if let Some(fault) = fault {
            note!(self, "journal: a commit: {fault:?}");
        }
        self.commits += 1;
        self.file.check(self.plan.steps < 64 || self.commits.is_multiple_of(16));
        self.check_acknowledged();
        self.heads_due |= heads != self.file.heads();
        if fault.is_some_and(Fault::dies) {
            self.gateway_dies();
            return None;
        }
        let mut answers = answers?;
        if let (Some(session), Some(Answer::Refused(error))) = (kept, answers.first()) {
            self.fork = Some((session, error.to_string()));
        }
        answers.pop()
    }

    /// Claimed from a resume until the bridge is restored.
    pub(super) fn check_acknowledged(&self) {
        if self.file.heard_after == self.bridge.restored {
            self.bridge.store.check_acknowledged(&self.file);
        }
    }

    pub(super) fn append(&mut self) {
        if self.core.is_none() {
            return self.start_gateway();
        }
        let count = self.random.within(1, self.plan.most_appended);
        let mut events = Vec::with_capacity(count);
        let mut lane = Lane::ALL[self.random.below(4)];
        for _ in 0..count {
            if self.random.once_in(2) {
                lane = Lane::ALL[self.random.below(4)];
            }
            events.push((lane, self.plan.foreign && self.random.once_in(8)));
        }
        self.figures.events += count;
        note!(self, "journal: {events:?}");
        self.commit(Some(Request::Append(events)));
        if !self.plan.heads_late {
            self.tell();
        }
    }

    /// What the core's driver hears of the journal.
    pub(super) fn tell(&mut self) {
        if let Some((session, reason)) = self.fork.take() {
            self.feed(Input::Forked { session, reason });
        }
        if std::mem::take(&mut self.heads_due) {
            self.feed(Input::Heads(self.file.heads()));
        }
    }

    /// The task that takes acknowledgements to the journal: first it looks, then that happens.
    pub(super) fn keep_acks(&mut self) {
        if let Some(acks) = &self.in_hand {
            note!(self, "journal: acknowledged {acks:?}");
            self.commit(None);
        } else if std::mem::take(&mut self.acks_due)
            && let Some((session, store, lanes)) = self.acks.clone()
            && store == self.file.store
        {
            self.in_hand = Some((session, lanes));
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.now();
            let Some(core) = &mut self.core else { return };
            self.watch.before(now.monotonic, &input);
            for output in core.step(now, input) {
                if self.core.is_none() {
                    return;
                }
                inputs.extend(self.perform(output));
            }
        }
    }

    pub(super) fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Connect => {
                note!(self, "gateway: connects");
                self.disconnect();
                self.way = Way::Connecting;
                None
            }
            Output::Disconnect => {
                note!(self, "gateway: disconnects");
                self.disconnect();
                None
            }
            Output::Hello { session } => {
                let hello = self.hello(session);
                self.send(Frame::Hello(hello));
                None
            }
            Output::Resume { session, lanes } => self.resume(session, lanes),
            Output::Acknowledge { session, store, lanes } => {
                (self.acks, self.acks_due) = (Some((session, store, lanes)), true);
                None
            }
            Output::Refork { reason } => {
                note!(self, "gateway: forked: {reason}");
                assert!(
                    self.swapped || self.file.is_damaged(),
                    "this journal was never copied, and is taken for one: {reason}"
                );
                self.forget_acks();
                self.core.as_ref()?;
                let store = self.new_store();
                let answer = self.commit(Some(Request::Refork(store)));
                if self.file.store == store {
                    // Nothing is acknowledged of it.
                    self.file.heard_after = self.bridge.restored;
                }
                self.core.as_ref()?;
                Some(Input::Reforked { store: answer.map(|_| store) })
            }
            Output::Read { spans, max_records, max_bytes } => {
                Some(Input::Records(self.read(&spans, max_records, max_bytes)))
            }
            Output::Send { session, records } => {
                self.watch.sent(self.time, session, &records);
                self.send(Frame::Batch(Batch { store: self.file.store, session, records }));
                None
            }
            Output::Probe { session, nonce } => {
                self.probe(session, nonce);
                None
            }
            Output::Command { .. } | Output::Received { .. } => None,
        }
    }

    pub(super) fn hello(&self, session: u64) -> Hello {
        let lane = |index: usize| {
            let view = self.file.lanes[index].view();
            let (lane, oldest, next) = (view.lane, view.oldest, view.next);
            LaneHello { lane, oldest, next, watermark: view.watermark, chain: view.chain }
        };
        Hello {
            session,
            gateway: self.machine.gateway.clone(),
            store: self.file.store,
            boot: self.machine.boot,
            uptime_ms: 1,
            wall: self.wall(),
            probe_ms: None,
            lanes: (0..4).map(lane).collect(),
            agent: AgentInfo::default(),
        }
    }

    pub(super) fn resume(&mut self, session: u64, lanes: Vec<LaneAck>) -> Option<Input> {
        self.forget_acks();
        self.core.as_ref()?;
        let answer = self.commit(Some(Request::Ack(lanes.clone(), AckKind::Resume)));
        self.core.as_ref()?;
        match answer {
            Some(Answer::Refused(error @ JournalError::Forked { .. })) => {
                return Some(Input::Forked { session, reason: error.to_string() });
            }
            Some(Answer::Done) => {
                let answered = self.answered.iter().rev().find(|answer| answer.0 == session);
                self.file.heard_after = answered.map_or(0, |answer| answer.1);
                self.check_acknowledged();
            }
            // What the bridge lacks may be trimmed here.
            None if self.file.lanes.iter().any(|lane| lane.view().is_ahead_of(&lanes)) => {
                self.disconnect();
                return Some(Input::Disconnected { reason: "not resumed".to_owned() });
            }
            // It goes on: what the bridge lacks is sent whether or not this was written down.
            Some(Answer::Refused(_)) | None => {
                (self.acks, self.acks_due) = (Some((session, self.file.store, lanes)), true);
            }
        }
        let heads = self.file.heads();
        self.heads_due = false;
        self.watch.begin(session, heads);
        self.bridge.watched.push((session, heads, Default::default()));
        Some(Input::Resumed { session, heads })
    }

    /// Of the last session: what is on its way is taken down first, what waits never is.
    pub(super) fn forget_acks(&mut self) {
        if self.in_hand.is_some() {
            self.commit(None);
        }
        (self.acks, self.acks_due) = (None, false);
    }

    pub(super) fn read(
        &mut self,
        spans: &[(Lane, u64, u64)],
        max_records: usize,
        max_bytes: usize,
    ) -> Option<Vec<Record>> {
        if next_call(&mut self.fault).is_some() {
            return None;
        }
        let (mut found, mut failed) = (Vec::new(), None);
        for &(lane, first, last) in spans {
            match self.file.read(lane, first, max_records, max_bytes) {
                Ok(records) => {
                    found.extend(records.into_iter().take_while(|record| record.first() <= last));
                }
                Err(seq) => failed = Some((lane, seq)),
            }
        }
        if let Some((lane, seq)) = failed {
            note!(self, "journal: {lane} {seq} is damaged");
            self.commit(Some(Request::Mend(lane, seq)));
        }
        (failed.is_none() || !found.is_empty()).then_some(found)
    }

    pub(super) fn probe(&mut self, session: u64, nonce: u64) {
        let acks = self.acks.clone().filter(|(_, store, _)| *store == self.file.store);
        if let Some((_, _, lanes)) = acks {
            self.commit(Some(Request::Ack(lanes, AckKind::Ack)));
        }
        if self.core.is_none() || self.commit(Some(Request::Probe)).is_none() {
            return;
        }
        let queued = self.file.queued();
        self.send(Frame::Probe(Probe { session, nonce, readers: Vec::new(), queued }));
    }
}
