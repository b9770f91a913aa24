//! The embedded broker beside a bare rumqttd and Mosquitto: what front and guard cost, and how they all
//! compare. Each is asked in turn, round after round, by the same load (see [`load`]); the medians are
//! shown.
//!
//! A ratio is of throughput where messages go as fast as they can, and of the 99th percentile's latency
//! where they are paced. bare rumqttd has no TLS here: it is built without.

use std::{io, path::Path, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Sample, fdatasync, load_average, median, tempdir};
use crate::cli::BenchArgs;

mod client;
mod cpu;
mod load;
mod targets;

use load::{Outcome, Pace, Scenario};
use targets::{Certificate, Target};

const PAYLOAD_BYTES: usize = 256;
/// Of the payloads, so that two runs send the same.
const SEED: u64 = 0x005E_ED0F_BE9C;
/// Of a paced publisher.
const RATE: u32 = 1_000;
/// How much longer a paced measurement takes than the others: a percentile needs samples.
const PACED_SLICES: u32 = 3;

const SCENARIOS: [Scenario; 9] = {
    const fn fast(name: &'static str, qos: u8, publishers: usize, subscribers: usize) -> Scenario {
        Scenario { name, qos, publishers, subscribers, pace: Pace::Carried }
    }
    const fn paced(name: &'static str, qos: u8) -> Scenario {
        Scenario { name, qos, publishers: 1, subscribers: 1, pace: Pace::Paced(RATE) }
    }
    [
        fast("QoS 0, 1 pair", 0, 1, 1),
        fast("QoS 0, 10 pairs", 0, 10, 1),
        fast("QoS 0, 1 to 20", 0, 1, 20),
        Scenario { pace: Pace::Flood, ..fast("QoS 0, 1 pair, flood", 0, 1, 1) },
        fast("QoS 1, 1 pair", 1, 1, 1),
        fast("QoS 1, 10 pairs", 1, 10, 1),
        fast("QoS 1, 1 to 20", 1, 1, 20),
        paced("QoS 0, latency at 1 000/s", 0),
        paced("QoS 1, latency at 1 000/s", 1),
    ]
};

/// One broker in one scenario: medians over the rounds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    scenario: &'static str,
    broker: &'static str,
    tls: bool,
    messages_per_second: f64,
    /// Share of the messages that never came, over all rounds.
    lost: f64,
    #[serde(flatten)]
    latency: Option<Latency>,
    /// Of the broker, for each delivered message, microseconds.
    cpu_us: Option<f64>,
    of_bare: Option<f64>,
    of_mosquitto: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Latency {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

pub(super) async fn run(args: &BenchArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)
        .with_context(|| format!("can't make {}", args.dir.display()))?;
    // Mosquitto wants to know where its files are from anywhere.
    let dir = tempdir(&args.dir.canonicalize()?)?;
    let result = measure(&dir, args).await;
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn measure(dir: &Path, args: &BenchArgs) -> anyhow::Result<()> {
    let slice = Duration::from_millis(args.slice_ms);
    let disk = fdatasync(&dir.join("plain"), slice)?;
    let echo = echo(slice).await.context("an echo over TCP")?;
    let targets = start(dir, args).await?;
    let scenarios: Vec<Scenario> = SCENARIOS
        .into_iter()
        .filter(|scenario| args.only.as_ref().is_none_or(|only| scenario.name.contains(only)))
        .collect();
    let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); targets.len() * scenarios.len()];
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        for (at, scenario) in scenarios.iter().enumerate() {
            // In turn, so that a slow minute of the machine hits all of them.
            for (which, target) in targets.iter().enumerate() {
                let slice = if scenario.is_paced() { slice * PACED_SLICES } else { slice };
                let (publisher, subscriber) = (target.publisher.clone(), target.subscriber.clone());
                let outcome =
                    load::run(*scenario, publisher, subscriber, payload(), slice, target.cpu)
                        .await
                        .with_context(|| format!("{}, {}", target.name, scenario.name))?;
                outcomes[at * targets.len() + which].push(outcome);
            }
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for (at, scenario) in scenarios.iter().enumerate() {
        for (which, target) in targets.iter().enumerate() {
            rows.push(row(scenario, target, &outcomes[at * targets.len() + which]));
        }
    }
    compare(&mut rows);
    if args.json {
        let figures = json!({
            "loadAverage": load_average(), "fdatasyncP50Us": disk.p50_us,
            "echoP50Us": echo.p50_us, "echoP99Us": echo.p99_us, "seed": SEED, "rows": rows,
        });
        println!("{figures}");
    } else {
        print(&rows, &disk, &echo, args);
    }
    Ok(())
}

/// Starts what can be started, and says what can't.
async fn start(dir: &Path, args: &BenchArgs) -> anyhow::Result<Vec<Target>> {
    let wanted = |name: &str| {
        let name = name.to_lowercase();
        args.targets.is_empty() || args.targets.iter().any(|start| name.starts_with(start))
    };
    let mut targets = Vec::new();
    if wanted(targets::RIDGEWAY) {
        targets.push(targets::ridgeway(None).await?);
    }
    if wanted(targets::BARE) {
        targets.push(targets::bare().await?);
    }
    let certificate = if args.tls { Some(Certificate::make(dir)?) } else { None };
    if wanted(targets::MOSQUITTO_PLAIN) {
        let plain = targets::mosquitto(dir, false, None).await?;
        if plain.is_none() {
            eprintln!("mosquitto is not installed: no rows of it");
        }
        targets.extend(plain);
        targets.extend(targets::mosquitto(dir, true, None).await?);
        if let Some(certificate) = &certificate {
            targets.extend(targets::mosquitto(dir, true, Some(certificate)).await?);
        }
    }
    if let Some(certificate) = &certificate
        && wanted(targets::RIDGEWAY)
    {
        eprintln!("bare rumqttd is built without TLS: no such rows of it");
        match targets::ridgeway(Some(certificate)).await {
            Ok(target) => targets.push(target),
            Err(error) => eprintln!("no TLS rows of Ridgeway: {error:#}"),
        }
    }
    Ok(targets)
}

