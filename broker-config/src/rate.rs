//! How fast a client may send, and all of one user together four times that: a bucket of packets and one of bytes. Too fast is made to wait, by not
//! being read, so that TCP slows it; nothing is lost and nobody is sent away.
//!
//! Acknowledgements of what the broker sent aren't counted: their number is the broker's choice. The
//! owner's own clients (the gateway, the bridge) aren't limited.

use std::time::{Duration, Instant};

use topics::Role;

use crate::session::Rights;

/// How much of something, each second on the average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// In the long run.
    pub per_second: f64,
    /// At once, after a silence.
    pub burst: f64,
}

/// What one client may send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Packets other than acknowledgements.
    pub packets: Rate,
    /// Bytes.
    pub bytes: Rate,
}

impl Rates {
    /// A panel's, a platform's, a viewer's.
    pub const CLIENT: Self = Self {
        packets: Rate { per_second: 2_000.0, burst: 4_000.0 },
        bytes: Rate { per_second: 4.0 * 1_048_576.0, burst: 16.0 * 1_048_576.0 },
    };
    /// A gateway's at the cloud's broker: it has a backlog to send after an outage.
    pub const GATEWAY: Self = Self {
        packets: Rate { per_second: 20_000.0, burst: 40_000.0 },
        bytes: Rate { per_second: 32.0 * 1_048_576.0, burst: 64.0 * 1_048_576.0 },
    };
}

/// A bucket that may be overdrawn; what is owed is waited for.
#[derive(Debug, Clone)]
struct Bucket {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, level: rate.burst, at: now }
    }

    /// Takes `amount`; how long to wait until nothing is owed.
    fn take(&mut self, now: Instant, amount: f64) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + passed * self.rate.per_second).min(self.rate.burst) - amount;
        if self.level >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.level / self.rate.per_second).unwrap_or(Duration::MAX)
    }
}

/// How much faster than one client all of its user's may send together. A user's outlives its
/// connections, so coming back is no way around it.
const USER: f64 = 4.0;

/// One connection's, or one user's.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    buckets: Option<(Bucket, Bucket)>,
}

impl Throttle {
    /// For someone with these rights; `client` is what everybody may who has no class of their own.
    pub(crate) fn new(rights: &Rights, client: Rates, now: Instant) -> Self {
        let rates = match rights {
            Rights::Internal { .. } | Rights::Role(Role::EdgeGateway(_) | Role::Bridge) => None,
            Rights::Role(Role::CloudGateway(_)) => Some(Rates::GATEWAY),
            Rights::Role(Role::Platform | Role::Panel(_) | Role::Viewer | Role::Custom { .. }) => {
                Some(client)
            }
        };
        let buckets =
            rates.map(|rates| (Bucket::new(rates.packets, now), Bucket::new(rates.bytes, now)));
        Self { buckets }
    }

    /// For all connections of a user with these rights.
    pub(crate) fn of_user(rights: &Rights, client: Rates, now: Instant) -> Self {
        let mut throttle = Self::new(rights, client, now);
        if let Some((packets, bytes)) = &mut throttle.buckets {
            for bucket in [packets, bytes] {
                bucket.rate.per_second *= USER;
                bucket.rate.burst *= USER;
                bucket.level = bucket.rate.burst;
            }
        }
        throttle
    }

    /// How long not to read, after this much was read.
    pub(crate) fn take(&mut self, now: Instant, packets: u64, bytes: usize) -> Duration {
        match &mut self.buckets {
            None => Duration::ZERO,
            Some((of_packets, of_bytes)) => {
                of_packets.take(now, packets as f64).max(of_bytes.take(now, bytes as f64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATES: Rates = Rates {
        packets: Rate { per_second: 10.0, burst: 20.0 },
        bytes: Rate { per_second: 1_000.0, burst: 5_000.0 },
    };

    fn throttle(now: Instant) -> Throttle {
        Throttle::new(&Rights::Role(Role::Viewer), RATES, now)
    }

    #[test]
    fn a_burst_passes_and_what_is_owed_is_waited_for() {
        let now = Instant::now();
        let mut throttle = throttle(now);
        assert_eq!(throttle.take(now, 20, 5_000), Duration::ZERO);
        assert_eq!(throttle.take(now, 5, 0), Duration::from_millis(500));
        assert_eq!(throttle.take(now, 0, 2_000), Duration::from_secs(2));
        assert_eq!(throttle.take(now + Duration::from_secs(2), 0, 0), Duration::ZERO);
    }

    #[test]
    fn a_user_has_four_times_as_much() {
        let now = Instant::now();
        let mut all = Throttle::of_user(&Rights::Role(Role::Viewer), RATES, now);
        assert_eq!(all.take(now, 80, 20_000), Duration::ZERO);
        assert_eq!(all.take(now, 40, 0), Duration::from_secs(1));
    }

    #[test]
    fn the_owner_is_never_slowed() {
        let now = Instant::now();
        for rights in [Rights::Internal { qos: 2, charged: false }, Rights::Role(Role::Bridge)] {
            let mut throttle = Throttle::new(&rights, RATES, now);
            assert_eq!(throttle.take(now, u64::MAX, usize::MAX), Duration::ZERO);
        }
    }

    proptest! {
        #[test]
        fn who_waits_as_told_stays_within_rate_and_burst(
            takes in prop::collection::vec((0u64..50, 0usize..9_000, 0u64..400), 1..60),
        ) {
            let start = Instant::now();
            let mut throttle = throttle(start);
            let (mut now, mut packets, mut bytes) = (start, 0, 0);
            for (more_packets, more_bytes, idle_ms) in takes {
                let wait = throttle.take(now, more_packets, more_bytes);
                packets += more_packets;
                bytes += more_bytes;
                now += wait;
                let seconds = (now - start).as_secs_f64();
                prop_assert!(packets as f64 <= 20.0 + 10.0 * seconds + 0.1);
                prop_assert!(bytes as f64 <= 5_000.0 + 1_000.0 * seconds + 1.0);
                now += Duration::from_millis(idle_ms);
            }
        }
    }
}
