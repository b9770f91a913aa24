//! Error rates of extraction and matching on a folder of fingers, named `FINGER_IMPRESSION.tif`.
//!
//! Genuine pairs are all pairs of impressions of one finger; impostor pairs are all pairs of
//! impressions of two fingers. An image without a template takes part with score 0. Intervals come
//! from drawing fingers with replacement: pairs of one finger are not independent.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use minutiae::{GrayImage, Prepared, Template, compare, extract};

/// Where the public sets are, if they are there at all.
pub fn data_folder() -> Option<PathBuf> {
    let folder = env::var_os("RIDGEWAY_FINGERPRINT_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    folder.is_dir().then_some(folder)
}

/// A set's impressions and their templates: `fingers[finger][impression]`.
pub struct Set {
    pub fingers: Vec<Vec<Option<Template>>>,
    pub qualities: Vec<Vec<u8>>,
    /// Median time of one extraction.
    pub extraction: Duration,
}

impl Set {
    /// Reads and extracts the images of a folder, only the first impressions if asked to.
    pub fn read(folder: &Path, most_impressions: usize) -> Self {
        let images = images(folder, most_impressions);
        Self::extracted(images)
    }

    /// Extracts images that are grouped by finger.
    pub fn extracted(images: Vec<Vec<GrayImage>>) -> Self {
        let mut times = Vec::new();
        let (mut fingers, mut qualities) = (Vec::new(), Vec::new());
        for finger in &images {
            let results: Vec<_> = finger
                .iter()
                .map(|image| {
                    let start = Instant::now();
                    let result = extract(image).ok();
                    times.push(start.elapsed());
                    result
                })
                .collect();
            qualities.push(results.iter().map(|r| r.as_ref().map_or(0, |e| e.quality)).collect());
            fingers.push(results.into_iter().map(|r| r.map(|e| e.template)).collect());
        }
        times.sort();
        Self { fingers, qualities, extraction: times[times.len() / 2] }
    }

    /// Compares all pairs.
    pub fn compared(&self) -> Scores {
        let prepared: Vec<Vec<Option<Prepared>>> = self
            .fingers
            .iter()
            .map(|f| f.iter().map(|t| t.as_ref().map(Prepared::new)).collect())
            .collect();
        let flat: Vec<(usize, usize)> =
            (0..prepared.len()).flat_map(|f| (0..prepared[f].len()).map(move |i| (f, i))).collect();
        let mut table = vec![vec![0u16; flat.len()]; flat.len()];
        let mut times = Vec::new();
        for (p, &(f, i)) in flat.iter().enumerate() {
            for (q, &(g, j)) in flat.iter().enumerate().skip(p + 1) {
                if let (Some(a), Some(b)) = (&prepared[f][i], &prepared[g][j]) {
                    let start = Instant::now();
                    table[p][q] = compare(a, b).get();
                    table[q][p] = table[p][q];
                    times.push(start.elapsed());
                }
            }
        }
        times.sort();
        Scores { flat, table, comparison: times.get(times.len() / 2).copied().unwrap_or_default() }
    }
}

fn images(folder: &Path, most_impressions: usize) -> Vec<Vec<GrayImage>> {
    let mut fingers: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if let (Some("tif"), Some((finger, impression))) =
            (path.extension().and_then(|e| e.to_str()), name.split_once('_'))
        {
            fingers.entry(finger.to_owned()).or_default().insert(impression.to_owned(), path);
        }
    }
    let read = |path: &PathBuf| {
        let image = image::open(path).unwrap().into_luma8();
        GrayImage::new(image.width(), image.height(), 500, image.into_raw()).unwrap()
    };
    fingers.values().map(|f| f.values().take(most_impressions).map(read).collect()).collect()
}

/// Finger and impression, from 0.
pub type Print = (usize, usize);

/// Scores of all pairs of a set.
pub struct Scores {
    flat: Vec<Print>,
    table: Vec<Vec<u16>>,
    /// Median time of one comparison.
    pub comparison: Duration,
}

/// Scores of pairs of one finger, and of two.
#[derive(Default, Clone)]
pub struct Pairs {
    pub genuine: Vec<u16>,
    pub impostor: Vec<u16>,
}

impl Scores {
    /// One impression against one.
    pub fn single(&self) -> Pairs {
        self.drawn(&(0..self.finger_count()).collect::<Vec<_>>())
    }

    pub fn finger_count(&self) -> usize {
        self.flat.iter().map(|&(f, _)| f + 1).max().unwrap_or(0)
    }

