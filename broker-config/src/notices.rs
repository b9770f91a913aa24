//! Log lines about clients, each said once and then no more for a while: a client that is refused a
//! thousand times a second must not fill a disk. All are counted elsewhere.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::session::lock;

/// The same is said again after this time, with how often it happened meanwhile.
const QUIET: Duration = Duration::from_secs(60);
/// Different ones within [`QUIET`]; further ones are only counted.
const MAX_KEYS: usize = 512;

/// Whether to say something now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    /// Say it; it happened `unsaid` times since it was last said.
    Now { unsaid: u64 },
    /// It was said a moment ago.
    No,
}

#[derive(Debug, Default)]
pub(crate) struct Notices {
    said: Mutex<HashMap<String, Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    unsaid: u64,
}

impl Notices {
    /// Something happened that is the same as everything else with this key.
    pub(crate) fn note(&self, now: Instant, key: String) -> Say {
        let mut said = lock(&self.said);
        if let Some(before) = said.get_mut(&key) {
            if now.saturating_duration_since(before.at) < QUIET {
                before.unsaid += 1;
                return Say::No;
            }
            let unsaid = std::mem::take(&mut before.unsaid);
            before.at = now;
            return Say::Now { unsaid };
        }
        if said.len() >= MAX_KEYS {
            said.retain(|_, before| now.saturating_duration_since(before.at) < QUIET);
        }
        if said.len() >= MAX_KEYS {
            return Say::No;
        }
        said.insert(key, Said { at: now, unsaid: 0 });
        Say::Now { unsaid: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_with_its_count() {
        let (notices, now) = (Notices::default(), Instant::now());
        let note =
            |seconds, key: &str| notices.note(now + Duration::from_secs(seconds), key.to_owned());
        assert_eq!(note(0, "a"), Say::Now { unsaid: 0 });
        assert_eq!(note(1, "b"), Say::Now { unsaid: 0 });
        for _ in 0..5 {
            assert_eq!(note(2, "a"), Say::No);
        }
        assert_eq!(note(60, "a"), Say::Now { unsaid: 5 });
        assert_eq!(note(61, "a"), Say::No);
    }

    #[test]
    fn a_flood_of_different_ones_is_cut_and_forgotten() {
        let (notices, now) = (Notices::default(), Instant::now());
        let said = (0..10_000).filter(|at| notices.note(now, at.to_string()) != Say::No).count();
        assert_eq!(said, MAX_KEYS);
        let later = now + QUIET;
        assert_eq!(notices.note(later, "new".into()), Say::Now { unsaid: 0 });
    }
}
