//! Every topic of Ridgeway as one enum. No other code formats or splits a topic.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{EventType, GatewayId, ReaderId};

/// The first segments of every public topic: `ridgeway/v1`, or a tenant's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Root(String);

impl Root {
    /// Checks a root: 1 to 8 segments of `A-Z a-z 0-9 - _ .`, together at most 128 characters, not
    /// the link's own.
    pub fn new(text: impl Into<String>) -> Result<Self, TopicError> {
        let text = text.into();
        let segment = |s: &str| {
            !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let reserved = text == LINK || text.starts_with(&format!("{LINK}/"));
        if text.len() <= 128
            && text.split('/').count() <= 8
            && text.split('/').all(segment)
            && !reserved
        {
            Ok(Self(text))
        } else {
            Err(TopicError::Root(text.chars().take(160).collect()))
        }
    }

    /// The root as text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Root {
    fn default() -> Self {
        Self("ridgeway/v1".to_owned())
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The link's private topics lie outside every root, so that no filter on a root meets them.
pub const LINK: &str = "ridgeway-link";
const LINK_VERSION: &str = "v1";

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The fields are what their types say.
pub enum Topic {
    /// Retained: the gateway's state.
    GatewayStatus { gateway: GatewayId },
    /// Retained: a reader's state.
    ReaderStatus { gateway: GatewayId, reader: ReaderId },
    /// An event of a reader.
    ReaderEvent { gateway: GatewayId, reader: ReaderId, event: EventType },
    /// An event of the gateway itself.
    GatewayEvent { gateway: GatewayId, event: EventType },
    /// Commands to the gateway.
    CommandRequest { gateway: GatewayId },
    /// Their responses.
    CommandResponse { gateway: GatewayId },
    /// From the gateway to the bridge.
    LinkUp { gateway: GatewayId },
    /// From the bridge to the gateway.
    LinkDown { gateway: GatewayId },
}

/// Why a text is not one of our topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TopicError {
    #[error(
        "topic root {0:?} is not valid: 1 to 8 segments of A-Z a-z 0-9 - _ . joined by slashes, \
         at most 128 characters, not below {LINK:?}"
    )]
    Root(String),
    #[error("{0:?} is not a topic of Ridgeway")]
    Unknown(String),
    #[error(transparent)]
    Id(#[from] crate::IdError),
}

impl Topic {
    /// The topic's name.
    pub fn format(&self, root: &Root) -> String {
        match self {
            Topic::GatewayStatus { gateway } => format!("{root}/{gateway}/status"),
            Topic::ReaderStatus { gateway, reader } => {
                format!("{root}/{gateway}/readers/{reader}/status")
            }
            Topic::ReaderEvent { gateway, reader, event } => {
                let (group, name) = event.segments();
                format!("{root}/{gateway}/readers/{reader}/events/{group}/{name}")
            }
            Topic::GatewayEvent { gateway, event } => {
                let (group, name) = event.segments();
                format!("{root}/{gateway}/events/{group}/{name}")
            }
            Topic::CommandRequest { gateway } => format!("{root}/{gateway}/commands/request"),
            Topic::CommandResponse { gateway } => format!("{root}/{gateway}/commands/response"),
            Topic::LinkUp { gateway } => link(&shard(gateway), gateway.as_str(), "up"),
            Topic::LinkDown { gateway } => link(&shard(gateway), gateway.as_str(), "down"),
        }
    }

