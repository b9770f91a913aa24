//! How one print lies on the other.

use std::f32::consts::TAU;

use super::cylinder::Similarities;
use super::nearby::MARGIN;
use super::{OpenView, Point};

/// Pairs tried as roots, those of them that say whether it is worth going on, and how many of their
/// placements are refined.
const ROOTS: usize = 32;
const FIRST_ROOTS: usize = 4;
const REFINED: usize = 4;
const REFINEMENTS: usize = 4;
/// Share of the most votes below which no placement is refined.
const RUNNER_UP: f32 = 0.45;
/// Directions of a pair may differ by this much, radians.
const TURN: f32 = 0.35;
/// Places may differ by this much in pixels: near the root, and more for each pixel away from it.
const ROOT_REACH: f32 = 7.25;
const ROOT_SPREAD: f32 = 0.112;
/// What coinciding counts for by itself when roots are compared.
const COINCIDENCE: f32 = 0.25;
/// After refinement; before the last round, so much more a round.
const REACH: f32 = 16.0;
const REACH_STEP: f32 = 2.0;
/// How far a moved neighbour moves what is expected of a minutia.
const NEIGHBOURHOOD: f32 = 42.0;
/// Weight of not having moved, in neighbours.
const STIFFNESS: f32 = 0.6;
/// Weight of not having been turned or stretched against the whole: so many neighbours at so many
/// pixels.
const STIFFNESS_TURN: f32 = 2.0 * 60.0 * 60.0;

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

/// A pair of minutiae tried as a root, with its votes.
pub(super) type Voted = (f32, (usize, usize));

/// The first roots, and the votes of the best one.
pub(super) fn first_votes(
    a: &OpenView<'_>,
    b: &OpenView<'_>,
    similarities: &Similarities,
) -> (f32, Vec<Voted>) {
    let voted = voted(a, b, similarities, &similarities.best(FIRST_ROOTS));
    (voted.iter().map(|v| v.0).fold(0.0, f32::max), voted)
}

/// The most convincing placements of one print on the other, from the first roots on, the one with most votes
/// first. Each is refined when it is asked for.
pub(super) fn placements<'a>(
    a: &'a OpenView<'_>,
    b: &'a OpenView<'_>,
    similarities: &'a Similarities,
    first: Vec<Voted>,
) -> impl Iterator<Item = Pairing> + 'a {
    let roots = similarities.best(ROOTS);
    let further = roots.get(FIRST_ROOTS..).unwrap_or_default();
    let mut roots = [first, voted(a, b, similarities, further)].concat();
    roots.sort_by(|x, y| y.0.total_cmp(&x.0));
    let least = RUNNER_UP * roots.first().map_or(0.0, |v| v.0);
    let mut known: Vec<(usize, usize)> = Vec::new();
    let refined_each = roots.into_iter().take_while(move |v| v.0 >= least).filter_map(move |v| {
        // A root that an earlier placement pairs would give the same one.
        if known.contains(&v.1) {
            return None;
        }
        let pairing = refined(a, b, v.1, similarities)?;
        known.extend(pairing.pairs.iter().map(|p| (p.a, p.b)));
        Some(pairing)
    });
    refined_each.take(REFINED)
}

/// Pairs of minutiae with their votes.
fn voted(
    a: &OpenView<'_>,
    b: &OpenView<'_>,
    similarities: &Similarities,
    roots: &[(usize, usize)],
) -> Vec<Voted> {
    roots
        .iter()
        .filter(|&&(i, j)| similarities.at(i, j) > 0.0)
        .map(|&root| (votes(a, b, root, similarities), root))
        .collect()
}

/// How far a pair's place may differ when it is this far from the root.
fn reach_from_root(squared: f32) -> f32 {
    (ROOT_REACH + ROOT_SPREAD * squared.sqrt()).min(MARGIN)
}

fn placed_by(a: &OpenView<'_>, b: &OpenView<'_>, (i, j): (usize, usize)) -> Rigid {
    let (root, target) = (a.points[i], b.points[j]);
    let angle = target.direction - root.direction;
    Rigid::new(angle, (root.x, root.y), (target.x, target.y))
}

/// How much coincides when the root's minutiae are laid on each other: the best partner of each
/// minutia counts, as far as their surroundings agree.
fn votes(
    a: &OpenView<'_>,
    b: &OpenView<'_>,
    root: (usize, usize),
    similarities: &Similarities,
) -> f32 {
    let rigid = placed_by(a, b, root);
    let centre = b.points[root.1];
    let mut total = 0.0;
    for (i, point) in a.points.iter().enumerate() {
        let from = rigid.apply(point);
        let reach = reach_from_root((from.x - centre.x).powi(2) + (from.y - centre.y).powi(2));
        let mut best = 0.0f32;
        for j in b.nearby.around(from.x, from.y) {
            let to = &b.points[j];
            let squared = (to.x - from.x).powi(2) + (to.y - from.y).powi(2);
            if squared <= reach * reach && turn(from.direction, to.direction) <= TURN {
                best = best.max(COINCIDENCE + similarities.at(i, j));
            }
        }
        total += best;
    }
    total
}

