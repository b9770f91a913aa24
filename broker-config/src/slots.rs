//! The client ids that sessions have inside rumqttd, and the sessions that outlive their connection.
//!
//! rumqttd keeps something for every client id that it ever saw, so sessions take turns with numbered
//! ones. A session that is to go on keeps its number until it expires. rumqttd itself lets no session
//! expire: what is left under a number is swept away, by a link that wants nothing kept, before another
//! session that is to go on gets it.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use crate::{guard::Subscriptions, refusal::Refusal};

/// MQTT's "never", in a session expiry interval.
pub(crate) const NEVER: u32 = u32::MAX;

/// A client id inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InnerId(pub(crate) u32);

impl fmt::Display for InnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot|{}", self.0)
    }
}

/// What a client asks of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Nothing of an earlier one.
    pub(crate) fresh: bool,
    /// It shall outlive the connection.
    pub(crate) keep: bool,
}

impl Wish {
    pub(crate) const NOTHING_KEPT: Self = Self { fresh: true, keep: false };
}

/// A session's place in rumqttd.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: InnerId,
    /// rumqttd is to start afresh, and to keep nothing at the end.
    pub(crate) clean: bool,
    /// Somebody else's session is left there and must be swept away first.
    pub(crate) dirty: bool,
}

/// All of them. A client is known by its user and its own id.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    kept: HashMap<(String, String), Kept>,
    free: Vec<u32>,
    free_dirty: Vec<u32>,
    last: u32,
}

#[derive(Debug)]
struct Kept {
    slot: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Connected,
    /// The client is away; its session ends at that time, if ever.
    Away {
        until: Option<Instant>,
        subscriptions: Subscriptions,
    },
}

impl Kept {
    fn has_expired(&self, now: Instant) -> bool {
        matches!(self.state, State::Away { until: Some(until), .. } if until <= now)
    }
}

impl Slots {
    /// A seat for a client that has no other connection any more; what it is subscribed to there.
    pub(crate) fn take(
        &mut self,
        user: &str,
        client_id: &str,
        wish: Wish,
        now: Instant,
        (max_kept, max_of_user): (usize, usize),
    ) -> Result<(Seat, Subscriptions), Refusal> {
        let key = (user.to_owned(), client_id.to_owned());
        if let Some(kept) = self.kept.get(&key)
            && (wish.fresh || kept.has_expired(now))
        {
            self.forget(&key);
        }
        if let Some(kept) = self.kept.get_mut(&key) {
            let seat = Seat { id: InnerId(kept.slot), clean: false, dirty: false };
            let subscriptions = match std::mem::replace(&mut kept.state, State::Connected) {
                State::Away { subscriptions, .. } => subscriptions,
                State::Connected => Subscriptions::default(),
            };
            return Ok((seat, subscriptions));
        }
        if !wish.keep {
            // It sweeps by itself.
            let slot = self.free_dirty.pop().or_else(|| self.free.pop());
            let id = InnerId(slot.unwrap_or_else(|| self.add()));
            return Ok((Seat { id, clean: true, dirty: false }, Subscriptions::default()));
        }
        let full = |slots: &Self| {
            let of_user = slots.kept.keys().filter(|(of, _)| of == user).count();
            slots.kept.len() >= max_kept || of_user >= max_of_user
        };
        if full(self) {
            let expired: Vec<_> =
                self.kept.iter().filter(|(_, kept)| kept.has_expired(now)).collect();
            let expired: Vec<_> = expired.into_iter().map(|(key, _)| key.clone()).collect();
            expired.iter().for_each(|key| self.forget(key));
        }
        if full(self) {
            return Err(Refusal::TooManySessions);
        }
        let (slot, dirty) = match (self.free.pop(), self.free_dirty.pop()) {
            (None, None) => (self.add(), false),
            (None, Some(slot)) => (slot, true),
            (Some(slot), unused) => {
                self.free_dirty.extend(unused);
                (slot, false)
            }
        };
        self.kept.insert(key, Kept { slot, state: State::Connected });
        Ok((Seat { id: InnerId(slot), clean: false, dirty }, Subscriptions::default()))
    }

    /// A connection is over, and rumqttd is through with it. The session goes on for so many seconds.
    pub(crate) fn leave(
        &mut self,
        user: &str,
        client_id: &str,
        seat: &Seat,
        subscriptions: Subscriptions,
        expiry_secs: u32,
        now: Instant,
    ) {
        let slot = seat.id.0;
        if seat.clean {
            self.free.push(slot);
            return;
        }
        let key = (user.to_owned(), client_id.to_owned());
        match self.kept.get_mut(&key) {
            Some(kept) if kept.slot == slot && expiry_secs > 0 => {
                let until = (expiry_secs != NEVER)
                    .then(|| now.checked_add(Duration::from_secs(expiry_secs.into())))
                    .flatten();
                kept.state = State::Away { until, subscriptions };
            }
            Some(kept) if kept.slot == slot => {
                self.kept.remove(&key);
                self.free_dirty.push(slot);
            }
            // Another inner broker came meanwhile.
            Some(_) | None => self.free_dirty.push(slot),
        }
    }

    /// rumqttd may not be through with a seat: nobody gets it again.
    pub(crate) fn lose(&mut self, user: &str, client_id: &str, seat: &Seat) {
        let key = (user.to_owned(), client_id.to_owned());
        if self.kept.get(&key).is_some_and(|kept| kept.slot == seat.id.0) {
            self.kept.remove(&key);
        }
    }

