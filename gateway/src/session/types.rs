//! What goes into a session and what comes out of it.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use topics::{ErrorBody, EventBody, ReaderInfo, Timestamp, UserId, record::Cause};

use super::Operation;
use crate::journal::Owner;

/// A fingerprint template. Never shown by `Debug`; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct TemplateBytes(Arc<[u8]>);

impl fmt::Debug for TemplateBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateBytes({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for TemplateBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for TemplateBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for TemplateBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TemplateBytes {
    /// Standard base64 with padding, as clients get it.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// SHA-256 of the template, hexadecimal: what stands in for it where it may not appear.
    pub fn sha256(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.0);
        hex::encode(digest)
    }
}

/// The time, twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For people.
    pub wall: Timestamp,
    /// Since boot: for deadlines.
    pub uptime: Duration,
}

impl Now {
    /// Whole milliseconds since `earlier` (since boot).
    pub(super) fn millis_since(self, earlier: Duration) -> u64 {
        u64::try_from(self.uptime.saturating_sub(earlier).as_millis()).unwrap_or(u64::MAX)
    }
}

/// What an idle reader does with a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleMode {
    /// Finds whose finger it is and reports the decision.
    Identify,
    /// Reports the touch only.
    #[default]
    Detect,
    /// Does not look.
    Off,
}

/// What a site sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What an idle reader does with a touch.
    pub idle_mode: IdleMode,
    /// Least quality of a plain scan (0 to 100) where the caller names none.
    pub scan_quality: u8,
    /// Least quality of an enrolment's placement.
    pub enroll_quality: u8,
    /// Least quality of a finger to verify.
    pub verify_quality: u8,
    /// Least quality of a finger to identify.
    pub identify_quality: u8,
    /// How long a scan session waits for a finger.
    pub scan_wait: Duration,
    /// How long a blocking capture, verification or identification waits for a finger.
    pub capture_wait: Duration,
    /// How long an enrolment may take as a whole.
    pub enroll_wait: Duration,
    /// How often a placement of an enrolment may be repeated.
    pub repeats_per_placement: u8,
    /// How long a finger may be on the sensor without a usable image.
    pub poor_grace: Duration,
    /// How long a failing reader may take to turn out to be unplugged.
    pub failing_grace: Duration,
    /// How long a decision about access is valid.
    pub access_validity: Duration,
}

impl Default for Rules {
    /// The documented values. Clients give up after 30 s, so what blocks ends before.
    fn default() -> Self {
        Self {
            idle_mode: IdleMode::default(),
            scan_quality: 50,
            enroll_quality: 60,
            verify_quality: 50,
            identify_quality: 50,
            scan_wait: Duration::from_secs(30),
            capture_wait: Duration::from_secs(25),
            enroll_wait: Duration::from_secs(28),
            repeats_per_placement: 3,
            poor_grace: Duration::from_secs(1),
            failing_grace: Duration::from_millis(600),
            access_validity: Duration::from_secs(5),
        }
    }
}

/// Who started an operation, and what made them.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Gets the template, may stop it and ask for its state.
    pub owner: Owner,
    /// Named in the operation's events.
    pub cause: Cause,
}

/// An operation to begin.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Unique; in all its events.
    pub scan_id: String,
    /// Whose it is.
    pub origin: Origin,
    /// What to do.
    pub task: Task,
}

/// What to do with the next finger.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    /// Take its template.
    Scan {
        /// A session that is polled for: its owner's next start replaces it while it waits.
        session: bool,
        /// In place of the rules' wait.
        wait: Option<Duration>,
        /// In place of the rules' least quality.
        quality: Option<u8>,
    },
    /// Enrol it in three placements.
    Enroll(Box<NewEnrolment>),
    /// Compare it with a reference.
    Verify {
        /// Who it should be.
        user_id: UserId,
        /// Enrolled templates, of which one has to match; never the output of a scan.
        references: Vec<TemplateBytes>,
    },
    /// Find whose it is.
    Identify {
        /// Among these users; none: all.
        user_ids: Option<Vec<UserId>>,
    },
}

/// What an enrolment knows from its start on.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEnrolment {
    /// Who.
    pub user_id: UserId,
    /// The caller's own data, kept with the template.
    pub metadata: Map<String, Value>,
    /// Unique.
    pub enrollment_id: String,
    /// The stored template's id to be.
    pub template_id: String,
}

/// A good image's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// 0 to 100.
    pub quality: u8,
    /// As the engine made it.
    pub template: TemplateBytes,
    /// The same, marked as a scan's output: what a caller gets.
    pub handout: TemplateBytes,
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The reader is there (again).
    Plugged(Box<ReaderInfo>),
    /// The reader, or the process that drives it, is gone.
    Unplugged {
        /// For people.
        reason: Option<String>,
    },
    /// The reader does not work.
    Fault(ErrorBody),
    /// It works again.
    Recovered,
    /// A finger gave a usable image.
    Touch(Capture),
    /// A finger is on the sensor, but gives no usable image.
    BadPlacement,
    /// The finger was lifted.
    Lifted,
    /// The calculation's result.
    Computed(Computed),
    /// [`Session::deadline`](super::Session::deadline) has come.
    Tick,
}

