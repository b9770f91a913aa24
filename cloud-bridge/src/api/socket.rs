//! The dashboards' WebSocket.
//!
//! | state | takes | leaves by |
//! |---|---|---|
//! | unknown | `auth`, `ping` | a good key; 10 s or three bad keys: 1008 |
//! | known | `subscribe`, `unsubscribe`, `ping`, `auth` | 60 s of silence: 4408; too slow: 1013; stop: 1001 |
//!
//! Too slow: a message is not taken within 20 s. A socket that is merely behind reads the events it
//! missed from the store, in their order, and goes on from there.
//!
//! A known socket gets what it subscribed to, and the results of its own key's commands without
//! asking.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout},
};
use topics::{ErrorCode, Event, GatewayId, ReaderId};

use super::{Api, auth::key_in, error::ApiError, page};
use crate::{
    command::Requester,
    hub::{Listening, Told},
    service::{invalid, now},
    store::StoreError,
    view,
};

const AUTH_DEADLINE: Duration = Duration::from_secs(10);
const AUTH_TRIES: u32 = 3;
const PING_EVERY: Duration = Duration::from_secs(30);
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long one message may take to be handed to the network.
const SEND_LIMIT: Duration = Duration::from_secs(20);
/// The largest message from a dashboard.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Subscriptions of one socket.
const MAX_SUBSCRIPTIONS: usize = 256;

/// Events read at a time when a socket is behind.
const CATCH_UP_EVENTS: usize = 256;

const GOING_AWAY: u16 = 1001;
const INTERNAL: u16 = 1011;
const POLICY: u16 = 1008;
const TRY_LATER: u16 = 1013;
const SILENT: u16 = 4408;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// A credential in the address. It must never reach a log.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Credential {
    api_key: Option<String>,
    token: Option<String>,
}

/// `GET /`: a WebSocket, or the page.
pub(crate) async fn or_page(
    state: State<Api>,
    credential: Query<Credential>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    if !wants_socket(&headers) {
        return page::index();
    }
    only(state, credential, headers, upgrade).await
}

/// `GET /ws`
pub(crate) async fn only(
    State(api): State<Api>,
    Query(credential): Query<Credential>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let status = axum::http::StatusCode::UPGRADE_REQUIRED;
        return super::plain(status, "UPGRADE_REQUIRED", "this is a WebSocket").into_response();
    };
    let given = key_in(&headers).map(str::to_owned).or(credential.api_key).or(credential.token);
    let key = match given {
        None => None,
        Some(given) => match api.keys.find(&given) {
            Some(name) => Some(name.to_owned()),
            None => return ApiError::key("unknown").into_response(),
        },
    };
    upgrade.max_message_size(MAX_MESSAGE_BYTES).on_upgrade(async move |socket| {
        let tracker = api.sockets.clone();
        tracker.track_future(Dashboard::new(api, socket).run(key)).await;
    })
}

/// Other upgrades (one documented client offers h2c) are ordinary requests.
fn wants_socket(headers: &HeaderMap) -> bool {
    headers
        .get("upgrade")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// What somebody follows; none stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subscription {
    agent: Option<GatewayId>,
    device: Option<ReaderId>,
}

impl Subscription {
    fn meets(&self, agent: &GatewayId, device: Option<&ReaderId>) -> bool {
        self.agent.as_ref().is_none_or(|wanted| wanted == agent)
            && self.device.as_ref().is_none_or(|wanted| Some(wanted) == device)
    }
}

struct Dashboard {
    api: Api,
    socket: WebSocket,
    key: Option<String>,
    failures: u32,
    subscriptions: Vec<Subscription>,
    told: Option<Listening>,
    /// The place in the store of the last event that was looked at.
    last_index: u64,
    heard: Instant,
}

