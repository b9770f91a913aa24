//! A command's record and its states.
//!
//! ```text
//!             sent            first event, or received        result
//!   pending ───────▶ sent ────────────────────▶ running ─────────────▶ completed
//!      │              │                            │                   failed
//!      │  too late    │  too late, never received  │ run limit         cancelled …
//!      ▼              ▼                            ▼
//!   expired        expired                      timeout
//! ```
//!
//! Times are the wall clock's. When that is set, what is under way is moved with it ([`Change::ClockSet`]), so
//! that a command waits as long as it was meant to; after a restart only the wall clock is left.
//!
//! The gateway judges expiry and runs the command; the bridge only says what it knows. So a result
//! that comes late is the truth, also over `expired` and `timeout`: the gateway started in time and
//! the way back was long. Nothing changes a result.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use topics::{CommandId, CommandStatus, ErrorBody, ErrorCode, GatewayId, Timestamp};

use crate::clock::moved;

/// How long after its expiry a command that was sent may still be heard of before it counts as
/// expired.
const RECEIPT_GRACE: Duration = Duration::from_secs(10);

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Requester {
    /// The holder of an API key, by the key's name. Only it sees templates.
    #[serde(rename_all = "camelCase")]
    ApiKey {
        /// The key's name.
        name: String,
    },
    /// Somebody on the cloud's broker, who is answered there.
    #[serde(rename_all = "camelCase")]
    Mqtt {
        /// Where an MQTT 5 request wants its answer; checked.
        response_topic: Option<String>,
        /// What comes back with it, base64.
        correlation: Option<String>,
        /// Whether the answer is with the broker.
        answered: bool,
    },
}

/// A command, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// The key that makes a repeat harmless.
    pub id: CommandId,
    /// Whose.
    pub agent: GatewayId,
    /// See [`topics::CommandName`].
    pub command: String,
    /// Parameters, without templates.
    pub params: Value,
    /// Parameters that hold templates: JSON sealed with the master key, base64.
    pub sealed_params: Option<String>,
    /// Where it is.
    pub status: CommandStatus,
    /// Who asked.
    pub requester: Requester,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it is too late to start.
    pub expires_at: Timestamp,
    /// When it went down first.
    pub sent_at: Option<Timestamp>,
    /// When the gateway had it durably.
    pub received_at: Option<Timestamp>,
    /// When it began to show.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What came of it, without templates.
    pub result: Option<Value>,
    /// What came of it and only the requester may see: JSON sealed with the master key, base64.
    pub sealed_result: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// Whether the requester wants it cancelled.
    #[serde(default)]
    pub cancel_requested: bool,
}

/// What happens to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It went down.
    Sent(Timestamp),
    /// The gateway has it durably.
    Received(Timestamp),
    /// An event that it caused arrived.
    Running(Timestamp),
    /// Its result arrived.
    Finished(Box<Finish>),
    /// The requester gives it up.
    Cancel(Timestamp),
    /// Time passes.
    Tick {
        /// Now.
        now: Timestamp,
        /// How long a received command may run past its expiry.
        run_limit: Duration,
    },
    /// Its answer on the broker is there.
    Answered,
    /// The bridge's clock was set, so many milliseconds forward: what is under way ends as much later by
    /// it.
    ClockSet(i64),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Completed, failed, timeout, expired or cancelled.
    pub status: CommandStatus,
    /// Without templates.
    pub result: Option<Value>,
    /// Sealed with the master key, base64.
    pub sealed_result: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// When.
    pub finished_at: Timestamp,
}

impl Command {
    /// The command after a change; none where nothing changes.
    pub fn after(&self, change: &Change) -> Option<Command> {
        let mut next = self.clone();
        match change {
            Change::Sent(at) => next.sent(*at),
            Change::Received(at) => next.received(*at),
            Change::Running(at) => next.running(*at),
            Change::Finished(finish) => next.finished(finish),
            Change::Cancel(at) => next.cancel(*at),
            Change::Tick { now, run_limit } => next.tick(*now, *run_limit),
            Change::Answered => next.answered(),
            Change::ClockSet(by_ms) if !next.status.is_final() => {
                next.expires_at = moved(next.expires_at, *by_ms);
            }
            Change::ClockSet(_) => {}
        }
        (next != *self).then_some(next)
    }

