//! When the store takes nothing: from a commit that failed until commits went well for a while.
//!
//! ```text
//!           a commit fails                  room is found              events are committed, and no
//!   well ─────────────────────▶ refusing ────────────────▶ on trial ─────────────────────────────▶ well
//!                                ▲    ▲ no room: looked for │         failure for 5 s; or none for 60 s
//!                                │    │ again, later each   │
//!                                │    └───── time           │
//!                                └───────── a commit fails ◀┘
//! ```
//!
//! While it is refusing nothing is tried but the search for room: on a full disk a small commit finds some
//! between free pages, the next one doesn't, and after each failure the file is opened anew. That a mebibyte
//! found room doesn't say either that what gateways have kept meanwhile will; hence the trial, in which
//! everything is tried and the outage still shown. Where no gateway has anything, nothing shows it, and the
//! trial ends by itself.

use std::time::{Duration, Instant};

use super::StoreError;

/// From a failure to the search for room; twice as long after each in a row, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(8);
/// How long commits must go well before the outage is over, events among them; and without any.
const TRIAL: Duration = Duration::from_secs(5);
const TRIAL_WITHOUT_EVENTS: Duration = Duration::from_secs(60);

/// How commits go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why commits fail, or did a moment ago.
    pub outage: Option<StoreError>,
    /// Commits that failed since the start.
    pub failed_commits: u64,
}

/// The state, and the failures counted.
#[derive(Debug, Default)]
pub(super) struct State {
    outage: Option<Outage>,
    failed_commits: u64,
}

#[derive(Debug)]
struct Outage {
    reason: StoreError,
    pause: Duration,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Refusing { look_at: Instant },
    Trial { since: Instant, took_events: bool },
}

/// What time asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// To look for room.
    Search,
    /// To say that the outage is over.
    Over {
        failed_commits: u64,
    },
}

impl State {
    pub(super) fn health(&self) -> Health {
        let outage = self.outage.as_ref().map(|outage| outage.reason.clone());
        Health { outage, failed_commits: self.failed_commits }
    }

    /// What those are told who want something committed now, where nothing is tried.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let outage = self.outage.as_ref()?;
        let told = match &outage.reason {
            StoreError::Full => StoreError::Full,
            // It was said in full when the outage began.
            _ => StoreError::Reopening,
        };
        matches!(outage.phase, Phase::Refusing { .. }).then_some(told)
    }

    /// Events were committed.
    pub(super) fn took_events(&mut self) {
        if let Some(Outage { phase: Phase::Trial { took_events, .. }, .. }) = &mut self.outage {
            *took_events = true;
        }
    }

    /// A commit failed. Whether an outage begins with it. That the disk is full says more than what follows
    /// from it.
    pub(super) fn failed(&mut self, error: &StoreError, now: Instant) -> bool {
        self.failed_commits += 1;
        if !error.is_of_disk() {
            return false;
        }
        let Some(outage) = &mut self.outage else {
            let phase = Phase::Refusing { look_at: now + FIRST_PAUSE };
            self.outage = Some(Outage { reason: error.clone(), pause: FIRST_PAUSE, phase });
            return true;
        };
        if *error == StoreError::Full {
            outage.reason = StoreError::Full;
        }
        if matches!(outage.phase, Phase::Trial { .. }) {
            outage.refuse_longer(now);
        }
        false
    }

    /// What is due. A search is, once; say what it found.
    pub(super) fn pass_time(&mut self, now: Instant) -> Due {
        let failed_commits = self.failed_commits;
        match self.outage.as_mut() {
            Some(Outage { phase: Phase::Trial { since, took_events }, .. }) => {
                let length = if *took_events { TRIAL } else { TRIAL_WITHOUT_EVENTS };
                if now.saturating_duration_since(*since) < length {
                    return Due::Nothing;
                }
                self.outage = None;
                Due::Over { failed_commits }
            }
            Some(outage @ Outage { phase: Phase::Refusing { .. }, .. }) if outage.is_due(now) => {
                outage.refuse_longer(now);
                Due::Search
            }
            Some(_) | None => Due::Nothing,
        }
    }

    /// A search found room: from now on everything is tried.
    pub(super) fn found_room(&mut self, now: Instant) {
        if let Some(outage) = &mut self.outage {
            outage.phase = Phase::Trial { since: now, took_events: false };
        }
    }
}

impl Outage {
    fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Refusing { look_at } if look_at <= now)
    }

    fn refuse_longer(&mut self, now: Instant) {
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        self.phase = Phase::Refusing { look_at: now + self.pause };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn room_that_does_not_last_neither_ends_an_outage_nor_begins_another() {
        let (mut state, mut now) = (State::default(), Instant::now());
        assert!(state.failed(&StoreError::Reopening, now), "it begins");
        assert!(!state.failed(&StoreError::Full, now));
        assert_eq!(state.refusal(), Some(StoreError::Full));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let before = now;
            while state.pass_time(now) == Due::Nothing {
                now += SECOND / 10;
            }
            pauses.push(now.duration_since(before).as_secs_f64().round());
            state.found_room(now);
            assert_eq!((state.refusal(), state.health().outage), (None, Some(StoreError::Full)));
            // What was found doesn't do for the next commit.
            assert!(!state.failed(&StoreError::Full, now), "it is the same outage");
            assert!(state.refusal().is_some());
        }
        assert_eq!(pauses, [1.0, 4.0, 8.0, 8.0, 8.0, 8.0]);
        assert_eq!(state.health().failed_commits, 8);
    }

    #[test]
    fn it_is_over_when_commits_went_well_for_a_while() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(state.pass_time(now), Due::Nothing);
        state.failed(&StoreError::Full, now);
        assert_eq!(state.pass_time(now + FIRST_PAUSE), Due::Search);
        assert_eq!(state.pass_time(now + FIRST_PAUSE), Due::Nothing, "one search at a time");
        let found = now + FIRST_PAUSE;
        state.found_room(found);
        state.took_events();
        assert_eq!(state.pass_time(found + TRIAL - SECOND), Due::Nothing);
        assert_eq!(state.pass_time(found + TRIAL), Due::Over { failed_commits: 1 });
        assert_eq!(state.health(), Health { outage: None, failed_commits: 1 });
        assert!(state.failed(&StoreError::Full, found + TRIAL), "the next one is another");
    }

    #[test]
    fn without_events_nothing_shows_that_it_is_over_for_long() {
        let (mut state, now) = (State::default(), Instant::now());
        state.took_events();
        state.failed(&StoreError::Full, now);
        state.took_events();
        state.found_room(now);
        assert_eq!(state.pass_time(now + TRIAL_WITHOUT_EVENTS - SECOND), Due::Nothing);
        let over = state.pass_time(now + TRIAL_WITHOUT_EVENTS);
        assert_eq!(over, Due::Over { failed_commits: 1 });
    }

    #[test]
    fn who_is_refused_is_not_told_what_the_log_says() {
        let mut state = State::default();
        let reason = StoreError::Database("page 7".into());
        state.failed(&reason, Instant::now());
        assert_eq!(state.refusal(), Some(StoreError::Reopening));
        assert_eq!(state.health().outage, Some(reason));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_no_outage() {
        let mut state = State::default();
        assert!(!state.failed(&StoreError::Corrupt("a row"), Instant::now()));
        assert_eq!(state.health(), Health { outage: None, failed_commits: 1 });
    }
}
