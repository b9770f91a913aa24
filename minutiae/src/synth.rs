//! Fingers that belong to nobody: generated prints for tests, demonstrations and calibration.
//!
//! A finger is drawn from a seed: its class, the place of its cores and deltas, the flow of its
//! ridges around them (`flow`), and the ridges themselves, grown out of noise by filtering it again
//! and again along the flow (`master`). An impression is what a reader sees of it: turned, shifted
//! and stretched, pressed more or less, dry or moist, scratched and noisy (`impression`). The method
//! is that of Cappelli, Maio and Maltoni's synthetic fingerprint generation.
//!
//! The same seeds give the same image.

mod flow;
mod impression;
mod master;

use std::fmt;

use crate::image::GrayImage;
use crate::map::Map;
use crate::random::{Random, seed_of};

pub use flow::Class;

/// Columns of an impression.
pub const WIDTH_PIXELS: u32 = 300;
/// Rows of an impression.
pub const HEIGHT_PIXELS: u32 = 400;
/// Dots an inch of an impression.
pub const RESOLUTION: u16 = 500;

/// A finger: its ridges are grown once, its impressions are quick.
#[derive(Clone)]
pub struct Finger {
    seed: u64,
    class: Class,
    /// Positive on ridges, about one at their crest.
    master: Map,
}

impl Finger {
    /// The finger of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 0);
        let class = Class::draw(&mut random);
        Self { seed, class, master: master::grow(class, &mut random) }
    }

    /// The finger of a name such as `user-001/right-index`.
    pub fn named(name: &str) -> Self {
        Self::new(seed_of(name))
    }

    /// Its pattern.
    pub fn class(&self) -> Class {
        self.class
    }

    /// One touch of it: 300 by 400 pixels at 500 dpi, dark ridges on light ground.
    pub fn impression(&self, seed: u64) -> GrayImage {
        let mut random = Random::new(self.seed, seed.wrapping_add(1));
        impression::press(&self.master, &mut random)
    }
}

impl fmt::Debug for Finger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finger({}, {:?})", self.seed, self.class)
    }
}

#[cfg(test)]
mod tests;
