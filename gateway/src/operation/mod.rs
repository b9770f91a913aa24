//! What callers start, await and cancel.
//!
//! [`Operations`] is the one door to the readers: the local API, commands and the admin page all go
//! through it. It finds the reader, gives the operation its id, and hands it to the reader's task.
//!
//! | request | with a template | finger |
//! |---|---|---|
//! | scan, capture, enrol | - | live |
//! | verify | - | live, compared with what is stored of the user |
//! | | enrolled (a reference) | live, compared with it |
//! | | output of a scan | none: compared with the stored templates of the user |
//! | identify | - | live |
//! | | any | none: searched |
//!
//! A scan's output is never compared with a live finger: both would be of whoever stands there.

mod direct;
mod scans;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{ErrorBody, ErrorCode, ReaderId, ReaderState, ReaderSummary, Timestamp, UserId};
use zkfp::{HostConfig, ReaderHost, Serial};

use crate::{
    journal::{self, Batch, Journal, JournalError, Owner},
    keys::MasterKey,
    readers::{
        EngineSettings, EngineState, ReaderView,
        dispatch::{Dispatch, HOST_EVENTS},
        engine::{self, Engine},
        reader::Message,
        registry::Registry,
    },
    session::{self, NewEnrolment, Now, Rules, Start, Task},
    templates::{Marks, Provenance, TemplateError, TemplateInfo, Templates},
};
pub use direct::Comparison;
pub use scans::{ScanState, ScanStatus};
pub use session::{Origin, Outcome, TemplateBytes};

/// The most of a caller's own data that is kept with a template, as JSON.
const MAX_METADATA_BYTES: usize = 4096;
/// The SDK searches no more.
const MAX_TEMPLATES: usize = 50_000;

/// What a site sets.
#[derive(Debug, Clone, Default)]
pub struct OperationsConfig {
    /// How the readers' process is started and watched.
    pub host: HostConfig,
    /// Waits, qualities, what idle readers do.
    pub rules: Rules,
    /// Thresholds.
    pub engine: EngineSettings,
}

/// Why operations can't be offered.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OperationsError {
    #[error("the journal's tables: {0}")]
    Journal(#[from] JournalError),
    #[error("the enrolled templates: {0}")]
    Templates(#[from] TemplateError),
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Request {
    /// A session that is polled for.
    Scan {
        /// In place of the default wait.
        timeout: Option<Duration>,
        /// In place of the default least quality.
        quality_threshold: Option<u8>,
    },
    /// The same, while the caller waits.
    Capture {
        /// In place of the default wait.
        timeout: Option<Duration>,
        /// In place of the default least quality.
        quality_threshold: Option<u8>,
    },
    /// Three placements, stored under the user.
    Enroll {
        /// Who.
        user_id: UserId,
        /// The caller's own data; `fingerPosition` says which finger.
        metadata: Option<Map<String, Value>>,
    },
    /// 1:1.
    Verify {
        /// Who it should be.
        user_id: UserId,
        /// An enrolled template, or a scan's output; none: what is stored of the user.
        template: Option<TemplateBytes>,
    },
    /// 1:N.
    Identify {
        /// None: a live finger.
        template: Option<TemplateBytes>,
        /// Among these users; none: all.
        user_ids: Option<Vec<UserId>>,
    },
}

/// An operation that has begun; the event that says so is committed.
#[derive(Debug)]
pub struct Started {
    /// Its id, in all its events.
    pub scan_id: String,
    /// On which reader.
    pub device_id: ReaderId,
    /// When the wait for a finger ends.
    pub expires_at: Timestamp,
    /// How it ends; comes after the commit. Dropping it doesn't end the operation.
    pub outcome: oneshot::Receiver<Result<Outcome, ErrorBody>>,
}

impl Started {
    /// Waits for the end.
    pub async fn finished(self) -> Result<Outcome, ErrorBody> {
        self.outcome.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// A reader's answer to a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Which reader.
    pub device_id: ReaderId,
    /// How long it took.
    pub response_time: Duration,
    /// How far below the limit of a slow call that is, percent. The reader itself knows no measure of
    /// its signal; one that answers ever more slowly is about to fail.
    pub signal_percent: u8,
}

/// The door to the readers. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    shared: Arc<Shared>,
}

/// What the readers' tasks share.
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) rules: Rules,
    pub(crate) templates: Templates,
    pub(crate) marks: Marks,
    pub(crate) engine: Engine,
    pub(crate) registry: Registry,
    pub(crate) scans: scans::Scans,
    /// A call of the readers' library that takes longer is an error.
    pub(crate) slow_call: Duration,
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { wall: journal::now(), uptime: Duration::from_millis(journal::uptime_ms()) }
    }

    /// Where a template comes from. One that is stored byte for byte was enrolled here, also where a
    /// later scan of the very same picture (as simulated readers give it) looks like it.
    fn provenance(&self, template: &TemplateBytes) -> Provenance {
        match self.marks.provenance(template) {
            Provenance::Scan if self.templates.holds(template) => Provenance::Reference,
            provenance => provenance,
        }
    }

    /// Commits; a failure is logged here and told to the caller without the journal's internals.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<(), ErrorBody> {
        let result = self.journal.commit(batch).await;
        result.map(|_committed| ()).map_err(|error| {
            tracing::error!(%error, "what happened can't be recorded");
            journal_error(&error)
        })
    }
}

