//! What a pairing says for and against one finger.

use super::align::{Pair, Pairing};
use super::{Point, PreparedView};
use crate::template::MinutiaKind;

/// A minutia is on the common area when the other print has one this near.
const COMMON_PIXELS: f32 = 48.0;

/// Adds up the evidence; 0 and below say nothing for one finger.
pub(super) fn weigh(a: &PreparedView, b: &PreparedView, pairing: &Pairing) -> f32 {
    let support: f32 = pairing.pairs.iter().map(|p| of_pair(a, b, p)).sum();
    let missing = missing(a, b, pairing);
    support - 0.55 * missing
}

fn of_pair(a: &PreparedView, b: &PreparedView, pair: &Pair) -> f32 {
    let (p, q) = (&a.points[pair.a], &b.points[pair.b]);
    let place = 1.0 - (pair.distance / 9.0).powi(2);
    let direction = 0.6 - (pair.turn / 0.28).powi(2);
    let surroundings = 4.0 * (pair.similarity - 0.35);
    let kind = match (p.kind, q.kind) {
        (MinutiaKind::Other, _) | (_, MinutiaKind::Other) => 0.0,
        (a, b) if a == b => 0.25,
        _ => -0.25,
    };
    let trust = 0.5 + 0.5 * (p.quality * q.quality).sqrt();
    (1.0 + trust * (place + direction + surroundings + kind)).max(-0.5)
}

/// Quality of what lies on the common area and has no partner.
fn missing(a: &PreparedView, b: &PreparedView, pairing: &Pairing) -> f32 {
    let (mut used_a, mut used_b) = (0u128, 0u128);
    for p in &pairing.pairs {
        used_a |= 1 << p.a;
        used_b |= 1 << p.b;
    }
    let lonely = |points: &[Point], used: u128, others: &[Point], places: &[Point]| -> f32 {
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
