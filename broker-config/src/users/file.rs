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

/// One user in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, Default, Serialize, Deserialize)]
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
    pub fn put(&self, entry: Entry) -> Result<bool, UsersFileError> {
        // On either side the gateway may be its own; what can't be known here is checked there.
        let anywhere = GatewayId::new("gateway").ok();
        self.user(&entry, anywhere.as_ref(), false)?;
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
        replace(&self.path, &text).map_err(failed)?;
        Ok(result)
    }

    /// Its text; empty where there is no file.
    pub(super) fn text(&self) -> Result<String, UsersFileError> {
        let failed = |source| UsersFileError::Read { path: self.path.clone(), source };
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(failed(error)),
        };
        self.refuse_open(&file.metadata().map_err(failed)?)?;
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
        let Document { users } = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
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

    /// What an entry means; `gateway` is for panels that name none.
    pub(super) fn user(
        &self,
        entry: &Entry,
        gateway: Option<&GatewayId>,
        carries_link: bool,
    ) -> Result<User, UsersFileError> {
        let wrong = |problem: &str| Err(self.wrong(&entry.name, problem));
        if !is_user_name(&entry.name) {
            return wrong("a name is 1 to 64 of A-Z a-z 0-9 - _ . @");
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
            RoleName::Panel => match entry.gateway.as_ref().or(gateway) {
                Some(gateway) => Role::Panel(gateway.clone()),
                None => return wrong("a panel needs gateway = \"…\" here"),
            },
            RoleName::Custom => {
                for filter in entry.publish.iter().chain(&entry.subscribe) {
                    if !names::is_filter(filter) {
                        return wrong(&format!("{filter:?} is no filter"));
                    }
                    if carries_link && !stays_off_the_link(filter) {
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

    pub(super) fn wrong(&self, name: &str, problem: &str) -> UsersFileError {
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

/// Writes beside it and renames, so that a power cut leaves the one or the other.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = private(&beside)?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => fs::File::open(".")?.sync_all(),
    }
}
