//! The load: publishers and subscribers on a thread and runtime of their own, so that they share no
//! executor with the broker that is measured.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::AsyncWriteExt as _,
    runtime::Builder,
    sync::{Notify, oneshot, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    PAYLOAD_BYTES, client,
    client::{Client, Door, Message, PUBACK, PUBLISH},
    cpu::Cpu,
};

/// QoS 1 messages that a publisher has in flight.
const WINDOW: u64 = 100;
/// QoS 0 messages that a publisher is ahead of its slowest subscriber: less than any of the brokers
/// throws away, so that what is measured is what they carry.
const AHEAD: u64 = 1_000;
/// QoS 0 messages in one write.
const BATCH: u64 = 32;
/// A publisher that is ahead waits no longer for messages that may be lost.
const LOST: Duration = Duration::from_millis(100);
/// Before the measured time.
const WARM_UP: Duration = Duration::from_millis(150);
/// After the last message that was sent: what doesn't come within this since the one before is lost.
const SILENCE: Duration = Duration::from_millis(200);
/// For everything to begin and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) qos: u8,
    pub(super) publishers: usize,
    /// Of each publisher's topic.
    pub(super) subscribers: usize,
    pub(super) pace: Pace,
}

impl Scenario {
    pub(super) fn is_paced(&self) -> bool {
        matches!(self.pace, Pace::Paced(_))
    }
}

/// How fast publishers publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// As fast as subscribers take it: [`WINDOW`], or [`AHEAD`] with QoS 0.
    Carried,
    /// As fast as the broker reads, whatever becomes of it.
    Flood,
    /// So many a second each.
    Paced(u32),
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Messages delivered in the measured time, a second.
    pub(super) rate: f64,
    /// Of all that should have been delivered, of the whole run.
    pub(super) lost: u64,
    pub(super) expected: u64,
    /// From before the write to after the read.
    pub(super) latencies_us: Vec<f64>,
    /// Processor time of the broker for each delivery.
    pub(super) cpu_us: Option<f64>,
}

/// Runs a scenario for `slice` in a thread of its own.
pub(super) async fn run(
    scenario: Scenario,
    publisher: Door,
    subscriber: Door,
    payload: Vec<u8>,
    slice: Duration,
    cpu: Cpu,
) -> anyhow::Result<Outcome> {
    let (tell, told) = oneshot::channel();
    let load = move || {
        let result = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the load")
            .and_then(|runtime| {
                runtime.block_on(measure(scenario, &publisher, &subscriber, &payload, slice, cpu))
            });
        let _ = tell.send(result);
    };
    thread::Builder::new().name("load".to_owned()).spawn(load).context("a thread for the load")?;
    told.await.context("the load's thread ended")?
}

/// How far the subscribers of a topic are.
#[derive(Debug)]
struct Taken {
    /// Of each, the number it has seen last, and one more.
    next: Vec<AtomicU64>,
    changed: Notify,
}

impl Taken {
    fn by_all(&self) -> u64 {
        self.next.iter().map(|next| next.load(Ordering::Relaxed)).min().unwrap_or(0)
    }

