//! Two templates to a score.
//!
//! 1. Each minutia is described by its surroundings, as a cylinder of bits (`cylinder`); all pairs
//!    are compared by counting bits.
//! 2. The most similar pairs are tried as roots: a root says how one print lies on the other, and the
//!    minutiae that then coincide are its votes (`align`).
//!    The first few of them say whether to go on: by then most strangers have shown that they are.
//! 3. The best placements are refined elastically: where neighbours have moved together, a minutia is
//!    expected to have moved too. Each minutia's own pair is left out of what is expected of it
//!    (`align`).
//! 4. Evidence is added up: how closely pairs agree in place, direction and surroundings, less what
//!    should have been found on the common area and wasn't (`evidence`).
//! 5. Evidence becomes a [`Score`] by what strangers reach (`calibration`).
//!
//! A template of several views is as good as its best view, less what more views give by chance.

mod align;
mod calibration;
mod cylinder;
mod evidence;
mod nearby;

use std::cmp::Ordering;
use std::f32::consts::TAU;
use std::fmt;

use crate::extract::FEWEST_MINUTIAE;
use crate::template::{MinutiaKind, RESOLUTION_500_DPI, Template, View};
use cylinder::{Cylinder, OpenCylinder, PackedCylinder, Similarities};
use nearby::Nearby;

/// Score from which two templates count as one finger: one pair of strangers in a thousand reaches
/// it.
pub const VERIFY_THRESHOLD: u16 = 50;

/// Most minutiae of a view that are compared, the best ones: as many as a word has bits.
const MOST_POINTS: usize = 64;
/// Most views that are compared: a view's number has four bits.
const MOST_VIEWS: usize = 16;
/// Fewest that can tell anybody apart, as many as an extraction gives.
const FEWEST_POINTS: usize = FEWEST_MINUTIAE;
/// What the first roots of a pair must promise for a full comparison: half of strangers don't. At 0.2 four
/// fifths don't, and as many as a third of those with the highest scores, but neither do some partial
/// touches of one finger.
const LEAST_PROMISE: f32 = 0.14;
/// The evidence that a promise is by itself, up to this at the least promise: a low score still ranks.
const LITTLE: f32 = 2.0;
/// Evidence from which no further placement is tried: a score of about 208, beyond what a search of a million
/// records of three views asks for.
const BEYOND_DOUBT: f32 = 70.0;
/// Points of a score for each power of ten of strangers that reach it.
const POINTS_PER_DECADE: f32 = 20.0;

/// How alike two templates are, 0 to 1000.
///
/// Calibrated on strangers: one pair in a thousand reaches 50, one in ten thousand 70, and so on by
/// 20 for each power of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Score(u16);

impl Score {
    /// The highest score.
    pub const MAX: Score = Score(1000);

    /// The number, 0 to 1000.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl From<Score> for u16 {
    fn from(score: Score) -> u16 {
        score.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A template made ready for comparison.
#[derive(Clone)]
pub struct Prepared {
    views: Vec<PreparedView>,
}

/// One placement, packed: a gallery holds thousands. At most 4 KB with what belongs to it.
#[derive(Clone)]
struct PreparedView {
    points: Vec<PackedPoint>,
    cylinders: Vec<PackedCylinder>,
    nearby: Nearby,
}

/// One placement unpacked for a comparison.
struct OpenView<'a> {
    points: Vec<Point>,
    cylinders: Vec<OpenCylinder>,
    nearby: &'a Nearby,
}

/// A minutia at 500 dpi in eight bytes.
#[derive(Debug, Clone, Copy)]
struct PackedPoint {
    /// Eighths of a pixel; what lies beyond 8191 pixels is held there.
    x: u16,
    y: u16,
    /// As in the record.
    angle: u8,
    kind: MinutiaKind,
    /// 1 to 100, or 0 where it isn't given.
    quality: u8,
}

/// A minutia at 500 dpi, in image coordinates (y down).
#[derive(Debug, Clone, Copy)]
struct Point {
    x: f32,
    y: f32,
    /// Radians, clockwise as seen.
    direction: f32,
    kind: MinutiaKind,
    /// 0 to 1.
    quality: f32,
}

impl Prepared {
    /// Prepares the views of a template, the first 16. Views with too few minutiae are left out.
    pub fn new(template: &Template) -> Self {
        let views = template
            .views()
            .iter()
            .take(MOST_VIEWS)
            .map(|view| PreparedView::new(template, view))
            .filter(|view| view.points.len() >= FEWEST_POINTS)
            .collect();
        Self { views }
    }

    /// Bytes of memory that this takes.
    pub fn memory_bytes(&self) -> usize {
        let view = |v: &PreparedView| {
            size_of::<PreparedView>()
                + v.points.capacity() * size_of::<PackedPoint>()
                + v.cylinders.capacity() * size_of::<PackedCylinder>()
                + v.nearby.memory_bytes()
        };
        size_of::<Self>() + self.views.iter().map(view).sum::<usize>()
    }
}

/// Where a minutia lies, at 500 dpi in image coordinates (y down).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) x: f32,
    pub(crate) y: f32,
    /// Radians, clockwise as seen.
    pub(crate) direction: f32,
}

impl Prepared {
    /// The minutiae of each view, for an index.
    pub(crate) fn places(&self) -> impl Iterator<Item = Vec<Place>> + '_ {
        self.views.iter().map(|view| {
            let place = |p: Point| Place { x: p.x, y: p.y, direction: p.direction };
            view.points.iter().map(|p| place(p.open())).collect()
        })
    }
}

