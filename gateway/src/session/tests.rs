//! The documented orders of events, as tables.

use std::time::Duration;

use serde_json::Map;
use topics::{
    ErrorBody, ErrorCode, EventBody, ReaderInfo, ReaderState, Timestamp, UserId, record::Cause,
};

use super::*;
use crate::journal::Owner;

/// A session with its clock, and what it told, in short.
pub(super) struct Bench {
    pub(super) session: Session,
    uptime: Duration,
    pub(super) told: Vec<String>,
    pub(super) answers: Vec<Answer>,
    pub(super) stored: Vec<NewTemplate>,
    pub(super) job: Option<Job>,
}

impl Bench {
    pub(super) fn unplugged(rules: Rules) -> Self {
        let session = Session::new("device-001".parse().unwrap(), rules);
        let uptime = Duration::from_secs(100);
        let (told, answers, stored) = (Vec::new(), Vec::new(), Vec::new());
        Self { session, uptime, told, answers, stored, job: None }
    }

    fn new(idle_mode: IdleMode) -> Self {
        let mut bench = Self::unplugged(Rules { idle_mode, ..Rules::default() });
        bench.input(plugged());
        assert_eq!(bench.drain(), ["device:connected"]);
        bench
    }

    pub(super) fn now(&self) -> Now {
        let millis = 1_000_000 + self.uptime.as_millis() as i64;
        Now { wall: Timestamp::from_millis(millis), uptime: self.uptime }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.uptime += time;
    }

