//! `cargo bench -p minutiae --bench identification [-- ENROLLED]`: what strangers score, and how a
//! gallery of generated fingers is searched.
//!
//! | figure | of |
//! |---|---|
//! | false match rate at each threshold | all pairs of first impressions, at most 1 999 000 |
//! | the same of records of three placements | all pairs of 500 records and other fingers' touches |
//! | false positive identification rate | searches by fingers that are not enrolled |
//! | rank-1 loss | searches by enrolled fingers that a comparison with every template would have found |
//! | time, memory | the same gallery |
//!
//! A gallery of 10 000 takes 2 000 fingers, five impressions of each under numbers of their own: ridges
//! are slow to grow. Some minutes on two cores; a smaller number is for trying it out.

use std::num::NonZero;
use std::time::{Duration, Instant};

use minutiae::synth::Finger;
use minutiae::{Candidate, Gallery, Prepared, Template, compare, extract, merge, search_threshold};

const ENROLLED: usize = 2_000;
const IMPRESSIONS: u64 = 5;
/// First impressions that are compared with each other.
const COMPARED: usize = 2_000;
/// Fingers whose first three impressions are merged into one record.
const MERGED: usize = 500;
/// One enrolled finger in so many is searched for, by another impression.
const MATE_EVERY: usize = 2;
/// Strangers for two enrolled fingers, each looked for once: 3 000 searches without a false one show, at 95 %,
/// that less than one of a thousand is.
const STRANGERS_FOR_TWO: usize = 3;
/// Far from the seeds that calibration, weights and the steps of a search were fitted to.
const FIRST_SEED: u64 = 3_000_000;
const FIRST_STRANGER: u64 = 4_000_170;
/// The impression that looks for an enrolled finger.
const MATE_IMPRESSION: u64 = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let enrolled = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(ENROLLED).max(8);
    let start = Instant::now();
    let fingers = shared_out(enrolled, |n| templates(FIRST_SEED + n as u64, 0..IMPRESSIONS));
    println!("{enrolled} fingers in {:.0?}", start.elapsed());
    false_matches(&fingers);
    false_matches_of_merged(&fingers);
    identification(&fingers);
}

fn templates(seed: u64, impressions: impl Iterator<Item = u64>) -> Vec<Option<Prepared>> {
    let finger = Finger::new(seed);
    let prepared = |i| Some(Prepared::new(&extract(&finger.impression(i)).ok()?.template));
    impressions.map(prepared).collect()
}

fn false_matches(fingers: &[Vec<Option<Prepared>>]) {
    let first: Vec<&Prepared> =
        fingers.iter().take(COMPARED).filter_map(|f| f[0].as_ref()).collect();
    let rows = shared_out(first.len(), |i| {
        first[i + 1..].iter().map(|b| compare(first[i], b).get()).collect::<Vec<_>>()
    });
    let mut scores: Vec<u16> = rows.into_iter().flatten().collect();
    scores.sort_unstable_by(|a, b| b.cmp(a));
    println!(
        "\n| threshold | false match rate meant | measured, of all pairs (95 %) | score at the rate |"
    );
    println!("|---|---|---|---|");
    for (threshold, meant) in [(30, 1e-2), (50, 1e-3), (70, 1e-4), (90, 1e-5), (110, 1e-6)] {
        let reached = scores.iter().filter(|&&s| s >= threshold).count();
        let at_rate = scores.get((meant * scores.len() as f64) as usize).unwrap_or(&0);
        let measured = rate(reached, scores.len());
        println!("| {threshold} | {:.4} % | {measured} | {at_rate} |", 100.0 * meant);
    }
    println!("highest: {}", scores.first().unwrap_or(&0));
}

/// Records of three placements, as enrolment makes them, against other fingers' last impressions.
fn false_matches_of_merged(fingers: &[Vec<Option<Prepared>>]) {
    let count = fingers.len().min(MERGED);
    let merged: Vec<Option<Prepared>> = shared_out(count, |n| {
        let finger = Finger::new(FIRST_SEED + n as u64);
        let placements: Vec<Template> =
            (0..3).filter_map(|i| Some(extract(&finger.impression(i)).ok()?.template)).collect();
        merge(&placements.iter().collect::<Vec<_>>()).ok().map(|record| Prepared::new(&record))
    });
    let last = |n: usize| fingers[n].last().and_then(Option::as_ref);
    let rows = shared_out(count, |n| {
        let others = (0..count).filter(|&other| other != n).filter_map(last);
        let of = |record: &Prepared| others.map(|b| compare(record, b).get()).collect::<Vec<_>>();
        merged[n].as_ref().map(of).unwrap_or_default()
    });
    let scores: Vec<u16> = rows.into_iter().flatten().collect();
    let reached = |threshold| scores.iter().filter(|&&score| score >= threshold).count();
    println!("\nrecords of three placements:");
    for threshold in [50, 70] {
        println!("at {threshold}: {}", rate(reached(threshold), scores.len()));
    }
}

