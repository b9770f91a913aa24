use proptest::prelude::*;

use super::*;
use crate::{
    Clock, Draft, EventBody,
    record::{Cause, Moment},
};

fn record(seq: u64, text: &str) -> Record {
    let moment = Moment {
        timestamp: Timestamp::from_millis(0),
        clock: Clock::Unsynced,
        boot: BootId::from_bytes([1; 16]),
        uptime_ms: seq,
    };
    let body = EventBody::ScanStarted {
        device_id: "device-001".parse().unwrap(),
        scan_id: text.to_owned(),
    };
    Draft::new(&body, &moment, &Cause::default()).unwrap().into_record(
        &"hq".parse().unwrap(),
        crate::EventId::from_bytes([2; 16]),
        seq,
        0,
    )
}

fn store() -> StoreId {
    StoreId::from_bytes([3; 16])
}

fn batch(count: u64) -> Frame {
    let records = (1..=count).map(|seq| record(seq, &format!("scan-{seq}"))).collect();
    Frame::Batch(Batch { store: store(), session: 9, records })
}

fn control_frames() -> Vec<Frame> {
    let now = Timestamp::from_millis(1_000);
    let lane = LaneAck { lane: Lane::Events, watermark: 7, chain: 8, ranges: vec![(9, 12)] };
    let hello = LaneHello { lane: Lane::Access, oldest: 1, next: 5, watermark: 4, chain: 77 };
    vec![
        Frame::Hello(Hello {
            session: u64::MAX,
            gateway: "hq".parse().unwrap(),
            store: store(),
            boot: BootId::from_bytes([4; 16]),
            uptime_ms: 5,
            wall: now,
            probe_ms: Some(15_000),
            lanes: vec![hello],
            agent: AgentInfo { name: "HQ".into(), ..AgentInfo::default() },
        }),
        Frame::Resume(Resume {
            session: 1,
            store: store(),
            now,
            outcome: Outcome::Resume { lanes: vec![lane.clone()] },
        }),
        Frame::Resume(Resume {
            session: 1,
            store: store(),
            now,
            outcome: Outcome::Forked { reason: "chain at 7".into() },
        }),
        Frame::Ack(Ack { session: 1, store: store(), lanes: vec![lane], now }),
        Frame::Command(CommandDown {
            session: 1,
            id: "c-1".parse().unwrap(),
            command: "enroll".into(),
            params: serde_json::json!({"userId": "u"}),
            sealed: None,
            issued_at: now,
            expires_at: now,
            now,
        }),
        Frame::Received(Received { session: 1, command: "c-1".parse().unwrap() }),
        Frame::Probe(Probe { session: 1, nonce: 2, readers: vec![], queued: 3 }),
        Frame::Probed(Probed { session: 1, nonce: 2, now }),
        Frame::AskHello(AskHello { session: 1 }),
        Frame::Unknown(200),
    ]
}

#[test]
fn every_frame_comes_back_as_it_was() {
    for frame in control_frames().into_iter().chain([batch(0), batch(1), batch(300)]) {
        assert_eq!(Frame::decode(&frame.encode().unwrap()).unwrap(), frame);
    }
}

#[test]
fn a_batch_of_like_events_shrinks_to_a_fraction() {
    let Frame::Batch(inner) = batch(500) else { unreachable!() };
    let plain: usize = inner.records.iter().map(|record| record.as_bytes().len()).sum();
    let packed = Frame::Batch(inner).encode().unwrap().len();
    assert!(packed * 5 < plain, "{packed} of {plain}");
}

#[test]
fn a_frame_that_unpacks_to_more_than_it_says_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; 10_000_000], 1).unwrap();
    for said in [100u32, MAX_PAYLOAD_BYTES as u32, u32::MAX] {
        let mut bytes = vec![b'R', b'L', VERSION, 4, FLAG_ZSTD, 0, 0, 0];
        bytes.extend_from_slice(&said.to_le_bytes());
        bytes.extend_from_slice(&bomb);
        assert!(Frame::decode(&bytes).is_err(), "{said}");
    }
}

#[test]
fn a_frame_over_the_limit_is_not_made() {
    let records = (1..=3_000).map(|seq| record(seq, &"x".repeat(100))).collect();
    let frame = Frame::Batch(Batch { store: store(), session: 1, records });
    assert!(matches!(frame.encode(), Err(LinkError::TooLarge(_))));
}

#[test]
fn another_version_says_what_to_do() {
    let mut bytes = batch(1).encode().unwrap();
    bytes[2] = 2;
    assert!(Frame::decode(&bytes).unwrap_err().to_string().contains("update the older side"));
}

proptest! {
    #[test]
    fn any_bytes_give_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::decode(&bytes);
        let mut framed = vec![b'R', b'L', VERSION];
        framed.extend_from_slice(&bytes);
        let _ = Frame::decode(&framed);
    }

    #[test]
    fn a_damaged_frame_never_panics(at in 0usize..4_000, value: u8, which in 0usize..12) {
        let frames: Vec<Frame> = control_frames().into_iter().chain([batch(3), batch(40)]).collect();
        let mut bytes = frames[which % frames.len()].encode().unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = Frame::decode(&bytes);
    }
}
