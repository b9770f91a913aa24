//! The parent's side: start the host, watch it, ask it.
//!
//! | module | does |
//! |---|---|
//! | this one | the requests, as async functions with a deadline |
//! | `supervisor` | starts the host, and starts it again with growing, jittered pauses |
//! | `connection` | one host's life: requests down, replies and events up, heartbeats judged |
//! | `process` | the child process: started and reaped by a thread of its own |
//!
//! A request ends in one of these ways, whatever the host does:
//!
//! | the host | the request |
//! |---|---|
//! | answers | its result |
//! | is in one call for longer than [`HostConfig::slow_call`] | [`ReaderError::NoAnswer`], 1005 |
//! | doesn't answer within [`HostConfig::request_deadline`] | the same |
//! | dies, or is down | [`ReaderError::Disconnected`], 1003 |

mod connection;
mod process;
mod supervisor;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::HostConfig;
use crate::error::ReaderError;
use crate::event::{Device, HostEvent};
use crate::message::{Answer, Request};
use crate::serial::Serial;
use crate::template::SdkTemplate;

/// A template's number in the gallery.
pub type Fid = NonZeroU32;

/// Requests that wait for their turn. Callers beyond it wait for a place, within their deadline.
const MAX_WAITING: usize = 64;
/// Templates of a gallery that are sent at once, by their bytes: well below a frame's limit.
const MAX_BATCH_BYTES: usize = 48 * 1024;
/// A numeric id as JSON, and a template's length.
const BATCH_OVERHEAD_BYTES: usize = 16;

/// The best candidate of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Its number.
    pub fid: Fid,
    /// 0 to 1000, on the SDK's scale.
    pub score: u16,
}

/// A supervised reader host. Clones share it; it is stopped with the last one.
#[derive(Debug, Clone)]
pub struct ReaderHost {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: mpsc::Sender<Command>,
    deadline: Duration,
    /// A load is many requests; nobody else changes the gallery meanwhile.
    gallery: Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_with_the_last: DropGuard,
}

/// A request on its way, and where its result goes.
#[derive(Debug)]
struct Command {
    request: Request,
    templates: Vec<Vec<u8>>,
    reply: oneshot::Sender<Result<Reply, ReaderError>>,
}

/// An answer and the templates that came with it.
#[derive(Debug)]
struct Reply {
    answer: Answer,
    templates: Vec<Vec<u8>>,
}

impl ReaderHost {
    /// Starts a host, and keeps one running until [`ReaderHost::shutdown`] or the last clone is
    /// dropped. Call it within a tokio runtime.
    ///
    /// When nobody takes the events, first they wait, then the host.
    pub fn spawn(config: HostConfig, events: mpsc::Sender<HostEvent>) -> ReaderHost {
        let (requests, inbox) = mpsc::channel(MAX_WAITING);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let deadline = config.request_deadline;
        tasks.spawn(supervisor::supervise(config, inbox, events, stop.clone()));
        tasks.close();
        let shared = Shared {
            requests,
            deadline,
            gallery: Mutex::new(()),
            tasks,
            _stop_with_the_last: stop.clone().drop_guard(),
            stop,
        };
        ReaderHost { shared: Arc::new(shared) }
    }

    /// Stops the host and waits for its end.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }

    /// Starts or stops looking for fingers on a reader, until it is unplugged or the host ends.
    /// Stopping always works; a finger that is still there is reported as lifted later, and isn't
    /// a new touch if looking starts again before.
    pub async fn arm(&self, serial: &Serial, on: bool) -> Result<(), ReaderError> {
        self.done(Request::Arm { serial: serial.clone(), on }).await
    }

    /// Asks for another capture of the finger that is on the reader: another
    /// [`HostEvent::Touch`] follows, with the same touch and the next capture number. False when
    /// no finger is there any more.
    pub async fn recapture(&self, serial: &Serial) -> Result<bool, ReaderError> {
        match self.ask(Request::Recapture { serial: serial.clone() }, vec![]).await?.answer {
            Answer::Done => Ok(true),
            Answer::Stranger => Ok(false),
            _ => Err(ReaderError::Protocol { operation: "recapture" }),
        }
    }

    /// Reads from a reader, and says how long it took.
    pub async fn test(&self, serial: &Serial) -> Result<Duration, ReaderError> {
        match self.ask(Request::Test { serial: serial.clone() }, vec![]).await?.answer {
            Answer::Tested { micros } => Ok(Duration::from_micros(micros)),
            _ => Err(ReaderError::Protocol { operation: "test" }),
        }
    }

    /// What a connected reader is.
    pub async fn info(&self, serial: &Serial) -> Result<Device, ReaderError> {
        match self.ask(Request::Info { serial: serial.clone() }, vec![]).await?.answer {
            Answer::Info(device) => Ok(device),
            _ => Err(ReaderError::Protocol { operation: "info" }),
        }
    }

