//! A broker in a process of its own, so that its memory can be told from its clients'; and a pair of
//! clients that measure how long messages take.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use broker_config::{Broker, Limits, Segments};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    client::{Client, PATIENCE},
    packets::{self, Connect, Publish, Version},
    subject::{self, Addresses, Others},
    ways,
};

/// More than 1 000 clients from one machine, who are one user; all else is as it always is.
const CLIENTS: usize = 1_500;
/// What the prober sends each second.
pub(crate) const PROBES_PER_SECOND: u64 = 200;

/// What the prober publishes, and no more.
pub(crate) const PROBED: &str = "ridgeway/v1/hq/readers/probe/#";

#[derive(Debug, Serialize, Deserialize)]
struct Started {
    plain: SocketAddr,
    tls: SocketAddr,
    websocket: SocketAddr,
    trust: PathBuf,
}

/// What the broker says of itself.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) connections: usize,
    pub(crate) sockets: usize,
    pub(crate) topics: usize,
    pub(crate) filters: usize,
    pub(crate) retained: usize,
    pub(crate) held_bytes: u64,
    pub(crate) refused: u64,
    pub(crate) throttled: u64,
    pub(crate) lost: u64,
    pub(crate) rebuilds: u64,
}

/// The child's side: serves until its input ends, and tells its numbers for each line.
pub(crate) async fn serve() -> anyhow::Result<()> {
    subject::log();
    let directory = tempfile::tempdir().context("a directory for certificates")?;
    let mut config = subject::config(directory.path());
    config.limits = Limits {
        max_connections: CLIENTS,
        max_connections_per_address: CLIENTS,
        max_connections_per_user: CLIENTS,
        // What is measured fills a log too: a small one, so that it is full in the warm-up round.
        segments_of: vec![(PROBED.to_owned(), Segments { bytes: 64 << 10, count: 2 })],
        ..Limits::default()
    };
    let broker = Broker::start(config).await?;
    let [plain, tls, websocket] = *broker.local_addrs() else {
        anyhow::bail!("three listeners were asked for");
    };
    let trust = directory.path().join("ca.pem");
    println!("{}", serde_json::to_string(&Started { plain, tls, websocket, trust })?);
    let (line, mut lines) = tokio::sync::mpsc::channel(1);
    // Ends with the input, or when nobody listens any more.
    thread::spawn(move || {
        let given = std::io::stdin().lines().map_while(Result::ok);
        for _ in given {
            if line.blocking_send(()).is_err() {
                return;
            }
        }
    });
    while lines.recv().await.is_some() {
        let stats = broker.stats();
        let told = Told {
            connections: stats.connections,
            sockets: stats.sockets,
            topics: stats.topics,
            filters: stats.filters,
            retained: stats.retained,
            held_bytes: stats.held_bytes,
            refused: stats.refusals.values().sum(),
            throttled: stats.throttled,
            lost: stats.lost,
            rebuilds: stats.rebuilds,
        };
        println!("{}", serde_json::to_string(&told)?);
    }
    broker.shutdown().await;
    Ok(())
}

/// The parent's side. The child ends with it.
pub(crate) struct Measured {
    pub(crate) at: Addresses,
    pid: u32,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Measured {
    /// Starts this program again with `argument`, which shall call [`serve`].
    pub(crate) async fn start(argument: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("this program")?)
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the broker's process")?;
        let pid = child.id().context("its id")?;
        let stdin = child.stdin.take().context("its input")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let line = timeout(PATIENCE, lines.next_line()).await??.context("it ended")?;
        let started: Started = serde_json::from_str(&line).context("its addresses")?;
        let others = Others {
            tls: started.tls,
            websocket: started.websocket,
            trust: ways::trust(&started.trust)?,
        };
        let at = Addresses { v311: started.plain, v5: started.plain, others: Some(others) };
        Ok(Self { at, pid, stdin, lines, _child: child })
    }

    pub(crate) async fn told(&mut self) -> anyhow::Result<Told> {
        self.stdin.write_all(b"tell\n").await.context("the broker's process is gone")?;
        let line = timeout(PATIENCE, self.lines.next_line()).await??.context("it ended")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Of the process, in KiB: what it allocated and touched.
    pub(crate) fn anonymous_kib(&self) -> anyhow::Result<u64> {
        anonymous_kib(self.pid)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

/// `RssAnon` of a process.
pub(crate) fn anonymous_kib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{path}: {line}"))
}

/// How long messages took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
    pub(crate) missing: usize,
}

impl Latencies {
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let index = (self.sorted.len() as f64 * share) as usize;
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get(index.min(last)).copied().unwrap_or_default()
    }
}

