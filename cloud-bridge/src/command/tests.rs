use proptest::prelude::*;

use super::*;

const LIMIT: Duration = Duration::from_secs(120);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn command() -> Command {
    Command {
        id: "c-1".parse().unwrap(),
        agent: "hq".parse().unwrap(),
        command: "enroll".into(),
        params: Value::Null,
        sealed_params: None,
        status: CommandStatus::Pending,
        requester: Requester::ApiKey { name: "main".into() },
        created_at: at(0),
        expires_at: at(60),
        sent_at: None,
        received_at: None,
        started_at: None,
        finished_at: None,
        result: None,
        sealed_result: None,
        error: None,
        cancel_requested: false,
    }
}

fn finish(status: CommandStatus) -> Change {
    Change::Finished(Box::new(Finish {
        status,
        result: Some(serde_json::json!({"quality": 80})),
        sealed_result: None,
        error: None,
        finished_at: at(30),
    }))
}

fn tick(seconds: i64) -> Change {
    Change::Tick { now: at(seconds), run_limit: LIMIT }
}

fn run(changes: &[Change]) -> Command {
    changes.iter().fold(command(), |now, change| now.after(change).unwrap_or(now))
}

#[test]
fn what_is_given_up_does_not_go_down_again() {
    let sent = run(&[Change::Sent(at(1))]);
    assert!(sent.wants_sending(), "nobody has confirmed it");
    let given_up = run(&[Change::Sent(at(1)), Change::Cancel(at(2))]);
    assert!(given_up.cancel_requested && !given_up.wants_sending());
}

#[test]
fn each_way_ends_where_the_table_says() {
    use CommandStatus::*;
    let (sent, received, running) =
        (Change::Sent(at(1)), Change::Received(at(2)), Change::Running(at(3)));
    for (changes, status) in [
        (vec![], Pending),
        (vec![tick(59)], Pending),
        (vec![tick(60)], Expired),
        (vec![sent.clone()], Sent),
        (vec![sent.clone(), tick(65)], Sent),
        (vec![sent.clone(), tick(70)], Expired),
        (vec![sent.clone(), received.clone(), tick(70)], Sent),
        (vec![sent.clone(), received.clone(), tick(180)], Timeout),
        (vec![sent.clone(), running.clone()], Running),
        (vec![sent.clone(), running.clone(), tick(180)], Timeout),
        (vec![sent.clone(), running.clone(), finish(Completed)], Completed),
        (vec![sent.clone(), tick(70), finish(Completed)], Completed),
        (vec![running.clone(), tick(180), finish(Failed)], Failed),
        (vec![finish(Failed), finish(Completed)], Failed),
        (vec![Change::Cancel(at(1))], Cancelled),
        (vec![Change::Cancel(at(1)), sent.clone()], Cancelled),
        (vec![sent, Change::Cancel(at(2))], Sent),
    ] {
        assert_eq!(run(&changes).status, status, "{changes:?}");
    }
}

#[test]
fn a_received_command_is_not_sent_again() {
    assert!(command().wants_sending() && run(&[Change::Sent(at(1))]).wants_sending());
    assert!(!run(&[Change::Received(at(1))]).wants_sending());
}

#[test]
fn one_from_the_broker_stays_open_until_it_is_answered() {
    let mut asked = command();
    asked.requester = Requester::Mqtt { response_topic: None, correlation: None, answered: false };
    let ended = asked.after(&finish(CommandStatus::Completed)).unwrap();
    assert!(ended.is_open() && ended.wants_answer());
    assert!(!ended.after(&Change::Answered).unwrap().is_open());
}

fn any_change() -> impl Strategy<Value = Change> {
    (0..7u8, 0..300i64).prop_map(|(kind, second)| match kind {
        0 => Change::Sent(at(second)),
        1 => Change::Received(at(second)),
        2 => Change::Running(at(second)),
        3 => finish(CommandStatus::Completed),
        4 => finish(CommandStatus::Failed),
        5 => Change::Cancel(at(second)),
        _ => tick(second),
    })
}

proptest! {
    #[test]
    fn a_result_stays_and_only_an_end_has_a_time(changes in prop::collection::vec(any_change(), 0..12)) {
        let mut now = command();
        for change in &changes {
            let Some(next) = now.after(change) else { continue };
            let had_result = matches!(now.status, CommandStatus::Completed | CommandStatus::Failed);
            prop_assert!(!had_result, "{:?} changed to {:?} by {change:?}", now.status, next.status);
            prop_assert_eq!(next.status.is_final(), next.finished_at.is_some());
            now = next;
        }
    }
}
