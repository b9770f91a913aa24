//! Ends and forks of the thinned ridges, after mending what the filter got wrong.
//!
//! | artefact | told by | mended by |
//! |---|---|---|
//! | spur | an end close to the fork it hangs on | removing the line |
//! | island | two ends of one short line | removing the line |
//! | bridge | two forks joined by a short line across the ridges | removing the line |
//! | break | two ends that face each other | joining them |
//! | lake | two forks joined by two short lines | dropping both forks |
//! | border | the print ends near by, or soon ahead of the end | dropping the minutia |
//! | dirt | the image is not what the ridges say | dropping the minutia |
//! | crowd | more than a few minutiae on a spot | dropping all of them |

use std::collections::HashSet;
use std::f32::consts::{FRAC_PI_2, PI};

use crate::map::Map;
use crate::template::MinutiaKind;

use super::ground::Mask;
use super::orientation::{Field, between_lines};
use super::skeleton::Skeleton;
use crate::filter::CELL;

const SPUR_PIXELS: usize = 9;
const ISLAND_PIXELS: usize = 13;
const BRIDGE_PIXELS: usize = 10;
const LAKE_PIXELS: usize = 14;
const BREAK_PIXELS: f32 = 11.0;
/// How far a ridge is followed to tell its direction.
const TRACE_PIXELS: usize = 12;
/// Nearest to the edge of the print.
const EDGE_PIXELS: f32 = 9.0;
/// Print that must lie ahead of a ridge's end.
const AHEAD_PIXELS: f32 = 15.0;
/// A spot, and how many minutiae are a crowd on it (the one in the middle counted).
const CROWD_PIXELS: f32 = 13.0;
const CROWD: usize = 4;
/// Where image and ridges agree less than this, the filter has drawn ridges on dirt.
const LEAST_AGREEMENT: f32 = 0.45;
/// Two minutiae this close are one seen twice.
const TWIN_PIXELS: f32 = 5.0;

/// A minutia at 500 dpi.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) x: f32,
    pub(super) y: f32,
    /// Image coordinates, radians: along the ending ridge, or between the legs of a fork.
    pub(super) direction: f32,
    pub(super) kind: MinutiaKind,
    /// 0 to 1.
    pub(super) quality: f32,
}

pub(super) fn minutiae(
    skeleton: &mut Skeleton,
    mask: &Mask,
    field: &Field,
    agreement: &Map,
) -> Vec<Found> {
    remove_short_lines(skeleton);
    join_breaks(skeleton, field);
    remove_bridges(skeleton, field);
    remove_short_lines(skeleton);
    let lakes = lakes(skeleton);
    let mut found: Vec<Found> = skeleton
        .set_pixels()
        .into_iter()
        .filter(|at| !lakes.contains(at))
        .filter_map(|at| minutia(skeleton, at, field))
        .filter(|f| well_inside(f, mask))
        .collect();
    let agrees = |f: &Found| agreement.bilinear(f.x / CELL as f32 - 0.5, f.y / CELL as f32 - 0.5);
    found.retain(|f| agrees(f) >= LEAST_AGREEMENT);
    for f in &mut found {
        f.quality = agrees(f) * (0.4 + 0.6 * field.coherence(f.x, f.y));
    }
    thin_out(found)
}

/// Where a followed line ended.
enum End {
    /// At the end of the line.
    Tip,
    /// At a fork.
    Fork,
    /// Nowhere yet.
    Open,
}

struct Trace {
    /// From the first pixel behind the start to the last one, the node included.
    path: Vec<usize>,
    end: End,
}

/// The pixels from which the lines at a node start: one for each run of neighbours.
fn branches(skeleton: &Skeleton, at: usize) -> Vec<usize> {
    let around = skeleton.around(at);
    let set = |i: usize| skeleton.pixels[around[i % 8]] != 0;
    let mut starts = Vec::with_capacity(4);
    for i in 0..8 {
        if set(i) && !set(i + 7) {
            // Of a run, the pixel beside the node stands for it.
            let run = (i..i + 8).take_while(|&j| set(j));
            let beside = run.clone().find(|j| j % 2 == 0).unwrap_or(i);
            starts.push(around[beside % 8]);
        }
    }
    starts
}

