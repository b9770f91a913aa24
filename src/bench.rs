//! `ridgeway bench`: what the journal costs over raw redb, how fast a backlog reaches the bridge's
//! store, and what the embedded broker costs over a bare rumqttd and Mosquitto. Each in one run with an
//! fdatasync, so that the figures of a shared machine can be compared with each other (and with nothing
//! else).

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gateway::journal::{Attachment, Batch, Journal, moment};
use topics::{Draft, EventBody, record::Cause};

use crate::cli::{BenchArgs, BenchWhat};

/// Of the events.
const SEED: u64 = 0x5eed_0fbe_9c00_0001;

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

/// The next of a fixed sequence: what an event says beside its own id, number and time is random as it
/// would be, from a seeded generator.
fn event() -> EventBody {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // splitmix64
    let next = || {
        let mut mixed = COUNT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) ^ SEED;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let (high, low) = (next(), next());
    EventBody::AccessDenied {
        device_id: format!("device-00{}", high % 8 + 1).parse().expect("a reader id"),
        scan_id: format!("scan-{high:016x}{low:016x}"),
        reason: "nobody we know".to_owned(),
        decided_at: gateway::journal::now(),
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