    /// Compares two templates: 0 to 1000 on the SDK's scale, 0 below the SDK's own threshold.
    pub async fn match_templates(
        &self,
        a: &SdkTemplate,
        b: &SdkTemplate,
    ) -> Result<u16, ReaderError> {
        match self.ask(Request::Match, bytes([a, b])).await?.answer {
            Answer::Score(score) => Ok(score),
            _ => Err(ReaderError::Protocol { operation: "match" }),
        }
    }

    /// Joins three placements of one finger.
    pub async fn merge(
        &self,
        a: &SdkTemplate,
        b: &SdkTemplate,
        c: &SdkTemplate,
    ) -> Result<SdkTemplate, ReaderError> {
        let reply = self.ask(Request::Merge, bytes([a, b, c])).await?;
        match (reply.answer, <[Vec<u8>; 1]>::try_from(reply.templates)) {
            (Answer::Merged, Ok([merged])) => SdkTemplate::new(merged),
            _ => Err(ReaderError::Protocol { operation: "merge" }),
        }
    }

    /// Replaces the whole gallery; needed after every [`HostEvent::Up`]. The numbers that the SDK
    /// doesn't take come back. Until it is through, a search is refused.
    pub async fn db_load(
        &self,
        templates: impl IntoIterator<Item = (Fid, SdkTemplate)>,
    ) -> Result<Vec<Fid>, ReaderError> {
        let _others_wait = self.shared.gallery.lock().await;
        self.done(Request::GalleryClear { loading: true }).await?;
        let (mut fids, mut batch, mut batch_bytes) = (Vec::new(), Vec::new(), 0);
        let mut rejected = Vec::new();
        for (fid, template) in templates {
            let size = template.as_bytes().len() + BATCH_OVERHEAD_BYTES;
            if batch_bytes + size > MAX_BATCH_BYTES {
                let full = (std::mem::take(&mut fids), std::mem::take(&mut batch));
                rejected.extend(self.add(full.0, full.1).await?);
                batch_bytes = 0;
            }
            fids.push(fid.get());
            batch.push(template.into_bytes());
            batch_bytes += size;
        }
        rejected.extend(self.add(fids, batch).await?);
        self.done(Request::GalleryLoaded).await?;
        Ok(rejected)
    }

    /// Adds a template, or replaces that of the same number. False when the SDK doesn't take it.
    pub async fn db_add(&self, fid: Fid, template: &SdkTemplate) -> Result<bool, ReaderError> {
        let _others_wait = self.shared.gallery.lock().await;
        Ok(self.add(vec![fid.get()], bytes([template])).await?.is_empty())
    }

    /// Removes a template; one that isn't there is removed already.
    pub async fn db_remove(&self, fid: Fid) -> Result<(), ReaderError> {
        let _others_wait = self.shared.gallery.lock().await;
        self.done(Request::GalleryRemove { fid: fid.get() }).await
    }

    /// Removes all templates.
    pub async fn db_clear(&self) -> Result<(), ReaderError> {
        let _others_wait = self.shared.gallery.lock().await;
        self.done(Request::GalleryClear { loading: false }).await
    }

    /// Searches the gallery: the best candidate above the SDK's own threshold. The caller applies
    /// a threshold that fits the gallery's size.
    pub async fn db_identify(&self, template: &SdkTemplate) -> Result<Option<Match>, ReaderError> {
        match self.ask(Request::Identify, bytes([template])).await?.answer {
            Answer::Stranger => Ok(None),
            Answer::Found { fid, score } => {
                let fid = Fid::new(fid).ok_or(ReaderError::Protocol { operation: "identify" })?;
                Ok(Some(Match { fid, score }))
            }
            _ => Err(ReaderError::Protocol { operation: "identify" }),
        }
    }

    async fn add(&self, fids: Vec<u32>, templates: Vec<Vec<u8>>) -> Result<Vec<Fid>, ReaderError> {
        if fids.is_empty() {
            return Ok(Vec::new());
        }
        match self.ask(Request::GalleryAdd { fids }, templates).await?.answer {
            Answer::Added { rejected } => Ok(rejected.into_iter().filter_map(Fid::new).collect()),
            _ => Err(ReaderError::Protocol { operation: "gallery add" }),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ReaderError> {
        let operation = request.operation();
        match self.ask(request, Vec::new()).await?.answer {
            Answer::Done => Ok(()),
            _ => Err(ReaderError::Protocol { operation }),
        }
    }

    async fn ask(&self, request: Request, templates: Vec<Vec<u8>>) -> Result<Reply, ReaderError> {
        let operation = request.operation();
        let (reply, result) = oneshot::channel();
        let command = Command { request, templates, reply };
        let answered = timeout(self.shared.deadline, async {
            let stopping = || ReaderError::Stopping { operation };
            self.shared.requests.send(command).await.map_err(|_| stopping())?;
            result.await.map_err(|_| stopping())?
        });
        let waited = self.shared.deadline;
        answered.await.unwrap_or(Err(ReaderError::NoAnswer { operation, waited }))
    }
}

fn bytes<const N: usize>(templates: [&SdkTemplate; N]) -> Vec<Vec<u8>> {
    templates.map(|template| template.as_bytes().to_vec()).into()
}
