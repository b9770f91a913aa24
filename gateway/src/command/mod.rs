//! Commands: once, never late, with a durable result.
//!
//! | step | durable before it |
//! |---|---|
//! | a command is accepted | its row (`running`), in a batch that fails if the id is known |
//! | it runs | - |
//! | its result is told | the row with the result and the `command:result` event, in one batch |
//!
//! | arrives | answered with |
//! |---|---|
//! | a known id that has ended | the stored result |
//! | a known id that runs | `running`; the result follows |
//! | after its expiry | `expired` |
//! | without an expiry, with an unknown name, with parameters that don't fit | `failed`, 400 |
//! | something that moves a reader, while the bridge's time is unknown | `failed`, 5002 |
//! | too many at once | `failed`, 5002 |
//!
//! Expiry is judged by the clocks in `clock.rs`: when it arrives, and again when it is durable and about to
//! begin.
//!
//! A command that ran when the gateway ended has failed with 5002 when it starts again: whether a
//! finger was taken then, nobody knows, and it is never done twice.
//!
//! # Rows
//!
//! Table `commands`, key the command's id, value JSON `{"v":1,"bridge","command","acceptedAt",
//! "response"}`. No template is in a row: a template goes to the bridge in the event's private part
//! only, sealed with the link's key for [`RESULT_SEAL`] and the command's id, as
//! `{"template":"<base64>"}`. Rows are kept for [`KEPT`] and at most [`MAX_ROWS`] of them; an older
//! command's expiry has long passed.

mod clock;
mod execute;
mod rows;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{
    CommandId, CommandName, CommandRequest, CommandResponse, CommandStatus, Draft, ErrorBody,
    ErrorCode, EventBody, Timestamp, record::Cause,
};

use crate::{
    journal::{self, Attachment, Batch, Journal, JournalError, Owner},
    keys::SealKey,
    operation::{Operations, TemplateBytes, journal_error},
};
use clock::{BridgeTime, Clock, Now};
use rows::{Row, Rows};

/// What a template on its way to the bridge is sealed for; the record is the command's id.
pub const RESULT_SEAL: &str = "command-result";
/// What templates among a command's parameters are sealed for on their way down.
pub const PARAMS_SEAL: &str = "command-params";
/// How long a command's row is kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most rows that are kept.
pub const MAX_ROWS: usize = 20_000;
/// Commands that run at the same time. A site has a few readers; more only wait for them.
const MAX_RUNNING: usize = 32;
/// The longest time that a request on the on-site broker may set as its expiry: shorter than its row is
/// kept, so that a repeat always finds it or is too late.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Until a result that could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(2);

/// Who asks, and when it is too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The on-site broker; by this machine's clock.
    Edge {
        /// None: the request named no expiry, and is refused.
        expires_at: Option<Timestamp>,
    },
    /// The bridge; by its clock.
    Bridge {
        /// By the bridge's clock.
        expires_at: Timestamp,
        /// What to add to this machine's clock to get the bridge's, in milliseconds, as it was learned last.
        offset_ms: Option<i64>,
    },
}

impl Source {
    /// Of a request on the on-site broker that arrives `now`.
    pub fn edge(request: &CommandRequest, now: Timestamp) -> Self {
        let from_ttl = request.ttl_ms.map(|ttl| now.plus(Duration::from_millis(ttl)));
        let expires_at = match (request.expires_at, from_ttl) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Source::Edge { expires_at }
    }
}

/// A command as it arrives.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who asks, and until when.
    pub source: Source,
    /// The key that makes a repeat harmless.
    pub id: CommandId,
    /// What to do; see [`CommandName`].
    pub command: String,
    /// Its parameters.
    pub params: Value,
    /// Parameters that hold templates, still sealed.
    pub sealed: Option<Vec<u8>>,
}

/// What has become of a submission.
#[derive(Debug)]
pub struct Submitted {
    /// How it stands now; durable.
    pub response: CommandResponse,
    /// How it goes on, where it runs.
    pub updates: Option<watch::Receiver<CommandResponse>>,
}

impl Submitted {
    /// Waits for its end.
    pub async fn finished(self) -> CommandResponse {
        let Some(mut updates) = self.updates else { return self.response };
        match updates.wait_for(|response| response.status.is_final()).await {
            Ok(response) => response.clone(),
            // The gateway is stopping: the row says how it ended at the next start.
            Err(_) => self.response,
        }
    }
}

/// Tells the gateway's health, as its REST route does.
pub type HealthReport = Arc<dyn Fn() -> Value + Send + Sync>;

/// Runs commands. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    operations: Operations,
    /// The link's; none: no bridge.
    link: Option<Arc<SealKey>>,
    health: HealthReport,
    tracker: TaskTracker,
    token: CancellationToken,
    rows: Mutex<Rows>,
    running: Mutex<HashMap<CommandId, Running>>,
    clock: Clock,
    bridge_time: Mutex<BridgeTime>,
}

