//! What the API shows of gateways, commands and events: the documented names.

use serde_json::{Map, Value, json, value::RawValue};
use topics::{Event, GatewayId, Timestamp};

use crate::{
    command::{Command, Requester},
    secrets::SealingKey,
    store::{Agent, NewEvent},
};

/// The table that a command's sealed parts belong to.
pub(crate) const COMMAND_PARAMS: &str = "commands-v1/params";
pub(crate) const COMMAND_RESULT: &str = "commands-v1/result";

/// A gateway that is known. `problem` is what is wrong with what it sends, null where nothing is.
pub(crate) fn agent(agent: &Agent, name: Option<&str>, problem: Value) -> Value {
    let info = &agent.info;
    let name = name.or(Some(info.name.as_str()).filter(|name| !name.is_empty()));
    json!({
        "id": agent.id,
        "name": name.unwrap_or(agent.id.as_str()),
        "status": status_word(agent.online),
        "since": agent.since,
        "lastSeen": agent.last_seen,
        "createdAt": agent.created_at,
        "version": info.version,
        "location": info.location,
        "devices": agent.readers,
        "queued": agent.queued,
        "problem": problem,
        "metadata": {
            "hostname": info.hostname,
            "os": info.os,
            "version": info.version,
            "location": info.location,
        },
    })
}

/// A gateway that is configured and never came.
pub(crate) fn expected_agent(id: &GatewayId, name: Option<&str>, problem: Value) -> Value {
    json!({
        "id": id,
        "name": name.unwrap_or(id.as_str()),
        "status": status_word(false),
        "since": null,
        "lastSeen": null,
        "createdAt": null,
        "devices": [],
        "queued": null,
        "problem": problem,
        "metadata": {},
    })
}

fn status_word(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

/// A command's record. The template is in the result for `reader` only, when it is who asked.
pub(crate) fn command(command: &Command, reader: &str, master: &SealingKey) -> Value {
    let requested_by = match &command.requester {
        Requester::ApiKey { name } => json!(name),
        Requester::Mqtt { .. } => json!("mqtt"),
    };
    json!({
        "id": command.id,
        "commandId": command.id,
        "agentId": command.agent,
        "command": command.command,
        "params": command.params,
        "status": command.status,
        "requestedBy": requested_by,
        "createdAt": command.created_at,
        "expiresAt": command.expires_at,
        "sentAt": command.sent_at,
        "receivedAt": command.received_at,
        "startedAt": command.started_at,
        "finishedAt": command.finished_at,
        "cancelRequested": command.cancel_requested,
        "result": result(command, reader, master),
        "error": command.error,
    })
}

/// The message that a command ended.
pub(crate) fn command_ended(
    command: &Command,
    reader: &str,
    master: &SealingKey,
    now: Timestamp,
) -> Value {
    json!({
        "type": "command:result",
        "event": "command:result",
        "agentId": command.agent,
        "commandId": command.id,
        "command": command.command,
        "status": command.status,
        "result": result(command, reader, master),
        "error": command.error,
        "finishedAt": command.finished_at,
        "timestamp": now,
    })
}

fn result(command: &Command, reader: &str, master: &SealingKey) -> Value {
    let mut result = command.result.clone().unwrap_or(Value::Null);
    let asked = match &command.requester {
        Requester::ApiKey { name } => name == reader,
        Requester::Mqtt { .. } => false,
    };
    let Some(sealed) = command.sealed_result.as_deref().filter(|_| asked) else { return result };
    match open_json(master, COMMAND_RESULT, command.id.as_str(), sealed) {
        Some(private) => {
            if result.is_null() {
                result = json!({});
            }
            if let Some(result) = result.as_object_mut() {
                result.extend(private);
            }
        }
        None => tracing::error!(command = %command.id, "the sealed result can't be opened"),
    }
    result
}

/// Seals a JSON object as text.
pub(crate) fn seal_json(
    key: &SealingKey,
    table: &str,
    id: &str,
    plain: &Map<String, Value>,
) -> Option<String> {
    use base64::Engine as _;
    let plain = serde_json::to_vec(plain).ok()?;
    let sealed = key.seal(table, id, &plain).ok()?;
    Some(base64::engine::general_purpose::STANDARD.encode(sealed))
}

/// Opens what [`seal_json`] made.
pub(crate) fn open_json(
    key: &SealingKey,
    table: &str,
    id: &str,
    sealed: &str,
) -> Option<Map<String, Value>> {
    use base64::Engine as _;
    let sealed = base64::engine::general_purpose::STANDARD.decode(sealed).ok()?;
    serde_json::from_slice(&key.open(table, id, &sealed).ok()?).ok()
}

/// The broadcast of an event: the stored object stands in `data` byte for byte.
pub(crate) fn broadcast(stored: &NewEvent, event: &Event) -> String {
    let json = &stored.json;
    let mut head = json!({
        "type": "event",
        "agentId": stored.gateway,
        "event": event.event,
        "timestamp": event.timestamp,
    });
    if let (Some(head), Some(command)) = (head.as_object_mut(), &event.command_id) {
        head.insert("commandId".into(), json!(command));
    }
    let mut message = head.to_string();
    message.pop();
    message.push_str(r#","data":"#);
    message.push_str(json);
    message.push('}');
    message
}

/// A list of stored events, each byte for byte.
pub(crate) fn events(stored: impl Iterator<Item = NewEvent>) -> Vec<Box<RawValue>> {
    stored.filter_map(|event| RawValue::from_string(event.json).ok()).collect()
}

/// A gateway came, went, or said something of itself.
pub(crate) fn agent_message(kind: &str, id: &GatewayId, view: Value, now: Timestamp) -> String {
    json!({
        "type": kind,
        "event": kind,
        "agentId": id,
        "agent": view,
        "timestamp": now,
    })
    .to_string()
}
