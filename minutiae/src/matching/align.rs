//! How one print lies on the other.

use std::f32::consts::{PI, TAU};

use super::cylinder::Similarities;
use super::{Point, PreparedView};

/// Pairs tried as roots, and how many of their placements are refined.
const ROOTS: usize = 40;
const REFINED: usize = 4;
const REFINEMENTS: usize = 4;
/// Directions of a pair may differ by this much, radians.
const TURN: f32 = 0.38;
/// Places may differ by this much in pixels: near the root, and more for each pixel away from it.
const ROOT_REACH: f32 = 6.75;
const ROOT_SPREAD: f32 = 0.155;
/// After refinement.
const REACH: f32 = 13.75;
/// How far a moved neighbour moves what is expected of a minutia.
const NEIGHBOURHOOD: f32 = 55.0;
/// Weight of not having moved, in neighbours.
const STIFFNESS: f32 = 0.6;

/// Minutiae of one print that lie on minutiae of the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairing {
    pub(super) pairs: Vec<Pair>,
    /// Where each point of the first print lies on the second one.
    pub(super) expected: Vec<Point>,
}

/// Two minutiae taken for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) a: usize,
    pub(super) b: usize,
    /// Pixels between the expected and the actual place.
    pub(super) distance: f32,
    /// Radians between the expected and the actual direction.
    pub(super) turn: f32,
    pub(super) similarity: f32,
}

/// Turn and shift.
#[derive(Debug, Clone, Copy)]
struct Rigid {
    angle: f32,
    sin: f32,
    cos: f32,
    dx: f32,
    dy: f32,
}

impl Rigid {
    fn new(angle: f32, from: (f32, f32), to: (f32, f32)) -> Self {
        let (sin, cos) = angle.sin_cos();
        let dx = to.0 - (from.0 * cos - from.1 * sin);
        let dy = to.1 - (from.0 * sin + from.1 * cos);
        Self { angle, sin, cos, dx, dy }
    }

    fn apply(&self, p: &Point) -> Point {
        Point {
            x: p.x * self.cos - p.y * self.sin + self.dx,
            y: p.x * self.sin + p.y * self.cos + self.dy,
            direction: p.direction + self.angle,
            ..*p
        }
    }

    /// The placement that brings pairs closest to each other.
    fn fit(a: &[Point], b: &[Point], pairs: &[Pair]) -> Option<Self> {
        let count = pairs.len() as f32;
        if pairs.len() < 2 {
            return None;
        }
        let mean = |xs: &dyn Fn(&Pair) -> f32| pairs.iter().map(xs).sum::<f32>() / count;
        let (ax, ay) = (mean(&|p| a[p.a].x), mean(&|p| a[p.a].y));
        let (bx, by) = (mean(&|p| b[p.b].x), mean(&|p| b[p.b].y));
        let (mut sin, mut cos) = (0.0, 0.0);
        for p in pairs {
            let (px, py) = (a[p.a].x - ax, a[p.a].y - ay);
            let (qx, qy) = (b[p.b].x - bx, b[p.b].y - by);
            cos += px * qx + py * qy;
            sin += px * qy - py * qx;
        }
        Some(Self::new(sin.atan2(cos), (ax, ay), (bx, by)))
    }
}

/// The most convincing placements of one print on the other.
pub(super) fn placements(
    a: &PreparedView,
    b: &PreparedView,
    similarities: &Similarities,
) -> Vec<Pairing> {
    let mut voted: Vec<(f32, Vec<Pair>)> = similarities
        .best(ROOTS)
        .into_iter()
        .filter(|&(i, j)| similarities.at(i, j) > 0.0)
        .map(|root| {
            let pairs = votes(a, b, root, similarities);
            (pairs.iter().map(|p| 0.26 + p.similarity).sum(), pairs)
        })
        .collect();
    voted.sort_by(|x, y| y.0.total_cmp(&x.0));
    let mut chosen: Vec<Pairing> = Vec::new();
    for (_, pairs) in voted {
        if chosen.len() == REFINED {
            break;
        }
        let known = chosen.iter().any(|c| same(c, &pairs));
        if !known {
            chosen.extend(refined(a, b, pairs, similarities));
        }
    }
    chosen
}

/// Whether most of the pairs are already in a pairing.
fn same(pairing: &Pairing, pairs: &[Pair]) -> bool {
    let shared = pairs.iter().filter(|p| pairing.pairs.iter().any(|q| q.a == p.a && q.b == p.b));
    2 * shared.count() > pairs.len()
}

