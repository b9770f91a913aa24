//! Health, gateways and commands.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use topics::{CommandId, ErrorBody, ErrorCode, GatewayId, Timestamp};

use super::{
    Api,
    auth::Caller,
    error::{ApiError, Body},
};
use crate::{
    command::{Command, Requester},
    service::{Expires, Wish, invalid, unknown_agent, unknown_command},
    store::StoreError,
    view,
};

/// Commands listed when nobody says how many, and at most.
const LIST_DEFAULT: usize = 50;
const LIST_MAX: usize = 500;

/// `GET /health`: whether the store takes what it is given and can be read, and whether the broker is there.
pub(crate) async fn health(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let store = &api.service.store;
    let outage = store.health().outage.or_else(|| store.last_index().err());
    let broker = api.connections.both();
    let word = |good: bool| if good { "ok" } else { "failed" };
    let (status, text) = if outage.is_none() && broker {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "degraded")
    };
    let mut body = json!({
        "status": text,
        "name": api.service.name,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": api.started.elapsed().as_secs(),
        "store": word(outage.is_none()),
        "broker": word(broker),
    });
    match outage {
        None => {}
        Some(StoreError::Full) => body["reason"] = "disk full".into(),
        // What else it may say is not for everybody.
        Some(_) => body["reason"] = "store".into(),
    }
    (status, Json(body))
}

/// `GET /api/agents`
pub(crate) async fn agents(State(api): State<Api>, _: Caller) -> Result<Json<Value>, ApiError> {
    let service = &api.service;
    let known = service.store.agents()?;
    let mut list: Vec<Value> = known
        .iter()
        .filter(|agent| service.gateways.contains_key(&agent.id))
        .map(|agent| service.shown(&agent.id, Some(agent)))
        .collect();
    for id in service.gateways.keys() {
        if known.iter().all(|agent| agent.id != *id) {
            list.push(service.shown(id, None));
        }
    }
    Ok(Json(Value::Array(list)))
}

/// `GET /api/agents/{id}`
pub(crate) async fn agent(
    State(api): State<Api>,
    _: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = GatewayId::new(id)?;
    let service = &api.service;
    if !service.gateways.contains_key(&id) {
        return Err(unknown_agent(&id).into());
    }
    let agent = service.store.agent(&id)?;
    let mut shown = service.shown(&id, agent.as_ref());
    if agent.is_none() {
        return Ok(Json(shown));
    }
    let journals = service.store.all_cursors(&id)?.into_iter().map(|(store, cursor)| {
        json!({
            "store": store,
            "lane": cursor.lane,
            "watermark": cursor.watermark,
            "ranges": cursor.ack().ranges,
            "stored": cursor.stored,
            "setAside": cursor.set_aside,
            "lost": cursor.lost,
        })
    });
    shown["journals"] = journals.collect();
    Ok(Json(shown))
}

/// The body of a new command. Fields beside the known ones are its parameters, where `params` is
/// missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewCommand {
    #[serde(alias = "commandId")]
    id: Option<CommandId>,
    agent_id: Option<GatewayId>,
    command: Option<String>,
    params: Option<Value>,
    /// Milliseconds; `ttlMs` and `timeout` are the same.
    ttl_ms: Option<u64>,
    timeout: Option<u64>,
    expires_at: Option<Timestamp>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// `POST /api/agents/{id}/commands`
pub(crate) async fn create_for_agent(
    State(api): State<Api>,
    Caller(name): Caller,
    Path(id): Path<String>,
    Body(body): Body<NewCommand>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let agent = GatewayId::new(id)?;
    new_command(&api, name, agent, body).await
}

/// `POST /commands`
pub(crate) async fn create(
    State(api): State<Api>,
    Caller(name): Caller,
    Body(body): Body<NewCommand>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Some(agent) = body.agent_id.clone() else {
        return Err(invalid("agentId", "it is missing").into());
    };
    new_command(&api, name, agent, body).await
}

async fn new_command(
    api: &Api,
    name: String,
    agent: GatewayId,
    body: NewCommand,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Some(command) = body.command else {
        return Err(invalid("command", "it is missing").into());
    };
    let expires = match (body.expires_at, body.ttl_ms.or(body.timeout)) {
        (Some(at), _) => Expires::At(at),
        (None, Some(ms)) => Expires::AfterMs(ms),
        (None, None) => Expires::ByDefault,
    };
    let wish = Wish {
        id: body.id,
        agent: agent.clone(),
        command,
        params: body.params.unwrap_or(Value::Object(body.rest)),
        expires,
        requester: Requester::ApiKey { name: name.clone() },
    };
    let (command, _) = api.service.command(wish).await?;
    if command.agent != agent {
        let text = format!("command {} exists already, for another agent", command.id);
        let body = ErrorBody::new(ErrorCode::DuplicateEntry, text).with("field", "id");
        return Err(body.into());
    }
    Ok((StatusCode::ACCEPTED, Json(shown(api, &command, &name))))
}

#[derive(Deserialize)]
pub(crate) struct Limit {
    limit: Option<usize>,
}

/// `GET /api/agents/{id}/commands`
pub(crate) async fn agent_commands(
    State(api): State<Api>,
    Caller(name): Caller,
    Path(id): Path<String>,
    Query(Limit { limit }): Query<Limit>,
) -> Result<Json<Value>, ApiError> {
    let id = GatewayId::new(id)?;
    if !api.service.gateways.contains_key(&id) {
        return Err(unknown_agent(&id).into());
    }
    let limit = limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
    let list = api.service.store.commands_of(&id, limit)?;
    let list = list.iter().map(|command| view::command(command, &name, &api.service.master));
    Ok(Json(list.collect()))
}

/// `GET /api/commands/{id}`
pub(crate) async fn command(
    State(api): State<Api>,
    Caller(name): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = CommandId::new(id)?;
    let command = api.service.store.command(&id)?.ok_or_else(|| unknown_command(&id))?;
    Ok(Json(shown(&api, &command, &name)))
}

/// `POST /api/commands/{id}/cancel`
pub(crate) async fn cancel(
    State(api): State<Api>,
    Caller(name): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = CommandId::new(id)?;
    let requester = Requester::ApiKey { name: name.clone() };
    let command = api.service.cancel(&id, requester).await?;
    Ok(Json(shown(&api, &command, &name)))
}

fn shown(api: &Api, command: &Command, reader: &str) -> Value {
    let mut shown = view::command(command, reader, &api.service.master);
    shown["success"] = true.into();
    shown
}
