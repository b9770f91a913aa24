//! The folder that is the simulator's world, as it is at this moment. Nothing is cached here.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer first lines of `model`, `firmware` and `fault` are cut.
const MAX_LINE_BYTES: usize = 60;

/// The folder with a subfolder for each reader.
#[derive(Debug, Clone)]
pub(crate) struct World {
    root: PathBuf,
}

/// One reader's folder.
#[derive(Debug, Clone)]
pub(crate) struct ReaderFolder {
    path: PathBuf,
}

/// What lies in a reader's folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Images, the oldest first.
    pub(crate) images: Vec<ImageFile>,
    /// The fault that is on.
    pub(crate) fault: Option<Fault>,
}

/// An image file in a reader's folder. Equal means: the same finger, still lying there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ImageFile {
    pub(crate) path: PathBuf,
    pub(crate) modified_ns: i128,
    pub(crate) inode: u64,
    pub(crate) size_bytes: u64,
}

/// What is wrong with a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    SilentUnplug,
    Slow(Duration),
    Crash,
    GarbageTemplate,
    Busy,
    Init(i32),
    Leak,
}

impl World {
    /// The world named by the environment.
    pub(crate) fn from_environment() -> Option<World> {
        std::env::var_os(crate::DIRECTORY_VARIABLE).map(|root| World { root: root.into() })
    }

    /// Serial numbers of the readers that are plugged in, sorted.
    pub(crate) fn readers(&self) -> Vec<String> {
        let mut serials: Vec<String> = self
            .serials()
            .into_iter()
            .filter(|serial| self.reader(serial).fault() != Some(Fault::SilentUnplug))
            .collect();
        serials.sort();
        serials
    }

    /// The code that `ZKFPM_Init` is told to fail with.
    pub(crate) fn init_fault(&self) -> Option<i32> {
        self.serials().iter().find_map(|serial| match self.reader(serial).fault() {
            Some(Fault::Init(code)) => Some(code),
            _ => None,
        })
    }

    /// The folder of one reader, whether it is there or not.
    pub(crate) fn reader(&self, serial: &str) -> ReaderFolder {
        ReaderFolder { path: self.root.join(serial) }
    }

    fn serials(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.') && name.len() <= MAX_LINE_BYTES)
            .collect()
    }
}

impl ReaderFolder {
    /// What lies in the folder now; `None` when the reader is unplugged.
    pub(crate) fn scan(&self) -> Option<Scan> {
        let mut scan = Scan::default();
        for entry in fs::read_dir(&self.path).ok()?.filter_map(Result::ok) {
            let name = entry.file_name();
            if name == "fault" {
                scan.fault = self.fault();
            } else if is_image(Path::new(&name)) {
                scan.images.extend(ImageFile::of(&entry));
            }
        }
        scan.images.sort_by(|a, b| (a.modified_ns, &a.path).cmp(&(b.modified_ns, &b.path)));
        Some(scan)
    }

    /// Whether the reader is plugged in.
    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// The fault that is on.
    pub(crate) fn fault(&self) -> Option<Fault> {
        Fault::parse(&self.line("fault")?)
    }

    /// The first line of a small file.
    pub(crate) fn line(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path.join(name)).ok()?;
        let mut line = text.lines().next()?.trim().to_owned();
        let end = (0..=line.len().min(MAX_LINE_BYTES)).rev().find(|&at| line.is_char_boundary(at));
        line.truncate(end.unwrap_or(0));
        (!line.is_empty()).then_some(line)
    }
}

impl ImageFile {
    fn of(entry: &DirEntry) -> Option<ImageFile> {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(ImageFile {
            path: entry.path(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
        })
    }

    /// How long the finger stays by itself: the `1500ms` of `NAME@1500ms.png`.
    pub(crate) fn hold(&self) -> Option<Duration> {
        let (_, hold) = self.path.file_stem()?.to_str()?.rsplit_once('@')?;
        hold.strip_suffix("ms")?.parse().ok().map(Duration::from_millis)
    }

    /// Width and height in the name of a raw image: `thumb-300x400.raw`.
    pub(crate) fn raw_size(&self) -> Option<(u32, u32)> {
        let stem = self.path.file_stem()?.to_str()?;
        stem.split(|c: char| !c.is_ascii_alphanumeric()).find_map(|word| {
            let (width, height) = word.split_once('x')?;
            Some((width.parse().ok()?, height.parse().ok()?))
        })
    }

    /// The name's ending in small letters.
    pub(crate) fn extension(&self) -> String {
        extension(&self.path)
    }
}

impl Fault {
    fn parse(line: &str) -> Option<Fault> {
        let mut words = line.split_whitespace();
        let (name, number) = (words.next()?, words.next());
        match name {
            "silent-unplug" => Some(Fault::SilentUnplug),
            "slow" => Some(Fault::Slow(Duration::from_millis(number?.parse().ok()?))),
            "crash" => Some(Fault::Crash),
            "garbage-template" => Some(Fault::GarbageTemplate),
            "busy" => Some(Fault::Busy),
            "init" => Some(Fault::Init(number?.parse().ok()?)),
            "leak" => Some(Fault::Leak),
            _ => None,
        }
    }
}

fn is_image(name: &Path) -> bool {
    let hidden = name.as_os_str().as_encoded_bytes().first() == Some(&b'.');
    !hidden && matches!(extension(name).as_str(), "png" | "tif" | "tiff" | "bmp" | "raw")
}

fn extension(name: &Path) -> String {
    name.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
