//! What comes on `commands/request`: pure. A request that can't be taken gets a `failed` response
//! where it has an id to answer to, and is counted where it has none.

use rumqttc::v5::mqttbytes::v5::Publish;
use serde_json::Value;
use topics::{
    CommandId, CommandRequest, CommandResponse, CommandStatus, ErrorBody, ErrorCode, EventBody,
    GatewayId, Root, Timestamp, Topic, topic::accepts_response_topic,
};

/// The most correlation data that is carried back.
const MAX_CORRELATION_BYTES: usize = 1_024;

/// Where a response goes, and what comes back with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplyTo {
    pub(super) topic: String,
    pub(super) correlation: Option<bytes::Bytes>,
}

/// A request that can't.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    /// Whom to answer to, where that is known.
    pub(super) id: Option<CommandId>,
    pub(super) error: ErrorBody,
}

impl Refused {
    /// The response to it.
    pub(super) fn response(self, now: Timestamp) -> Option<CommandResponse> {
        self.id.map(|id| failed(id, self.error, now))
    }
}

/// A command that was not carried out.
pub(super) fn failed(id: CommandId, error: ErrorBody, now: Timestamp) -> CommandResponse {
    CommandResponse {
        id,
        status: CommandStatus::Failed,
        result: None,
        error: Some(error),
        finished_at: Some(now),
    }
}

/// Where the response to `publish` goes: the topic that an MQTT 5 request asks for, where it lies
/// below the gateway's own, and the common one otherwise.
pub(super) fn reply_to(publish: &Publish, root: &Root, gateway: &GatewayId) -> ReplyTo {
    let properties = publish.properties.as_ref();
    let asked = properties
        .and_then(|properties| properties.response_topic.as_deref())
        .filter(|topic| accepts_response_topic(root, gateway, topic));
    let common = || Topic::CommandResponse { gateway: gateway.clone() }.format(root);
    ReplyTo {
        topic: asked.map_or_else(common, str::to_owned),
        correlation: properties
            .and_then(|properties| properties.correlation_data.clone())
            .filter(|data| data.len() <= MAX_CORRELATION_BYTES),
    }
}

/// Reads a request. What is wrong with the command itself (its name, its expiry, its parameters) is
/// found where it is carried out, and recorded there.
pub(super) fn read(payload: &[u8], retained: bool) -> Result<CommandRequest, Refused> {
    let value: Value =
        serde_json::from_slice(payload).map_err(|_| refused(None, "payload", "must be JSON"))?;
    let id = value.get("id").and_then(|id| serde_json::from_value::<CommandId>(id.clone()).ok());
    if retained {
        return Err(refused(
            id,
            "retain",
            "must not be set: the command would come again and again",
        ));
    }
    if id.is_none() {
        return Err(refused(None, "id", "must be 1 to 64 of A-Z a-z 0-9 - _ . :"));
    }
    serde_json::from_value(value).map_err(|error| refused(id, "request", &error.to_string()))
}

fn refused(id: Option<CommandId>, field: &str, reason: &str) -> Refused {
    let error = ErrorBody::new(ErrorCode::Validation, format!("{field}: {reason}"))
        .with("field", field)
        .with("reason", reason);
    Refused { id, error }
}

/// The response that the end of a command is.
pub(super) fn response(event: &topics::Event) -> Option<CommandResponse> {
    let EventBody::CommandResult { status, result, error, finished_at, .. } = &event.body else {
        return None;
    };
    Some(CommandResponse {
        id: event.command_id.clone()?,
        status: *status,
        result: result.clone(),
        error: error.clone(),
        finished_at: Some(*finished_at),
    })
}

#[cfg(test)]
mod tests {
    use rumqttc::v5::mqttbytes::{QoS, v5::PublishProperties};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    #[test]
    fn a_good_request_is_taken() {
        let body = br#"{"id":"c-1","command":"identify","params":{"deviceId":null},"ttlMs":5000}"#;
        let request = read(body, false).unwrap();
        assert_eq!((request.id.as_str(), request.command.as_str()), ("c-1", "identify"));
    }

    #[test]
    fn a_bad_one_is_refused_and_answered_where_it_has_an_id() {
        for (body, retained, id, field) in [
            (r#"{"id":"c","command":"health","ttlMs":1}"#, true, Some("c"), "retain"),
            ("not json", false, None, "payload"),
            ("[]", false, None, "id"),
            (r#"{"command":"health","ttlMs":1}"#, false, None, "id"),
            (r#"{"id":"a b","command":"health","ttlMs":1}"#, false, None, "id"),
            (r#"{"id":"c","ttlMs":1}"#, false, Some("c"), "request"),
            (r#"{"id":"c","command":"health","expiresAt":"soon"}"#, false, Some("c"), "request"),
        ] {
            let refused = read(body.as_bytes(), retained).unwrap_err();
            assert_eq!(refused.id.as_ref().map(CommandId::as_str), id, "{body}");
            assert_eq!(refused.error.details["field"], field, "{body}");
            let response = refused.response(now());
            assert_eq!(response.map(|response| response.status), id.map(|_| CommandStatus::Failed));
        }
    }

    #[test]
    fn a_response_topic_is_honoured_only_below_the_gateways_own() {
        let (root, gateway) = (Root::default(), "hq".parse().unwrap());
        for (asked, expected) in [
            (None, "ridgeway/v1/hq/commands/response"),
            (Some("ridgeway/v1/hq/commands/response/me"), "ridgeway/v1/hq/commands/response/me"),
            (Some("ridgeway/v1/other/commands/response/me"), "ridgeway/v1/hq/commands/response"),
            (Some("ridgeway/v1/hq/status"), "ridgeway/v1/hq/commands/response"),
        ] {
            let properties = PublishProperties {
                response_topic: asked.map(str::to_owned),
                correlation_data: Some("abc".into()),
                ..Default::default()
            };
            let publish = Publish::new("t", QoS::AtLeastOnce, "", Some(properties));
            let reply = reply_to(&publish, &root, &gateway);
            assert_eq!(reply.topic, expected);
            assert_eq!(reply.correlation.as_deref(), Some(&b"abc"[..]));
        }
    }
}
