//! Enrolled templates, sealed; scan marks.
//!
//! | part | job |
//! |---|---|
//! | [`Templates`] | the enrolled templates: stored, found by user, replaced, deleted |
//! | [`Marks`] | tells a scan's output from an enrolled template, also after a restart |
//!
//! # What a row holds
//!
//! Table `templates`, key `{user id}\0{template id}`, value sealed under the master key with the key
//! as associated data, so that a row moved under another user does not open. Inside, JSON:
//! `{"v":1,"templateId","userId","fingerPosition"?,"quality","metadata","enrolledAt","template"}`,
//! the template in base64. Who is enrolled and with which finger is kept in memory; the templates
//! themselves are read and opened when they are needed.
//!
//! # Which template replaces which
//!
//! The same user and the same `metadata.fingerPosition` (or none at all, twice): the old one goes.
//! Another finger is added.

mod marks;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard};
use topics::{ErrorBody, ErrorCode, Timestamp, UserId};

use crate::{
    journal::{Batch, Journal, JournalError, Table},
    keys::MasterKey,
    operation::journal_error,
    session::{NewTemplate, TemplateBytes},
};
pub use marks::{Marks, Provenance};

/// A stored template, without the template.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateInfo {
    /// Its id.
    pub template_id: String,
    /// Who.
    pub user_id: UserId,
    /// Which finger, as the caller named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finger_position: Option<String>,
    /// 0 to 100.
    pub quality: u8,
    /// The caller's own data.
    pub metadata: Map<String, Value>,
    /// When.
    pub enrolled_at: Timestamp,
    /// SHA-256 of the template, hexadecimal.
    pub template_sha256: String,
    /// Its format's name.
    pub format: String,
    /// The number under which the engine knows it, in this process only.
    #[serde(skip)]
    pub(crate) number: u32,
}

/// A stored template.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Whose, which.
    pub info: TemplateInfo,
    /// The template.
    pub template: TemplateBytes,
}

/// Why templates can't be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TemplateError {
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
    #[error(
        "the template row {0} can't be opened: it was sealed with another master key, or damaged"
    )]
    Sealed(String),
    #[error("the template row {0} can't be read: {1}")]
    Row(String, String),
    #[error("a row can't be sealed")]
    Seal,
}

/// What changes in the engine's cache when a store or a deletion is committed.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    /// New templates and their numbers.
    pub added: Vec<(u32, TemplateBytes)>,
    /// Numbers that are no more.
    pub removed: Vec<u32>,
}

/// The enrolled templates. Cheap to clone.
#[derive(Clone)]
pub struct Templates {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    key: Arc<MasterKey>,
    index: RwLock<Index>,
    /// Held from planning a change to its commit, so that two enrolments of one finger can't both
    /// think that there is nothing to replace.
    changing: Mutex<()>,
}

#[derive(Default)]
struct Index {
    users: BTreeMap<UserId, Vec<TemplateInfo>>,
    /// Whose template has this number.
    numbers: HashMap<u32, (UserId, String)>,
    last_number: u32,
    /// Rows that could not be opened when the gateway started.
    unreadable: usize,
}

/// A change that is being committed; see [`Templates::begin`].
pub struct Changing<'a> {
    templates: &'a Templates,
    _alone: MutexGuard<'a, ()>,
    add: Option<Stored>,
    remove: Vec<TemplateInfo>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    v: u8,
    template_id: String,
    user_id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finger_position: Option<String>,
    quality: u8,
    metadata: Map<String, Value>,
    enrolled_at: Timestamp,
    template: String,
}

