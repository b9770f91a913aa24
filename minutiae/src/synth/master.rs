//! The ridges of a finger, grown out of noise.
//!
//! Noise filtered along the flow, clipped, and filtered again: after a dozen rounds what remains are
//! ridges, and minutiae where they had to meet. Half the resolution is enough for the growth.

use std::sync::LazyLock;

use crate::filter::{Bank, CELL, Tuning};
use crate::map::Map;
use crate::random::Random;

use super::flow::{Class, Flow};

/// The finger's surface in pixels at 500 dpi: an impression with room to turn and shift.
pub(super) const WIDTH: usize = 440;
pub(super) const HEIGHT: usize = 560;

const GROWTH_ROUNDS: usize = 14;
const FINISH_ROUNDS: usize = 2;

static GROWTH: LazyLock<Bank> = LazyLock::new(|| Bank::new(2.9, 0.42, 6));
static FINISH: LazyLock<Bank> = LazyLock::new(|| Bank::new(4.5, 0.40, 9));

pub(super) fn grow(class: Class, random: &mut Random) -> Map {
    let flow = Flow::draw(class, random);
    let base_period = random.normal(8.5, 0.8);
    let unevenness = smooth_noise(WIDTH / CELL, HEIGHT / CELL, 14.0, random);
    // Cells are counted at full resolution; the growth's cells are twice as large.
    let tuning = |cell_x: usize, cell_y: usize, scale: usize| {
        let (column, row) = (cell_x * scale, cell_y * scale);
        let x = (column * CELL) as f32 - WIDTH as f32 / 2.0;
        let y = HEIGHT as f32 / 2.0 - (row * CELL) as f32;
        let noise = unevenness.nearest(column as f32, row as f32);
        let width = 1.0 + 0.05 * noise + 0.14 * (1.0 - flow.above_deltas(y));
        let period = base_period * width / scale as f32;
        Tuning { orientation: -flow.at(x, y), period }
    };
    let mut ridges = Map::from_fn(WIDTH / 2, HEIGHT / 2, |_, _| random.range(-1.0, 1.0));
    let growth = tunings(&ridges, |x, y| tuning(x, y, 2));
    for _ in 0..GROWTH_ROUNDS {
        ridges = round(&GROWTH, &ridges, &growth);
    }
    let mut full = Map::from_fn(WIDTH, HEIGHT, |x, y| {
        ridges.bilinear(x as f32 / 2.0 - 0.25, y as f32 / 2.0 - 0.25)
    });
    let finish = tunings(&full, |x, y| tuning(x, y, 1));
    for _ in 0..FINISH_ROUNDS {
        full = round(&FINISH, &full, &finish);
    }
    full
}

struct Tunings {
    columns: usize,
    cells: Vec<Tuning>,
}

fn tunings(plane: &Map, of: impl Fn(usize, usize) -> Tuning) -> Tunings {
    let (columns, rows) = (plane.width.div_ceil(CELL), plane.height.div_ceil(CELL));
    let cells = (0..columns * rows).map(|i| of(i % columns, i / columns)).collect();
    Tunings { columns, cells }
}

/// Filters and clips: the gain makes weak waves grow until they meet the limit.
fn round(bank: &Bank, plane: &Map, tunings: &Tunings) -> Map {
    let mut next = bank.apply(plane, |x, y| Some(tunings.cells[y * tunings.columns + x]));
    next.data.iter_mut().for_each(|v| *v = (*v * 3.0).clamp(-1.0, 1.0));
    next
}

/// Noise of deviation one whose features are about `reach` apart.
pub(super) fn smooth_noise(width: usize, height: usize, reach: f32, random: &mut Random) -> Map {
    let mut noise = Map::from_fn(width, height, |_, _| random.range(-1.0, 1.0)).blurred(reach);
    let count = noise.data.len() as f32;
    let mean = noise.data.iter().sum::<f32>() / count;
    let power = noise.data.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
    let gain = 1.0 / (power.sqrt() + 1e-9);
    noise.data.iter_mut().for_each(|v| *v = (*v - mean) * gain);
    noise
}
