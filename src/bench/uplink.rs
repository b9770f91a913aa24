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
    drain: Drain,
    fresh: Fresh,
    wire: OnTheWire,
    process: process::Figures,
    /// Where Mosquitto is installed.
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
    say("a backlog drains");
    let drain = drain(&Site::new(&dir.join("drain"))?, events).await?;
    say("a backlog drains while events come");
    let fresh = fresh(&Site::new(&dir.join("fresh"))?, fresh_events).await?;
    say("a backlog drains through a proxy that counts");
    let wire = wire(&Site::new(&dir.join("wire"))?, events).await?;
    say("a gateway in a process of its own");
    let process = process::measure(&Site::new(&dir.join("process"))?, fresh_events).await?;
    say("Mosquitto's bridge");
    let mosquitto = peer::measure(&dir.join("mosquitto"), events).await?;
    if mosquitto.is_none() {
        say("mosquitto is not installed: no figures of it");
    }
    Ok(Figures {
        load_average: load_average(),
        fdatasync_p50_us: disk.p50_us,
        drain,
        fresh,
        wire,
        process,
        mosquitto,
    })
}

async fn drain(site: &Site, events: u64) -> anyhow::Result<Drain> {
    let gateway = Gateway::start(site.gateway(site.cloud)?).await?;
    let journal = gateway.journal().clone();
    let start = Instant::now();
    fill(&journal, events).await?;
    let filled = start.elapsed();
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
        under_way.spawn(async move { one_fresh(&journal).await });
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
    let sample = Sample::new(events, took, each);
    Ok(Fresh {
        backlog,
        seconds: took.as_secs_f64(),
        events,
        p50_ms: sample.p50_us / 1e3,
        p99_ms: sample.p99_us / 1e3,
    })
}

/// An event's time from its append to its acknowledgement.
async fn one_fresh(journal: &Journal) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let draft = Draft::new(&event(), &moment(), &Cause::default())?;
    let told = journal.commit(Batch::new().event(draft, Attachment::default())).await?;
    let record = &told.first().context("an event")?.record;
    let (lane, seq) = (record.lane(), record.seq());
    wait_until(|| is_acknowledged(journal, lane, seq)).await?;
    Ok(start.elapsed())
}

async fn wire(site: &Site, events: u64) -> anyhow::Result<OnTheWire> {
    let wire = Wire::start(site.cloud).await?;
    let gateway = Gateway::start(site.gateway(wire.address)?).await?;
    let journal = gateway.journal().clone();
    fill(&journal, events).await?;
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
        let Figures { drain, fresh, wire, process, .. } = self;
        println!("load average {}", self.load_average);
        println!("{:<44} {:>10.0} us", "fdatasync of 4 KiB, p50", self.fdatasync_p50_us);
        println!(
            "{:<44} {:>10.0} /s",
            "filling the journal, 1024 at once", drain.append_per_second
        );
        let rate = drain.events as f64 / drain.seconds;
        println!(
            "{:<44} {:>10.2} s  ({rate:.0}/s; {:.2} s from the bridge's start)",
            format!("draining {} events", drain.events),
            drain.seconds,
            drain.seconds_from_start
        );
        if let Some(peer) = &self.mosquitto {
            println!(
                "{:<44} {:>10.2} s  ({:.1} times as long; {:.2} s from the broker's start)",
                "  Mosquitto's bridge, into memory",
                peer.seconds,
                peer.seconds / drain.seconds,
                peer.seconds_from_start
            );
        }
        println!(
            "{:<44} {:>10.1} ms p50 {:>8.1} ms p99",
            "an event alone, append to acknowledgement", drain.alone_p50_ms, drain.alone_p99_ms
        );
        println!(
            "{:<44} {:>10.1} ms p50 {:>8.1} ms p99  ({} events in {:.1} s; p99 {:.1} x alone)",
            format!("while {} drain", fresh.backlog),
            fresh.p50_ms,
            fresh.p99_ms,
            fresh.events,
            fresh.seconds,
            fresh.p99_ms / drain.alone_p99_ms
        );
        println!(
            "{:<44} {:>10} bytes  ({:.1} % of single QoS 1 publishes)",
            format!("{} events on the wire", wire.events),
            wire.bytes,
            wire.bytes as f64 / wire.single_publishes_bytes as f64 * 100.0
        );
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
