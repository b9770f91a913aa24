//! What the API, the engine and the publisher share: the store, the keys, the gateways, and how a
//! command comes into being.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use topics::{
    CommandId, CommandName, CommandStatus, ErrorBody, ErrorCode, GatewayId, Root, Timestamp,
};

use crate::{
    clock::Clock,
    command::{Change, Command, Requester},
    hub::Hub,
    ingest::unreadable::{Problem, Unreadable},
    secrets::{self, SealingKey},
    store::{Agent, Store, StoreError},
    view::{self, COMMAND_PARAMS},
};

/// The longest that a command may wait for its gateway.
const LONGEST_EXPIRY_MS: u64 = 24 * 3_600 * 1_000;
/// Parameters of a command, as JSON.
const MAX_PARAMS_BYTES: usize = 48 * 1024;
/// Fields of parameters that hold templates.
const TEMPLATE_FIELDS: [&str; 2] = ["template", "templateData"];

/// A gateway that may report here.
#[derive(Debug)]
pub(crate) struct KnownGateway {
    pub(crate) name: Option<String>,
    pub(crate) link_key: SealingKey,
}

/// What the API tells the engine.
#[derive(Debug)]
pub(crate) enum Nudge {
    /// A command was recorded or changed.
    Command(Box<Command>),
}

pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) root: Root,
    pub(crate) store: Store,
    pub(crate) master: SealingKey,
    pub(crate) gateways: BTreeMap<GatewayId, KnownGateway>,
    pub(crate) hub: Hub,
    pub(crate) default_expiry: Duration,
    pub(crate) run_limit: Duration,
    pub(crate) nudges: mpsc::Sender<Nudge>,
    pub(crate) unreadable: Mutex<Unreadable>,
    pub(crate) clock: Clock,
}

/// What somebody wants done.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) id: Option<CommandId>,
    pub(crate) agent: GatewayId,
    pub(crate) command: String,
    pub(crate) params: Value,
    pub(crate) expires: Expires,
    pub(crate) requester: Requester,
}

/// When a wish is too late.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expires {
    ByDefault,
    AfterMs(u64),
    At(Timestamp),
}

/// The time, where drivers need it.
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

impl Service {
    /// The name that the configuration gives a gateway.
    pub(crate) fn name_of(&self, gateway: &GatewayId) -> Option<&str> {
        self.gateways.get(gateway)?.name.as_deref()
    }

    /// Frames that couldn't be read.
    pub(crate) fn unreadable(&self) -> MutexGuard<'_, Unreadable> {
        // Nothing panics while it holds it; counts are whole at any moment.
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gateway as it is shown: what is stored of it, where it ever came, and what is wrong with it now.
    pub(crate) fn shown(&self, gateway: &GatewayId, row: Option<&Agent>) -> Value {
        let problem = self.unreadable().problem(gateway).map_or(Value::Null, Problem::json);
        let name = self.name_of(gateway);
        match row {
            Some(row) => view::agent(row, name, problem),
            None => view::expected_agent(gateway, name, problem),
        }
    }

    /// Records a command and lets it go down. A repeat of an id is the command of that id.
    pub(crate) async fn command(&self, wish: Wish) -> Result<(Command, bool), ErrorBody> {
        let command = self.prepare(wish)?;
        let (command, new) = self.store.create_command(command).await.map_err(store_error)?;
        if new {
            tracing::info!(gateway = %command.agent, command = %command.id, name = command.command,
                "command recorded");
            self.nudge(command.clone()).await;
        }
        Ok((command, new))
    }

    /// Ends a command that waits, or asks its gateway to end it.
    pub(crate) async fn cancel(
        &self,
        id: &CommandId,
        requester: Requester,
    ) -> Result<Command, ErrorBody> {
        let change = Change::Cancel(self.clock.wall());
        let changed = self.store.change_command(id.clone(), change).await.map_err(store_error)?;
        let Some(command) = changed else {
            return self.store.command(id).map_err(store_error)?.ok_or_else(|| unknown_command(id));
        };
        self.nudge(command.clone()).await;
        if command.cancel_requested && !command.status.is_final() {
            self.command(Wish {
                id: None,
                agent: command.agent.clone(),
                command: CommandName::Cancel.as_str().to_owned(),
                params: serde_json::json!({"commandId": id}),
                expires: Expires::ByDefault,
                requester,
            })
            .await?;
        }
        Ok(command)
    }

    async fn nudge(&self, command: Command) {
        if self.nudges.send(Nudge::Command(Box::new(command))).await.is_err() {
            tracing::warn!("a command was recorded while the bridge stops; it goes on next time");
        }
    }

