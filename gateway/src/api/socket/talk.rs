//! What the messages of a socket mean: pure, so that every order of messages can be tried.
//!
//! ```text
//!              auth ok                    auth ok (another key)
//!  Waiting ───────────────▶ SignedIn ◀──┐
//!   │  ▲ auth error (1, 2)    │  └──────┘
//!   └──┘ 3rd error, deadline: closed 1008        silence: closed 4408
//! ```
//!
//! | who | gets |
//! |---|---|
//! | not signed in | nothing |
//! | a key | `device:connected`, `device:disconnected`, `service:status`, `journal:gap`; every event of operations that the key started, on whatever socket, with the template where there is one |
//! | subscribed to a reader | also every event of that reader; `userId` only where no other credential started it |
//!
//! Without the permission `fingerprint:identify`, nobody's `userId` but of the key's own operations.

use std::{collections::HashSet, time::Duration};

use axum::extract::ws::Utf8Bytes;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use topics::{ErrorBody, ErrorCode, EventType, ReaderId, Timestamp};

use super::Timing;
use crate::{
    api::{
        auth::{Caller, Credential, Keys},
        error::invalid,
        fields::Fields,
        fingerprint::WAIT_MS,
    },
    config::Permission,
    journal::{Committed, Owner},
    operation::Request,
};

/// Failures to sign in after which the socket is closed.
const MAX_AUTH_FAILURES: u8 = 3;
/// The longest `requestId` that comes back.
const MAX_REQUEST_ID_BYTES: usize = 100;

/// What goes back to the client.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Message(Value),
    /// The last one: not authenticated.
    Close(&'static str),
}

/// What a client's message asks of the driver.
#[derive(Debug)]
pub(super) enum Ask {
    Answer(Answer),
    Start(Caller, Start),
    Stop { caller: Caller, scan_id: String, request_id: Option<String> },
}

/// An operation that a client asks for.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) permission: Permission,
    pub(super) device: Option<String>,
    pub(super) request: Request,
    pub(super) request_id: Option<String>,
}

#[derive(Debug)]
enum Sign {
    Waiting { until: Instant },
    In(Caller),
}

/// The readers that a client wants to hear of.
#[derive(Debug, Default)]
struct Subscriptions {
    all: bool,
    readers: HashSet<ReaderId>,
}

/// One socket's conversation.
#[derive(Debug)]
pub(super) struct Talk {
    sign: Sign,
    failures: u8,
    heard: Instant,
    silence: Duration,
    subscriptions: Subscriptions,
}

/// Finds a reader by its id or serial number.
type FindReader<'a> = &'a dyn Fn(&str) -> Result<ReaderId, ErrorBody>;

impl Talk {
    pub(super) fn new(now: Instant, timing: Timing) -> Self {
        Self {
            sign: Sign::Waiting { until: now + timing.auth },
            failures: 0,
            heard: now,
            silence: timing.silence,
            subscriptions: Subscriptions::default(),
        }
    }

    /// When the socket ends unless something happens before.
    pub(super) fn deadline(&self) -> Instant {
        match self.sign {
            Sign::Waiting { until } => until,
            Sign::In(_) => self.heard + self.silence,
        }
    }

    pub(super) fn is_signed_in(&self) -> bool {
        matches!(self.sign, Sign::In(_))
    }