    /// The pairs among a draw of fingers, some perhaps drawn more than once.
    fn drawn(&self, draw: &[usize]) -> Pairs {
        let mut pairs = Pairs::default();
        let members: Vec<Vec<usize>> = (0..self.finger_count())
            .map(|f| (0..self.flat.len()).filter(|&p| self.flat[p].0 == f).collect())
            .collect();
        for (k, &f) in draw.iter().enumerate() {
            for (n, &p) in members[f].iter().enumerate() {
                pairs.genuine.extend(members[f][n + 1..].iter().map(|&q| self.table[p][q]));
            }
            for &g in draw[k + 1..].iter().filter(|&&g| g != f) {
                for &p in &members[f] {
                    pairs.impostor.extend(members[g].iter().map(|&q| self.table[p][q]));
                }
            }
        }
        pairs
    }

    /// Three impressions enrolled, in all choices, against one that is not among them.
    pub fn three_enrolled(&self) -> Pairs {
        let mut pairs = Pairs::default();
        for finger in 0..self.finger_count() {
            let own: Vec<usize> =
                (0..self.flat.len()).filter(|&p| self.flat[p].0 == finger).collect();
            for trio in choices_of_three(&own) {
                for probe in (0..self.flat.len()).filter(|p| !trio.contains(p)) {
                    let best = trio.iter().map(|&p| self.table[p][probe]).max().unwrap();
                    match self.flat[probe].0 == finger {
                        true => pairs.genuine.push(best),
                        false => pairs.impostor.push(best),
                    }
                }
            }
        }
        pairs
    }

    /// Range that holds 90 % of a figure's values when fingers are drawn anew.
    pub fn interval(&self, figure: impl Fn(&Pairs) -> f64) -> (f64, f64) {
        const DRAWS: usize = 200;
        let count = self.finger_count();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut values: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let draw: Vec<usize> = (0..count)
                    .map(|_| {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        (state % count as u64) as usize
                    })
                    .collect();
                figure(&self.drawn(&draw))
            })
            .collect();
        values.sort_by(f64::total_cmp);
        (values[DRAWS / 20], values[DRAWS - 1 - DRAWS / 20])
    }

    /// One impression against one, without the share of images whose quality is worst.
    pub fn single_without_worst(&self, qualities: &[Vec<u8>], rejected: f64) -> Pairs {
        let quality = |p: usize| qualities[self.flat[p].0][self.flat[p].1];
        let mut order: Vec<usize> = (0..self.flat.len()).collect();
        order.sort_by_key(|&p| quality(p));
        let kept = &order[(order.len() as f64 * rejected).round() as usize..];
        let mut pairs = Pairs::default();
        for (n, &p) in kept.iter().enumerate() {
            for &q in &kept[n + 1..] {
                match self.flat[p].0 == self.flat[q].0 {
                    true => pairs.genuine.push(self.table[p][q]),
                    false => pairs.impostor.push(self.table[p][q]),
                }
            }
        }
        pairs
    }

    /// Genuine pairs below a score, by name, for looking at.
    pub fn weakest(&self, count: usize) -> Vec<(u16, Print, Print)> {
        let mut all = Vec::new();
        for (p, &a) in self.flat.iter().enumerate() {
            for (q, &b) in self.flat.iter().enumerate().skip(p + 1) {
                if a.0 == b.0 {
                    all.push((self.table[p][q], a, b));
                }
            }
        }
        all.sort();
        all.truncate(count);
        all
    }
}

fn choices_of_three(from: &[usize]) -> Vec<[usize; 3]> {
    let mut choices = Vec::new();
    for (i, &a) in from.iter().enumerate() {
        for (j, &b) in from.iter().enumerate().skip(i + 1) {
            choices.extend(from[j + 1..].iter().map(|&c| [a, b, c]));
        }
    }
    choices
}

impl Pairs {
    /// Share of genuine pairs below a threshold.
    pub fn fnmr(&self, threshold: u16) -> f64 {
        share(&self.genuine, |s| s < threshold)
    }

    /// Share of impostor pairs at or above a threshold.
    pub fn fmr(&self, threshold: u16) -> f64 {
        share(&self.impostor, |s| s >= threshold)
    }

    /// Where both errors are equal; between two thresholds their mean.
    pub fn eer(&self) -> f64 {
        let Some(crossed) = (0..=1001).find(|&t| self.fnmr(t) >= self.fmr(t)) else { return 1.0 };
        let mean = |t: u16| (self.fnmr(t) + self.fmr(t)) / 2.0;
        if crossed == 0 { mean(0) } else { mean(crossed).min(mean(crossed - 1)) }
    }

    /// FNMR at the lowest threshold with at most this FMR.
    pub fn fnmr_at(&self, fmr: f64) -> f64 {
        let threshold = (0..=1001).find(|&t| self.fmr(t) <= fmr).unwrap_or(1001);
        self.fnmr(threshold)
    }
}

fn share(scores: &[u16], counts: impl Fn(u16) -> bool) -> f64 {
    scores.iter().filter(|&&s| counts(s)).count() as f64 / scores.len().max(1) as f64
}
