//! The bridge's end of one gateway's link, as a state machine.
//!
//! | session | hello | frame of this session | frame of another |
//! |---|---|---|---|
//! | none | resume, refuse or fork | - | ask for a hello |
//! | live | the newer one wins | taken | passed over where it was displaced lately, else asked |
//! | contested | refused until the contest is over | passed over | passed over |
//!
//! **Fork.** A journal that was copied or rolled back shows at the hello (its next number is not
//! above what is stored, or its chain at the common watermark differs) or at the first batch (a
//! record doesn't continue the chain). Nothing of it is stored; the gateway takes a new store id.
//!
//! **Contest.** Two gateways that run with one id displace each other. One displacement can be a
//! repaired machine; the fourth within five minutes is two of them, and neither is served for a
//! minute, loudly, because each would make the other's commands and state unbelievable.
//!
//! **Unreadable.** After a frame of the gateway that can't be read its session is over, and its next
//! hello is refused with the reason: the gateway says `degraded`, and tries again after its own pause. What
//! comes before the unreadable part is taken meanwhile; what comes after it waits at the gateway.
//!
//! Effects are prepared here and become true with the store's commit: the driver applies
//! [`Output`]s of one round, commits, then sends. When the commit fails it calls
//! [`Link::forget`], and the gateway says hello again.

use std::{collections::VecDeque, time::Duration};

use topics::{
    BootId, Event, GatewayId, Lane, ReaderSummary, Record, RecordKind, StoreId, Timestamp,
    link::{AgentInfo, AskHello, Batch, Frame, Hello, Outcome, Probe, Probed, Received, Resume},
    record::RecordError,
};

use super::cursor::{Cursor, Taken};
use crate::clock::moved;

/// How long after its last frame a gateway counts as online that doesn't say how often it probes.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// The same for one that says it: so many of its probes' intervals, within these bounds.
const SILENT_PROBES: u32 = 2;
const SILENCE_BOUNDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1_200));
const CONTEST_WINDOW: Duration = Duration::from_secs(300);
const CONTEST_LIMIT: usize = 4;
const CONTEST_PENALTY: Duration = Duration::from_secs(60);
/// How long a gateway is refused after a frame that can't be read: less than its pause after a refusal
/// (30 s), so that each second hello is taken.
pub const UNREADABLE_PENALTY: Duration = Duration::from_secs(20);
/// Sessions that were displaced: their last frames may still be under way.
const DISPLACED_KEPT: usize = 8;

/// The link of one gateway.
#[derive(Debug)]
pub struct Link {
    gateway: GatewayId,
    session: Option<Session>,
    displaced: VecDeque<u64>,
    contests: VecDeque<Timestamp>,
    refused_until: Option<Timestamp>,
    /// What the gateway sent that can't be read, and until when it is refused for it.
    unreadable: Option<(Timestamp, String)>,
    /// When the gateway last got no session though it is there.
    turned_away: Option<Timestamp>,
}

#[derive(Debug)]
struct Session {
    id: u64,
    store: StoreId,
    boot: BootId,
    heard: Timestamp,
    /// After so long it counts as gone; until then it is taken to be still there when another one comes.
    silence_limit: Duration,
    cursors: Vec<Cursor>,
}

/// What a round of frames leads to.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The fields are what their types say.
pub enum Output {
    /// Store this event. It is parsed, belongs to the gateway and is new.
    Store(Box<Accepted>),
    /// Keep this record aside: it can't be an event.
    SetAside { record: Record, reason: String },
    /// With the commit, these are the cursors of the journal.
    Cursors { store: StoreId, cursors: Vec<Cursor> },
    /// With the commit, the gateway is here, and this is known of it.
    Greeted { store: StoreId, agent: AgentInfo },
    /// With the commit, its readers and its queue are these.
    Probed { nonce: u64, readers: Vec<ReaderSummary>, queued: u64 },
    /// The gateway holds this command durably.
    Received(Received),
    /// Send this frame after the commit.
    Send(Frame),
    /// Tell the operator: a fork or a contest.
    Alarm(String),
    /// Tell the operator: numbers of a lane are lost.
    Lost { lane: Lane, count: u64 },
}

/// A batch whose records were looked into.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadBatch {
    /// The journal that they are of.
    pub store: StoreId,
    /// The session that they were sent in.
    pub session: u64,
    /// Each, and the event in it or why there is none.
    pub records: Vec<(Record, Result<Event, RecordError>)>,
}

impl From<Batch> for ReadBatch {
    fn from(batch: Batch) -> Self {
        let Batch { store, session, records } = batch;
        let records = records.into_iter().map(|record| {
            let event = record.event();
            (record, event)
        });
        Self { store, session, records: records.collect() }
    }
}

