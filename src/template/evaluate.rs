//! `ridgeway template evaluate`: a folder of prints to error rates. What is counted and how is
//! [`minutiae::evaluation`]'s.
//!
//! What the files are called only says which belong together: fingers take part in the order of
//! their contents' digests, and of two prints the one with the lower digest comes first. So the same
//! prints under other names give the same figures, intervals included (with `--pairs fvc` the names
//! also say which impression is the first).

mod files;
mod report;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::bail;
use minutiae::{
    ExtractError, Prepared, View, compare,
    evaluation::{Enrolled, ErrorRates, Impostors, Print, Protocol, Scores},
};

use self::files::{FingerFiles, Set};
use super::{
    det,
    draw::png,
    input::{self, Input},
    parallel,
    rejection::Rejection,
};
use crate::{
    cli::{EvaluateArgs, PairsOf},
    output::{file::Target, print_json, progress},
};

/// Comparisons that one core takes at a time.
const CHUNK: usize = 64;

/// A print that is ready.
struct Loaded {
    name: String,
    digest: [u8; 32],
    /// None where the image gave no template.
    prepared: Option<Prepared>,
    quality: u8,
    /// How long it took, of an image.
    extraction: Option<Duration>,
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let set = files::find(&args.dir, args.ext.as_deref())?;
    let pictures = Pictures::of(args, &set)?;
    let fingers = load(&set, args.resolution.dpi)?;
    let protocol = protocol(args);
    let impressions: Vec<usize> = fingers.iter().map(Vec::len).collect();
    // Before the work: whether there will be anything to tell.
    Scores::of(&impressions, protocol, |_, _| 0)
        .map_err(|error| anyhow::anyhow!("{}: {error}; {}", args.dir.display(), set.summary()))?;
    let (scores, comparison) = compared(&fingers, &impressions, protocol)?;
    let draws = scores.resampling().draws();
    draw_curves(args, &pictures, &fingers, &scores, &draws)?;
    let report = report::Report::of(args, &set, &fingers, &scores, &draws, comparison);
    if args.json { print_json(&report) } else { report.print() }
}

/// Where pictures go.
struct Pictures {
    det: Option<Target>,
    rejection: Option<Target>,
}

impl Pictures {
    fn of(args: &EvaluateArgs, set: &Set) -> anyhow::Result<Self> {
        let target = |file: &Option<PathBuf>| {
            file.as_ref().map(|file| Target::new(file, set.paths())).transpose()
        };
        let new = Self { det: target(&args.det)?, rejection: target(&args.rejection)? };
        match (&new.det, &new.rejection) {
            (Some(det), Some(rejection)) if det.is(rejection) => {
                bail!("--det and --rejection are the same file, {}", rejection.name().display())
            }
            _ => Ok(new),
        }
    }
}

fn draw_curves(
    args: &EvaluateArgs,
    pictures: &Pictures,
    fingers: &[Vec<Loaded>],
    scores: &Scores,
    draws: &[ErrorRates],
) -> anyhow::Result<()> {
    let folder = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    let name = folder.file_name().map(|name| format!("{}, ", name.display())).unwrap_or_default();
    let title = format!("{name}{} enrolled", args.enrol);
    if let Some(target) = &pictures.det {
        target.write(&png::of(&det::draw(&title, &scores.rates(), draws))?)?;
    }
    if let Some(target) = &pictures.rejection {
        let quality = |print: Print| fingers[print.finger][print.impression].quality;
        target.write(&png::of(&Rejection::of(scores, quality).draw(&title))?)?;
    }
    Ok(())
}

fn protocol(args: &EvaluateArgs) -> Protocol {
    Protocol {
        enrolled: if args.enrol == 3 { Enrolled::Three } else { Enrolled::One },
        impostors: match args.pairs {
            PairsOf::All => Impostors::All,
            PairsOf::Fvc => Impostors::First,
        },
    }
}

