//! Which files of a folder make a set.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::output::counted;

const IMAGES: [&str; 9] = ["png", "tif", "tiff", "bmp", "pgm", "pnm", "ppm", "jpg", "jpeg"];
const TEMPLATES: [&str; 3] = ["iso", "ansi", "fmr"];

/// The files of a set.
pub(super) struct Set {
    pub(super) fingers: Vec<FingerFiles>,
    /// `images`, `templates`, or `files` where an ending was asked for.
    pub(super) kind: &'static str,
    /// Files of the folder that don't take part.
    pub(super) passed_over: usize,
}

pub(super) struct FingerFiles {
    /// Its impressions, in their order.
    pub(super) paths: Vec<PathBuf>,
}

/// By number where both are numbers: `2` comes before `10`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Natural {
    number: Option<u64>,
    text: String,
}

impl Natural {
    fn of(text: &str) -> Self {
        Self { number: text.parse().ok(), text: text.to_owned() }
    }
}

/// Finds `FINGER_IMPRESSION.ext` in a folder: images, or templates where there are no images, or
/// what has the ending that is asked for.
pub(super) fn find(dir: &Path, ending: Option<&str>) -> anyhow::Result<Set> {
    let all = listed(dir)?;
    let asked = ending.map(|ending| ending.trim_start_matches('.').to_ascii_lowercase());
    let wanted: &[(&'static str, &[&str])] = match &asked {
        Some(asked) => &[("files", &[asked.as_str()])],
        None => &[("images", &IMAGES), ("templates", &TEMPLATES)],
    };
    for &(kind, endings) in wanted {
        let mut fingers: BTreeMap<Natural, BTreeMap<Natural, PathBuf>> = BTreeMap::new();
        let mut taken = 0;
        for path in &all {
            let Some((finger, impression)) = name_of(path, endings) else { continue };
            let of_finger = fingers.entry(Natural::of(&finger)).or_default();
            taken += 1;
            if let Some(other) = of_finger.insert(Natural::of(&impression), path.clone()) {
                bail!(
                    "{} and {} are the same impression: choose with --ext",
                    other.display(),
                    path.display()
                );
            }
        }
        if taken > 0 {
            let files = |prints: BTreeMap<_, _>| prints.into_values().collect();
            let fingers = fingers.into_values().map(|prints| FingerFiles { paths: files(prints) });
            return Ok(Set { fingers: fingers.collect(), kind, passed_over: all.len() - taken });
        }
    }
    let what = match asked {
        Some(asked) => format!("FINGER_IMPRESSION.{asked}"),
        None => "FINGER_IMPRESSION.ext, such as 101_1.png or 101_1.iso".to_owned(),
    };
    bail!("{}: none of its {} files is named {what}", dir.display(), all.len())
}

fn listed(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("can't read the folder {}", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Finger and impression, where the name has both and an ending that is wanted.
fn name_of(path: &Path, endings: &[&str]) -> Option<(String, String)> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    let (finger, impression) = path.file_stem()?.to_str()?.rsplit_once('_')?;
    let named = endings.contains(&ending.as_str()) && !finger.is_empty() && !impression.is_empty();
    named.then(|| (finger.to_owned(), impression.to_owned()))
}

impl Set {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.fingers.iter().flat_map(|finger| &finger.paths).map(PathBuf::as_path)
    }

    pub(super) fn count(&self) -> usize {
        self.fingers.iter().map(|finger| finger.paths.len()).sum()
    }

    /// `80 images of 10 fingers, 1 other file passed over`
    pub(super) fn summary(&self) -> String {
        let one = self.kind.trim_end_matches('s');
        let prints = counted(self.count() as u64, one);
        let mut text = format!("{prints} of {}", counted(self.fingers.len() as u64, "finger"));
        if self.passed_over > 0 {
            text += &format!(", {} passed over", counted(self.passed_over as u64, "other file"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), name).unwrap());
        dir
    }

    fn names(set: &Set) -> Vec<Vec<String>> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        set.fingers.iter().map(|finger| finger.paths.iter().map(name).collect()).collect()
    }

    #[test]
    fn fingers_and_impressions_are_told_by_their_names_in_natural_order() {
        let dir = folder(&[
            "10_1.png",
            "9_10.png",
            "9_2.PNG",
            "left_thumb_1.tif",
            "9_2.iso",
            ".9_3.png",
            "README.md",
            "_1.png",
            "alone.png",
        ]);
        let set = find(dir.path(), None).unwrap();
        let expected: [&[&str]; 3] =
            [&["left_thumb_1.tif"], &["9_2.PNG", "9_10.png"], &["10_1.png"]];
        assert_eq!(names(&set), expected);
        assert_eq!(set.summary(), "4 images of 3 fingers, 4 other files passed over");
        let set = find(dir.path(), Some(".iso")).unwrap();
        assert_eq!(names(&set), [["9_2.iso"]]);
    }

    #[test]
    fn templates_take_part_where_there_is_no_image() {
        let dir = folder(&["1_1.iso", "1_2.ansi"]);
        let set = find(dir.path(), None).unwrap();
        assert_eq!((set.kind, set.count()), ("templates", 2));
        assert_eq!(set.summary(), "2 templates of 1 finger");
        let one = find(folder(&["1_1.png", "README.md"]).path(), None).unwrap();
        assert_eq!(one.summary(), "1 image of 1 finger, 1 other file passed over");
    }

    #[test]
    fn what_is_no_set_is_told() {
        let error = |names: &[&str], ending| match find(folder(names).path(), ending) {
            Ok(set) => panic!("{}", set.summary()),
            Err(error) => error.to_string(),
        };
        assert!(error(&["a.png", "b.txt"], None).contains("none of its 2 files"));
        assert!(error(&["1_1.png"], Some("iso")).contains("FINGER_IMPRESSION.iso"));
        let twice = error(&["1_1.png", "1_1.bmp"], None);
        assert!(twice.contains("1_1.bmp") && twice.contains("--ext"), "{twice}");
    }
}