/// An event to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// As it came.
    pub record: Record,
    /// The same, parsed.
    pub event: Event,
}

impl Link {
    /// A link that no gateway has used yet.
    pub fn new(gateway: GatewayId) -> Self {
        Self {
            gateway,
            session: None,
            displaced: VecDeque::new(),
            contests: VecDeque::new(),
            refused_until: None,
            unreadable: None,
            turned_away: None,
        }
    }

    /// The live session: its id.
    pub fn session(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.id)
    }

    /// Forgets the session, after a failed commit: what was prepared has not happened. Its id. The gateway is
    /// there all the same.
    pub fn forget(&mut self, now: Timestamp) -> Option<u64> {
        let session = self.session.take()?;
        self.turned_away = Some(now);
        Some(session.id)
    }

    /// The bridge's clock was set, so many milliseconds forward: what is under way ends as much later by it.
    /// The gateway, which learned the bridge's time before, is asked to learn it again.
    pub fn clock_set(&mut self, by_ms: i64) -> Vec<Output> {
        let move_it = |time: &mut Timestamp| *time = moved(*time, by_ms);
        self.contests.iter_mut().for_each(move_it);
        self.refused_until.iter_mut().for_each(move_it);
        self.unreadable.iter_mut().for_each(|(until, _)| move_it(until));
        self.turned_away.iter_mut().for_each(move_it);
        let Some(session) = &mut self.session else { return Vec::new() };
        move_it(&mut session.heard);
        vec![Output::Send(Frame::AskHello(AskHello { session: session.id }))]
    }

    /// The gateway's first word. `committed` is what the store has of its journal.
    pub fn hello(&mut self, now: Timestamp, hello: Hello, committed: Vec<Cursor>) -> Vec<Output> {
        if let Some(outputs) = self.not_served(now, &hello) {
            return outputs;
        }
        let mut outputs = Vec::new();
        let mut cursors = all_lanes(committed);
        // A repeat says what the journal held before the batches that came since.
        let is_repeat = self.session() == Some(hello.session);
        if let Some(reason) = fork(&hello, &cursors).filter(|_| !is_repeat) {
            return self.part(now, &hello, reason);
        }
        for said in &hello.lanes {
            let Some(cursor) = cursors.get_mut(said.lane.index()) else { continue };
            let count = cursor.give_up_below(said.oldest.min(said.next));
            if count > 0 {
                outputs.push(Output::Lost { lane: said.lane, count });
            }
        }
        let lanes = cursors.iter().map(Cursor::ack).collect();
        if !outputs.is_empty() {
            outputs.push(Output::Cursors { store: hello.store, cursors: cursors.clone() });
        }
        outputs.push(Output::Greeted { store: hello.store, agent: hello.agent.clone() });
        outputs.push(answer(&hello, now, Outcome::Resume { lanes }));
        if !is_repeat {
            self.displace();
        }
        let (id, store, boot) = (hello.session, hello.store, hello.boot);
        let silence_limit = silence_limit(hello.probe_ms);
        self.session = Some(Session { id, store, boot, heard: now, silence_limit, cursors });
        outputs
    }

    /// The gateway's first word, where the store can't say what it has of its journal. Under a new store id
    /// it sends what it has not heard of again, and what of that is stored is known by its ids. Taken for
    /// a journal that nothing is known of, it would send what was pruned here, too.
    pub fn hello_of_unknown(&mut self, now: Timestamp, hello: &Hello) -> Vec<Output> {
        let reason = "what is stored here of its journal can't be read".to_owned();
        self.not_served(now, hello).unwrap_or_else(|| self.part(now, hello, reason))
    }

    /// What is answered to a hello whatever its journal is, where that is the answer.
    fn not_served(&mut self, now: Timestamp, hello: &Hello) -> Option<Vec<Output>> {
        if hello.gateway != self.gateway {
            let reason = format!("this is the link of {}", self.gateway);
            return Some(vec![answer(hello, now, Outcome::Refused { reason })]);
        }
        if self.displaced.contains(&hello.session) {
            return Some(Vec::new());
        }
        if let Some(reason) = self.contest(now, hello) {
            let alarm = Output::Alarm(reason.clone());
            return Some(vec![alarm, answer(hello, now, Outcome::Refused { reason })]);
        }
        let reason = self.cannot_read(now)?;
        Some(vec![Output::Send(self.turn_away(now, hello.session, hello.store, reason))])
    }

    fn part(&mut self, now: Timestamp, hello: &Hello, reason: String) -> Vec<Output> {
        self.displace();
        let alarm = Output::Alarm(format!("{reason}; it is asked to take a new store id"));
        vec![alarm, answer(hello, now, Outcome::Forked { reason })]
    }

    /// Records on their way up. The acknowledgement is not among the outputs: see
    /// [`ack`](Self::ack).
    pub fn batch(&mut self, now: Timestamp, batch: ReadBatch) -> Vec<Output> {
        let gateway = self.gateway.clone();
        let Some(session) = self.heard(now, batch.session) else {
            return self.stranger(now, batch.session);
        };
        if session.store != batch.store {
            return vec![Output::Send(Frame::AskHello(AskHello { session: batch.session }))];
        }
        let mut outputs = Vec::with_capacity(batch.records.len() + 1);
        for (record, event) in batch.records {
            let Some(cursor) = session.cursors.get_mut(record.lane().index()) else { continue };
            match cursor.take(&record) {
                Taken::New(_) => outputs.push(accept(&gateway, cursor, record, event)),
                Taken::Repeat | Taken::Later => {}
                Taken::Fork => {
                    let place = format!("lane {} at {}", record.lane(), record.first());
                    return self.forked(now, batch.store, outputs, &place);
                }
            }
        }
        let cursors = session.cursors.clone();
        outputs.push(Output::Cursors { store: batch.store, cursors });
        outputs
    }

    /// The acknowledgement of all that is committed, to be sent after the commit.
    pub fn ack(&self, now: Timestamp) -> Option<Frame> {
        let session = self.session.as_ref()?;
        Some(Frame::Ack(topics::link::Ack {
            session: session.id,
            store: session.store,
            lanes: session.cursors.iter().map(Cursor::ack).collect(),
            now,
        }))
    }

    /// A question that goes through the store.
    pub fn probe(&mut self, now: Timestamp, probe: Probe) -> Vec<Output> {
        if self.heard(now, probe.session).is_none() {
            return self.stranger(now, probe.session);
        }
        let Probe { session, nonce, readers, queued } = probe;
        vec![
            Output::Probed { nonce, readers, queued },
            Output::Send(Frame::Probed(Probed { session, nonce, now })),
        ]
    }

    /// A command is durable at the gateway.
    pub fn received(&mut self, now: Timestamp, received: Received) -> Vec<Output> {
        if self.heard(now, received.session).is_none() {
            return self.stranger(now, received.session);
        }
        vec![Output::Received(received)]
    }

    /// A frame of the gateway that can't be read, and why. It would come again and again: so its session
    /// ends, and its next hello is refused.
    pub fn unreadable(&mut self, now: Timestamp, reason: String) -> Vec<Output> {
        self.unreadable = Some((now.plus(UNREADABLE_PENALTY), reason));
        self.turned_away = Some(now);
        let Some(session) = self.session.take() else { return Vec::new() };
        vec![Output::Send(Frame::AskHello(AskHello { session: session.id }))]
    }

    /// The refusal of a hello for a reason that is not the gateway's. It stays online.
    pub fn turn_away(
        &mut self,
        now: Timestamp,
        session: u64,
        store: StoreId,
        reason: String,
    ) -> Frame {
        self.turned_away = Some(now);
        Frame::Resume(Resume { session, store, now, outcome: Outcome::Refused { reason } })
    }

    /// Whether the gateway was heard of lately: within two of its probes' intervals. One that is turned
    /// away says hello twice a minute.
    pub fn is_live(&self, now: Timestamp) -> bool {
        match (&self.session, self.turned_away) {
            (Some(session), _) => now.since(session.heard) < session.silence_limit,
            (None, Some(heard)) => now.since(heard) < 2 * SILENCE_LIMIT,
            (None, None) => false,
        }
    }

    fn heard(&mut self, now: Timestamp, session: u64) -> Option<&mut Session> {
        let current = self.session.as_mut().filter(|current| current.id == session)?;
        current.heard = now;
        Some(current)
    }

    fn stranger(&self, now: Timestamp, session: u64) -> Vec<Output> {
        if self.is_contested(now) || self.displaced.contains(&session) {
            return Vec::new();
        }
        vec![Output::Send(Frame::AskHello(AskHello { session }))]
    }

    fn displace(&mut self) {
        if let Some(old) = self.session.take() {
            self.displaced.push_back(old.id);
            if self.displaced.len() > DISPLACED_KEPT {
                self.displaced.pop_front();
            }
        }
    }

    /// What was taken before the break is sound: it stays, and its cursors with it.
    fn forked(
        &mut self,
        now: Timestamp,
        store: StoreId,
        mut outputs: Vec<Output>,
        place: &str,
    ) -> Vec<Output> {
        let Some(session) = self.session.as_ref() else { return outputs };
        let reason = format!("its journal and the one stored here part ways ({place})");
        let outcome = Outcome::Forked { reason: reason.clone() };
        let frame = Frame::Resume(Resume { session: session.id, store, now, outcome });
        outputs.push(Output::Cursors { store, cursors: session.cursors.clone() });
        outputs.push(Output::Alarm(format!("{reason}; it is asked to take a new store id")));
        outputs.push(Output::Send(frame));
        self.displace();
        outputs
    }

    fn is_contested(&self, now: Timestamp) -> bool {
        self.refused_until.is_some_and(|until| !is_over(until, CONTEST_PENALTY, now))
    }

    /// Why a hello is refused now, where it is because of frames that can't be read.
    fn cannot_read(&mut self, now: Timestamp) -> Option<String> {
        let is_due = |until: Timestamp| !is_over(until, UNREADABLE_PENALTY, now);
        self.unreadable.take_if(|(until, _)| !is_due(*until));
        self.unreadable.as_ref().map(|(_, reason)| reason.clone())
    }

    fn contest(&mut self, now: Timestamp, hello: &Hello) -> Option<String> {
        let reason = || format!("two gateways run as {}: stop one of them", self.gateway);
        if self.is_contested(now) {
            return Some(reason());
        }
        let current = self.session.as_ref()?;
        let same = current.store == hello.store && current.boot == hello.boot;
        if same || now.since(current.heard) >= current.silence_limit {
            return None;
        }
        self.contests.push_back(now);
        while self.contests.front().is_some_and(|first| now.since(*first) >= CONTEST_WINDOW) {
            self.contests.pop_front();
        }
        if self.contests.len() < CONTEST_LIMIT {
            return None;
        }
        let reason = reason();
        self.contests.clear();
        self.refused_until = Some(now.plus(CONTEST_PENALTY));
        self.displace();
        Some(reason)
    }
}

