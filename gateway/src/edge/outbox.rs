//! What is on its way to the broker: pure. One cursor a lane says what the broker has; between it
//! and the next record to read lie the ones that wait for their acknowledgement.
//!
//! ```text
//!   … done │ in flight (sent, not yet acknowledged) │ next …
//! ```
//!
//! A lost connection puts `next` back to `done`: what was in flight is sent again, so that a record
//! reaches the broker at least once. Acknowledgements in any order move `done` only over records
//! that are acknowledged without a hole.
//!
//! The embedded broker acknowledges what it has in memory. When it had to be replaced, what it had
//! acknowledged last may have reached nobody, so `next` goes back further, to where `done` was
//! [`REPEATED`] before the last acknowledgement; `done` stays. Should that connection break before all is
//! sent again, the next one begins there, too.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use topics::Lane;

/// Publishes that may wait for their acknowledgement at a time. Mosquitto takes 20 from a client
/// that does not ask for more; above a few dozen the way is as fast as it gets.
pub(super) const WINDOW: usize = 64;

/// What a replaced broker acknowledged within this time before it fell silent is sent again. A subscriber
/// that is further behind is told by the gap in `seq`.
const REPEATED: Duration = Duration::from_secs(5);
/// `done` is noted this often, so that few notes tell where it was.
const NOTED_EVERY: Duration = Duration::from_millis(100);

/// What a publish was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// A record of the journal.
    Record { lane: Lane, seq: u64 },
    /// A response to a command, by its number.
    Response(u64),
    /// A state: what it says is said again on the next connection anyway.
    State,
}

/// What an acknowledgement brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// A lane's cursor moved to here.
    Cursor(Lane, u64),
    /// This response arrived.
    Response(u64),
    /// Nothing to note.
    Nothing,
}

#[derive(Debug, Default)]
struct LaneOut {
    /// All up to here, it included, are at the broker.
    done: u64,
    /// The next sequence number to read.
    next: u64,
    /// In flight, rising, each with whether it is acknowledged.
    flight: VecDeque<(u64, bool)>,
    /// Where `done` was, and until when; the last [`REPEATED`] before the newest acknowledgement.
    was: VecDeque<(Instant, u64)>,
    /// What came after this is being sent again.
    repeat_after: Option<u64>,
}

/// The account of one connection after the other.
#[derive(Debug)]
pub(super) struct Outbox {
    lanes: [LaneOut; 4],
    /// Handed to the client, in order, without a packet id yet.
    queued: VecDeque<Tag>,
    /// On the wire, by packet id.
    sent: HashMap<u16, Tag>,
}

impl Outbox {
    /// Goes on after these sequence numbers, one per lane.
    pub(super) fn new(done: [u64; 4]) -> Self {
        let lanes = done.map(|done| LaneOut { done, next: done + 1, ..LaneOut::default() });
        Self { lanes, queued: VecDeque::new(), sent: HashMap::new() }
    }

    /// A new connection: nothing is in flight.
    pub(super) fn restart(&mut self) {
        self.queued.clear();
        self.sent.clear();
        for lane in &mut self.lanes {
            lane.flight.clear();
            lane.next = lane.repeat_after.unwrap_or(lane.done) + 1;
        }
    }

    /// A new connection to a broker that replaces the one before. Nothing was sent on it yet.
    pub(super) fn restart_behind(&mut self) {
        for lane in &mut self.lanes {
            if let Some((_, was)) = lane.was.front() {
                let before = lane.repeat_after.unwrap_or(u64::MAX);
                lane.repeat_after = Some(before.min(*was));
            }
        }
        self.restart();
    }

    /// Publishes that may be added now.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.queued.len() + self.sent.len())
    }

    /// Whether nothing waits for its acknowledgement.
    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.sent.is_empty()
    }

    /// The next sequence number to read of a lane.
    pub(super) fn next(&self, lane: Lane) -> u64 {
        self.lanes[lane.index()].next
    }

    /// A publish was handed to the client.
    pub(super) fn queue(&mut self, tag: Tag) {
        self.queued.push_back(tag);
        if let Tag::Record { lane, seq } = tag {
            let lane = &mut self.lanes[lane.index()];
            lane.flight.push_back((seq, false));
            lane.next = seq + 1;
        }
    }

    /// A record that can't be published: it counts as done once those before it are.
    pub(super) fn pass_over(&mut self, lane: Lane, seq: u64) {
        let lane = &mut self.lanes[lane.index()];
        lane.flight.push_back((seq, true));
        lane.next = seq + 1;
        lane.advance();
    }

    /// The client wrote its next publish to the wire, with this packet id.
    pub(super) fn wrote(&mut self, packet: u16) {
        if let Some(tag) = self.queued.pop_front() {
            self.sent.insert(packet, tag);
        }
    }

    /// The broker has it.
    pub(super) fn acknowledged(&mut self, packet: u16, now: Instant) -> Acknowledged {
        match self.sent.remove(&packet) {
            Some(Tag::Record { lane, seq }) => {
                match self.lanes[lane.index()].acknowledged(seq, now) {
                    Some(done) => Acknowledged::Cursor(lane, done),
                    None => Acknowledged::Nothing,
                }
            }
            Some(Tag::Response(number)) => Acknowledged::Response(number),
            Some(Tag::State) | None => Acknowledged::Nothing,
        }
    }
}

