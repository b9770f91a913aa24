//! The way from a gateway's journal to a bridge's store, both in this process.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_bridge::Bridge;
use gateway::{Gateway, journal::Journal};
use serde::Serialize;
use serde_json::json;

use super::{Sample, append, fdatasync, load_average, tempdir};
use crate::cli::BenchArgs;

/// A backlog's and a single event's way from the gateway's journal to the bridge's commit and back.
pub(super) async fn run(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("can't make {}", args.dir.display()))?;
    let dir = tempdir(&args.dir)?;
    let result = measure_uplink(&dir, args).await;
    std::fs::remove_dir_all(&dir)?;
    let figures = result?;
    if args.json {
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!("load average {}", load_average());
    println!("fdatasync of 4 KiB             p50 {:>10.0} us", figures.fdatasync_p50_us);
    println!("filling the journal, 1024 at once {:>8.0} events/s", figures.append_per_second);
    println!(
        "draining {} events        {:>8.0} events/s ({:.2} s from the bridge's start)",
        figures.events, figures.drain_per_second, figures.drain_seconds
    );
    println!(
        "one event, append to the bridge's acknowledgement: p50 {:.1} ms, p99 {:.1} ms",
        figures.alone_p50_ms, figures.alone_p99_ms
    );
    Ok(())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct UplinkFigures {
    events: usize,
    fdatasync_p50_us: f64,
    append_per_second: f64,
    drain_per_second: f64,
    /// With the connection, the hello, and the gateway's back-off before it.
    drain_seconds: f64,
    alone_p50_ms: f64,
    alone_p99_ms: f64,
}

async fn measure_uplink(dir: &Path, args: &BenchArgs) -> anyhow::Result<UplinkFigures> {
    const AT_ONCE: usize = 1_024;
    const ALONE: usize = 200;
    let disk = fdatasync(&dir.join("plain"), Duration::from_millis(args.slice_ms))?;
    let secret = dir.join("secret");
    crate::secret::create(&secret)?;
    std::fs::create_dir(dir.join("no-readers"))?;
    // A free port, given back just before the bridge takes it.
    let cloud = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let any = "127.0.0.1:0";
    let gateway = serde_json::from_value(json!({
        "gateway": { "id": "bench", "data_dir": dir.join("gateway") },
        "api": { "listen": any }, "mqtt": { "listen": any },
        "readers": { "simulator_dir": dir.join("no-readers") },
        "uplink": { "url": format!("mqtt://{cloud}"), "secret_file": secret },
    }))?;
    let bridge: cloud_bridge::Config = serde_json::from_value(json!({
        "bridge": { "data_dir": dir.join("bridge") },
        "api": { "listen": any }, "mqtt": { "listen": cloud },
        "gateways": [{ "id": "bench", "secret_file": secret }],
    }))?;
    let gateway = Gateway::start(gateway).await?;
    let journal = gateway.journal().clone();
    let start = Instant::now();
    for _ in 0..(args.events as usize).div_ceil(AT_ONCE) {
        let appends = (0..AT_ONCE).map(|_| append(&journal));
        futures_util::future::try_join_all(appends).await?;
    }
    let filled = start.elapsed();
    let events = journal.queued() as usize;
    let start = Instant::now();
    let bridge = Bridge::start(bridge).await?;
    let drained = drained(&journal, start).await?;
    let drain = start.elapsed();
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        let one = Instant::now();
        append(&journal).await?;
        self::drained(&journal, one).await?;
        alone.push(one.elapsed());
    }
    gateway.stop(Duration::from_secs(10)).await;
    bridge.stop(Duration::from_secs(10)).await;
    let alone = Sample::new(ALONE, Duration::from_secs(1), alone);
    Ok(UplinkFigures {
        events,
        fdatasync_p50_us: disk.p50_us,
        append_per_second: events as f64 / filled.as_secs_f64(),
        drain_per_second: events as f64 / drained.as_secs_f64(),
        drain_seconds: drain.as_secs_f64(),
        alone_p50_ms: alone.p50_us / 1e3,
        alone_p99_ms: alone.p99_us / 1e3,
    })
}

/// Waits until nothing is queued; the time from when the queue began to shrink.
async fn drained(journal: &Journal, start: Instant) -> anyhow::Result<Duration> {
    let queued = journal.queued();
    let mut began = None;
    while journal.queued() > 0 {
        if began.is_none() && journal.queued() < queued {
            began = Some(Instant::now());
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(300), "the backlog does not drain");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok(began.unwrap_or(start).elapsed())
}
