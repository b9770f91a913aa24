//! The users file: read by the broker, written by `ridgeway broker user`.
//!
//! ```toml
//! [[users]]
//! name = "door-3"            # 1 to 64 of A-Z a-z 0-9 - _ . @
//! role = "panel"             # platform, panel, viewer or custom
//! gateway = "hq-lobby"       # panel: whose; on a gateway its own unless given
//! password = "$argon2id$…"   # absent: only a client certificate lets it in
//!
//! [[users]]
//! name = "home-assistant"
//! role = "custom"
//! password = "$argon2id$…"
//! publish = ["homeassistant/#"]      # custom: MQTT filters
//! subscribe = ["homeassistant/#"]
//! ```

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use topics::{GatewayId, Role};

use crate::{
    config::{Credential, User, is_user_name},
    names,
};

use super::password;

const MAX_USERS: usize = 10_000;
const MAX_BYTES: u64 = 4 << 20;
const HEADER: &str = "\
# Users of the embedded MQTT broker. `ridgeway broker user add|list|remove` writes this file, and drops
# comments when it does; a running broker takes changes within seconds.
";

/// Why a users file can't be used or changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum UsersFileError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} can be read by others than its owner (mode {mode:o}); chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{}: {problem}", path.display())]
    Text { path: PathBuf, problem: String },
    #[error("{}: user {name:?}: {problem}", path.display())]
    User { path: PathBuf, name: String, problem: String },
}

/// What holds for all users of one broker's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whose panels those are that name no gateway.
    pub gateway: Option<GatewayId>,
    /// The gateways' private link goes through the broker, so no custom role may reach it.
    pub carries_link: bool,
    /// Names of the service itself and of its configuration.
    pub taken: Vec<String>,
}

/// One user in the file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: RoleName,
    /// Panels: whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayId>,
    /// The Argon2id hash of its password; without one only a certificate lets it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Custom: filters whose topics it may publish to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Custom: filters that it may subscribe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A hash belongs into no log.
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A role as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// Sees all that is public, sends commands.
    Platform,
    /// Sees one gateway's state and readers.
    Panel,
    /// Sees states and events.
    Viewer,
    /// What its entry lists.
    Custom,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    users: Vec<Entry>,
}

/// A users file; it may not be there yet.
#[derive(Debug, Clone)]
pub struct UsersFile {
    path: PathBuf,
}

impl UsersFile {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everybody in it.
    pub fn entries(&self) -> Result<Vec<Entry>, UsersFileError> {
        self.parse(&self.text()?)
    }

