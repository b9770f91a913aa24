//! A message's number, and how it was published, hidden on its way through rumqttd, which forgets the
//! latter.
//!
//! rumqttd carries MQTT 5's correlation data without looking at it, and copies it without copying bytes.
//! So the guard puts a stamp before it where a message comes in, and takes it off where it goes out.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | bit 0: the rest after the stamp is the message's own correlation data, else it had none; bits 1 and 2: QoS; bit 3: retain flag |
//! | 1 to 4 | the topic's id, big endian |
//! | 5 to 12 | the message's number among the topic's, big endian |
//! | 13 to 20 | the client that published it, big endian |

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rumqttd::protocol::PublishProperties;

const BYTES: usize = 21;

const OWN: u8 = 1;
const QOS_SHIFT: u8 = 1;
const RETAIN: u8 = 8;

/// What stands for a client in its messages: the same on each of its connections.
pub(super) fn publisher(user: &str, client_id: &str) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYS.hash_one((user, client_id))
}

/// Which message of which topic, and how it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) topic: u32,
    pub(super) number: u64,
    /// See [`publisher`].
    pub(super) publisher: u64,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

impl Stamp {
    /// Hides it in a message's properties.
    pub(super) fn hide(self, properties: Option<PublishProperties>) -> PublishProperties {
        let mut properties = properties.unwrap_or_default();
        let own = properties.correlation_data.take();
        let mut bytes = BytesMut::with_capacity(BYTES + own.as_ref().map_or(0, Bytes::len));
        let flags = [(own.is_some(), OWN), (self.retain, RETAIN)];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum::<u8>();
        bytes.put_u8(flags | (self.qos << QOS_SHIFT));
        bytes.put_u32(self.topic);
        bytes.put_u64(self.number);
        bytes.put_u64(self.publisher);
        bytes.put_slice(&own.unwrap_or_default());
        properties.correlation_data = Some(bytes.freeze());
        properties
    }

    /// Takes it off again; the properties are as they came in.
    pub(super) fn take(properties: &mut PublishProperties) -> Option<Self> {
        let mut hidden = properties.correlation_data.take()?;
        if hidden.len() < BYTES {
            return None;
        }
        let flags = hidden.get_u8();
        let stamp = Self {
            topic: hidden.get_u32(),
            number: hidden.get_u64(),
            publisher: hidden.get_u64(),
            qos: (flags >> QOS_SHIFT) & 3,
            retain: flags & RETAIN != 0,
        };
        properties.correlation_data = (flags & OWN != 0).then_some(hidden);
        Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_out_as_they_went_in() {
        let own = PublishProperties {
            correlation_data: Some(Bytes::from_static(b"mine")),
            content_type: Some("text/plain".to_owned()),
            ..PublishProperties::default()
        };
        let empty = PublishProperties {
            correlation_data: Some(Bytes::new()),
            ..PublishProperties::default()
        };
        let number = u64::MAX;
        let plain = Stamp { topic: 7, number, publisher: 1, qos: 0, retain: false };
        let full = Stamp { qos: 2, retain: true, ..plain };
        let all = [own, empty, PublishProperties::default()];
        for (stamp, properties) in all.into_iter().flat_map(|p| [(plain, p.clone()), (full, p)]) {
            let mut hidden = stamp.hide(Some(properties.clone()));
            assert_ne!(hidden, properties);
            assert_eq!(Stamp::take(&mut hidden), Some(stamp));
            assert_eq!(hidden, properties);
        }
    }
}
