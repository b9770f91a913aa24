//! How much may be under way: as much as fills the link and no more, because what is fresh waits behind
//! it, and what waits for too long is sent again.
//!
//! The amount holds for live batches, and for these and the backlog together: so the backlog uses what
//! they leave, and they are not held up by it. Each batch is timed from sending to acknowledgement.
//! While that stays near the shortest time seen and the amount is used, it grows, doubling with each
//! round trip until it first was too much and slowly from then on. A batch that takes longer than
//! [`Pace::goal`] has stood in a queue somewhere: the amount shrinks in proportion, once for all that was
//! sent before. The goal is strict while the amount is ample, for there large batches save nothing more;
//! with less, they save bytes (they compress better) and commits, and a fresh record waits a little longer. At the least amount no queue is ours, so the time
//! that a batch takes then is the link's own (a bridge with a slow disk, a satellite).

use std::time::Duration;

/// At first.
const START: usize = 16 * 1024;
/// Also on the slowest link: some records, less than a second of a modem's time.
const LEAST: usize = 4 * 1024;
/// What a fresh record may wait behind the backlog, beside the link's own time.
const QUEUE: Duration = Duration::from_millis(250);
/// From this amount on it may wait less.
const AMPLE: usize = 384 * 1024;
const AMPLE_QUEUE: Duration = Duration::from_millis(30);

/// The bytes that may be under way in a session.
#[derive(Debug)]
pub(super) struct Pace {
    budget: usize,
    /// Up to here it doubles.
    threshold: usize,
    most: usize,
    /// The link's own time, there and back.
    shortest: Duration,
    /// What was sent before has been answered by less already.
    shrunk_at: Duration,
}

impl Pace {
    /// `round_trip` was taken while nothing was under way; `most` is the bound for a fast link.
    pub(super) fn new(round_trip: Duration, most: usize) -> Self {
        Self {
            budget: START.min(most),
            threshold: most,
            most,
            shortest: round_trip,
            shrunk_at: Duration::ZERO,
        }
    }

    /// Bytes for the next batch, with `in_flight` under way. Two of them fill it, so that one is on its
    /// way while the other is acknowledged.
    pub(super) fn room(&self, in_flight: usize) -> Option<usize> {
        (in_flight < self.budget).then_some(self.budget / 2)
    }

    /// A batch was acknowledged at `now`; with it `in_flight` were under way.
    pub(super) fn landed(&mut self, bytes: usize, in_flight: usize, sent: Duration, now: Duration) {
        let took = now.saturating_sub(sent);
        self.shortest = self.shortest.min(took);
        // A link that little was asked of has not shown that it takes more.
        let is_used = in_flight >= self.budget / 2;
        if took <= self.goal() && !is_used {
            // Nothing follows from it.
        } else if took <= self.goal() {
            let slowly = if self.budget < self.threshold { 1 } else { 8 };
            self.budget = (self.budget + bytes / slowly).min(self.most);
        } else if sent < self.shrunk_at {
            // Less goes already.
        } else if self.budget <= LEAST {
            self.shortest = took;
        } else {
            let is_queue = took > self.shortest * 2 + QUEUE;
            let least = if is_queue { LEAST } else { AMPLE };
            self.shrink(scaled(self.budget, self.goal(), took).max(least), now);
        }
    }

    /// A batch was not acknowledged until `now`, and is given up.
    pub(super) fn lost(&mut self, sent: Duration, now: Duration) {
        if sent >= self.shrunk_at {
            self.shrink(self.budget / 2, now);
        }
    }

    fn shrink(&mut self, to: usize, now: Duration) {
        self.budget = to.max(LEAST);
        (self.threshold, self.shrunk_at) = (self.budget, now);
    }

    fn goal(&self) -> Duration {
        let patient = self.shortest * 2 + QUEUE;
        let strict = self.shortest * 3 + AMPLE_QUEUE;
        if self.budget > AMPLE { strict.min(patient) } else { patient }
    }
}

