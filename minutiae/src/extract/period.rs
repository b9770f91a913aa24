//! The distance of the ridges, from the signature across them.
//!
//! Around each node of a coarse grid the even image is averaged along the ridge into a signature
//! across it; its power at the possible periods is pooled over the neighbouring nodes, and the
//! strongest one wins. Pooling spectra instead of periods keeps one bad node from spoiling others.

use crate::filter::CELL;
use crate::map::Map;

use super::ground::Ground;
use super::orientation::Field;

/// Cells from node to node.
const NODE: usize = 3;
/// Samples across the ridge, one pixel apart.
const ACROSS: usize = 40;
/// Samples along the ridge, two pixels apart.
const ALONG: usize = 9;
/// Periods that are tried, in pixels at 500 dpi: children's fingers to wide ridges.
const SHORTEST: f32 = 4.5;
const LONGEST: f32 = 16.0;
const TRIED: usize = 22;

/// Ridge period a cell, in pixels.
pub(super) fn estimate(ground: &Ground, field: &Field) -> Map {
    let (columns, rows) = (ground.mask.width.div_ceil(NODE), ground.mask.height.div_ceil(NODE));
    let mut spectra: Vec<Map> = (0..TRIED).map(|_| Map::new(columns, rows)).collect();
    let waves = Waves::new();
    for row in 0..rows {
        for column in 0..columns {
            let (x, y) = centre(column, row, ground);
            if ground.mask.cell(x, y) {
                let spectrum = waves.spectrum(&signature(&ground.even, field, x, y));
                for (map, power) in spectra.iter_mut().zip(spectrum) {
                    map.data[row * columns + column] = power;
                }
            }
        }
    }
    let pooled: Vec<Map> = spectra.iter().map(|s| s.blurred(1.6)).collect();
    let overall = pick(|i| spectra[i].data.iter().sum());
    let nodes = Map::from_fn(columns, rows, |x, y| {
        let total: f32 = pooled.iter().map(|p| p.at(x, y)).sum();
        if total <= 0.0 { overall } else { pick(|i| pooled[i].at(x, y)) }
    });
    let smooth = nodes.blurred(1.5);
    Map::from_fn(ground.mask.width, ground.mask.height, |x, y| {
        smooth.bilinear(x as f32 / NODE as f32 - 0.33, y as f32 / NODE as f32 - 0.33)
    })
}

fn centre(column: usize, row: usize, ground: &Ground) -> (usize, usize) {
    let x = (column * NODE + NODE / 2).min(ground.mask.width - 1);
    let y = (row * NODE + NODE / 2).min(ground.mask.height - 1);
    (x, y)
}

fn signature(even: &Map, field: &Field, cell_x: usize, cell_y: usize) -> [f32; ACROSS] {
    let (sin, cos) = field.at_cell(cell_x, cell_y).sin_cos();
    let (x, y) = ((cell_x * CELL) as f32 + 1.5, (cell_y * CELL) as f32 + 1.5);
    std::array::from_fn(|i| {
        let v = i as f32 - (ACROSS as f32 - 1.0) / 2.0;
        let samples = (0..ALONG).map(|j| {
            let u = 2.0 * (j as f32 - (ALONG as f32 - 1.0) / 2.0);
            even.nearest(x + u * cos - v * sin, y + u * sin + v * cos)
        });
        samples.sum::<f32>() / ALONG as f32
    })
}

fn period_of(index: f32) -> f32 {
    SHORTEST * (LONGEST / SHORTEST).powf(index / (TRIED - 1) as f32)
}

/// The period of the strongest power, between the tried ones by a parabola.
fn pick(power: impl Fn(usize) -> f32) -> f32 {
    let best = (0..TRIED).max_by(|&a, &b| power(a).total_cmp(&power(b))).unwrap_or(TRIED / 2);
    if best == 0 || best == TRIED - 1 {
        return period_of(best as f32);
    }
    let (left, top, right) = (power(best - 1), power(best), power(best + 1));
    let bend = left - 2.0 * top + right;
    let shift = if bend < 0.0 { 0.5 * (left - right) / bend } else { 0.0 };
    period_of(best as f32 + shift.clamp(-0.5, 0.5))
}

/// Windowed waves of the tried periods.
struct Waves {
    window: [f32; ACROSS],
    waves: Vec<([f32; ACROSS], [f32; ACROSS])>,
}

impl Waves {
    fn new() -> Self {
        let tau = std::f32::consts::TAU;
        let window =
            std::array::from_fn(|i| 0.5 - 0.5 * (tau * (i as f32 + 0.5) / ACROSS as f32).cos());
        let waves = (0..TRIED)
            .map(|k| {
                let step = tau / period_of(k as f32);
                let cos = std::array::from_fn(|i| window[i] * (step * i as f32).cos());
                let sin = std::array::from_fn(|i| window[i] * (step * i as f32).sin());
                (cos, sin)
            })
            .collect();
        Self { window, waves }
    }

    /// Share of the signature's power at each tried period.
    fn spectrum(&self, signature: &[f32; ACROSS]) -> Vec<f32> {
        let weight: f32 = self.window.iter().sum();
        let mean = dot(signature, &self.window) / weight;
        let centred: [f32; ACROSS] = std::array::from_fn(|i| signature[i] - mean);
        let power = dot(&centred, &centred) + 0.05;
        self.waves
            .iter()
            .map(|(cos, sin)| (dot(&centred, cos).powi(2) + dot(&centred, sin).powi(2)) / power)
            .collect()
    }
}

fn dot(a: &[f32; ACROSS], b: &[f32; ACROSS]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
