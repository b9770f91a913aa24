//! A copy of the retained messages, so that a new inner broker has them before its first client comes.
//!
//! It is kept where messages pass the guard: what the guard passes on with the retain flag is what
//! rumqttd keeps. rumqttd also forgets a retained message at any empty payload, flag or not; so does
//! this. Their number is bounded with that of topics ([`crate::traffic`]).

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttd::protocol::{Publish, PublishProperties};

use crate::session::lock;

/// One retained message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<PublishProperties>,
    at: Instant,
}

impl Message {
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
    messages: Mutex<HashMap<Bytes, Message>>,
}

impl Retained {
    /// Notes a message that is passed on to rumqttd.
    pub(crate) fn note(
        &self,
        publish: &Publish,
        properties: Option<&PublishProperties>,
        now: Instant,
    ) {
        if publish.payload.is_empty() {
            lock(&self.messages).remove(&publish.topic);
        } else if publish.retain {
            let topic = publish.topic.clone();
            let message = Message {
                topic: topic.clone(),
                payload: publish.payload.clone(),
                properties: properties.cloned(),
                at: now,
            };
            lock(&self.messages).insert(topic, message);
        }
    }

    /// All of them now.
    pub(crate) fn all(&self) -> Vec<Message> {
        lock(&self.messages).values().cloned().collect()
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

    fn publish(topic: &'static str, payload: &'static str, retain: bool) -> Publish {
        Publish::new(Bytes::from(topic), Bytes::from(payload), retain)
    }

    #[test]
    fn the_last_one_of_each_topic_is_kept_until_an_empty_one() {
        let (retained, now) = (Retained::default(), Instant::now());
        retained.note(&publish("a", "1", true), None, now);
        retained.note(&publish("a", "2", true), None, now);
        retained.note(&publish("a", "passing", false), None, now);
        retained.note(&publish("b", "passing", false), None, now);
        let all = retained.all();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].payload, "2");
        assert_eq!(retained.amount(), (1, 1));
        retained.note(&publish("a", "", false), None, now);
        assert_eq!(retained.amount(), (0, 0));
    }

    #[test]
    fn one_that_expires_is_given_out_with_what_is_left_of_its_time() {
        let (retained, now) = (Retained::default(), Instant::now());
        let properties =
            PublishProperties { message_expiry_interval: Some(60), ..Default::default() };
        retained.note(&publish("a", "1", true), Some(&properties), now);
        let message = &retained.all()[0];
        let left = |after| {
            message
                .properties_at(now + Duration::from_secs(after))
                .map(|properties| properties.unwrap().message_expiry_interval)
        };
        assert_eq!(left(0), Some(Some(60)));
        assert_eq!(left(45), Some(Some(15)));
        assert_eq!(left(60), None);
        assert_eq!(left(61), None);
    }
}
