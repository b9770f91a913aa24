//! Proves that K1 to K9 stop nobody: each attack alone, and all together, against a broker of its own,
//! while other clients publish, subscribe, come and go.
//!
//! `cargo run --release -p broker-config --example soak -- --seconds 60 --times 20 --parallel 8`
//!
//! Every run is a process of its own, which prints what came of it as a line of JSON (`--json` shows
//! them). Ends with 1 if a message was lost, a client had to reconnect more than once a minute, or a
//! newcomer wasn't served.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use serde::Deserialize;
use tokio::{process::Command, sync::Semaphore, time::timeout};

mod proof;

use proof::{
    attack::{ALL, Scenario},
    random::Random,
    soak::{Plan, run},
    subject::log,
};

/// What a run may take beyond its time: start, drain, shutdown.
const GRACE: Duration = Duration::from_secs(90);

#[derive(Parser, Debug, Clone)]
struct Options {
    /// k1 to k9, together, calm; several with commas. All but calm if absent.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Of each run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Runs of each scenario.
    #[arg(long, default_value_t = 20)]
    times: u64,
    /// Runs at the same time.
    #[arg(long, default_value_t = 8)]
    parallel: usize,
    /// Each run's seed is derived from it.
    #[arg(long)]
    seed: Option<u64>,
    /// Print each run's line of JSON.
    #[arg(long)]
    json: bool,
    /// Against rumqttd alone, to see what the attacks do.
    #[arg(long)]
    bare: bool,
    /// Do one run in this process.
    #[arg(long, hide = true)]
    once: bool,
}

/// What the table needs of a run's line.
#[derive(Debug, Deserialize)]
struct Line {
    load: LoadLine,
    attacks: u64,
    newcomers: u64,
    newcomer_max_ms: u64,
    rebuilds: u64,
    violations: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct LoadLine {
    sent: u64,
    owed: u64,
    lost: u64,
    repeated: u64,
    reconnects: u32,
    p99_us: u64,
    max_us: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let seed = match options.seed {
        Some(seed) => seed,
        None => Random::seed().context("a seed")?,
    };
    if options.once {
        return once(&options, seed).await;
    }
    println!("seed {seed}");
    let scenarios =
        if options.scenario.is_empty() { ALL.to_vec() } else { options.scenario.clone() };
    let room = Arc::new(Semaphore::new(options.parallel.max(1)));
    let table = Arc::new(Mutex::new(Table::default()));
    let mut random = Random::new(seed);
    let mut runs = Vec::new();
    for _ in 0..options.times {
        for scenario in &scenarios {
            let (scenario, seed) = (*scenario, random.next());
            let (room, table, options) = (room.clone(), table.clone(), options.clone());
            runs.push(tokio::spawn(async move {
                let Ok(_permit) = room.acquire_owned().await else { return };
                let line = apart(&options, scenario, seed).await;
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.take(scenario, seed, line);
            }));
        }
    }
    for run in runs {
        run.await?;
    }
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.print(&scenarios);
    if table.violations > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// One run here; its line.
async fn once(options: &Options, seed: u64) -> anyhow::Result<()> {
    let [scenario] = options.scenario[..] else { anyhow::bail!("one scenario at once") };
    log();
    let time = Duration::from_secs(options.seconds);
    let outcome = run(Plan { scenario, time, seed, bare: options.bare }).await?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// One run in a process of its own: what it leaves behind in memory ends with it.
async fn apart(options: &Options, scenario: Scenario, seed: u64) -> anyhow::Result<Line> {
    let mut command = Command::new(std::env::current_exe().context("this program")?);
    command
        .args(["--once", "--scenario", scenario.name()])
        .args(["--seconds", &options.seconds.to_string(), "--seed", &seed.to_string()])
        .args(options.bare.then_some("--bare"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().context("a run's process")?;
    let most = Duration::from_secs(options.seconds) + GRACE;
    let output = timeout(most, child.wait_with_output()).await.context("it hangs")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    if options.json {
        println!("{line}");
    }
    serde_json::from_str(line).with_context(|| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        format!("{}, without a line; it said: {}", output.status, tail(&stderr))
    })
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}

#[derive(Debug, Default)]
struct Row {
    runs: u64,
    failed: u64,
    attacks: u64,
    sent: u64,
    owed: u64,
    lost: u64,
    repeated: u64,
    reconnects: u32,
    rebuilds: u64,
    newcomers: u64,
    newcomer_max_ms: u64,
    p99_us: Vec<u64>,
    max_us: u64,
}

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<&'static str, Row>,
    violations: u64,
}

impl Table {
    fn take(&mut self, scenario: Scenario, seed: u64, line: anyhow::Result<Line>) {
        let row = self.rows.entry(scenario.name()).or_default();
        row.runs += 1;
        let problems = match line {
            Ok(line) => {
                row.attacks += line.attacks;
                row.sent += line.load.sent;
                row.owed += line.load.owed;
                row.lost += line.load.lost;
                row.repeated += line.load.repeated;
                row.reconnects = row.reconnects.max(line.load.reconnects);
                row.rebuilds += line.rebuilds;
                row.newcomers += line.newcomers;
                row.newcomer_max_ms = row.newcomer_max_ms.max(line.newcomer_max_ms);
                row.p99_us.push(line.load.p99_us);
                row.max_us = row.max_us.max(line.load.max_us);
                line.violations
            }
            Err(error) => vec![format!("{error:#}")],
        };
        if !problems.is_empty() {
            row.failed += 1;
            self.violations += 1;
            eprintln!("{} --seed {seed}: {}", scenario.name(), problems.join("; "));
        }
    }

    fn print(&self, scenarios: &[Scenario]) {
        println!(
            "{:<9} {:>5} {:>6} {:>8} {:>8} {:>9} {:>5} {:>6} {:>10} {:>8} {:>9} {:>12} {:>9} {:>9}",
            "scenario",
            "runs",
            "failed",
            "attacks",
            "sent",
            "owed",
            "lost",
            "again",
            "reconnects",
            "rebuilds",
            "newcomers",
            "slowest (ms)",
            "p99 (ms)",
            "max (ms)",
        );
        for scenario in scenarios {
            let Some(row) = self.rows.get(scenario.name()) else { continue };
            let mut p99 = row.p99_us.clone();
            p99.sort_unstable();
            let median = p99.get(p99.len() / 2).copied().unwrap_or(0);
            println!(
                "{:<9} {:>5} {:>6} {:>8} {:>8} {:>9} {:>5} {:>6} {:>10} {:>8} {:>9} {:>12} {:>9.1} {:>9.1}",
                scenario.name(),
                row.runs,
                row.failed,
                row.attacks,
                row.sent,
                row.owed,
                row.lost,
                row.repeated,
                row.reconnects,
                row.rebuilds,
                row.newcomers,
                row.newcomer_max_ms,
                median as f64 / 1e3,
                row.max_us as f64 / 1e3,
            );
        }
        println!("reconnects: of the client that had most; p99: the runs' median");
    }
}
