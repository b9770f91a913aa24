//! A message's number, hidden on its way through rumqttd.
//!
//! rumqttd carries MQTT 5's correlation data without looking at it, and copies it without copying bytes.
//! So the guard puts the number before it where a message comes in, and takes it off where it goes out.
//! Whether a message had correlation data of its own is the first byte.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | 1: the rest after the number is the message's own correlation data; 0: it had none |
//! | 1 to 4 | the topic's id, big endian |
//! | 5 to 12 | the message's number among the topic's, big endian |

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rumqttd::protocol::PublishProperties;

const BYTES: usize = 13;

/// Which message of which topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) topic: u32,
    pub(super) number: u64,
}

impl Stamp {
    /// Hides it in a message's properties.
    pub(super) fn hide(self, properties: Option<PublishProperties>) -> PublishProperties {
        let mut properties = properties.unwrap_or_default();
        let own = properties.correlation_data.take();
        let mut bytes = BytesMut::with_capacity(BYTES + own.as_ref().map_or(0, Bytes::len));
        bytes.put_u8(own.is_some().into());
        bytes.put_u32(self.topic);
        bytes.put_u64(self.number);
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
        let had_own = hidden.get_u8() == 1;
        let (topic, number) = (hidden.get_u32(), hidden.get_u64());
        properties.correlation_data = had_own.then_some(hidden);
        Some(Self { topic, number })
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
        let stamp = Stamp { topic: 7, number: u64::MAX };
        for properties in [own, empty, PublishProperties::default()] {
            let mut hidden = stamp.hide(Some(properties.clone()));
            assert_ne!(hidden, properties);
            assert_eq!(Stamp::take(&mut hidden), Some(stamp));
            assert_eq!(hidden, properties);
        }
    }
}