impl Templates {
    /// Reads who is enrolled. Rows that can't be opened are counted and logged; they stay.
    pub fn open(journal: Journal, key: Arc<MasterKey>) -> Result<Self, TemplateError> {
        let mut index = Index::default();
        for (row_key, sealed) in journal.scan(Table::Templates, b"")? {
            match open_row(&key, &row_key, &sealed) {
                Ok(row) => {
                    let template = row.template.clone();
                    index.insert(row.info(&template));
                }
                Err(error) => {
                    index.unreadable += 1;
                    tracing::error!(%error, "a stored template can't be used");
                }
            }
        }
        let changing = Mutex::new(());
        let inner = Inner { journal, key, index: RwLock::new(index), changing };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many templates there are.
    pub fn count(&self) -> usize {
        self.index(|index| index.users.values().map(Vec::len).sum())
    }

    /// How many rows could not be opened when the gateway started.
    pub fn unreadable(&self) -> usize {
        self.index(|index| index.unreadable)
    }

    /// Who is enrolled, each with what is stored of them.
    pub fn users(&self) -> Vec<(UserId, Vec<TemplateInfo>)> {
        self.index(|index| index.users.iter().map(|(id, t)| (id.clone(), t.clone())).collect())
    }

    /// Whether this very template is stored, of whomever.
    pub(crate) fn holds(&self, template: &TemplateBytes) -> bool {
        let sha256 = template.sha256();
        self.index(|index| index.users.values().flatten().any(|t| t.template_sha256 == sha256))
    }

    /// What is stored of a user, without the templates.
    pub fn infos(&self, user_id: &UserId) -> Vec<TemplateInfo> {
        self.index(|index| index.users.get(user_id).cloned().unwrap_or_default())
    }

    /// A user's templates.
    pub fn of_user(&self, user_id: &UserId) -> Result<Vec<Stored>, TemplateError> {
        self.infos(user_id).into_iter().map(|info| self.stored(info)).collect()
    }

    /// All templates with their numbers, for the engine's cache. One that can't be opened is left
    /// out: it was reported at the start.
    pub(crate) fn numbered(&self) -> Vec<(u32, TemplateBytes)> {
        let infos: Vec<TemplateInfo> =
            self.index(|index| index.users.values().flatten().cloned().collect());
        infos
            .into_iter()
            .filter_map(|info| self.stored(info).ok())
            .map(|stored| (stored.info.number, stored.template))
            .collect()
    }

    /// Whose template has this number, and its id.
    pub(crate) fn by_number(&self, number: u32) -> Option<(UserId, String)> {
        self.index(|index| index.numbers.get(&number).cloned())
    }

    /// Begins a change: plan it, commit the batch, then call [`Changing::committed`].
    pub async fn begin(&self) -> Changing<'_> {
        let alone = self.inner.changing.lock().await;
        Changing { templates: self, _alone: alone, add: None, remove: Vec::new() }
    }

    fn stored(&self, info: TemplateInfo) -> Result<Stored, TemplateError> {
        let key = row_key(&info.user_id, &info.template_id);
        let missing = || TemplateError::Row(info.template_id.clone(), "it is gone".into());
        let sealed = self.inner.journal.get(Table::Templates, &key)?.ok_or_else(missing)?;
        let row = open_row(&self.inner.key, &key, &sealed)?;
        Ok(Stored { info, template: row.template })
    }

