//! `cargo bench -p minutiae`: error rates on the public sets and on generated fingers, and times.
//!
//! Sets are read from `RIDGEWAY_FINGERPRINT_DATA`, else `../shared/data` beside the workspace; those
//! that are absent are left out, saying so. All pairs take part; intervals are 90 %, fingers drawn
//! with replacement. Times are medians, with a fixed calculation beside them to compare machines by.

#[path = "../tests/evaluation/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod evaluation;

use std::hint::black_box;
use std::time::{Duration, Instant};

use evaluation::{Set, data_folder, three_enrolled};
use minutiae::evaluation::{ErrorRates, Interval, Print, Scores};
use minutiae::synth::Finger;
use minutiae::{
    Gallery, Minutia, MinutiaKind, Prepared, Template, View, compare, extract, search_threshold,
};

const SETS: [&str; 2] = ["fvc2002-db4_b", "fvc2004-db4_b"];
const GENERATED_FINGERS: u64 = 40;
const GENERATED_IMPRESSIONS: u64 = 8;
const GALLERY: u32 = 10_000;
/// Pairs whose comparisons are timed.
const PAIRS: usize = 1_000;

fn main() {
    // `cargo test --benches` runs this too, without the flag: nothing to check there.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    println!(
        "| set | EER % (90 %) | FNMR % at FMR 1 % | at 0.1 % (90 %) | at 0 | FMR, FNMR % at 50 \
         | at 70 | 3 enrolled: EER % | FNMR % at 0.1 % | without worst tenth: FNMR % at 0.1 % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for name in SETS {
        match data_folder().map(|folder| folder.join(name)).filter(|f| f.is_dir()) {
            Some(folder) => {
                let (ours, theirs) = (Set::read(&folder, usize::MAX), Set::commercial(&folder));
                report(name, &ours, &ours.compared());
                report(&format!("{name}, commercial templates"), &theirs, &theirs.compared());
                report(
                    &format!("{name}, commercial and ours"),
                    &ours,
                    &theirs.compared_with(&ours),
                );
            }
            None => println!("| {name} | absent |"),
        }
    }
    let generated = generated();
    report("generated", &generated, &generated.compared());
    println!();
    times(&generated);
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

fn report(name: &str, set: &Set, scores: &Scores) {
    let (single, three) = (scores.rates(), three_enrolled(scores));
    let quality = |print: Print| set.qualities[print.finger][print.impression];
    let better = scores.rates_without_worst(0.1, quality);
    let draws = scores.resampling().draws();
    let percent = |v: f64| format!("{:.2}", 100.0 * v);
    let range = |figure: &dyn Fn(&ErrorRates) -> f64| {
        let interval = Interval::of(&draws, figure)
            .map_or_else(String::new, |i| format!(" ({}-{})", percent(i.low), percent(i.high)));
        format!("{}{interval}", percent(figure(&single)))
    };
    println!(
        "| {name} | {} | {} | {} | {} | {}, {} | {}, {} | {} | {} | {} |",
        range(&ErrorRates::eer),
        percent(single.fnmr_at(0.01)),
        range(&|r: &ErrorRates| r.fnmr_at(0.001)),
        percent(single.fnmr_at(0.0)),
        percent(single.fmr(50)),
        percent(single.fnmr(50)),
        percent(single.fmr(70)),
        percent(single.fnmr(70)),
        percent(three.eer()),
        percent(three.fnmr_at(0.001)),
        better.map_or_else(|| "-".to_owned(), |rates| percent(rates.fnmr_at(0.001))),
    );
}

/// No pair and no probe is taken twice in a row: a processor learns what is repeated.
fn times(generated: &Set) {
    let finger = Finger::new(1);
    let image = finger.impression(1);
    let prints: Vec<Vec<Prepared>> = generated
        .fingers
        .iter()
        .map(|finger| finger.iter().flatten().map(Prepared::new).collect())
        .collect();
    let templates: Vec<&Template> = generated.fingers.iter().flatten().flatten().collect();
    let mates: Vec<(&Prepared, &Prepared)> = (0..PAIRS)
        .map(|i| (&prints[i % prints.len()], i / prints.len()))
        .map(|(finger, i)| (&finger[i % finger.len()], &finger[(i + 1) % finger.len()]))
        .collect();
    let of = |i: usize| &prints[i % prints.len()][i * 7 % prints[i % prints.len()].len()];
    let strangers: Vec<(&Prepared, &Prepared)> =
        (0..PAIRS).map(|i| (of(i), of(3 * i + 1))).collect();

    println!("| what | time |");
    println!("|---|---|");
    row("fixed calculation (10 million dependent multiplications)", 9, || {
        (0..10_000_000u64).fold(1u64, |x, i| (x ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    });
    row("generate a finger", 9, || Finger::new(black_box(1)));
    row("generate an impression", 9, || finger.impression(black_box(1)));
    row("extract 300x400", 25, || extract(black_box(&image)));
    let mut templates = templates.iter().cycle();
    row("prepare", 99, || templates.next().map(|t| Prepared::new(t)));
    for (what, pairs) in [("one finger", mates), ("strangers", strangers)] {
        let mut next = pairs.iter().cycle();
        let each = |i: &mut std::iter::Cycle<std::slice::Iter<'_, (&Prepared, &Prepared)>>| {
            i.next().map(|(a, b)| compare(a, b))
        };
        row(&format!("compare, {what}"), pairs.len(), || each(&mut next));
    }
    for views in [1, 3] {
        searches(views, &prints);
    }
}

/// The first impressions look for a finger whose second ones are among many of scattered minutiae.
fn searches(views: u64, prints: &[Vec<Prepared>]) {
    let gallery = Gallery::new();
    for id in 0..GALLERY {
        gallery.insert(id, Prepared::new(&scattered(u64::from(id), views)));
    }
    for (id, finger) in (GALLERY..).zip(prints) {
        gallery.insert(id, finger[1].clone());
    }
    let mut probes = (GALLERY..).zip(prints).cycle();
    let (mut searched, mut found) = (0, 0);
    row(&format!("search {}, views each: {views}", gallery.len()), prints.len(), || {
        let Some((id, finger)) = probes.next() else { return };
        let best = gallery.search(&finger[0], None);
        searched += 1;
        found += usize::from(best.is_some_and(|b| b.id == id));
    });
    println!(
        "| {found} of {searched} found first; threshold {}; bytes each, with the index | {} |",
        search_threshold(gallery.len()),
        gallery.memory_bytes() / gallery.len(),
    );
}

fn row<T>(what: &str, runs: usize, mut run: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("| {what} | {:?} |", times[runs / 2]);
}

/// Views of forty minutiae anywhere: for times, not for error rates.
fn scattered(seed: u64, views: u64) -> Template {
    let views = (0..views).map(|view| scattered_view(seed + view * u64::from(GALLERY))).collect();
    Template::new(300, 400, 197, views).unwrap_or_else(|error| unreachable!("views fit: {error}"))
}

fn scattered_view(seed: u64) -> View {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % limit
    };
    let minutiae = (0..40)
        .map(|_| Minutia {
            x: 20 + below(260) as u16,
            y: 20 + below(360) as u16,
            angle: below(256) as u8,
            kind: if below(2) == 0 { MinutiaKind::Ending } else { MinutiaKind::Bifurcation },
            quality: 80,
        })
        .collect();
    View::new(80, minutiae).unwrap_or_else(|error| unreachable!("forty minutiae fit: {error}"))
}
