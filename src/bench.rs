//! `ridgeway bench`: what the journal costs over raw redb, how fast a backlog reaches the bridge's
//! store, and what the embedded broker costs over a bare rumqttd and Mosquitto. Each in one run with an
//! fdatasync, so that the figures of a shared machine can be compared with each other (and with nothing
//! else).

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gateway::journal::{Attachment, Batch, Journal, moment};
use topics::{Draft, EventBody, Timestamp, record::Cause};

use crate::cli::{BenchArgs, BenchWhat};

mod broker;
mod journal;
mod uplink;

pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        BenchWhat::Journal => journal::run(&args).await,
        BenchWhat::Uplink => uplink::run(&args).await,
        BenchWhat::Broker => broker::run(&args).await,
        BenchWhat::All => {
            journal::run(&args).await?;
            uplink::run(&args).await?;
            broker::run(&args).await
        }
    }
}

/// One slice of one thing.
struct Sample {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Sample {
    fn new(records: usize, took: Duration, mut each: Vec<Duration>) -> Self {
        each.sort();
        let at = |share: f64| {
            let index = ((each.len() - 1) as f64 * share) as usize;
            each[index].as_secs_f64() * 1e6
        };
        Self { rate: records as f64 / took.as_secs_f64(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

fn fdatasync(path: &Path, slice: Duration) -> anyhow::Result<Sample> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let start = Instant::now();
    let mut each = Vec::new();
    while start.elapsed() < slice {
        let one = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        each.push(one.elapsed());
    }
    Ok(Sample::new(each.len(), start.elapsed(), each))
}

async fn append(journal: &Journal) -> anyhow::Result<()> {
    let draft = Draft::new(&event(), &moment(), &Cause::default())?;
    journal.commit(Batch::new().event(draft, Attachment::default())).await?;
    Ok(())
}

fn event() -> EventBody {
    EventBody::AccessDenied {
        device_id: "device-001".parse().expect("a reader id"),
        scan_id: "scan-0199c0de-0000-7000-8000-000000000001".to_owned(),
        reason: "nobody we know".to_owned(),
        decided_at: Timestamp::from_millis(0),
        valid_for_ms: 5_000,
    }
}

fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn tempdir(parent: &Path) -> anyhow::Result<std::path::PathBuf> {
    let dir = parent.join(format!("ridgeway-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("can't make {}", dir.display()))?;
    Ok(dir)
}