    pub(super) fn take(&mut self, effects: Effects) {
        self.told.extend(effects.events.iter().map(short));
        self.answers.extend(effects.answers);
        self.stored.extend(effects.store);
        if effects.job.is_some() {
            self.job = effects.job;
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.pass(Duration::from_millis(10));
        let now = self.now();
        let effects = self.session.handle(now, input);
        self.take(effects);
    }

    pub(super) fn start(&mut self, scan_id: &str, owner: &str, task: Task) -> Result<(), u16> {
        let origin = Origin { owner: Owner::ApiKey(owner.to_owned()), cause: Cause::default() };
        let start = Start { scan_id: scan_id.to_owned(), origin, task };
        let effects = self.session.start(self.now(), start).map_err(|error| error.code)?;
        self.take(effects);
        Ok(())
    }

    fn touch(&mut self, quality: u8) {
        self.input(Input::Touch(capture(quality)));
    }

    fn place(&mut self, quality: u8) {
        self.touch(quality);
        self.input(Input::Lifted);
    }

    fn drain(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn answer(&mut self) -> Result<Outcome, u16> {
        assert_eq!(self.answers.len(), 1, "one answer");
        self.answers.remove(0).result.map_err(|error| error.code)
    }
}

fn short(planned: &Planned) -> String {
    let name = planned.body.event_type().as_str();
    let secret = if planned.template.is_some() { " +template" } else { "" };
    match &planned.body {
        EventBody::DeviceStatus { status, previous_status, .. } => {
            format!("{name} {previous_status:?}>{status:?}")
        }
        EventBody::ScanProgress { scans_completed, .. } => format!("{name} {scans_completed}"),
        EventBody::IdentificationSearching { progress, .. } => format!("{name} {progress}"),
        EventBody::ScanError { code, retryable, .. } => {
            format!("{name} {code}{}", if *retryable { " retryable" } else { "" })
        }
        EventBody::VerificationResult { r#match, .. }
        | EventBody::IdentificationResult { r#match, .. } => format!("{name} {match}"),
        EventBody::AccessDenied { reason, .. } => format!("{name} {reason}"),
        EventBody::ScanComplete { placements: Some(_), .. } => format!("{name} 3 of 3{secret}"),
        _ => format!("{name}{secret}"),
    }
}

pub(super) fn plugged() -> Input {
    Input::Plugged(Box::new(ReaderInfo {
        id: "device-001".parse().unwrap(),
        name: "Model".into(),
        serial_number: "SN-1".into(),
        model: "Model".into(),
        status: ReaderState::Busy,
        firmware_version: "1".into(),
    }))
}

pub(super) fn user() -> UserId {
    "user-1".parse().unwrap()
}

pub(super) fn capture(quality: u8) -> Capture {
    Capture { quality, template: vec![quality].into(), handout: vec![quality, 1].into() }
}

pub(super) fn scan() -> Task {
    Task::Scan { session: true, wait: None, quality: None }
}

fn blocking_capture() -> Task {
    Task::Scan { session: false, wait: None, quality: None }
}

pub(super) fn enroll() -> Task {
    Task::Enroll(Box::new(NewEnrolment {
        user_id: user(),
        metadata: Map::new(),
        enrollment_id: "enroll-1".into(),
        template_id: "template-1".into(),
    }))
}

pub(super) fn verify() -> Task {
    Task::Verify { user_id: user(), references: vec![vec![7].into()] }
}

pub(super) fn identify() -> Task {
    Task::Identify { user_ids: None }
}

pub(super) fn found() -> Computed {
    Computed::Searched(Some(Found {
        user_id: user(),
        template_id: "template-1".into(),
        confidence: 92.5,
    }))
}

pub(super) fn fault() -> Input {
    Input::Fault(ErrorBody::new(ErrorCode::DeviceTimeout, "no answer"))
}

#[test]
fn a_plain_scan_is_told_as_documented() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", scan()).unwrap();
    assert_eq!(bench.drain(), ["scan:started", "device:status Idle>Busy"]);
    bench.touch(80);
    assert_eq!(
        bench.drain(),
        ["fingerprint:detected", "scan:complete +template", "device:status Busy>Idle"]
    );
    let Ok(Outcome::Scanned { template, quality: 80, scan_time_ms: 10 }) = bench.answer() else {
        panic!("not scanned")
    };
    assert_eq!(*template, [80, 1], "the caller gets the marked template");
}

#[test]
fn an_enrolment_is_told_as_documented_and_stored_with_its_events() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", enroll()).unwrap();
    bench.place(61);
    bench.place(71);
    bench.place(81);
    assert_eq!(
        bench.drain(),
        [
            "scan:started",
            "device:status Idle>Busy",
            "scan:progress 0",
            "fingerprint:detected",
            "scan:progress 1",
            "fingerprint:detected",
            "scan:progress 2",
            "fingerprint:detected",
        ]
    );
    let Some(Job::Merge(placements)) = bench.job.take() else { panic!("no merge") };
    assert_eq!(placements.map(|t| t[0]), [61, 71, 81], "unmarked templates are merged");
    assert!(bench.stored.is_empty());
    bench.input(Input::Computed(Computed::Merged(vec![9].into())));
    assert_eq!(
        bench.drain(),
        ["scan:complete 3 of 3 +template", "fingerprint:enrolled", "device:status Busy>Idle"]
    );
    let Ok(Outcome::Enrolled { quality: 71, .. }) = bench.answer() else { panic!("no answer") };
    assert_eq!(bench.stored.len(), 1);
    assert_eq!(*bench.stored[0].template, [9]);
}

#[test]
fn a_poor_placement_is_repeated_three_times_at_most() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", enroll()).unwrap();
    bench.place(90);
    for _ in 0..3 {
        bench.place(59);
    }
    bench.place(90);
    for _ in 0..3 {
        bench.place(59);
    }
    let progress: Vec<_> =
        bench.drain().into_iter().filter(|told| told.starts_with("scan:progress")).collect();
    let counts: Vec<_> = progress.iter().map(|told| &told["scan:progress ".len()..]).collect();
    assert_eq!(counts, ["0", "1", "1", "1", "1", "2", "2", "2", "2"]);
    bench.place(59);
    assert_eq!(
        bench.drain(),
        ["fingerprint:detected", "scan:error 2001 retryable", "device:status Busy>Idle"]
    );
    assert_eq!(bench.answer().unwrap_err(), 2001);
}

#[test]
fn placements_of_different_fingers_do_not_enrol() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", enroll()).unwrap();
    (0..3).for_each(|_| bench.place(90));
    bench.drain();
    let error = ErrorBody::new(ErrorCode::EnrollmentFailed, "placements do not agree");
    bench.input(Input::Computed(Computed::Failed(error)));
    assert_eq!(bench.drain(), ["scan:error 2005 retryable", "device:status Busy>Idle"]);
    let error = bench.answers.remove(0).result.unwrap_err();
    assert_eq!(error.details["scansCompleted"], 3);
    assert_eq!(error.details["scansRequired"], 3);
    assert!(bench.stored.is_empty());
}

#[test]
fn a_verification_is_told_as_documented() {
    for (score, matched) in [(50, true), (49, false)] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", verify()).unwrap();
        bench.touch(50);
        assert_eq!(
            bench.drain(),
            ["scan:started", "device:status Idle>Busy", "fingerprint:detected", "scan:complete"]
        );
        let probe: TemplateBytes = vec![50].into();
        assert_eq!(bench.job, Some(Job::Match { references: vec![vec![7].into()], probe }));
        bench.input(Input::Computed(Computed::Compared { score, threshold: 50 }));
        let result = format!("verification:result {matched}");
        assert_eq!(bench.drain(), [result.as_str(), "device:status Busy>Idle"]);
        let Ok(Outcome::Verified { matched: answered, quality: Some(50), .. }) = bench.answer()
        else {
            panic!("not verified")
        };
        assert_eq!(answered, matched);
    }
}

