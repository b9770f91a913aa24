//! `cargo bench -p minutiae --bench generator`: generated prints beside the public sets.
//!
//! One row a figure, one column a set: how many minutiae, how good, how far impressions of one finger
//! have turned and shifted, and what pairs of one finger and of two score. Sets that are absent are
//! left out, saying so.

#[path = "../tests/evaluation/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod evaluation;

use evaluation::{Set, data_folder};
use minutiae::synth::Finger;

const SETS: [&str; 2] = ["fvc2002-db4_b", "fvc2004-db4_b"];
/// As many impressions a finger as the sets have.
const IMPRESSIONS: u64 = 8;
const FINGERS: u64 = 40;
/// Where this bench's fingers start: other ones than those that weights are fitted to.
const FIRST_SEED: u64 = 50_000;

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for name in SETS {
        match data_folder().map(|folder| folder.join(name)).filter(|f| f.is_dir()) {
            Some(folder) => {
                columns.push((name.to_owned(), figures(&Set::read(&folder, usize::MAX))))
            }
            None => println!("{name} is absent"),
        }
    }
    let images = (FIRST_SEED..FIRST_SEED + FINGERS)
        .map(|seed| {
            let finger = Finger::new(seed);
            (0..IMPRESSIONS).map(|i| finger.impression(i)).collect()
        })
        .collect();
    columns
        .push((format!("generated, {FINGERS} x {IMPRESSIONS}"), figures(&Set::extracted(images))));

    println!("| figure | {} |", join(columns.iter().map(|c| c.0.as_str())));
    println!("|---|{}", "---|".repeat(columns.len()));
    for (row, name) in FIGURES.iter().enumerate() {
        println!("| {name} | {} |", join(columns.iter().map(|c| c.1[row].as_str())));
    }
}

fn join<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    cells.collect::<Vec<_>>().join(" | ")
}

const FIGURES: [&str; 8] = [
    "images without a template",
    "minutiae: mean (deviation)",
    "minutiae: 5, 50, 95 %",
    "share of endings, %",
    "quality: 5, 25, 50, 75, 95 %",
    "quality of minutiae: 5, 50, 95 %",
    "genuine score: 1, 5, 25, 50, 75, 95 %",
    "impostor score: 50, 90, 99, 99.9 %",
];

fn figures(set: &Set) -> Vec<String> {
    let templates: Vec<_> = set.fingers.iter().flatten().flatten().collect();
    let missing = set.fingers.iter().flatten().filter(|t| t.is_none()).count();
    let counts: Vec<f64> = templates.iter().map(|t| t.minutia_count() as f64).collect();
    let minutiae: Vec<_> =
        templates.iter().flat_map(|t| t.views()).flat_map(|v| v.minutiae()).collect();
    let endings = minutiae.iter().filter(|m| m.kind == minutiae::MinutiaKind::Ending).count();
    let qualities = set.qualities.iter().flatten().map(|&q| f64::from(q)).collect();
    let of_minutiae = minutiae.iter().map(|m| f64::from(m.quality)).collect();
    let rates = set.compared().rates();
    let at = |quantile: &dyn Fn(f64) -> u16, shares: &[f64]| {
        shares.iter().map(|s| quantile(s / 100.0).to_string()).collect::<Vec<_>>().join(", ")
    };
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let spread = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    vec![
        missing.to_string(),
        format!("{mean:.1} ({:.1})", spread.sqrt()),
        at_shares(counts, &[5.0, 50.0, 95.0]),
        format!("{:.0}", 100.0 * endings as f64 / minutiae.len() as f64),
        at_shares(qualities, &[5.0, 25.0, 50.0, 75.0, 95.0]),
        at_shares(of_minutiae, &[5.0, 50.0, 95.0]),
        at(&|s| rates.genuine_quantile(s), &[1.0, 5.0, 25.0, 50.0, 75.0, 95.0]),
        at(&|s| rates.impostor_quantile(s), &[50.0, 90.0, 99.0, 99.9]),
    ]
}

/// The values below which these shares of all lie, percent.
fn at_shares(mut values: Vec<f64>, shares: &[f64]) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share / 100.0).round() as usize];
    shares.iter().map(|&s| format!("{:.0}", at(s))).collect::<Vec<_>>().join(", ")
}
