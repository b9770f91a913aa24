//! Oriented band-pass filtering: the step that makes ridges out of noise.
//!
//! A Gabor kernel answers to ridges of one orientation and one period. Kernels come from a bank of
//! quantised orientations and periods; a plane is filtered in cells of four by four pixels that share
//! a kernel, so that the inner loop runs over neighbouring pixels with one weight.

use std::f32::consts::PI;
use std::sync::OnceLock;

use crate::map::Map;

/// Pixels a side of a cell that shares one kernel.
pub(crate) const CELL: usize = 4;
const ORIENTATIONS: usize = 36;
/// Shortest period of the bank in pixels, and from each to the next.
const SHORTEST: f32 = 3.5;
const PERIOD_RATIO: f32 = 1.06;
const PERIODS: usize = 27;

/// What to filter a cell with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// Direction of the ridge in image coordinates (x right, y down), radians.
    pub(crate) orientation: f32,
    /// Ridge period in pixels.
    pub(crate) period: f32,
}

/// Kernels for every orientation and period, made when first asked for.
pub(crate) struct Bank {
    /// Deviation along the ridge in pixels.
    along: f32,
    /// Deviation across the ridge as a share of the period.
    across: f32,
    radius: usize,
    kernels: Vec<OnceLock<Vec<f32>>>,
}

impl Bank {
    pub(crate) fn new(along: f32, across: f32, radius: usize) -> Self {
        let kernels = (0..ORIENTATIONS * PERIODS).map(|_| OnceLock::new()).collect();
        Self { along, across, radius, kernels }
    }

    fn kernel(&self, tuning: Tuning) -> &[f32] {
        let turns = tuning.orientation.rem_euclid(PI) / PI * ORIENTATIONS as f32;
        let orientation = turns.round() as usize % ORIENTATIONS;
        let steps = ((tuning.period / SHORTEST).ln() / PERIOD_RATIO.ln()).round();
        let period = steps.clamp(0.0, (PERIODS - 1) as f32) as usize;
        self.kernels[orientation * PERIODS + period].get_or_init(|| {
            gabor(
                orientation as f32 * PI / ORIENTATIONS as f32,
                SHORTEST * PERIOD_RATIO.powi(period as i32),
                self.along,
                self.across,
                self.radius,
            )
        })
    }

    /// Filters a plane cell by cell; cells without a tuning stay zero.
    pub(crate) fn apply(
        &self,
        source: &Map,
        tuning: impl Fn(usize, usize) -> Option<Tuning>,
    ) -> Map {
        let padded = Padded::new(source, self.radius);
        let mut out = Map::new(source.width, source.height);
        for cell_y in 0..source.height.div_ceil(CELL) {
            for cell_x in 0..source.width.div_ceil(CELL) {
                if let Some(tuning) = tuning(cell_x, cell_y) {
                    let sums = padded.cell(cell_x, cell_y, self.kernel(tuning), self.radius);
                    store(&mut out, cell_x, cell_y, &sums);
                }
            }
        }
        out
    }
}

type CellSums = [[f32; CELL]; CELL];

fn store(out: &mut Map, cell_x: usize, cell_y: usize, sums: &CellSums) {
    let (left, top) = (cell_x * CELL, cell_y * CELL);
    let (columns, rows) = (CELL.min(out.width - left), CELL.min(out.height - top));
    for (dy, line) in sums.iter().enumerate().take(rows) {
        let start = (top + dy) * out.width + left;
        out.data[start..start + columns].copy_from_slice(&line[..columns]);
    }
}

/// The plane with a margin of zeros, so that the inner loop needs no bounds.
struct Padded {
    stride: usize,
    data: Vec<f32>,
}

impl Padded {
    fn new(source: &Map, radius: usize) -> Self {
        let stride = source.width.next_multiple_of(CELL) + 2 * radius;
        let rows = source.height.next_multiple_of(CELL) + 2 * radius;
        let mut data = vec![0.0; stride * rows];
        for y in 0..source.height {
            let start = (y + radius) * stride + radius;
            data[start..start + source.width].copy_from_slice(source.row(y));
        }
        Self { stride, data }
    }

    /// Sums of one cell under one kernel.
    fn cell(&self, cell_x: usize, cell_y: usize, kernel: &[f32], radius: usize) -> CellSums {
        let side = 2 * radius + 1;
        let mut sums = [[0.0f32; CELL]; CELL];
        // Rows of the source that touch the cell, each serving up to four rows of the cell.
        for source_row in 0..side + CELL - 1 {
            let start = (cell_y * CELL + source_row) * self.stride + cell_x * CELL;
            let line = &self.data[start..start + side + CELL - 1];
            for (dy, sum) in sums.iter_mut().enumerate() {
                let Some(kernel_row) = source_row.checked_sub(dy).filter(|&r| r < side) else {
                    continue;
                };
                let weights = &kernel[kernel_row * side..(kernel_row + 1) * side];
                for (window, &weight) in line.windows(CELL).zip(weights) {
                    for (total, &value) in sum.iter_mut().zip(window) {
                        *total += weight * value;
                    }
                }
            }
        }
        sums
    }
}

/// An even Gabor kernel without response to a constant, scaled so that a matching wave of
/// amplitude one gives about one.
fn gabor(orientation: f32, period: f32, along: f32, across: f32, radius: usize) -> Vec<f32> {
    let across = across * period;
    let (sin, cos) = orientation.sin_cos();
    let side = 2 * radius + 1;
    let mut envelope = Vec::with_capacity(side * side);
    let mut kernel = Vec::with_capacity(side * side);
    for row in 0..side {
        for column in 0..side {
            let (x, y) = (column as f32 - radius as f32, row as f32 - radius as f32);
            let (u, v) = (x * cos + y * sin, y * cos - x * sin);
            let weight = (-0.5 * ((u / along).powi(2) + (v / across).powi(2))).exp();
            envelope.push(weight);
            kernel.push(weight * (2.0 * PI * v / period).cos());
        }
    }
    let share = kernel.iter().sum::<f32>() / envelope.iter().sum::<f32>();
    kernel.iter_mut().zip(&envelope).for_each(|(k, e)| *k -= share * e);
    let gain: f32 = kernel.iter().map(|k| k.abs()).sum();
    kernel.iter_mut().for_each(|k| *k *= 1.5 / gain);
    kernel
}
