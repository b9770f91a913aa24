//! The surroundings of a minutia as bits (Cappelli, Ferrara, Maltoni: minutia cylinder-code).
//!
//! Eight by eight places around a minutia, turned with it, and six sections of relative direction: a
//! bit is set where neighbours of that direction lie near that place. One word holds the places of one
//! section, so that what lies beyond the print is masked by one more word.

use std::f32::consts::{PI, TAU};

use super::Point;

const SIDE: usize = 8;
const SECTIONS: usize = 6;
/// Reach of the surroundings in pixels.
const RADIUS: f32 = 75.0;
const PLACE_DEVIATION: f32 = 9.33;
const DIRECTION_DEVIATION: f32 = 0.42;
/// Sum of contributions from which a bit is set.
const BIT_LEVEL: f32 = 0.01;
/// The print is taken to reach this far beyond its minutiae.
const HULL_MARGIN: f32 = 40.0;
/// So many best pairs are kept in order while all are looked at, rather than chosen from all afterwards.
const FEW: usize = 8;
/// Fewest common places for a comparison.
const COMMON_PLACES: u32 = 24;

/// The surroundings of one minutia.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cylinder {
    sections: [u64; SECTIONS],
    /// Places on the print.
    valid: u64,
}

/// A cylinder without the places that never are in reach: 52 of 64 are, so that each section has room
/// for a piece of the validity too.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedCylinder([u64; SECTIONS]);

/// Places within [`RADIUS`]: all but three in each corner, which are the first and last two of the
/// outer rows and the first and last of the next ones.
const IN_REACH: u64 = 0x3c7e_ffff_ffff_7e3c;
const PLACES: u32 = IN_REACH.count_ones();
/// Bits of validity in each section's word.
const PIECE: u32 = PLACES.div_ceil(SECTIONS as u32);
const _: () = assert!(PLACES + PIECE <= 64);

impl Cylinder {
    pub(super) fn packed(&self) -> PackedCylinder {
        let valid = gathered(self.valid);
        PackedCylinder(std::array::from_fn(|i| {
            let piece = valid >> (PIECE * i as u32) & ((1 << PIECE) - 1);
            gathered(self.sections[i]) | piece << PLACES
        }))
    }
}

/// A cylinder to be compared: its places lie side by side, as they are packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenCylinder {
    sections: [u64; SECTIONS],
    valid: u64,
}

impl PackedCylinder {
    pub(super) fn open(&self) -> OpenCylinder {
        let pieces = self.0.iter().enumerate();
        let valid = pieces.fold(0, |all, (i, word)| all | word >> PLACES << (PIECE * i as u32));
        // What the words hold above their places is outside of `valid`.
        OpenCylinder { sections: self.0, valid }
    }
}

/// The bits of the places in reach, side by side.
fn gathered(places: u64) -> u64 {
    runs().fold(0, |bits, (from, to, mask)| bits | (places >> from & mask) << to)
}

/// Runs of places in reach: where each starts, where it starts side by side, and its bits.
fn runs() -> impl Iterator<Item = (u32, u32, u64)> {
    const RUNS: [(u32, u32, u32); 5] =
        [(2, 0, 4), (9, 4, 6), (16, 10, 32), (49, 42, 6), (58, 48, 4)];
    RUNS.into_iter().map(|(from, to, count)| (from, to, (1 << count) - 1))
}

pub(super) fn of(points: &[Point]) -> Vec<Cylinder> {
    let hull = hull(points);
    points.iter().enumerate().map(|(i, _)| cylinder(points, i, &hull)).collect()
}