/// Counts only.
impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({} views)", self.views.len())
    }
}

impl PreparedView {
    fn new(template: &Template, view: &View) -> Self {
        let scale = |resolution: u16| match resolution {
            0 => 1.0,
            given => f32::from(RESOLUTION_500_DPI) / f32::from(given),
        };
        let (across, down) = (scale(template.x_resolution()), scale(template.y_resolution()));
        let best = view.best(MOST_POINTS);
        let points: Vec<PackedPoint> = best
            .minutiae()
            .iter()
            .map(|m| PackedPoint {
                x: packed(f32::from(m.x) * across),
                y: packed(f32::from(m.y) * down),
                angle: m.angle,
                kind: m.kind,
                quality: m.known_quality(),
            })
            .collect();
        let open: Vec<Point> = points.iter().map(PackedPoint::open).collect();
        let cylinders = cylinder::of(&open).iter().map(Cylinder::packed).collect();
        let nearby = Nearby::of(&open);
        Self { points, cylinders, nearby }
    }

    fn open(&self) -> OpenView<'_> {
        OpenView {
            points: self.points.iter().map(PackedPoint::open).collect(),
            cylinders: self.cylinders.iter().map(PackedCylinder::open).collect(),
            nearby: &self.nearby,
        }
    }
}

impl OpenView<'_> {
    /// An order in which only views of the same minutiae are equal.
    fn order(&self, other: &Self) -> Ordering {
        let by_content = || {
            let pairs = self.points.iter().zip(&other.points);
            pairs.map(|(a, b)| a.order(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        self.points.len().cmp(&other.points.len()).then_with(by_content)
    }
}

impl Point {
    fn order(&self, other: &Self) -> Ordering {
        let numbers = |p: &Self| [p.x, p.y, p.direction, p.quality, f32::from(p.kind as u8)];
        let pairs = numbers(self).into_iter().zip(numbers(other));
        pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

/// Parts of a pixel that a packed place tells apart.
const PLACE_PARTS: f32 = 8.0;

fn packed(pixels: f32) -> u16 {
    (pixels * PLACE_PARTS).round() as u16
}

impl PackedPoint {
    fn open(&self) -> Point {
        Point {
            x: f32::from(self.x) / PLACE_PARTS,
            y: f32::from(self.y) / PLACE_PARTS,
            direction: -f32::from(self.angle) * TAU / 256.0,
            kind: self.kind,
            quality: if self.quality == 0 { 0.5 } else { f32::from(self.quality) / 100.0 },
        }
    }
}

/// Compares two templates by their best pair of views. Which comes first makes no difference.
///
/// Each further pair of views is one more chance for a stranger, so the score is lower by 20 points for
/// each power of ten of them: a threshold means the same whatever is compared.
pub fn compare(a: &Prepared, b: &Prepared) -> Score {
    let chances = (a.views.len() * b.views.len()).max(1) as f32;
    let score = f32::from(calibration::score(evidence_of(a, b)).0);
    Score((score - POINTS_PER_DECADE * chances.log10()).max(0.0).round() as u16)
}

/// The evidence behind a score, on its own open scale.
pub(crate) fn evidence_of(a: &Prepared, b: &Prepared) -> f32 {
    let second: Vec<OpenView<'_>> = b.views.iter().map(PreparedView::open).collect();
    let best = |a: OpenView<'_>| second.iter().map(|b| compare_views(&a, b)).fold(0.0, f32::max);
    a.views.iter().map(|a| best(a.open())).fold(0.0, f32::max)
}

/// A pairing looks different from either side, so content says which view is laid on which: the one
/// with fewer minutiae comes first.
fn compare_views(a: &OpenView<'_>, b: &OpenView<'_>) -> f32 {
    let (a, b) = if a.order(b).is_gt() { (b, a) } else { (a, b) };
    let similarities = Similarities::of(&a.cylinders, &b.cylinders);
    let (votes, first_roots) = align::first_votes(a, b, &similarities);
    let promise = promise(votes, a, b) / LEAST_PROMISE;
    let least = LITTLE * promise.min(1.0);
    if promise < 1.0 {
        return least;
    }
    let mut most = least;
    for pairing in align::placements(a, b, &similarities, first_roots) {
        most = most.max(evidence::weigh(a, b, &pairing));
        if most >= BEYOND_DOUBT {
            break;
        }
    }
    most
}

/// A template that is compared with many.
pub(crate) struct Probe<'a> {
    views: Vec<OpenView<'a>>,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(template: &'a Prepared) -> Self {
        Self { views: template.views.iter().map(PreparedView::open).collect() }
    }

    /// How likely a full comparison is to find anything: its first steps, of the best pair of views.
    pub(crate) fn promise(&self, other: &Prepared) -> f32 {
        let second: Vec<OpenView<'_>> = other.views.iter().map(PreparedView::open).collect();
        let of = |a: &OpenView<'_>, b: &OpenView<'_>| {
            let similarities = Similarities::of(&a.cylinders, &b.cylinders);
            promise(align::first_votes(a, b, &similarities).0, a, b)
        };
        let best = |a| second.iter().map(|b| of(a, b)).fold(0.0, f32::max);
        self.views.iter().map(best).fold(0.0, f32::max)
    }
}

/// Votes on a scale of their own: they grow with minutiae on both sides. Few are taken for some more.
fn promise(votes: f32, a: &OpenView<'_>, b: &OpenView<'_>) -> f32 {
    const FEW: f32 = 15.0;
    votes / ((a.points.len() * b.points.len()) as f32).sqrt().max(FEW)
}

#[cfg(test)]
mod tests;
