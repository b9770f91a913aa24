//! `ridgeway bench`: what the journal costs over raw redb, and how fast a backlog reaches the bridge's
//! store. Each in one run with an fdatasync, so that the figures of a shared machine can be compared
//! with each other (and with nothing else).

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_bridge::Bridge;
use gateway::{
    Gateway,
    journal::{Attachment, Batch, Journal, JournalConfig, moment},
};
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use serde::Serialize;
use serde_json::json;
use topics::{
    Draft, EventBody, Timestamp,
    record::{Cause, HEADER_BYTES},
};

use crate::cli::{BenchArgs, BenchWhat};

/// In flight, and in one commit of raw redb.
const DEPTHS: [usize; 4] = [1, 64, 1_024, 8_192];
/// A record's size in raw redb: what an event of the journal takes, measured below, is near it.
const RAW_BYTES: usize = 400;
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("raw");

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    what: String,
    depth: usize,
    /// Median over the rounds.
    records_per_second: f64,
    /// Of one commit or one append, microseconds, median and 99th percentile.
    p50_us: f64,
    p99_us: f64,
    /// Against raw redb at the same depth in the same run.
    of_raw: Option<f64>,
}

pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        BenchWhat::Journal => journal(&args).await,
        BenchWhat::Uplink => uplink(&args).await,
    }
}

async fn journal(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("can't make {}", args.dir.display()))?;
    let dir = tempdir(&args.dir)?;
    let result = measure(&dir, args).await;
    std::fs::remove_dir_all(&dir)?;
    let rows = result?;
    if args.json {
        println!("{}", serde_json::to_string(&rows)?);
    } else {
        print(&rows);
    }
    Ok(())
}

/// A backlog's and a single event's way from the gateway's journal to the bridge's commit and back.
async fn uplink(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)?;
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

async fn measure(dir: &Path, args: &BenchArgs) -> anyhow::Result<Vec<Row>> {
    let slice = Duration::from_millis(args.slice_ms);
    let mut samples: Vec<(String, usize, Vec<Sample>)> = Vec::new();
    let mut keep = |what: &str, depth: usize, sample: Sample| match samples
        .iter_mut()
        .find(|(w, d, _)| w == what && *d == depth)
    {
        Some((_, _, all)) => all.push(sample),
        None => samples.push((what.to_owned(), depth, vec![sample])),
    };
    let raw = Raw::open(&dir.join("raw.redb"))?;
    let config =
        JournalConfig::new(dir.join("journal.redb"), "bench".parse().context("a gateway id")?);
    let (journal, _) = Journal::open(config)?;
    // In turn, so that a slow minute of the disk hits all of them.
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        keep("fdatasync of 4 KiB", 1, fdatasync(&dir.join("plain"), slice)?);
        for depth in DEPTHS {
            keep("raw redb", depth, raw.commit_for(depth, slice)?);
            keep("journal", depth, append_for(&journal, depth, slice).await?);
        }
    }
    journal.close().await?;
    let raw_rate = |depth: usize, samples: &[(String, usize, Vec<Sample>)]| {
        let found = samples.iter().find(|(what, d, _)| what == "raw redb" && *d == depth);
        found.map(|(_, _, all)| median(all.iter().map(|s| s.rate)))
    };
    Ok(samples
        .iter()
        .map(|(what, depth, all)| {
            let rate = median(all.iter().map(|s| s.rate));
            let of_raw = (what == "journal").then(|| raw_rate(*depth, &samples)).flatten();
            Row {
                what: what.clone(),
                depth: *depth,
                records_per_second: rate,
                p50_us: median(all.iter().map(|s| s.p50_us)),
                p99_us: median(all.iter().map(|s| s.p99_us)),
                of_raw: of_raw.map(|raw| rate / raw),
            }
        })
        .collect())
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

struct Raw {
    database: Database,
}

impl Raw {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let database = Database::builder().set_cache_size(8 << 20).create(path)?;
        let write = database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self { database })
    }

    fn commit_for(&self, depth: usize, slice: Duration) -> anyhow::Result<Sample> {
        let mut next = self.database.begin_read()?.open_table(TABLE)?.len()?;
        let value = [5u8; RAW_BYTES];
        let start = Instant::now();
        let mut each = Vec::new();
        while start.elapsed() < slice {
            let one = Instant::now();
            let write = self.database.begin_write()?;
            {
                let mut table = write.open_table(TABLE)?;
                for _ in 0..depth {
                    table.insert(next, &value[..])?;
                    next += 1;
                }
            }
            write.commit()?;
            each.push(one.elapsed());
        }
        Ok(Sample::new(each.len() * depth, start.elapsed(), each))
    }
}

/// `depth` appends in flight, each answered after its own fsync.
async fn append_for(journal: &Journal, depth: usize, slice: Duration) -> anyhow::Result<Sample> {
    // A few tasks that each keep many in flight: what is measured is the journal, not the scheduler.
    const TASKS: usize = 8;
    let tasks = depth.min(TASKS);
    let each_task = depth / tasks;
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let mut each = Vec::new();
                while start.elapsed() < slice {
                    let one = Instant::now();
                    let appends = (0..each_task).map(|_| append(&journal));
                    for done in futures_util::future::join_all(appends).await {
                        done?;
                        each.push(one.elapsed());
                    }
                }
                anyhow::Ok(each)
            })
        })
        .collect();
    let mut each = Vec::new();
    for task in running {
        each.extend(task.await??);
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

fn print(rows: &[Row]) {
    let draft = Draft::new(&event(), &moment(), &Cause::default());
    let bytes = draft.map_or(0, |draft| {
        let id = topics::EventId::from_bytes([0; 16]);
        draft.into_record(&"bench".parse().expect("a gateway id"), id, 1, 0).as_bytes().len()
    });
    println!("load average {}", load_average());
    println!(
        "a record of the journal: {bytes} bytes ({HEADER_BYTES} header); of raw redb: {RAW_BYTES}\n"
    );
    println!(
        "{:<20} {:>9} {:>12} {:>10} {:>10} {:>7}",
        "", "in flight", "records/s", "p50 us", "p99 us", "of raw"
    );
    for row in rows {
        let of_raw = row.of_raw.map_or(String::new(), |ratio| format!("{:.0} %", ratio * 100.0));
        println!(
            "{:<20} {:>9} {:>12.0} {:>10.0} {:>10.0} {:>7}",
            row.what, row.depth, row.records_per_second, row.p50_us, row.p99_us, of_raw
        );
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
