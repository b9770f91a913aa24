//! What a client asked for with each filter.
//!
//! rumqttd remembers a filter's QoS and subscription identifier, and forgets the other options. So the
//! guard remembers them all, and gives rumqttd identifiers of its own, one a filter: each message that
//! comes back carries the one of the filter that it was found by. As long as a session has only ever had
//! one filter there is nothing to tell apart, and messages are spared the identifier. A client that comes
//! back to its kept session has lost them in rumqttd, and is subscribed again from here.

use std::collections::{BTreeMap, HashMap};

use rumqttd::protocol::{self, Packet, QoS, RetainForwardRule, Subscribe, SubscribeProperties};

/// What a client asked for with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// The most that messages are delivered with.
    pub(crate) qos: u8,
    /// Not what the client published itself.
    pub(crate) no_local: bool,
    /// With the retain flag as it was published.
    pub(crate) retain_as_published: bool,
    /// The client's subscription identifier.
    pub(crate) id: Option<usize>,
}

impl Options {
    pub(crate) fn new(filter: &protocol::Filter, id: Option<usize>) -> Self {
        Self {
            qos: number(filter.qos),
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            id,
        }
    }

    /// For a message that none of the filters meets any more: nothing is held against it.
    const UNKNOWN: Self = Self { qos: 2, no_local: false, retain_as_published: false, id: None };
}

/// All filters of a session.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    keys: HashMap<String, usize>,
    by_key: BTreeMap<usize, Subscription>,
    last_key: usize,
    /// rumqttd knows the filters' keys.
    told_apart: bool,
    /// The filter that had no key in rumqttd before: what it had sent on by then has none either.
    keyless: Option<usize>,
}

#[derive(Debug)]
struct Subscription {
    filter: String,
    options: Options,
    /// What rumqttd has: it doesn't change it.
    inner_qos: u8,
}

impl Subscriptions {
    /// Takes a filter, for the first time or again. Its key, and the QoS granted: when it is there
    /// already, not more than before.
    pub(crate) fn insert(&mut self, filter: &str, options: Options) -> (usize, u8) {
        if let Some(key) = self.keys.get(filter)
            && let Some(held) = self.by_key.get_mut(key)
        {
            let qos = options.qos.min(held.inner_qos);
            held.options = Options { qos, ..options };
            return (*key, qos);
        }
        self.last_key += 1;
        let (filter, inner_qos) = (filter.to_owned(), options.qos);
        self.keys.insert(filter.clone(), self.last_key);
        self.by_key.insert(self.last_key, Subscription { filter, options, inner_qos });
        (self.last_key, inner_qos)
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        self.keys.remove(filter).is_some_and(|key| self.by_key.remove(&key).is_some())
    }

    pub(crate) fn contains(&self, filter: &str) -> bool {
        self.keys.contains_key(filter)
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All filters with their keys and rumqttd's QoS, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &str, u8)> {
        self.by_key.iter().map(|(key, held)| (*key, held.filter.as_str(), held.inner_qos))
    }

    /// The session goes on, and rumqttd has lost all keys.
    pub(crate) fn resume(&mut self) {
        self.keyless = None;
    }

    /// Whether rumqttd is to be given the keys.
    pub(crate) fn is_told_apart(&self) -> bool {
        self.told_apart
    }

    /// With the second filter: the first one, with its key and rumqttd's QoS, for rumqttd to learn it.
    pub(crate) fn tell_apart(&mut self) -> Option<(usize, &str, u8)> {
        if self.told_apart || self.last_key < 2 {
            return None;
        }
        self.told_apart = true;
        self.keyless = self.by_key.contains_key(&1).then_some(1);
        self.iter().next().filter(|(key, ..)| *key == 1)
    }

    /// What holds for the filter with that key.
    pub(crate) fn by_key(&self, key: usize) -> Option<Options> {
        self.by_key.get(&key).map(|held| held.options)
    }

