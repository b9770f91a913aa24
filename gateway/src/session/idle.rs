//! What an idle reader does with a touch.
//!
//! In mode `identify` each touch is identified and told, and the decision goes to the panels as
//! `access:granted` or `access:denied`. These touches are nobody's operation: the reader stays
//! `idle`, and no one gets a template.

use std::time::Duration;

use topics::{ErrorBody, EventBody};

use super::{
    Capture, Computed, Effects, Finger, Found, IdleMode, Job, Now, Outcome, Planned, Session,
    State, events,
};

/// A touch of an idle reader that is being identified.
#[derive(Debug)]
pub(super) struct Passing {
    scan_id: String,
    captured: Duration,
}

impl Session {
    pub(super) fn idle_touch(&mut self, now: Now, capture: Capture, effects: &mut Effects) {
        let Capture { quality, template, .. } = capture;
        // Unique with the reader and the boot: two touches are never in the same microsecond.
        let scan_id = format!("touch-{}-{}", now.wall.as_millis(), now.uptime.as_micros());
        match self.rules.idle_mode {
            IdleMode::Off => self.finger = Finger::Seen,
            IdleMode::Detect => {
                self.finger = Finger::Seen;
                self.tell_touch(&scan_id, quality, effects);
            }
            IdleMode::Identify => {
                self.tell_touch(&scan_id, quality, effects);
                let needed = self.rules.identify_quality;
                if quality < needed {
                    return self.refuse(
                        now,
                        &scan_id,
                        &events::low_quality(quality, needed),
                        effects,
                    );
                }
                effects.events.push(Planned::of_reader(EventBody::ScanComplete {
                    device_id: self.reader.clone(),
                    scan_id: scan_id.clone(),
                    quality,
                    scan_time: 0,
                    template_sha256: None,
                    placements: None,
                }));
                effects.job = Some(Job::Search { probe: template, user_ids: None });
                self.state = State::Passing(Passing { scan_id, captured: now.uptime });
            }
        }
    }

    pub(super) fn passing_computed(
        &mut self,
        now: Now,
        passing: Passing,
        result: Computed,
        effects: &mut Effects,
    ) {
        let Passing { scan_id, captured } = passing;
        match result {
            Computed::Searched(found) => {
                let decision = match &found {
                    Some(found) => self.granted(now, &scan_id, found),
                    None => self.denied(now, &scan_id, "no match"),
                };
                let outcome = Outcome::identified(found, now.millis_since(captured), None);
                let told = events::result(&self.reader, &scan_id, &outcome);
                effects.events.push(Planned::of_reader(told));
                effects.events.push(Planned::of_reader(decision));
            }
            Computed::Failed(error) => self.refuse(now, &scan_id, &error, effects),
            Computed::Merged(_) | Computed::Compared { .. } => {
                debug_assert!(false, "a result that nobody asked for");
                self.refuse(now, &scan_id, &events::internal(), effects);
            }
        }
    }

    /// The touch that is being identified; the reader is idle afterwards.
    pub(super) fn take_passing(&mut self) -> Option<Passing> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Passing(passing) => Some(passing),
            other @ (State::Absent
            | State::Faulty(_)
            | State::Idle
            | State::Waiting(..)
            | State::Computing(..)) => {
                self.state = other;
                None
            }
        }
    }

    /// The touch gets no decision; who stands at the door is told so.
    pub(super) fn passing_failed(
        &self,
        now: Now,
        passing: &Passing,
        error: &ErrorBody,
        effects: &mut Effects,
    ) {
        self.refuse(now, &passing.scan_id, error, effects);
    }

    fn tell_touch(&self, scan_id: &str, quality: u8, effects: &mut Effects) {
        let (device_id, scan_id) = (self.reader.clone(), scan_id.to_owned());
        let body = EventBody::FingerprintDetected { device_id, scan_id, quality };
        effects.events.push(Planned::of_reader(body));
    }

    /// Without a decision there is no access, and the panel is told so.
    fn refuse(&self, now: Now, scan_id: &str, error: &ErrorBody, effects: &mut Effects) {
        let told = events::error_event(&self.reader, scan_id, error);
        effects.events.push(Planned::of_reader(told));
        effects.events.push(Planned::of_reader(self.denied(now, scan_id, &error.message)));
    }

    fn granted(&self, now: Now, scan_id: &str, found: &Found) -> EventBody {
        EventBody::AccessGranted {
            device_id: self.reader.clone(),
            scan_id: scan_id.to_owned(),
            user_id: found.user_id.clone(),
            confidence: found.confidence,
            decided_at: now.wall,
            valid_for_ms: self.valid_for_ms(),
        }
    }

    fn denied(&self, now: Now, scan_id: &str, reason: &str) -> EventBody {
        EventBody::AccessDenied {
            device_id: self.reader.clone(),
            scan_id: scan_id.to_owned(),
            reason: reason.to_owned(),
            decided_at: now.wall,
            valid_for_ms: self.valid_for_ms(),
        }
    }

    fn valid_for_ms(&self) -> u64 {
        u64::try_from(self.rules.access_validity.as_millis()).unwrap_or(u64::MAX)
    }
}