impl Operations {
    /// Reads what is enrolled and starts the readers' process. Their tasks run on `tracker` until
    /// `token` is cancelled.
    pub fn start_readers(
        config: OperationsConfig,
        journal: Journal,
        key: Arc<MasterKey>,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Result<Self, OperationsError> {
        let marks = Marks::open(&journal, key.scan_mark_key())?;
        let templates = Templates::open(journal.clone(), key)?;
        let registry = Registry::open(journal.clone(), journal::now())?;
        let (events, inbox) = mpsc::channel(HOST_EVENTS);
        let slow_call = config.host.slow_call;
        let host = ReaderHost::spawn(config.host, events);
        let engine = Engine::new(host.clone(), templates.clone(), config.engine);
        let (rules, scans) = (config.rules, scans::Scans::default());
        let shared = Arc::new(Shared {
            journal,
            rules,
            templates,
            marks,
            engine,
            registry,
            scans,
            slow_call,
        });
        let dispatch = Dispatch::new(Arc::clone(&shared), tracker.clone(), token.clone());
        tracker.spawn(dispatch.run(inbox));
        let (engine, token) = (Arc::clone(&shared), token.clone());
        tracker.spawn(async move {
            // In the background: with many templates loading takes seconds.
            token.run_until_cancelled(engine.engine.keep_loaded()).await;
            host.shutdown().await;
        });
        Ok(Self { shared })
    }

    /// Begins an operation on the reader with this id or serial number, or on the first that is
    /// connected, an idle one before others.
    pub async fn start(
        &self,
        device: Option<&str>,
        request: Request,
        origin: Origin,
    ) -> Result<Started, ErrorBody> {
        let reader = self.reader(device)?;
        match request {
            Request::Scan { timeout, quality_threshold } => {
                let task = Task::Scan { session: true, wait: timeout, quality: quality_threshold };
                self.live(&reader, task, origin).await
            }
            Request::Capture { timeout, quality_threshold } => {
                let task = Task::Scan { session: false, wait: timeout, quality: quality_threshold };
                self.live(&reader, task, origin).await
            }
            Request::Enroll { user_id, metadata } => {
                self.check_room(metadata.as_ref())?;
                let new = NewEnrolment {
                    user_id,
                    metadata: metadata.unwrap_or_default(),
                    enrollment_id: new_id("enroll"),
                    template_id: new_id("template"),
                };
                self.live(&reader, Task::Enroll(Box::new(new)), origin).await
            }
            Request::Verify { user_id, template: None } => {
                let references = self.stored(&user_id)?;
                self.live(&reader, Task::Verify { user_id, references }, origin).await
            }
            Request::Verify { user_id, template: Some(template) } => {
                match self.shared.provenance(&template) {
                    Provenance::Reference => {
                        direct::check(&template)?;
                        let task = Task::Verify { user_id, references: vec![template] };
                        self.live(&reader, task, origin).await
                    }
                    Provenance::Scan => {
                        self.verify_scan(reader.id, user_id, &template, origin).await
                    }
                    Provenance::Foreign => Err(direct::foreign()),
                }
            }
            Request::Identify { template: None, user_ids } => {
                self.live(&reader, Task::Identify { user_ids }, origin).await
            }
            Request::Identify { template: Some(template), user_ids } => {
                self.identify_given(reader.id, &template, user_ids, origin).await
            }
        }
    }

    /// Whether it waits for a live finger: then it occupies its reader.
    pub fn takes_finger(&self, request: &Request) -> bool {
        match request {
            Request::Scan { .. } | Request::Capture { .. } | Request::Enroll { .. } => true,
            Request::Verify { template: None, .. } => true,
            Request::Verify { template: Some(template), .. } => {
                match self.shared.provenance(template) {
                    Provenance::Reference => true,
                    Provenance::Scan | Provenance::Foreign => false,
                }
            }
            Request::Identify { template, .. } => template.is_none(),
        }
    }

    /// Ends an operation of this owner; an administrator may end any.
    pub async fn stop(&self, scan_id: &str, owner: &Owner) -> Result<(), ErrorBody> {
        let unknown = || session::events::unknown_scan(scan_id);
        let device_id = self.shared.scans.running_on(scan_id, owner).ok_or_else(unknown)?;
        let mailbox = self.shared.registry.mailbox(&device_id).ok_or_else(unknown)?;
        let (done, result) = oneshot::channel();
        let message = Message::Stop { scan_id: scan_id.to_owned(), done: Some(done) };
        mailbox.send(message).await.map_err(|_| stopping())?;
        result.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The same without waiting, for a caller who is gone: for use in `Drop`. When the reader's
    /// task is too busy to listen, the operation ends by its own deadline.
    pub fn abandon(&self, scan_id: &str, owner: &Owner) {
        let mailbox = self
            .shared
            .scans
            .running_on(scan_id, owner)
            .and_then(|device_id| self.shared.registry.mailbox(&device_id));
        if let Some(mailbox) = mailbox {
            let message = Message::Stop { scan_id: scan_id.to_owned(), done: None };
            if mailbox.try_send(message).is_err() {
                tracing::warn!(scan_id, "an abandoned operation goes on until its deadline");
            }
        }
    }

    /// How an operation of this owner stands; finished ones are kept for ten minutes.
    pub fn status(&self, scan_id: &str, owner: &Owner) -> Option<ScanStatus> {
        self.shared.scans.status(scan_id, owner, self.shared.now())
    }

    /// Asks a reader for a sign of life.
    pub async fn test(&self, device: Option<&str>) -> Result<TestResult, ErrorBody> {
        let reader = self.reader(device)?;
        if !reader.is_connected() {
            return Err(session::events::absent(&reader.id));
        }
        let serial = Serial::new(reader.serial_number)
            .map_err(|error| ErrorBody::new(ErrorCode::InternalError, error.to_string()))?;
        let response_time = self.shared.engine.test(&serial).await.map_err(|error| {
            tracing::warn!(reader = %reader.id, %error, "the reader's test failed");
            engine::error_body(&error).with("deviceId", reader.id.as_str())
        })?;
        let used = response_time.as_secs_f64() / self.shared.slow_call.as_secs_f64().max(0.001);
        let signal_percent = (100.0 * (1.0 - used)).round().clamp(0.0, 100.0) as u8;
        Ok(TestResult { device_id: reader.id, response_time, signal_percent })
    }

    /// All readers that are known, in the order first seen.
    pub fn readers(&self) -> Vec<ReaderView> {
        self.shared.registry.list()
    }

    /// The reader with this id or serial number.
    pub fn reader_named(&self, name: &str) -> Option<ReaderView> {
        self.shared.registry.find(name)
    }

    /// The readers as status topics show them; changes with each of them.
    pub fn reader_summaries(&self) -> watch::Receiver<Vec<ReaderSummary>> {
        self.shared.registry.watch()
    }

    /// How the process is that drives the readers.
    pub fn engine_state(&self) -> watch::Receiver<EngineState> {
        self.shared.engine.state()
    }

    /// Waits until the readers that are plugged in can be used.
    pub async fn readers_up(&self) {
        self.shared.registry.taken_up().await;
    }

    /// Why no reader can be had although some may be plugged in.
    pub fn trouble(&self) -> Option<ErrorBody> {
        self.shared.registry.trouble()
    }

    /// What every reader goes by.
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The enrolled templates.
    pub fn templates(&self) -> &Templates {
        &self.shared.templates
    }

    /// Who is enrolled, each with what is stored of them.
    pub fn users(&self) -> Vec<(UserId, Vec<TemplateInfo>)> {
        self.shared.templates.users()
    }

    /// Deletes all that is stored of a user; how many templates.
    pub async fn delete_user(&self, user_id: &UserId) -> Result<usize, ErrorBody> {
        let mut changing = self.shared.templates.begin().await;
        let (batch, count) = changing.remove_user(Batch::new(), user_id);
        if count == 0 {
            return Err(direct::unknown_user(user_id));
        }
        self.shared.commit(batch).await?;
        let change = changing.committed();
        self.shared.engine.apply(change).await;
        Ok(count)
    }

    /// What is kept for each template in memory and on disk is bounded.
    fn check_room(&self, metadata: Option<&Map<String, Value>>) -> Result<(), ErrorBody> {
        let bytes = metadata.map_or(0, json_bytes);
        if bytes > MAX_METADATA_BYTES {
            let text = format!("metadata has {bytes} bytes, at most {MAX_METADATA_BYTES} are kept");
            return Err(ErrorBody::new(ErrorCode::Validation, text).with("field", "metadata"));
        }
        if self.shared.templates.count() >= MAX_TEMPLATES {
            let text = format!("{MAX_TEMPLATES} templates are enrolled, more can't be searched");
            return Err(ErrorBody::new(ErrorCode::ServiceUnavailable, text));
        }
        Ok(())
    }

    // ---- readers --------------------------------------------------------------------------------

    fn reader(&self, device: Option<&str>) -> Result<ReaderView, ErrorBody> {
        let trouble = || self.trouble().unwrap_or_else(|| not_found(device));
        match device {
            Some(name) => {
                let view = self.shared.registry.find(name).ok_or_else(|| not_found(device))?;
                match (view.status, self.trouble()) {
                    (ReaderState::Disconnected, Some(trouble)) => Err(trouble),
                    (
                        ReaderState::Disconnected
                        | ReaderState::Idle
                        | ReaderState::Busy
                        | ReaderState::Error,
                        _,
                    ) => Ok(view),
                }
            }
            None => self.shared.registry.first_connected().ok_or_else(trouble),
        }
    }

    async fn live(
        &self,
        reader: &ReaderView,
        task: Task,
        origin: Origin,
    ) -> Result<Started, ErrorBody> {
        let absent = || session::events::absent(&reader.id);
        let mailbox = self.shared.registry.mailbox(&reader.id).ok_or_else(absent)?;
        let scan_id = new_id("scan");
        let start = Box::new(Start { scan_id: scan_id.clone(), origin, task });
        let (begun, result) = oneshot::channel();
        let (sender, outcome) = oneshot::channel();
        let message = Message::Start { start, begun, outcome: sender };
        mailbox.send(message).await.map_err(|_| stopping())?;
        let expires_at = result.await.unwrap_or_else(|_| Err(stopping()))?;
        Ok(Started { scan_id, device_id: reader.id.clone(), expires_at, outcome })
    }
}

fn json_bytes(fields: &Map<String, Value>) -> usize {
    serde_json::to_vec(fields).map_or(usize::MAX, |json| json.len())
}

/// A new id that nobody can guess: `scan-` and 24 hexadecimal digits.
fn new_id(kind: &str) -> String {
    let mut random = [0; 12];
    // Without random numbers there is no gateway: nothing that comes after would be safe.
    getrandom::fill(&mut random).expect("the operating system gives random numbers");
    format!("{kind}-{}", hex::encode(random))
}

/// The journal's error as clients see it: nothing that can't be recorded is done.
pub(crate) fn journal_error(error: &JournalError) -> ErrorBody {
    match error {
        JournalError::Full { .. } => {
            ErrorBody::new(ErrorCode::ServiceUnavailable, "The disk is full")
                .with("reason", "disk full")
                .with("retryAfter", 60)
        }
        JournalError::Closed => stopping(),
        _ => ErrorBody::new(ErrorCode::DbQueryFailed, "The local store failed"),
    }
}

fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::ServiceUnavailable, "The service is stopping")
}

fn not_found(device: Option<&str>) -> ErrorBody {
    let text = "Fingerprint reader not connected (device not found)";
    let error = ErrorBody::new(ErrorCode::DeviceNotFound, text);
    match device {
        Some(device) => error.with("deviceId", device.chars().take(64).collect::<String>()),
        None => error,
    }
}

#[cfg(test)]
pub(crate) mod tests;
