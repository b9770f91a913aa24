//! Any order of inputs keeps the promises of the module's documentation.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use topics::{EventBody, EventType, ReaderState};

use super::{
    tests::{Bench, capture, enroll, fault, found, identify, plugged, scan, user, verify},
    *,
};

#[derive(Debug, Clone)]
enum Step {
    Start { owner: u8, task: u8 },
    StopRunning,
    Plugged,
    Unplugged,
    Fault,
    Recovered,
    Touch(u8),
    BadPlacement,
    Lifted,
    Finish { well: bool },
    Pass(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..2u8, 0..5u8).prop_map(|(owner, task)| Step::Start { owner, task }),
        1 => Just(Step::StopRunning),
        2 => Just(Step::Plugged),
        1 => Just(Step::Unplugged),
        1 => Just(Step::Fault),
        1 => Just(Step::Recovered),
        8 => (0..=100u8).prop_map(Step::Touch),
        1 => Just(Step::BadPlacement),
        8 => Just(Step::Lifted),
        6 => any::<bool>().prop_map(|well| Step::Finish { well }),
        3 => (0..40_000u32).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// Watches the promises over one run.
struct Watch {
    bench: Bench,
    /// Begun operations and whether they have ended.
    operations: HashMap<String, bool>,
    status: ReaderState,
    answered: usize,
    /// Idle touches that were taken to be identified, and whether they were decided on.
    touches: HashMap<String, bool>,
}

impl Watch {
    fn apply(&mut self, number: usize, step: Step) {
        let bench = &mut self.bench;
        bench.pass(Duration::from_millis(1));
        let now = bench.now();
        let effects = match step {
            Step::Start { owner, task } => {
                let owner = crate::journal::Owner::ApiKey(owner.to_string());
                let origin = Origin { owner, cause: Default::default() };
                let task = match task {
                    0 => scan(),
                    1 => enroll(),
                    2 => verify(),
                    3 => identify(),
                    _ => Task::Scan { session: false, wait: None, quality: None },
                };
                let scan_id = format!("scan-{number}");
                match bench.session.start(now, Start { scan_id, origin, task }) {
                    Ok(effects) => effects,
                    Err(_) => return,
                }
            }
            Step::StopRunning => {
                let Some(id) = bench.session.running().map(|(id, _)| id.to_owned()) else { return };
                bench.session.stop(&id).unwrap()
            }
            Step::Plugged => bench.session.handle(now, plugged()),
            Step::Unplugged => bench.session.handle(now, Input::Unplugged { reason: None }),
            Step::Fault => bench.session.handle(now, fault()),
            Step::Recovered => bench.session.handle(now, Input::Recovered),
            Step::Touch(quality) => bench.session.handle(now, Input::Touch(capture(quality))),
            Step::BadPlacement => bench.session.handle(now, Input::BadPlacement),
            Step::Lifted => bench.session.handle(now, Input::Lifted),
            Step::Finish { well } => self.finish(now, well),
            Step::Pass(millis) => {
                bench.pass(Duration::from_millis(millis.into()));
                let now = bench.now();
                bench.session.handle(now, Input::Tick)
            }
        };
        self.check(effects);
    }

    /// What the engine would answer; nothing is due: a result that comes too late.
    fn finish(&mut self, now: Now, well: bool) -> Effects {
        let error =
            || Computed::Failed(topics::ErrorBody::new(topics::ErrorCode::MatchFailed, "x"));
        let job = self.bench.job.take();
        let result = match job {
            Some(Job::Merge(_)) if well => Computed::Merged(vec![1].into()),
            Some(Job::Match { .. }) if well => Computed::Compared { score: 60, threshold: 50 },
            Some(Job::Search { .. }) if well => found(),
            Some(Job::Merge(_) | Job::Match { .. } | Job::Search { .. }) => error(),
            None => return Effects::default(),
        };
        self.bench.session.handle(now, Input::Computed(result))
    }

    fn check(&mut self, effects: Effects) {
        for planned in &effects.events {
            self.check_event(&planned.body, planned.origin.is_some());
        }
        for answer in &effects.answers {
            assert!(self.operations[&answer.scan_id], "answered before its end was told");
        }
        self.answered += effects.answers.len();
        if let Some(stored) = &effects.store {
            assert_eq!(stored.user_id, user());
            let told = effects
                .events
                .iter()
                .any(|planned| planned.body.event_type() == EventType::FingerprintEnrolled);
            assert!(told, "stored and told together");
        }
        if !self.bench.session.is_computing() {
            self.bench.job = None; // as the driver does: nobody waits for it
        }
        self.bench.take(effects);
        assert_eq!(self.status, self.bench.session.reader_state(), "told as it is");
        let running = self.operations.values().filter(|ended| !**ended).count();
        let busy = self.bench.session.reader_state() == ReaderState::Busy;
        assert_eq!(running, usize::from(busy), "one operation at a time, and none forgotten");
    }

