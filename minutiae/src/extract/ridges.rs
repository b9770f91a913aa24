//! Ridges made clear by filtering along their direction and at their distance.

use std::sync::LazyLock;

use crate::filter::{Bank, Tuning};
use crate::map::Map;

use super::ground::Ground;
use super::orientation::Field;

static BANK: LazyLock<Bank> = LazyLock::new(|| Bank::new(4.5, 0.42, 9));

/// Filters the even image; positive on ridges, zero outside of the print.
pub(super) fn enhance(ground: &Ground, field: &Field, period: &Map) -> Map {
    let mut ridges = BANK.apply(&ground.even, |x, y| {
        ground
            .mask
            .cell(x, y)
            .then(|| Tuning { orientation: field.at_cell(x, y), period: period.at(x, y) })
    });
    // Ridges are dark.
    ridges.data.iter_mut().for_each(|v| *v = -*v);
    ridges
}
