//! The direction of the ridges, from the structure tensor.
//!
//! Directions are angles of lines, so they are averaged as doubled angles. Two scales are added up:
//! where a small neighbourhood agrees with itself it decides, where it doesn't the larger one does.

use std::f32::consts::FRAC_PI_2;

use crate::filter::CELL;
use crate::map::Map;

/// Direction of the ridges a cell.
pub(super) struct Field {
    /// Cosine and sine of the doubled angle, scaled by the agreement of the neighbourhood (0 to 1).
    cos: Map,
    sin: Map,
}

impl Field {
    /// From an image that was only made even: wide averaging against its noise.
    pub(super) fn of(even: &Map) -> Self {
        Self::smoothed(even, 2.6, 6.0, 0.25)
    }

    /// From filtered ridges: they are clean, so curvature is kept.
    pub(super) fn refined(ridges: &Map) -> Self {
        Self::smoothed(ridges, 2.0, 4.5, 0.12)
    }

    /// Reaches in cells.
    fn smoothed(plane: &Map, fine: f32, coarse: f32, coarse_weight: f32) -> Self {
        let [energy, cos, sin] = tensor(plane);
        let (fine_energy, fine_cos, fine_sin) =
            (energy.blurred(fine), cos.blurred(fine), sin.blurred(fine));
        let (wide_energy, wide_cos, wide_sin) =
            (energy.blurred(coarse), cos.blurred(coarse), sin.blurred(coarse));
        let mixed = |near: &Map, wide: &Map| {
            let data = (0..near.data.len())
                .map(|i| {
                    let near = near.data[i] / (fine_energy.data[i] + 1e-6);
                    let wide = wide.data[i] / (wide_energy.data[i] + 1e-6);
                    (near + coarse_weight * wide) / (1.0 + coarse_weight)
                })
                .collect();
            Map { width: near.width, height: near.height, data }
        };
        Self { cos: mixed(&fine_cos, &wide_cos), sin: mixed(&fine_sin, &wide_sin) }
    }

    /// Direction of the ridge at a cell: image coordinates, radians.
    pub(super) fn at_cell(&self, x: usize, y: usize) -> f32 {
        0.5 * self.sin.at(x, y).atan2(self.cos.at(x, y))
    }

    /// Direction of the ridge at a pixel.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x / CELL as f32 - 0.5, y / CELL as f32 - 0.5);
        0.5 * self.sin.bilinear(x, y).atan2(self.cos.bilinear(x, y))
    }

    /// How far the neighbourhood of a pixel agrees on a direction, 0 to 1.
    pub(super) fn coherence(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x / CELL as f32 - 0.5, y / CELL as f32 - 0.5);
        self.cos.bilinear(x, y).hypot(self.sin.bilinear(x, y)).min(1.0)
    }
}

/// Gradient energy and the doubled angle of the ridge (a right angle off the gradient) a cell.
fn tensor(plane: &Map) -> [Map; 3] {
    let (width, height) = (plane.width, plane.height);
    let (columns, rows) = (width.div_ceil(CELL), height.div_ceil(CELL));
    let mut sums = [Map::new(columns, rows), Map::new(columns, rows), Map::new(columns, rows)];
    for y in 1..height - 1 {
        let (above, here, below) = (plane.row(y - 1), plane.row(y), plane.row(y + 1));
        for x in 1..width - 1 {
            let right = above[x + 1] + 2.0 * here[x + 1] + below[x + 1];
            let left = above[x - 1] + 2.0 * here[x - 1] + below[x - 1];
            let lower = below[x - 1] + 2.0 * below[x] + below[x + 1];
            let upper = above[x - 1] + 2.0 * above[x] + above[x + 1];
            let (gx, gy) = (right - left, lower - upper);
            let cell = y / CELL * columns + x / CELL;
            sums[0].data[cell] += gx * gx + gy * gy;
            sums[1].data[cell] -= gx * gx - gy * gy;
            sums[2].data[cell] -= 2.0 * gx * gy;
        }
    }
    sums
}

/// Smallest angle between two lines, from 0 to a right angle.
pub(super) fn between_lines(a: f32, b: f32) -> f32 {
    let turned = (a - b).rem_euclid(2.0 * FRAC_PI_2);
    turned.min(2.0 * FRAC_PI_2 - turned)
}
