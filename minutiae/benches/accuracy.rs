//! `cargo bench -p minutiae`: error rates on the public sets and on generated fingers, and times.
//!
//! Sets are read from `RIDGEWAY_FINGERPRINT_DATA`, else `../shared/data` beside the workspace; those
//! that are absent are left out, saying so. Intervals are 90 %, fingers drawn with replacement.

#[path = "../tests/evaluation/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod evaluation;

use evaluation::{Pairs, Set, data_folder};
use minutiae::synth::Finger;

const SETS: [&str; 2] = ["fvc2002-db4_b", "fvc2004-db4_b"];
const GENERATED_FINGERS: u64 = 40;
const GENERATED_IMPRESSIONS: u64 = 4;

fn main() {
    // `cargo test --benches` runs this too: nothing to check there.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    println!(
        "| set | EER % (90 %) | FNMR % at FMR 1 % | at 0.1 % (90 %) | at 0 | FMR % at 50 | at 70 \
         | 3 enrolled: EER % | FNMR % at 0.1 % | extract ms | compare µs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for name in SETS {
        match data_folder().map(|folder| folder.join(name)).filter(|f| f.is_dir()) {
            Some(folder) => report(name, &Set::read(&folder, usize::MAX)),
            None => println!("| {name} | absent |"),
        }
    }
    report("generated", &generated());
}

fn generated() -> Set {
    let images = (0..GENERATED_FINGERS)
        .map(|seed| {
            let finger = Finger::new(seed + 1_000);
            (0..GENERATED_IMPRESSIONS).map(|i| finger.impression(i)).collect()
        })
        .collect();
    Set::extracted(images)
}

fn report(name: &str, set: &Set) {
    let scores = set.compared();
    let (single, three) = (scores.single(), scores.three_enrolled());
    let percent = |v: f64| format!("{:.2}", 100.0 * v);
    let range = |figure: &dyn Fn(&Pairs) -> f64| {
        let (low, high) = scores.interval(figure);
        format!("{} ({}-{})", percent(figure(&single)), percent(low), percent(high))
    };
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.0} |",
        range(&Pairs::eer),
        percent(single.fnmr_at(0.01)),
        range(&|p: &Pairs| p.fnmr_at(0.001)),
        percent(single.fnmr_at(0.0)),
        percent(single.fmr(50)),
        percent(single.fmr(70)),
        percent(three.eer()),
        percent(three.fnmr_at(0.001)),
        set.extraction.as_secs_f64() * 1e3,
        scores.comparison.as_secs_f64() * 1e6,
    );
    if std::env::var_os("SHOW_WEAKEST").is_some() {
        for (score, (f, i), (_, j)) in scores.weakest(40) {
            println!("{score:5} finger {f} impressions {i} {j}");
        }
    }
}
