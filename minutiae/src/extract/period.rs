//! Whether there are ridges, and their distance, from the signature across them.
//!
//! Around each node of a coarse grid the even image is averaged along the ridge into a signature
//! across it. Where its power is at long periods it changes once, as at the edge of a print, of the
//! glass or of the sensor's housing, rather than again and again. Its power at the possible periods is pooled
//! over the neighbouring nodes of the print, and the strongest one wins. Pooling spectra instead of periods
//! keeps one bad node from spoiling others.

use crate::filter::CELL;
use crate::map::Map;

use super::ground::Mask;
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
/// Of these, the ones that are no long ones yet, with which ridges alternate.
const RIDGES: usize = TRIED - 4;
/// Longer periods, at which an edge is stronger than at any of ridges.
const LONG: [f32; 4] = [20.0, 25.0, 32.0, 40.0];

/// The signatures' power at each period, node by node.
pub(super) struct Spectra {
    /// Cells.
    width: usize,
    height: usize,
    tried: Vec<Map>,
    long: Vec<Map>,
}

impl Spectra {
    /// Of the whole image, whatever is print of it.
    pub(super) fn of(even: &Map, field: &Field) -> Self {
        let (width, height) = (even.width.div_ceil(CELL), even.height.div_ceil(CELL));
        let (columns, rows) = (width.div_ceil(NODE), height.div_ceil(NODE));
        let mut maps: Vec<Map> = (0..TRIED + LONG.len()).map(|_| Map::new(columns, rows)).collect();
        let waves = Waves::new();
        for row in 0..rows {
            for column in 0..columns {
                let (x, y) = centre(column, row, width, height);
                let spectrum = waves.spectrum(&signature(even, field, x, y));
                for (map, power) in maps.iter_mut().zip(spectrum) {
                    map.data[row * columns + column] = power;
                }
            }
        }
        let long = maps.split_off(TRIED);
        Self { width, height, tried: maps, long }
    }

    /// A cell, how far its surroundings alternate as ridges do, 0 to 1.
    pub(super) fn alternation(&self) -> Map {
        let strongest =
            |maps: &[Map], i: usize| maps.iter().map(|map| map.data[i]).fold(0.0, f32::max);
        let mut nodes = self.tried[0].clone();
        for (i, node) in nodes.data.iter_mut().enumerate() {
            let (ridges, long) = (strongest(&self.tried[..RIDGES], i), strongest(&self.long, i));
            *node = ridges / (ridges + long + 1e-3);
        }
        self.cells(&nodes)
    }

    /// Ridge period a cell, in pixels.
    pub(super) fn period(&self, mask: &Mask) -> Map {
        let of_print = |map: &Map| {
            Map::from_fn(map.width, map.height, |column, row| {
                let (x, y) = centre(column, row, self.width, self.height);
                if mask.cell(x, y) { map.at(column, row) } else { 0.0 }
            })
        };
        let spectra: Vec<Map> = self.tried.iter().map(of_print).collect();
        let pooled: Vec<Map> = spectra.iter().map(|s| s.blurred(1.6)).collect();
        let overall = pick(|i| spectra[i].data.iter().sum());
        let nodes = Map::from_fn(spectra[0].width, spectra[0].height, |x, y| {
            let total: f32 = pooled.iter().map(|p| p.at(x, y)).sum();
            if total <= 0.0 { overall } else { pick(|i| pooled[i].at(x, y)) }
        });
        self.cells(&nodes.blurred(1.5))
    }

    fn cells(&self, nodes: &Map) -> Map {
        Map::from_fn(self.width, self.height, |x, y| {
            nodes.bilinear(x as f32 / NODE as f32 - 0.33, y as f32 / NODE as f32 - 0.33)
        })
    }
}

/// The cell in the middle of a node.
fn centre(column: usize, row: usize, width: usize, height: usize) -> (usize, usize) {
    ((column * NODE + NODE / 2).min(width - 1), (row * NODE + NODE / 2).min(height - 1))
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

/// Windowed waves of the tried periods, then of the long ones.
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
            .map(|k| period_of(k as f32))
            .chain(LONG)
            .map(|period| {
                let step = tau / period;
                let cos = std::array::from_fn(|i| window[i] * (step * i as f32).cos());
                let sin = std::array::from_fn(|i| window[i] * (step * i as f32).sin());
                (cos, sin)
            })
            .collect();
        Self { window, waves }
    }

    /// Share of the signature's power at each of the periods.
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