#[test]
fn an_identification_is_told_as_documented() {
    for (result, matched) in [(found(), true), (Computed::Searched(None), false)] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", identify()).unwrap();
        bench.touch(50);
        bench.drain();
        bench.input(Input::Computed(result));
        let told = format!("identification:result {matched}");
        assert_eq!(
            bench.drain(),
            ["identification:searching 100", told.as_str(), "device:status Busy>Idle"]
        );
        let Ok(Outcome::Identified { user_id, .. }) = bench.answer() else { panic!("no answer") };
        assert_eq!(user_id.is_some(), matched);
    }
}

#[test]
fn without_a_finger_it_times_out_when_it_is_due_and_not_before() {
    for (task, seconds) in
        [(scan(), 30), (blocking_capture(), 25), (verify(), 25), (identify(), 25), (enroll(), 28)]
    {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", task).unwrap();
        bench.drain();
        let due = bench.session.deadline().unwrap();
        assert_eq!(due - bench.uptime, Duration::from_secs(seconds));
        bench.input(Input::Tick);
        assert!(bench.drain().is_empty(), "not due yet");
        bench.uptime = due;
        bench.input(Input::Tick);
        assert_eq!(bench.drain(), ["scan:timeout", "scan:error 2002", "device:status Busy>Idle"]);
        assert_eq!(bench.answer().unwrap_err(), 2002);
        assert_eq!(bench.session.deadline(), None);
    }
}

#[test]
fn a_poor_image_ends_a_scan() {
    for task in [scan(), verify(), identify()] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", task).unwrap();
        bench.drain();
        bench.touch(49);
        assert_eq!(
            bench.drain(),
            ["fingerprint:detected", "scan:error 2001 retryable", "device:status Busy>Idle"]
        );
        assert_eq!(bench.answer().unwrap_err(), 2001);
    }
}

#[test]
fn a_finger_without_a_usable_image_fails_when_lifted_or_after_a_grace() {
    for lifted in [true, false] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", scan()).unwrap();
        bench.drain();
        bench.input(Input::BadPlacement);
        assert!(bench.drain().is_empty(), "the next image may be better");
        if lifted {
            bench.input(Input::Lifted);
        } else {
            bench.uptime = bench.session.deadline().unwrap();
            bench.input(Input::Tick);
        }
        assert_eq!(bench.drain(), ["scan:error 2003 retryable", "device:status Busy>Idle"]);
    }
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", scan()).unwrap();
    bench.input(Input::BadPlacement);
    bench.drain();
    bench.touch(90);
    assert_eq!(bench.drain()[1], "scan:complete +template", "the next image was better");
}

#[test]
fn a_finger_that_stays_counts_once() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", identify()).unwrap();
    bench.touch(90);
    bench.input(Input::Computed(found()));
    bench.drain();
    bench.start("scan-2", "a", identify()).unwrap();
    bench.drain();
    bench.touch(90);
    assert!(bench.drain().is_empty(), "still the first touch");
    bench.input(Input::Lifted);
    bench.touch(90);
    assert_eq!(bench.drain()[..2], ["fingerprint:detected", "scan:complete"]);
}

#[test]
fn a_stopped_operation_says_so() {
    for (task, code) in [(scan(), 2002), (enroll(), 2005), (verify(), 2002), (identify(), 2002)] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", task).unwrap();
        bench.drain();
        assert_eq!(bench.session.stop("scan-2").unwrap_err().code, 3004);
        let effects = bench.session.stop("scan-1").unwrap();
        bench.take(effects);
        assert_eq!(bench.drain(), ["scan:stopped", "device:status Busy>Idle"]);
        assert_eq!(bench.answer().unwrap_err(), code);
        assert_eq!(bench.session.stop("scan-1").unwrap_err().code, 3004);
    }
}

#[test]
fn only_its_owner_replaces_a_waiting_session_and_nothing_else() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", scan()).unwrap();
    bench.drain();
    assert_eq!(bench.start("scan-2", "b", scan()), Err(1002));
    bench.start("scan-3", "a", scan()).unwrap();
    assert_eq!(bench.drain(), ["scan:stopped", "scan:started"], "busy before and after");
    assert_eq!(bench.answers.remove(0).result.unwrap_err().details["reason"], "replaced");
    for task in [blocking_capture(), enroll(), verify(), identify()] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", task).unwrap();
        assert_eq!(bench.start("scan-2", "a", scan()), Err(1002), "somebody waits for it");
    }
}

#[test]
fn a_lost_reader_ends_what_runs() {
    for computing in [false, true] {
        let mut bench = Bench::new(IdleMode::Off);
        bench.start("scan-1", "a", verify()).unwrap();
        if computing {
            bench.touch(90);
        }
        bench.drain();
        bench.input(Input::Unplugged { reason: None });
        assert_eq!(bench.drain(), ["device:disconnected", "scan:error 1003"]);
        assert_eq!(bench.answer().unwrap_err(), 1003);
        assert_eq!(bench.start("scan-2", "a", scan()), Err(1003));
        bench.input(plugged());
        assert_eq!(bench.drain(), ["device:connected"]);
        bench.start("scan-3", "a", scan()).unwrap();
    }
}

