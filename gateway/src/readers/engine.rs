//! The vendor's matcher in its child process: merge, match, search.
//!
//! The host starts with an empty gallery and is given all enrolled templates; from then on each
//! stored or deleted template is added or removed after its commit. Where that fails, everything is
//! loaded again. A search that comes before the gallery is loaded is refused as not available yet,
//! never answered "no match".

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::{Mutex, Notify, watch};
use topics::{ErrorBody, ErrorCode, UserId};
use zkfp::{Fid, ReaderError, ReaderHost, SdkTemplate, Serial};

use crate::{
    session::{Computed, Found, Job, TemplateBytes},
    templates::{Change, Templates},
};

/// The vendor's own threshold of a search.
const SEARCH_FLOOR: u16 = 70;
/// Until a load that failed is tried again.
const LOAD_AGAIN: Duration = Duration::from_secs(1);

/// From which scores on two templates count as the same finger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// 1:1, on the engine's scale of 0 to 1000.
    pub verify_threshold: u16,
    /// 1:N at least; it grows with the number of templates searched.
    pub search_floor: u16,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { verify_threshold: minutiae::VERIFY_THRESHOLD, search_floor: SEARCH_FLOOR }
    }
}

/// How the process is that drives the readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineState {
    /// Not yet up.
    Starting,
    /// Up; `loaded`: the gallery holds all enrolled templates.
    Up {
        /// Whether a search can be answered.
        loaded: bool,
    },
    /// Gone, and to be started again.
    Down {
        /// For people.
        reason: String,
        /// When the next try is.
        retry_in: Duration,
    },
}

/// The matcher, and what it has been told.
pub(crate) struct Engine {
    host: ReaderHost,
    templates: Templates,
    settings: EngineSettings,
    /// Held while the gallery changes, so that loading and adding don't cross.
    gallery: Mutex<()>,
    /// Counts hosts, so that what was loaded into an earlier one is not taken for this one's.
    hosts: AtomicU64,
    /// The gallery has to be loaded.
    outdated: Notify,
    state: watch::Sender<EngineState>,
}

impl Engine {
    pub(crate) fn new(host: ReaderHost, templates: Templates, settings: EngineSettings) -> Self {
        let state = watch::Sender::new(EngineState::Starting);
        let (gallery, hosts, outdated) = (Mutex::new(()), AtomicU64::new(0), Notify::new());
        Self { host, templates, settings, gallery, hosts, outdated, state }
    }

    pub(crate) fn host(&self) -> &ReaderHost {
        &self.host
    }

    pub(crate) fn state(&self) -> watch::Receiver<EngineState> {
        self.state.subscribe()
    }

    pub(super) fn up(&self) {
        self.hosts.fetch_add(1, Ordering::Relaxed);
        self.state.send_replace(EngineState::Up { loaded: false });
    }

    pub(super) fn down(&self, reason: String, retry_in: Duration) {
        self.state.send_replace(EngineState::Down { reason, retry_in });
    }

    fn is_unloaded(&self) -> bool {
        *self.state.borrow() == EngineState::Up { loaded: false }
    }

    /// There is a reader, and with it a matcher.
    pub(super) fn has_reader(&self) {
        self.outdated.notify_one();
    }

