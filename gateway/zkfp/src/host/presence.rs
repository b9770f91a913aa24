//! Which readers are plugged in, from the operating system: the SDK doesn't notice by itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::serial::Serial;

/// USB vendor of the readers.
const VENDOR: &str = "1b55";

/// Where to look.
#[derive(Debug)]
pub(super) enum Presence {
    /// The simulator's folder, in which a subfolder is a reader.
    Simulator(PathBuf),
    /// The kernel's list of USB devices.
    Usb(PathBuf),
}

/// What is plugged in. Differs whenever something was plugged in or out, also in between.
pub(super) type Plugged = BTreeSet<String>;

impl Presence {
    /// Looks now. What can't be read isn't there.
    pub(super) fn plugged(&self) -> Plugged {
        match self {
            Presence::Simulator(root) => {
                entries(root).filter_map(|(name, path)| simulated(name, &path)).collect()
            }
            Presence::Usb(root) => {
                entries(root).filter_map(|(name, path)| usb(&name, &path)).collect()
            }
        }
    }

    /// A reader's firmware version: the SDK doesn't tell.
    pub(super) fn firmware(&self, serial: &Serial) -> Option<String> {
        match self {
            Presence::Simulator(root) => line(&root.join(serial.as_str()).join("firmware")),
            Presence::Usb(root) => {
                let readers: Vec<_> = entries(root)
                    .map(|(_, path)| path)
                    .filter(|path| line(&path.join("idVendor")).as_deref() == Some(VENDOR))
                    .collect();
                let by_serial = |path: &&PathBuf| {
                    line(&path.join("serial")).as_deref() == Some(serial.as_str())
                };
                let only = (readers.len() == 1).then(|| readers.first()).flatten();
                let release = line(&readers.iter().find(by_serial).or(only)?.join("bcdDevice"))?;
                // Binary-coded: 0110 is version 1.10.
                let (major, minor) = release.split_at_checked(2)?;
                Some(format!("{}.{minor}", major.trim_start_matches('0').parse().unwrap_or(0)))
            }
        }
    }
}

/// A folder, and not one that a fault hides: an unplugged reader, or an SDK that fails to start.
fn simulated(name: String, path: &Path) -> Option<String> {
    let hidden = line(&path.join("fault"))
        .is_some_and(|fault| fault == "silent-unplug" || fault.starts_with("init "));
    (!name.starts_with('.') && !hidden && path.is_dir()).then_some(name)
}

/// The device number tells a reader that was plugged out and in again from one that stayed.
fn usb(name: &str, path: &Path) -> Option<String> {
    (line(&path.join("idVendor"))? == VENDOR)
        .then(|| format!("{name} {}", line(&path.join("devnum")).unwrap_or_default()))
}

fn entries(root: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(root)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

fn line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line: String = text.lines().next()?.trim().chars().take(64).collect();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(root: &Path, name: &str, fields: &[(&str, &str)]) {
        fs::create_dir_all(root.join(name)).unwrap();
        for (field, value) in fields {
            fs::write(root.join(name).join(field), format!("{value}\n")).unwrap();
        }
    }

    #[test]
    fn usb_readers_are_known_by_their_vendor_and_a_replug_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::Usb(folder.path().to_owned());
        device(folder.path(), "usb1", &[("idVendor", "1d6b"), ("devnum", "1")]);
        assert!(presence.plugged().is_empty());
        let reader =
            [("idVendor", "1b55"), ("devnum", "7"), ("serial", "A1"), ("bcdDevice", "0110")];
        device(folder.path(), "1-2", &reader);
        let before = presence.plugged();
        assert_eq!(before.len(), 1);
        assert_eq!(presence.firmware(&Serial::new("A1").unwrap()).as_deref(), Some("1.10"));
        device(folder.path(), "1-2", &[("devnum", "8")]);
        assert_ne!(presence.plugged(), before);
    }

    #[test]
    fn simulated_readers_are_folders_without_a_hiding_fault() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::Simulator(folder.path().to_owned());
        device(folder.path(), ".hidden", &[]);
        device(folder.path(), "SN1", &[("firmware", "2.0"), ("fault", "busy")]);
        fs::write(folder.path().join("notes"), "").unwrap();
        assert_eq!(presence.plugged(), Plugged::from(["SN1".to_owned()]));
        assert_eq!(presence.firmware(&Serial::new("SN1").unwrap()).as_deref(), Some("2.0"));
        for fault in ["silent-unplug", "init -3"] {
            device(folder.path(), "SN1", &[("fault", fault)]);
            assert!(presence.plugged().is_empty(), "{fault}");
        }
    }
}
