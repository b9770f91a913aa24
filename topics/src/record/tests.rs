use proptest::prelude::*;

use super::*;
use crate::event::GapReason;

fn moment() -> Moment {
    Moment {
        timestamp: "2026-11-22T14:30:20.512Z".parse().unwrap(),
        clock: Clock::Synced,
        boot: BootId::from_bytes([7; 16]),
        uptime_ms: 123_456,
    }
}

fn gateway() -> GatewayId {
    "hq-lobby".parse().unwrap()
}

fn id() -> EventId {
    "0199c0de-0000-7000-8000-000000000001".parse().unwrap()
}

fn started() -> EventBody {
    EventBody::ScanStarted { device_id: "device-001".parse().unwrap(), scan_id: "scan-1".into() }
}

fn draft() -> Draft {
    Draft::new(&started(), &moment(), &Cause::default()).unwrap()
}

#[test]
fn a_record_holds_the_event_that_everyone_sees() {
    let cause = Cause { command_id: Some("c-1".parse().unwrap()), request_id: None };
    let record = Draft::new(&started(), &moment(), &cause)
        .unwrap()
        .with_private(b"sealed".to_vec())
        .unwrap()
        .into_record(&gateway(), id(), 4711, 99);
    let event = record.event().unwrap();
    assert_eq!(event.body, started());
    assert_eq!((event.seq, event.lane, event.id), (4711, Lane::Events, id()));
    assert_eq!(event.command_id.unwrap().as_str(), "c-1");
    assert_eq!(serde_json::to_vec(&record.event().unwrap()).unwrap(), record.json());
    assert_eq!(record.private(), Some(&b"sealed"[..]));
    assert_eq!((record.seq(), record.first(), record.uptime_ms()), (4711, 4711, 123_456));
    assert_eq!(record.boot(), BootId::from_bytes([7; 16]));
    assert_eq!(Record::read(record.as_bytes()).unwrap(), record);
}

#[test]
fn a_gap_stands_for_its_range() {
    let body = EventBody::JournalGap {
        from: 10,
        to: 20,
        count: Some(11),
        reason: GapReason::JournalFull,
        previous_store: None,
    };
    let record = Draft::new(&body, &moment(), &Cause::default())
        .unwrap()
        .in_lane(Lane::Telemetry)
        .into_gap(&gateway(), id(), (10, 20), 0);
    assert_eq!((record.kind(), record.first(), record.seq()), (RecordKind::Gap, 10, 20));
    let event = record.event().unwrap();
    assert_eq!((event.lane, event.seq), (Lane::Telemetry, 20));
    assert_eq!(Record::read(record.as_bytes()).unwrap(), record);
}

#[test]
fn the_chain_tells_one_history_from_another() {
    let first = draft().into_record(&gateway(), id(), 1, 0);
    let second = draft().into_record(&gateway(), id(), 2, first.chain());
    assert!(first.continues(0) && second.continues(first.chain()));
    assert!(!second.continues(0));
    let mut other = second.as_bytes().to_vec();
    *other.last_mut().unwrap() ^= 1;
    assert!(!Record::read(&other).unwrap().continues(first.chain()));
}

/// What version 1 wrote must be read by every later version.
#[test]
fn golden_bytes_of_version_1() {
    let record = draft().into_record(&gateway(), id(), 1, 0);
    let text: String = record.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, include_str!("golden-v1.hex").trim());
}

#[test]
fn what_a_newer_version_wrote_is_a_record_if_it_can_be_accounted_for() {
    let record = draft().into_record(&gateway(), id(), 7, 3);
    let changed = |at: usize, value: u8| {
        let mut bytes = record.as_bytes().to_vec();
        bytes[at] = value;
        bytes
    };
    let (version, kind, flags) = (changed(0, 2), changed(1, 9), changed(3, 8));
    let json_length = changed(54, 7);
    for bytes in [&version, &kind, &flags, &json_length] {
        assert!(Record::read(bytes).is_err());
        let foreign = Record::read_foreign(bytes).unwrap();
        assert_eq!((foreign.lane(), foreign.first(), foreign.seq()), (record.lane(), 7, 7));
        assert_eq!(foreign.as_bytes(), bytes);
        assert_eq!(foreign.is_known(), bytes == &json_length);
    }
    assert!(Record::read_foreign(&flags).unwrap().event().is_ok(), "its JSON is as it was");
    let cut = &record.as_bytes()[..record.as_bytes().len() - 9];
    assert!(Record::read_foreign(cut).unwrap().event().is_err());
    for bytes in [changed(2, 7), changed(12, 9)] {
        assert!(Record::read_foreign(&bytes).is_err(), "nobody can say what it stands for");
    }
}

#[test]
fn a_debug_print_shows_no_content() {
    let record =
        draft().with_private(b"secret".to_vec()).unwrap().into_record(&gateway(), id(), 1, 0);
    assert_eq!(
        format!("{record:?}"),
        format!("Record(events 1..=1, {} bytes)", record.as_bytes().len())
    );
}

proptest! {
    #[test]
    fn any_bytes_give_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(record) = Record::read_foreign(&bytes) {
            let _ = (record.json().len(), record.private(), record.event());
        }
    }

    #[test]
    fn a_damaged_record_never_panics(at in 0usize..200, value: u8, cut in 0usize..300) {
        let mut bytes = draft().into_record(&gateway(), id(), 1, 0).as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(cut.max(1));
        if let Ok(record) = Record::read_foreign(&bytes) {
            let _ = (record.json().len(), record.private(), record.event());
        }
    }
}
