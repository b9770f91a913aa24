//! Operations without a live finger: a template that the caller has is compared or searched.
//!
//! They don't occupy the reader, and only their result is told.

use std::time::Duration;

use tokio::sync::oneshot;
use topics::{ErrorBody, ErrorCode, EventBody, ReaderId, UserId};
use zkfp::SdkTemplate;

use super::{Operations, Started, new_id};
use crate::{
    journal::Batch,
    readers::engine,
    session::{self, Computed, Job, Origin, Outcome, Planned, TemplateBytes},
};

/// How alike two given templates are.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Whether they count as the same finger.
    pub matched: bool,
    /// 0 to 100, one decimal; 70 and more is a match.
    pub confidence: f64,
    /// How long it took.
    pub time: Duration,
}

impl Operations {
    /// Compares two given templates. Records nothing: nobody's finger was asked for.
    pub async fn compare(
        &self,
        a: &TemplateBytes,
        b: &TemplateBytes,
    ) -> Result<Comparison, ErrorBody> {
        let began = self.shared.now();
        let (score, threshold) = self.score(vec![a.clone()], b).await?;
        Ok(Comparison {
            matched: score >= threshold,
            confidence: minutiae::confidence(score, threshold),
            time: self.shared.now().uptime.saturating_sub(began.uptime),
        })
    }

    /// A scan's output against what is stored of the user.
    pub(super) async fn verify_scan(
        &self,
        device_id: ReaderId,
        user_id: UserId,
        template: &TemplateBytes,
        origin: Origin,
    ) -> Result<Started, ErrorBody> {
        let began = self.shared.now().uptime;
        let stored = self.stored(&user_id)?;
        let probe = self.shared.marks.unmarked(template);
        let (score, threshold) = self.score(stored, &probe).await?;
        let outcome = Outcome::Verified {
            matched: score >= threshold,
            confidence: minutiae::confidence(score, threshold),
            quality: None,
            time_ms: self.millis_since(began),
            user_id,
        };
        self.tell(device_id, outcome, origin).await
    }

    /// Whose finger a given template shows.
    pub(super) async fn identify_given(
        &self,
        device_id: ReaderId,
        template: &TemplateBytes,
        user_ids: Option<Vec<UserId>>,
        origin: Origin,
    ) -> Result<Started, ErrorBody> {
        check(template)?;
        let began = self.shared.now().uptime;
        let probe = self.shared.marks.unmarked(template);
        let job = Job::Search { probe, user_ids };
        match self.shared.engine.run(job).await {
            Computed::Searched(found) => {
                let outcome = Outcome::identified(found, self.millis_since(began), None);
                self.tell(device_id, outcome, origin).await
            }
            Computed::Failed(error) => Err(error),
            Computed::Merged(_) | Computed::Compared { .. } => Err(internal()),
        }
    }

    /// All templates of a user who has some.
    pub(super) fn stored(&self, user_id: &UserId) -> Result<Vec<TemplateBytes>, ErrorBody> {
        let stored = self.shared.templates.of_user(user_id).map_err(|error| {
            tracing::error!(%error, "a user's templates can't be read");
            ErrorBody::from(&error)
        })?;
        match stored.is_empty() {
            true => Err(unknown_user(user_id)),
            false => Ok(stored.into_iter().map(|stored| stored.template).collect()),
        }
    }

    /// Records the result, then answers with it.
    async fn tell(
        &self,
        device_id: ReaderId,
        outcome: Outcome,
        origin: Origin,
    ) -> Result<Started, ErrorBody> {
        let scan_id = new_id("scan");
        let body = session::events::result(&device_id, &scan_id, &outcome);
        let mut events = Vec::with_capacity(3);
        if matches!(body, EventBody::IdentificationResult { .. }) {
            events.extend([0, 100].map(|progress| EventBody::IdentificationSearching {
                device_id: device_id.clone(),
                scan_id: scan_id.clone(),
                progress,
            }));
        }
        events.push(body);
        let planned: Vec<Planned> = events
            .into_iter()
            .map(|body| Planned { body, origin: Some(origin.clone()), template: None })
            .collect();
        self.shared.commit(self.shared.plan(Batch::new(), &planned)?).await?;
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(Ok(outcome)); // the receiver is below
        let expires_at = self.shared.now().wall;
        Ok(Started { scan_id, device_id, expires_at, outcome: receiver })
    }

    async fn score(
        &self,
        references: Vec<TemplateBytes>,
        probe: &TemplateBytes,
    ) -> Result<(u16, u16), ErrorBody> {
        let job = Job::Match { references, probe: probe.clone() };
        match self.shared.engine.run(job).await {
            Computed::Compared { score, threshold } => Ok((score, threshold)),
            Computed::Failed(error) => Err(error),
            Computed::Merged(_) | Computed::Searched(_) => Err(internal()),
        }
    }

    fn millis_since(&self, began: Duration) -> u64 {
        let time = self.shared.now().uptime.saturating_sub(began);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Refuses what is no template before anybody is asked to place a finger for it.
pub(super) fn check(template: &[u8]) -> Result<(), ErrorBody> {
    SdkTemplate::new(template.to_vec()).map(|_| ()).map_err(|error| engine::error_body(&error))
}

pub(super) fn foreign() -> ErrorBody {
    let text = "This template is the output of a scan of another gateway, or was altered";
    ErrorBody::new(ErrorCode::MatchFailed, text).with("reason", "foreign scan mark")
}

pub(super) fn unknown_user(user_id: &UserId) -> ErrorBody {
    ErrorBody::new(ErrorCode::RecordNotFound, "User not found")
        .with("userId", user_id.as_str())
        .with("table", "templates")
}

fn internal() -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, "Internal error")
}
