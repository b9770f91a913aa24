//! Commands: asked over MQTT or by the bridge, run once, answered with a durable result.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CommandId, ErrorBody, Timestamp};

/// What can be asked of a gateway. Parameters and results are those of the local REST API's route
/// of the same purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandName {
    /// `{userId, deviceId?, metadata?}`: enrol a finger in three placements.
    Enroll,
    /// `{userId, template?, deviceId?}`: compare a live finger with a template, 1:1.
    Verify,
    /// `{deviceId?, userIds?}`: find whose finger it is, 1:N.
    Identify,
    /// `{deviceId?}`: take one finger's template.
    #[serde(alias = "scan")]
    Capture,
    /// `{commandId}`: end a running operation.
    Cancel,
    /// `{}`: the readers.
    #[serde(alias = "device:info")]
    Devices,
    /// `{deviceId?}`: test a reader.
    #[serde(rename = "device:test")]
    DeviceTest,
    /// `{}`: the gateway's health.
    Health,
}

impl CommandName {
    /// All of them, in the order of the documentation.
    pub const ALL: [CommandName; 8] = [
        CommandName::Enroll,
        CommandName::Verify,
        CommandName::Identify,
        CommandName::Capture,
        CommandName::Cancel,
        CommandName::Devices,
        CommandName::DeviceTest,
        CommandName::Health,
    ];

    /// The command's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CommandName::Enroll => "enroll",
            CommandName::Verify => "verify",
            CommandName::Identify => "identify",
            CommandName::Capture => "capture",
            CommandName::Cancel => "cancel",
            CommandName::Devices => "devices",
            CommandName::DeviceTest => "device:test",
            CommandName::Health => "health",
        }
    }

    /// The command of this name (aliases included).
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(Value::String(name.to_owned())).ok()
    }
}

/// Where a command is. `pending` and `sent` exist in the bridge only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum CommandStatus {
    Pending,
    Sent,
    Running,
    Completed,
    Failed,
    Timeout,
    Expired,
    Cancelled,
}

impl CommandStatus {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        match self {
            CommandStatus::Pending | CommandStatus::Sent | CommandStatus::Running => false,
            CommandStatus::Completed
            | CommandStatus::Failed
            | CommandStatus::Timeout
            | CommandStatus::Expired
            | CommandStatus::Cancelled => true,
        }
    }
}

/// A request, as on `commands/request`. The name is text, so that an unknown one can be answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandRequest {
    /// The key that makes a repeat harmless.
    pub id: CommandId,
    /// See [`CommandName`].
    pub command: String,
    /// The command's parameters; an object, or absent.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// When it is too late. One of the two is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The same as milliseconds from its arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// A response, as on `commands/response`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandResponse {
    /// The request's.
    pub id: CommandId,
    /// Where the command is.
    pub status: CommandStatus,
    /// With `completed`: never a template, its `templateSha256` stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// With `failed`, `timeout`, `expired`, `cancelled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_texts_are_inverses() {
        for name in CommandName::ALL {
            assert_eq!(CommandName::parse(name.as_str()), Some(name));
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
        }
        assert_eq!(CommandName::parse("scan"), Some(CommandName::Capture));
        assert_eq!(CommandName::parse("format-disk"), None);
    }

    #[test]
    fn a_request_needs_an_id() {
        let ok = r#"{"id":"c-1","command":"enroll","params":{"userId":7},"ttlMs":60000}"#;
        let request: CommandRequest = serde_json::from_str(ok).unwrap();
        assert_eq!(request.ttl_ms, Some(60_000));
        assert!(serde_json::from_str::<CommandRequest>(r#"{"command":"enroll"}"#).is_err());
    }
}
