//! What a finger on the sensor does to an operation that waits for it.

use topics::ErrorBody;

use super::{
    Capture, Computation, Effects, Finger, Goal, Job, Now, Operation, Outcome, Session, State,
    events,
};

impl Session {
    pub(super) fn touch(&mut self, now: Now, capture: Capture, effects: &mut Effects) {
        self.recovered();
        self.tell_status(effects);
        match self.finger {
            Finger::Used | Finger::Seen => return,
            Finger::Off | Finger::Poor(_) => self.finger = Finger::Used,
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(operation, goal) => {
                self.detected(&operation, capture.quality, effects);
                self.captured(now, operation, goal, capture, effects);
            }
            State::Idle => self.idle_touch(now, capture, effects),
            other @ (State::Absent
            | State::Faulty(_)
            | State::Computing(..)
            | State::Passing(_)) => self.state = other,
        }
    }

    pub(super) fn bad_placement(&mut self, now: Now) {
        if self.finger == Finger::Off {
            self.finger = Finger::Poor(now.uptime);
        }
    }

    pub(super) fn lifted(&mut self, effects: &mut Effects) {
        let before = std::mem::replace(&mut self.finger, Finger::Off);
        if matches!(before, Finger::Poor(_)) {
            self.unusable(effects);
        }
    }

    pub(super) fn tick(&mut self, now: Now, effects: &mut Effects) {
        if self.deadline().is_none_or(|deadline| now.uptime < deadline) {
            return;
        }
        let fails = |(since, _): &mut (_, _)| now.uptime >= *since + self.rules.failing_grace;
        if let Some((_, error)) = self.failing.take_if(fails) {
            self.fault(now, &error, effects);
        }
        let poor = |since| now.uptime >= since + self.rules.poor_grace;
        if matches!(self.finger, Finger::Poor(since) if poor(since)) {
            self.finger = Finger::Used;
            self.unusable(effects);
        }
        let late = match &self.state {
            State::Waiting(operation, _) => now.uptime >= operation.deadline,
            State::Absent
            | State::Faulty(_)
            | State::Idle
            | State::Computing(..)
            | State::Passing(_) => false,
        };
        if late {
            self.timed_out(effects);
        }
    }

    pub(super) fn timed_out(&mut self, effects: &mut Effects) {
        let done = match &self.state {
            State::Waiting(_, Goal::Enroll(enrolment)) => Some(enrolment.completed()),
            State::Waiting(_, Goal::Scan { .. } | Goal::Verify { .. } | Goal::Identify { .. })
            | State::Absent
            | State::Faulty(_)
            | State::Idle
            | State::Computing(..)
            | State::Passing(_) => None,
        };
        if let Some(operation) = self.take_running() {
            let (timeout, error) = events::timed_out(&self.reader, &operation, done);
            effects.events.push(timeout);
            // Told as not retryable: the documented reference client would start over for ever.
            effects.events.push(events::failed(
                &self.reader,
                &operation,
                &ErrorBody { retryable: false, ..error.clone() },
            ));
            effects.answer(&operation, Err(error.with("deviceId", self.reader.as_str())));
        }
    }

    /// A finger was there, and no usable image came of it.
    pub(super) fn unusable(&mut self, effects: &mut Effects) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Waiting(operation, Goal::Enroll(enrolment)) => {
                self.placement_rejected(operation, enrolment, events::unusable(), None, effects);
            }
            State::Waiting(
                operation,
                Goal::Scan { .. } | Goal::Verify { .. } | Goal::Identify { .. },
            ) => self.end_failed(&operation, events::unusable(), effects),
            other @ (State::Absent
            | State::Faulty(_)
            | State::Idle
            | State::Computing(..)
            | State::Passing(_)) => self.state = other,
        }
    }

    /// The reader is idle (in `self.state`) while this decides what it becomes.
    pub(super) fn captured(
        &mut self,
        now: Now,
        operation: Operation,
        goal: Goal,
        capture: Capture,
        effects: &mut Effects,
    ) {
        let Capture { quality, template, handout } = capture;
        let needed = match &goal {
            Goal::Scan { quality, .. } => *quality,
            Goal::Enroll(_) => self.rules.enroll_quality,
            Goal::Verify { .. } => self.rules.verify_quality,
            Goal::Identify { .. } => self.rules.identify_quality,
        };
        let poor = (quality < needed).then(|| events::low_quality(quality, needed));
        match (goal, poor) {
            (Goal::Enroll(enrolment), Some(error)) => {
                self.placement_rejected(operation, enrolment, error, Some(quality), effects);
            }
            (Goal::Scan { .. } | Goal::Verify { .. } | Goal::Identify { .. }, Some(error)) => {
                self.end_failed(&operation, error, effects);
            }
            (Goal::Scan { .. }, None) => {
                let scan_time_ms = operation.age_ms(now);
                effects.events.push(events::scanned(
                    &self.reader,
                    &operation,
                    quality,
                    scan_time_ms,
                    handout.clone(),
                ));
                let outcome = Outcome::Scanned { template: handout, quality, scan_time_ms };
                self.end_well(&operation, outcome, effects);
            }
            (Goal::Enroll(enrolment), None) => {
                self.placement_taken(operation, enrolment, quality, template, effects);
            }
            (Goal::Verify { user_id, references }, None) => {
                effects.events.push(events::captured(&self.reader, &operation, quality, now));
                effects.job = Some(Job::Match { references, probe: template });
                let computation = Computation::Match { user_id, quality, captured: now.uptime };
                self.state = State::Computing(operation, computation);
            }
            (Goal::Identify { user_ids }, None) => {
                effects.events.push(events::captured(&self.reader, &operation, quality, now));
                effects.events.push(events::searching(&self.reader, &operation, 0));
                effects.job = Some(Job::Search { probe: template, user_ids });
                let computation = Computation::Search { quality, captured: now.uptime };
                self.state = State::Computing(operation, computation);
            }
        }
    }
}
