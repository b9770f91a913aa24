//! One touch of a finger on a reader.

use std::f32::consts::PI;

use crate::image::GrayImage;
use crate::map::Map;
use crate::random::Random;

use super::master::{HEIGHT, WIDTH, smooth_noise};
use super::{HEIGHT_PIXELS, RESOLUTION, WIDTH_PIXELS};

/// Pixels a sample of the coarse noise maps.
const COARSE: usize = 4;
/// How far skin without pressure stays above the reader, in heights of a ridge.
const LIFT: f32 = 3.2;

pub(super) fn press(master: &Map, random: &mut Random) -> GrayImage {
    // Most touches are easy, a few are hard in every way at once: pulled askew, dry, barely pressed.
    let hardship = random.unit().powi(2);
    let placement = Placement::draw(hardship, random);
    let contact = Contact::draw(hardship, random);
    let skin = Skin::draw(hardship, random);
    let mut print = Map::from_fn(WIDTH_PIXELS as usize, HEIGHT_PIXELS as usize, |column, row| {
        let x = column as f32 - WIDTH_PIXELS as f32 / 2.0 - placement.offset.0;
        let y = row as f32 - HEIGHT_PIXELS as f32 / 2.0 - placement.offset.1;
        let pressure = contact.pressure(x, y, column, row);
        if pressure <= 0.0 {
            return 0.0;
        }
        let (u, v) = placement.on_finger(x, y);
        let ridge = master.bilinear(u + WIDTH as f32 / 2.0, v + HEIGHT as f32 / 2.0);
        skin.ink(ridge, pressure, column, row)
    });
    scratch(&mut print, random);
    expose(&print.blurred(0.55), random)
}

/// Where the finger lies, and how its skin is stretched.
struct Placement {
    sin: f32,
    cos: f32,
    /// Where the finger lies on the reader: what lies beyond its window isn't seen.
    offset: (f32, f32),
    /// Which part of the finger touches.
    shift: (f32, f32),
    /// Centre, reach and pull of each stretch.
    pulls: Vec<[f32; 5]>,
}

impl Placement {
    fn draw(hardship: f32, random: &mut Random) -> Self {
        let (sin, cos) = random.normal(0.0, 11.0).to_radians().sin_cos();
        let offset = (random.normal(0.0, 27.0), random.normal(0.0, 32.0));
        let askew = 1.0 + 0.6 * hardship;
        let shift = (random.normal(0.0, 16.0 * askew), random.normal(0.0, 21.0 * askew));
        let pull = 5.5 + 11.0 * hardship;
        let pulls = (0..4)
            .map(|_| {
                let (strength, towards) = (random.normal(0.0, pull), random.range(0.0, 2.0 * PI));
                [
                    random.range(-110.0, 110.0),
                    random.range(-140.0, 140.0),
                    random.range(60.0, 120.0),
                    strength * towards.cos(),
                    strength * towards.sin(),
                ]
            })
            .collect();
        Self { sin, cos, offset, shift, pulls }
    }

    /// The point of the finger that touches a point of the reader.
    fn on_finger(&self, x: f32, y: f32) -> (f32, f32) {
        let (mut u, mut v) = (x, y);
        for [cx, cy, reach, dx, dy] in &self.pulls {
            let distance = ((x - cx).powi(2) + (y - cy).powi(2)) / (2.0 * reach * reach);
            let share = (-distance).exp();
            u += share * dx;
            v += share * dy;
        }
        let (dx, dy) = self.shift;
        (u * self.cos - v * self.sin + dx, u * self.sin + v * self.cos + dy)
    }
}

/// The patch of skin that touches, with a ragged edge.
struct Contact {
    centre: (f32, f32),
    axes: (f32, f32),
    edge: Map,
}

impl Contact {
    fn draw(hardship: f32, random: &mut Random) -> Self {
        let size = 1.0 - 0.2 * hardship;
        Self {
            centre: (random.normal(0.0, 8.0), random.normal(0.0, 10.0)),
            axes: (size * random.normal(114.0, 10.0), size * random.normal(158.0, 15.0)),
            edge: coarse_noise(5.0, random),
        }
    }

    /// 1 where the finger lies flat, less towards its edge, 0 where it no longer touches.
    fn pressure(&self, x: f32, y: f32, column: usize, row: usize) -> f32 {
        let (u, v) = ((x - self.centre.0) / self.axes.0, (y - self.centre.1) / self.axes.1);
        let radius = (u.abs().powf(2.3) + v.abs().powf(2.3)).powf(1.0 / 2.3);
        let ragged = 0.04 * at(&self.edge, column, row);
        ((1.12 + ragged - radius) / 0.30).clamp(0.0, 1.0)
    }
}

