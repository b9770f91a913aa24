//! Chance that can be repeated: every random test prints its seed and takes it back.

use std::time::Duration;

/// Set it to repeat a run.
pub(crate) const SEED: &str = "RIDGEWAY_SEED";

/// xorshift64*.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds are small numbers and neighbours: spread them.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

/// The seed of this run, which is printed: of the environment, or a new one.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED} must be a number: {text}")),
        Err(_) => u64::from(uuid::Uuid::new_v4().as_fields().0),
    };
    println!("{test}: {SEED}={seed}");
    seed
}
