//! `ridgeway template evaluate`: a folder of prints to error rates. What is counted and how is
//! [`minutiae::evaluation`]'s.
//!
//! What the files are called only says which belong together: fingers take part in the order of
//! their contents' digests. So the same prints under other names give the same figures, intervals included
//! (with `--pairs fvc` the names also say which impression is the first).

mod files;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use minutiae::{
    ExtractError, Prepared, View, compare,
    evaluation::{Enrolled, Impostors, Print, Protocol, Scores},
};

use self::files::{FingerFiles, Set};
use super::{
    det,
    draw::{Canvas, png},
    input::{self, Input},
    parallel,
    rejection::Rejection,
};
use crate::{
    cli::{EvaluateArgs, PairsOf},
    output::{file::Target, print_json, progress},
    run::explain,
};

/// A file that was read.
struct Loaded {
    name: String,
    digest: [u8; 32],
    print: Result<Prepared, Failure>,
    /// 0 without a template.
    quality: u8,
    /// How long it took, of an image.
    extraction: Option<Duration>,
}

/// Why a file gave no template.
enum Failure {
    /// An image, of which none can be taken.
    NoTemplate(ExtractError),
    /// Nothing that can be read.
    Unreadable(String),
}

pub(super) fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let set = files::find(&args.dir, args.ext.as_deref())?;
    let protocol = protocol(args);
    // Before the work: whether there will be anything to tell, and a place for what is drawn.
    let impressions: Vec<usize> = set.fingers.iter().map(|finger| finger.paths.len()).collect();
    protocol
        .check(&impressions)
        .map_err(|error| anyhow::anyhow!("{}: {error}; {}", args.dir.display(), set.summary()))?;
    let pictures = Pictures::of(args, &set)?;
    let fingers = load(&set, args.resolution.dpi)?;
    let (scores, comparison) = compared(&fingers, protocol)?;
    let draws = scores.resampling().draws();
    let mut report = report::Report::of(args, &set, &fingers, &scores, &draws, comparison);
    let title = title(args);
    let det = drawn(pictures.det.as_ref(), || det::draw(&title, &scores.rates(), &draws));
    let rejection = drawn(pictures.rejection.as_ref(), || {
        let quality = |print: Print| fingers[print.finger][print.impression].quality;
        Rejection::of(&scores, quality).draw(&title)
    });
    (report.det, report.rejection) = (written(&det), written(&rejection));
    // Also where a picture failed: what was computed isn't lost.
    let told = if args.json { print_json(&report) } else { report.print() };
    det?;
    rejection?;
    told
}

/// Where pictures go.
struct Pictures {
    det: Option<Target>,
    rejection: Option<Target>,
}

impl Pictures {
    fn of(args: &EvaluateArgs, set: &Set) -> anyhow::Result<Self> {
        let target = |file: &Path| Target::new(file, set.paths());
        let det = match &args.det {
            Some(file) => Some(target(file)?),
            None if args.no_det => None,
            None => Some(target(&default_det(args)).context(
                "no place for the DET curve (--det gives it another one, --no-det leaves it out)",
            )?),
        };
        let rejection = args.rejection.as_deref().map(target).transpose()?;
        match (&det, &rejection) {
            (Some(det), Some(rejection)) if det.is(rejection) => {
                bail!("--det and --rejection are the same file, {}", rejection.name().display())
            }
            _ => Ok(Self { det, rejection }),
        }
    }
}

/// In the current folder. An underscore would make it a print, were that the set's own folder.
fn default_det(args: &EvaluateArgs) -> PathBuf {
    let set = set_name(args).map(|name| format!("{name}-").replace('_', "-"));
    format!("{}det.png", set.unwrap_or_default()).into()
}

fn set_name(args: &EvaluateArgs) -> Option<String> {
    let folder = args.dir.canonicalize().unwrap_or_else(|_| args.dir.clone());
    folder.file_name().map(|name| name.display().to_string())
}

fn title(args: &EvaluateArgs) -> String {
    let name = set_name(args).map(|name| format!("{name}, ")).unwrap_or_default();
    format!("{name}{} enrolled", args.enrol)
}

/// Draws a picture that has a place, and says which.
fn drawn(
    target: Option<&Target>,
    picture: impl FnOnce() -> Canvas,
) -> anyhow::Result<Option<&Target>> {
    let Some(target) = target else { return Ok(None) };
    target.write(&png::of(&picture())?)?;
    Ok(Some(target))
}

