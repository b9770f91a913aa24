//! Rate limits: fixed windows of a minute, one per key, as the documented headers describe them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use topics::{ErrorBody, ErrorCode, Timestamp};

/// How long a window lasts.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The most keys that are counted at a time; past it, windows that have ended are forgotten first.
const MAX_KEYS: usize = 10_000;

/// Counts per key.
#[derive(Debug)]
pub(crate) struct Limit {
    per_window: u32,
    windows: Mutex<HashMap<String, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Timestamp,
    used: u32,
}

/// How a request stands to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it may go on.
    pub(crate) allowed: bool,
    limit: u32,
    remaining: u32,
    ends: Timestamp,
    now: Timestamp,
}

impl Limit {
    pub(crate) fn new(per_window: u32) -> Self {
        Self { per_window, windows: Mutex::default() }
    }

    /// Counts one use by `key`, where the limit allows it.
    pub(crate) fn take(&self, key: &str, now: Timestamp) -> Standing {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_KEYS && !windows.contains_key(key) {
            windows.retain(|_, window| window.ends > now);
            if windows.len() >= MAX_KEYS {
                windows.clear();
            }
        }
        let fresh = Window { ends: now.plus(WINDOW), used: 0 };
        let window = windows.entry(key.to_owned()).or_insert(fresh);
        // A clock set back must not leave a window open for longer than one.
        if window.ends <= now || window.ends > fresh.ends {
            *window = fresh;
        }
        let allowed = window.used < self.per_window;
        window.used += u32::from(allowed);
        let remaining = self.per_window - window.used;
        Standing { allowed, limit: self.per_window, remaining, ends: window.ends, now }
    }

    /// Takes one use back: what it was for didn't begin.
    pub(crate) fn give_back(&self, key: &str) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(key) {
            window.used = window.used.saturating_sub(1);
        }
    }

    /// How things stand for who has used nothing.
    pub(crate) fn untouched(&self, now: Timestamp) -> Standing {
        let ends = now.plus(WINDOW);
        let limit = self.per_window;
        Standing { allowed: true, limit, remaining: limit, ends, now }
    }
}

impl Standing {
    /// Whole seconds until the window ends, at least one.
    fn retry_after_seconds(self) -> u64 {
        self.ends.since(self.now).as_secs_f64().ceil().max(1.0) as u64
    }

    /// The documented headers.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let reset = self.ends.as_millis().max(0).unsigned_abs().div_ceil(1_000);
        for (name, value) in [
            ("x-ratelimit-limit", u64::from(self.limit)),
            ("x-ratelimit-remaining", u64::from(self.remaining)),
            ("x-ratelimit-reset", reset),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }

    /// 429.
    pub(crate) fn error(self, what: &str) -> ErrorBody {
        let message = format!("Too many {what} (rate limit exceeded)");
        ErrorBody::new(ErrorCode::RateLimitExceeded, message)
            .with("limit", self.limit)
            .with("window", WINDOW.as_millis() as u64)
            .with("retryAfter", self.retry_after_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + ms)
    }

    #[test]
    fn it_refuses_past_the_limit_and_opens_again_with_the_next_window() {
        let limit = Limit::new(2);
        assert_eq!(limit.take("a", at(0)).remaining, 1);
        assert_eq!(limit.take("a", at(10)).remaining, 0);
        let refused = limit.take("a", at(500));
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after_seconds(), 60);
        assert!(limit.take("b", at(500)).allowed, "another key has its own");
        assert!(limit.take("a", at(60_000)).allowed);
    }

    #[test]
    fn what_is_given_back_can_be_used() {
        let limit = Limit::new(1);
        assert!(limit.take("a", at(0)).allowed);
        limit.give_back("a");
        assert!(limit.take("a", at(1)).allowed);
        assert!(!limit.take("a", at(2)).allowed);
    }

    #[test]
    fn a_clock_set_back_does_not_lock_anybody_out() {
        let limit = Limit::new(1);
        assert!(limit.take("a", at(3_600_000)).allowed);
        assert!(limit.take("a", at(0)).allowed);
    }

    #[test]
    fn it_stays_within_its_bound() {
        let limit = Limit::new(1);
        for n in 0..2 * MAX_KEYS {
            limit.take(&n.to_string(), at(0));
        }
        assert!(limit.windows.lock().unwrap().len() <= MAX_KEYS);
    }
}