    fn check_event(&mut self, body: &EventBody, of_operation: bool) {
        match body {
            EventBody::DeviceConnected { .. } => self.status = ReaderState::Idle,
            EventBody::DeviceDisconnected { .. } => self.status = ReaderState::Disconnected,
            EventBody::DeviceStatus { status, previous_status, .. } => {
                assert_eq!(*previous_status, self.status);
                self.status = *status;
            }
            _ => {}
        }
        if !of_operation {
            return self.check_touch(body);
        }
        let scan_id = scan_id(body).expect("every event of an operation names it");
        if let EventBody::ScanStarted { .. } = body {
            assert_eq!(self.operations.insert(scan_id, false), None);
            return;
        }
        let ended = self.operations[&scan_id];
        match body {
            EventBody::FingerprintEnrolled { .. } => assert!(ended),
            _ => assert!(!ended, "{:?} after the end of {scan_id}", body.event_type()),
        }
        self.operations.insert(scan_id, ended || is_terminal(body));
    }
}

impl Watch {
    /// Every touch that is taken is decided on, once.
    fn check_touch(&mut self, body: &EventBody) {
        match body {
            EventBody::ScanComplete { scan_id, .. } => {
                assert_eq!(self.touches.insert(scan_id.clone(), false), None);
            }
            EventBody::AccessGranted { scan_id, .. } | EventBody::AccessDenied { scan_id, .. } => {
                assert_ne!(self.touches.insert(scan_id.clone(), true), Some(true));
            }
            _ => {}
        }
    }
}

fn scan_id(body: &EventBody) -> Option<String> {
    let json = serde_json::to_value(body).unwrap();
    json.get("scanId")?.as_str().map(str::to_owned)
}

fn is_terminal(body: &EventBody) -> bool {
    match body {
        EventBody::ScanError { .. }
        | EventBody::ScanStopped { .. }
        | EventBody::VerificationResult { .. }
        | EventBody::IdentificationResult { .. } => true,
        // Of a verification or identification it has no template and is a step.
        EventBody::ScanComplete { template_sha256, .. } => template_sha256.is_some(),
        _ => false,
    }
}

proptest! {
    #[test]
    fn every_operation_ends_once_and_the_reader_is_free_again(
        steps in steps(),
        mode in prop_oneof![Just(IdleMode::Identify), Just(IdleMode::Detect), Just(IdleMode::Off)],
    ) {
        let rules = Rules { idle_mode: mode, ..Rules::default() };
        let mut watch = Watch {
            bench: Bench::unplugged(rules),
            operations: HashMap::new(),
            status: ReaderState::Disconnected,
            answered: 0,
            touches: HashMap::new(),
        };
        for (number, step) in steps.into_iter().enumerate() {
            watch.apply(number, step);
        }
        // Whatever happened: with a working engine and enough time everything comes to its end.
        for step in [Step::Finish { well: true }, Step::Pass(60_000), Step::Pass(60_000)] {
            watch.apply(usize::MAX, step);
        }
        prop_assert!(watch.operations.values().all(|ended| *ended));
        prop_assert!(watch.touches.values().all(|decided| *decided));
        prop_assert_eq!(watch.answered, watch.operations.len());
        prop_assert!(watch.bench.session.deadline().is_none());
    }

    #[test]
    fn without_lifting_nothing_is_taken_twice(touches in 2..20usize, mode in any::<bool>()) {
        let idle_mode = if mode { IdleMode::Identify } else { IdleMode::Off };
        let mut bench = Bench::unplugged(Rules { idle_mode, ..Rules::default() });
        bench.input(plugged());
        for number in 0..touches {
            let _ = bench.start(&format!("scan-{number}"), "a", identify());
            bench.input(Input::Touch(capture(90)));
            if bench.job.take().is_some() {
                bench.input(Input::Computed(found()));
            }
            if let Some((id, _)) = bench.session.running() {
                let id = id.to_owned();
                let effects = bench.session.stop(&id).unwrap();
                bench.take(effects);
            }
        }
        let results = bench.told.iter().filter(|told| told.starts_with("identification:result"));
        prop_assert_eq!(results.count(), 1);
    }
}