impl LaneOut {
    /// Where the cursor moved to, if it did.
    fn acknowledged(&mut self, seq: u64, now: Instant) -> Option<u64> {
        self.flight.iter_mut().find(|(in_flight, _)| *in_flight == seq)?.1 = true;
        let before = self.done;
        self.advance();
        if self.done == before {
            return None;
        }
        self.forget_old(now);
        if self
            .was
            .back()
            .is_none_or(|(until, _)| now.saturating_duration_since(*until) >= NOTED_EVERY)
        {
            self.was.push_back((now, before));
        }
        Some(self.done)
    }

    /// Moves `done` over what is acknowledged without a hole.
    fn advance(&mut self) {
        while let Some((seq, true)) = self.flight.front() {
            self.done = self.done.max(*seq);
            if let Some(repeat_after) = &mut self.repeat_after {
                *repeat_after = (*repeat_after).max(*seq);
            }
            self.flight.pop_front();
        }
        if self.repeat_after.is_some_and(|sent| sent >= self.done) {
            self.repeat_after = None;
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let is_old = |until: Instant| now.saturating_duration_since(until) > REPEATED;
        while self.was.front().is_some_and(|(until, _)| is_old(*until)) {
            self.was.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64) -> Tag {
        Tag::Record { lane: Lane::Events, seq }
    }

    #[test]
    fn a_cursor_moves_only_over_what_is_acknowledged_without_a_hole() {
        let mut outbox = Outbox::new([0, 0, 10, 0]);
        assert_eq!(outbox.next(Lane::Events), 11);
        for (packet, seq) in [(1, 11), (2, 12), (3, 15)] {
            outbox.queue(record(seq));
            outbox.wrote(packet);
        }
        assert_eq!(outbox.acknowledged(2, Instant::now()), Acknowledged::Nothing, "11 is missing");
        assert_eq!(outbox.acknowledged(1, Instant::now()), Acknowledged::Cursor(Lane::Events, 12));
        assert_eq!(outbox.acknowledged(1, Instant::now()), Acknowledged::Nothing, "a repeat");
        let over_a_gap = outbox.acknowledged(3, Instant::now());
        assert_eq!(over_a_gap, Acknowledged::Cursor(Lane::Events, 15), "which covers 13 to 15");
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_lost_connection_sends_again_what_was_in_flight() {
        let mut outbox = Outbox::new([0; 4]);
        outbox.queue(Tag::Response(7));
        outbox.queue(record(1));
        outbox.wrote(1);
        outbox.restart();
        assert_eq!((outbox.next(Lane::Events), outbox.room()), (1, WINDOW));
        assert_eq!(
            outbox.acknowledged(1, Instant::now()),
            Acknowledged::Nothing,
            "of the connection before"
        );
    }

    #[test]
    fn a_replaced_broker_gets_again_what_the_one_before_acknowledged_last() {
        let (mut outbox, start) = (Outbox::new([0; 4]), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seq in 1..=20 {
            outbox.queue(record(seq));
            outbox.wrote(seq as u16);
            outbox.acknowledged(seq as u16, at(seq));
        }
        outbox.restart();
        assert_eq!(outbox.next(Lane::Events), 21, "a broken connection repeats nothing of it");
        // However long it took to notice that it was dead.
        outbox.restart_behind();
        assert_eq!(outbox.next(Lane::Events), 15, "what was acknowledged at second 15 and later");
        for seq in 15..=17 {
            outbox.queue(record(seq));
            outbox.wrote(seq as u16);
            assert_eq!(outbox.acknowledged(seq as u16, at(60)), Acknowledged::Nothing);
        }
        outbox.restart();
        assert_eq!(outbox.next(Lane::Events), 18, "the rest is owed by the next connection");
        // The cursor stays where it was until something new arrives.
        for seq in 18..=21 {
            outbox.queue(record(seq));
            outbox.wrote(seq as u16);
            let expected = match seq {
                21 => Acknowledged::Cursor(Lane::Events, 21),
                _ => Acknowledged::Nothing,
            };
            assert_eq!(outbox.acknowledged(seq as u16, at(61)), expected);
        }
        outbox.restart();
        assert_eq!(outbox.next(Lane::Events), 22, "and it is paid");
    }

    proptest! {
        #[test]
        fn whatever_is_lost_or_reordered_every_record_is_sent_until_it_is_acknowledged(
            steps in prop::collection::vec((0u8..8, any::<u16>()), 0..300)
        ) {
            let mut outbox = Outbox::new([0; 4]);
            let (mut packet, mut on_wire, mut arrived) = (0u16, Vec::new(), std::collections::BTreeSet::new());
            let mut done = 0;
            for (step, pick) in steps {
                match step {
                    0..=3 if outbox.room() > 0 => {
                        let seq = outbox.next(Lane::Events);
                        prop_assert!(seq > done);
                        outbox.queue(record(seq));
                        packet = packet.wrapping_add(1);
                        outbox.wrote(packet);
                        on_wire.push((packet, seq));
                        arrived.insert(seq);
                    }
                    4..=6 if !on_wire.is_empty() => {
                        let (packet, _) = on_wire.remove(usize::from(pick) % on_wire.len());
                        if let Acknowledged::Cursor(_, to) = outbox.acknowledged(packet, Instant::now()) {
                            prop_assert!(to > done);
                            done = to;
                        }
                    }
                    7 if pick % 8 == 0 => {
                        outbox.restart();
                        on_wire.clear();
                        prop_assert_eq!(outbox.next(Lane::Events), done + 1);
                    }
                    _ => {}
                }
                for seq in 1..=done {
                    prop_assert!(arrived.contains(&seq));
                }
            }
        }
    }
}
