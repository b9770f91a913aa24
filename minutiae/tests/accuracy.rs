//! Error rates that must hold. The public sets are used where they are present; generated fingers
//! always.

#[allow(dead_code, unreachable_pub)]
mod evaluation;

use std::fs;

use evaluation::{Set, data_folder, three_enrolled};
use minutiae::evaluation::Print;
use minutiae::synth::Finger;
use minutiae::{Format, Prepared, Template, VERIFY_THRESHOLD, compare, search_threshold};

/// A set, and what EER and FNMR at an FMR of 0.1 % must stay under: well below the better of two public engines
/// (5.3 and 18.9 %, 4.5 and 7.5 %).
const SETS: [(&str, f64, f64); 2] = [("fvc2002-db4_b", 0.03, 0.05), ("fvc2004-db4_b", 0.04, 0.06)];

#[test]
fn public_sets_tell_fingers_apart() {
    let Some(data) = data_folder() else {
        println!("skipped: no fingerprint sets (RIDGEWAY_FINGERPRINT_DATA or ../shared/data)");
        return;
    };
    for (name, most_eer, most_missed) in SETS {
        if !data.join(name).is_dir() {
            println!("skipped: {name} is not in {}", data.display());
            continue;
        }
        let set = Set::read(&data.join(name), usize::MAX);
        let scores = set.compared();
        let (single, three) = (scores.rates(), three_enrolled(&scores));
        let search = search_threshold(10);
        println!(
            "{name}: EER {:.4}, FNMR at 50 {:.4}, FMR at 50 {:.4}; three enrolled: missed {:.4}, \
             strangers accepted {:.4}",
            single.eer(),
            single.fnmr(VERIFY_THRESHOLD),
            single.fmr(VERIFY_THRESHOLD),
            three.fnmr(search),
            three.fmr(search),
        );
        assert!(single.eer() < most_eer, "{name}: EER {}", single.eer());
        let missed = single.fnmr_at(0.001);
        assert!(missed < most_missed, "{name}: FNMR at FMR 0.1 % {missed}");
        let quality = |print: Print| set.qualities[print.finger][print.impression];
        let better = scores.rates_without_worst(0.1, quality).unwrap().fnmr_at(0.001);
        assert!(
            better <= missed * 2.0 / 3.0,
            "{name}: without the worst tenth {better} of {missed}"
        );
        assert!(single.fmr(VERIFY_THRESHOLD) <= 0.002, "{name}: {}", single.fmr(VERIFY_THRESHOLD));
        assert!(three.fnmr(search) < 0.05, "{name}: an enrolled finger is usually found");
        assert_eq!(three.fmr(search), 0.0, "{name}: a stranger never is");
    }
}

#[test]
fn commercial_templates_read_and_match_their_own_image() {
    let Some(folder) = data_folder().map(|d| d.join("fvc2002-db4_b")).filter(|d| d.is_dir()) else {
        println!("skipped: no fingerprint sets (RIDGEWAY_FINGERPRINT_DATA or ../shared/data)");
        return;
    };
    let set = Set::read(&folder, 2);
    let mut matched = 0;
    for (f, finger) in set.fingers.iter().enumerate() {
        for (i, own) in finger.iter().enumerate() {
            let path = folder.join(format!("{}_{}.iso", 101 + f, 1 + i));
            let bytes = fs::read(&path).unwrap();
            assert_eq!(Format::detect(&bytes), Some(Format::Iso19794_2), "{}", path.display());
            let theirs = Template::read(&bytes).unwrap();
            let own = own.as_ref().unwrap();
            let score = compare(&Prepared::new(&theirs), &Prepared::new(own));
            matched += usize::from(score.get() >= VERIFY_THRESHOLD);
        }
    }
    println!("{matched} of 20 commercial templates match our extraction of the same image");
    assert!(matched >= 18, "{matched} of 20");
}

#[test]
fn generated_impressions_match_and_generated_strangers_do_not() {
    let images = (0..16)
        .map(|seed| {
            let finger = Finger::new(seed);
            (1..=4).map(|i| finger.impression(i)).collect()
        })
        .collect();
    let single = Set::extracted(images).compared().rates();
    println!(
        "generated: missed {:.4} at 50, {:.4} at 70; strangers accepted {:.4} at 70",
        single.fnmr(50),
        single.fnmr(70),
        single.fmr(70),
    );
    assert!(single.fnmr(VERIFY_THRESHOLD) <= 0.02);
    assert_eq!(single.fmr(70), 0.0);
}