/// A penalty that lies further ahead than it is long is over: the clock was set back.
fn is_over(until: Timestamp, length: Duration, now: Timestamp) -> bool {
    until <= now || until.since(now) > length
}

fn silence_limit(probe_ms: Option<u64>) -> Duration {
    let (least, most) = SILENCE_BOUNDS;
    probe_ms.map_or(SILENCE_LIMIT, |ms| {
        Duration::from_millis(ms).saturating_mul(SILENT_PROBES).clamp(least, most)
    })
}

fn answer(hello: &Hello, now: Timestamp, outcome: Outcome) -> Output {
    let (session, store) = (hello.session, hello.store);
    Output::Send(Frame::Resume(Resume { session, store, now, outcome }))
}

/// One cursor a lane, in order.
fn all_lanes(mut committed: Vec<Cursor>) -> Vec<Cursor> {
    let mut found = |lane| committed.iter().position(|cursor| cursor.lane == lane);
    let places: Vec<Option<usize>> = Lane::ALL.into_iter().map(&mut found).collect();
    Lane::ALL
        .into_iter()
        .zip(places)
        .map(|(lane, place)| match place {
            Some(place) => std::mem::replace(&mut committed[place], Cursor::new(lane)),
            None => Cursor::new(lane),
        })
        .collect()
}