/// A calculation for the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Cross-check and merge three placements.
    Merge([TemplateBytes; 3]),
    /// 1:1, or one person's fingers: the best counts.
    Match {
        /// The enrolled templates.
        references: Vec<TemplateBytes>,
        /// The one to be compared with them.
        probe: TemplateBytes,
    },
    /// 1:N.
    Search {
        /// The live template.
        probe: TemplateBytes,
        /// Among these users; none: all.
        user_ids: Option<Vec<UserId>>,
    },
}

/// A calculation's result.
#[derive(Debug, Clone, PartialEq)]
pub enum Computed {
    /// One template of three placements.
    Merged(TemplateBytes),
    /// How alike two are, and from which score on they count as the same finger.
    Compared {
        /// The engine's.
        score: u16,
        /// On the same scale.
        threshold: u16,
    },
    /// The best one, if it is good enough.
    Searched(Option<Found>),
    /// It failed.
    Failed(ErrorBody),
}

/// Whose finger it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Who.
    pub user_id: UserId,
    /// By which stored template.
    pub template_id: String,
    /// 70 to 100, one decimal.
    pub confidence: f64,
}

/// What follows, in this order: commit `events` and `store` together; then give the answers and
/// run the job.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// In order.
    pub events: Vec<Planned>,
    /// To be stored with them.
    pub store: Option<NewTemplate>,
    /// For who waits for the operation.
    pub answers: Vec<Answer>,
    /// To be calculated; its result comes back as [`Input::Computed`].
    pub job: Option<Job>,
    /// Take the finger that is on the sensor once more.
    pub recapture: bool,
}

impl Effects {
    pub(super) fn answer(&mut self, operation: &Operation, result: Result<Outcome, ErrorBody>) {
        self.answers.push(Answer { scan_id: operation.scan_id.clone(), result });
    }
}

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What happened.
    pub body: EventBody,
    /// Who caused it; none: nobody did.
    pub origin: Option<Origin>,
    /// For the owner's eyes only.
    pub template: Option<TemplateBytes>,
}

impl Planned {
    pub(super) fn of(operation: &Operation, body: EventBody) -> Self {
        Self { body, origin: Some(operation.origin.clone()), template: None }
    }

    pub(super) fn of_reader(body: EventBody) -> Self {
        Self { body, origin: None, template: None }
    }

    pub(super) fn with_template(mut self, template: TemplateBytes) -> Self {
        self.template = Some(template);
        self
    }
}

/// The end of an operation, for who waits for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Which.
    pub scan_id: String,
    /// How it ended.
    pub result: Result<Outcome, ErrorBody>,
}

/// How an operation ended well.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // The names are those of the documented answers.
pub enum Outcome {
    Scanned {
        template: TemplateBytes,
        quality: u8,
        scan_time_ms: u64,
    },
    Enrolled {
        template: TemplateBytes,
        quality: u8,
        enrollment_id: String,
        template_id: String,
        user_id: UserId,
    },
    Verified {
        matched: bool,
        /// 0 to 100, one decimal; 70 and more is a match.
        confidence: f64,
        /// Of the live finger, where one was taken.
        quality: Option<u8>,
        time_ms: u64,
        user_id: UserId,
    },
    Identified {
        /// None: nobody who is known.
        user_id: Option<UserId>,
        /// 0 without a match.
        confidence: f64,
        template_id: Option<String>,
        time_ms: u64,
        /// Of the live finger, where one was taken.
        quality: Option<u8>,
    },
}

impl Outcome {
    /// An identification's.
    pub(crate) fn identified(found: Option<Found>, time_ms: u64, quality: Option<u8>) -> Self {
        match found {
            Some(Found { user_id, template_id, confidence }) => Outcome::Identified {
                user_id: Some(user_id),
                confidence,
                template_id: Some(template_id),
                time_ms,
                quality,
            },
            None => Outcome::Identified {
                user_id: None,
                confidence: 0.0,
                template_id: None,
                time_ms,
                quality,
            },
        }
    }
}

/// An enrolled template to be stored together with the events that tell of it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTemplate {
    /// Its id.
    pub template_id: String,
    /// Who.
    pub user_id: UserId,
    /// The caller's own data; `fingerPosition` says which finger.
    pub metadata: Map<String, Value>,
    /// 0 to 100.
    pub quality: u8,
    /// The merged template.
    pub template: TemplateBytes,
    /// When.
    pub enrolled_at: Timestamp,
}
