use proptest::prelude::*;

use super::*;

fn segment() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9_-]{0,20}"
}

fn any_topic() -> impl Strategy<Value = Topic> {
    let events: Vec<EventType> = EventType::all().collect();
    (segment(), segment(), 0..8usize, prop::sample::select(events)).prop_map(
        |(gateway, reader, kind, event)| {
            let gateway: GatewayId = gateway.parse().unwrap();
            let reader: ReaderId = reader.parse().unwrap();
            match kind {
                0 => Topic::GatewayStatus { gateway },
                1 => Topic::ReaderStatus { gateway, reader },
                2 => Topic::ReaderEvent { gateway, reader, event },
                3 => Topic::GatewayEvent { gateway, event },
                4 => Topic::CommandRequest { gateway },
                5 => Topic::CommandResponse { gateway },
                6 => Topic::LinkUp { gateway },
                _ => Topic::LinkDown { gateway },
            }
        },
    )
}

proptest! {
    #[test]
    fn formatting_and_parsing_are_inverses(topic in any_topic(), root in "[a-z]{1,5}(/[a-z0-9]{1,4}){0,2}") {
        let root = Root::new(root).unwrap();
        prop_assert_eq!(Topic::parse(&root, &topic.format(&root)).unwrap(), topic);
    }

    #[test]
    fn any_text_gives_a_topic_that_formats_back_or_an_error(text in "(ridgeway/v1|ridgeway-link/v1)?[a-z0-9/+#-]{0,60}") {
        let root = Root::default();
        if let Ok(topic) = Topic::parse(&root, &text) {
            prop_assert_eq!(topic.format(&root), text);
        }
    }
}

#[test]
fn what_is_not_ours_is_an_error() {
    for text in [
        "",
        "ridgeway/v1",
        "ridgeway/v1/",
        "ridgeway/v1/hq/status/",
        "ridgeway/v1/HQ/status",
        "ridgeway/v1/hq/readers/r/events/scan/unknown",
        "ridgeway/v1/hq/readers/r/events/scan/complete/x",
        "ridgeway/v12/hq/status",
        "ridgeway-link/v1/00/hq/up",
        "ridgeway-link/v1/hq/up",
        "ridgeway-link",
    ] {
        assert!(Topic::parse(&Root::default(), text).is_err(), "{text}");
    }
}

#[test]
fn a_root_is_plain_segments_and_not_the_links() {
    for good in ["ridgeway/v1", "acme/site.1/ridgeway", "a"] {
        assert!(Root::new(good).is_ok(), "{good}");
    }
    for bad in
        ["", "/a", "a/", "a//b", "a/+", "#", "$SYS", "ridgeway-link", "ridgeway-link/v1", "ä"]
    {
        assert!(Root::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn filters_read_as_documented() {
    let root = Root::default();
    let hq = || Some("hq".parse().unwrap());
    assert_eq!(Filter::All.format(&root), "ridgeway/v1/#");
    assert_eq!(Filter::ReaderStatus(None).format(&root), "ridgeway/v1/+/readers/+/status");
    assert_eq!(
        Filter::AccessEvents(hq()).format(&root),
        "ridgeway/v1/hq/readers/+/events/access/+"
    );
    assert_eq!(Filter::LinkUp(None).format(&root), "ridgeway-link/v1/+/+/up");
    let one = Topic::LinkDown { gateway: "hq".parse().unwrap() };
    assert_eq!(Filter::LinkDown(hq()).format(&root), one.format(&root));
}