/// A publisher (QoS 1, MQTT 5) and a subscriber (QoS 1, 3.1.1) in a thread of their own, so that the
/// attackers in this process hold them up as little as may be.
pub(crate) struct Prober {
    ask: mpsc::Sender<Ask>,
}

struct Ask {
    until: tokio::sync::oneshot::Receiver<()>,
    answer: tokio::sync::oneshot::Sender<anyhow::Result<Latencies>>,
}

impl Prober {
    pub(crate) fn start(at: Addresses) -> anyhow::Result<Self> {
        let (ask, asked) = mpsc::channel::<Ask>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let mut pair = None;
            while let Ok(ask) = asked.recv() {
                let measured = runtime.block_on(async {
                    let pair = match &mut pair {
                        Some(pair) => pair,
                        none => none.insert(Pair::connect(&at).await?),
                    };
                    pair.measure(ask.until).await
                });
                let _ = ask.answer.send(measured);
            }
        };
        thread::Builder::new().name("prober".to_owned()).spawn(work)?;
        Ok(Self { ask })
    }

    /// Measures while `what` goes on.
    pub(crate) async fn during<T>(
        &self,
        what: impl Future<Output = T>,
    ) -> anyhow::Result<(T, Latencies)> {
        let (end, until) = tokio::sync::oneshot::channel();
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.ask.send(Ask { until, answer }).ok().context("the prober ended")?;
        let result = what.await;
        drop(end);
        Ok((result, answered.await.context("the prober ended")??))
    }
}

struct Pair {
    publisher: Client,
    subscriber: Client,
    number: u64,
}

impl Pair {
    const TOPIC: &str = "ridgeway/v1/hq/readers/probe/events/scan/complete";

    async fn connect(at: &Addresses) -> anyhow::Result<Self> {
        let connect = Connect::new(Version::V311, "platform", "prober");
        let mut subscriber = Client::connect(at.v311, 1, &connect).await?;
        subscriber.subscribe(Self::TOPIC, 1).await?;
        let connect = Connect::new(Version::V5, "edge", "prober");
        let publisher = Client::connect(at.v5, 1, &connect).await?;
        Ok(Self { publisher, subscriber, number: 0 })
    }

    async fn measure(
        &mut self,
        mut until: tokio::sync::oneshot::Receiver<()>,
    ) -> anyhow::Result<Latencies> {
        let first = self.number;
        let mut sent = Vec::new();
        let mut took: Vec<Option<Duration>> = Vec::new();
        let mut tick = interval(Duration::from_millis(1_000 / PROBES_PER_SECOND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut going = true;
        loop {
            let missing = took.iter().rev().take(2_000).any(Option::is_none);
            if !going && !missing {
                break;
            }
            tokio::select! {
                _ = &mut until, if going => going = false,
                _ = tick.tick(), if going => {
                    self.number += 1;
                    let payload = self.number.to_be_bytes();
                    let id = (self.number % 60_000) as u16 + 1;
                    let publish = Publish::new(Version::V5, Self::TOPIC, id, &payload).bytes();
                    sent.push(Instant::now());
                    took.push(None);
                    self.publisher.send(&publish).await?;
                }
                packet = self.publisher.next() => { packet.context("the publisher")?; }
                packet = self.subscriber.next() => {
                    let packet = packet.context("the subscriber")?;
                    let Some((_, id, payload)) =
                        packets::read_publish(Version::V311, packet.first, &packet.body)
                    else { continue };
                    if let Ok(number) = payload.try_into().map(u64::from_be_bytes)
                        && let Some(at) = number.checked_sub(first + 1)
                        && let Some(sent) = sent.get(at as usize)
                    {
                        took[at as usize].get_or_insert(sent.elapsed());
                    }
                    self.subscriber.send(&packets::ack(0x40, id)).await?;
                }
                // What doesn't come now doesn't come.
                () = tokio::time::sleep(PATIENCE), if !going => break,
            }
        }
        let mut sorted: Vec<Duration> = took.iter().flatten().copied().collect();
        sorted.sort_unstable();
        Ok(Latencies { missing: took.len() - sorted.len(), sorted })
    }
}
