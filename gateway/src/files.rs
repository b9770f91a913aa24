//! Small files that hold a secret: made on first start, read by their owner only.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The text in the file at `path`; where there is none, `make` gives it and the file is made (mode
/// 0600, complete or not at all). A file that others can read is refused.
pub(crate) fn text_or_made(
    path: &Path,
    make: impl FnOnce() -> io::Result<String>,
) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => {
            refuse_wide(path)?;
            let text = text.trim().to_owned();
            if text.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
            }
            Ok(text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = make()?;
            write_new(path, &text)?;
            Ok(text)
        }
        Err(error) => Err(error),
    }
}

/// Refuses a secret that others on this machine can read or change.
pub(crate) fn refuse_wide(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let how = format!(
        "others can read it (mode {mode:o}): it holds a secret; run chmod 600 {}",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, how))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(text_or_made(&path, || Ok("s".to_owned())).unwrap(), "s");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = text_or_made(&path, || unreachable!()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
