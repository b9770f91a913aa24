use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use topics::Role;

use super::*;
use crate::{
    BrokerConfig,
    session::{Granted, Session},
    wire::Version,
};

/// A guard that has seen its CONNECT.
fn guard(version: Version) -> (Arc<Session>, Guard) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let shared = Shared::new(&BrokerConfig::new("test", address), 1).unwrap();
    let session = Session::new(
        "user".to_owned(),
        "client".to_owned(),
        "slot|1".to_owned(),
        Rights::Role(Role::EdgeGateway("hq".parse().unwrap())),
        version,
        crate::front::Peer::plain(address),
        Granted::default(),
        None,
    );
    let mut guard = Guard::new(shared);
    guard.link = Some(Link::new(session.clone()));
    (session, guard)
}

const PUBLISH: [u8; 24] = *b"\x30\x16\x00\x14ridgeway/v1/hq/xyzab";
const DISCONNECT: [u8; 2] = [0xE0, 0];

fn read(guard: &mut Guard, bytes: &[u8]) -> Vec<Result<Packet, Error>> {
    // As rumqttd does: one packet, then as many as there are, then back to waiting.
    let mut stream = BytesMut::from(bytes);
    let mut all = Vec::new();
    for _ in 0..1_000 {
        let result = guard.read_mut(&mut stream, 10_000);
        let over = matches!(&result, Err(error) if !matches!(error, Error::InsufficientBytes(_)));
        let waits = matches!(result, Err(Error::InsufficientBytes(_)));
        all.push(result);
        if over || (waits && guard.link.as_ref().is_some_and(|link| !link.closed)) {
            break;
        }
    }
    all
}

/// rumqttd throws a batch away when a later packet of it fails.
#[test]
fn the_end_is_told_after_the_batch() {
    let (session, mut guard) = guard(Version::V311);
    let got = read(&mut guard, &[&PUBLISH[..], &PUBLISH, &DISCONNECT, &PUBLISH].concat());
    assert!(matches!(got[0], Ok(Packet::Publish(..))));
    assert!(matches!(got[1], Ok(Packet::Publish(..))));
    assert!(matches!(got[2], Err(Error::InsufficientBytes(_))));
    assert!(matches!(got[3], Err(Error::InvalidProtocol)));
    assert_eq!(got.len(), 4);
    assert!(session.closing.is_cancelled());
    assert!(session.refused().is_none());
}

#[test]
fn the_end_is_told_at_once_where_nothing_can_be_lost() {
    let (_, mut guard) = guard(Version::V311);
    assert!(matches!(read(&mut guard, &DISCONNECT)[..], [Err(Error::InvalidProtocol)]));
    let mut out = BytesMut::new();
    let ping = Packet::PingResp(rumqttd::protocol::PingResp);
    assert!(guard.write(ping, &mut out).is_err(), "nothing is written after the end");
}

#[test]
fn a_clone_starts_afresh_and_the_session_ends_with_its_guard() {
    let (session, guard) = guard(Version::V5);
    assert!(guard.clone().link.is_none());
    assert!(!session.ended.is_cancelled());
    drop(guard);
    assert!(session.ended.is_cancelled());
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
        for packet in read(&mut guard, &bytes).into_iter().flatten() {
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
