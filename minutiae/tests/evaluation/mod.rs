//! Sets of fingers to take error rates of: folders of images named `FINGER_IMPRESSION.tif`, and
//! generated ones. What an image without a template counts as, and how rates and intervals come
//! about, is [`minutiae::evaluation`]'s to say.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use minutiae::evaluation::{Enrolled, ErrorRates, Print, Protocol, Scores};
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

    /// Reads the `.iso` templates of a folder.
    pub fn commercial(folder: &Path) -> Self {
        let read = |path: &PathBuf| Template::read(&std::fs::read(path).unwrap()).unwrap();
        let fingers: Vec<Vec<Option<Template>>> = files(folder, "iso")
            .iter()
            .map(|finger| finger.iter().map(|path| Some(read(path))).collect())
            .collect();
        let quality = |t: &Option<Template>| t.as_ref().map_or(0, |t| t.views()[0].quality());
        let qualities = fingers.iter().map(|f| f.iter().map(quality).collect()).collect();
        Self { fingers, qualities, extraction: Duration::ZERO }
    }

    fn prepared(&self) -> Vec<Vec<Option<Prepared>>> {
        let of =
            |f: &Vec<Option<Template>>| f.iter().map(|t| t.as_ref().map(Prepared::new)).collect();
        self.fingers.iter().map(of).collect()
    }

    /// Compares all pairs.
    pub fn compared(&self) -> Scores {
        self.compared_with(self)
    }

    /// Compares all pairs of two images: the template of the first is taken from here, that of the
    /// second from another extraction of the same images.
    pub fn compared_with(&self, other: &Set) -> Scores {
        let (prepared, others) = (self.prepared(), other.prepared());
        let impressions: Vec<usize> = self.fingers.iter().map(Vec::len).collect();
        let first = |print: Print| prepared[print.finger][print.impression].as_ref();
        let second = |print: Print| others[print.finger][print.impression].as_ref();
        Scores::of(&impressions, Protocol::default(), |a, b| match (first(a), second(b)) {
            (Some(a), Some(b)) => compare(a, b).get(),
            _ => 0,
        })
        .unwrap()
    }
}

/// Three impressions enrolled instead of one.
pub fn three_enrolled(scores: &Scores) -> ErrorRates {
    let protocol = Protocol { enrolled: Enrolled::Three, ..Protocol::default() };
    scores.under(protocol).unwrap().rates()
}

/// Reads the images of a folder, by finger.
pub fn images(folder: &Path, most_impressions: usize) -> Vec<Vec<GrayImage>> {
    let read = |path: &PathBuf| {
        let image = image::open(path).unwrap().into_luma8();
        GrayImage::new(image.width(), image.height(), 500, image.into_raw()).unwrap()
    };
    let fingers = files(folder, "tif");
    fingers.iter().map(|f| f.iter().take(most_impressions).map(read).collect()).collect()
}

/// Files named `FINGER_IMPRESSION`, by finger, in the order of their names.
fn files(folder: &Path, extension: &str) -> Vec<Vec<PathBuf>> {
    let mut fingers: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let wanted = path.extension().is_some_and(|e| e == extension);
        if let (true, Some((finger, impression))) = (wanted, name.split_once('_')) {
            fingers.entry(finger.to_owned()).or_default().insert(impression.to_owned(), path);
        }
    }
    fingers.into_values().map(|f| f.into_values().collect()).collect()
}