/// What coincides when the root's minutiae are laid on each other.
fn votes(
    a: &PreparedView,
    b: &PreparedView,
    (i, j): (usize, usize),
    similarities: &Similarities,
) -> Vec<Pair> {
    let (root, target) = (a.points[i], b.points[j]);
    let angle = target.direction - root.direction;
    let placed = Rigid::new(angle, (root.x, root.y), (target.x, target.y));
    let expected: Vec<Point> = a.points.iter().map(|p| placed.apply(p)).collect();
    pair_up(&expected, &b.points, similarities, |p| {
        ROOT_REACH + ROOT_SPREAD * (p.x - target.x).hypot(p.y - target.y)
    })
}

fn refined(
    a: &PreparedView,
    b: &PreparedView,
    mut pairs: Vec<Pair>,
    similarities: &Similarities,
) -> Option<Pairing> {
    let mut expected = Vec::new();
    for round in 0..REFINEMENTS {
        let rigid = Rigid::fit(&a.points, &b.points, &pairs)?;
        expected = elastic(a, b, &rigid, &pairs);
        let reach = REACH + 2.0 * (REFINEMENTS - 1 - round) as f32;
        pairs = pair_up(&expected, &b.points, similarities, |_| reach);
    }
    Some(Pairing { pairs, expected })
}

/// Where each minutia is expected: placed rigidly, then moved as its paired neighbours have moved.
fn elastic(a: &PreparedView, b: &PreparedView, rigid: &Rigid, pairs: &[Pair]) -> Vec<Point> {
    let moved: Vec<(usize, Point, f32, f32)> = pairs
        .iter()
        .map(|p| {
            let (from, to) = (rigid.apply(&a.points[p.a]), b.points[p.b]);
            (p.a, from, to.x - from.x, to.y - from.y)
        })
        .collect();
    let expected = |(i, point): (usize, &Point)| {
        let mut at = rigid.apply(point);
        let (mut weight, mut dx, mut dy) = (STIFFNESS, 0.0, 0.0);
        for (k, from, mx, my) in &moved {
            if *k != i {
                let distance = (from.x - at.x).powi(2) + (from.y - at.y).powi(2);
                let share = fast_bell(distance / (2.0 * NEIGHBOURHOOD * NEIGHBOURHOOD));
                weight += share;
                dx += share * mx;
                dy += share * my;
            }
        }
        at.x += dx / weight;
        at.y += dy / weight;
        at
    };
    a.points.iter().enumerate().map(expected).collect()
}

/// About `exp(-x)`, without its cost.
fn fast_bell(x: f32) -> f32 {
    let base = 1.0 + x / 4.0;
    1.0 / (base * base * base * base)
}

/// Pairs each expected point with the nearest free point, closest pairs first.
fn pair_up(
    expected: &[Point],
    points: &[Point],
    similarities: &Similarities,
    reach: impl Fn(&Point) -> f32,
) -> Vec<Pair> {
    let mut candidates: Vec<(f32, Pair)> = Vec::new();
    for (a, from) in expected.iter().enumerate() {
        let reach = reach(from);
        for (b, to) in points.iter().enumerate() {
            let (dx, dy) = (to.x - from.x, to.y - from.y);
            let squared = dx * dx + dy * dy;
            if squared > reach * reach {
                continue;
            }
            let turn = turn(from.direction, to.direction);
            if turn > TURN {
                continue;
            }
            let similarity = similarities.at(a, b);
            let cost = squared / (reach * reach) + (turn / TURN).powi(2) - similarity;
            candidates.push((cost, Pair { a, b, distance: squared.sqrt(), turn, similarity }));
        }
    }
    candidates.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut used_a, mut used_b) = (0u128, 0u128);
    let mut pairs = Vec::with_capacity(candidates.len());
    for (_, pair) in candidates {
        if used_a >> pair.a & 1 == 0 && used_b >> pair.b & 1 == 0 {
            used_a |= 1 << pair.a;
            used_b |= 1 << pair.b;
            pairs.push(pair);
        }
    }
    pairs
}

fn turn(a: f32, b: f32) -> f32 {
    let difference = (a - b).rem_euclid(TAU);
    if difference > PI { TAU - difference } else { difference }
}