struct Running {
    updates: watch::Sender<CommandResponse>,
    /// The operation that it waits for, once there is one.
    scan_id: Option<String>,
}

/// A command that is worth running.
#[derive(Debug)]
struct Accepted {
    id: CommandId,
    name: CommandName,
    bridge: bool,
    params: Value,
    templates: Option<Value>,
    /// None where it expires never.
    deadline: Option<Deadline>,
}

/// When a command must have begun.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    /// As the sender said it.
    expires_at: Timestamp,
    /// The same as a time since this machine's boot.
    since_boot: Duration,
}

/// How a command ended.
#[derive(Debug)]
struct Finished {
    status: CommandStatus,
    result: Result<Value, ErrorBody>,
    /// For the bridge only.
    template: Option<TemplateBytes>,
}

impl Commands {
    /// Reads the rows; what ran when the gateway ended is recorded as failed.
    pub async fn open(
        journal: Journal,
        operations: Operations,
        link: Option<Arc<SealKey>>,
        health: HealthReport,
        tracker: TaskTracker,
        token: CancellationToken,
    ) -> Result<Self, JournalError> {
        let (rows, interrupted) = Rows::open(&journal)?;
        let (rows, running) = (Mutex::new(rows), Mutex::new(HashMap::new()));
        let (clock, bridge_time): (Clock, _) = (Arc::new(Now::read), Mutex::default());
        let inner = Inner {
            journal,
            operations,
            link,
            health,
            tracker,
            token,
            rows,
            running,
            clock,
            bridge_time,
        };
        let commands = Self { inner: Arc::new(inner) };
        for (id, row) in interrupted {
            let error = ErrorBody::new(ErrorCode::ServiceUnavailable, "gateway restarted")
                .with("reason", "gateway restarted");
            tracing::warn!(command = %id, "a command was running when the gateway ended");
            let finished = Finished::failed(error);
            let (batch, _) = commands.result_batch(&id, &row.command, row.bridge, finished);
            commands.inner.journal.commit(batch).await?;
        }
        Ok(commands)
    }

    /// Takes a command. The answer comes when it is durable that it was taken (or refused).
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, ErrorBody> {
        if let Some(known) = self.known(&submission.id)? {
            return Ok(known);
        }
        let id = submission.id.clone();
        let (command, bridge) = (submission.command.clone(), submission.is_from_bridge());
        match self.judge(submission) {
            Ok(accepted) => self.accept(accepted).await,
            Err(refusal) => self.refuse(id, &command, bridge, refusal).await,
        }
    }

    /// The bridge's time was learned: so much is to be added to this machine's clock. To be told at once, so
    /// that what happens to that clock later doesn't matter.
    pub fn learn_bridge_time(&self, offset_ms: i64) {
        self.bridge_time().learn(offset_ms, (self.inner.clock)());
    }

    /// Whether the on-site broker asked for this command; false where its row is no longer kept.
    pub fn is_from_edge(&self, id: &CommandId) -> bool {
        rows::find(&self.inner.journal, id).ok().flatten().is_some_and(|row| !row.bridge)
    }

    /// Commands that run now.
    pub fn running(&self) -> usize {
        self.running_map().len()
    }

    // ---- taking ---------------------------------------------------------------------------------

    fn known(&self, id: &CommandId) -> Result<Option<Submitted>, ErrorBody> {
        if let Some(running) = self.running_map().get(id) {
            let updates = running.updates.subscribe();
            let response = updates.borrow().clone();
            return Ok(Some(Submitted { response, updates: Some(updates) }));
        }
        let row = rows::find(&self.inner.journal, id).map_err(|error| journal_error(&error))?;
        Ok(row.map(|row| Submitted { response: row.response, updates: None }))
    }

    fn judge(&self, submission: Submission) -> Result<Accepted, Finished> {
        let bridge = submission.is_from_bridge();
        let Submission { source, id, command, params, sealed } = submission;
        let refused = |text: String| Finished::failed(ErrorBody::new(ErrorCode::Validation, text));
        let name = CommandName::parse(&command).ok_or_else(|| {
            let shown: String = command.chars().take(40).collect();
            refused(format!("Unknown command {shown:?}"))
        })?;
        let now = (self.inner.clock)();
        let deadline = source.deadline(name, now, &mut self.bridge_time())?;
        if !(params.is_object() || params.is_null()) {
            return Err(refused("params must be an object".into()));
        }
        if !bridge && ["template", "templateData"].iter().any(|key| params.get(key).is_some()) {
            return Err(refused("A command over MQTT takes no template: use the REST API".into()));
        }
        if self.running() >= MAX_RUNNING {
            let error = ErrorBody::new(ErrorCode::ServiceUnavailable, "Too many commands at once");
            return Err(Finished::failed(error.with("retryAfter", 2)));
        }
        let templates = match sealed {
            None => None,
            Some(sealed) => Some(self.unseal(&id, &sealed).ok_or_else(|| {
                refused("The sealed parameters can't be opened with this gateway's key".into())
            })?),
        };
        Ok(Accepted { id, name, bridge, params, templates, deadline })
    }

