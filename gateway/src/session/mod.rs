//! What one reader does, as a pure state machine: no I/O, no clock, no random numbers.
//!
//! [`Session`] takes what happens ([`Input`], [`Session::start`], [`Session::stop`]) together with
//! the time, and says what follows ([`Effects`]): events to commit, an answer to give once they
//! are committed, a calculation to run. [`Session::deadline`] says when it wants to be asked again.
//!
//! | state | left by | to |
//! |---|---|---|
//! | absent | plugged | idle |
//! | idle | start | waiting |
//! | | touch, mode `identify` | passing |
//! | | touch, mode `detect` | idle (reported) |
//! | | fault | faulty |
//! | waiting (for a finger) | touch of good quality | computing; idle (plain scan); waiting (enrolment, next placement) |
//! | | touch of poor quality, bad placement | idle; waiting (enrolment, the same placement again) |
//! | | deadline, stop | idle |
//! | | start by the owner of a scan session | waiting (the old one is stopped) |
//! | | fault | faulty |
//! | computing (merge, match, search) | its result, stop | idle |
//! | | fault | faulty |
//! | passing (idle touch being identified) | its result | idle |
//! | faulty | recovered, touch | idle |
//! | any | unplugged | absent |
//!
//! Each operation ends with exactly one of `scan:complete` (plain scan, enrolment),
//! `verification:result`, `identification:result`, `scan:error` or `scan:stopped`; after it come
//! only `fingerprint:enrolled` and the reader's own status.
//!
//! **One touch counts once.** After a touch has been taken, nothing else is until the finger was
//! lifted: a finger that stays on the sensor neither opens a door twice nor fills an enrolment.

mod computed;
mod enrolment;
pub(crate) mod events;
mod finger;
mod idle;
mod types;

use std::time::Duration;

use topics::{ErrorBody, ErrorCode, EventBody, ReaderId, ReaderInfo, ReaderState};

use enrolment::Enrolment;
pub use types::{
    Answer, Capture, Computed, Effects, Found, IdleMode, Input, Job, NewEnrolment, NewTemplate,
    Now, Origin, Outcome, Planned, Rules, Start, Task, TemplateBytes,
};

/// Placements of an enrolment.
pub const PLACEMENTS: u8 = 3;
/// What a client is told to wait before it asks a busy reader again, in seconds.
pub const RETRY_AFTER_S: u64 = 2;

/// One reader's state machine.
#[derive(Debug)]
pub struct Session {
    reader: ReaderId,
    rules: Rules,
    state: State,
    finger: Finger,
    /// As last told in an event; the machine's own state may be ahead within a step.
    told: ReaderState,
    /// A reader that is pulled out often fails a moment before it is gone: since when, and with what.
    failing: Option<(Duration, ErrorBody)>,
}

#[derive(Debug)]
enum State {
    Absent,
    Faulty(ErrorBody),
    Idle,
    Waiting(Operation, Goal),
    Computing(Operation, Computation),
    Passing(idle::Passing),
}

/// What is common to all operations.
#[derive(Debug, Clone, PartialEq)]
struct Operation {
    scan_id: String,
    origin: Origin,
    began: Duration,
    deadline: Duration,
}

/// What a finger is awaited for.
#[derive(Debug)]
enum Goal {
    Scan { session: bool, quality: u8 },
    Enroll(Enrolment),
    Verify { user_id: topics::UserId, references: Vec<TemplateBytes> },
    Identify { user_ids: Option<Vec<topics::UserId>> },
}

/// What is being calculated, with what the answer will need.
#[derive(Debug)]
enum Computation {
    Merge(Enrolment),
    Match { user_id: topics::UserId, quality: u8, captured: Duration },
    Search { quality: u8, captured: Duration },
}

/// The finger on the sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Finger {
    Off,
    /// On it, but without a usable image since then.
    Poor(Duration),
    /// Only told of, by an idle reader: an operation that starts now may take it.
    Seen,
    /// Taken: must be lifted before anything else is.
    Used,
}

