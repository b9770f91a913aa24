//! What an evaluation takes of memory, in a process of its own. Two bytes a pair of prints are the scores
//! themselves.

#![allow(clippy::unwrap_used)]

use minutiae::evaluation::{Print, Protocol, Scores};

/// So that it takes no time; the variable `FINGERS` sets another number.
const FINGERS: usize = 250;
const IMPRESSIONS: usize = 8;

/// Bytes that this process has had at a time, at most.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

/// As scores of strangers are: most of them low, some a little higher.
fn score(a: Print, b: Print) -> u16 {
    let mixed = (a.finger * 7919 + a.impression * 104_729 + b.finger * 1_299_709 + b.impression)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = (mixed >> 60) * (mixed >> 56 & 3);
    if a.finger == b.finger { 200 + low as u16 } else { low as u16 }
}

#[test]
fn an_evaluation_takes_little_more_memory_than_its_scores() {
    let fingers = std::env::var("FINGERS").map_or(FINGERS, |fingers| fingers.parse().unwrap());
    let prints = fingers * IMPRESSIONS;
    let before = peak();
    let scores = Scores::of(&vec![IMPRESSIONS; fingers], Protocol::default(), score).unwrap();
    let rates = scores.rates();
    let worst = scores.rates_without_worst(0.1, |print| print.impression as u8).unwrap();
    let named = (scores.weakest_genuine(3), scores.strongest_impostors(3));
    let resampling = scores.resampling();
    let pairs = prints * (prints - 1) / 2;
    let each = (peak() - before) as f64 / pairs as f64;
    println!("{pairs} pairs, {} MiB, {each:.1} bytes a pair", peak() >> 20);
    assert!(each < 4.0, "{each} bytes a pair");
    drop((rates, worst, named, resampling));
}