fn identification(fingers: &[Vec<Option<Prepared>>]) {
    let gallery = Gallery::new();
    let mut enrolled: Vec<(u32, &Prepared)> = Vec::new();
    for (n, finger) in fingers.iter().enumerate() {
        for (i, template) in finger.iter().enumerate() {
            if let Some(template) = template {
                let id = (n as u64 * IMPRESSIONS + i as u64) as u32;
                gallery.insert(id, template.clone());
                enrolled.push((id, template));
            }
        }
    }
    let most = enrolled.iter().map(|(_, t)| t.memory_bytes()).max().unwrap_or(0);
    let sum: usize = enrolled.iter().map(|(_, t)| t.memory_bytes()).sum();
    let (count, threshold) = (gallery.len(), search_threshold(gallery.len()));
    println!("\ngallery: {count} templates, threshold {threshold}");
    println!("a prepared template: {} bytes in the mean, {most} at most", sum / count);
    println!("with the index: {} bytes each", gallery.memory_bytes() / count);
    let mut times = Vec::new();
    let mut search = |probe: &Prepared, filter: Filter<'_>| {
        let start = Instant::now();
        let found = gallery.search(probe, Some(filter));
        times.push(start.elapsed());
        found
    };
    mates(fingers, &enrolled, threshold, &mut search);
    strangers(fingers.len(), threshold, &mut search);
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!("search: median {:.1?}, 95 % under {:.1?}", at(50), at(95));
    println!("fixed calculation of 10 million multiplications meanwhile: {:.1?}", yardstick());
}

type Filter<'a> = &'a dyn Fn(u32) -> bool;
type Search<'a> = dyn FnMut(&Prepared, Filter<'_>) -> Option<Candidate> + 'a;

/// Searches by enrolled fingers, each with one impression of its own in the gallery: the other four
/// are left out by the filter.
fn mates(
    fingers: &[Vec<Option<Prepared>>],
    enrolled: &[(u32, &Prepared)],
    threshold: u16,
    search: &mut Search<'_>,
) {
    let chosen: Vec<usize> = (0..fingers.len()).step_by(MATE_EVERY).collect();
    let probes = shared_out(chosen.len(), |i| {
        templates(FIRST_SEED + chosen[i] as u64, std::iter::once(MATE_IMPRESSION))
    });
    let (mut searched, mut found, mut accepted, mut lost) = (0, 0, 0, 0);
    for (&finger, probe) in chosen.iter().zip(&probes) {
        let Some(probe) = &probe[0] else { continue };
        let owner = |id: u32| (u64::from(id) / IMPRESSIONS) as usize == finger;
        let single = |id: u32| !owner(id) || u64::from(id).is_multiple_of(IMPRESSIONS);
        searched += 1;
        match search(probe, &single) {
            Some(best) if owner(best.id) => {
                found += 1;
                accepted += usize::from(best.score.get() >= threshold);
            }
            // Would a full search have found it?
            _ => lost += usize::from(owner(best_of_all(enrolled, probe, &single))),
        }
    }
    println!("mates first: {}", rate(found, searched));
    println!("mates first and at the threshold: {}", rate(accepted, searched));
    println!("rank-1 loss to the index: {}", rate(lost, searched));
}

fn best_of_all(
    enrolled: &[(u32, &Prepared)],
    probe: &Prepared,
    filter: &(dyn Fn(u32) -> bool + Sync),
) -> u32 {
    let scores = shared_out(enrolled.len(), |i| {
        let (id, template) = enrolled[i];
        filter(id).then(|| compare(probe, template))
    });
    let best = (0..scores.len()).rev().max_by_key(|&i| scores[i]);
    best.map_or(u32::MAX, |i| enrolled[i].0)
}

/// Searches by fingers that nobody enrolled.
fn strangers(enrolled: usize, threshold: u16, search: &mut Search<'_>) {
    let probes = shared_out(enrolled * STRANGERS_FOR_TWO / 2, |n| {
        templates(FIRST_STRANGER + n as u64, 0..1)
    });
    let mut best: Vec<u16> = Vec::new();
    for probe in probes.iter().flatten().flatten() {
        best.push(search(probe, &|_| true).map_or(0, |b| b.score.get()));
    }
    let accepted = best.iter().filter(|&&s| s >= threshold).count();
    best.sort_unstable();
    let at = |share: f64| best[((best.len() - 1) as f64 * share) as usize];
    println!("strangers taken for somebody: {}", rate(accepted, best.len()));
    println!(
        "strangers' best score: {} median, {} at 99 %, {} highest",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// A share in percent with the range that holds its true value 19 times in 20 (Wilson).
fn rate(count: usize, of: usize) -> String {
    let (n, z) = (of.max(1) as f64, 1.96f64);
    let p = count as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    let (low, high) = ((middle - half).max(0.0) / scale, (middle + half) / scale);
    format!("{:.4} % ({:.4}-{:.4}), {count} of {of}", 100.0 * p, 100.0 * low, 100.0 * high)
}

fn yardstick() -> Duration {
    let start = Instant::now();
    let product = (0..10_000_000u64).fold(1u64, |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    std::hint::black_box(product);
    start.elapsed()
}

/// The work for 0 to `count`, on all cores, results in order.
fn shared_out<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let work = &work;
    std::thread::scope(|scope| {
        // Interleaved, so that rows of a triangle take about as long for each core.
        let running: Vec<_> = (0..cores)
            .map(|core| scope.spawn(move || (core..count).step_by(cores).map(work).collect()))
            .collect();
        let mut parts: Vec<std::vec::IntoIter<R>> = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
            .map(|part: Vec<R>| part.into_iter())
            .collect();
        (0..count).filter_map(|i| parts[i % cores].next()).collect()
    })
}
