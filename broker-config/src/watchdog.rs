//! The watchdog: proves twice a second that the inner broker takes new connections and delivers, and
//! replaces it when it doesn't.
//!
//! | beat | meaning | then |
//! |---|---|---|
//! | answered | it works | |
//! | refused, or closed in the middle | router dead (K1 to K3) | replaced at once |
//! | no answer in time | perhaps only a busy machine | replaced after three in a row |
//! | answered, but its logs hold too much | rumqttd keeps a log for every filter, full or not, for good | replaced, and the user with most of it may bring up fewer |
//!
//! Kept sessions are gone then; retained messages are not, since the guard keeps them. Clients see one
//! reconnect, and owners who publish from a journal go a little back in it when the generation
//! changes: what the dead one had acknowledged it may not have delivered. Five replacements within a minute
//! are no accident: the broker counts as failed and leaves it to its owner to end the process.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{inner::Inner, line, shared::Shared, traffic::Overfull};

/// Beats without an answer before the inner broker is replaced.
const SILENT_BEATS: u32 = 3;
/// More replacements than this within [`MANY_WITHIN`] are a failure.
const MANY: usize = 5;
const MANY_WITHIN: Duration = Duration::from_secs(60);
/// Between tries to start a new inner broker.
const RETRY: Duration = Duration::from_millis(500);

pub(crate) struct Watchdog {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inner: watch::Sender<Option<Arc<Inner>>>,
    pub(crate) generation: watch::Sender<u64>,
    /// Somebody found the inner broker dead, and doesn't want to wait for the next beat.
    pub(crate) nudge: Arc<Notify>,
    pub(crate) stop: CancellationToken,
    pub(crate) failed: CancellationToken,
}

impl Watchdog {
    /// Watches until told to stop.
    pub(crate) async fn run(self) {
        let mut silent = 0;
        let mut rebuilds = VecDeque::new();
        let stop = self.stop.clone();
        let watch = async {
            loop {
                tokio::select! {
                    () = sleep(self.shared.limits.beat_interval) => {}
                    () = self.nudge.notified() => {}
                }
                if let Some(reason) = self.beat(&mut silent).await {
                    silent = 0;
                    self.rebuild(&reason).await;
                    self.note_rebuild(&mut rebuilds);
                } else if let Some(Overfull { held_bytes, user }) = self.shared.traffic.overfull() {
                    let who = user.as_deref().unwrap_or("nobody in particular");
                    let held_mib = held_bytes >> 20;
                    // No death of rumqttd's, so it doesn't count as one.
                    self.rebuild(&format!(
                        "its logs held {held_mib} MiB, most of it for filters of user {who}, who may \
                         now bring up a quarter of them"
                    ))
                    .await;
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = stop.cancelled() => {}
        }
    }

    /// One beat; a reason to replace the inner broker, if there is one.
    async fn beat(&self, silent: &mut u32) -> Option<String> {
        let inner = self.inner.borrow().clone()?;
        let beat =
            timeout(self.shared.limits.beat_timeout, line::beat(self.shared.clone(), inner)).await;
        match beat {
            Ok(Ok(())) => {
                self.shared.counters.beats.fetch_add(1, Ordering::Relaxed);
                self.shared.retained.purge(Instant::now().into_std());
                *silent = 0;
                None
            }
            Ok(Err(error)) if is_local(&error) => {
                tracing::warn!(broker = %self.shared.name, %error, "no beat possible");
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => {
                *silent += 1;
                (*silent >= SILENT_BEATS).then(|| format!("{SILENT_BEATS} beats without an answer"))
            }
        }
    }

    async fn rebuild(&self, reason: &str) {
        let began = Instant::now();
        if let Some(old) = self.inner.send_replace(None) {
            old.end_router();
            old.shut_down();
        }
        self.shared.forget_inner();
        loop {
            match Inner::start(&self.shared, CancellationToken::new()).await {
                Ok(inner) => {
                    // Whoever gets in from here on can know that it is another one.
                    self.shared.counters.rebuilds.fetch_add(1, Ordering::Relaxed);
                    self.generation.send_modify(|generation| *generation += 1);
                    self.inner.send_replace(Some(inner));
                    break;
                }
                Err(error) => {
                    tracing::error!(broker = %self.shared.name, %error, "no new inner broker");
                    sleep(RETRY).await;
                }
            }
        }
        tracing::error!(
            broker = %self.shared.name, reason, took_ms = began.elapsed().as_millis(),
            generation = *self.generation.borrow(),
            "the inner broker was replaced; clients reconnect once"
        );
    }

    fn note_rebuild(&self, rebuilds: &mut VecDeque<Instant>) {
        let now = Instant::now();
        rebuilds.push_back(now);
        while rebuilds.front().is_some_and(|at| now.duration_since(*at) > MANY_WITHIN) {
            rebuilds.pop_front();
        }
        if rebuilds.len() > MANY && !self.failed.is_cancelled() {
            tracing::error!(broker = %self.shared.name, rebuilds = rebuilds.len(),
                "the inner broker dies again and again; giving up on it");
            self.failed.cancel();
        }
    }
}

/// Errors that say nothing about the inner broker: no descriptors, no randomness.
fn is_local(error: &io::Error) -> bool {
    // EMFILE and ENFILE have no kind of their own.
    matches!(error.raw_os_error(), Some(23 | 24))
        || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
}
