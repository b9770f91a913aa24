use proptest::prelude::*;

use super::*;
use crate::{
    Clock, Draft, EventBody, Record,
    record::{Cause, Moment},
};

fn record(seq: u64, text: &str) -> Record {
    record_in(Lane::Events, seq, text, 0)
}

fn record_in(lane: Lane, seq: u64, text: &str, chain: u64) -> Record {
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
    Draft::new(&body, &moment, &Cause::default()).unwrap().in_lane(lane).into_record(
        &"hq".parse().unwrap(),
        crate::EventId::from_bytes([2; 16]),
        seq,
        chain,
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

/// Chained as in a journal, chained in part, and not at all; lanes mixed; and with what only a newer version
/// writes.
#[test]
fn records_arrive_byte_for_byte_and_chains_that_follow_are_left_out() {
    let chained = |count: u64, lane: Lane, mut chain: u64| -> Vec<Record> {
        let records = (1..=count).map(|seq| {
            let record = record_in(lane, seq, &format!("scan-{seq}"), chain);
            chain = record.chain();
            record
        });
        records.collect()
    };
    let whole = chained(200, Lane::Events, 7);
    let mut holes = whole.clone();
    holes.remove(100);
    let pairs = whole.iter().cloned().zip(chained(200, Lane::Access, 0));
    let mixed: Vec<Record> = pairs.flat_map(|(a, b)| [a, b]).collect();
    let mut foreign = whole[5].as_bytes().to_vec();
    foreign[1] = 9;
    let mut newer = whole[..10].to_vec();
    newer[5] = Record::read_foreign(&foreign).unwrap();
    let payload = |records: &[Record]| {
        let batch = Batch { store: store(), session: 9, records: records.to_vec() };
        let payload = batch.encode();
        assert_eq!(Batch::decode(&payload).unwrap(), batch);
        let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
        assert!(payload.len() <= Batch::payload_bytes(records.len(), bytes));
        payload.len() as i64 - bytes as i64 - 28
    };
    // A record takes five bytes more than its own, and eight less where its chain follows.
    assert_eq!(payload(&whole), 200 * 5 - 199 * 8);
    assert_eq!(payload(&holes), 199 * 5 - 197 * 8);
    assert_eq!(payload(&mixed), 400 * 5 - 398 * 8);
    assert_eq!(payload(&newer), 10 * 5 - 8 * 8, "what is not as it was when it was chained");
}

#[test]
fn a_batch_that_contradicts_itself_is_refused() {
    let Frame::Batch(batch) = batch(3) else { unreachable!() };
    let good = batch.encode();
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Batch::decode(&bytes)
    };
    let column = |number: usize| 28 + number * 3;
    assert!(change(24, 255).is_err(), "more records than there are");
    assert!(change(24, 2).is_err(), "fewer");
    assert!(change(column(52), 0).is_err(), "a first chain value that follows from nothing");
    assert!(change(column(52), 7).is_err());
    assert!(change(column(48), 1).is_err(), "a record shorter than its header");
    assert!(change(column(50), 1).is_err(), "a record longer than the batch");
    let mut more = good.clone();
    more.push(0);
    assert!(Batch::decode(&more).is_err());
    for length in 0..good.len() {
        assert!(Batch::decode(&good[..length]).is_err(), "{length}");
    }
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
