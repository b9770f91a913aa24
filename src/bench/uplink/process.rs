//! A gateway in a process of its own: what it takes, and how soon it goes on after SIGKILL.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cloud_bridge::Bridge;
use gateway::journal::{Journal, JournalConfig};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{PATIENCE, Site, Wire, fill, wait_until};

/// A hello is shorter, the first batch longer.
const A_BATCH_BYTES: u64 = 4 << 10;
/// For a start's memory to be given back.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub(super) idle_mb: f64,
    pub(super) queued: u64,
    pub(super) queued_mb: f64,
    /// The most while they drain.
    pub(super) draining_mb: f64,
    pub(super) first_batch_seconds: f64,
}

pub(super) async fn measure(site: &Site, queued: u64) -> anyhow::Result<Figures> {
    let wire = Wire::start(site.cloud).await?;
    let file = site.gateway_file(wire.address)?;
    let idle = start(&file).await?;
    sleep(SETTLE).await;
    let idle_mb = anonymous_mb(&idle)?;
    kill(idle).await?;

    let config = JournalConfig {
        max_bytes: 1 << 30,
        max_records: 2_000_000,
        ..JournalConfig::new(site.journal_file(), "bench".parse().context("a gateway id")?)
    };
    let (journal, opened) = Journal::open(config)?;
    anyhow::ensure!(opened.previous_store.is_none(), "the gateway's journal is elsewhere");
    fill(&journal, queued).await?;
    journal.close().await?;
    let full = start(&file).await?;
    sleep(SETTLE).await;
    let queued_mb = anonymous_mb(&full)?;
    kill(full).await?;

    let bridge = Bridge::start(site.bridge()?).await?;
    let before = wire.up();
    let began = Instant::now();
    let again = spawn(&file)?;
    wait_until(|| wire.up() > before + A_BATCH_BYTES).await?;
    let first_batch_seconds = began.elapsed().as_secs_f64();
    // Until nothing more goes up.
    let (mut draining_mb, mut seen, mut since) = (0.0, wire.up(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        draining_mb = f64::max(draining_mb, anonymous_mb(&again)?);
        if wire.up() > seen + A_BATCH_BYTES {
            (seen, since) = (wire.up(), Instant::now());
        }
        anyhow::ensure!(began.elapsed() < PATIENCE, "the backlog does not drain");
        sleep(Duration::from_millis(10)).await;
    }
    kill(again).await?;
    bridge.stop(Duration::from_secs(10)).await;
    Ok(Figures { idle_mb, queued, queued_mb, draining_mb, first_batch_seconds })
}

fn spawn(file: &Path) -> anyhow::Result<Child> {
    Command::new(std::env::current_exe().context("this program")?)
        .args(["gateway", "--json", "--config"])
        .arg(file)
        .env("RIDGEWAY_LOG", "error")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the gateway's process")
}

/// Until it says that it is there.
async fn start(file: &Path) -> anyhow::Result<Child> {
    let mut child = spawn(file)?;
    let output = child.stdout.take().context("its output")?;
    let mut lines = BufReader::new(output).lines();
    timeout(PATIENCE, lines.next_line()).await??.context("the gateway ended")?;
    Ok(child)
}

async fn kill(mut child: Child) -> anyhow::Result<()> {
    child.kill().await.context("the gateway can't be killed")
}

fn anonymous_mb(child: &Child) -> anyhow::Result<f64> {
    let path = format!("/proc/{}/status", child.id().context("the gateway ended")?);
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("RssAnon")?;
    Ok(kib.trim().parse::<f64>()? * 1024.0 / 1e6)
}