/// Moist skin prints wide ridges, dry skin thin and broken ones.
struct Skin {
    moisture: f32,
    patches: Map,
    /// How much the patches differ, in heights of a ridge.
    unevenness: f32,
    grain: Map,
    dryness: f32,
}

impl Skin {
    fn draw(hardship: f32, random: &mut Random) -> Self {
        let moisture = random.normal(0.0, 0.22);
        let dryness = random.normal(0.62, 0.14) + 0.35 * hardship - 0.6 * moisture;
        let dryness = dryness.clamp(0.15, 1.1);
        let patches = coarse_noise(9.0, random);
        let unevenness = random.range(0.1, 0.75).powi(2) + 0.1;
        let (width, height) = (WIDTH_PIXELS as usize, HEIGHT_PIXELS as usize);
        let grain = smooth_noise(width, height, 1.1, random);
        Self { moisture, patches, unevenness, grain, dryness }
    }

    /// 0 where air lies above the reader, 1 where skin does.
    fn ink(&self, ridge: f32, pressure: f32, column: usize, row: usize) -> f32 {
        let patch = at(&self.patches, column, row);
        let grain = self.grain.at(column, row);
        let lifted = LIFT * (1.0 - pressure).powi(2);
        let level = ridge + self.moisture + self.unevenness * patch - lifted + self.dryness * grain;
        1.0 / (1.0 + (-4.0 * level).exp())
    }
}

fn coarse_noise(reach: f32, random: &mut Random) -> Map {
    let (width, height) = (WIDTH_PIXELS as usize / COARSE, HEIGHT_PIXELS as usize / COARSE);
    smooth_noise(width, height, reach, random)
}

fn at(coarse: &Map, column: usize, row: usize) -> f32 {
    coarse.bilinear(column as f32 / COARSE as f32, row as f32 / COARSE as f32)
}

/// Cuts and creases: thin light lines.
fn scratch(print: &mut Map, random: &mut Random) {
    let count = random.range(0.0, 3.6) as usize;
    for _ in 0..count {
        let (mut x, mut y) = (
            random.range(0.2, 0.8) * print.width as f32,
            random.range(0.1, 0.9) * print.height as f32,
        );
        let mut heading = random.range(0.0, 2.0 * PI);
        let (length, width) = (random.range(30.0, 130.0) as usize, random.range(0.6, 1.7));
        for step in 0..length {
            let taper = 1.0 - (2.0 * step as f32 / length as f32 - 1.0).abs();
            wipe(print, x, y, width * (0.4 + 0.6 * taper));
            heading += random.normal(0.0, 0.02);
            x += heading.cos();
            y += heading.sin();
        }
    }
}

fn wipe(print: &mut Map, x: f32, y: f32, width: f32) {
    let reach = width.ceil() as i32 + 1;
    for dy in -reach..=reach {
        for dx in -reach..=reach {
            let (column, row) = (x.round() as i32 + dx, y.round() as i32 + dy);
            let inside = (0..print.width as i32).contains(&column)
                && (0..print.height as i32).contains(&row);
            if inside {
                let distance = (column as f32 - x).hypot(row as f32 - y);
                let left = (distance - width + 0.5).clamp(0.0, 1.0);
                let index = row as usize * print.width + column as usize;
                print.data[index] = print.data[index].min(left);
            }
        }
    }
}

/// Light and dark of the reader, with its noise.
fn expose(print: &Map, random: &mut Random) -> GrayImage {
    let (light, dark) = (random.range(226.0, 248.0), random.range(48.0, 92.0));
    let lighting = coarse_noise(20.0, random);
    let mut pixels = Vec::with_capacity(print.data.len());
    for row in 0..print.height {
        for column in 0..print.width {
            let glow = at(&lighting, column, row);
            let clean = light + (dark + 10.0 * glow - light) * print.at(column, row);
            pixels.push((clean + random.range(-7.0, 7.0)).round().clamp(0.0, 255.0) as u8);
        }
    }
    GrayImage::new(WIDTH_PIXELS, HEIGHT_PIXELS, RESOLUTION, pixels)
        .unwrap_or_else(|error| unreachable!("an impression has a fixed size: {error}"))
}
