use super::*;

#[test]
fn segments_take_only_what_is_safe_in_a_topic() {
    for good in ["a", "0", "hq-lobby", "device-001", "x_1", &"a".repeat(64)] {
        assert!(GatewayId::new(good).is_ok(), "{good}");
    }
    for bad in ["", "-a", "_a", "A", "a.b", "a/b", "a+", "#", "ä", "a b", &"a".repeat(65)] {
        assert!(GatewayId::new(bad).is_err(), "{bad}");
        assert!(ReaderId::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_user_id_may_come_as_a_number() {
    let id: UserId = serde_json::from_str("42").unwrap();
    assert_eq!(id.as_str(), "42");
    assert!(serde_json::from_str::<UserId>("\"a b\"").is_err());
    assert!(serde_json::from_str::<UserId>("1.5").is_err());
    assert_eq!(serde_json::to_string(&id).unwrap(), "\"42\"");
}

#[test]
fn an_error_says_what_is_allowed_and_stays_short() {
    let error = GatewayId::new("X".repeat(5000)).unwrap_err().to_string();
    assert!(error.contains("1 to 64 of a-z 0-9 - _"), "{error}");
    assert!(error.len() < 300, "{}", error.len());
}

#[test]
fn event_ids_increase_within_a_millisecond_and_when_the_clock_goes_back() {
    let mut ids = EventIds::default();
    let mut last = ids.next(Timestamp::from_millis(1_000), 7);
    for step in 0..10_000u64 {
        let now = Timestamp::from_millis(1_000 - (step % 3) as i64);
        let id = ids.next(now, !step);
        assert!(id > last, "{id} after {last}");
        last = id;
    }
    assert_eq!(last.as_bytes()[6] >> 4, 7, "a UUIDv7");
}