impl Session {
    /// A reader that is not plugged in yet.
    pub fn new(reader: ReaderId, rules: Rules) -> Self {
        let (state, finger, told) = (State::Absent, Finger::Off, ReaderState::Disconnected);
        Self { reader, rules, state, finger, told, failing: None }
    }

    /// When [`Input::Tick`] is due, as time since boot.
    pub fn deadline(&self) -> Option<Duration> {
        let failing = self.failing.as_ref().map(|(since, _)| *since + self.rules.failing_grace);
        let State::Waiting(operation, _) = &self.state else { return failing };
        let poor = match self.finger {
            Finger::Poor(since) => Some(since + self.rules.poor_grace),
            Finger::Off | Finger::Seen | Finger::Used => None,
        };
        [Some(operation.deadline), poor, failing].into_iter().flatten().min()
    }

    /// Whether the sensor has to be watched.
    pub fn wants_finger(&self) -> bool {
        match &self.state {
            State::Absent => false,
            // Of a reader that nobody asks, nobody hears that it works again.
            State::Waiting(..) | State::Faulty(_) => true,
            State::Idle | State::Computing(..) | State::Passing(_) => {
                self.rules.idle_mode != IdleMode::Off || self.finger != Finger::Off
            }
        }
    }

    /// What the reader is doing.
    pub fn reader_state(&self) -> ReaderState {
        match &self.state {
            State::Absent => ReaderState::Disconnected,
            State::Faulty(_) => ReaderState::Error,
            State::Idle | State::Passing(_) => ReaderState::Idle,
            State::Waiting(..) | State::Computing(..) => ReaderState::Busy,
        }
    }

