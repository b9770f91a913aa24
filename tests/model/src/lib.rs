//! The link's two ends and the journal's accounting against each other, in simulated time.
//!
//! # Actors
//!
//! | actor | real | of the model |
//! |---|---|---|
//! | journal | `journal::ledger`, `journal::lane`: appends, acknowledgements, resume, new store id, bounds, retention | rows in a map; a commit that fails, or is the last |
//! | gateway | `uplink::core` | what its driver does: one acknowledgement slot (the newest wins) that reaches the journal later; a probe that takes it along; a read that fails |
//! | the way | `topics::link` frames, as bytes in a part of the worlds | two queues |
//! | bridge | `ingest::link`, `ingest::cursor` | what its engine does: rounds that commit together, a hello answered from what is committed, `forget` after a failure; the store's rule that an event id is stored once |
//!
//! # Faults
//!
//! On the way: frames lost, repeated, reordered, late, dropped where there is no room; connections cut
//! and refused. Of processes: either dies at any step, also within a commit. Of disks: the n-th call
//! fails, with the commit there or not. Of files: the bridge is restored from an older backup; the
//! journal is rolled back, or copied and both go on; it is replaced; a row's text or chain value changes. Of clocks: both walls jump, the
//! gateway's machine sleeps. A world has a few of them, so that each is also met without the others.
//!
//! # What is checked
//!
//! - **Once.** No number of a journal is stored, or counted as lost, twice; what is acknowledged is
//!   what is committed. What is stored behind an event continues its chain.
//! - **Accounts.** After each commit: at the gateway `next - 1 = acknowledged + queued + dropped`, all
//!   that is not acknowledged is held or covered by a gap, rows and bytes are what is counted, a
//!   restart finds the same; at the bridge `stored + set aside + lost = watermark + ranges`, each
//!   number for number. What the gateway takes for acknowledged is committed at the bridge (not
//!   claimed after the bridge was restored, until the next resume).
//! - **Order.** What a session sends first time is in order per lane, for backlog and live apart; a
//!   batch is in order of event id. Where the way keeps order, so it is stored.
//! - **Live first.** While a live record that the core knows was not sent, the backlog goes only after
//!   [`LIVE_IN_A_ROW`](gateway::uplink::core::LIVE_IN_A_ROW) live batches, and what is under way of it is
//!   within the window.
//! - **Quiet.** Once faults stop, everything is acknowledged, both sides agree, and the link is
//!   connected, within [`QUIET_AFTER`]. Then each event of the journal is stored, or a gap says why not.
//!
//! Known and left, where a journal was copied and both went on: an acknowledgement has a chain value for
//! its watermark only, so an event that was acknowledged above it may be the other history's; and a
//! chain passes over a gap, so what one history dropped, the other one takes for acknowledged.
//!
//! Commands, and two gateways alive with one id at the same time, are not in it.

mod bridge;
mod journal;
mod plan;
mod session;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

pub use world::QUIET_AFTER;

use plan::Random;
use world::World;

/// How a schedule went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Steps with faults.
    pub steps: usize,
    /// Events that were committed at the gateway.
    pub events: usize,
    /// Until it was quiet.
    pub quiet_after: Duration,
}

/// Why a schedule failed.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was found.
    pub reason: String,
}

/// Runs the schedule of a seed.
pub fn run(seed: u64) -> Result<Figures, Failure> {
    run_with(seed, false)
}

/// The same, printing each step.
pub fn trace(seed: u64) -> Result<Figures, Failure> {
    run_with(seed, true)
}

fn run_with(seed: u64, trace: bool) -> Result<Figures, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| World::new(Random::new(seed), trace).run()));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Failure { seed, reason: text.unwrap_or_default() }
    })
}

/// How many schedules went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    /// How many.
    pub schedules: u64,
    /// Steps with faults, of all.
    pub steps: usize,
    /// Events that were committed, of all.
    pub events: usize,
    /// The longest that one took to become quiet.
    pub quiet_after: Duration,
    /// Its seed.
    pub slowest: u64,
}

impl Sum {
    fn add(&mut self, seed: u64, figures: Figures) {
        self.schedules += 1;
        self.steps += figures.steps;
        self.events += figures.events;
        if figures.quiet_after > self.quiet_after {
            (self.quiet_after, self.slowest) = (figures.quiet_after, seed);
        }
    }

    fn join(&mut self, other: Sum) {
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.events += other.events;
        if other.quiet_after > self.quiet_after {
            (self.quiet_after, self.slowest) = (other.quiet_after, other.slowest);
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, reason } = self;
        write!(f, "seed {seed}: {reason}\nreplay and trace it: scripts/model --seed {seed}")
    }
}

/// Runs the schedules of `count` seeds from `from` on, on all processors; ends with the first that
/// fails.
pub fn run_many(from: u64, count: u64) -> Result<Sum, Failure> {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const PORTION: u64 = 64;
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let end = from + count;
    let work = || {
        let mut sum = Sum::default();
        while !failed.load(Ordering::Relaxed) {
            let first = next.fetch_add(PORTION, Ordering::Relaxed);
            for seed in first..end.min(first + PORTION) {
                match run(seed) {
                    Ok(figures) => sum.add(seed, figures),
                    Err(failure) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(failure);
                    }
                }
            }
            if first + PORTION >= end {
                break;
            }
        }
        Ok(sum)
    };
    // What a failing schedule has to say is printed once, with its seed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<Result<Sum, Failure>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    std::panic::set_hook(hook);
    let mut all = Sum::default();
    for result in results {
        all.join(result?);
    }
    Ok(all)
}
