use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttd::protocol::Packet;
use topics::Role;

use super::*;
use crate::{
    BrokerConfig,
    session::{Granted, Session},
    wire::Version,
};

/// A guard after CONNECT.
fn guard(version: Version) -> (Arc<Session>, Guard) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let shared = Shared::new(&BrokerConfig::new("test", address), 1).unwrap();
    let session = Session::new(
        "user".to_owned(),
        "client".to_owned(),
        Rights::Role(Role::EdgeGateway("hq".parse().unwrap())),
        version,
        crate::front::Peer::plain(address),
        Granted::default(),
        None,
    );
    (session.clone(), Guard { link: Link::new(session), shared })
}

struct Guard {
    link: Link,
    shared: Arc<Shared>,
}

const PUBLISH: [u8; 24] = *b"\x30\x16\x00\x14ridgeway/v1/hq/xyzab";
const DISCONNECT: [u8; 2] = [0xE0, 0];

/// The packets that pass, and why no more do.
fn read(guard: &mut Guard, bytes: &[u8]) -> (Vec<Packet>, End) {
    let mut stream = BytesMut::from(bytes);
    let mut all = VecDeque::new();
    loop {
        if let Some(end) = guard.link.read(&guard.shared, &mut stream, &mut all) {
            return (all.into(), end);
        }
    }
}

#[test]
fn what_was_said_before_a_goodbye_passes_and_nothing_after() {
    let (session, mut guard) = guard(Version::V311);
    let (got, end) = read(&mut guard, &[&PUBLISH[..], &PUBLISH, &DISCONNECT, &PUBLISH].concat());
    assert!(matches!(got[..], [Packet::Publish(..), Packet::Publish(..)]), "{got:?}");
    assert_eq!(end, End::Closed);
    assert_eq!(read(&mut guard, &PUBLISH), (vec![], End::Closed));
    assert!(session.refused().is_none());
    let mut out = BytesMut::new();
    let ping = Packet::PingResp(rumqttd::protocol::PingResp);
    assert!(guard.link.write(&guard.shared, ping, &mut out).is_err(), "nor is anything written");
}

#[test]
fn half_a_packet_waits_for_the_rest() {
    let (_, mut guard) = guard(Version::V5);
    assert_eq!(read(&mut guard, &PUBLISH[..9]), (vec![], End::Wait));
}

proptest! {
    #[test]
    fn whatever_comes_the_router_gets_only_what_it_can_bear(
        packets in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 1..12),
        v5 in any::<bool>(),
    ) {
        let (_, mut guard) = guard(if v5 { Version::V5 } else { Version::V311 });
        let mut bytes = Vec::new();
        for (first, body) in packets {
            bytes.extend([first, body.len() as u8]);
            bytes.extend(body);
        }
        for packet in read(&mut guard, &bytes).0 {
            match packet {
                Packet::Publish(publish, properties) => {
                    let topic = std::str::from_utf8(&publish.topic).expect("UTF-8");
                    prop_assert!(names::is_topic(topic));
                    prop_assert!(topic.starts_with("ridgeway/v1/hq/"));
                    prop_assert!(properties.is_none_or(|p| p.topic_alias.is_none()));
                }
                Packet::Subscribe(subscribe, _) => {
                    prop_assert!(subscribe.filters.iter().all(|f| names::is_filter(&f.path)));
                }
                Packet::PubRel(_, properties) => prop_assert!(properties.is_none()),
                Packet::Unsubscribe(..) | Packet::PingReq(_) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