    /// Whether an operation can begin now (a session that its owner may replace does not count).
    pub fn is_free(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a calculation is awaited.
    pub fn is_computing(&self) -> bool {
        matches!(self.state, State::Computing(..) | State::Passing(_))
    }

    /// The running operation and whether a finger has been seen for it.
    pub fn running(&self) -> Option<(&str, bool)> {
        match &self.state {
            State::Waiting(operation, _) => {
                Some((&operation.scan_id, matches!(self.finger, Finger::Poor(_))))
            }
            State::Computing(operation, _) => Some((&operation.scan_id, true)),
            State::Absent | State::Faulty(_) | State::Idle | State::Passing(_) => None,
        }
    }

    /// Begins an operation, or says why not.
    pub fn start(&mut self, now: Now, start: Start) -> Result<Effects, ErrorBody> {
        let mut effects = Effects::default();
        match &self.state {
            State::Idle => {}
            State::Waiting(running, Goal::Scan { session: true, .. })
                if running.origin.owner == start.origin.owner
                    && !matches!(self.finger, Finger::Poor(_)) =>
            {
                self.stop_running("replaced", &mut effects);
            }
            State::Absent => return Err(events::absent(&self.reader)),
            State::Faulty(error) => return Err(error.clone()),
            State::Waiting(..) | State::Computing(..) | State::Passing(_) => {
                return Err(self.busy());
            }
        }
        self.begin(now, start, &mut effects);
        Ok(effects)
    }

    /// Ends the running operation if it is this one.
    pub fn stop(&mut self, scan_id: &str) -> Result<Effects, ErrorBody> {
        match self.running() {
            Some((running, _)) if running == scan_id => {
                let mut effects = Effects::default();
                self.stop_running("stopped", &mut effects);
                self.tell_status(&mut effects);
                Ok(effects)
            }
            Some(_) | None => Err(events::unknown_scan(scan_id)),
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Now, input: Input) -> Effects {
        let mut effects = Effects::default();
        match input {
            Input::Plugged(info) => self.plugged(*info, &mut effects),
            Input::Unplugged { reason } => self.unplugged(now, reason, &mut effects),
            Input::Fault(error) => self.failing(now, error, &mut effects),
            Input::Recovered => self.recovered(),
            Input::Touch(capture) => self.touch(now, capture, &mut effects),
            Input::BadPlacement => self.bad_placement(now),
            Input::Lifted => self.lifted(&mut effects),
            Input::Computed(result) => self.computed(now, result, &mut effects),
            Input::Tick => self.tick(now, &mut effects),
        }
        self.tell_status(&mut effects);
        effects
    }

    /// Ends what is running without an event: what had to be committed for it could not be.
    pub fn abort(&mut self, error: &ErrorBody) -> Vec<Answer> {
        let running = self.take_running();
        if matches!(self.state, State::Passing(_)) {
            self.state = State::Idle;
        }
        self.told = self.reader_state();
        let answer = |operation: Operation| Answer {
            scan_id: operation.scan_id,
            result: Err(error.clone()),
        };
        running.map(answer).into_iter().collect()
    }

    // ---- starting and ending ----------------------------------------------------------------

    fn begin(&mut self, now: Now, start: Start, effects: &mut Effects) {
        let (wait, goal) = match start.task {
            Task::Scan { session, wait, quality } => {
                let default = if session { self.rules.scan_wait } else { self.rules.capture_wait };
                let quality = quality.unwrap_or(self.rules.scan_quality);
                (wait.unwrap_or(default), Goal::Scan { session, quality })
            }
            Task::Enroll(enrolment) => {
                (self.rules.enroll_wait, Goal::Enroll(Enrolment::new(*enrolment)))
            }
            Task::Verify { user_id, references } => {
                (self.rules.capture_wait, Goal::Verify { user_id, references })
            }
            Task::Identify { user_ids } => (self.rules.capture_wait, Goal::Identify { user_ids }),
        };
        let operation = Operation {
            scan_id: start.scan_id,
            origin: start.origin,
            began: now.uptime,
            deadline: now.uptime + wait,
        };
        match &mut self.finger {
            Finger::Poor(since) => *since = now.uptime,
            Finger::Seen => {
                self.finger = Finger::Off;
                effects.recapture = true;
            }
            Finger::Off | Finger::Used => {}
        }
        self.emit(effects, &operation, |device_id, scan_id| EventBody::ScanStarted {
            device_id,
            scan_id,
        });
        let asks_for_finger = matches!(goal, Goal::Enroll(_));
        self.state = State::Waiting(operation.clone(), goal);
        self.tell_status(effects);
        if asks_for_finger {
            effects.events.push(events::prompt(&self.reader, &operation));
        }
    }

    fn stop_running(&mut self, reason: &str, effects: &mut Effects) {
        let code = match &self.state {
            State::Waiting(_, Goal::Enroll(_)) | State::Computing(_, Computation::Merge(_)) => {
                ErrorCode::EnrollmentFailed
            }
            State::Waiting(_, Goal::Scan { .. } | Goal::Verify { .. } | Goal::Identify { .. })
            | State::Computing(_, Computation::Match { .. } | Computation::Search { .. })
            | State::Absent
            | State::Faulty(_)
            | State::Idle
            | State::Passing(_) => ErrorCode::NoFingerprintDetected,
        };
        let Some(operation) = self.take_running() else { return };
        self.emit(effects, &operation, |device_id, scan_id| EventBody::ScanStopped {
            device_id,
            scan_id,
        });
        let error = ErrorBody::new(code, format!("The scan was {reason}")).with("reason", reason);
        effects.answer(&operation, Err(error));
    }

    /// Ends the running operation with an error event and answer.
    fn end_failed(&mut self, operation: &Operation, error: ErrorBody, effects: &mut Effects) {
        let error = error.with("deviceId", self.reader.as_str());
        effects.events.push(events::failed(&self.reader, operation, &error));
        effects.answer(operation, Err(error));
    }

    /// Ends the running operation well; its last event is already in `effects`.
    fn end_well(&mut self, operation: &Operation, outcome: Outcome, effects: &mut Effects) {
        effects.answer(operation, Ok(outcome));
    }

    /// The running operation; the reader is idle afterwards.
    fn take_running(&mut self) -> Option<Operation> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(operation, _) | State::Computing(operation, _) => Some(operation),
            other @ (State::Absent | State::Faulty(_) | State::Idle | State::Passing(_)) => {
                self.state = other;
                None
            }
        }
    }

