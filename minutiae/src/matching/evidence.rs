//! What a pairing says for and against one finger.

use super::align::{Pair, Pairing};
use super::{OpenView, Point};
use crate::template::MinutiaKind;

/// A minutia is on the common area when the other print has one this near.
const COMMON_PIXELS: f32 = 39.0;

/// Weight of a minutia that should have been found and wasn't.
const MISSING: f32 = 0.84;
/// What chance pairs up among many minutiae, for each ten on either side.
const CHANCE: f32 = 0.3;
/// A pair this many pixels, or this many radians, away from the expectation says nothing for it.
const PLACE_PIXELS: f32 = 5.75;
const DIRECTION_RADIANS: f32 = 0.18;
const DIRECTION_GAIN: f32 = 0.55;
/// Similarity of surroundings that says nothing, and what each more says.
const COMMON_SIMILARITY: f32 = 0.19;
const SIMILARITY_GAIN: f32 = 2.2;
const SAME_KIND: f32 = 0.35;
/// How much agreement counts between minutiae of no quality, and what quality adds.
const TRUST: f32 = 0.78;
const TRUST_GAIN: f32 = 0.76;
/// What being paired says by itself, and the least that a pair can say.
const PAIRED: f32 = 1.35;
const LEAST: f32 = -0.8;

/// Adds up the evidence; 0 and below say nothing for one finger.
pub(super) fn weigh(a: &OpenView<'_>, b: &OpenView<'_>, pairing: &Pairing) -> f32 {
    let support: f32 = pairing.pairs.iter().map(|p| of_pair(a, b, p)).sum();
    let chance = ((a.points.len() * b.points.len()) as f32).sqrt() / 10.0;
    support - MISSING * missing(a, b, pairing) - CHANCE * chance
}

fn of_pair(a: &OpenView<'_>, b: &OpenView<'_>, pair: &Pair) -> f32 {
    let (p, q) = (&a.points[pair.a], &b.points[pair.b]);
    let place = 1.0 - (pair.distance / PLACE_PIXELS).powi(2);
    let direction = DIRECTION_GAIN - (pair.turn / DIRECTION_RADIANS).powi(2);
    let surroundings = SIMILARITY_GAIN * (pair.similarity - COMMON_SIMILARITY);
    let kind = match (p.kind, q.kind) {
        (MinutiaKind::Other, _) | (_, MinutiaKind::Other) => 0.0,
        (a, b) if a == b => SAME_KIND,
        _ => -SAME_KIND,
    };
    let trust = TRUST + TRUST_GAIN * (p.quality * q.quality).sqrt();
    (PAIRED + trust * (place + direction + surroundings + kind)).max(LEAST)
}

/// Quality of what lies on the common area and has no partner.
fn missing(a: &OpenView<'_>, b: &OpenView<'_>, pairing: &Pairing) -> f32 {
    let (mut used_a, mut used_b) = (0u64, 0u64);
    for p in &pairing.pairs {
        used_a |= 1 << p.a;
        used_b |= 1 << p.b;
    }
    let lonely = |points: &[Point], used: u64, others: &[Point], places: &[Point]| -> f32 {
        (0..points.len())
            .filter(|&i| used >> i & 1 == 0 && common(&places[i], others))
            .map(|i| points[i].quality)
            .sum()
    };
    lonely(&a.points, used_a, &b.points, &pairing.expected)
        + lonely(&b.points, used_b, &pairing.expected, &b.points)
}

fn common(place: &Point, others: &[Point]) -> bool {
    let near = |o: &&Point| {
        (o.x - place.x).powi(2) + (o.y - place.y).powi(2) < COMMON_PIXELS * COMMON_PIXELS
    };
    others.iter().filter(near).nth(1).is_some()
}