    /// What holds for a message to `topic` that carries `key`. Without a key it was sent when there was a
    /// single filter; or in the first moment of a session that goes on: then whatever one of its filters
    /// allows.
    pub(crate) fn options(&self, key: Option<usize>, topic: &[u8]) -> Options {
        if let Some(held) = key.or(self.keyless).and_then(|key| self.by_key(key)) {
            return held;
        }
        if !self.told_apart
            && let Some(only) = self.by_key.values().next()
        {
            return only.options;
        }
        let Ok(topic) = std::str::from_utf8(topic) else { return Options::UNKNOWN };
        self.by_key
            .values()
            .filter(|held| protocol::matches(topic, &held.filter))
            .map(|held| held.options)
            .reduce(Options::either)
            .unwrap_or(Options::UNKNOWN)
    }
}

impl Options {
    fn either(self, other: Self) -> Self {
        Self {
            qos: self.qos.max(other.qos),
            no_local: self.no_local && other.no_local,
            retain_as_published: self.retain_as_published || other.retain_as_published,
            id: self.id.or(other.id),
        }
    }
}

/// The SUBSCRIBE that rumqttd gets.
pub(super) fn packet(packet_id: u16, key: Option<usize>, filter: &str, qos: u8) -> Packet {
    let filter = protocol::Filter {
        path: filter.to_owned(),
        qos: protocol::qos(qos).unwrap_or(QoS::AtMostOnce),
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::OnEverySubscribe,
    };
    let subscribe = Subscribe { pkid: packet_id, filters: vec![filter] };
    let properties = key.map(|_| SubscribeProperties { id: key, user_properties: Vec::new() });
    Packet::Subscribe(subscribe, properties)
}

pub(crate) fn number(qos: QoS) -> u8 {
    match qos {
        QoS::AtMostOnce => 0,
        QoS::AtLeastOnce => 1,
        QoS::ExactlyOnce => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Options =
        Options { qos: 1, no_local: false, retain_as_published: false, id: None };

    #[test]
    fn a_filter_keeps_its_key_and_takes_new_options_but_no_higher_qos() {
        let mut all = Subscriptions::default();
        assert_eq!(all.insert("a/#", PLAIN), (1, 1));
        assert_eq!(all.insert("b", PLAIN), (2, 1));
        assert_eq!(all.insert("a/#", Options { qos: 2, id: Some(9), ..PLAIN }), (1, 1));
        assert_eq!(all.options(Some(1), b"a/b").id, Some(9));
        assert_eq!(all.insert("a/#", Options { qos: 0, ..PLAIN }), (1, 0));
        assert_eq!(all.insert("a/#", PLAIN), (1, 1), "rumqttd still has 1");
        assert_eq!(all.iter().collect::<Vec<_>>(), [(1, "a/#", 1), (2, "b", 1)]);
        assert!(all.remove("a/#") && !all.remove("a/#"));
        assert_eq!(all.insert("a/#", PLAIN), (3, 1), "another subscription");
    }

    #[test]
    fn without_a_key_the_most_generous_filter_counts() {
        let mut all = Subscriptions::default();
        let first = Options { qos: 0, no_local: true, id: Some(1), ..PLAIN };
        all.insert("a/+", first);
        assert_eq!(all.tell_apart(), None);
        assert_eq!(all.options(None, b"a/b"), first, "the only one");
        all.insert("a/b", Options { qos: 2, no_local: true, retain_as_published: true, ..PLAIN });
        assert_eq!(all.tell_apart(), Some((1, "a/+", 0)));
        assert_eq!(all.tell_apart(), None, "once");
        assert_eq!(all.options(None, b"a/b"), first, "sent before there were two");
        all.resume();
        let both = all.options(None, b"a/b");
        assert_eq!((both.qos, both.no_local, both.retain_as_published), (2, true, true));
        all.insert("#", PLAIN);
        assert!(!all.options(None, b"a/b").no_local);
        assert_eq!(all.options(None, b"x"), PLAIN);
        all.remove("#");
        assert_eq!(all.options(None, b"x"), Options::UNKNOWN);
    }
}