    fn busy(&self) -> ErrorBody {
        let current = match &self.state {
            State::Waiting(_, Goal::Enroll(_)) | State::Computing(_, Computation::Merge(_)) => {
                "enrollment"
            }
            State::Waiting(_, Goal::Verify { .. })
            | State::Computing(_, Computation::Match { .. }) => "verification",
            State::Waiting(_, Goal::Identify { .. })
            | State::Computing(_, Computation::Search { .. })
            | State::Passing(_) => "identification",
            State::Waiting(_, Goal::Scan { .. })
            | State::Absent
            | State::Faulty(_)
            | State::Idle => "scan",
        };
        events::busy(&self.reader, current)
    }

    // ---- the reader itself --------------------------------------------------------------------

    fn plugged(&mut self, info: ReaderInfo, effects: &mut Effects) {
        if !matches!(self.state, State::Absent) {
            return self.recovered();
        }
        (self.state, self.finger, self.told) = (State::Idle, Finger::Off, ReaderState::Idle);
        let device = ReaderInfo { status: ReaderState::Idle, ..info };
        let device_id = self.reader.clone();
        effects.events.push(Planned::of_reader(EventBody::DeviceConnected { device_id, device }));
    }

    fn unplugged(&mut self, now: Now, reason: Option<String>, effects: &mut Effects) {
        if matches!(self.state, State::Absent) {
            return;
        }
        let passing = self.take_passing();
        let running = self.take_running();
        self.failing = None;
        (self.state, self.finger, self.told) =
            (State::Absent, Finger::Off, ReaderState::Disconnected);
        let device_id = self.reader.clone();
        effects
            .events
            .push(Planned::of_reader(EventBody::DeviceDisconnected { device_id, reason }));
        if let Some(operation) = running {
            self.end_failed(&operation, events::lost(), effects);
        }
        if let Some(passing) = passing {
            self.passing_failed(now, &passing, &events::lost(), effects);
        }
    }

    /// Only an operation that waits makes it worth while to see whether the reader goes.
    fn failing(&mut self, now: Now, error: ErrorBody, effects: &mut Effects) {
        match &self.state {
            State::Waiting(..) | State::Computing(..) => {
                self.failing.get_or_insert((now.uptime, error));
            }
            State::Absent | State::Faulty(_) | State::Idle | State::Passing(_) => {
                self.fault(now, &error, effects);
            }
        }
    }

    fn fault(&mut self, now: Now, error: &ErrorBody, effects: &mut Effects) {
        self.failing = None;
        if matches!(self.state, State::Absent) {
            return;
        }
        if let Some(operation) = self.take_running() {
            self.end_failed(&operation, error.clone(), effects);
        }
        if let Some(passing) = self.take_passing() {
            self.passing_failed(now, &passing, error, effects);
        }
        self.state = State::Faulty(error.clone());
    }

    fn recovered(&mut self) {
        self.failing = None;
        if matches!(self.state, State::Faulty(_)) {
            self.state = State::Idle;
        }
    }

    // ---- telling --------------------------------------------------------------------------------

    fn detected(&self, operation: &Operation, quality: u8, effects: &mut Effects) {
        self.emit(effects, operation, |device_id, scan_id| EventBody::FingerprintDetected {
            device_id,
            scan_id,
            quality,
        });
    }

    fn emit(
        &self,
        effects: &mut Effects,
        operation: &Operation,
        body: impl FnOnce(ReaderId, String) -> EventBody,
    ) {
        let body = body(self.reader.clone(), operation.scan_id.clone());
        effects.events.push(Planned::of(operation, body));
    }

    /// Tells a change between idle, busy and error; coming and going have events of their own.
    fn tell_status(&mut self, effects: &mut Effects) {
        let status = self.reader_state();
        if status == self.told || status == ReaderState::Disconnected {
            return;
        }
        let previous_status = std::mem::replace(&mut self.told, status);
        let device_id = self.reader.clone();
        let body = EventBody::DeviceStatus { device_id, status, previous_status };
        effects.events.push(Planned::of_reader(body));
    }
}

impl Operation {
    fn age_ms(&self, now: Now) -> u64 {
        now.millis_since(self.began)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