/// A message's round trip through a socket of this machine, and nothing else.
async fn echo(slice: Duration) -> io::Result<Sample> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let client = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut bytes = payload();
            let (start, mut each) = (std::time::Instant::now(), Vec::new());
            while start.elapsed() < slice {
                let one = std::time::Instant::now();
                stream.write_all(&bytes).await?;
                stream.read_exact(&mut bytes).await?;
                each.push(one.elapsed());
            }
            Ok(Sample::new(each.len(), start.elapsed(), each))
        })
    });
    let sample = client.await.map_err(io::Error::other)?;
    server.await.map_err(io::Error::other)??;
    sample
}

/// The same in every run: bytes of xorshift64.
fn payload() -> Vec<u8> {
    let mut state = SEED;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..PAYLOAD_BYTES).map(|_| next()).collect()
}

fn row(scenario: &Scenario, target: &Target, outcomes: &[Outcome]) -> Row {
    let (lost, expected) = outcomes
        .iter()
        .fold((0, 0), |(lost, expected), each| (lost + each.lost, expected + each.expected));
    let cpu: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.cpu_us).collect();
    Row {
        scenario: scenario.name,
        broker: target.name,
        tls: target.tls,
        messages_per_second: median(outcomes.iter().map(|outcome| outcome.rate)),
        lost: lost as f64 / f64::max(expected as f64, 1.0),
        latency: scenario.is_paced().then(|| latency(outcomes)),
        cpu_us: (!cpu.is_empty()).then(|| median(cpu.into_iter())),
        of_bare: None,
        of_mosquitto: None,
    }
}

/// Medians of the rounds' percentiles.
fn latency(outcomes: &[Outcome]) -> Latency {
    let mut rounds: Vec<Vec<f64>> = outcomes.iter().map(|o| o.latencies_us.clone()).collect();
    rounds.iter_mut().for_each(|all| all.sort_by(f64::total_cmp));
    let at = |share: f64| {
        median(rounds.iter().map(|all| {
            let index = (all.len().saturating_sub(1) as f64 * share) as usize;
            all.get(index).copied().unwrap_or(f64::NAN)
        }))
    };
    Latency { p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) }
}

/// Fills in the ratios.
fn compare(rows: &mut [Row]) {
    let figure = |row: &Row| row.latency.map_or(row.messages_per_second, |latency| latency.p99_us);
    let figures: Vec<_> =
        rows.iter().map(|row| (row.scenario, row.broker, row.tls, figure(row))).collect();
    for (row, own) in rows.iter_mut().zip(&figures) {
        let of = |broker: &str| {
            let same = |other: &&(&str, &str, bool, f64)| {
                other.0 == own.0 && other.2 == own.2 && other.1.starts_with(broker)
            };
            figures.iter().find(same).filter(|other| other.1 != own.1).map(|it| own.3 / it.3)
        };
        row.of_bare = of(targets::BARE);
        row.of_mosquitto = of(targets::MOSQUITTO_PLAIN);
    }
}

fn print(rows: &[Row], disk: &Sample, echo: &Sample, args: &BenchArgs) {
    println!(
        "load average {}; medians of {} rounds; {PAYLOAD_BYTES} bytes a message, seed {SEED:#x}",
        load_average(),
        args.rounds
    );
    println!("fdatasync of 4 KiB             p50 {:>7.0} us", disk.p50_us);
    println!(
        "echo of {PAYLOAD_BYTES} bytes over TCP      p50 {:>7.0} us   p99 {:>7.0} us",
        echo.p50_us, echo.p99_us
    );
    let percent = |ratio: Option<f64>| ratio.map_or(String::new(), |r| format!("{:.0} %", r * 1e2));
    let times = |ratio: Option<f64>| ratio.map_or(String::new(), |r| format!("{r:.2} x"));
    let mut scenario = "";
    for row in rows {
        if scenario != row.scenario {
            scenario = row.scenario;
            match row.latency {
                None => println!(
                    "\n{scenario:<27} {:>10} {:>7} {:>8} {:>8} {:>12}",
                    "messages/s", "lost", "cpu us", "of bare", "of Mosquitto"
                ),
                Some(_) => println!(
                    "\n{scenario:<27} {:>8} {:>8} {:>8} {:>7} {:>8} {:>8} {:>12}",
                    "p50 us", "p99 us", "max us", "lost", "cpu us", "p99/bare", "p99/Mosquitto"
                ),
            }
        }
        let name = format!("  {}{}", row.broker, if row.tls { ", TLS" } else { "" });
        let lost = format!("{:.1} %", row.lost * 1e2);
        let cpu = row.cpu_us.map_or(String::new(), |cpu| format!("{cpu:.2}"));
        match row.latency {
            None => println!(
                "{name:<27} {:>10.0} {lost:>7} {cpu:>8} {:>8} {:>12}",
                row.messages_per_second,
                percent(row.of_bare),
                percent(row.of_mosquitto)
            ),
            Some(Latency { p50_us, p99_us, max_us }) => println!(
                "{name:<27} {p50_us:>8.0} {p99_us:>8.0} {max_us:>8.0} {lost:>7} {cpu:>8} {:>8} {:>12}",
                times(row.of_bare),
                times(row.of_mosquitto)
            ),
        }
    }
}
