//! The retained messages. They are kept here, where messages pass the guard, and not in rumqttd: that
//! one sends a new subscriber a hundred at most and one that subscribes again none, takes any empty
//! payload for the end of one, and forgets all when it is replaced.
//!
//! The guard gives them out ([`Retained::after`]). Their number is bounded with that of topics
//! ([`crate::traffic`]), and their bytes for each user: a message is charged to who published it. When
//! two clients publish to a topic at the same moment, the one that is retained need not be the one that
//! subscribers got last.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttd::protocol::{PublishProperties, matches};

use crate::{session::lock, traffic::User};

/// One retained message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) properties: Option<PublishProperties>,
    pub(crate) qos: u8,
    /// To whom it is charged; none for the owner's own.
    user: Option<String>,
    at: Instant,
}

/// The user's messages take as much as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Message {
    pub(crate) fn new(
        topic: Bytes,
        payload: Bytes,
        properties: Option<PublishProperties>,
        qos: u8,
        user: User<'_>,
    ) -> Self {
        let user = match user {
            User::Own => None,
            User::Other(name) => Some(name.to_owned()),
        };
        Self { topic, payload, properties, qos, user, at: Instant::now() }
    }

    fn bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, properties_bytes);
        self.topic.len() + self.payload.len() + properties
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

/// What a message's properties take in memory, about.
pub(crate) fn properties_bytes(properties: &PublishProperties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let users = properties.user_properties.iter();
    let users = users.map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len());
    text(&properties.content_type)
        + text(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, Bytes::len)
        + users.sum::<usize>()
}

/// All of them, by topic.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: BTreeMap<Bytes, Message>,
    bytes_of: HashMap<String, usize>,
}

impl Kept {
    fn remove(&mut self, topic: &Bytes) {
        if let Some(message) = self.messages.remove(topic) {
            discharge(&mut self.bytes_of, &message);
        }
    }
}

/// A message that is gone is charged to nobody.
fn discharge(bytes_of: &mut HashMap<String, usize>, message: &Message) {
    let Some(user) = &message.user else { return };
    if let Some(held) = bytes_of.get_mut(user) {
        *held -= message.bytes();
        if *held == 0 {
            bytes_of.remove(user);
        }
    }
}

impl Retained {
    /// Takes a message that was published with the retain flag, in place of the topic's earlier one. Not
    /// if its user would have more than `max_bytes` then.
    pub(crate) fn note(&self, message: Message, max_bytes: usize) -> Result<(), Full> {
        let kept = &mut *lock(&self.kept);
        if message.payload.is_empty() {
            kept.remove(&message.topic);
            return Ok(());
        }
        if let Some(user) = &message.user {
            let earlier = kept.messages.get(&message.topic).filter(|m| m.user == message.user);
            let held = kept.bytes_of.get(user).copied().unwrap_or(0);
            let held = held - earlier.map_or(0, Message::bytes) + message.bytes();
            if held > max_bytes {
                return Err(Full);
            }
        }
        kept.remove(&message.topic);
        if let Some(user) = &message.user {
            *kept.bytes_of.entry(user.clone()).or_default() += message.bytes();
        }
        kept.messages.insert(message.topic.clone(), message);
        Ok(())
    }

    /// The next one that `filter` meets, in the order of topics, with its properties at `now`.
    pub(crate) fn after(
        &self,
        earlier: Option<&Bytes>,
        filter: &str,
        now: Instant,
    ) -> Option<(Message, Option<PublishProperties>)> {
        let messages = &lock(&self.kept).messages;
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
        let kept = &mut *lock(&self.kept);
        let over = kept.messages.extract_if(.., |_, message| message.properties_at(now).is_none());
        over.for_each(|(_, message)| discharge(&mut kept.bytes_of, &message));
    }

    /// How many, and their bytes.
    pub(crate) fn amount(&self) -> (usize, usize) {
        let messages = &lock(&self.kept).messages;
        (messages.len(), messages.values().map(Message::bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &'static str, payload: &'static str) -> Message {
        Message::new(Bytes::from(topic), Bytes::from(payload), None, 1, User::Other("a"))
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
            retained.note(message(topic, payload), 1_000).unwrap();
        }
        assert_eq!(payloads(&retained, "#", now), ["2", "3", "5", "4"]);
        assert_eq!(payloads(&retained, "b/+", now), ["3", "5"]);
        assert_eq!(retained.amount(), (4, 12));
        retained.note(message("b/x", ""), 1_000).unwrap();
        assert_eq!(payloads(&retained, "#", now), ["2", "5", "4"]);
    }

    #[test]
    fn one_that_expires_is_given_out_with_what_is_left_of_its_time() {
        let (retained, now) = (Retained::default(), Instant::now());
        let properties =
            PublishProperties { message_expiry_interval: Some(60), ..Default::default() };
        let properties = Some(properties);
        let message = Message { properties, at: now, ..message("a", "1") };
        retained.note(message, 1_000).unwrap();
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

    #[test]
    fn a_user_keeps_so_many_bytes_and_what_is_cleared_makes_room() {
        let of = |user, topic: &'static str, len| {
            let payload = Bytes::from(vec![1; len]);
            Message::new(Bytes::from(topic), payload, None, 1, user)
        };
        let (retained, a, b) = (Retained::default(), User::Other("a"), User::Other("b"));
        let note = |user, topic, len| retained.note(of(user, topic, len), 100);
        assert_eq!(note(a, "x", 98), Ok(()));
        assert_eq!(note(a, "x", 99), Ok(()), "in place of the earlier one");
        assert_eq!(note(a, "x", 100), Err(Full));
        assert_eq!(note(a, "y", 1), Err(Full));
        assert_eq!(note(b, "y", 99), Ok(()), "another user");
        assert_eq!(note(User::Own, "z", 1_000), Ok(()), "the owner's own");
        assert_eq!(note(b, "x", 1), Err(Full));
        assert_eq!(note(b, "y", 0), Ok(()));
        assert_eq!(note(b, "x", 99), Ok(()), "b's now");
        assert_eq!(note(a, "y", 99), Ok(()));
        let expiring = PublishProperties { message_expiry_interval: Some(1), ..Default::default() };
        let expiring = Message { properties: Some(expiring), ..of(a, "y", 99) };
        retained.note(expiring, 100).unwrap();
        retained.purge(Instant::now() + Duration::from_secs(2));
        assert_eq!(note(a, "w", 99), Ok(()));
    }
}