    fn index<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        // Nothing panics while it holds the lock; a poisoned index is still whole.
        read(&self.inner.index.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Changing<'_> {
    /// Plans to store `new`, in place of what it replaces.
    pub fn add(&mut self, mut batch: Batch, new: &NewTemplate) -> Result<Batch, TemplateError> {
        let finger_position = finger_position(&new.metadata);
        let replaced = self.templates.infos(&new.user_id);
        for old in replaced.into_iter().filter(|old| old.finger_position == finger_position) {
            batch = self.remove(batch, old);
        }
        let row = Row {
            v: 1,
            template_id: new.template_id.clone(),
            user_id: new.user_id.clone(),
            finger_position,
            quality: new.quality,
            metadata: new.metadata.clone(),
            enrolled_at: new.enrolled_at,
            template: STANDARD.encode(&new.template),
        };
        let key = row_key(&new.user_id, &new.template_id);
        let plain = serde_json::to_vec(&row)
            .map_err(|error| TemplateError::Row(new.template_id.clone(), error.to_string()))?;
        let sealed =
            self.templates.inner.key.seal(&key, &plain).map_err(|_| TemplateError::Seal)?;
        let batch = batch.put(Table::Templates, key, sealed);
        let opened = OpenRow { row, template: new.template.clone() };
        let info = opened.info(&new.template);
        self.add = Some(Stored { info, template: new.template.clone() });
        Ok(batch)
    }

    /// Plans to delete all that is stored of a user; how many.
    pub fn remove_user(&mut self, batch: Batch, user_id: &UserId) -> (Batch, usize) {
        let all = self.templates.infos(user_id);
        let count = all.len();
        (all.into_iter().fold(batch, |batch, info| self.remove(batch, info)), count)
    }

    fn remove(&mut self, batch: Batch, info: TemplateInfo) -> Batch {
        let key = row_key(&info.user_id, &info.template_id);
        self.remove.push(info);
        batch.delete(Table::Templates, key)
    }

    /// The batch is committed: from now on it is so.
    pub fn committed(self) -> Change {
        let mut index = self.templates.inner.index.write().unwrap_or_else(PoisonError::into_inner);
        let mut change = Change::default();
        for info in self.remove {
            index.remove(&info);
            change.removed.push(info.number);
        }
        if let Some(Stored { info, template }) = self.add {
            let number = index.insert(info);
            change.added.push((number, template));
        }
        change
    }
}

impl Index {
    fn insert(&mut self, mut info: TemplateInfo) -> u32 {
        self.last_number += 1;
        info.number = self.last_number;
        let whose = (info.user_id.clone(), info.template_id.clone());
        self.numbers.insert(info.number, whose);
        self.users.entry(info.user_id.clone()).or_default().push(info);
        self.last_number
    }

    fn remove(&mut self, info: &TemplateInfo) {
        self.numbers.remove(&info.number);
        if let Some(templates) = self.users.get_mut(&info.user_id) {
            templates.retain(|stored| stored.template_id != info.template_id);
            if templates.is_empty() {
                self.users.remove(&info.user_id);
            }
        }
    }
}

/// A row with its template decoded.
struct OpenRow {
    row: Row,
    template: TemplateBytes,
}

impl OpenRow {
    fn info(self, template: &TemplateBytes) -> TemplateInfo {
        TemplateInfo {
            template_id: self.row.template_id,
            user_id: self.row.user_id,
            finger_position: self.row.finger_position,
            quality: self.row.quality,
            metadata: self.row.metadata,
            enrolled_at: self.row.enrolled_at,
            template_sha256: template.sha256(),
            format: format_name(template),
            number: 0,
        }
    }
}

fn open_row(key: &MasterKey, row_key: &[u8], sealed: &[u8]) -> Result<OpenRow, TemplateError> {
    // The user's name may be a person's: only the part after it goes into errors.
    let name = row_key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    let plain = key.open(row_key, sealed).map_err(|_| TemplateError::Sealed(name.clone()))?;
    let row: Row = serde_json::from_slice(&plain)
        .map_err(|error| TemplateError::Row(name.clone(), error.to_string()))?;
    let template = STANDARD
        .decode(&row.template)
        .map_err(|error| TemplateError::Row(name, error.to_string()))?;
    Ok(OpenRow { row, template: template.into() })
}

fn row_key(user_id: &UserId, template_id: &str) -> Vec<u8> {
    format!("{user_id}\0{template_id}").into_bytes()
}

fn finger_position(metadata: &Map<String, Value>) -> Option<String> {
    metadata.get("fingerPosition")?.as_str().map(str::to_owned)
}

/// The name of a template's format, for answers.
pub fn format_name(template: &[u8]) -> String {
    minutiae::Format::detect(template).map_or("unknown", minutiae::Format::name).to_owned()
}

impl From<&TemplateError> for ErrorBody {
    fn from(error: &TemplateError) -> Self {
        match error {
            TemplateError::Journal(error) => journal_error(error),
            TemplateError::Sealed(_) | TemplateError::Row(..) | TemplateError::Seal => {
                ErrorBody::new(ErrorCode::DbQueryFailed, "A stored template can't be read")
            }
        }
    }
}

#[cfg(test)]
mod tests;
