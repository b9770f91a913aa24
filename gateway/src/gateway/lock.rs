//! One gateway a data directory.

use std::{
    fs::{self, File, Metadata, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

const FILE: &str = "lock";
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
/// A tool that looks whether a gateway is here has the lock for microseconds; a start must not fail
/// for that.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// Held while the gateway runs. The operating system lets go of it with the process.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

/// Why the directory can't be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it; its id, where it left one.
    Held(String),
    /// The file or the system.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        LockError::Io(error)
    }
}

impl DataLock {
    /// Makes the directory where it is missing, and takes it.
    pub(super) fn take(directory: &Path) -> Result<Self, LockError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Self::take_existing(directory)
    }

    /// Takes a directory that is there: no gateway starts on it meanwhile.
    pub fn take_existing(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join(FILE);
        // A tool that root runs follows no link that the gateway's user left here.
        let mut options = File::options();
        options.read(true).write(true).custom_flags(NOFOLLOW);
        let (mut file, is_new) = match options.clone().create_new(true).open(&path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (options.open(&path)?, false)
            }
            Err(error) => return Err(error.into()),
        };
        if is_new {
            // A tool may run as root; the gateway must be able to take it afterwards. Anybody else
            // can't give it away, and need not.
            let owner = fs::metadata(directory)?;
            let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
        }
        let mut tries_left = TRIES;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    file.set_len(0)?;
                    file.rewind()?;
                    writeln!(file, "{}", std::process::id())?;
                    return Ok(Self { _file: file });
                }
                Err(TryLockError::WouldBlock) if tries_left > 1 => {
                    tries_left -= 1;
                    std::thread::sleep(BETWEEN_TRIES);
                }
                Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&file))),
                Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
            }
        }
    }
}

/// The id that the holder left in the file.
fn holder(file: &File) -> String {
    let mut holder = String::new();
    // Whoever holds it may be writing its id just now.
    let _ = file.take(32).read_to_string(&mut holder);
    holder.trim().to_owned()
}

/// Who has a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A process; its id, where it left one.
    Process(String),
}

/// Looks whether a gateway is on a data directory, and later whether one came. It takes nothing: a
/// gateway may start at any time.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    seen: Option<Mark>,
}

/// Changes with each start.
type Mark = (u64, u64, i64, i64);

impl Presence {
    /// Who is there now.
    pub fn look(directory: &Path) -> io::Result<(Self, Holder)> {
        let path = directory.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self { path, seen: None }, Holder::Nobody));
            }
            Err(error) => return Err(error),
        };
        // Before the lock is looked at: who comes in between is noticed later.
        let seen = Some(mark(&file.metadata()?));
        let holder = match file.try_lock_shared() {
            Ok(()) => Holder::Nobody,
            Err(TryLockError::WouldBlock) => Holder::Process(holder(&file)),
            Err(TryLockError::Error(error)) => return Err(error),
        };
        Ok((Self { path, seen }, holder))
    }

    /// Whether somebody has the directory, or has had it since.
    pub fn changed(&self) -> bool {
        let Ok(file) = File::open(&self.path) else { return self.seen.is_some() };
        // Times are coarse: a start right after the look may leave the same ones.
        let held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        held || file.metadata().ok().map(|now| mark(&now)) != self.seen
    }
}

fn mark(file: &Metadata) -> Mark {
    (file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_and_told_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("data");
        let first = DataLock::take(&directory).unwrap();
        match DataLock::take(&directory) {
            Err(LockError::Held(holder)) => assert_eq!(holder, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(DataLock::take(&directory).is_ok());
    }

    #[test]
    fn who_looks_takes_nothing_and_notices_who_comes() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, holder) = Presence::look(folder.path()).unwrap();
        assert_eq!((holder, empty.changed()), (Holder::Nobody, false));
        assert!(!folder.path().join(FILE).exists());
        let lock = DataLock::take(folder.path()).unwrap();
        assert!(empty.changed());
        let (_, holder) = Presence::look(folder.path()).unwrap();
        assert_eq!(holder, Holder::Process(std::process::id().to_string()));
        drop(lock);
        let (gone, holder) = Presence::look(folder.path()).unwrap();
        assert_eq!((holder, gone.changed()), (Holder::Nobody, false));
        let _lock = DataLock::take(folder.path()).unwrap();
        assert!(gone.changed());
    }
}