    /// A user isn't what it was: its sessions that wait for it are nobody's.
    pub(crate) fn forget_user(&mut self, user: &str) {
        let away = |kept: &Kept| matches!(kept.state, State::Away { .. });
        let theirs: Vec<_> = self
            .kept
            .iter()
            .filter(|((of, _), kept)| of == user && away(kept))
            .map(|(key, _)| key.clone())
            .collect();
        theirs.iter().for_each(|key| self.forget(key));
    }

    /// A new inner broker knows no sessions.
    pub(crate) fn forget_all(&mut self) {
        let left = self.kept.drain().filter(|(_, kept)| matches!(kept.state, State::Away { .. }));
        self.free.extend(left.map(|(_, kept)| kept.slot));
        self.free.append(&mut self.free_dirty);
    }

    /// How many sessions outlive their connection.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// The highest number in use so far.
    #[cfg(test)]
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    fn forget(&mut self, key: &(String, String)) {
        if let Some(kept) = self.kept.remove(key)
            && matches!(kept.state, State::Away { .. })
        {
            self.free_dirty.push(kept.slot);
        }
    }

    fn add(&mut self) -> u32 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESUME: Wish = Wish { fresh: false, keep: true };
    const AFRESH: Wish = Wish { fresh: true, keep: true };

    struct Clock(Instant, Slots);

    impl Clock {
        fn new() -> Self {
            Self(Instant::now(), Slots::default())
        }

        fn take(&mut self, client: &str, wish: Wish) -> Result<Seat, Refusal> {
            self.1.take("user", client, wish, self.0, (2, 2)).map(|(seat, _)| seat)
        }

        fn leave(&mut self, client: &str, seat: &Seat, expiry_secs: u32) {
            self.1.leave("user", client, seat, Subscriptions::default(), expiry_secs, self.0);
        }

        fn pass(&mut self, seconds: u64) {
            self.0 += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn sessions_with_nothing_kept_take_turns() {
        let mut clock = Clock::new();
        for client in ["a", "b", "c"] {
            let seat = clock.take(client, Wish::NOTHING_KEPT).unwrap();
            assert_eq!((seat.id, seat.clean, seat.dirty), (InnerId(1), true, false));
            clock.leave(client, &seat, 0);
        }
    }

    #[test]
    fn a_session_goes_on_until_it_expires() {
        let mut clock = Clock::new();
        let seat = clock.take("a", AFRESH).unwrap();
        assert_eq!((seat.id, seat.clean, seat.dirty), (InnerId(1), false, false));
        clock.leave("a", &seat, 10);
        clock.pass(9);
        let seat = clock.take("a", RESUME).unwrap();
        assert_eq!((seat.id, seat.clean, seat.dirty), (InnerId(1), false, false));
        clock.leave("a", &seat, 10);
        clock.pass(10);
        let seat = clock.take("a", RESUME).unwrap();
        assert!(seat.dirty, "another session, where the old one is to be swept away");
        clock.leave("a", &seat, NEVER);
        clock.pass(1 << 40);
        let seat = clock.take("a", Wish { fresh: false, keep: false }).unwrap();
        assert!(!seat.clean && !seat.dirty, "the same, for the last time");
        clock.leave("a", &seat, 0);
        assert_eq!(clock.1.kept(), 0);
        let seat = clock.take("a", Wish { fresh: false, keep: false }).unwrap();
        assert!(seat.clean, "there is nothing to go on with");
        assert_eq!(clock.1.last(), 1);
    }

    #[test]
    fn a_fresh_start_leaves_the_old_session_for_the_sweep() {
        let mut clock = Clock::new();
        for n in 0..5 {
            let seat = clock.take("a", AFRESH).unwrap();
            assert_eq!((seat.id, seat.dirty), (InnerId(1), n > 0));
            clock.leave("a", &seat, NEVER);
        }
        let seat = clock.take("a", Wish::NOTHING_KEPT).unwrap();
        assert_eq!((seat.id, seat.clean), (InnerId(1), true));
        clock.leave("a", &seat, 0);
        let seat = clock.take("b", RESUME).unwrap();
        assert!(!seat.dirty, "swept on the way");
    }

    #[test]
    fn users_with_the_same_client_id_are_strangers() {
        let mut slots = Slots::default();
        let now = Instant::now();
        let (mine, _) = slots.take("me", "x", AFRESH, now, (9, 9)).unwrap();
        slots.leave("me", "x", &mine, Subscriptions::default(), NEVER, now);
        let (theirs, _) = slots.take("them", "x", RESUME, now, (9, 9)).unwrap();
        assert_ne!(mine.id, theirs.id);
    }

    #[test]
    fn expired_sessions_make_room() {
        let mut clock = Clock::new();
        for (client, expiry_secs) in [("a", 5), ("b", NEVER)] {
            let seat = clock.take(client, AFRESH).unwrap();
            clock.leave(client, &seat, expiry_secs);
        }
        assert_eq!(clock.take("c", RESUME).unwrap_err(), Refusal::TooManySessions);
        clock.pass(5);
        assert!(clock.take("c", RESUME).unwrap().dirty);
        assert_eq!(clock.take("d", RESUME).unwrap_err(), Refusal::TooManySessions);
    }

    #[test]
    fn what_rumqttd_may_still_use_is_nobodys() {
        let mut clock = Clock::new();
        let seat = clock.take("a", AFRESH).unwrap();
        clock.1.lose("user", "a", &seat);
        let again = clock.take("a", RESUME).unwrap();
        assert_ne!(again.id, seat.id);
        clock.leave("a", &again, NEVER);
        clock.1.forget_all();
        assert_eq!((clock.1.kept(), clock.take("b", AFRESH).unwrap().dirty), (0, false));
    }
}