fn written(drawn: &anyhow::Result<Option<&Target>>) -> Option<String> {
    let target = drawn.as_ref().ok().copied().flatten();
    target.map(|target| target.name().display().to_string())
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
    let paths: Vec<_> = set.paths().collect();
    let bar = progress::bar("prints", paths.len() as u64);
    let loaded = parallel::map(&paths, &bar, |path| Ok(loaded(path, dpi)))?;
    bar.finish_and_clear();
    let first = loaded.first().and_then(|print| Some((&print.name, print.print.as_ref().err()?)));
    if let Some((name, failure)) = first.filter(|_| loaded.iter().all(|p| p.print.is_err())) {
        bail!("none of {} {} gave a template; {name}: {}", paths.len(), set.kind, failure.reason());
    }
    let mut loaded = loaded.into_iter();
    let of_finger = |finger: &FingerFiles| loaded.by_ref().take(finger.paths.len()).collect();
    let mut fingers: Vec<Vec<Loaded>> = set.fingers.iter().map(of_finger).collect();
    fingers.sort_by_cached_key(|prints| content(prints));
    Ok(fingers)
}

/// One file that is spoilt doesn't stop the others: it counts as an image without a print does.
fn loaded(path: &Path, dpi: Option<u16>) -> Loaded {
    let bytes = input::bytes(path);
    let digest = digest(bytes.as_deref().unwrap_or_default());
    let (template, extraction) = match bytes.and_then(|bytes| input::parse(path, &bytes, dpi)) {
        Ok(Input::Template { template, .. }) => (Ok(template), None),
        Ok(Input::Image { image, .. }) => {
            let started = Instant::now();
            let extracted = minutiae::extract(&image);
            let took = started.elapsed();
            let template = extracted.map(|extraction| extraction.template);
            (template.map_err(Failure::NoTemplate), Some(took))
        }
        Err(error) => (Err(Failure::Unreadable(explain(error.as_ref()))), None),
    };
    let qualities = template.iter().flat_map(|t| t.views()).map(View::quality);
    Loaded {
        name: path.file_name().map(|name| name.display().to_string()).unwrap_or_default(),
        digest,
        quality: qualities.max().unwrap_or(0),
        print: template.map(|template| Prepared::new(&template)),
        extraction,
    }
}

impl Failure {
    fn reason(&self) -> String {
        match self {
            Failure::NoTemplate(error) => error.to_string(),
            Failure::Unreadable(reason) => reason.clone(),
        }
    }
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

/// The scores of one print with later ones, until they are computed.
struct Row<'a> {
    print: Print,
    scores: Mutex<&'a mut [u16]>,
}

/// The scores, and how long a comparison of two templates took on average.
fn compared(
    fingers: &[Vec<Loaded>],
    protocol: Protocol,
) -> anyhow::Result<(Scores, Option<Duration>)> {
    let impressions: Vec<usize> = fingers.iter().map(Vec::len).collect();
    let partners = |print| protocol.partners(&impressions, print);
    // There are many: each has its place from the beginning.
    let mut scores = vec![0; protocol.pairs(&impressions).count()];
    let bar = progress::bar("pairs", scores.len() as u64);
    let mut left = &mut scores[..];
    let rows = Print::all(&impressions).map(|print| {
        let (scores, rest) = std::mem::take(&mut left).split_at_mut(partners(print).count());
        left = rest;
        Row { print, scores: Mutex::new(scores) }
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let of = |print: Print| &fingers[print.finger][print.impression].print;
    let done = parallel::map(&rows, &progress::hidden(), |row| {
        let mut scores = row.scores.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        let mut count = 0;
        for (partner, place) in partners(row.print).zip(scores.iter_mut()) {
            // Without a template it scores 0, which takes no time.
            if let (Ok(a), Ok(b)) = (of(row.print), of(partner)) {
                *place = compare(a, b).get();
                count += 1;
            }
        }
        bar.inc(scores.len() as u64);
        Ok((started.elapsed(), count))
    })?;
    bar.finish_and_clear();
    drop(rows);
    let took: Duration = done.iter().map(|(took, _)| *took).sum();
    let count: u64 = done.iter().map(|(_, count)| count).sum();
    let each = (count > 0).then(|| took.div_f64(count as f64));
    Ok((Scores::new(&impressions, protocol, scores)?, each))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minutiae::{GrayImage, synth::Finger};

    /// What takes no time would make comparisons seem faster than they are.
    #[test]
    fn only_comparisons_of_two_templates_are_timed() {
        let template = minutiae::extract(&Finger::new(1).impression(1)).unwrap().template;
        let print = |there: bool| Loaded {
            name: String::new(),
            digest: [0; 32],
            print: match there {
                true => Ok(Prepared::new(&template)),
                false => Err(Failure::Unreadable(String::new())),
            },
            quality: 0,
            extraction: None,
        };
        let timed = |prints: [bool; 4]| {
            let fingers: Vec<Vec<Loaded>> = prints
                .chunks(2)
                .map(|two| two.iter().map(|&there| print(there)).collect())
                .collect();
            let (scores, time) = compared(&fingers, Protocol::default()).unwrap();
            (scores.strongest_impostors(1)[0].0 > 0, time.is_some())
        };
        assert_eq!(timed([true, false, false, false]), (false, false));
        assert_eq!(timed([true, false, false, true]), (true, true));
    }

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