    fn note(&self, subscriber: usize, next: u64) {
        self.next[subscriber].store(next, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// Where the measured time begins and ends.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// What the times in the messages count from.
    epoch: Instant,
    begin: Instant,
    end: Instant,
}

async fn measure(
    scenario: Scenario,
    publisher: &Door,
    subscriber: &Door,
    payload: &[u8],
    slice: Duration,
    cpu: Cpu,
) -> anyhow::Result<Outcome> {
    let (span_tx, span_rx) = watch::channel(None::<Span>);
    let (sent_tx, sent_rx) = watch::channel(None::<Vec<u64>>);
    let mut subscribers = JoinSet::new();
    let mut publishers = JoinSet::new();
    for pair in 0..scenario.publishers {
        let topic = format!("ridgeway/v1/bench/load/{pair}");
        let taken = Arc::new(Taken {
            next: (0..scenario.subscribers).map(|_| AtomicU64::new(0)).collect(),
            changed: Notify::new(),
        });
        for each in 0..scenario.subscribers {
            let mut client = Client::connect(subscriber, &format!("sub-{pair}-{each}"))
                .await
                .context("a subscriber can't connect")?;
            client.subscribe(&topic, scenario.qos).await.context("no subscription")?;
            let place = Place { pair, subscriber: each, taken: taken.clone() };
            subscribers.spawn(receive(client, scenario, place, span_rx.clone(), sent_rx.clone()));
        }
        let client = Client::connect(publisher, &format!("pub-{pair}"))
            .await
            .context("a publisher can't connect")?;
        let message = Message::new(&topic, scenario.qos, payload);
        publishers.spawn(send(client, message, pair, scenario, taken, span_rx.clone()));
    }
    let epoch = Instant::now();
    let begin = epoch + WARM_UP;
    let span = Span { epoch, begin, end: begin + slice };
    span_tx.send_replace(Some(span));
    sleep_until(span.begin.into()).await;
    let cpu_before = cpu.spent();
    sleep_until(span.end.into()).await;
    let cpu_spent = cpu.spent().zip(cpu_before).map(|(after, before)| after.micros_since(&before));

    let mut sent = vec![0; scenario.publishers];
    let all = async {
        while let Some(done) = publishers.join_next().await {
            let (pair, count) = done??;
            sent[pair] = count;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all).await.context("a publisher got stuck")??;
    let mut outcome = Outcome {
        expected: sent.iter().sum::<u64>() * scenario.subscribers as u64,
        ..Outcome::default()
    };
    sent_tx.send_replace(Some(sent));
    let mut received = 0;
    let mut in_time = 0;
    let all = async {
        while let Some(done) = subscribers.join_next().await {
            let got = done??;
            received += got.all;
            in_time += got.in_time;
            outcome.latencies_us.extend(got.latencies_us);
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, all).await.context("a subscriber got stuck")??;
    outcome.lost = outcome.expected.saturating_sub(received);
    outcome.rate = in_time as f64 / slice.as_secs_f64();
    outcome.cpu_us = cpu_spent.filter(|_| in_time > 0).map(|spent| spent / in_time as f64);
    Ok(outcome)
}

/// Publishes until the end; how many.
async fn send(
    client: Client,
    mut message: Message,
    pair: usize,
    scenario: Scenario,
    taken: Arc<Taken>,
    mut span: watch::Receiver<Option<Span>>,
) -> io::Result<(usize, u64)> {
    let span = known(&mut span).await?;
    let sent = match (scenario.pace, scenario.qos) {
        (Pace::Paced(rate), _) => paced(client, &mut message, span, rate).await?,
        (Pace::Flood, _) => flood(client, &mut message, span, None).await?,
        (Pace::Carried, 0) => flood(client, &mut message, span, Some(&taken)).await?,
        (Pace::Carried, _) => windowed(client, &mut message, span).await?,
    };
    Ok((pair, sent))
}

async fn flood(
    mut client: Client,
    message: &mut Message,
    span: Span,
    taken: Option<&Taken>,
) -> io::Result<u64> {
    let (mut sent, mut given_up) = (0, 0);
    let mut bytes = Vec::new();
    while Instant::now() < span.end {
        if let Some(taken) = taken
            && sent + BATCH > taken.by_all().max(given_up) + AHEAD
        {
            if timeout(LOST, taken.changed.notified()).await.is_err() {
                given_up = sent;
            }
            continue;
        }
        let nanos = nanos_since(span.epoch);
        bytes.clear();
        (sent..sent + BATCH).for_each(|number| message.append(&mut bytes, number, nanos));
        client.writer.write_all(&bytes).await?;
        client.writer.flush().await?;
        sent += BATCH;
        // Others on this thread shall get on, too.
        tokio::task::yield_now().await;
    }
    // Its end would be the end of what is still on its way.
    tokio::spawn(hold(client));
    Ok(sent)
}

async fn windowed(mut client: Client, message: &mut Message, span: Span) -> io::Result<u64> {
    let (mut sent, mut acknowledged) = (0, 0);
    let mut bytes = Vec::new();
    loop {
        if Instant::now() < span.end {
            let nanos = nanos_since(span.epoch);
            bytes.clear();
            (sent..acknowledged + WINDOW).for_each(|n| message.append(&mut bytes, n, nanos));
            sent = acknowledged + WINDOW;
            client.writer.write_all(&bytes).await?;
            client.writer.flush().await?;
        } else if acknowledged == sent {
            break;
        }
        client.reader.fill().await?;
        while let Some((kind, _)) = client.reader.next()? {
            acknowledged += u64::from(kind == PUBACK);
        }
    }
    tokio::spawn(hold(client));
    Ok(sent)
}

async fn paced(client: Client, message: &mut Message, span: Span, rate: u32) -> io::Result<u64> {
    let Client { mut reader, mut writer } = client;
    let acknowledgements = async {
        loop {
            reader.fill().await?;
            while reader.next()?.is_some() {}
        }
    };
    let publish = async {
        let mut sent = 0;
        let mut bytes = Vec::new();
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while Instant::now() < span.end {
            ticks.tick().await;
            bytes.clear();
            message.append(&mut bytes, sent, nanos_since(span.epoch));
            writer.write_all(&bytes).await?;
            writer.flush().await?;
            sent += 1;
        }
        io::Result::Ok(sent)
    };
    let sent = tokio::select! {
        sent = publish => sent?,
        ended = acknowledgements => return ended,
    };
    tokio::spawn(hold(Client { reader, writer }));
    Ok(sent)
}

/// Keeps a connection until the load's runtime ends.
async fn hold(mut client: Client) {
    while client.reader.fill().await.is_ok() {
        while matches!(client.reader.next(), Ok(Some(_))) {}
    }
}

#[derive(Debug, Default)]
struct Received {
    all: u64,
    in_time: u64,
    latencies_us: Vec<f64>,
}

/// Which subscriber it is.
struct Place {
    pair: usize,
    subscriber: usize,
    taken: Arc<Taken>,
}

/// Takes messages until all came, or no more do.
async fn receive(
    mut client: Client,
    scenario: Scenario,
    place: Place,
    mut span: watch::Receiver<Option<Span>>,
    mut sent: watch::Receiver<Option<Vec<u64>>>,
) -> io::Result<Received> {
    let span = known(&mut span).await?;
    let mut got = Received::default();
    let mut next = 0;
    let mut acknowledgements = Vec::new();
    let mut expected = None;
    loop {
        let now = Instant::now();
        let in_time = (span.begin..span.end).contains(&now);
        acknowledgements.clear();
        while let Some((kind, body)) = client.reader.next()? {
            let Some((number, nanos)) = client::stamp(&body, PAYLOAD_BYTES) else { continue };
            if kind != PUBLISH {
                continue;
            }
            if scenario.qos > 0
                && let Some([high, low]) = client::publish_id(&body)
            {
                acknowledgements.extend([0x40, 2, high, low]);
            }
            // What comes again doesn't count.
            if number < next {
                continue;
            }
            next = number + 1;
            got.all += 1;
            if in_time {
                got.in_time += 1;
                if !scenario.is_paced() {
                    continue;
                }
                let sent_at = span.epoch + Duration::from_nanos(nanos);
                let latency = now.saturating_duration_since(sent_at);
                got.latencies_us.push(latency.as_secs_f64() * 1e6);
            }
        }
        place.taken.note(place.subscriber, next);
        if !acknowledgements.is_empty() {
            client.writer.write_all(&acknowledgements).await?;
            client.writer.flush().await?;
        }
        if expected.is_some_and(|expected| got.all >= expected) {
            return Ok(got);
        }
        match expected {
            Some(_) => match timeout(SILENCE, client.reader.fill()).await {
                Ok(filled) => filled?,
                Err(_) => return Ok(got),
            },
            None => tokio::select! {
                filled = client.reader.fill() => filled?,
                known = known(&mut sent) => expected = Some(known?[place.pair]),
            },
        }
    }
}

/// What is in there, as soon as it is.
async fn known<T: Clone>(watched: &mut watch::Receiver<Option<T>>) -> io::Result<T> {
    let value = watched.wait_for(Option::is_some).await.map_err(io::Error::other)?;
    value.clone().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

fn nanos_since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