    async fn accept(&self, accepted: Accepted) -> Result<Submitted, ErrorBody> {
        let id = accepted.id.clone();
        let response = response(&id, CommandStatus::Running);
        let row = Row::new(accepted.bridge, accepted.name.as_str(), response.clone());
        let (updates, receiver) = watch::channel(response.clone());
        {
            // Before the commit, so that a repeat in the meantime finds it.
            let mut running = self.running_map();
            if running.contains_key(&id) {
                drop(running);
                return self.known(&id)?.ok_or_else(internal);
            }
            running.insert(id.clone(), Running { updates, scan_id: None });
        }
        // Another one may have come and gone since the first look: its row was there before it left.
        let earlier = rows::find(&self.inner.journal, &id);
        if let Some(earlier) = earlier.map_err(|error| journal_error(&error)).transpose() {
            self.running_map().remove(&id);
            return Ok(Submitted { response: earlier?.response, updates: None });
        }
        let batch = self.rows().insert(Batch::new(), &id, &row, journal::now());
        if let Err(error) = self.inner.journal.commit(batch).await {
            self.running_map().remove(&id);
            tracing::error!(command = %id, %error, "a command can't be recorded, so it is not run");
            return Err(journal_error(&error));
        }
        let commands = self.clone();
        self.inner.tracker.spawn(async move { commands.run(accepted).await });
        Ok(Submitted { response, updates: Some(receiver) })
    }

    async fn refuse(
        &self,
        id: CommandId,
        command: &str,
        bridge: bool,
        refusal: Finished,
    ) -> Result<Submitted, ErrorBody> {
        tracing::info!(command = %id, status = ?refusal.status, "a command is refused");
        let command: String = command.chars().take(40).collect();
        let (batch, response) = self.result_batch(&id, &command, bridge, refusal);
        self.inner.journal.commit(batch).await.map_err(|error| {
            tracing::error!(command = %id, %error, "a refusal can't be recorded");
            journal_error(&error)
        })?;
        Ok(Submitted { response, updates: None })
    }

    // ---- running --------------------------------------------------------------------------------

    async fn run(&self, accepted: Accepted) {
        let (id, name, bridge) = (accepted.id.clone(), accepted.name, accepted.bridge);
        // It was in time when it came; a slow disk may have made it late.
        let now = (self.inner.clock)().since_boot;
        let finished = match accepted.deadline.filter(|deadline| deadline.since_boot <= now) {
            Some(passed) => Finished::expired(passed.expires_at),
            None => self.execute(accepted).await,
        };
        let (batch, response) = self.result_batch(&id, name.as_str(), bridge, finished);
        while let Err(error) = self.inner.journal.commit(batch.clone()).await {
            tracing::error!(command = %id, %error, "a command's result can't be recorded yet");
            let pause = tokio::time::sleep(RECORD_AGAIN);
            if self.inner.token.run_until_cancelled(pause).await.is_none() {
                return; // the row says that it ran: the next start records it as failed
            }
        }
        if let Some(running) = self.running_map().remove(&id) {
            running.updates.send_replace(response);
        }
    }

    /// The row and the event of a result, and the response.
    fn result_batch(
        &self,
        id: &CommandId,
        command: &str,
        bridge: bool,
        finished: Finished,
    ) -> (Batch, CommandResponse) {
        let Finished { status, result, template } = finished;
        let mut response = response(id, status);
        let finished_at = journal::now();
        response.finished_at = Some(finished_at);
        match result {
            Ok(result) => response.result = Some(result),
            Err(error) => response.error = Some(error),
        }
        let body = EventBody::CommandResult {
            command: command.to_owned(),
            status,
            result: response.result.clone(),
            error: response.error.clone(),
            finished_at,
        };
        let cause = Cause { command_id: Some(id.clone()), request_id: None };
        let row = Row::new(bridge, command, response.clone());
        let batch = self.rows().insert(Batch::new(), id, &row, finished_at);
        match Draft::new(&body, &journal::moment(), &cause) {
            Ok(draft) => {
                let draft = self.with_template(id, draft, template.filter(|_| bridge));
                let owner = Some(Owner::Command(id.clone()));
                let attachment = Attachment { owner, extra: serde_json::Map::new() };
                (batch.event(draft, attachment), response)
            }
            Err(error) => {
                // Our own result can only be too large; its row is the answer then.
                tracing::error!(command = %id, %error, "a command's result can't be told");
                (batch, response)
            }
        }
    }

