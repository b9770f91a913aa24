//! Enrolment: three placements of one finger, the finger lifted in between.
//!
//! A placement of poor quality is asked for again, [`Rules::repeats_per_placement`](super::Rules) times at most.
//! After the third good one the engine cross-checks and merges them; the merged template is stored
//! in the same commit as the events that tell of it.

use topics::{ErrorBody, ErrorCode, event::Placements};

use super::{
    Computation, Effects, Goal, Job, NewTemplate, Now, Operation, Outcome, PLACEMENTS, Planned,
    Session, State, TemplateBytes, events, types::NewEnrolment,
};

/// An enrolment in progress.
#[derive(Debug)]
pub(super) struct Enrolment {
    new: NewEnrolment,
    /// Fewer than three until the engine has them all.
    taken: Vec<(u8, TemplateBytes)>,
    /// Of the present placement.
    repeats: u8,
}

impl Enrolment {
    pub(super) fn new(new: NewEnrolment) -> Self {
        Self { new, taken: Vec::with_capacity(PLACEMENTS.into()), repeats: 0 }
    }

    pub(super) fn completed(&self) -> u8 {
        self.taken.len() as u8 // at most three
    }

    /// The engine's error as an enrolment's.
    pub(super) fn explain(&self, error: ErrorBody) -> ErrorBody {
        let explained = if error.error_code() == Some(ErrorCode::EnrollmentFailed) {
            error
        } else {
            let reason = error.message.clone();
            error.with("reason", reason)
        };
        explained.with("scansCompleted", self.completed()).with("scansRequired", PLACEMENTS)
    }

    fn quality(&self) -> u8 {
        let sum: u32 = self.taken.iter().map(|(quality, _)| u32::from(*quality)).sum();
        let count = u32::try_from(self.taken.len().max(1)).unwrap_or(1);
        (sum / count) as u8 // a mean of numbers up to 100
    }
}

impl Session {
    pub(super) fn placement_taken(
        &mut self,
        operation: Operation,
        mut enrolment: Enrolment,
        quality: u8,
        template: TemplateBytes,
        effects: &mut Effects,
    ) {
        enrolment.taken.push((quality, template));
        enrolment.repeats = 0;
        let placements: Vec<TemplateBytes> =
            enrolment.taken.iter().map(|(_, template)| template.clone()).collect();
        match <[TemplateBytes; PLACEMENTS as usize]>::try_from(placements) {
            Ok(all) => {
                effects.job = Some(Job::Merge(all));
                self.state = State::Computing(operation, Computation::Merge(enrolment));
            }
            Err(_) => {
                let done = enrolment.completed();
                let next = done + 1;
                let text = format!("Lift the finger and place it again ({next} of {PLACEMENTS})");
                effects.events.push(events::progress(
                    &self.reader,
                    &operation,
                    text,
                    done,
                    Some(quality),
                ));
                self.state = State::Waiting(operation, Goal::Enroll(enrolment));
            }
        }
    }

    pub(super) fn placement_rejected(
        &mut self,
        operation: Operation,
        mut enrolment: Enrolment,
        error: ErrorBody,
        quality: Option<u8>,
        effects: &mut Effects,
    ) {
        let done = enrolment.completed();
        if enrolment.repeats >= self.rules.repeats_per_placement {
            let error = error.with("scansCompleted", done).with("scansRequired", PLACEMENTS);
            return self.end_failed(&operation, error, effects);
        }
        enrolment.repeats += 1;
        let text = format!("{}. Lift the finger and place it again", error.message);
        effects.events.push(events::progress(&self.reader, &operation, text, done, quality));
        self.state = State::Waiting(operation, Goal::Enroll(enrolment));
    }

    pub(super) fn enrolled(
        &mut self,
        now: Now,
        operation: &Operation,
        enrolment: Enrolment,
        template: TemplateBytes,
        effects: &mut Effects,
    ) {
        let quality = enrolment.quality();
        let NewEnrolment { user_id, metadata, enrollment_id, template_id } = enrolment.new;
        let placements = Placements {
            scans_completed: PLACEMENTS,
            scans_required: PLACEMENTS,
            enrollment_id: enrollment_id.clone(),
            user_id: user_id.clone(),
        };
        let complete = events::complete(
            &self.reader,
            operation,
            quality,
            operation.age_ms(now),
            Some(&template),
            Some(placements),
        );
        effects.events.push(complete.with_template(template.clone()));
        effects.store = Some(NewTemplate {
            template_id: template_id.clone(),
            user_id: user_id.clone(),
            metadata,
            quality,
            template: template.clone(),
            enrolled_at: now.wall,
        });
        let outcome = Outcome::Enrolled { template, quality, enrollment_id, template_id, user_id };
        let told = events::result(&self.reader, &operation.scan_id, &outcome);
        effects.events.push(Planned::of(operation, told));
        self.end_well(operation, outcome, effects);
    }
}
