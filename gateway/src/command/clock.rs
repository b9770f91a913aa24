//! By which clock a command is too late.
//!
//! | from | to | the time that counts |
//! |---|---|---|
//! | asked, on site | it arrives | this machine's wall clock: the request names a time, or arrives at once |
//! | asked, at the bridge | it arrives | the bridge's clock, as an answer of the bridge told it, carried on by the time since boot |
//! | it arrives | it begins | the time since boot |
//!
//! So a wall clock that is set back makes no command live longer, and one that is set forward ends none early.
//! After a start there is no earlier answer, and the next one (a connection begins with one) says the bridge's
//! time anew. What was accepted before a restart never begins: there is nothing to be late for.
//!
//! The time since boot goes on while the machine sleeps; a process's own monotonic clock does not, and would
//! let a command that waited in a socket's buffer live on.

use std::{sync::Arc, time::Duration};

use topics::Timestamp;

use crate::journal;

/// Two clocks, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Now {
    /// What this machine calls the time.
    pub(super) wall: Timestamp,
    /// Since it was booted, sleep included; monotonic.
    pub(super) since_boot: Duration,
}

impl Now {
    /// This machine's.
    pub(super) fn read() -> Self {
        Self { wall: journal::now(), since_boot: since_boot() }
    }
}

/// Tells the time.
pub(super) type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// In steps of 10 ms. Where the system doesn't tell it, the journal's, which stands still in sleep.
fn since_boot() -> Duration {
    let told = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_else(|| Duration::from_millis(journal::uptime_ms()))
}

/// The bridge's time, as it was last learned.
#[derive(Debug, Default)]
pub(super) struct BridgeTime {
    learned: Option<Learned>,
}

#[derive(Debug)]
struct Learned {
    /// What was to be added to the wall clock. The same again is no news.
    offset_ms: i64,
    bridge: Timestamp,
    at: Duration,
}

impl BridgeTime {
    /// The bridge's clock was just found to be so far ahead of the wall clock.
    pub(super) fn learn(&mut self, offset_ms: i64, now: Now) {
        if self.learned.as_ref().is_none_or(|learned| learned.offset_ms != offset_ms) {
            let bridge = Timestamp::from_millis(now.wall.as_millis().saturating_add(offset_ms));
            self.learned = Some(Learned { offset_ms, bridge, at: now.since_boot });
        }
    }

    /// The bridge's time now; none before it was learned.
    pub(super) fn at(&self, now: Now) -> Option<Timestamp> {
        let learned = self.learned.as_ref()?;
        Some(learned.bridge.plus(now.since_boot.saturating_sub(learned.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall_seconds: i64, since_boot: u64) -> Now {
        let wall = Timestamp::from_millis(wall_seconds * 1_000);
        Now { wall, since_boot: Duration::from_secs(since_boot) }
    }

    #[test]
    fn the_bridges_time_goes_on_whatever_happens_to_the_wall_clock() {
        let mut bridge = BridgeTime::default();
        assert_eq!(bridge.at(now(1_000, 10)), None);
        bridge.learn(5_000, now(1_000, 10));
        for wall in [1_020, 0, 90_000] {
            let seconds = bridge.at(now(wall, 30)).unwrap().as_millis() / 1_000;
            assert_eq!(seconds, 1_025);
            // A command brings the offset that was known before the wall clock was set.
            bridge.learn(5_000, now(wall, 30));
        }
        // The next answer, with the wall clock an hour back.
        bridge.learn(3_605_000, now(1_060 - 3_600, 70));
        assert_eq!(bridge.at(now(0, 71)).unwrap().as_millis(), 1_066_000);
    }

    #[test]
    fn this_machine_tells_how_long_it_is_up() {
        let (first, second) = (Now::read(), Now::read());
        assert!(first.since_boot > Duration::ZERO && first.since_boot <= second.since_boot);
    }
}
