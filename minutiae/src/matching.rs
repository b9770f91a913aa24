//! Two templates to a score.
//!
//! 1. Each minutia is described by its surroundings, as a cylinder of bits (`cylinder`); all pairs
//!    are compared by counting bits.
//! 2. The most similar pairs are tried as roots: a root says how one print lies on the other, and the
//!    minutiae that then coincide are its votes (`align`).
//! 3. The best placements are refined elastically: where neighbours have moved together, a minutia is
//!    expected to have moved too. Each minutia's own pair is left out of what is expected of it
//!    (`align`).
//! 4. Evidence is added up: how closely pairs agree in place, direction and surroundings, less what
//!    should have been found on the common area and wasn't (`evidence`).
//! 5. Evidence becomes a [`Score`] by what strangers reach (`calibration`).
//!
//! A template of several views is as good as its best view.

mod align;
mod calibration;
mod cylinder;
mod evidence;
mod nearby;

use std::f32::consts::TAU;
use std::fmt;

use crate::template::{MinutiaKind, RESOLUTION_500_DPI, Template, View};
use cylinder::Cylinder;
use nearby::Nearby;

/// Score from which two templates count as one finger: one pair of strangers in a thousand reaches
/// it.
pub const VERIFY_THRESHOLD: u16 = 50;

/// Most minutiae of a view that are compared, the best ones: as many as a word has bits.
const MOST_POINTS: usize = 64;
/// Most views that are compared: a view's number has four bits.
const MOST_VIEWS: usize = 16;
/// Fewest that can say anything.
const FEWEST_POINTS: usize = 4;

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

/// One placement, at 500 dpi.
#[derive(Clone)]
pub(crate) struct PreparedView {
    points: Vec<Point>,
    cylinders: Vec<Cylinder>,
    nearby: Nearby,
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
                + v.points.len() * size_of::<Point>()
                + v.cylinders.len() * size_of::<Cylinder>()
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
            let place = |p: &Point| Place { x: p.x, y: p.y, direction: p.direction };
            view.points.iter().map(place).collect()
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
        let points: Vec<Point> = best
            .minutiae()
            .iter()
            .map(|m| Point {
                x: f32::from(m.x) * across,
                y: f32::from(m.y) * down,
                direction: -f32::from(m.angle) * TAU / 256.0,
                kind: m.kind,
                quality: if m.quality == 0 { 0.5 } else { f32::from(m.quality) / 100.0 },
            })
            .collect();
        let cylinders = cylinder::of(&points);
        let nearby = Nearby::of(&points);
        Self { points, cylinders, nearby }
    }
}

/// Compares two templates by their best pair of views.
pub fn compare(a: &Prepared, b: &Prepared) -> Score {
    calibration::score(evidence_of(a, b))
}

/// The evidence behind a score, on its own open scale.
pub(crate) fn evidence_of(a: &Prepared, b: &Prepared) -> f32 {
    let pairs = a.views.iter().flat_map(|a| b.views.iter().map(move |b| (a, b)));
    pairs.map(|(a, b)| compare_views(a, b)).fold(0.0, f32::max)
}

fn compare_views(a: &PreparedView, b: &PreparedView) -> f32 {
    let similarities = cylinder::Similarities::of(&a.cylinders, &b.cylinders);
    align::placements(a, b, &similarities)
        .iter()
        .map(|pairing| evidence::weigh(a, b, pairing))
        .fold(0.0, f32::max)
}

#[cfg(test)]
mod tests;
