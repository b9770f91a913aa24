//! The flow of the ridges: a pattern's class and its singular points.
//!
//! The zero-pole model of Sherlock and Monro: each core adds half the angle under which it is seen,
//! each delta takes it away. Plain, it fans the ridges out under a core; as Vizcaya and Gerhardt do,
//! the angle is bent so that ridges run on side by side along the core's axis and turn above it. The
//! tip is domed, and slow waves make every finger its own.
//!
//! Coordinates have their origin in the middle of the finger, x right, y up, pixels at 500 dpi.

use std::f32::consts::{FRAC_PI_2, PI, TAU};

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
    cores: Vec<Core>,
    deltas: Vec<(f32, f32)>,
    /// Bend of the ridges above the core, radians at the side of the finger.
    dome: f32,
    /// Steepness of a plain arch.
    arch: f32,
    /// Turn of the whole pattern.
    tilt: f32,
    waves: [Wave; 3],
}

struct Core {
    x: f32,
    y: f32,
    /// Direction into which its loop opens.
    axis: f32,
    /// How long ridges keep to the axis before they turn: 1 is the plain model.
    bend: f32,
}

/// A slow wave over the finger.
struct Wave {
    across: f32,
    up: f32,
    phase: f32,
    turn: f32,
}

impl Flow {
    pub(super) fn draw(class: Class, random: &mut Random) -> Self {
        let core = (random.normal(0.0, 12.0), random.normal(30.0, 16.0));
        let mut delta = |side: f32| (side * random.range(68.0, 125.0), random.range(-145.0, -75.0));
        let (right, left) = (delta(1.0), delta(-1.0));
        let (cores, deltas) = match class {
            Class::Arch => (vec![], vec![]),
            Class::TentedArch => {
                let below = (core.0 + random.normal(0.0, 6.0), core.1 - random.range(55.0, 95.0));
                (vec![core], vec![below])
            }
            Class::LeftLoop => (vec![core], vec![right]),
            Class::RightLoop => (vec![core], vec![left]),
            Class::Whorl => {
                let lower = (core.0 + random.normal(0.0, 14.0), core.1 - random.range(16.0, 70.0));
                (vec![core, lower], vec![right, left])
            }
        };
        let bend = match class {
            Class::LeftLoop | Class::RightLoop => random.range(1.6, 2.3),
            Class::Whorl => random.range(1.1, 1.5),
            Class::Arch | Class::TentedArch => random.range(1.8, 2.6),
        };
        Self {
            cores: opened(&cores, &deltas, bend),
            deltas,
            dome: random.range(0.1, 0.4),
            arch: if class == Class::Arch { random.range(0.7, 1.2) } else { 0.0 },
            tilt: random.normal(0.0, 0.07),
            waves: std::array::from_fn(|_| Wave::draw(random)),
        }
    }

    /// Direction of the ridge at a point, radians counter-clockwise.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let cores: f32 = self.cores.iter().map(|c| c.turn_at(x, y)).sum();
        let deltas: f32 = self.deltas.iter().map(|&d| seen(d, x, y)).sum();
        let height = ((y + 60.0) / 200.0).clamp(0.0, 1.0);
        let dome = -self.dome * height * (x / 150.0).clamp(-1.3, 1.3);
        let hill = (-((y + 30.0) / 130.0).powi(2)).exp();
        let arch = -(self.arch * hill * (PI * (x / 170.0).clamp(-1.0, 1.0)).sin()).atan();
        let waves: f32 = self.waves.iter().map(|w| w.at(x, y)).sum();
        0.5 * (cores - deltas) + dome + arch + self.tilt + waves
    }

    /// How high a point lies above the deltas, 0 to 1: ridges are wider below them.
    pub(super) fn above_deltas(&self, y: f32) -> f32 {
        ((y + 140.0) / 120.0).clamp(0.0, 1.0)
    }
}

fn seen((px, py): (f32, f32), x: f32, y: f32) -> f32 {
    (y - py).atan2(x - px)
}

/// The cores with the axes that the other singular points give them: along its axis a core's ridge
/// runs straight out of it.
fn opened(cores: &[(f32, f32)], deltas: &[(f32, f32)], bend: f32) -> Vec<Core> {
    let axis = |i: usize| {
        let (x, y) = cores[i];
        let others = cores.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, &c)| seen(c, x, y));
        others.sum::<f32>() - deltas.iter().map(|&d| seen(d, x, y)).sum::<f32>()
    };
    cores.iter().enumerate().map(|(i, &(x, y))| Core { x, y, axis: axis(i), bend }).collect()
}

impl Core {
    /// What it adds to the doubled direction at a point.
    fn turn_at(&self, x: f32, y: f32) -> f32 {
        let off = (seen((self.x, self.y), x, y) - self.axis + PI).rem_euclid(TAU) - PI;
        self.axis + off.signum() * PI * (off.abs() / PI).powf(self.bend)
    }
}

impl Wave {
    fn draw(random: &mut Random) -> Self {
        let (length, heading) = (random.range(170.0, 360.0), random.range(0.0, PI));
        Self {
            across: TAU / length * heading.cos(),
            up: TAU / length * heading.sin(),
            phase: random.range(0.0, TAU),
            turn: random.range(0.03, 0.11),
        }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        self.turn * (self.across * x + self.up * y + self.phase + FRAC_PI_2).sin()
    }
}
