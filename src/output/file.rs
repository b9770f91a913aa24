//! Files that tools write: all of it or nothing, for their owner only, and never in the place of what
//! is no file or is being read.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::{Access, CWD, RenameFlags};

/// A place to write a file to, checked before the work whose result goes there.
#[derive(Debug)]
pub(crate) struct Target {
    /// What it was called.
    name: PathBuf,
    /// Where it is, links followed: the name of what a draft becomes.
    place: PathBuf,
}

impl Target {
    /// A place that is free, or has a regular file that may be replaced. A link to a regular file
    /// stays; what it leads to is replaced.
    ///
    /// # Errors
    /// Something else is there, or one of the `inputs`; or no file can be made there.
    pub(crate) fn new<'a>(
        path: &Path,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> anyhow::Result<Self> {
        let name = path.display();
        let place = match fs::symlink_metadata(path) {
            Ok(there) if there.is_symlink() => path
                .canonicalize()
                .with_context(|| format!("can't write {name}: it is a link that leads nowhere"))?,
            _ => path.to_owned(),
        };
        if let Ok(there) = fs::metadata(&place) {
            if let Some(what) = no_regular_file(&there) {
                bail!("can't write {name}: it is {what}, which no file takes the place of");
            }
            if let Some(input) = inputs.into_iter().find(|input| is_file(input, &there)) {
                bail!("can't write {name}: it is {}, which is read", input.display());
            }
        }
        Self::at(path, &place)
    }

    fn at(path: &Path, place: &Path) -> anyhow::Result<Self> {
        let failed = || format!("can't write {}", path.display());
        let name =
            place.file_name().filter(|_| !place.as_os_str().as_encoded_bytes().ends_with(b"/"));
        let name = name.with_context(|| format!("{} is no file's name", path.display()))?;
        let folder = match place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().with_context(failed)?;
        let may = rustix::fs::access(&folder, Access::WRITE_OK | Access::EXEC_OK);
        may.map_err(io::Error::from).with_context(failed)?;
        Ok(Self { name: path.to_owned(), place: folder.join(name) })
    }

    /// What it was called.
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// Whether both are one file, whatever they are called.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.place == other.place
    }

    /// Writes the file, in the place of the one that is there.
    pub(crate) fn write(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = drafted(&self.place, bytes, |draft| fs::rename(draft, &self.place));
        written.with_context(|| format!("can't write {}", self.name.display()))
    }
}

/// Writes a file that isn't there yet.
///
/// # Errors
/// Something is there, also when it came meanwhile; or no file can be made there.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let target = Target::at(path, path)?;
    let named = |draft: &Path| {
        match rustix::fs::renameat_with(CWD, draft, CWD, &target.place, RenameFlags::NOREPLACE) {
            // Not every file system can; those that can't can link.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(draft, &target.place)?;
                fs::remove_file(draft)
            }
            renamed => Ok(renamed?),
        }
    };
    drafted(&target.place, bytes, named).with_context(|| format!("can't write {}", path.display()))
}

/// Writes a draft beside a place and has it named; it is gone afterwards, whatever happens.
fn drafted(
    place: &Path,
    bytes: &[u8],
    name: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    // Nobody can have laid a link where the name couldn't be foreseen; nor does opening follow one.
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let draft = place.with_file_name(format!(".ridgeway-{}", hex::encode(random)));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    // Synced, so that after a power cut, too, the name stands for all of it.
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| name(&draft));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn is_file(path: &Path, there: &Metadata) -> bool {
    fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (there.dev(), there.ino()))
}

/// What it is, where it is no regular file.
fn no_regular_file(there: &Metadata) -> Option<&'static str> {
    let kind = there.file_type();
    match kind {
        _ if kind.is_file() => None,
        _ if kind.is_dir() => Some("a folder"),
        _ if kind.is_fifo() => Some("a pipe"),
        _ if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[track_caller]
    fn refused(path: &Path, inputs: &[&Path], part: &str) {
        let error = format!("{:#}", Target::new(path, inputs.iter().copied()).unwrap_err());
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn a_file_is_written_whole_for_its_owner_and_replaces_only_its_like() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, bytes: &[u8]| Target::new(&at(name), []).unwrap().write(bytes);
        write("a", b"first").unwrap();
        assert_eq!(fs::metadata(at("a")).unwrap().permissions().mode() & 0o777, 0o600);
        symlink("a", at("link")).unwrap();
        write("link", b"second").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(fs::read(at("a")).unwrap(), b"second");
        // A name that leaves no room for a longer one beside it.
        write(&"n".repeat(255), b"third").unwrap();
        assert_eq!(names(dir.path()).len(), 3, "and no draft stays");
    }

    #[test]
    fn what_is_no_file_or_is_read_is_refused_before_the_work() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        refused(dir.path(), &[], "is a folder");
        refused(Path::new("/dev/null"), &[], "is a device");
        symlink("/dev/null", at("null")).unwrap();
        refused(&at("null"), &[], "is a device");
        symlink("gone", at("dangling")).unwrap();
        refused(&at("dangling"), &[], "leads nowhere");
        refused(&at("no/where"), &[], "No such file");
        refused(&at("new/"), &[], "no file's name");
        refused(&at(".."), &[], "is a folder");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        refused(&at("socket"), &[], "is a socket");
        fs::write(at("input"), b"read").unwrap();
        symlink("input", at("other name")).unwrap();
        fs::hard_link(at("input"), at("hard link")).unwrap();
        for name in ["input", "other name", "hard link"] {
            refused(&at(name), &[&at("gone"), &at("input")], "input, which is read");
        }
    }

    #[test]
    fn one_file_is_one_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let target = |name: &str| Target::new(&dir.path().join(name), []).unwrap();
        assert!(target("a").is(&target("./a")) && !target("a").is(&target("b")));
    }

    #[test]
    fn a_new_file_takes_no_place_that_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write_new(&at("a"), b"first").unwrap();
        symlink("nowhere", at("link")).unwrap();
        for taken in ["a", "link"] {
            let error = format!("{:#}", write_new(&at(taken), b"second").unwrap_err());
            assert!(error.contains("can't write") && error.contains("exists"), "{error}");
        }
        assert_eq!(fs::read(at("a")).unwrap(), b"first");
        assert_eq!(names(dir.path()), ["a", "link"]);
    }
}
