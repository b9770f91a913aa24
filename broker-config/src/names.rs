//! What is a topic, a filter, a client id: MQTT's rules, and what rumqttd can bear.

/// Longer names are no contract of ours, and rumqttd keeps every one that it sees.
const MAX_NAME_BYTES: usize = 512;

/// A topic to publish to. rumqttd cuts the first *byte* off to look for a `$`, so it must be ASCII (K1).
pub(crate) fn is_topic(topic: &str) -> bool {
    is_name(topic) && !topic.contains(['+', '#'])
}

/// A filter: wildcards fill a whole level, `#` only the last.
pub(crate) fn is_filter(filter: &str) -> bool {
    let levels = filter.split('/').count();
    is_name(filter)
        && filter.split('/').enumerate().all(|(at, level)| match level {
            "+" => true,
            "#" => at + 1 == levels,
            text => !text.contains(['+', '#']),
        })
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.is_char_boundary(1)
        && !name.starts_with('$')
        && !name.contains(char::is_control)
}

/// A client id that rumqttd and a log line can bear (K4).
pub(crate) fn is_client_id(id: &str) -> bool {
    id.len() <= 256 && !id.contains(['/', '+', '#', '$']) && !id.contains(char::is_control)
}

/// Whether `filter`, which is one, meets `topic`, which is one or is treated like one.
pub(crate) fn meets(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics() {
        for good in ["a", "/", "a/b", "a//b", "ridgeway/v1/hq/status", "aé/ü", " x"] {
            assert!(is_topic(good), "{good:?}");
        }
        for bad in ["", "é/a", "\u{1F525}", "$SYS/x", "a/+", "a/#", "a+b", "a\0b", "a\nb"] {
            assert!(!is_topic(bad), "{bad:?}");
        }
        assert!(!is_topic(&"a".repeat(513)));
    }

    #[test]
    fn filters() {
        for good in ["#", "+", "a/#", "+/a/+", "a//#", "/"] {
            assert!(is_filter(good), "{good:?}");
        }
        for bad in ["", "a#", "#/a", "a+/b", "++", "é/#", "$SYS/#", "$share/g/a", "a\0"] {
            assert!(!is_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_a_filter_meets() {
        for (filter, topic) in [
            ("#", "a/b"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("+/b", "a/b"),
            ("a/+", "a/"),
            ("a", "a"),
        ] {
            assert!(meets(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in
            [("a", "a/b"), ("a/b", "a"), ("+", "a/b"), ("a/+/c", "a/b"), ("b/#", "a")]
        {
            assert!(!meets(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn client_ids() {
        assert!(is_client_id("mosq-1 é"));
        for bad in ["a/b", "a+", "#", "$x", "a\u{7}b"] {
            assert!(!is_client_id(bad), "{bad:?}");
        }
    }
}
