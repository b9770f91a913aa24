//! Gateways that are refused for what they send, or for what the bridge can't do.

use super::*;

fn reason(outputs: &[Output]) -> Option<&str> {
    match outcome(outputs) {
        Outcome::Refused { reason } => Some(reason),
        Outcome::Resume { .. } | Outcome::Forked { .. } => None,
    }
}

#[test]
fn what_cannot_be_read_ends_the_session_and_refuses_for_a_while() {
    let mut journal = Journal::new(Lane::Events);
    journal.append(3, 0);
    let mut link = greeted(&journal, vec![]);
    let outputs = link.unreadable(at(10), "newer".into());
    assert!(asks_hello(&outputs), "so that the gateway hears of it at once");
    assert!(asks_hello(&link.batch(at(11), journal.batch(1, 0, 3))), "nothing is taken");
    let hello = |link: &mut Link, second, session| {
        link.hello(at(second), journal.hello(session, 0, 0), vec![])
    };
    for second in [11, 29] {
        assert_eq!(reason(&hello(&mut link, second, 2)), Some("newer"));
    }
    assert_eq!(reason(&hello(&mut link, 31, 3)), None, "it is tried again");
    assert_eq!(stored(&link.batch(at(31), journal.batch(3, 0, 3))), 3);
}

#[test]
fn without_a_session_nothing_is_said_that_would_be_answered() {
    let mut link = Link::new(gateway());
    for second in 0..5 {
        assert_eq!(link.unreadable(at(second), "newer".into()), []);
    }
}

#[test]
fn a_refusal_for_what_cannot_be_read_ends_also_where_the_clock_is_set_back() {
    let journal = Journal::new(Lane::Events);
    let mut link = greeted(&journal, vec![]);
    link.unreadable(at(86_400), "newer".into());
    let outputs = link.hello(at(5), journal.hello(2, 0, 0), vec![]);
    assert_eq!(reason(&outputs), None);
}

#[test]
fn who_is_turned_away_is_there_until_it_is_silent() {
    let journal = Journal::new(Lane::Events);
    let mut link = greeted(&journal, vec![]);
    assert!(!Link::new(gateway()).is_live(at(0)));
    assert_eq!((link.forget(at(0)), link.forget(at(0))), (Some(1), None));
    assert!(link.is_live(at(0)), "it was there");
    let refusal = link.turn_away(at(0), 2, store(1), "full".into());
    assert!(matches!(refusal, Frame::Resume(resume) if resume.session == 2));
    assert!(link.is_live(at(59)) && !link.is_live(at(60)));
    assert_eq!(link.session(), None);
}