/// Why a socket ends: a close code and a text, or nothing to say.
type End = Option<(u16, &'static str)>;

impl Dashboard {
    fn new(api: Api, socket: WebSocket) -> Self {
        Self {
            api,
            socket,
            key: None,
            failures: 0,
            subscriptions: Vec::new(),
            told: None,
            last_index: 0,
            heard: Instant::now(),
        }
    }

    async fn run(mut self, key: Option<String>) {
        if let Err(Some((code, reason))) = self.converse(key).await {
            tracing::debug!(code, reason, "a dashboard is closed");
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            // Whoever is gone doesn't need a goodbye.
            let _ = timeout(SEND_LIMIT, self.socket.send(close)).await;
        }
    }

    async fn converse(&mut self, key: Option<String>) -> Result<(), End> {
        if let Some(key) = key {
            self.welcome(key).await?;
        }
        let auth_deadline = Instant::now() + AUTH_DEADLINE;
        let mut ping = tokio::time::interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        let stop = self.api.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Err(Some((GOING_AWAY, "the service stops"))),
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => self.received(message).await?,
                    Some(Err(_)) | None => return Err(None),
                },
                next = next(&mut self.told) => match next {
                    Next::Told(told) => self.pass_on(&told).await?,
                    Next::MissedEvents => self.catch_up().await?,
                    Next::MissedOther(missed) => {
                        tracing::warn!(missed, "a dashboard is too slow; it is closed");
                        return Err(Some((TRY_LATER, "too slow")));
                    }
                    Next::Closed => return Err(Some((GOING_AWAY, "the service stops"))),
                },
                _ = ping.tick() => self.ping().await?,
                () = tokio::time::sleep_until(auth_deadline), if self.key.is_none() => {
                    self.refuse("no credential within 10 s").await?;
                    return Err(Some((POLICY, "not authenticated")));
                }
            }
        }
    }

    async fn received(&mut self, message: Message) -> Result<(), End> {
        self.heard = Instant::now();
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return self.complain("a message is text", None).await,
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(_) => return Err(None),
        };
        let Ok(Value::Object(message)) = serde_json::from_str::<Value>(&text) else {
            return self.complain("a message is a JSON object", None).await;
        };
        let field = |name: &str| message.get(name).and_then(Value::as_str);
        let request = field("requestId");
        match (field("type"), &self.key) {
            (Some("auth"), _) => self.auth(field("apiKey").or_else(|| field("token"))).await,
            (Some("ping"), _) => self.reply("pong", json!({}), request).await,
            (Some("pong"), _) => Ok(()),
            (_, None) => {
                let error = json!({"error": "not authenticated", "message": "not authenticated",
                    "code": ErrorCode::InvalidApiKey.number()});
                self.reply("error", error, request).await
            }
            (Some("subscribe"), Some(_)) => {
                self.subscribe(field("agentId"), field("deviceId"), request).await
            }
            (Some("unsubscribe"), Some(_)) => {
                self.unsubscribe(field("agentId"), field("deviceId"), request).await
            }
            (Some(_), Some(_)) => self.complain("this type of message is not known", request).await,
            (None, Some(_)) => self.complain("a message has a type", request).await,
        }
    }

    async fn auth(&mut self, key: Option<&str>) -> Result<(), End> {
        match key.and_then(|key| self.api.keys.find(key)).map(str::to_owned) {
            Some(name) => self.welcome(name).await,
            None => {
                self.failures += 1;
                self.refuse("the API key is missing or not valid").await?;
                if self.failures >= AUTH_TRIES {
                    return Err(Some((POLICY, "not authenticated")));
                }
                Ok(())
            }
        }
    }

    async fn welcome(&mut self, key: String) -> Result<(), End> {
        if self.told.is_none() {
            // Listening first: an event committed in between is in the store and in the queue, and is
            // passed over once.
            self.told = Some(self.api.service.hub.listen());
            self.last_index = self.api.service.store.last_index().map_err(failed)?;
        }
        self.key = Some(key);
        let fields = json!({
            "message": "authenticated",
            "permissions": ["agents:read", "commands:write", "events:read", "templates:write"],
        });
        self.reply("auth:success", fields, None).await
    }

    async fn refuse(&mut self, message: &str) -> Result<(), End> {
        let code = ErrorCode::InvalidApiKey;
        let fields = json!({"message": message, "code": code.number(), "name": code.name()});
        self.reply("auth:error", fields, None).await
    }

    async fn subscribe(
        &mut self,
        agent: Option<&str>,
        device: Option<&str>,
        request: Option<&str>,
    ) -> Result<(), End> {
        let mut fields = json!({"agentId": agent, "deviceId": device});
        let wanted = subscription(agent, device);
        let known = wanted.as_ref().is_ok_and(|wanted| {
            wanted.agent.as_ref().is_none_or(|id| self.api.service.gateways.contains_key(id))
        });
        match wanted {
            Ok(wanted) if known && self.subscriptions.len() < MAX_SUBSCRIPTIONS => {
                if !self.subscriptions.contains(&wanted) {
                    self.subscriptions.push(wanted);
                }
                fields["message"] = "subscribed".into();
                self.reply("subscribe:success", fields, request).await
            }
            _ => {
                let code = ErrorCode::RecordNotFound;
                fields["message"] = "no such agent or device, or too many subscriptions".into();
                fields["code"] = code.number().into();
                fields["name"] = code.name().into();
                self.reply("subscribe:error", fields, request).await
            }
        }
    }

    async fn unsubscribe(
        &mut self,
        agent: Option<&str>,
        device: Option<&str>,
        request: Option<&str>,
    ) -> Result<(), End> {
        if let Ok(gone) = subscription(agent, device) {
            self.subscriptions.retain(|kept| *kept != gone);
        }
        let fields = json!({"agentId": agent, "deviceId": device, "message": "unsubscribed"});
        self.reply("unsubscribe:success", fields, request).await
    }

    /// Passes on what the queue no longer had, up to what the store has now.
    async fn catch_up(&mut self) -> Result<(), End> {
        loop {
            let store = &self.api.service.store;
            let page = store.events(self.last_index, None, CATCH_UP_EVENTS).map_err(failed)?;
            if page.is_empty() {
                return Ok(());
            }
            for stored in page {
                let told = match serde_json::from_str::<Event>(&stored.event.json) {
                    Ok(event) => Told::Event {
                        index: stored.index,
                        agent: stored.event.gateway.clone(),
                        device: event.body.reader().cloned(),
                        message: view::broadcast(&stored.event, &event),
                    },
                    Err(_) => {
                        self.last_index = stored.index;
                        continue;
                    }
                };
                self.pass_on(&told).await?;
            }
        }
    }

    async fn pass_on(&mut self, told: &Told) -> Result<(), End> {
        let Some(key) = &self.key else { return Ok(()) };
        if let Told::Event { index, .. } = told {
            if *index <= self.last_index {
                return Ok(());
            }
            self.last_index = *index;
        }
        let follows = |agent: &GatewayId, device: Option<&ReaderId>| {
            self.subscriptions.iter().any(|wanted| wanted.meets(agent, device))
        };
        let message = match told {
            Told::Event { agent, device, message, .. } if follows(agent, device.as_ref()) => {
                message.clone()
            }
            Told::Agent { agent, message } if follows(agent, None) => message.clone(),
            Told::Ended(command) => {
                let own = match &command.requester {
                    Requester::ApiKey { name } => name == key,
                    Requester::Mqtt { .. } => false,
                };
                if !own && !follows(&command.agent, None) {
                    return Ok(());
                }
                view::command_ended(command, key, &self.api.service.master, now()).to_string()
            }
            Told::Event { .. } | Told::Agent { .. } => return Ok(()),
        };
        self.send(Message::text(message)).await
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() >= SILENCE_LIMIT {
            return Err(Some((SILENT, "no sign of life for 60 s")));
        }
        self.reply("ping", json!({}), None).await?;
        self.send(Message::Ping(axum::body::Bytes::new())).await
    }

    async fn complain(&mut self, reason: &str, request: Option<&str>) -> Result<(), End> {
        let error = invalid("message", reason);
        let fields = json!({"error": error.message, "message": error.message, "code": error.code,
            "details": error.details});
        self.reply("error", fields, request).await
    }

    async fn reply(
        &mut self,
        kind: &str,
        mut fields: Value,
        request: Option<&str>,
    ) -> Result<(), End> {
        fields["type"] = kind.into();
        fields["event"] = kind.into();
        fields["timestamp"] = json!(now());
        if let Some(request) = request {
            fields["requestId"] = request.into();
        }
        self.send(Message::text(fields.to_string())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(SEND_LIMIT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(None),
        }
    }
}

