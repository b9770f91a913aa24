//! The bridge's clocks, and what follows when the wall clock is set.
//!
//! Expiries, penalties and silences are kept as times of the wall clock: they are shown, sent and stored. When
//! that clock is set, they are moved by as much, so that each ends when it would have ended on the monotonic
//! clock: a command waits as long as it was meant to, neither longer nor shorter. After a restart only the wall
//! clock is left. A clock that is slewed (some milliseconds a second) was not set.
//!
//! The monotonic clock is the time since boot, which goes on while the machine sleeps. A virtual machine that
//! is paused from outside, and whose time since boot does not count that, takes the pause for a set clock.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use topics::Timestamp;

/// Less than this is slewing, or the grain of the time since boot.
const STEP: i64 = 1_000;

/// Both clocks, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) since_boot: Duration,
}

/// Tells the time.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    pub(crate) fn new(read: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// This machine's.
    pub(crate) fn of_machine() -> Self {
        let started = Instant::now();
        // In steps of 10 ms. Where the system doesn't tell it, a clock that stands still in sleep.
        let since_boot = move || {
            let told = std::fs::read_to_string("/proc/uptime").ok();
            let seconds = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
            seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or_else(|| started.elapsed())
        };
        Self::new(move || Now {
            wall: std::time::SystemTime::now().into(),
            since_boot: since_boot(),
        })
    }

    pub(crate) fn read(&self) -> Now {
        (self.0)()
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.read().wall
    }
}

/// Notices that the wall clock was set. To be asked about every second.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    seen: Option<Now>,
}

impl Steps {
    /// By how many milliseconds it was set forward (or back, below 0) since the last look; 0 where it
    /// was not.
    pub(crate) fn look(&mut self, now: Now) -> i64 {
        let Some(seen) = self.seen.replace(now) else { return 0 };
        let wall = now.wall.as_millis() - seen.wall.as_millis();
        let passed = now.since_boot.saturating_sub(seen.since_boot).as_millis();
        let by = wall.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX));
        if by.abs() < STEP { 0 } else { by }
    }
}

/// A time of the wall clock, after that was set.
pub(crate) fn moved(time: Timestamp, by_ms: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_add(by_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_once_and_slewing_never() {
        let mut steps = Steps::default();
        let now = |wall_ms, boot_ms| Now {
            wall: Timestamp::from_millis(wall_ms),
            since_boot: Duration::from_millis(boot_ms),
        };
        let told: Vec<i64> = [
            now(1_000_000, 5_000),
            now(1_001_000, 6_000),
            now(4_602_000, 7_000),     // an hour forward
            now(4_603_010, 8_000),     // slewed
            now(4_604_500, 9_000),     // and again
            now(1_005_500, 10_000),    // back
            now(9_605_500, 8_610_000), // slept
        ]
        .map(|now| steps.look(now))
        .to_vec();
        assert_eq!(told, [0, 0, 3_600_000, 0, 0, -3_600_000, 0]);
    }
}
