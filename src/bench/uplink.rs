//! The way from a gateway's journal to a bridge's store, on this machine, and Mosquitto's bridge beside
//! it.
//!
//! | part | processes | what |
//! |---|---|---|
//! | drain | gateway and bridge here | a backlog of `--events`, then single events |
//! | fresh | the same | an event now and then while a backlog of `--fresh-events` drains |
//! | wire | the same, and a proxy that counts | what a backlog of `--events` takes on the line |
//! | process | the gateway in its own | its memory, and its start after SIGKILL, with `--fresh-events` |
//! | peer | two Mosquittos | the same number of events as in `drain`, from broker to broker |

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_bridge::Bridge;
use gateway::{
    Gateway,
    journal::{Attachment, Batch, Journal, moment},
};
use serde::Serialize;
use tokio::task::JoinSet;
use topics::{Draft, Lane, record::Cause};

use super::{Sample, append, event, fdatasync, load_average, tempdir};
use crate::cli::BenchArgs;

mod peer;
mod process;
mod site;

use site::{Site, Wire};

/// Appends under way while a journal is filled.
const AT_ONCE: usize = 1_024;
/// Single events.
const ALONE: usize = 1_000;
/// Between two fresh events during a drain.
const FRESH_EVERY: Duration = Duration::from_millis(20);
/// Of the fresh events, those that are told one by one.
const SLOWEST: usize = 10;
/// For everything to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// See the module.
pub(super) async fn run(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("can't make {}", args.dir.display()))?;
    let dir = tempdir(&args.dir)?;
    let result = measure(&dir, args).await;
    std::fs::remove_dir_all(&dir)?;
    let figures = result?;
    if args.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        figures.print();
    }
    Ok(())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    load_average: String,
    fdatasync_p50_us: f64,
    // Each where it was asked for; Mosquitto where it is installed.
    drain: Option<Drain>,
    fresh: Option<Fresh>,
    wire: Option<OnTheWire>,
    process: Option<process::Figures>,
    mosquitto: Option<peer::Figures>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Drain {
    events: u64,
    append_per_second: f64,
    /// From the first acknowledgement to the last.
    seconds: f64,
    /// With the connection, the hello, and the gateway's back-off before it.
    seconds_from_start: f64,
    alone_p50_ms: f64,
    alone_p99_ms: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Fresh {
    backlog: u64,
    seconds: f64,
    events: usize,
    p50_ms: f64,
    p99_ms: f64,
    /// Of them, the journal's commit.
    commit_p99_ms: f64,
    /// The slowest, each as seconds from the drain's first acknowledgement and milliseconds.
    slowest: Vec<(f64, f64)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OnTheWire {
    events: u64,
    /// From the gateway, all that TCP carried.
    bytes: u64,
    /// As one QoS 1 PUBLISH for each event: header, topic, packet id and its JSON.
    single_publishes_bytes: u64,
}

async fn measure(dir: &Path, args: &BenchArgs) -> anyhow::Result<Figures> {
    let say = |text: &str| eprintln!("{text}");
    let disk = fdatasync(&dir.join("plain"), Duration::from_millis(args.slice_ms))?;
    let (events, fresh_events) = (u64::from(args.events), u64::from(args.fresh_events));
    let is_asked = |part: &str| args.only.as_deref().is_none_or(|only| part.contains(only));
    let mut figures = Figures {
        load_average: load_average(),
        fdatasync_p50_us: disk.p50_us,
        drain: None,
        fresh: None,
        wire: None,
        process: None,
        mosquitto: None,
    };
    if is_asked("drain") {
        say("a backlog drains");
        figures.drain = Some(drain(&Site::new(&dir.join("drain"))?, events).await?);
    }
    if is_asked("fresh") {
        say("a backlog drains while events come");
        figures.fresh = Some(fresh(&Site::new(&dir.join("fresh"))?, fresh_events).await?);
    }
    if is_asked("wire") {
        say("a backlog drains through a proxy that counts");
        figures.wire = Some(wire(&Site::new(&dir.join("wire"))?, events).await?);
    }
    if is_asked("process") {
        say("a gateway in a process of its own");
        let site = Site::new(&dir.join("process"))?;
        figures.process = Some(process::measure(&site, fresh_events).await?);
    }
    if is_asked("peer") {
        say("Mosquitto's bridge");
        figures.mosquitto = peer::measure(&dir.join("mosquitto"), events).await?;
        if figures.mosquitto.is_none() {
            say("mosquitto is not installed: no figures of it");
        }
    }
    Ok(figures)
}

async fn drain(site: &Site, events: u64) -> anyhow::Result<Drain> {
    let gateway = Gateway::start(site.gateway(site.cloud)?).await?;
    let journal = gateway.journal().clone();
    let start = Instant::now();
    fill(&journal, events).await?;
    let filled = start.elapsed();
    told_on_site(&journal).await?;
    let start = Instant::now();
    let bridge = Bridge::start(site.bridge()?).await?;
    let drained = drained(&journal, start).await?;
    let whole = start.elapsed();
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        let one = Instant::now();
        append(&journal).await?;
        self::drained(&journal, one).await?;
        alone.push(one.elapsed());
    }
    gateway.stop(Duration::from_secs(10)).await;
    bridge.stop(Duration::from_secs(10)).await;
    let alone = Sample::new(ALONE, whole, alone);
    Ok(Drain {
        events,
        append_per_second: events as f64 / filled.as_secs_f64(),
        seconds: drained.as_secs_f64(),
        seconds_from_start: whole.as_secs_f64(),
        alone_p50_ms: alone.p50_us / 1e3,
        alone_p99_ms: alone.p99_us / 1e3,
    })
}

async fn fresh(site: &Site, backlog: u64) -> anyhow::Result<Fresh> {
    let gateway = Gateway::start(site.gateway(site.cloud)?).await?;
    let journal = gateway.journal().clone();
    fill(&journal, backlog).await?;
    told_on_site(&journal).await?;
    let start = Instant::now();
    let bridge = Bridge::start(site.bridge()?).await?;
    // Once the backlog moves: the connection is not what is measured.
    wait_until(|| journal.queued() < backlog).await?;
    let began = Instant::now();
    // On a timetable, and each for itself: none waits for the one before.
    let mut due = tokio::time::interval(FRESH_EVERY);
    let mut under_way = JoinSet::new();
    while journal.queued() > AT_ONCE as u64 {
        due.tick().await;
        let journal = journal.clone();
        under_way.spawn(async move { one_fresh(&journal, began).await });
        anyhow::ensure!(start.elapsed() < PATIENCE, "the backlog does not drain");
    }
    let took = began.elapsed();
    let mut each = Vec::new();
    while let Some(done) = under_way.join_next().await {
        each.push(done??);
    }
    gateway.stop(Duration::from_secs(10)).await;
    bridge.stop(Duration::from_secs(10)).await;
    anyhow::ensure!(!each.is_empty(), "a backlog of {backlog} is through before an event comes");
    let events = each.len();
    each.sort_by_key(|one| std::cmp::Reverse(one.took));
    let sample = Sample::new(events, took, each.iter().map(|one| one.took).collect());
    let commit = Sample::new(events, took, each.iter().map(|one| one.commit).collect());
    let slowest = each.iter().take(SLOWEST);
    Ok(Fresh {
        backlog,
        seconds: took.as_secs_f64(),
        events,
        p50_ms: sample.p50_us / 1e3,
        p99_ms: sample.p99_us / 1e3,
        commit_p99_ms: commit.p99_us / 1e3,
        slowest: slowest.map(|one| (one.at.as_secs_f64(), one.took.as_secs_f64() * 1e3)).collect(),
    })
}

/// A fresh event.
struct OneFresh {
    at: Duration,
    /// From its append to its commit in the journal.
    commit: Duration,
    /// From its append to its acknowledgement.
    took: Duration,
}

async fn one_fresh(journal: &Journal, began: Instant) -> anyhow::Result<OneFresh> {
    let start = Instant::now();
    let draft = Draft::new(&event(), &moment(), &Cause::default())?;
    let told = journal.commit(Batch::new().event(draft, Attachment::default())).await?;
    let record = &told.first().context("an event")?.record;
    let (lane, seq, commit) = (record.lane(), record.seq(), start.elapsed());
    wait_until(|| is_acknowledged(journal, lane, seq)).await?;
    Ok(OneFresh { at: start - began, commit, took: start.elapsed() })
}

async fn wire(site: &Site, events: u64) -> anyhow::Result<OnTheWire> {
    let wire = Wire::start(site.cloud).await?;
    let gateway = Gateway::start(site.gateway(wire.address)?).await?;
    let journal = gateway.journal().clone();
    fill(&journal, events).await?;
    told_on_site(&journal).await?;
    let topic = "ridgeway/v1/bench/readers/device-001/events/access/denied";
    let record = journal.read(Lane::Access, 1, 1, 0)?.pop().context("a record")?;
    // Fixed header of three bytes, the topic's length and text, the packet id.
    let single = 3 + 2 + topic.len() + 2 + record.json().len();
    let before = wire.up();
    let start = Instant::now();
    let bridge = Bridge::start(site.bridge()?).await?;
    drained(&journal, start).await?;
    let bytes = wire.up() - before;
    gateway.stop(Duration::from_secs(10)).await;
    bridge.stop(Duration::from_secs(10)).await;
    Ok(OnTheWire { events, bytes, single_publishes_bytes: single as u64 * events })
}

async fn fill(journal: &Journal, events: u64) -> anyhow::Result<()> {
    let mut left = events as usize;
    while left > 0 {
        let appends = (0..left.min(AT_ONCE)).map(|_| append(journal));
        left -= futures_util::future::try_join_all(appends).await?.len();
    }
    Ok(())
}

/// Waits until the site's broker has all: while a site is offline it does, and its publishing is not what
/// is measured.
async fn told_on_site(journal: &Journal) -> anyhow::Result<()> {
    wait_until(|| {
        let heads = *journal.heads().borrow();
        Lane::ALL.into_iter().all(|lane| journal.edge_cursor(lane) + 1 >= heads.next(lane))
    })
    .await
}

/// Waits until nothing is queued; the time from when the queue began to shrink.
async fn drained(journal: &Journal, start: Instant) -> anyhow::Result<Duration> {
    let queued = journal.queued();
    let mut began = None;
    while journal.queued() > 0 {
        if began.is_none() && journal.queued() < queued {
            began = Some(Instant::now());
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "the backlog does not drain");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok(began.unwrap_or(start).elapsed())
}

fn is_acknowledged(journal: &Journal, lane: Lane, seq: u64) -> bool {
    let lanes = journal.lanes();
    let view = &lanes[lane.index()];
    let in_range = |&(first, last): &(u64, u64)| (first..=last).contains(&seq);
    seq <= view.watermark || view.ranges.iter().any(in_range)
}

async fn wait_until(is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so() {
        anyhow::ensure!(start.elapsed() < PATIENCE, "the link stands still");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok(())
}

impl Figures {
    fn print(&self) {
        println!("load average {}", self.load_average);
        println!("{:<44} {:>10.0} us", "fdatasync of 4 KiB, p50", self.fdatasync_p50_us);
        if let Some(drain) = &self.drain {
            drain.print();
        }
        if let Some(peer) = &self.mosquitto {
            let times = self.drain.as_ref().map(|drain| peer.seconds / drain.seconds);
            let times = times.map_or(String::new(), |times| format!("{times:.1} times as long; "));
            println!(
                "{:<44} {:>10.2} s  ({times}{:.2} s from the broker's start)",
                "Mosquitto's bridge, the same into memory", peer.seconds, peer.seconds_from_start
            );
        }
        if let Some(fresh) = &self.fresh {
            fresh.print();
        }
        if let Some(wire) = &self.wire {
            println!(
                "{:<44} {:>10} bytes  ({:.1} % of single QoS 1 publishes)",
                format!("{} events on the wire", wire.events),
                wire.bytes,
                wire.bytes as f64 / wire.single_publishes_bytes as f64 * 100.0
            );
        }
        if let Some(process) = &self.process {
            println!(
                "{:<44} {:>10.1} MB idle {:>7.1} MB with {} queued, {:.1} while they drain",
                "memory of the gateway, anonymous",
                process.idle_mb,
                process.queued_mb,
                process.queued,
                process.draining_mb
            );
            println!(
                "{:<44} {:>10.2} s",
                "SIGKILL and start, to the first batch sent", process.first_batch_seconds
            );
        }
    }
}

impl Drain {
    fn print(&self) {
        println!("{:<44} {:>10.0} /s", "filling the journal, 1024 at once", self.append_per_second);
        println!(
            "{:<44} {:>10.2} s  ({:.0}/s; {:.2} s from the bridge's start)",
            format!("draining {} events", self.events),
            self.seconds,
            self.events as f64 / self.seconds,
            self.seconds_from_start
        );
        println!(
            "{:<44} {:>10.1} ms p50 {:>8.1} ms p99",
            "an event alone, append to acknowledgement", self.alone_p50_ms, self.alone_p99_ms
        );
    }
}

impl Fresh {
    fn print(&self) {
        println!(
            "{:<44} {:>10.1} ms p50 {:>8.1} ms p99  ({} events in {:.1} s; their commits' p99 {:.1} ms)",
            format!("one while {} drain", self.backlog),
            self.p50_ms,
            self.p99_ms,
            self.events,
            self.seconds,
            self.commit_p99_ms
        );
        let slowest = self.slowest.iter().map(|(at, ms)| format!("{ms:.0} ms at {at:.1} s"));
        println!("  the slowest: {}", slowest.collect::<Vec<_>>().join(", "));
    }
}
