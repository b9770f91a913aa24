use proptest::prelude::*;

use super::*;

/// MQTT's own matching, written for the test: does `filter` meet `topic`?
fn meets(filter: &str, topic: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    for (at, segment) in filter.iter().enumerate() {
        match (*segment, topic.get(at)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (segment, Some(other)) if segment == *other => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

proptest! {
    #[test]
    fn what_is_covered_meets_nothing_outside(
        outer in "[ab+]{1}(/[ab+]){0,3}(/#)?",
        inner in "[ab+]{1}(/[ab+]){0,3}(/#)?",
        topics in prop::collection::vec("[ab](/[abc]){0,4}", 40),
    ) {
        if covers(&outer, &inner) {
            for topic in topics {
                prop_assert!(!meets(&inner, &topic) || meets(&outer, &topic),
                    "{outer} covers {inner} but not {topic}");
            }
        }
    }
}

#[test]
fn the_grant_matrix() {
    let root = Root::default();
    let hq: GatewayId = "hq".parse().unwrap();
    let edge = Role::EdgeGateway(hq.clone());
    let cloud = Role::CloudGateway(hq.clone());
    let panel = Role::Panel(hq.clone());
    let up = Filter::LinkUp(Some(hq.clone())).format(&root);
    let down = Filter::LinkDown(Some(hq)).format(&root);
    let publish = [
        (&edge, "ridgeway/v1/hq/status", true),
        (&edge, "ridgeway/v1/hq/readers/device-001/events/scan/complete", true),
        (&edge, "ridgeway/v1/other/status", false),
        (&edge, up.as_str(), false),
        (&cloud, up.as_str(), true),
        (&cloud, down.as_str(), false),
        (&cloud, "ridgeway/v1/hq/status", true),
        (&cloud, "ridgeway/v1/hq/events/command/result", false),
        (&Role::Bridge, down.as_str(), true),
        (&Role::Bridge, "ridgeway/v1/hq/readers/device-001/events/scan/complete", true),
        (&Role::Platform, "ridgeway/v1/hq/commands/request", true),
        (&Role::Platform, "ridgeway/v1/hq/commands/response", false),
        (&Role::Platform, "ridgeway/v1/hq/status", false),
        (&Role::Platform, "ridgeway/v1/+/commands/request", false),
        (&panel, "ridgeway/v1/hq/commands/request", false),
        (&Role::Viewer, "ridgeway/v1/hq/status", false),
        (&Role::Viewer, "$SYS/x", false),
    ];
    for (role, topic, allowed) in publish {
        assert_eq!(role.may_publish(&root, topic), allowed, "{role:?} publishes {topic}");
    }
    let subscribe = [
        (&edge, "ridgeway/v1/hq/commands/request", true),
        (&edge, "ridgeway/v1/hq/#", false),
        (&cloud, down.as_str(), true),
        (&cloud, "ridgeway-link/v1/+/+/down", false),
        (&Role::Bridge, "ridgeway-link/v1/+/+/up", true),
        (&Role::Platform, "ridgeway/v1/#", true),
        (&Role::Platform, "ridgeway/v1", true),
        (&Role::Platform, "ridgeway/v1/+/readers/+/events/#", true),
        (&Role::Platform, "#", false),
        (&Role::Platform, "+/v1/#", false),
        (&Role::Platform, up.as_str(), false),
        (&Role::Platform, "$share/g/ridgeway/v1/#", false),
        (&panel, "ridgeway/v1/hq/readers/#", true),
        (&panel, "ridgeway/v1/+/readers/#", false),
        (&panel, "ridgeway/v1/hq/commands/response", false),
        (&Role::Viewer, "ridgeway/v1/+/readers/+/events/access/+", true),
        (&Role::Viewer, "ridgeway/v1/+/readers/#", false),
        (&Role::Viewer, "ridgeway/v1/hq/commands/request", false),
    ];
    for (role, filter, allowed) in subscribe {
        assert_eq!(role.may_subscribe(&root, filter), allowed, "{role:?} subscribes {filter}");
    }
}

#[test]
fn a_custom_role_may_what_it_lists() {
    let root = Root::default();
    let role = Role::Custom {
        publish: vec!["homeassistant/#".into()],
        subscribe: vec!["#".into(), "ridgeway/v1/hq/status".into()],
    };
    for (topic, allowed) in [
        ("homeassistant/x/config", true),
        ("homeassistant", true),
        ("ridgeway/v1/hq/status", false),
    ] {
        assert_eq!(role.may_publish(&root, topic), allowed, "{topic}");
    }
    for (filter, allowed) in
        [("#", true), ("+/x", true), ("$SYS/#", false), ("$share/g/a", false), ("a/b", true)]
    {
        assert_eq!(role.may_subscribe(&root, filter), allowed, "{filter}");
    }
}
