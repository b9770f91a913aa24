//! Wrong passwords, counted by address: ten at once, then one every three seconds. Who has used these up
//! is refused without a check, so that guessing is slow and others' logins don't wait behind it. An IPv6
//! address counts with all of its /64, which is one site's.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::places::site;

const AT_ONCE: u32 = 10;
const ONE_EVERY: Duration = Duration::from_secs(3);
/// Addresses remembered. When there are more, those forgiven are forgotten; if none is, all addresses
/// that aren't known share one count.
const MAX_ADDRESSES: usize = 4_096;

#[derive(Debug)]
pub(super) struct Failures {
    of: HashMap<IpAddr, Count>,
    others: Count,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    since: Instant,
}

impl Count {
    fn new(now: Instant) -> Self {
        Self { failures: 0, since: now }
    }

    fn forgive(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let forgiven = u32::try_from(passed.as_nanos() / ONE_EVERY.as_nanos()).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_sub(forgiven);
        self.since += ONE_EVERY * forgiven.min(1 << 20);
        if self.failures == 0 {
            self.since = now;
        }
    }
}

impl Failures {
    pub(super) fn new(now: Instant) -> Self {
        Self { of: HashMap::new(), others: Count::new(now) }
    }

    /// Whether a password from here is looked at.
    pub(super) fn may_try(&mut self, from: IpAddr, now: Instant) -> bool {
        let from = site(from);
        let full = self.of.len() >= MAX_ADDRESSES;
        let count = match self.of.get_mut(&from) {
            Some(count) => count,
            None if full => &mut self.others,
            None => return true,
        };
        count.forgive(now);
        count.failures < AT_ONCE
    }

    /// One from here was wrong.
    pub(super) fn failed(&mut self, from: IpAddr, now: Instant) {
        let from = site(from);
        if self.of.len() >= MAX_ADDRESSES && !self.of.contains_key(&from) {
            self.of.retain(|_, count| {
                count.forgive(now);
                count.failures > 0
            });
        }
        let full = self.of.len() >= MAX_ADDRESSES && !self.of.contains_key(&from);
        let count = match full {
            true => &mut self.others,
            false => self.of.entry(from).or_insert_with(|| Count::new(now)),
        };
        count.forgive(now);
        // More than these at once, from checks under way, are forgiven no later.
        count.failures = (count.failures + 1).min(AT_ONCE);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn address(at: u32) -> IpAddr {
        IpAddr::from(at.to_be_bytes())
    }

    #[test]
    fn ten_at_once_and_then_one_every_three_seconds() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        for _ in 0..AT_ONCE {
            assert!(failures.may_try(address(1), now));
            failures.failed(address(1), now);
        }
        assert!(!failures.may_try(address(1), now));
        assert!(failures.may_try(address(2), now), "others are not concerned");
        assert!(!failures.may_try(address(1), now + Duration::from_millis(2_900)));
        let later = now + Duration::from_secs(3);
        assert!(failures.may_try(address(1), later));
        failures.failed(address(1), later);
        assert!(!failures.may_try(address(1), later));
        assert!(failures.may_try(address(1), now + Duration::from_secs(3_600)));
    }

    #[test]
    fn a_site_of_ipv6_addresses_is_one_and_failures_beyond_the_count_cost_no_more_time() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        for host in 0..250u128 {
            failures.failed(Ipv6Addr::from_bits((0x2001_0db8 << 96) | host).into(), now);
        }
        let another: IpAddr = "2001:db8::ffff".parse().unwrap();
        assert!(!failures.may_try(another, now));
        assert!(failures.may_try("2001:db8:0:1::1".parse().unwrap(), now));
        assert!(failures.may_try(another, now + ONE_EVERY));
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_are_limited_together() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        for at in 0..50_000 {
            if failures.may_try(address(at), now) {
                failures.failed(address(at), now);
            }
        }
        assert_eq!(failures.of.len(), MAX_ADDRESSES);
        assert!(!failures.may_try(address(60_000), now));
        assert!(failures.may_try(address(60_000), now + Duration::from_secs(60)));
    }
}
