//! Which minutiae may lie near a point, as one bit each.
//!
//! Columns and rows of the print each know the minutiae within [`MARGIN`] pixels of them; what is near
//! a point is in both its column's and its row's set.

use super::Point;

/// Pixels a column or row.
const STEP: f32 = 32.0;
/// Most columns or rows: 2560 pixels. What lies beyond is in the last one, so that a record with
/// absurd coordinates costs no more memory than any other.
const MOST: usize = 80;
/// The farthest that is found for certain.
pub(super) const MARGIN: f32 = 32.0;

/// Sets of at most 64 minutiae by column and row.
#[derive(Debug, Clone)]
pub(super) struct Nearby {
    left: f32,
    top: f32,
    columns: Vec<u64>,
    rows: Vec<u64>,
}

impl Nearby {
    pub(super) fn of(points: &[Point]) -> Self {
        let (left, columns) = sets(points.iter().map(|p| p.x));
        let (top, rows) = sets(points.iter().map(|p| p.y));
        Self { left, top, columns, rows }
    }

    /// The minutiae that may lie within [`MARGIN`] of a point, and none that is much farther.
    pub(super) fn around(&self, x: f32, y: f32) -> Bits {
        Bits(set_at(&self.columns, x - self.left) & set_at(&self.rows, y - self.top))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.columns.capacity() + self.rows.capacity()) * size_of::<u64>()
    }
}

fn set_at(sets: &[u64], offset: f32) -> u64 {
    if offset < 0.0 {
        return 0;
    }
    sets.get(index(offset)).copied().unwrap_or(0)
}

fn index(offset: f32) -> usize {
    ((offset / STEP) as usize).min(MOST - 1)
}

fn sets(values: impl Iterator<Item = f32> + Clone) -> (f32, Vec<u64>) {
    let low = values.clone().fold(f32::INFINITY, f32::min) - MARGIN;
    let high = values.clone().fold(f32::NEG_INFINITY, f32::max) + MARGIN;
    if low > high {
        return (0.0, Vec::new());
    }
    let mut sets = vec![0; index(high - low) + 1];
    for (bit, value) in values.enumerate() {
        let (from, to) = (index(value - MARGIN - low), index(value + MARGIN - low));
        let last = to.min(sets.len() - 1);
        sets[from..=last].iter_mut().for_each(|set| *set |= 1 << bit);
    }
    (low, sets)
}

/// The positions of the bits that are set.
pub(super) struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}
