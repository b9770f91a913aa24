//! Error rates that must hold. The public sets are used where they are present; generated fingers
//! always.

#[allow(dead_code, unreachable_pub)]
mod evaluation;

use std::fs;

use evaluation::{Set, data_folder, three_enrolled};
use minutiae::synth::Finger;
use minutiae::{Format, Prepared, Template, VERIFY_THRESHOLD, compare, search_threshold};

/// Impressions of each finger that take part: all of them take too long unoptimised.
const SAMPLED_IMPRESSIONS: usize = 5;

#[test]
fn public_sets_tell_fingers_apart() {
    let Some(data) = data_folder() else {
        println!("skipped: no fingerprint sets (RIDGEWAY_FINGERPRINT_DATA or ../shared/data)");
        return;
    };
    for (name, most_eer) in [("fvc2002-db4_b", 0.03), ("fvc2004-db4_b", 0.08)] {
        if !data.join(name).is_dir() {
            println!("skipped: {name} is not in {}", data.display());
            continue;
        }
        let scores = Set::read(&data.join(name), SAMPLED_IMPRESSIONS).compared();
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
        assert!(single.fmr(VERIFY_THRESHOLD) <= 0.003, "{name}: {}", single.fmr(VERIFY_THRESHOLD));
        assert!(three.fnmr(search) < 0.10, "{name}: an enrolled finger is usually found");
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
