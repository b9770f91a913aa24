//! Proves that nobody fills the broker's memory or takes others' time: idle clients, ever new ones, names
//! without end, subscribers that never read, handshakes without end, peers that vanish.
//!
//! `cargo run --release -p broker-config --example resources -- --rounds 5 --seconds 5`
//!
//! Each scenario has a broker in a process of its own. In each round a pair of clients measures how long
//! their messages take before, during and after. Memory is the most of the process's `RssAnon` in the
//! round (when the allocator gives back what is free again is its own affair); the first rounds are the
//! warm-up. Ends with 1 if memory grew by more than a few MiB over the later ones, or others' p99 (the
//! rounds' median) more than doubled; of the two controls only memory is judged.

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::time::{Instant, sleep};

mod proof;

use proof::{
    burden::{ALL, Burden},
    measured::{Latencies, Measured, Prober, Told, anonymous_kib, serve},
};

/// The one of `ridgeway`, whose memory this is about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What makes a child of this program the broker.
const BROKER: &str = "--broker";
/// Growth after the warm-up round that counts as flat: an allocator gives little back.
const FLAT_KIB: u64 = 4 << 10;
/// For a round's clients to be gone.
const SETTLE: Duration = Duration::from_secs(20);

#[derive(Parser, Debug)]
struct Options {
    /// Several with commas; all if absent.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Burden>,
    /// Of each scenario.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The first rounds, which memory may grow in.
    #[arg(long, default_value_t = 1)]
    warm_up: usize,
    /// Of each measurement without the burden; what has no amount of its own lasts a few times as long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Be the broker.
    #[arg(long, hide = true)]
    broker: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.broker {
        return serve().await;
    }
    let burdens = if options.scenario.is_empty() { ALL.to_vec() } else { options.scenario.clone() };
    let mut violations = 0;
    for burden in burdens {
        for problem in prove(burden, &options).await? {
            println!("  NOT PROVEN: {problem}");
            violations += 1;
        }
    }
    if violations > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// A round's figures.
struct Round {
    peak_kib: u64,
    after_kib: u64,
    before: Latencies,
    during: Latencies,
    after: Latencies,
    /// When the burden was gone; two are the pair's.
    sockets_left: usize,
}

async fn prove(burden: Burden, options: &Options) -> anyhow::Result<Vec<String>> {
    let time = Duration::from_secs(options.seconds);
    let mut broker = Measured::start(BROKER).await?;
    let prober = Prober::start(broker.at.clone())?;
    // The pair connects.
    prober.during(sleep(Duration::from_secs(1))).await?;
    let start_kib = broker.anonymous_kib()?;
    println!("{} (load average {}; {} KiB at first)", burden.name(), load()?, start_kib);
    println!(
        "  {:>5} {:>10} {:>10} {:>27} {:>27}  what",
        "round",
        "peak KiB",
        "after KiB",
        "p50 ms before/during/after",
        "p99 ms before/during/after"
    );
    let mut rounds = Vec::new();
    let mut told = Told::default();
    for at in 0..options.rounds {
        let ((), before) = prober.during(sleep(time)).await?;
        let watch = watch_peak(broker.pid());
        let burdened = async {
            let done = burden.round(&broker.at, at, time).await;
            done.with_context(|| format!("{} round {at}", burden.name()))
        };
        let (what, during) = prober.during(burdened).await?;
        let peak_kib = watch.end().await?;
        let what = what.inspect_err(|_| println!("  {at}: peak {peak_kib} KiB"))?;
        told = settle(&mut broker).await?;
        let ((), after) = prober.during(sleep(time)).await?;
        let round = Round {
            peak_kib,
            after_kib: broker.anonymous_kib()?,
            before,
            during,
            after,
            sockets_left: told.sockets,
        };
        println!(
            "  {:>5} {:>10} {:>10} {:>27} {:>27}  {what}",
            at,
            round.peak_kib,
            round.after_kib,
            round.quantiles(0.5),
            round.quantiles(0.99)
        );
        rounds.push(round);
    }
    println!("  in the end: {told:?}");
    Ok(judge(&rounds, options.warm_up, burden, told))
}

impl Round {
    fn quantiles(&self, share: f64) -> String {
        [&self.before, &self.during, &self.after]
            .map(|latencies| format!("{:.2}", ms(latencies.quantile(share))))
            .join(" / ")
    }
}

fn judge(rounds: &[Round], warm_up: usize, burden: Burden, told: Told) -> Vec<String> {
    let mut problems = Vec::new();
    let Some((warm, later)) = rounds.split_at_checked(warm_up) else {
        return vec!["no rounds but the warm-up".to_owned()];
    };
    let Some(reached) = warm.iter().map(|round| round.peak_kib).max() else {
        return vec!["no warm-up".to_owned()];
    };
    let most = later.iter().map(|round| round.peak_kib).max().unwrap_or(reached);
    let grown = most.saturating_sub(reached);
    println!("  memory after the warm-up: +{grown} KiB at most");
    if grown > FLAT_KIB {
        problems.push(format!("memory grew by {grown} KiB"));
    }
    let p99 = |of: fn(&Round) -> &Latencies| {
        let mut all: Vec<f64> = rounds.iter().map(|r| ms(of(r).quantile(0.99))).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (before, during) = (p99(|round| &round.before), p99(|round| &round.during));
    println!(
        "  p99, the rounds' median: {before:.2} ms undisturbed, {during:.2} ms during, x {:.2}",
        during / before
    );
    if during > 2.0 * before && !burden.is_control() {
        problems.push(format!("others' p99 went from {before:.2} to {during:.2} ms"));
    }
    let missing: usize = rounds
        .iter()
        .map(|round| round.before.missing + round.during.missing + round.after.missing)
        .sum();
    if missing > 0 {
        problems.push(format!("others lost {missing} messages"));
    }
    let stay = rounds.iter().map(|round| round.sockets_left).max().unwrap_or(2) - 2;
    if stay > 0 {
        problems.push(format!("{stay} connections stayed for {SETTLE:?}"));
    }
    if told.rebuilds > 0 {
        problems.push(format!("the inner broker was replaced {} times", told.rebuilds));
    }
    problems
}

/// Waits until only the pair is there.
async fn settle(broker: &mut Measured) -> anyhow::Result<Told> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let told = broker.told().await?;
        if told.sockets == 2 || Instant::now() >= deadline {
            return Ok(told);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Looks at a process's memory until told to end.
struct Watch {
    stop: tokio_util::sync::CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<u64>>,
}

fn watch_peak(pid: u32) -> Watch {
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let mut peak = 0;
        while !stopped.is_cancelled() {
            peak = peak.max(anonymous_kib(pid)?);
            sleep(Duration::from_millis(50)).await;
        }
        Ok(peak)
    });
    Watch { stop, task }
}

impl Watch {
    async fn end(self) -> anyhow::Result<u64> {
        self.stop.cancel();
        self.task.await?
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Of the last minute.
fn load() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
