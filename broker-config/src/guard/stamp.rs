//! A message's number, and how it was published, before its payload on its way through rumqttd, which
//! forgets the latter and carries the payload without looking at it.
//!
//! The guard puts the stamp there where a message comes in, and takes it off where it goes out.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | bits 0 and 1: QoS; bit 2: retain flag |
//! | 1 to 4 | the topic's id, big endian |
//! | 5 to 12 | the message's number among the topic's, big endian |
//! | 13 to 20 | the client that published it, big endian |

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::LazyLock,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Its length.
const BYTES: usize = 21;

const QOS: u8 = 3;
const RETAIN: u8 = 4;

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
    /// Itself, and `payload` behind it.
    pub(super) fn before(self, payload: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(BYTES + payload.len());
        bytes.put_u8(self.qos & QOS | if self.retain { RETAIN } else { 0 });
        bytes.put_u32(self.topic);
        bytes.put_u64(self.number);
        bytes.put_u64(self.publisher);
        bytes.put_slice(payload);
        bytes.freeze()
    }

    /// Takes it off; what is left is the payload as it came in.
    pub(super) fn take(payload: &mut Bytes) -> Option<Self> {
        if payload.len() < BYTES {
            return None;
        }
        let flags = payload.get_u8();
        Some(Self {
            topic: payload.get_u32(),
            number: payload.get_u64(),
            publisher: payload.get_u64(),
            qos: flags & QOS,
            retain: flags & RETAIN != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_out_as_it_went_in() {
        let plain = Stamp { topic: 7, number: u64::MAX, publisher: 1, qos: 0, retain: false };
        let full = Stamp { qos: 2, retain: true, ..plain };
        for stamp in [plain, full] {
            for payload in [&b"mine"[..], b"", &[0xFF; 1000]] {
                let mut bytes = stamp.before(payload);
                assert_eq!(bytes.len(), BYTES + payload.len());
                assert_eq!(Stamp::take(&mut bytes), Some(stamp));
                assert_eq!(bytes, payload);
            }
        }
        assert_eq!(Stamp::take(&mut Bytes::from_static(&[0; BYTES - 1])), None);
    }
}
