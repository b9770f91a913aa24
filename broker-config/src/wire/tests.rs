use proptest::prelude::*;
use rumqttd::protocol::{PubAck, PubAckProperties, PubAckReason};

use super::*;

proptest! {
    #[test]
    fn peek_finds_every_frame_however_it_is_cut(kind in 1u8..15, flags in 0u8..16, body_len in 0usize..300_000, cut in any::<prop::sample::Index>()) {
        let mut bytes = vec![kind << 4 | flags];
        let mut len = body_len;
        loop {
            bytes.push((len % 128) as u8 | u8::from(len > 127) << 7);
            len /= 128;
            if len == 0 { break; }
        }
        let header_len = bytes.len();
        bytes.resize(header_len + body_len, 0);
        let frame = Frame { kind, flags, header_len, body_len };
        prop_assert_eq!(peek(&bytes), Peek::Whole(frame));
        let cut = cut.index(bytes.len());
        match peek(&bytes[..cut]) {
            Peek::Missing(missing, known) => {
                prop_assert!(missing >= 1 && cut + missing <= bytes.len());
                prop_assert_eq!(known, (cut >= header_len).then_some(frame));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_plain_publish_is_encoded_like_rumqttd_does(
        topic in "[a-z/]{0,40}", len in 0usize..70_000, retain in any::<bool>(), v5 in any::<bool>(),
    ) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let (topic, payload) = (bytes::Bytes::from(topic), bytes::Bytes::from(vec![7; len]));
        let (mut theirs, mut ours) = (BytesMut::new(), BytesMut::new());
        let publish = Publish::new(topic.clone(), payload.clone(), retain);
        encode_publish(version, publish, None, &mut theirs).unwrap();
        append_plain_publish(version, &topic, &payload, retain, &mut ours).unwrap();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn nothing_from_outside_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let whole = match peek(&bytes) { Peek::Whole(frame) => Some(frame), _ => None };
        if let Some(frame) = whole {
            let _ = level(&bytes, frame);
            let _ = publish_id(&bytes[..frame.len()], frame);
        }
        let _ = decode(version, &mut BytesMut::from(&bytes[..]), 1_000);
    }
}

#[test]
fn properties_are_taken_off_for_3_1_1() {
    let ack = PubAck { pkid: 1, reason: PubAckReason::Success };
    let properties =
        PubAckProperties { reason_string: Some("x".to_owned()), user_properties: vec![] };
    let mut bytes = BytesMut::new();
    encode(Version::V311, Packet::PubAck(ack, Some(properties)), &mut bytes).unwrap();
    assert_eq!(&bytes[..], [0x40, 2, 0, 1]);
}

#[test]
fn a_panic_below_is_an_error() {
    // V5 has no way to read UNSUBACK, and says so by panicking (K8).
    let mut bytes = BytesMut::from(&[0xB0u8, 4, 0, 1, 0, 0][..]);
    assert!(decode(Version::V5, &mut bytes, 1_000).is_err());
}