fn trace(skeleton: &Skeleton, from: usize, first: usize, most: usize) -> Trace {
    let mut path = vec![first];
    let (mut previous, mut at) = (from, first);
    loop {
        match skeleton.crossings(at) {
            0 | 1 => return Trace { path, end: End::Tip },
            2 => {}
            3.. => return Trace { path, end: End::Fork },
        }
        if path.len() >= most {
            return Trace { path, end: End::Open };
        }
        let around = skeleton.around(at);
        let before = skeleton.around(previous);
        let ahead = |i: usize| {
            let n = around[i];
            (skeleton.pixels[n] != 0 && n != previous && !before.contains(&n)).then_some(n)
        };
        let Some(next) = [0, 2, 4, 6, 1, 3, 5, 7].into_iter().find_map(ahead) else {
            return Trace { path, end: End::Tip };
        };
        path.push(next);
        (previous, at) = (at, next);
    }
}

fn ends(skeleton: &Skeleton) -> Vec<usize> {
    skeleton.set_pixels().into_iter().filter(|&i| skeleton.crossings(i) == 1).collect()
}

fn forks(skeleton: &Skeleton) -> Vec<usize> {
    skeleton.set_pixels().into_iter().filter(|&i| skeleton.crossings(i) >= 3).collect()
}

fn remove_short_lines(skeleton: &mut Skeleton) {
    for end in ends(skeleton) {
        let Some(&first) = branches(skeleton, end).first() else { continue };
        let Trace { mut path, end: reached } = trace(skeleton, end, first, ISLAND_PIXELS);
        let remove = match reached {
            End::Tip => true,
            End::Fork => {
                path.pop();
                path.len() < SPUR_PIXELS
            }
            End::Open => false,
        };
        if remove {
            skeleton.pixels[end] = 0;
            path.iter().for_each(|&i| skeleton.pixels[i] = 0);
        }
    }
    skeleton.thin();
}

fn remove_bridges(skeleton: &mut Skeleton, field: &Field) {
    for fork in forks(skeleton) {
        for first in branches(skeleton, fork) {
            if skeleton.crossings(fork) < 3 {
                break;
            }
            let Trace { mut path, end } = trace(skeleton, fork, first, BRIDGE_PIXELS);
            let (End::Fork, Some(other)) = (end, path.pop()) else { continue };
            let ((ax, ay), (bx, by)) = (skeleton.position(fork), skeleton.position(other));
            let along = (by - ay).atan2(bx - ax);
            let ridge = field.at((ax + bx) / 2.0, (ay + by) / 2.0);
            if path.len() >= 2 && between_lines(along, ridge) > PI / 4.0 {
                path.iter().for_each(|&i| skeleton.pixels[i] = 0);
            }
        }
    }
    skeleton.thin();
}

fn join_breaks(skeleton: &mut Skeleton, field: &Field) {
    let tips: Vec<(usize, Found)> = ends(skeleton)
        .into_iter()
        .filter_map(|i| Some((i, minutia(skeleton, i, field)?)))
        .collect();
    let mut joined = vec![false; tips.len()];
    for (i, (_, a)) in tips.iter().enumerate() {
        let partner = (i + 1..tips.len())
            .filter(|&j| !joined[i] && !joined[j])
            .map(|j| (j, (tips[j].1.x - a.x).hypot(tips[j].1.y - a.y)))
            .filter(|&(j, distance)| distance <= BREAK_PIXELS && facing(a, &tips[j].1, distance))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((j, _)) = partner {
            draw(skeleton, a, &tips[j].1);
            (joined[i], joined[j]) = (true, true);
        }
    }
    skeleton.thin();
}

/// Two ends of one ridge: each points away from the other, along the line between them.
fn facing(a: &Found, b: &Found, distance: f32) -> bool {
    let towards = (b.y - a.y).atan2(b.x - a.x);
    let tolerance = if distance < 5.0 { 1.2 } else { 0.5 };
    turn(a.direction, towards + PI) < tolerance && turn(b.direction, towards) < tolerance
}

fn draw(skeleton: &mut Skeleton, a: &Found, b: &Found) {
    let steps = (b.x - a.x).abs().max((b.y - a.y).abs()).ceil().max(1.0);
    for step in 0..=steps as usize {
        let t = step as f32 / steps;
        let index = skeleton.index(a.x + t * (b.x - a.x), a.y + t * (b.y - a.y));
        skeleton.pixels[index] = 1;
    }
}

