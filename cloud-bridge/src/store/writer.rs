//! The one thread that writes: group commit.
//!
//! It takes what waits (bounded), applies each request to one transaction, commits with fsync, then
//! answers all. A request that fails takes its whole group with it: nobody is told what did not
//! happen. After a failed commit redb refuses to write, so the file is opened anew.
//!
//! An outage (a full disk, usually) begins with a failed commit: see [`outage`](super::outage).

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use redb::{Database, Durability, WriteTransaction, backends::FileBackend};
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, outage};

/// Requests in one commit at most: keeps a commit's time, and so everybody's wait, bounded.
const GROUP_LIMIT: usize = 256;
/// Requests that wait at most; whoever comes then waits to be let in.
pub(super) const QUEUE_DEPTH: usize = 512;

/// Runs inside the transaction; what it returns runs after the commit, or after its failure. With the reason
/// where there must be no commit.
pub(super) type Apply = Box<dyn FnOnce(&WriteTransaction) -> (Answer, Option<StoreError>) + Send>;
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A request, type-erased.
pub(super) enum Job {
    /// Something to commit.
    Run(Apply),
    /// The end: what came before is committed, what comes after is refused.
    Close,
}

impl Job {
    /// A request and the place where its answer arrives after the commit.
    pub(super) fn new<T: Send + 'static>(
        apply: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |transaction| {
            let outcome = apply(transaction);
            let error = outcome.as_ref().err().cloned();
            let answer: Answer = Box::new(move |committed| {
                // Whoever asked may have gone; what was committed stands.
                let _ = reply.send(committed.and(outcome));
            });
            (answer, error)
        }));
        (job, answer)
    }
}

/// The database; absent while it is opened anew.
pub(super) type Shared = Arc<RwLock<Option<Database>>>;

/// Opens the file, made where it is missing.
pub(crate) type Opener = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

pub(super) struct Writer {
    pub(super) open: Opener,
    pub(super) database: Shared,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) outage: Arc<Mutex<outage::State>>,
}

impl Writer {
    /// Until it is told to close, or every handle is gone.
    pub(super) fn run(mut self) {
        let mut closing = false;
        while !closing {
            let Some(first) = self.jobs.blocking_recv() else { break };
            let mut group = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Run(apply) => group.push(apply),
                    Job::Close => closing = true,
                }
                let room = group.len() < GROUP_LIMIT && !closing;
                next = if room { self.jobs.try_recv().ok() } else { None };
            }
            if group.is_empty() {
                continue;
            }
            if self.is_closed() {
                self.reopen();
            }
            if self.commit(group).is_err() {
                self.reopen();
            }
        }
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn commit(&self, group: Vec<Apply>) -> Result<(), StoreError> {
        let mut answers = Vec::with_capacity(group.len());
        let mut group = group.into_iter();
        let outcome = self.apply(&mut group, &mut answers);
        if let Err(error) = &outcome {
            // Before anybody learns of it, also who was not reached, so that whoever does finds the outage.
            self.failed(error);
        }
        for answer in answers {
            answer(outcome.clone());
        }
        outcome
    }

    fn apply(
        &self,
        group: &mut impl Iterator<Item = Apply>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StoreError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        for apply in group {
            let (answer, error) = apply(&transaction);
            answers.push(answer);
            if let Some(error) = error {
                return Err(error);
            }
        }
        Ok(transaction.commit()?)
    }

    /// The first failure of an outage is logged.
    fn failed(&self, error: &StoreError) {
        let mut state = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed(error, Instant::now()) {
            tracing::error!(%error, "the store takes nothing; it is said when it does again");
        } else if !error.is_of_disk() {
            tracing::error!(%error, "the store refused a commit");
        }
    }

    fn is_closed(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn reopen(&self) {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *guard = None;
        match (self.open)() {
            Ok(database) => *guard = Some(database),
            // The next request leads here again.
            Err(error) => tracing::debug!(%error, "the store can't be opened again"),
        }
    }
}

/// Opens the file at `path`.
pub(super) fn opener(path: PathBuf, cache_bytes: usize) -> Opener {
    Box::new(move || {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(redb::DatabaseError::from)?;
        Ok(Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(FileBackend::new(file)?)?)
    })
}