fn cylinder(points: &[Point], centre: usize, hull: &[(f32, f32)]) -> Cylinder {
    let own = points[centre];
    let (sin, cos) = own.direction.sin_cos();
    let reach = RADIUS + 3.0 * PLACE_DEVIATION;
    let near: Vec<Neighbour> = points
        .iter()
        .enumerate()
        .filter(|&(i, p)| i != centre && (p.x - own.x).hypot(p.y - own.y) < reach)
        .map(|(_, p)| Neighbour::new(p, &own))
        .collect();
    let mut cylinder = Cylinder { sections: [0; SECTIONS], valid: 0 };
    for place in 0..SIDE * SIDE {
        let step = 2.0 * RADIUS / SIDE as f32;
        let u = ((place % SIDE) as f32 + 0.5) * step - RADIUS;
        let v = ((place / SIDE) as f32 + 0.5) * step - RADIUS;
        let (x, y) = (own.x + u * cos - v * sin, own.y + u * sin + v * cos);
        if u.hypot(v) > RADIUS || !near_hull(hull, x, y) {
            continue;
        }
        cylinder.valid |= 1 << place;
        let mut sums = [0.0f32; SECTIONS];
        for n in &near {
            let distance = (n.x - x).powi(2) + (n.y - y).powi(2);
            let weight = (-distance / (2.0 * PLACE_DEVIATION * PLACE_DEVIATION)).exp()
                / (PLACE_DEVIATION * TAU.sqrt());
            sums.iter_mut().zip(n.sections).for_each(|(sum, share)| *sum += weight * share);
        }
        for (section, sum) in cylinder.sections.iter_mut().zip(sums) {
            *section |= u64::from(sum > BIT_LEVEL) << place;
        }
    }
    cylinder
}

struct Neighbour {
    x: f32,
    y: f32,
    /// Share of its relative direction that falls into each section.
    sections: [f32; SECTIONS],
}

impl Neighbour {
    fn new(point: &Point, own: &Point) -> Self {
        let relative = point.direction - own.direction;
        let width = TAU / SECTIONS as f32;
        let sections = std::array::from_fn(|k| {
            let middle = (k as f32 + 0.5) * width;
            let off = (relative - middle + PI).rem_euclid(TAU) - PI;
            normal_below((off + width / 2.0) / DIRECTION_DEVIATION)
                - normal_below((off - width / 2.0) / DIRECTION_DEVIATION)
        });
        Self { x: point.x, y: point.y, sections }
    }
}

/// The normal distribution's integral, by its logistic approximation.
fn normal_below(x: f32) -> f32 {
    1.0 / (1.0 + (-1.702 * x).exp())
}