/// Forks that are two corners of a hole in a ridge.
fn lakes(skeleton: &Skeleton) -> HashSet<usize> {
    let mut corners = HashSet::new();
    for fork in forks(skeleton) {
        let reached: Vec<usize> = branches(skeleton, fork)
            .into_iter()
            .map(|first| trace(skeleton, fork, first, LAKE_PIXELS))
            .filter(|t| matches!(t.end, End::Fork))
            .filter_map(|t| t.path.last().copied())
            .collect();
        let twice = reached.iter().enumerate().any(|(i, a)| reached[i + 1..].contains(a));
        if twice {
            corners.insert(fork);
        }
    }
    corners
}

fn minutia(skeleton: &Skeleton, at: usize, field: &Field) -> Option<Found> {
    let (x, y) = skeleton.position(at);
    let (kind, traced) = match skeleton.crossings(at) {
        1 => (MinutiaKind::Ending, ending_direction(skeleton, at)?),
        3 => (MinutiaKind::Bifurcation, fork_direction(skeleton, at)?),
        _ => return None,
    };
    // The field's line is steadier than a few traced pixels; the trace says which way it points.
    let line = field.at(x, y);
    let direction = if turn(line, traced) > FRAC_PI_2 { line + PI } else { line };
    Some(Found { x, y, direction, kind, quality: 0.0 })
}

fn ending_direction(skeleton: &Skeleton, at: usize) -> Option<f32> {
    let first = *branches(skeleton, at).first()?;
    Some(heading(skeleton, at, first))
}

/// Between the two legs: opposite to the branch that has the most room beside it.
fn fork_direction(skeleton: &Skeleton, at: usize) -> Option<f32> {
    let headings: Vec<f32> =
        branches(skeleton, at).into_iter().map(|b| heading(skeleton, at, b)).collect();
    let [a, b, c] = headings[..] else { return None };
    let legs = [(a, b), (b, c), (a, c)];
    let (left, right) =
        legs.into_iter().min_by(|p, q| turn(p.0, p.1).total_cmp(&turn(q.0, q.1)))?;
    Some((left.sin() + right.sin()).atan2(left.cos() + right.cos()))
}

fn heading(skeleton: &Skeleton, at: usize, first: usize) -> f32 {
    let path = trace(skeleton, at, first, TRACE_PIXELS).path;
    let far = path.last().copied().unwrap_or(first);
    let ((x, y), (fx, fy)) = (skeleton.position(at), skeleton.position(far));
    (fy - y).atan2(fx - x)
}

fn well_inside(f: &Found, mask: &Mask) -> bool {
    if mask.depth(f.x, f.y) < EDGE_PIXELS {
        return false;
    }
    let (sin, cos) = f.direction.sin_cos();
    let ahead = mask.contains(f.x - AHEAD_PIXELS * cos, f.y - AHEAD_PIXELS * sin);
    match f.kind {
        MinutiaKind::Ending => ahead,
        MinutiaKind::Bifurcation | MinutiaKind::Other => true,
    }
}

/// Drops twins and crowds.
fn thin_out(found: Vec<Found>) -> Vec<Found> {
    let near = |a: &Found, b: &Found, reach: f32| (a.x - b.x).hypot(a.y - b.y) < reach;
    let lonely: Vec<Found> = found
        .iter()
        .filter(|a| found.iter().filter(|b| near(a, b, CROWD_PIXELS)).count() < CROWD)
        .copied()
        .collect();
    let mut kept: Vec<Found> = Vec::with_capacity(lonely.len());
    for f in lonely {
        match kept.iter_mut().find(|k| near(k, &f, TWIN_PIXELS)) {
            Some(twin) if twin.quality < f.quality => *twin = f,
            Some(_) => {}
            None => kept.push(f),
        }
    }
    kept
}

/// Smallest angle between two directions, from 0 to half a turn.
fn turn(a: f32, b: f32) -> f32 {
    let difference = (a - b).rem_euclid(2.0 * PI);
    difference.min(2.0 * PI - difference)
}
