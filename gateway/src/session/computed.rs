//! What the engine's results do to the operation that waits for them.

use super::{Computation, Computed, Effects, Now, Operation, Outcome, Session, State, events};

impl Session {
    pub(super) fn computed(&mut self, now: Now, result: Computed, effects: &mut Effects) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Computing(operation, computation) => {
                self.operation_computed(now, &operation, computation, result, effects);
            }
            State::Passing(passing) => self.passing_computed(now, passing, result, effects),
            other @ (State::Absent | State::Faulty(_) | State::Idle | State::Waiting(..)) => {
                self.state = other;
            }
        }
    }

    fn operation_computed(
        &mut self,
        now: Now,
        operation: &Operation,
        computation: Computation,
        result: Computed,
        effects: &mut Effects,
    ) {
        match (computation, result) {
            (Computation::Merge(enrolment), Computed::Merged(template)) => {
                self.enrolled(now, operation, enrolment, template, effects);
            }
            (
                Computation::Match { user_id, quality, captured },
                Computed::Compared { score, threshold },
            ) => {
                let outcome = Outcome::Verified {
                    matched: score >= threshold,
                    confidence: minutiae::confidence(score, threshold),
                    quality: Some(quality),
                    time_ms: now.millis_since(captured),
                    user_id,
                };
                effects.events.push(events::verified(&self.reader, operation, &outcome));
                self.end_well(operation, outcome, effects);
            }
            (Computation::Search { quality, captured }, Computed::Searched(found)) => {
                effects.events.push(events::searching(&self.reader, operation, 100));
                let outcome = Outcome::identified(found, now.millis_since(captured), Some(quality));
                effects.events.push(events::identified(&self.reader, operation, &outcome));
                self.end_well(operation, outcome, effects);
            }
            (Computation::Merge(enrolment), Computed::Failed(error)) => {
                let error = enrolment.explain(error);
                self.end_failed(operation, error, effects);
            }
            (Computation::Match { .. } | Computation::Search { .. }, Computed::Failed(error)) => {
                self.end_failed(operation, error, effects)
            }
            (
                Computation::Merge(_) | Computation::Match { .. } | Computation::Search { .. },
                Computed::Merged(_) | Computed::Compared { .. } | Computed::Searched(_),
            ) => {
                // The driver answered another question than was asked: ours to find, not the user's.
                debug_assert!(false, "a result that nobody asked for");
                self.end_failed(operation, events::internal(), effects);
            }
        }
    }
}