    /// Whether the bridge still has something to do for it.
    pub fn is_open(&self) -> bool {
        !self.status.is_final() || self.wants_answer()
    }

    /// Whether its end has to be told on the broker.
    pub fn wants_answer(&self) -> bool {
        match &self.requester {
            Requester::Mqtt { answered, .. } => self.status.is_final() && !answered,
            Requester::ApiKey { .. } => false,
        }
    }

    /// Whether it has to go down (again) when its gateway is there. One that is given up does not:
    /// it would begin after its cancellation.
    pub fn wants_sending(&self) -> bool {
        match self.status {
            CommandStatus::Pending | CommandStatus::Sent => {
                self.received_at.is_none() && !self.cancel_requested
            }
            CommandStatus::Running
            | CommandStatus::Completed
            | CommandStatus::Failed
            | CommandStatus::Timeout
            | CommandStatus::Expired
            | CommandStatus::Cancelled => false,
        }
    }

    /// When time alone changes it.
    pub fn deadline(&self, run_limit: Duration) -> Option<Timestamp> {
        match self.status {
            CommandStatus::Pending => Some(self.expires_at),
            CommandStatus::Sent if self.received_at.is_none() => {
                Some(self.expires_at.plus(RECEIPT_GRACE))
            }
            CommandStatus::Sent | CommandStatus::Running => Some(self.expires_at.plus(run_limit)),
            CommandStatus::Completed
            | CommandStatus::Failed
            | CommandStatus::Timeout
            | CommandStatus::Expired
            | CommandStatus::Cancelled => None,
        }
    }

    fn sent(&mut self, at: Timestamp) {
        if self.status == CommandStatus::Pending {
            self.status = CommandStatus::Sent;
            self.sent_at = Some(at);
        }
    }

    fn received(&mut self, at: Timestamp) {
        self.sent(at);
        if self.received_at.is_none() && !self.status.is_final() {
            self.received_at = Some(at);
        }
    }

    fn running(&mut self, at: Timestamp) {
        self.received(at);
        if self.status == CommandStatus::Sent {
            self.status = CommandStatus::Running;
            self.started_at = Some(at);
        }
    }

    fn finished(&mut self, finish: &Finish) {
        let open_to_truth = match self.status {
            CommandStatus::Pending
            | CommandStatus::Sent
            | CommandStatus::Running
            | CommandStatus::Expired
            | CommandStatus::Timeout => true,
            CommandStatus::Cancelled => self.received_at.is_some(),
            CommandStatus::Completed | CommandStatus::Failed => false,
        };
        if !open_to_truth || !finish.status.is_final() {
            return;
        }
        self.status = finish.status;
        self.result = finish.result.clone();
        self.sealed_result = finish.sealed_result.clone();
        self.error = finish.error.clone();
        self.finished_at = Some(finish.finished_at);
    }

    fn cancel(&mut self, at: Timestamp) {
        match self.status {
            CommandStatus::Pending => self.end(
                CommandStatus::Cancelled,
                ErrorBody::new(ErrorCode::Validation, "cancelled before it was sent"),
                at,
            ),
            CommandStatus::Sent | CommandStatus::Running => self.cancel_requested = true,
            CommandStatus::Completed
            | CommandStatus::Failed
            | CommandStatus::Timeout
            | CommandStatus::Expired
            | CommandStatus::Cancelled => {}
        }
    }

    fn tick(&mut self, now: Timestamp, run_limit: Duration) {
        let Some(deadline) = self.deadline(run_limit).filter(|deadline| *deadline <= now) else {
            return;
        };
        if self.received_at.is_none() && self.status != CommandStatus::Running {
            let error = ErrorBody::new(ErrorCode::Expired, "the gateway was not reached in time");
            self.end(CommandStatus::Expired, error, deadline);
        } else {
            let error = ErrorBody::new(
                ErrorCode::ServiceUnavailable,
                "the gateway has the command, and its result did not come in time",
            );
            self.end(CommandStatus::Timeout, error, deadline);
        }
    }

    fn end(&mut self, status: CommandStatus, error: ErrorBody, at: Timestamp) {
        self.status = status;
        self.error = Some(error);
        self.finished_at = Some(at);
    }

    fn answered(&mut self) {
        if let Requester::Mqtt { answered, .. } = &mut self.requester {
            *answered = true;
        }
    }
}

#[cfg(test)]
mod tests;
