//! `ridgeway bench`: what the journal costs over raw redb, in one run with an fdatasync, so that the
//! figures of a shared machine can be compared with each other (and with nothing else).

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gateway::journal::{Attachment, Batch, Journal, JournalConfig, moment};
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use serde::Serialize;
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
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let draft = Draft::new(&event(), &moment(), &Cause::default());
    let bytes = draft.map_or(0, |draft| {
        let id = topics::EventId::from_bytes([0; 16]);
        draft.into_record(&"bench".parse().expect("a gateway id"), id, 1, 0).as_bytes().len()
    });
    println!("load average {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
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
