//! Keeps a host running.
//!
//! | state | left by |
//! |---|---|
//! | starting | loaded: *up*; anything else: *down* |
//! | up | the connection's end: *down*; a stop: the end |
//! | down, until the pause is over | *starting*; requests fail at once; a stop: the end |
//!
//! Pauses are drawn from zero to a limit that doubles with each failure (full jitter), so that many
//! gateways behind one power switch don't act in step. A host that was up for
//! [`STEADY`] starts the limit over.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Command;
use super::connection::{self, Connection, Ended};
use super::process::{self, Process};
use crate::config::HostConfig;
use crate::error::ReaderError;
use crate::event::{DownReason, HostEvent};
use crate::find;
use crate::message::Settings;

/// A host that was up for so long has started well.
const STEADY: Duration = Duration::from_secs(30);

/// Runs until it is stopped, or nobody takes the events any more.
pub(super) async fn supervise(
    config: HostConfig,
    mut requests: mpsc::Receiver<Command>,
    events: mpsc::Sender<HostEvent>,
    stop: CancellationToken,
) {
    let mut limit = config.first_restart;
    loop {
        let started = Instant::now();
        let reason = match live(&config, &mut requests, &events, &stop).await {
            Ended::Stopped => return,
            Ended::Down(reason) => reason,
        };
        limit = if started.elapsed() >= STEADY { config.first_restart } else { limit };
        let retry_in = jittered(limit);
        limit = (limit * 2).min(config.last_restart);
        tracing::debug!(retry_in_ms = retry_in.as_millis() as u64, "{reason}");
        if !deliver(&events, HostEvent::Down { reason, retry_in }, &stop).await {
            return;
        }
        if !pause(Instant::now() + retry_in, &mut requests, &stop).await {
            return;
        }
    }
}

/// One host's life.
async fn live(
    config: &HostConfig,
    requests: &mut mpsc::Receiver<Command>,
    events: &mpsc::Sender<HostEvent>,
    stop: &CancellationToken,
) -> Ended {
    let settings = match settings(config) {
        Ok(settings) => settings,
        Err(reason) => return Ended::Down(reason),
    };
    let started = match Process::start(config).await {
        Ok(started) => started,
        Err(error) => {
            let reason = format!("{}: {error}", config.exe.display());
            return Ended::Down(DownReason::NotStarted(reason));
        }
    };
    let pid = started.0.pid;
    let greeting = async {
        match timeout(config.start_deadline, connection::open(started, settings)).await {
            Ok(opened) => opened,
            Err(_) => Err(DownReason::Silent(config.start_deadline)),
        }
    };
    let opened = tokio::select! {
        opened = greeting => opened,
        () = stop.cancelled() => return Ended::Stopped,
        // Requests during the start fail as those during a pause do.
        () = refuse(requests) => return Ended::Stopped,
    };
    let (connection, library) = match opened {
        Ok(opened) => opened,
        Err(reason) => return Ended::Down(reason),
    };
    if !deliver(events, HostEvent::Up { pid, library }, stop).await {
        return Ended::Stopped;
    }
    Connection::run(connection, config, requests, events, stop).await
}

/// Hands an event over; false when nobody takes it, or it is time to stop.
pub(super) async fn deliver(
    events: &mpsc::Sender<HostEvent>,
    event: HostEvent,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        sent = events.send(event) => sent.is_ok(),
        () = stop.cancelled() => false,
    }
}

/// Waits, and refuses requests meanwhile; false when it is time to stop.
async fn pause(
    until: Instant,
    requests: &mut mpsc::Receiver<Command>,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        () = sleep_until(until) => true,
        () = stop.cancelled() => false,
        () = refuse(requests) => false,
    }
}

/// Refuses requests until nobody can send any.
async fn refuse(requests: &mut mpsc::Receiver<Command>) {
    while let Some(command) = requests.recv().await {
        let operation = command.request.operation();
        // Who doesn't wait any more doesn't need the answer.
        drop(command.reply.send(Err(ReaderError::Disconnected { operation })));
    }
}

fn settings(config: &HostConfig) -> Result<Settings, DownReason> {
    Ok(Settings {
        library: library(config)?,
        simulator_dir: config.simulator_dir.as_deref().map(process::absolute),
        usb_devices: config.usb_devices.clone(),
        poll_period_ms: config.poll_period.as_millis() as u64,
        presence_period_ms: config.presence_period.as_millis() as u64,
        slow_call_ms: config.slow_call.as_millis() as u64,
    })
}

fn library(config: &HostConfig) -> Result<PathBuf, DownReason> {
    match (&config.library, &config.simulator_dir) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(_)) => find::find_simulator().ok_or_else(|| {
            DownReason::NotLoaded(format!("{} isn't beside the program", find::SIMULATOR_NAME))
        }),
        (None, None) => Ok(find::find_sdk(None)),
    }
}

/// A random time up to a limit. Randomness as the standard library seeds its hash maps: nothing
/// here is secret.
fn jittered(limit: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    limit.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_and_never_longer_than_the_limit() {
        let limit = Duration::from_secs(1);
        let pauses: Vec<_> = (0..200).map(|_| jittered(limit)).collect();
        assert!(pauses.iter().all(|pause| *pause <= limit));
        let early = pauses.iter().filter(|pause| **pause < limit / 2).count();
        assert!((40..160).contains(&early), "{early} of 200 in the first half");
    }
}