    /// Gives the host all enrolled templates, whenever it lacks some. Never ends.
    pub(crate) async fn keep_loaded(&self) {
        loop {
            self.outdated.notified().await;
            while self.is_unloaded() {
                match self.load().await {
                    Ok(()) => {}
                    // With the next reader it is tried again.
                    Err(ReaderError::NoMatcher { .. }) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the matcher lacks enrolled templates");
                        tokio::time::sleep(LOAD_AGAIN).await;
                    }
                }
            }
        }
    }

    fn set_outdated(&self) {
        self.state.send_if_modified(|state| {
            let loaded = *state == EngineState::Up { loaded: true };
            if loaded {
                *state = EngineState::Up { loaded: false };
            }
            loaded
        });
        self.outdated.notify_one();
    }

    async fn load(&self) -> Result<(), ReaderError> {
        let _alone = self.gallery.lock().await;
        if !self.is_unloaded() {
            return Ok(());
        }
        let host = self.hosts.load(Ordering::Relaxed);
        let templates = self.templates.clone();
        // Opening them is reading and decrypting: not for a thread that serves others.
        let all = tokio::task::spawn_blocking(move || checked(templates.numbered()))
            .await
            .unwrap_or_default();
        let count = all.len();
        let rejected = self.host.db_load(all).await?.len();
        tracing::info!(count, rejected, "enrolled templates loaded into the matcher");
        if host == self.hosts.load(Ordering::Relaxed) {
            self.state.send_if_modified(|state| {
                let unloaded = *state == EngineState::Up { loaded: false };
                if unloaded {
                    *state = EngineState::Up { loaded: true };
                }
                unloaded
            });
        }
        Ok(())
    }

    /// Tells the host what has changed. One that is down is told everything when it is up again.
    pub(crate) async fn apply(&self, change: Change) {
        let _alone = self.gallery.lock().await;
        let mut result = Ok(());
        for number in change.removed.into_iter().filter_map(Fid::new) {
            result = result.and(self.host.db_remove(number).await);
        }
        for (number, template) in checked(change.added) {
            result = result.and(match self.host.db_add(number, &template).await {
                Ok(true) => Ok(()),
                Ok(false) => {
                    tracing::error!("the matcher does not take a new template: it is not searched");
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        if let Err(error) = result {
            tracing::warn!(%error, "the matcher has missed a change of the enrolled templates");
            self.set_outdated();
        }
    }

    /// Runs a calculation. Failures are its result.
    pub(crate) async fn run(&self, job: Job) -> Computed {
        let result = match job {
            Job::Merge(placements) => self.merge(&placements).await,
            Job::Match { references, probe } => self.compare(&references, &probe).await,
            Job::Search { probe, user_ids: None } => self.search_all(&probe).await,
            Job::Search { probe, user_ids: Some(user_ids) } => {
                self.search_among(&probe, &user_ids).await
            }
        };
        result.unwrap_or_else(|error| Computed::Failed(error_body(&error)))
    }

    pub(crate) async fn test(&self, serial: &Serial) -> Result<Duration, ReaderError> {
        self.host.test(serial).await
    }

    /// Each placement has to match another one; then they are merged.
    async fn merge(&self, placements: &[TemplateBytes; 3]) -> Result<Computed, ReaderError> {
        let [a, b, c] = placements;
        let (a, b, c) = (sdk(a)?, sdk(b)?, sdk(c)?);
        let mut alike = 0;
        for (one, other) in [(&a, &b), (&b, &c), (&a, &c)] {
            if alike < 2 && self.host.match_templates(one, other).await? > 0 {
                alike += 1;
            }
        }
        if alike < 2 {
            let text = "The scans do not show the same finger (enrollment failed)";
            return Ok(Computed::Failed(
                ErrorBody::new(ErrorCode::EnrollmentFailed, text)
                    .with("reason", "placements do not agree"),
            ));
        }
        let merged = self.host.merge(&a, &b, &c).await?;
        Ok(Computed::Merged(merged.into_bytes().into()))
    }

    async fn compare(
        &self,
        references: &[TemplateBytes],
        probe: &[u8],
    ) -> Result<Computed, ReaderError> {
        let probe = sdk(probe)?;
        let mut score = 0;
        for reference in references {
            score = score.max(self.host.match_templates(&sdk(reference)?, &probe).await?);
        }
        Ok(Computed::Compared { score, threshold: self.verify_threshold(references.len()) })
    }

    async fn search_all(&self, probe: &[u8]) -> Result<Computed, ReaderError> {
        if *self.state.borrow() == (EngineState::Up { loaded: false }) {
            return Err(ReaderError::GalleryNotLoaded);
        }
        let threshold = self.search_threshold(self.templates.count());
        let best = self.host.db_identify(&sdk(probe)?).await?;
        let found = best.filter(|best| best.score >= threshold).and_then(|best| {
            let (user_id, template_id) = self.templates.by_number(best.fid.get())?;
            Some(Found {
                user_id,
                template_id,
                confidence: minutiae::confidence(best.score, threshold),
            })
        });
        Ok(Computed::Searched(found))
    }

    /// The SDK's search knows no filter: one comparison for each of their templates.
    async fn search_among(
        &self,
        probe: &[u8],
        user_ids: &[UserId],
    ) -> Result<Computed, ReaderError> {
        let probe = sdk(probe)?;
        let mut best: Option<(u16, UserId, String)> = None;
        let mut count = 0;
        for user_id in user_ids {
            for stored in self.templates.of_user(user_id).unwrap_or_default() {
                count += 1;
                let score = self.host.match_templates(&sdk(&stored.template)?, &probe).await?;
                if best.as_ref().is_none_or(|(best, ..)| score > *best) {
                    best = Some((score, stored.info.user_id, stored.info.template_id));
                }
            }
        }
        let threshold = self.search_threshold(count);
        let found =
            best.filter(|(score, ..)| *score >= threshold).map(|(score, user_id, template_id)| {
                Found { user_id, template_id, confidence: minutiae::confidence(score, threshold) }
            });
        Ok(Computed::Searched(found))
    }

    /// Each further reference is one more chance for a stranger: 20 points for each power of ten
    /// keep the rate of false matches where it is with one.
    fn verify_threshold(&self, references: usize) -> u16 {
        let more = 20.0 * (references.max(1) as f64).log10();
        self.settings.verify_threshold.saturating_add(more.ceil() as u16)
    }

    fn search_threshold(&self, count: usize) -> u16 {
        minutiae::search_threshold(count).max(self.settings.search_floor)
    }
}

fn sdk(template: &[u8]) -> Result<SdkTemplate, ReaderError> {
    SdkTemplate::new(template.to_vec())
}

/// Those that the SDK can take.
fn checked(templates: Vec<(u32, TemplateBytes)>) -> Vec<(Fid, SdkTemplate)> {
    templates
        .into_iter()
        .filter_map(|(number, template)| {
            let template = sdk(&template)
                .inspect_err(|error| tracing::error!(%error, "a stored template is not searched"))
                .ok()?;
            Some((Fid::new(number)?, template))
        })
        .collect()
}

/// A reader's error as clients see it.
pub(crate) fn error_body(error: &ReaderError) -> ErrorBody {
    let code = ErrorCode::from_number(error.code()).unwrap_or(ErrorCode::InternalError);
    let text = match code {
        ErrorCode::DeviceNotFound => "Fingerprint reader not connected (device not found)",
        ErrorCode::DeviceBusy => "Fingerprint reader is busy (device busy)",
        ErrorCode::DeviceDisconnected => "The fingerprint reader was disconnected",
        ErrorCode::DeviceInitFailed => "The fingerprint reader could not be initialised",
        ErrorCode::DeviceTimeout => "The fingerprint reader does not answer",
        ErrorCode::TemplateExtractionFailed => "No template could be made of the finger",
        ErrorCode::MatchFailed => "The templates could not be compared",
        ErrorCode::EnrollmentFailed => "The scans do not show the same finger (enrollment failed)",
        ErrorCode::ServiceUnavailable => "The matcher is not ready yet",
        _ => "Internal error",
    };
    ErrorBody::new(code, text).with("reason", error.to_string())
}