/// Why this journal is not the one whose records are stored.
fn fork(hello: &Hello, cursors: &[Cursor]) -> Option<String> {
    hello.lanes.iter().find_map(|said| {
        let cursor = cursors.get(said.lane.index())?;
        if cursor.top() >= said.next {
            let (lane, top, next) = (said.lane, cursor.top(), said.next);
            return Some(format!("lane {lane}: {top} is stored, its journal goes on at {next}"));
        }
        let common = said.watermark == cursor.watermark && cursor.watermark > 0;
        let known = said.chain != 0 && cursor.chain != 0;
        (common && known && said.chain != cursor.chain)
            .then(|| format!("lane {}: another history up to {}", said.lane, said.watermark))
    })
}

/// An event, or a record to be set aside.
fn accept(
    gateway: &GatewayId,
    cursor: &mut Cursor,
    record: Record,
    event: Result<Event, RecordError>,
) -> Output {
    let reason = match event {
        _ if !record.is_known() => "it is of a kind that a newer version writes".to_owned(),
        Err(error) => error.to_string(),
        Ok(event) if event.gateway != *gateway => format!("it is an event of {}", event.gateway),
        Ok(event) if (event.lane, event.seq) != (record.lane(), record.seq()) => {
            format!("it says lane {} number {}", event.lane, event.seq)
        }
        Ok(event) => return Output::Store(Box::new(Accepted { record, event })),
    };
    match record.kind() {
        RecordKind::Event => cursor.set_aside(),
        // Its numbers are lost whatever its text says.
        RecordKind::Gap => {}
    }
    Output::SetAside { record, reason }
}
