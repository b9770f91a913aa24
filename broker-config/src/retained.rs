//! The retained messages. They are kept here, where messages pass the guard, and not in rumqttd: that
//! one sends a new subscriber a hundred at most and one that subscribes again none, takes any empty
//! payload for the end of one, and forgets all when it is replaced.
//!
//! The guard gives them out ([`Retained::after`]). Their number is bounded with that of topics
//! ([`crate::traffic`]). When two clients publish to a topic at the same moment, the one that is retained
//! need not be the one that subscribers got last.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttd::protocol::{PublishProperties, matches};

use crate::session::lock;

/// One retained message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<PublishProperties>,
    pub(crate) qos: u8,
    at: Instant,
}

impl Message {
    pub(crate) fn new(
        topic: Bytes,
        payload: Bytes,
        properties: Option<PublishProperties>,
        qos: u8,
    ) -> Self {
        Self { topic, payload, properties, qos, at: Instant::now() }
    }

    /// Its properties at `now`, unless its time is over.
    pub(crate) fn properties_at(&self, now: Instant) -> Option<Option<PublishProperties>> {
        let Some(properties) = &self.properties else { return Some(None) };
        let Some(expiry) = properties.message_expiry_interval else {
            return Some(Some(properties.clone()));
        };
        let left = Duration::from_secs(expiry.into())
            .checked_sub(now.saturating_duration_since(self.at))
            .filter(|left| !left.is_zero())?;
        let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).max(1);
        Some(Some(PublishProperties {
            message_expiry_interval: Some(seconds),
            ..properties.clone()
        }))
    }
}

/// All of them, by topic.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: Mutex<BTreeMap<Bytes, Message>>,
}

impl Retained {
    /// Takes a message that was published with the retain flag.
    pub(crate) fn note(&self, message: Message) {
        let mut messages = lock(&self.messages);
        if message.payload.is_empty() {
            messages.remove(&message.topic);
        } else {
            messages.insert(message.topic.clone(), message);
        }
    }

    /// The next one that `filter` meets, in the order of topics, with its properties at `now`.
    pub(crate) fn after(
        &self,
        earlier: Option<&Bytes>,
        filter: &str,
        now: Instant,
    ) -> Option<(Message, Option<PublishProperties>)> {
        let messages = lock(&self.messages);
        // Topics before and behind those that begin like the filter can't be met.
        let prefix = filter.split(['+', '#']).next().unwrap_or_default();
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let first = Bytes::copy_from_slice(prefix.as_bytes());
        let start = earlier.map_or(Bound::Included(&first), Bound::Excluded);
        messages
            .range::<Bytes, _>((start, Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix.as_bytes()))
            .filter(|(topic, _)| std::str::from_utf8(topic).is_ok_and(|t| matches(t, filter)))
            .find_map(|(_, message)| Some((message.clone(), message.properties_at(now)?)))
    }

    /// Drops those whose time is over.
    pub(crate) fn purge(&self, now: Instant) {
        lock(&self.messages).retain(|_, message| message.properties_at(now).is_some());
    }

    /// How many, and their payloads' bytes.
    pub(crate) fn amount(&self) -> (usize, usize) {
        let messages = lock(&self.messages);
        (messages.len(), messages.values().map(|message| message.payload.len()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &'static str, payload: &'static str) -> Message {
        Message::new(Bytes::from(topic), Bytes::from(payload), None, 1)
    }

    fn payloads(retained: &Retained, filter: &str, now: Instant) -> Vec<Bytes> {
        let mut last = None;
        std::iter::from_fn(|| {
            let (message, _) = retained.after(last.as_ref(), filter, now)?;
            last = Some(message.topic);
            Some(message.payload)
        })
        .collect()
    }

    #[test]
    fn the_last_one_of_each_topic_is_kept_until_an_empty_one() {
        let (retained, now) = (Retained::default(), Instant::now());
        for (topic, payload) in [("a", "1"), ("b/x", "3"), ("a", "2"), ("c", "4"), ("b/y", "5")] {
            retained.note(message(topic, payload));
        }
        assert_eq!(payloads(&retained, "#", now), ["2", "3", "5", "4"]);
        assert_eq!(payloads(&retained, "b/+", now), ["3", "5"]);
        assert_eq!(retained.amount(), (4, 4));
        retained.note(message("b/x", ""));
        assert_eq!(payloads(&retained, "#", now), ["2", "5", "4"]);
    }

    #[test]
    fn one_that_expires_is_given_out_with_what_is_left_of_its_time() {
        let (retained, now) = (Retained::default(), Instant::now());
        let properties =
            PublishProperties { message_expiry_interval: Some(60), ..Default::default() };
        let properties = Some(properties);
        retained.note(Message { properties, at: now, ..message("a", "1") });
        let left = |after| {
            retained
                .after(None, "a", now + Duration::from_secs(after))
                .map(|(_, properties)| properties.unwrap().message_expiry_interval)
        };
        assert_eq!(left(0), Some(Some(60)));
        assert_eq!(left(45), Some(Some(15)));
        assert_eq!(left(60), None);
        assert_eq!(left(61), None);
        retained.purge(now + Duration::from_secs(59));
        assert_eq!(retained.amount().0, 1);
        retained.purge(now + Duration::from_secs(60));
        assert_eq!(retained.amount().0, 0);
    }
}