    /// The topic of this name; the inverse of [`format`](Self::format).
    pub fn parse(root: &Root, text: &str) -> Result<Self, TopicError> {
        let unknown = || TopicError::Unknown(text.chars().take(200).collect());
        if let Some(rest) = text.strip_prefix(LINK) {
            return parse_link(rest).ok_or_else(unknown);
        }
        let rest = text
            .strip_prefix(root.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(unknown)?;
        let segments: Vec<&str> = rest.splitn(7, '/').collect();
        let event = |group: &str, name: &str| {
            EventType::parse(&format!("{group}:{name}")).ok_or_else(unknown)
        };
        Ok(match segments.as_slice() {
            [gateway, "status"] => Topic::GatewayStatus { gateway: gateway.parse()? },
            [gateway, "readers", reader, "status"] => {
                Topic::ReaderStatus { gateway: gateway.parse()?, reader: reader.parse()? }
            }
            [gateway, "readers", reader, "events", group, name] => Topic::ReaderEvent {
                gateway: gateway.parse()?,
                reader: reader.parse()?,
                event: event(group, name)?,
            },
            [gateway, "events", group, name] => {
                Topic::GatewayEvent { gateway: gateway.parse()?, event: event(group, name)? }
            }
            [gateway, "commands", "request"] => Topic::CommandRequest { gateway: gateway.parse()? },
            [gateway, "commands", "response"] => {
                Topic::CommandResponse { gateway: gateway.parse()? }
            }
            _ => return Err(unknown()),
        })
    }

    /// The gateway it belongs to.
    pub fn gateway(&self) -> &GatewayId {
        match self {
            Topic::GatewayStatus { gateway }
            | Topic::ReaderStatus { gateway, .. }
            | Topic::ReaderEvent { gateway, .. }
            | Topic::GatewayEvent { gateway, .. }
            | Topic::CommandRequest { gateway }
            | Topic::CommandResponse { gateway }
            | Topic::LinkUp { gateway }
            | Topic::LinkDown { gateway } => gateway,
        }
    }
}

/// Whether a response to a command of `gateway` may go to `topic`, as an MQTT 5 request can ask: only
/// below the gateway's own `commands/response/`.
pub fn accepts_response_topic(root: &Root, gateway: &GatewayId, topic: &str) -> bool {
    let own = Topic::CommandResponse { gateway: gateway.clone() }.format(root);
    topic.len() <= 256
        && !topic.contains(['+', '#', '\0'])
        && topic
            .strip_prefix(&own)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| !rest.is_empty() && rest.is_ascii())
}

fn link(shard: &str, gateway: &str, direction: &str) -> String {
    format!("{LINK}/{LINK_VERSION}/{shard}/{gateway}/{direction}")
}

fn parse_link(rest: &str) -> Option<Topic> {
    let segments: Vec<&str> = rest.splitn(6, '/').collect();
    let ["", LINK_VERSION, written, gateway, direction] = segments.as_slice() else { return None };
    let gateway: GatewayId = gateway.parse().ok()?;
    match (shard(&gateway) == *written, *direction) {
        (true, "up") => Some(Topic::LinkUp { gateway }),
        (true, "down") => Some(Topic::LinkDown { gateway }),
        _ => None,
    }
}

/// Two hex digits that spread gateways over the replicas of a bridge.
fn shard(gateway: &GatewayId) -> String {
    format!("{:02x}", xxhash_rust::xxh3::xxh3_64(gateway.as_str().as_bytes()) as u8)
}

/// A subscription filter of ours. `None` stands for every gateway (`+`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Everything below the root.
    All,
    /// Everything of one gateway, as the gateway itself may publish.
    Gateway(GatewayId),
    /// Gateways' retained states.
    GatewayStatus(Option<GatewayId>),
    /// Readers' retained states.
    ReaderStatus(Option<GatewayId>),
    /// Everything about readers.
    Readers(Option<GatewayId>),
    /// Events of readers.
    ReaderEvents(Option<GatewayId>),
    /// Events of gateways themselves.
    GatewayEvents(Option<GatewayId>),
    /// Decisions at doors.
    AccessEvents(Option<GatewayId>),
    /// Commands.
    CommandRequests(Option<GatewayId>),
    /// What gateways send to the bridge; all of them, or one.
    LinkUp(Option<GatewayId>),
    /// What the bridge sends to gateways; all of them, or one.
    LinkDown(Option<GatewayId>),
}

impl Filter {
    /// The filter as a broker takes it.
    pub fn format(&self, root: &Root) -> String {
        let any = |gateway: &Option<GatewayId>| {
            gateway.as_ref().map_or_else(|| "+".to_owned(), ToString::to_string)
        };
        let linked = |gateway: &Option<GatewayId>, direction| match gateway {
            Some(gateway) => link(&shard(gateway), gateway.as_str(), direction),
            None => link("+", "+", direction),
        };
        match self {
            Filter::All => format!("{root}/#"),
            Filter::Gateway(gateway) => format!("{root}/{gateway}/#"),
            Filter::GatewayStatus(g) => format!("{root}/{}/status", any(g)),
            Filter::ReaderStatus(g) => format!("{root}/{}/readers/+/status", any(g)),
            Filter::Readers(g) => format!("{root}/{}/readers/#", any(g)),
            Filter::ReaderEvents(g) => format!("{root}/{}/readers/+/events/#", any(g)),
            Filter::GatewayEvents(g) => format!("{root}/{}/events/#", any(g)),
            Filter::AccessEvents(g) => format!("{root}/{}/readers/+/events/access/+", any(g)),
            Filter::CommandRequests(g) => format!("{root}/{}/commands/request", any(g)),
            Filter::LinkUp(g) => linked(g, "up"),
            Filter::LinkDown(g) => linked(g, "down"),
        }
    }
}

impl FromStr for Root {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests;