/// Reads and extracts everything; fingers in the order of what they look like.
fn load(set: &Set, dpi: Option<u16>) -> anyhow::Result<Vec<Vec<Loaded>>> {
    let paths: Vec<_> = set.fingers.iter().flat_map(|finger| &finger.paths).collect();
    let bar = progress::bar("prints", paths.len() as u64);
    let loaded = parallel::map(&paths, &bar, |path| {
        let bytes = input::bytes(path)?;
        let (template, extraction) = match input::parse(path, &bytes, dpi)? {
            Input::Template { template, .. } => (Some(template), None),
            Input::Image { image, .. } => {
                let started = Instant::now();
                let extracted = minutiae::extract(&image);
                let took = started.elapsed();
                let template = match extracted {
                    Ok(extraction) => Some(extraction.template),
                    Err(ExtractError::NoPrint { .. } | ExtractError::TooFewMinutiae { .. }) => None,
                };
                (template, Some(took))
            }
        };
        let qualities = template.iter().flat_map(|t| t.views()).map(View::quality);
        Ok(Loaded {
            name: path.file_name().map(|name| name.display().to_string()).unwrap_or_default(),
            digest: digest(&bytes),
            quality: qualities.max().unwrap_or(0),
            prepared: template.as_ref().map(Prepared::new),
            extraction,
        })
    })?;
    bar.finish_and_clear();
    let mut loaded = loaded.into_iter();
    let of_finger = |finger: &FingerFiles| loaded.by_ref().take(finger.paths.len()).collect();
    let mut fingers: Vec<Vec<Loaded>> = set.fingers.iter().map(of_finger).collect();
    fingers.sort_by_cached_key(|prints| content(prints));
    Ok(fingers)
}

/// What a finger's prints hold, whatever they are called.
fn content(prints: &[Loaded]) -> Vec<[u8; 32]> {
    let mut digests: Vec<_> = prints.iter().map(|print| print.digest).collect();
    digests.sort_unstable();
    digests
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    let made = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.copy_from_slice(made.as_ref());
    digest
}

/// The scores, and how long a comparison took on average.
fn compared(
    fingers: &[Vec<Loaded>],
    impressions: &[usize],
    protocol: Protocol,
) -> anyhow::Result<(Scores, Duration)> {
    let pairs = protocol.pairs(impressions);
    let bar = progress::bar("pairs", pairs.len() as u64);
    let chunks: Vec<&[(Print, Print)]> = pairs.chunks(CHUNK).collect();
    let of = |print: Print| &fingers[print.finger][print.impression];
    let done = parallel::map(&chunks, &progress::hidden(), |chunk| {
        let started = Instant::now();
        let scores: Vec<u16> = chunk.iter().map(|&(a, b)| score(of(a), of(b))).collect();
        bar.inc(chunk.len() as u64);
        Ok((scores, started.elapsed()))
    })?;
    bar.finish_and_clear();
    let took: Duration = done.iter().map(|(_, took)| *took).sum();
    let scores: Vec<u16> = done.into_iter().flat_map(|(scores, _)| scores).collect();
    let each = took.div_f64(scores.len().max(1) as f64);
    Ok((Scores::new(impressions, protocol, &scores)?, each))
}

fn score(a: &Loaded, b: &Loaded) -> u16 {
    // A score depends a little on which print comes first.
    let (first, second) = if a.digest <= b.digest { (a, b) } else { (b, a) };
    match (&first.prepared, &second.prepared) {
        (Some(first), Some(second)) => compare(first, second).get(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minutiae::{GrayImage, synth::Finger};

    #[test]
    fn fingers_are_ordered_by_what_they_hold_and_not_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let print = |finger: u64, impression: u64| Finger::new(finger).impression(impression);
        let write = |name: &str, image: &GrayImage| {
            std::fs::write(dir.path().join(name), png::of_print(image).unwrap()).unwrap();
        };
        let order = || {
            let set = files::find(dir.path(), None).unwrap();
            load(&set, None).unwrap().iter().map(|prints| content(prints)).collect::<Vec<_>>()
        };
        for finger in 1..=4 {
            write(&format!("{finger}_1.png"), &print(finger, 1));
            write(&format!("{finger}_2.png"), &print(finger, 2));
        }
        let before = order();
        assert!(before.is_sorted() && before.len() == 4);
        for (from, to) in [("1_1", "9_2"), ("1_2", "9_1"), ("3_1", "1_7"), ("3_2", "1_3")] {
            let path = |name| dir.path().join(format!("{name}.png"));
            std::fs::rename(path(from), path(to)).unwrap();
        }
        assert_eq!(order(), before);
    }
}