    fn with_template(
        &self,
        id: &CommandId,
        draft: Draft,
        template: Option<TemplateBytes>,
    ) -> Draft {
        let (Some(template), Some(link)) = (template, &self.inner.link) else { return draft };
        let private = json!({ "template": template.base64() }).to_string();
        let sealed = link.seal(RESULT_SEAL, id.as_str(), private.as_bytes());
        let sealed = sealed.inspect_err(|error| {
            tracing::error!(command = %id, %error, "a template can't be sealed for the bridge");
        });
        let Ok(sealed) = sealed else { return draft };
        let without = draft.clone();
        draft.with_private(sealed).unwrap_or_else(|error| {
            tracing::error!(command = %id, %error, "a template is too large for the bridge");
            without
        })
    }

    fn unseal(&self, id: &CommandId, sealed: &[u8]) -> Option<Value> {
        let plain = self.inner.link.as_ref()?.open(PARAMS_SEAL, id.as_str(), sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // Nothing panics while it holds a lock of ours; what is in it is still whole.
        self.inner.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bridge_time(&self) -> MutexGuard<'_, BridgeTime> {
        self.inner.bridge_time.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running_map(&self) -> MutexGuard<'_, HashMap<CommandId, Running>> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submission {
    /// Of a request on the on-site broker that arrives `now`.
    pub fn of_request(request: CommandRequest, now: Timestamp) -> Self {
        let source = Source::edge(&request, now);
        let CommandRequest { id, command, params, .. } = request;
        Self { source, id, command, params, sealed: None }
    }

    fn is_from_bridge(&self) -> bool {
        match self.source {
            Source::Bridge { .. } => true,
            Source::Edge { .. } => false,
        }
    }
}

impl Source {
    /// When it must have begun; none where it expires never. A refusal where it is too late already.
    fn deadline(
        self,
        name: CommandName,
        now: Now,
        bridge_time: &mut BridgeTime,
    ) -> Result<Option<Deadline>, Finished> {
        let (expires_at, senders_now) = match self {
            Source::Edge { expires_at: Some(expires_at) }
                if expires_at > now.wall.plus(MAX_TTL) =>
            {
                let text = "The expiry is too far ahead: at most 24 hours";
                return Err(Finished::failed(ErrorBody::new(ErrorCode::Validation, text)));
            }
            Source::Edge { expires_at: Some(expires_at) } => (expires_at, now.wall),
            Source::Edge { expires_at: None } => {
                let text = "A command needs an expiry: expiresAt or ttlMs";
                return Err(Finished::failed(ErrorBody::new(ErrorCode::Validation, text)));
            }
            Source::Bridge { expires_at, offset_ms } => {
                // What the command brings was learned earlier: it is of the wall clock as that was then.
                if let (Some(offset_ms), None) = (offset_ms, bridge_time.at(now)) {
                    bridge_time.learn(offset_ms, now);
                }
                match bridge_time.at(now).filter(|_| offset_ms.is_some()) {
                    Some(bridge_now) => (expires_at, bridge_now),
                    None if moves_something(name) => {
                        let text = "The bridge's time is not known yet";
                        let error = ErrorBody::new(ErrorCode::ServiceUnavailable, text);
                        return Err(Finished::failed(error));
                    }
                    None => return Ok(None),
                }
            }
        };
        if senders_now >= expires_at {
            return Err(Finished::expired(expires_at));
        }
        let since_boot = now.since_boot.saturating_add(expires_at.since(senders_now));
        Ok(Some(Deadline { expires_at, since_boot }))
    }
}

impl Finished {
    fn failed(error: ErrorBody) -> Self {
        Self { status: CommandStatus::Failed, result: Err(error), template: None }
    }

    fn expired(expires_at: Timestamp) -> Self {
        let error = ErrorBody::new(ErrorCode::Expired, "The command came after its expiry")
            .with("expiresAt", expires_at.to_string());
        Self { status: CommandStatus::Expired, result: Err(error), template: None }
    }
}

/// Whether a person would notice that it was done late.
fn moves_something(name: CommandName) -> bool {
    match name {
        CommandName::Enroll
        | CommandName::Verify
        | CommandName::Identify
        | CommandName::Capture => true,
        CommandName::Cancel
        | CommandName::Devices
        | CommandName::DeviceTest
        | CommandName::Health => false,
    }
}

fn response(id: &CommandId, status: CommandStatus) -> CommandResponse {
    CommandResponse { id: id.clone(), status, result: None, error: None, finished_at: None }
}

fn internal() -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, "Internal error")
}

#[cfg(test)]
mod tests;
