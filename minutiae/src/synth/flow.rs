//! The flow of the ridges: a pattern's class and its singular points.
//!
//! The zero-pole model of Sherlock and Monro: each core adds half the angle under which it is seen,
//! each delta takes it away. A dome above the core bends the ridges of the tip, which the plain model
//! leaves too flat. Coordinates have their origin in the middle of the finger, x right, y up, pixels.

use std::f32::consts::PI;

use crate::random::Random;

/// The five classes that patterns are sorted into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Ridges rise and fall.
    Arch,
    /// An arch around an upright.
    TentedArch,
    /// Ridges enter and leave on the left.
    LeftLoop,
    /// Ridges enter and leave on the right.
    RightLoop,
    /// Ridges around a centre.
    Whorl,
}

impl Class {
    /// Draws a class as often as it occurs among people.
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.unit() {
            p if p < 0.037 => Class::Arch,
            p if p < 0.066 => Class::TentedArch,
            p if p < 0.404 => Class::LeftLoop,
            p if p < 0.721 => Class::RightLoop,
            _ => Class::Whorl,
        }
    }
}

/// The direction of the ridges everywhere.
pub(super) struct Flow {
    cores: Vec<(f32, f32)>,
    deltas: Vec<(f32, f32)>,
    /// Bend of the ridges above the core, radians at the side of the finger.
    dome: f32,
    /// Height of a plain arch.
    arch: f32,
    /// Turn of the whole pattern.
    tilt: f32,
}

impl Flow {
    pub(super) fn draw(class: Class, random: &mut Random) -> Self {
        let core = (random.normal(0.0, 8.0), random.normal(35.0, 12.0));
        let side = (random.range(85.0, 130.0), random.range(-120.0, -75.0));
        let (cores, deltas, arch) = match class {
            Class::Arch => (vec![], vec![], random.range(0.7, 1.2)),
            Class::TentedArch => {
                let below = (core.0 + random.normal(0.0, 5.0), core.1 - random.range(60.0, 95.0));
                (vec![core], vec![below], 0.0)
            }
            Class::LeftLoop => (vec![core], vec![side], 0.0),
            Class::RightLoop => (vec![core], vec![(-side.0, side.1)], 0.0),
            Class::Whorl => {
                let lower = (core.0 + random.normal(0.0, 10.0), core.1 - random.range(18.0, 60.0));
                let other = (-random.range(85.0, 130.0), random.range(-120.0, -75.0));
                (vec![core, lower], vec![side, other], 0.0)
            }
        };
        let (dome, tilt) = (random.range(0.35, 0.65), random.normal(0.0, 0.06));
        Self { cores, deltas, dome, arch, tilt }
    }

    /// Direction of the ridge at a point, radians counter-clockwise.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let seen = |points: &[(f32, f32)]| -> f32 {
            points.iter().map(|&(px, py)| (y - py).atan2(x - px)).sum()
        };
        let singular = 0.5 * (seen(&self.cores) - seen(&self.deltas));
        let height = ((y + 60.0) / 200.0).clamp(0.0, 1.0);
        let bend = -self.dome * height * (x / 150.0).clamp(-1.3, 1.3);
        let hill = (-((y + 30.0) / 130.0).powi(2)).exp();
        let arch = -(self.arch * hill * (PI * (x / 170.0).clamp(-1.0, 1.0)).sin()).atan();
        singular + bend + arch + self.tilt
    }

    /// How high a point lies above the deltas, 0 to 1: ridges are wider below them.
    pub(super) fn above_deltas(&self, y: f32) -> f32 {
        ((y + 140.0) / 120.0).clamp(0.0, 1.0)
    }
}