fn refined(
    a: &OpenView<'_>,
    b: &OpenView<'_>,
    root: (usize, usize),
    similarities: &Similarities,
) -> Option<Pairing> {
    let rigid = placed_by(a, b, root);
    let centre = b.points[root.1];
    let mut expected: Vec<Point> = a.points.iter().map(|p| rigid.apply(p)).collect();
    let mut pairs = pair_up(&expected, b, similarities, |p| {
        reach_from_root((p.x - centre.x).powi(2) + (p.y - centre.y).powi(2))
    });
    for round in 0..REFINEMENTS {
        let rigid = Rigid::fit(&a.points, &b.points, &pairs)?;
        expected = elastic(a, b, &rigid, &pairs);
        let reach = REACH + REACH_STEP * (REFINEMENTS - 1 - round) as f32;
        pairs = pair_up(&expected, b, similarities, |_| reach);
    }
    Some(Pairing { pairs, expected })
}

/// Where each minutia is expected: placed rigidly, then moved, turned and stretched as its paired
/// neighbours are (a similarity fitted by moving least squares, held back towards none).
fn elastic(a: &OpenView<'_>, b: &OpenView<'_>, rigid: &Rigid, pairs: &[Pair]) -> Vec<Point> {
    let moved: Vec<Moved> = pairs
        .iter()
        .map(|p| {
            let (from, to) = (rigid.apply(&a.points[p.a]), b.points[p.b]);
            Moved { a: p.a, x: from.x, y: from.y, dx: to.x - from.x, dy: to.y - from.y }
        })
        .collect();
    let expected = |(i, point): (usize, &Point)| {
        let mut at = rigid.apply(point);
        let mut around = Around::default();
        moved.iter().filter(|m| m.a != i).for_each(|m| around.add(m, &at));
        around.carry(&mut at);
        at
    };
    a.points.iter().enumerate().map(expected).collect()
}

/// A paired minutia: where the rigid placement brings it, and how far from there its partner lies.
struct Moved {
    a: usize,
    x: f32,
    y: f32,
    dx: f32,
    dy: f32,
}

/// Weighted sums over the pairs around a point: places against the point, and movements.
struct Around {
    weight: f32,
    x: f32,
    y: f32,
    dx: f32,
    dy: f32,
    /// Of squared distances, and of how far movements go around the point and away from it.
    spread: f32,
    turned: f32,
    stretched: f32,
}

impl Default for Around {
    fn default() -> Self {
        let (x, y, dx, dy) = (0.0, 0.0, 0.0, 0.0);
        let (weight, spread) = (STIFFNESS, STIFFNESS_TURN);
        Self { weight, x, y, dx, dy, spread, turned: 0.0, stretched: 0.0 }
    }
}

impl Around {
    fn add(&mut self, moved: &Moved, at: &Point) {
        let (x, y) = (moved.x - at.x, moved.y - at.y);
        let squared = x * x + y * y;
        let share = fast_bell(squared / (2.0 * NEIGHBOURHOOD * NEIGHBOURHOOD));
        self.weight += share;
        self.x += share * x;
        self.y += share * y;
        self.dx += share * moved.dx;
        self.dy += share * moved.dy;
        self.spread += share * squared;
        self.turned += share * (x * moved.dy - y * moved.dx);
        self.stretched += share * (x * moved.dx + y * moved.dy);
    }

    /// Moves the point as the fitted similarity does.
    fn carry(&self, at: &mut Point) {
        let (x, y) = (self.x / self.weight, self.y / self.weight);
        let (dx, dy) = (self.dx / self.weight, self.dy / self.weight);
        // About the mean, not about the point.
        let spread = self.spread - self.weight * (x * x + y * y);
        let turned = (self.turned - self.weight * (x * dy - y * dx)) / spread;
        let stretched = (self.stretched - self.weight * (x * dx + y * dy)) / spread;
        at.x += dx - stretched * x + turned * y;
        at.y += dy - stretched * y - turned * x;
        at.direction += turned;
    }
}

/// About `exp(-x)`, without its cost.
fn fast_bell(x: f32) -> f32 {
    let base = 1.0 + x / 4.0;
    1.0 / (base * base * base * base)
}

/// Pairs each expected point with the nearest free point, closest pairs first.
fn pair_up(
    expected: &[Point],
    b: &OpenView<'_>,
    similarities: &Similarities,
    reach: impl Fn(&Point) -> f32,
) -> Vec<Pair> {
    let mut candidates: Vec<(f32, Pair)> = Vec::with_capacity(2 * expected.len());
    for (i, from) in expected.iter().enumerate() {
        let reach = reach(from);
        for j in b.nearby.around(from.x, from.y) {
            let to = &b.points[j];
            let squared = (to.x - from.x).powi(2) + (to.y - from.y).powi(2);
            let turn = turn(from.direction, to.direction);
            if squared > reach * reach || turn > TURN {
                continue;
            }
            let similarity = similarities.at(i, j);
            let cost = squared / (reach * reach) + (turn / TURN).powi(2) - similarity;
            let distance = squared.sqrt();
            candidates.push((cost, Pair { a: i, b: j, distance, turn, similarity }));
        }
    }
    candidates
        .sort_unstable_by(|x, y| x.0.total_cmp(&y.0).then((x.1.a, x.1.b).cmp(&(y.1.a, y.1.b))));
    let (mut used_a, mut used_b) = (0u64, 0u64);
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

/// Smallest angle between two directions. Both are within a few turns of each other.
fn turn(a: f32, b: f32) -> f32 {
    // Added to this, a small number loses its fraction: rounding without a call into the library.
    const INTEGERS: f32 = 12_582_912.0;
    let turns = (a - b) * (1.0 / TAU);
    (turns - ((turns + INTEGERS) - INTEGERS)).abs() * TAU
}