    fn prepare(&self, wish: Wish) -> Result<Command, ErrorBody> {
        if !self.gateways.contains_key(&wish.agent) {
            return Err(unknown_agent(&wish.agent));
        }
        let Some(name) = CommandName::parse(&wish.command) else {
            let known: Vec<&str> = CommandName::ALL.iter().map(|name| name.as_str()).collect();
            let text = format!("command {:?} is not known", cut(&wish.command));
            return Err(ErrorBody::new(ErrorCode::Validation, text)
                .with("field", "command")
                .with("reason", format!("one of {}", known.join(", "))));
        };
        let mut params = match wish.params {
            Value::Null => Map::new(),
            Value::Object(params) => params,
            _ => return Err(invalid("params", "params must be an object")),
        };
        if serde_json::to_vec(&params).map_or(usize::MAX, |json| json.len()) > MAX_PARAMS_BYTES {
            return Err(invalid("params", "params are larger than 48 KiB"));
        }
        let id = match wish.id {
            Some(id) => id,
            None => new_command_id()?,
        };
        let sealed_params = self.seal_params(&id, &wish.requester, &mut params)?;
        let now = self.clock.wall();
        Ok(Command {
            id,
            agent: wish.agent,
            command: name.as_str().to_owned(),
            params: Value::Object(params),
            sealed_params,
            status: CommandStatus::Pending,
            requester: wish.requester,
            created_at: now,
            expires_at: self.expiry(wish.expires, now)?,
            sent_at: None,
            received_at: None,
            started_at: None,
            finished_at: None,
            result: None,
            sealed_result: None,
            error: None,
            cancel_requested: false,
        })
    }

    /// Takes templates out of the parameters: at rest and on the way down they are sealed.
    fn seal_params(
        &self,
        id: &CommandId,
        requester: &Requester,
        params: &mut Map<String, Value>,
    ) -> Result<Option<String>, ErrorBody> {
        let mut secret = Map::new();
        for field in TEMPLATE_FIELDS {
            if let Some(value) = params.remove(field).filter(|value| !value.is_null()) {
                secret.insert("template".into(), value);
            }
        }
        if secret.is_empty() {
            return Ok(None);
        }
        match requester {
            Requester::ApiKey { .. } => {}
            Requester::Mqtt { .. } => {
                return Err(invalid("params.template", "a template may not travel on a topic"));
            }
        }
        view::seal_json(&self.master, COMMAND_PARAMS, id.as_str(), &secret)
            .map(Some)
            .ok_or_else(|| ErrorBody::new(ErrorCode::InternalError, "the template can't be sealed"))
    }

    fn expiry(&self, expires: Expires, now: Timestamp) -> Result<Timestamp, ErrorBody> {
        let latest = now.plus(Duration::from_millis(LONGEST_EXPIRY_MS));
        let at = match expires {
            Expires::ByDefault => now.plus(self.default_expiry),
            Expires::AfterMs(0) => return Err(invalid("ttlMs", "it must be above 0")),
            Expires::AfterMs(ms) => now.plus(Duration::from_millis(ms)),
            Expires::At(at) => at,
        };
        if at > latest {
            return Err(invalid("expiresAt", "a command may wait for 24 hours at most"));
        }
        if at <= now {
            return Err(ErrorBody::new(ErrorCode::Expired, "the command's time has passed"));
        }
        Ok(at)
    }
}

pub(crate) fn invalid(field: &str, reason: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Validation, format!("{field}: {reason}"))
        .with("field", field)
        .with("reason", reason)
}

pub(crate) fn unknown_agent(id: &GatewayId) -> ErrorBody {
    ErrorBody::new(ErrorCode::RecordNotFound, format!("agent {id} not found"))
        .with("table", "agents")
        .with("agentId", id.as_str())
}

pub(crate) fn unknown_command(id: &CommandId) -> ErrorBody {
    ErrorBody::new(ErrorCode::RecordNotFound, format!("command {id} not found"))
        .with("table", "commands")
        .with("commandId", id.as_str())
}

/// Logs a failure of the store where it is met, but for what was said when an outage began.
pub(crate) fn told(error: &StoreError, what: &str) {
    if error.is_outage() {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::error!(%error, "{what}");
    }
}

/// What a caller learns of a failure of the store; the rest is logged.
pub(crate) fn store_error(error: StoreError) -> ErrorBody {
    told(&error, "the store failed a request");
    match error {
        StoreError::Full => {
            ErrorBody::new(ErrorCode::ServiceUnavailable, "the store takes nothing: disk full")
                .with("reason", "disk full")
                .with("retryAfter", 5)
        }
        StoreError::Closed | StoreError::Reopening | StoreError::GivenUp => {
            ErrorBody::new(ErrorCode::ServiceUnavailable, "the store takes nothing at the moment")
                .with("reason", "store")
                .with("retryAfter", 5)
        }
        StoreError::Corrupt(_) | StoreError::Database(_) => {
            ErrorBody::new(ErrorCode::DbQueryFailed, "the store can't answer this")
        }
    }
}

fn new_command_id() -> Result<CommandId, ErrorBody> {
    let internal = || ErrorBody::new(ErrorCode::InternalError, "no command id could be made");
    let bytes = secrets::random::<16>().map_err(|_| internal())?;
    CommandId::new(format!("cmd-{}", hex::encode(bytes))).map_err(|_| internal())
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The service, shared.
pub(crate) type Shared = Arc<Service>;