    /// Adds a user, or replaces the one of its name. True when there was one.
    pub fn put(&self, entry: Entry, rules: &Rules) -> Result<bool, UsersFileError> {
        self.user(&entry, rules)?;
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|other| other.name != entry.name);
            let replaced = entries.len() < before;
            entries.push(entry);
            replaced
        })
    }

    /// Removes a user. True when there was one.
    pub fn remove(&self, name: &str) -> Result<bool, UsersFileError> {
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|entry| entry.name != name);
            entries.len() < before
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Entry>) -> T) -> Result<T, UsersFileError> {
        let failed = |source| UsersFileError::Write { path: self.path.clone(), source };
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        // Two at once would each write what the other doesn't know of.
        let lock = private(&self.path.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut users = self.entries()?;
        let result = change(&mut users);
        let text = toml::to_string(&Document { users }).map_err(|error| UsersFileError::Text {
            path: self.path.clone(),
            problem: error.to_string(),
        })?;
        let text = format!("{HEADER}\n{text}");
        self.parse(&text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        replace(&self.path, &text).map_err(failed)?;
        Ok(result)
    }

    /// Its text; empty where there is no file.
    pub(super) fn text(&self) -> Result<String, UsersFileError> {
        let failed = |source| UsersFileError::Read { path: self.path.clone(), source };
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(failed(error)),
        };
        if !meta.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
        }
        self.refuse_open(&meta)?;
        let file = fs::File::open(&self.path).map_err(failed)?;
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(text)
    }

    #[cfg(unix)]
    fn refuse_open(&self, meta: &fs::Metadata) -> Result<(), UsersFileError> {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 == 0 {
            return Ok(());
        }
        Err(UsersFileError::Open { path: self.path.clone(), mode })
    }

    #[cfg(not(unix))]
    fn refuse_open(&self, _: &fs::Metadata) -> Result<(), UsersFileError> {
        Ok(())
    }

    pub(super) fn parse(&self, text: &str) -> Result<Vec<Entry>, UsersFileError> {
        let wrong = |problem: String| UsersFileError::Text { path: self.path.clone(), problem };
        let Document { users } = toml::from_str(text).map_err(|error| {
            // Without the line itself: it may hold a password.
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            wrong(format!("line {line}: {}", error.message()))
        })?;
        if users.len() > MAX_USERS {
            return Err(wrong(format!("{} users; at most {MAX_USERS}", users.len())));
        }
        let mut seen = std::collections::HashSet::new();
        for entry in &users {
            if !seen.insert(&entry.name) {
                return Err(self.wrong(&entry.name, "it is there twice"));
            }
        }
        Ok(users)
    }

    /// What an entry means.
    pub(super) fn user(&self, entry: &Entry, rules: &Rules) -> Result<User, UsersFileError> {
        let wrong = |problem: &str| Err(self.wrong(&entry.name, problem));
        if !is_user_name(&entry.name) {
            return wrong("a name is 1 to 64 of A-Z a-z 0-9 - _ . @");
        }
        if rules.taken.contains(&entry.name) {
            return wrong("the name is taken by the service itself or its configuration");
        }
        if entry.role != RoleName::Custom
            && !(entry.publish.is_empty() && entry.subscribe.is_empty())
        {
            return wrong("publish and subscribe are for role = \"custom\"");
        }
        if entry.role != RoleName::Panel && entry.gateway.is_some() {
            return wrong("gateway is for role = \"panel\"");
        }
        let role = match entry.role {
            RoleName::Platform => Role::Platform,
            RoleName::Viewer => Role::Viewer,
            RoleName::Panel => match entry.gateway.as_ref().or(rules.gateway.as_ref()) {
                Some(gateway) => Role::Panel(gateway.clone()),
                None => return wrong("a panel needs gateway = \"…\" here"),
            },
            RoleName::Custom => {
                for filter in entry.publish.iter().chain(&entry.subscribe) {
                    if !names::is_filter(filter) {
                        return wrong(&format!("{filter:?} is no filter"));
                    }
                    if rules.carries_link && !stays_off_the_link(filter) {
                        return wrong(&format!(
                            "{filter:?} may meet the gateways' link; begin with a level of your own"
                        ));
                    }
                }
                let (publish, subscribe) = (entry.publish.clone(), entry.subscribe.clone());
                Role::Custom { publish, subscribe }
            }
        };
        let credential = match &entry.password {
            None => Credential::Certificate,
            Some(hash) => match password::check(hash) {
                Ok(()) => Credential::Argon2id(hash.clone()),
                Err(problem) => return wrong(&format!("password: {problem}")),
            },
        };
        Ok(User { name: entry.name.clone(), credential, role })
    }

    fn wrong(&self, name: &str, problem: &str) -> UsersFileError {
        UsersFileError::User {
            path: self.path.clone(),
            name: name.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// Whether no topic that the filter meets is part of the gateways' private link.
fn stays_off_the_link(filter: &str) -> bool {
    let first = filter.split('/').next().unwrap_or_default();
    !matches!(first, "#" | "+" | topics::topic::LINK)
}

fn private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes beside it and renames, so that a power cut leaves the one or the other. What root writes
/// belongs to whom the directory belongs: the service must read it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let mut file = private(&beside)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let (of, mine) = (fs::metadata(parent)?, file.metadata()?);
        if of.uid() != mine.uid() {
            fchown(&file, Some(of.uid()), Some(of.gid()))?;
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(parent)?.sync_all()
}