/// Convex hull, in order around it.
fn hull(points: &[Point]) -> Vec<(f32, f32)> {
    let mut sorted: Vec<(f32, f32)> = points.iter().map(|p| (p.x, p.y)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let half = |points: &mut dyn Iterator<Item = (f32, f32)>| {
        let mut chain: Vec<(f32, f32)> = Vec::new();
        for p in points {
            while let [.., a, b] = chain[..] {
                if (b.0 - a.0) * (p.1 - a.1) - (b.1 - a.1) * (p.0 - a.0) > 0.0 {
                    break;
                }
                chain.pop();
            }
            chain.push(p);
        }
        chain.pop();
        chain
    };
    let mut around = half(&mut sorted.iter().copied());
    around.extend(half(&mut sorted.iter().rev().copied()));
    around
}

fn near_hull(hull: &[(f32, f32)], x: f32, y: f32) -> bool {
    let edges = (0..hull.len()).map(|i| (hull[i], hull[(i + 1) % hull.len()]));
    let mut inside = true;
    for (a, b) in edges {
        let (ex, ey) = (b.0 - a.0, b.1 - a.1);
        let (px, py) = (x - a.0, y - a.1);
        inside &= ex * py - ey * px >= 0.0;
        let along = ((px * ex + py * ey) / (ex * ex + ey * ey + 1e-6)).clamp(0.0, 1.0);
        if (px - along * ex).powi(2) + (py - along * ey).powi(2) <= HULL_MARGIN * HULL_MARGIN {
            return true;
        }
    }
    inside
}

/// Similarity of every pair of minutiae, 0 to 1.
pub(super) struct Similarities {
    columns: usize,
    values: Vec<f32>,
}

impl Similarities {
    pub(super) fn of(a: &[OpenCylinder], b: &[OpenCylinder]) -> Self {
        let mut values = Vec::with_capacity(a.len() * b.len());
        for a in a {
            values.extend(b.iter().map(|b| a.similarity(b)));
        }
        Self { columns: b.len(), values }
    }

    pub(super) fn at(&self, a: usize, b: usize) -> f32 {
        self.values[a * self.columns + b]
    }

    /// The most similar pairs, best first.
    pub(super) fn best(&self, count: usize) -> Vec<(usize, usize)> {
        if count <= FEW {
            return self.best_few(count);
        }
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        let by_value =
            |&i: &u32, &j: &u32| self.values[j as usize].total_cmp(&self.values[i as usize]);
        if order.len() > count {
            order.select_nth_unstable_by(count, by_value);
            order.truncate(count);
        }
        order.sort_by(by_value);
        order.iter().map(|&i| (i as usize / self.columns, i as usize % self.columns)).collect()
    }

    /// The same in one pass: most values are below the worst of the few at once.
    fn best_few(&self, count: usize) -> Vec<(usize, usize)> {
        let mut best: Vec<(f32, usize)> = Vec::with_capacity(count + 1);
        let mut least = f32::NEG_INFINITY;
        for (i, &value) in self.values.iter().enumerate() {
            if value > least {
                best.insert(best.partition_point(|(before, _)| *before >= value), (value, i));
                best.truncate(count);
                least = if best.len() < count { least } else { best[count - 1].0 };
            }
        }
        best.iter().map(|&(_, i)| (i / self.columns, i % self.columns)).collect()
    }
}

impl OpenCylinder {
    fn similarity(&self, other: &Self) -> f32 {
        let valid = self.valid & other.valid;
        if valid.count_ones() < COMMON_PLACES {
            return 0.0;
        }
        let (mut either, mut both) = (0, 0);
        for (a, b) in self.sections.iter().zip(&other.sections) {
            either += ((a | b) & valid).count_ones();
            both += (a & b & valid).count_ones();
        }
        if both == 0 {
            return 0.0;
        }
        // Of each print's bits, the share that the other has too.
        2.0 * both as f32 / (either + both) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_cylinder_holds_every_place() {
        let mut random = crate::random::Random::new(3, 3);
        for _ in 0..1_000 {
            let mut any = || random.next_u64() & IN_REACH;
            let cylinder = Cylinder { sections: std::array::from_fn(|_| any()), valid: any() };
            let open = cylinder.packed().open();
            let places = |bits: u64| -> Vec<bool> {
                (0..64).filter(|i| IN_REACH >> i & 1 == 1).map(|i| bits >> i & 1 == 1).collect()
            };
            let side_by_side =
                |bits: u64| -> Vec<bool> { (0..PLACES).map(|i| bits >> i & 1 == 1).collect() };
            assert_eq!(
                (places(cylinder.valid), 0),
                (side_by_side(open.valid), open.valid >> PLACES)
            );
            for (section, open) in cylinder.sections.into_iter().zip(open.sections) {
                assert_eq!(places(section), side_by_side(open));
            }
        }
    }

    #[test]
    fn few_best_pairs_are_the_first_of_many() {
        let mut random = crate::random::Random::new(5, 5);
        for columns in 1..30 {
            let values = (0..columns * 7).map(|_| random.next_u64() as f32).collect();
            let all = Similarities { columns, values };
            for count in [1, 2, FEW] {
                let many = all.best(FEW + 1);
                assert_eq!(all.best(count), many[..count.min(many.len())], "{columns}");
            }
        }
    }

    #[test]
    fn the_places_in_reach_are_those_within_the_radius() {
        let step = 2.0 * RADIUS / SIDE as f32;
        let middle = |i: usize| (i as f32 + 0.5) * step - RADIUS;
        for place in 0..SIDE * SIDE {
            let reached = middle(place % SIDE).hypot(middle(place / SIDE)) <= RADIUS;
            assert_eq!(IN_REACH >> place & 1 == 1, reached, "{place}");
        }
    }
}