fn scaled(bytes: usize, goal: Duration, took: Duration) -> usize {
    let scaled = bytes as u128 * goal.as_micros() / took.as_micros().max(1);
    usize::try_from(scaled).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MOST: usize = 960 * 1024;
    const SECOND: Duration = Duration::from_secs(1);

    /// A link of so many bytes a second, with `own` there and back: the backlog sends what it may for
    /// `time`. The bytes that came through, and the longest that a batch took in the second half.
    fn run(rate: u64, own: Duration, time: Duration) -> (usize, Duration) {
        let mut pace = Pace::new(own, MOST);
        let (mut now, mut free, mut in_flight, mut through) = (own, own, 0, 0);
        let mut flights = VecDeque::new();
        let mut longest = Duration::ZERO;
        while now < time {
            while let Some(bytes) = pace.room(in_flight) {
                free = free.max(now) + SECOND * u32::try_from(bytes).unwrap() / rate as u32;
                flights.push_back((bytes, now, free + own));
                in_flight += bytes;
            }
            let (bytes, sent, landed) = flights.pop_front().expect("something is under way");
            now = landed;
            pace.landed(bytes, in_flight, sent, now);
            in_flight -= bytes;
            through += bytes;
            if now > time / 2 {
                longest = longest.max(now - sent);
            }
        }
        (through, longest)
    }

    #[test]
    fn a_slow_link_is_filled_and_a_fresh_record_waits_little() {
        for rate in [8_000u64, 32_000, 125_000, 1_000_000] {
            for own_ms in [5, 50, 600] {
                let own = Duration::from_millis(own_ms);
                let time = SECOND * 60;
                let (through, longest) = run(rate, own, time);
                let share = through as f64 / (rate as f64 * 60.0);
                assert!(share > 0.85, "{rate} B/s, {own:?}: {share:.2} of the link used");
                // The time of the least amount is the link's own.
                let least = own + SECOND * LEAST as u32 / rate as u32;
                let bound = least * 4 + QUEUE * 2;
                assert!(longest < bound, "{rate} B/s, {own:?}: {longest:?} of {bound:?}");
            }
        }
    }

    #[test]
    fn on_a_fast_link_a_fresh_record_waits_for_moments_and_a_long_one_is_filled() {
        let time = SECOND * 20;
        for (megabytes, own_ms) in [(10, 3), (20, 3), (40, 3), (10, 80), (20, 40)] {
            let (rate, own) = (megabytes * 1_000_000, Duration::from_millis(own_ms));
            let (through, longest) = run(rate, own, time);
            let most = rate.min(MOST as u64 * 1_000 / own_ms) as f64;
            let share = through as f64 / (most * time.as_secs_f64());
            assert!(share > 0.7, "{rate} B/s, {own:?}: {share:.2} of what is possible");
            assert!(longest < own * 3 + AMPLE_QUEUE * 2, "{rate} B/s, {own:?}: {longest:?}");
        }
    }

    #[test]
    fn a_fast_link_is_at_its_bound_after_some_round_trips() {
        let mut pace = Pace::new(Duration::from_millis(5), MOST);
        let mut now = Duration::ZERO;
        for _ in 0..8 {
            let sent = now;
            now += Duration::from_millis(10);
            for _ in 0..2 {
                let bytes = pace.room(0).unwrap();
                pace.landed(bytes, bytes, sent, now);
            }
        }
        assert_eq!(pace.budget, MOST);
        assert_eq!(pace.room(MOST), None);
    }

    #[test]
    fn what_is_lost_makes_it_less_once_for_all_of_a_moment_and_sets_no_measure() {
        let mut pace = Pace::new(Duration::from_millis(5), MOST);
        let (sent, now) = (Duration::from_secs(1), Duration::from_secs(11));
        for _ in 0..8 {
            pace.lost(sent, now);
            pace.landed(160 * 1024, 160 * 1024, sent, now);
        }
        assert_eq!((pace.budget, pace.shortest), (START / 2, Duration::from_millis(5)));
    }

    #[test]
    fn little_that_goes_quickly_says_nothing_of_much() {
        let mut pace = Pace::new(Duration::from_millis(5), MOST);
        (0..1_000).for_each(|_| pace.landed(400, 400, Duration::ZERO, Duration::from_millis(6)));
        assert_eq!(pace.budget, START);
    }

    #[test]
    fn a_bridge_that_takes_long_with_everything_is_not_taken_for_a_slow_link() {
        let mut pace = Pace::new(Duration::from_millis(5), MOST);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            let sent = now;
            now += Duration::from_millis(400);
            let bytes = pace.room(0).unwrap();
            pace.landed(bytes, bytes, sent, now);
        }
        assert!(pace.budget > MOST / 4, "{}", pace.budget);
    }
}