#[test]
fn a_reader_that_fails_is_in_error_until_it_recovers() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", scan()).unwrap();
    bench.drain();
    bench.input(fault());
    assert!(bench.drain().is_empty(), "it may be on its way out");
    bench.uptime = bench.session.deadline().unwrap();
    bench.input(Input::Tick);
    assert_eq!(bench.drain(), ["scan:error 1005 retryable", "device:status Busy>Error"]);
    assert_eq!(bench.start("scan-2", "a", scan()), Err(1005));
    assert!(bench.session.wants_finger(), "to hear that it works again");
    bench.input(Input::Recovered);
    assert_eq!(bench.drain(), ["device:status Error>Idle"]);
    bench.start("scan-3", "a", scan()).unwrap();
}

#[test]
fn a_reader_that_fails_while_it_is_pulled_out_is_lost_and_one_that_stutters_goes_on() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", scan()).unwrap();
    bench.drain();
    bench.input(fault());
    bench.input(Input::Unplugged { reason: None });
    assert_eq!(bench.drain(), ["device:disconnected", "scan:error 1003"]);
    bench.input(plugged());
    bench.start("scan-2", "a", scan()).unwrap();
    bench.drain();
    bench.input(fault());
    bench.input(Input::Recovered);
    bench.touch(90);
    assert_eq!(bench.drain()[1], "scan:complete +template");
}

#[test]
fn an_idle_touch_is_identified_and_decided() {
    let mut bench = Bench::new(IdleMode::Identify);
    for (result, told) in [
        (found(), ["identification:result true", "access:granted"]),
        (Computed::Searched(None), ["identification:result false", "access:denied no match"]),
    ] {
        bench.touch(90);
        assert_eq!(bench.drain(), ["fingerprint:detected", "scan:complete"]);
        bench.input(Input::Computed(result));
        assert_eq!(bench.drain(), told);
        bench.touch(90);
        assert!(bench.drain().is_empty(), "a finger that stays does not open the door again");
        bench.input(Input::Lifted);
    }
    let error = ErrorBody::new(ErrorCode::DeviceDisconnected, "engine gone");
    bench.touch(90);
    bench.input(Input::Computed(Computed::Failed(error)));
    assert_eq!(bench.drain()[2..], ["scan:error 1003", "access:denied engine gone"]);
}

#[test]
fn a_touch_that_cannot_be_identified_any_more_is_refused() {
    let lost = ["device:disconnected", "scan:error 1003"];
    let failed =
        ["scan:error 1005 retryable", "access:denied no answer", "device:status Idle>Error"];
    for (input, told) in [(Input::Unplugged { reason: None }, &lost[..]), (fault(), &failed[..])] {
        let mut bench = Bench::new(IdleMode::Identify);
        bench.touch(90);
        bench.drain();
        bench.input(input);
        let now_told = bench.drain();
        assert_eq!(now_told[..told.len()], *told);
        assert!(now_told.iter().any(|told| told.starts_with("access:denied")));
    }
}

#[test]
fn an_idle_touch_is_only_told_or_not_even_that() {
    let mut bench = Bench::new(IdleMode::Detect);
    bench.touch(20);
    assert_eq!(bench.drain(), ["fingerprint:detected"]);
    let mut bench = Bench::new(IdleMode::Off);
    assert!(!bench.session.wants_finger());
    bench.touch(90);
    assert!(bench.drain().is_empty());
    assert!(bench.session.wants_finger(), "to see it lifted");
}

#[test]
fn a_touch_that_was_only_told_of_can_still_be_taken() {
    let mut bench = Bench::new(IdleMode::Detect);
    bench.touch(90);
    let origin = Origin { owner: Owner::Admin, cause: Cause::default() };
    let start = Start { scan_id: "scan-1".into(), origin, task: scan() };
    let effects = bench.session.start(bench.now(), start).unwrap();
    assert!(effects.recapture);
    bench.drain();
    bench.touch(91);
    assert_eq!(bench.drain()[1], "scan:complete +template");
}

#[test]
fn a_failed_commit_ends_what_runs_without_an_event() {
    let mut bench = Bench::new(IdleMode::Off);
    bench.start("scan-1", "a", verify()).unwrap();
    let error = ErrorBody::new(ErrorCode::ServiceUnavailable, "the disk is full");
    let answers = bench.session.abort(&error);
    assert_eq!(answers[0].result, Err(error));
    assert!(bench.session.is_free());
}
