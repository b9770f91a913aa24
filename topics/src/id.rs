//! Ids. Each has one checked constructor; what holds an id holds a valid one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::Timestamp;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: {rule}")]
pub struct IdError {
    /// Which id, for people.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
    /// What is allowed.
    pub rule: &'static str,
}

impl IdError {
    fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        Self { kind, text: text.chars().take(80).collect(), rule }
    }
}

const SEGMENT_RULE: &str =
    "1 to 64 of a-z 0-9 - _, starting with a letter or a digit (it becomes part of topic names)";

fn is_segment(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['-', '_'])
}

/// A text id: a newtype over `String` with one rule.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against the rule of this id.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(IdError::new($kind, &text, $rule)) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// A site's gateway. Part of topic names.
    GatewayId, "gateway id", SEGMENT_RULE, is_segment
);
text_id!(
    /// A reader of one gateway: `device-001`, in the order first seen. Part of topic names.
    ReaderId, "reader id", SEGMENT_RULE, is_segment
);
text_id!(
    /// A person, as the application that enrols them names them. Never part of a topic name.
    /// Documented clients also send it as a JSON number; it is kept as text.
    UserId, "user id", "1 to 100 of A-Z a-z 0-9 - _ . @ :",
    |text| (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@:".contains(&b))
);
text_id!(
    /// A command, named by whoever asks for it; the key that makes a repeat harmless.
    CommandId, "command id", "1 to 64 of A-Z a-z 0-9 - _ . :",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
);

macro_rules! deserialize_text_id {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    )*};
}
deserialize_text_id!(GatewayId, ReaderId, CommandId);

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum TextOrNumber {
            Text(String),
            Number(u64),
        }
        let text = match TextOrNumber::deserialize(deserializer) {
            Ok(TextOrNumber::Text(text)) => text,
            Ok(TextOrNumber::Number(number)) => number.to_string(),
            Err(_) => return Err(de::Error::custom("userId must be a text or a whole number")),
        };
        Self::new(text).map_err(de::Error::custom)
    }
}

/// An id that is a UUID.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// From its sixteen bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Its sixteen bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// As text, in ASCII.
            pub fn to_text(&self) -> [u8; uuid::fmt::Hyphenated::LENGTH] {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                self.0.hyphenated().encode_lower(&mut text);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| IdError::new($kind, text, "a UUID"))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// One event: a UUIDv7, increasing within a gateway's process.
    EventId, "event id"
);
uuid_id!(
    /// One journal file. A new file has a new id, so that its sequence numbers are not taken for
    /// those of the file before it.
    StoreId, "store id"
);
uuid_id!(
    /// One run of the operating system, under which monotonic times can be compared.
    BootId, "boot id"
);

/// Gives out event ids that always increase, also within a millisecond and when the wall clock is
/// set back: the twelve bits after the time are a counter.
#[derive(Debug, Default, Clone)]
pub struct EventIds {
    last_ms: u64,
    counter: u16,
}

impl EventIds {
    const COUNTER_MAX: u16 = 0xfff;

    /// The next id. `random` must be fresh for each call: it keeps ids of different gateways apart.
    pub fn next(&mut self, now: Timestamp, random: u64) -> EventId {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(0);
        if now_ms > self.last_ms {
            (self.last_ms, self.counter) = (now_ms, 0);
        } else if self.counter < Self::COUNTER_MAX {
            self.counter += 1;
        } else {
            (self.last_ms, self.counter) = (self.last_ms + 1, 0);
        }
        let mut tail = [0u8; 10];
        tail[..2].copy_from_slice(&self.counter.to_be_bytes());
        tail[2..].copy_from_slice(&random.to_be_bytes());
        EventId(uuid::Builder::from_unix_timestamp_millis(self.last_ms, &tail).into_uuid())
    }
}

#[cfg(test)]
mod tests;
