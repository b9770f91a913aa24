//! Durable appends to the journal, against raw redb and a plain fdatasync.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use gateway::journal::{Journal, JournalConfig, moment};
use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};
use serde::Serialize;
use topics::{
    Draft,
    record::{Cause, HEADER_BYTES},
};

use super::{Sample, append, event, fdatasync, load_average, median, tempdir};
use crate::cli::BenchArgs;

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

pub(super) async fn run(args: &BenchArgs) -> anyhow::Result<()> {
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
    // Without bounds: what is measured is appending, not deleting.
    let (journal, _) =
        Journal::open(JournalConfig { max_records: u64::MAX, max_bytes: u64::MAX, ..config })?;
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

/// `depth` appends in flight all the time, each answered after its fsync: when one is, the next begins.
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
                let appends = std::iter::from_fn(|| {
                    (start.elapsed() < slice).then(|| timed_append(&journal))
                });
                let appends = futures_util::stream::iter(appends).buffer_unordered(each_task);
                appends.try_collect::<Vec<_>>().await
            })
        })
        .collect();
    let mut each = Vec::new();
    for task in running {
        each.extend(task.await??);
    }
    Ok(Sample::new(each.len(), start.elapsed(), each))
}

async fn timed_append(journal: &Journal) -> anyhow::Result<Duration> {
    let start = Instant::now();
    append(journal).await?;
    Ok(start.elapsed())
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