enum Next {
    Told(Arc<Told>),
    MissedEvents,
    MissedOther(u64),
    Closed,
}

/// The next thing told, events first; for ever none before there is a key.
async fn next(told: &mut Option<Listening>) -> Next {
    let Some(Listening { events, other }) = told else { return std::future::pending().await };
    tokio::select! {
        biased;
        event = events.recv() => match event {
            Ok(told) => Next::Told(told),
            Err(RecvError::Lagged(_)) => Next::MissedEvents,
            Err(RecvError::Closed) => Next::Closed,
        },
        message = other.recv() => match message {
            Ok(told) => Next::Told(told),
            Err(RecvError::Lagged(missed)) => Next::MissedOther(missed),
            Err(RecvError::Closed) => Next::Closed,
        },
    }
}

fn failed(error: StoreError) -> End {
    tracing::error!(%error, "the store can't be read for a dashboard");
    Some((INTERNAL, "internal error"))
}

fn subscription(
    agent: Option<&str>,
    device: Option<&str>,
) -> Result<Subscription, topics::IdError> {
    let one = |text: &&str| *text != "*" && !text.is_empty();
    Ok(Subscription {
        agent: agent.filter(one).map(GatewayId::new).transpose()?,
        device: device.filter(one).map(ReaderId::new).transpose()?,
    })
}
