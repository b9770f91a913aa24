//! How many messages rumqttd dropped on their way to one connection, told from the gaps in each topic's
//! numbering.
//!
//! rumqttd hands out what a filter's log still holds; a reader that falls behind by more misses the
//! oldest. Numbers may come in another order (two publishers of one topic) and more than once (two
//! filters that meet it), so the last 64 of each topic are remembered, and a number counts as lost
//! when it falls out of these unseen. What was sent before the first that came isn't counted.

use std::collections::HashMap;

use super::stamp::Stamp;

/// Topics remembered for one connection; the numbers of further ones aren't looked at.
const MAX_TOPICS: usize = 4_096;
/// Numbers remembered for each topic.
const REMEMBERED: u64 = 64;

#[derive(Debug, Default)]
pub(super) struct Losses {
    topics: HashMap<u32, Seen>,
}

/// The newest number, and of it and the 63 before it those that came: bit 0 is the newest.
#[derive(Debug, Clone, Copy)]
struct Seen {
    newest: u64,
    came: u64,
}

impl Losses {
    /// A message is handed to the client. How many are known by this to be lost.
    pub(super) fn note(&mut self, stamp: Stamp) -> u64 {
        let Some(seen) = self.topics.get_mut(&stamp.topic) else {
            if self.topics.len() < MAX_TOPICS {
                // What came before isn't this connection's business: as if it had come.
                self.topics.insert(stamp.topic, Seen { newest: stamp.number, came: u64::MAX });
            }
            return 0;
        };
        if stamp.number <= seen.newest {
            let age = seen.newest - stamp.number;
            if age < REMEMBERED {
                seen.came |= 1 << age;
            }
            return 0;
        }
        let step = stamp.number - seen.newest;
        seen.newest = stamp.number;
        if step >= REMEMBERED {
            // All that was remembered falls out, and so do numbers that were never in.
            let lost = u64::from(seen.came.count_zeros()) + (step - REMEMBERED);
            seen.came = 1;
            return lost;
        }
        let falls_out = seen.came >> (REMEMBERED - step);
        seen.came = (seen.came << step) | 1;
        step - u64::from(falls_out.count_ones())
    }

    /// The client subscribes other filters now: gaps from before mean nothing.
    pub(super) fn forget(&mut self) {
        self.topics.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn count(numbers: impl IntoIterator<Item = u64>) -> u64 {
        let mut losses = Losses::default();
        let stamp = Stamp { topic: 1, number: 0, publisher: 0, qos: 1, retain: false };
        numbers.into_iter().map(|number| losses.note(Stamp { number, ..stamp })).sum()
    }

    #[test]
    fn gaps_are_counted_once_they_are_old() {
        assert_eq!(count(1..=1_000), 0);
        assert_eq!(count((500..=600).chain(700..=800)), 99);
        assert_eq!(count([1, 1_000_000]), 999_998 - 63, "the last 63 may still come");
    }

    #[test]
    fn repeats_and_small_disorder_are_no_loss() {
        assert_eq!(count((1..=500).flat_map(|n| [n, n])), 0);
        assert_eq!(count((0..500).flat_map(|n| [2 * n + 2, 2 * n + 1])), 0);
    }

    proptest! {
        #[test]
        fn what_is_lost_and_what_came_make_the_whole(
            missing in prop::collection::hash_set(2u64..5_000, 0..2_000),
        ) {
            // Enough at the end that every gap is old.
            let came: Vec<u64> = (1..5_100).filter(|n| !missing.contains(n)).collect();
            let missing: HashSet<u64> = missing;
            prop_assert_eq!(count(came), missing.len() as u64);
        }
    }
}