    /// A sign of life.
    pub(super) fn alive(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Takes the outcome of a sign-in.
    pub(super) fn signed_in(
        &mut self,
        shown: Result<Caller, ErrorBody>,
        request_id: Option<String>,
        now: Timestamp,
    ) -> Vec<Answer> {
        match shown {
            Ok(caller) => {
                let success = message("auth:success", now, request_id)
                    .with("message", "Authentication successful")
                    .with("permissions", caller.permission_names());
                self.sign = Sign::In(caller);
                vec![success.done()]
            }
            Err(error) => {
                self.failures += 1;
                let refusal = message("auth:error", now, request_id)
                    .with("message", error.message)
                    .with("code", error.code)
                    .with("name", error.name);
                let mut answers = vec![refusal.done()];
                if self.failures >= MAX_AUTH_FAILURES {
                    answers.push(Answer::Close("authentication failed"));
                }
                answers
            }
        }
    }

    /// Takes a message of the client.
    pub(super) fn text(
        &mut self,
        text: &str,
        keys: &Keys,
        reader: FindReader<'_>,
        now: Timestamp,
    ) -> Vec<Ask> {
        let fields = match Fields::parse(text.as_bytes()) {
            Ok(fields) => fields,
            Err(error) => return answered(failure(&error, None, now)),
        };
        let request_id = fields.text("requestId").ok().flatten();
        let request_id =
            request_id.filter(|id| id.len() <= MAX_REQUEST_ID_BYTES).map(str::to_owned);
        let kind = match fields.required_text("type") {
            Ok(kind) => kind,
            Err(error) => return answered(failure(&error, request_id, now)),
        };
        match kind {
            "auth" => return self.auth(&fields, keys, request_id, now),
            "ping" => return answered(message("pong", now, request_id).done()),
            "pong" => return Vec::new(),
            _ => {}
        }
        let Sign::In(caller) = &self.sign else {
            let error = ErrorBody::new(ErrorCode::InvalidApiKey, "Authenticate first");
            return answered(failure(&error, request_id, now));
        };
        let caller = caller.clone();
        match kind {
            "subscribe" => answered(self.subscribe(&fields, reader, request_id, now)),
            "unsubscribe" => answered(self.unsubscribe(&fields, reader, request_id, now)),
            "scan:stop" => match fields.required_text("scanId") {
                Ok(scan_id) => vec![Ask::Stop { caller, scan_id: scan_id.to_owned(), request_id }],
                Err(error) => answered(scan_error(&error, request_id, None, now)),
            },
            "scan:start" | "enroll" | "verify" | "identify" => {
                match start(kind, &fields, &request_id, reader) {
                    Ok(start) => vec![Ask::Start(caller, start)],
                    Err(error) => answered(scan_error(&error, request_id, None, now)),
                }
            }
            _ => {
                let error = invalid("type", "is not known");
                answered(failure(&error, request_id, now))
            }
        }
    }

    fn auth(
        &mut self,
        fields: &Fields,
        keys: &Keys,
        request_id: Option<String>,
        now: Timestamp,
    ) -> Vec<Ask> {
        let text = |name| fields.text(name).ok().flatten();
        let shown =
            text("apiKey").map(Credential::ApiKey).or(text("token").map(Credential::Bearer));
        let outcome = keys.caller(shown).map_err(|error| error.into_body());
        self.signed_in(outcome, request_id, now).into_iter().map(Ask::Answer).collect()
    }

    fn subscribe(
        &mut self,
        fields: &Fields,
        reader: FindReader<'_>,
        request_id: Option<String>,
        now: Timestamp,
    ) -> Answer {
        let (device, found) = match wanted(fields, reader) {
            Ok(found) => found,
            Err((device, error)) => {
                return message("subscribe:error", now, request_id)
                    .with("deviceId", device)
                    .with("message", error.message)
                    .with("code", error.code)
                    .with("name", error.name)
                    .done();
            }
        };
        match found {
            Some(id) => {
                self.subscriptions.readers.insert(id);
            }
            None => self.subscriptions.all = true,
        }
        message("subscribe:success", now, request_id)
            .with("message", format!("Subscribed to {device}"))
            .with("deviceId", device)
            .done()
    }

    fn unsubscribe(
        &mut self,
        fields: &Fields,
        reader: FindReader<'_>,
        request_id: Option<String>,
        now: Timestamp,
    ) -> Answer {
        // What was never subscribed is unsubscribed as well.
        let device = match wanted(fields, reader) {
            Ok((device, Some(id))) => {
                self.subscriptions.readers.remove(&id);
                device
            }
            Ok((device, None)) => {
                self.subscriptions = Subscriptions::default();
                device
            }
            Err((device, _)) => device,
        };
        message("unsubscribe:success", now, request_id)
            .with("message", format!("Unsubscribed from {device}"))
            .with("deviceId", device)
            .done()
    }

    /// The event as this client may see it, or nothing.
    pub(super) fn admit(&self, committed: &Committed) -> Option<Utf8Bytes> {
        let Sign::In(caller) = &self.sign else { return None };
        let owner = committed.attachment.owner.as_ref();
        let json = committed.record.json();
        let bytes = if owner == Some(&caller.owner()) {
            with_extra(json, &committed.attachment.extra)
        } else {
            let subscribed = committed.reader.as_ref().is_some_and(|id| {
                self.subscriptions.all || self.subscriptions.readers.contains(id)
            });
            if !subscribed && !is_for_everybody(committed.event) {
                return None;
            }
            let foreign = owner.is_some_and(|owner| match owner {
                Owner::ApiKey(_) | Owner::Admin | Owner::Command(_) => true,
            });
            if foreign || !caller.may(Permission::FingerprintIdentify) {
                without_user(json)
            } else {
                json.to_vec()
            }
        };
        Utf8Bytes::try_from(axum::body::Bytes::from(bytes)).ok()
    }
}

/// What every signed-in client hears, whatever it subscribed to.
fn is_for_everybody(event: EventType) -> bool {
    match event {
        EventType::DeviceConnected
        | EventType::DeviceDisconnected
        | EventType::ServiceStatus
        | EventType::JournalGap => true,
        EventType::DeviceStatus
        | EventType::FingerprintDetected
        | EventType::FingerprintEnrolled
        | EventType::ScanStarted
        | EventType::ScanProgress
        | EventType::ScanComplete
        | EventType::ScanError
        | EventType::ScanTimeout
        | EventType::ScanStopped
        | EventType::VerificationResult
        | EventType::IdentificationSearching
        | EventType::IdentificationResult
        | EventType::AccessGranted
        | EventType::AccessDenied
        | EventType::CommandResult => false,
    }
}

/// The event with what only its owner gets, behind all else.
fn with_extra(json: &[u8], extra: &Map<String, Value>) -> Vec<u8> {
    if extra.is_empty() {
        return json.to_vec();
    }
    let extra = Value::Object(extra.clone()).to_string();
    let mut bytes = Vec::with_capacity(json.len() + extra.len());
    bytes.extend_from_slice(json.strip_suffix(b"}").unwrap_or(json));
    bytes.push(b',');
    bytes.extend_from_slice(&extra.as_bytes()[1..]);
    bytes
}

/// The event without its user.
pub(in crate::api) fn without_user(json: &[u8]) -> Vec<u8> {
    let Ok(mut event) = serde_json::from_slice::<Map<String, Value>>(json) else {
        return json.to_vec();
    };
    match event.remove("userId") {
        Some(_) => Value::Object(event).to_string().into_bytes(),
        None => json.to_vec(),
    }
}

/// The reader that a subscription names; none for all of them.
fn wanted(
    fields: &Fields,
    reader: FindReader<'_>,
) -> Result<(String, Option<ReaderId>), (String, ErrorBody)> {
    match fields.device() {
        Ok(None | Some("*")) => Ok(("*".to_owned(), None)),
        Ok(Some(device)) => match reader(device) {
            Ok(id) => Ok((device.to_owned(), Some(id))),
            Err(error) => Err((device.to_owned(), error)),
        },
        Err(error) => Err((String::new(), error)),
    }
}

fn start(
    kind: &str,
    fields: &Fields,
    request_id: &Option<String>,
    reader: FindReader<'_>,
) -> Result<Start, ErrorBody> {
    let device = fields.device()?;
    let (permission, request) = match kind {
        "enroll" => {
            let request = Request::Enroll { user_id: fields.user()?, metadata: fields.metadata()? };
            (Permission::FingerprintEnroll, request)
        }
        "verify" => {
            let (user_id, text) = (fields.user()?, fields.required_template()?);
            // A reader that is named is checked before the template is looked at.
            device.map(reader).transpose()?;
            let request = Request::Verify { user_id, template: Some(text.decode()?) };
            (Permission::FingerprintVerify, request)
        }
        "identify" => {
            let template = fields.template()?.map(|text| text.decode()).transpose()?;
            let request = Request::Identify { template, user_ids: fields.users()? };
            (Permission::FingerprintIdentify, request)
        }
        _ => {
            let options = fields.object("options")?;
            let timeout = options.number("timeout", WAIT_MS.0, WAIT_MS.1)?;
            let quality_threshold = options.number("qualityThreshold", 0, 100)?;
            let request = Request::Scan {
                timeout: timeout.map(Duration::from_millis),
                quality_threshold: quality_threshold.map(|least| least as u8),
            };
            (Permission::FingerprintScan, request)
        }
    };
    Ok(Start {
        permission,
        device: device.map(str::to_owned),
        request,
        request_id: request_id.clone(),
    })
}

fn answered(answer: Answer) -> Vec<Ask> {
    vec![Ask::Answer(answer)]
}

/// A message under construction: its type under both names that documented clients read.
struct Draft(Map<String, Value>);

fn message(kind: &str, now: Timestamp, request_id: Option<String>) -> Draft {
    let draft =
        Draft(Map::new()).with("type", kind).with("event", kind).with("timestamp", json!(now));
    match request_id {
        Some(id) => draft.with("requestId", id),
        None => draft,
    }
}

impl Draft {
    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    fn done(self) -> Answer {
        Answer::Message(Value::Object(self.0))
    }
}

/// A general failure.
fn failure(error: &ErrorBody, request_id: Option<String>, now: Timestamp) -> Answer {
    let draft = message("error", now, request_id)
        .with("error", error.message.clone())
        .with("message", error.message.clone())
        .with("code", error.code)
        .with("name", error.name.clone());
    if error.details.is_empty() {
        draft.done()
    } else {
        draft.with("details", error.details.clone()).done()
    }
}

/// An operation that did not begin, or could not be stopped.
pub(super) fn scan_error(
    error: &ErrorBody,
    request_id: Option<String>,
    device: Option<String>,
    now: Timestamp,
) -> Answer {
    let mut draft = message("scan:error", now, request_id)
        .with("error", error.message.clone())
        .with("message", error.message.clone())
        .with("code", error.code)
        .with("name", error.name.clone())
        .with("retryable", error.retryable);
    if let Some(device) = device {
        draft = draft.with("deviceId", device);
    }
    if !error.details.is_empty() {
        draft = draft.with("details", error.details.clone());
    }
    draft.done()
}

/// The server's ping.
pub(super) fn ping(now: Timestamp) -> Answer {
    message("ping", now, None).done()
}

/// Nobody signed in in time.
pub(super) fn auth_late(now: Timestamp) -> Answer {
    message("auth:error", now, None)
        .with("message", "No valid credential in time")
        .with("code", ErrorCode::InvalidApiKey.number())
        .with("name", ErrorCode::InvalidApiKey.name())
        .done()
}

#[cfg(test)]
mod tests;
