//! What one client, or many, can put on the broker's memory and time.
//!
//! | scenario | a round |
//! |---|---|
//! | idle | 1 000 clients connect, say nothing, and go |
//! | churn | 10 000 clients connect and go |
//! | topics | one user publishes to 200 000 different topics |
//! | filters | one user subscribes 200 000 different filters |
//! | retained | 100 000 retained messages where none may be, and 100 000 where they may |
//! | bursts | the same 200 000 messages, not retained: a control for `retained` |
//! | slow | a subscriber never reads while others publish as fast as they may |
//! | fan | one user subscribes a topic by two dozen filters, and publishes to it as fast as it may |
//! | handshakes | 400 clients at any time in the middle of TLS, WebSocket or CONNECT |
//! | half-open | 300 clients fall silent without closing, half of them with ten messages a second to come |
//! | audience | 150 clients read what the pair measures: a control for `half-open` |

use std::{io, str::FromStr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    client::{Client, dial},
    measured::PROBED,
    packets::{self, BOTH, Connect, DISCONNECT, Publish, Version},
    subject::Addresses,
};

/// Names tried in a round, so many with each connection or packet.
const NAMES: usize = 200_000;
const NAMES_AT_ONCE: usize = 200;
const IDLE: usize = 1_000;
const CYCLES: usize = 10_000;
const HALF_OPEN: usize = 300;
const UNFINISHED: usize = 400;
const COMMANDS: &str = "ridgeway/v1/hq/commands/request";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Burden {
    Idle,
    Churn,
    Topics,
    Filters,
    Retained,
    Bursts,
    Slow,
    Fan,
    Handshakes,
    HalfOpen,
    Audience,
}

pub(crate) const ALL: [Burden; 11] = [
    Burden::Idle,
    Burden::Churn,
    Burden::Topics,
    Burden::Filters,
    Burden::Retained,
    Burden::Bursts,
    Burden::Slow,
    Burden::Fan,
    Burden::Handshakes,
    Burden::HalfOpen,
    Burden::Audience,
];

impl FromStr for Burden {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ALL.into_iter()
            .find(|burden| burden.name() == text)
            .ok_or_else(|| format!("{text:?} is none of {:?}", ALL.map(Burden::name)))
    }
}

impl Burden {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Burden::Idle => "idle",
            Burden::Churn => "churn",
            Burden::Topics => "topics",
            Burden::Filters => "filters",
            Burden::Retained => "retained",
            Burden::Bursts => "bursts",
            Burden::Slow => "slow",
            Burden::Fan => "fan",
            Burden::Handshakes => "handshakes",
            Burden::HalfOpen => "half-open",
            Burden::Audience => "audience",
        }
    }

    /// Nobody is at fault in these: they tell another scenario's cause from what it comes with. What
    /// they cost the others is measured, not judged.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Burden::Bursts | Burden::Audience)
    }

    /// A round; where there is no amount, it lasts `time`. What was done, in numbers.
    pub(crate) async fn round(
        self,
        at: &Addresses,
        round: usize,
        time: Duration,
    ) -> io::Result<String> {
        match self {
            Burden::Idle => idle(at, time).await,
            Burden::Churn => churn(at).await,
            Burden::Topics => topics(at, round).await,
            Burden::Filters => filters(at, round).await,
            Burden::Retained => retained(at, round, true).await,
            Burden::Bursts => retained(at, round, false).await,
            Burden::Slow => slow(at, time * 3).await,
            Burden::Fan => fan(at, time * 3).await,
            Burden::Handshakes => handshakes(at, time * 3).await,
            Burden::HalfOpen => half_open(at, time).await,
            Burden::Audience => audience(at, time).await,
        }
    }
}

/// `amount` deeds, so many each second at most.
fn pace(per_second: u32) -> tokio::time::Interval {
    let mut tick = interval(Duration::from_secs(1) / per_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

async fn idle(at: &Addresses, time: Duration) -> io::Result<String> {
    let mut clients = Vec::new();
    let mut tick = pace(500);
    for n in 0..IDLE {
        tick.tick().await;
        let version = BOTH[n % 2];
        let connect = Connect::new(version, "intruder", format!("idle-{n}"));
        clients.push(Client::connect(at.of(version), (n % 8) as u8 + 2, &connect).await?);
    }
    sleep(time).await;
    let count = clients.len();
    for mut client in clients {
        client.send(&DISCONNECT).await?;
    }
    Ok(format!("{count} connected"))
}

async fn churn(at: &Addresses) -> io::Result<String> {
    let mut tick = pace(400);
    let mut refused = 0;
    for n in 0..CYCLES {
        tick.tick().await;
        let version = BOTH[n % 2];
        // Ever new names; every other one leaves without a word.
        let connect = Connect::new(version, "intruder", format!("churn-{n}"));
        match Client::connect(at.of(version), (n % 8) as u8 + 2, &connect).await {
            Ok(mut client) if n % 4 < 2 => client.send(&DISCONNECT).await?,
            Ok(_) => {}
            Err(_) => refused += 1,
        }
    }
    Ok(format!("{CYCLES} cycles, {refused} refused"))
}

async fn topics(at: &Addresses, round: usize) -> io::Result<String> {
    let mut tick = pace(100);
    let mut refused = 0;
    for first in (0..NAMES).step_by(NAMES_AT_ONCE) {
        tick.tick().await;
        let bytes: Vec<u8> = (first..first + NAMES_AT_ONCE)
            .flat_map(|n| {
                let topic = format!("ridgeway/v1/r{round}x{n}/commands/request");
                Publish::new(Version::V5, &topic, 0, b"{}").bytes()
            })
            .collect();
        refused += u32::from(!burst(at, "intruder", &bytes).await?);
    }
    Ok(format!("{NAMES} sent in {} connections, {refused} cut off", NAMES / NAMES_AT_ONCE))
}

async fn filters(at: &Addresses, round: usize) -> io::Result<String> {
    let mut tick = pace(100);
    let (mut granted, mut refused) = (0, 0);
    let connect = Connect::new(Version::V5, "intruder", "filters");
    let mut client = Client::connect(at.v5, 2, &connect).await?;
    for first in (0..NAMES).step_by(NAMES_AT_ONCE) {
        tick.tick().await;
        let filters: Vec<String> = (first..first + NAMES_AT_ONCE)
            .map(|n| format!("ridgeway/v1/r{round}x{n}/commands/request"))
            .collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        client.send(&packets::subscribe(Version::V5, 1, &filters, 1)).await?;
        let ack = client.expect(packets::SUBACK).await?;
        let codes = ack.body.get(3..).unwrap_or_default();
        granted += codes.iter().filter(|code| **code < 0x80).count();
        refused += codes.iter().filter(|code| **code >= 0x80).count();
        // So that those held at the same time aren't the limit.
        client.send(&packets::unsubscribe(Version::V5, 2, &filters)).await?;
        client.expect(11).await?;
    }
    client.send(&DISCONNECT).await?;
    Ok(format!("{granted} granted, {refused} refused"))
}

/// Messages that shall be kept; or, to tell what keeping costs from what the bursts do, the same ones
/// without `retain`.
async fn retained(at: &Addresses, round: usize, retain: bool) -> io::Result<String> {
    let mut tick = pace(100);
    let mut cut_off = [0, 0];
    let payload = [7; 1_024];
    for first in (0..NAMES).step_by(NAMES_AT_ONCE) {
        tick.tick().await;
        let which = first / NAMES_AT_ONCE % 2;
        let bytes: Vec<u8> = (first..first + NAMES_AT_ONCE)
            .flat_map(|n| {
                let topic = match which {
                    0 => format!("ridgeway/v1/r{round}x{n}/commands/request"),
                    _ => format!("attic/r{round}x{n}"),
                };
                let mut publish = Publish::new(Version::V5, &topic, 0, &payload);
                publish.retain = retain;
                publish.bytes()
            })
            .collect();
        let user = ["intruder", "hoarder"][which];
        cut_off[which] += u32::from(!burst(at, user, &bytes).await?);
    }
    Ok(format!("cut off: {} commands, {} others", cut_off[0], cut_off[1]))
}

/// One connection that says this and goes; whether the broker bore it all.
async fn burst(at: &Addresses, user: &str, bytes: &[u8]) -> io::Result<bool> {
    let connect = Connect::new(Version::V5, user, "burst");
    let mut client = Client::connect(at.v5, 2, &connect).await?;
    // Cut off in the middle of it, perhaps.
    let _ = client.send(bytes).await;
    let _ = client.send(&packets::PINGREQ).await;
    let bore = client.expect(13).await.is_ok();
    let _ = client.send(&DISCONNECT).await;
    let _ = timeout(Duration::from_secs(1), client.rest()).await;
    Ok(bore)
}

async fn slow(at: &Addresses, time: Duration) -> io::Result<String> {
    let mut subscribers = Vec::new();
    for (n, version) in BOTH.into_iter().enumerate() {
        let connect = Connect::new(version, "intruder", format!("slow-{n}"));
        let mut client = Client::connect(at.of(version), 2, &connect).await?;
        client.subscribe("ridgeway/v1/+/commands/#", n as u8).await?;
        subscribers.push(client);
    }
    let sent = as_fast_as_may_be(at, 2, 1_024, time).await?;
    Ok(format!("{sent} messages of 1 KiB"))
}

async fn fan(at: &Addresses, time: Duration) -> io::Result<String> {
    // Every way to put wildcards into the topic's levels below the root; what it may not subscribe is
    // refused, and it reads on.
    let levels: Vec<&str> = COMMANDS.split('/').collect();
    let mut filters = Vec::new();
    for mask in 0..8_u32 {
        let filter: Vec<&str> = levels
            .iter()
            .enumerate()
            .map(|(at, level)| if at >= 2 && mask & (1 << (at - 2)) != 0 { "+" } else { level })
            .collect();
        filters.push(filter.join("/"));
        filters.push(format!("{}/#", filter.join("/")));
        filters.push(format!("{}/#", filter[..4].join("/")));
        filters.push(format!("{}/#", filter[..3].join("/")));
    }
    filters.sort_unstable();
    filters.dedup();
    let connect = Connect::new(Version::V5, "intruder", "fan");
    let mut subscriber = Client::connect(at.v5, 2, &connect).await?;
    for filter in &filters {
        subscriber.subscribe(filter, 0).await?;
    }
    // It needs no log any more: those of its filters stay, whoever subscribed them.
    subscriber.send(&DISCONNECT).await?;
    let sent = as_fast_as_may_be(at, 4, 1, time).await?;
    Ok(format!("{} filters, {sent} messages of 1 byte", filters.len()))
}

/// So many publishers with payloads of so many bytes; how many were sent.
async fn as_fast_as_may_be(
    at: &Addresses,
    publishers: usize,
    payload_bytes: usize,
    time: Duration,
) -> io::Result<usize> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for n in 0..publishers {
        let to = at.v311;
        tasks.spawn(async move {
            let connect = Connect::new(Version::V311, "intruder", format!("fast-{n}"));
            let mut client = Client::connect(to, 3, &connect).await?;
            let payload = vec![7; payload_bytes];
            let bytes = Publish::new(Version::V311, COMMANDS, 0, &payload).bytes().repeat(20);
            let mut sent = 0;
            while Instant::now() < until {
                match timeout(until - Instant::now(), client.send(&bytes)).await {
                    Ok(Ok(())) => sent += 20,
                    Ok(Err(error)) => return Err(error),
                    // It is made to wait.
                    Err(_) => break,
                }
            }
            io::Result::Ok(sent)
        });
    }
    let mut sent = 0;
    while let Some(result) = tasks.join_next().await {
        sent += result.map_err(io::Error::other)??;
    }
    Ok(sent)
}

async fn handshakes(at: &Addresses, time: Duration) -> io::Result<String> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for n in 0..UNFINISHED {
        let at = at.clone();
        tasks.spawn(async move {
            let mut ended = 0;
            while Instant::now() < until {
                let mut stream = unfinished(&at, n).await?;
                let mut chunk = [0; 256];
                // Until the broker has had enough.
                let end = async { while matches!(stream.read(&mut chunk).await, Ok(1..)) {} };
                if timeout(until - Instant::now(), end).await.is_ok() {
                    ended += 1;
                }
            }
            io::Result::Ok(ended)
        });
    }
    let mut ended = 0;
    while let Some(result) = tasks.join_next().await {
        ended += result.map_err(io::Error::other)??;
    }
    Ok(format!("{UNFINISHED} at any time, {ended} ended by the broker"))
}

async fn unfinished(at: &Addresses, n: usize) -> io::Result<TcpStream> {
    let hello = Connect::new(Version::V5, "intruder", format!("unfinished-{n}")).bytes();
    let others = at.others.as_ref().ok_or(io::ErrorKind::Unsupported)?;
    let (to, start): (_, &[u8]) = match n % 5 {
        0 => (others.tls, &[]),
        1 => (others.tls, b"\x16\x03\x01\x02\x00\x01\x00"),
        2 => (others.websocket, b"GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"),
        3 => (at.v5, &hello[..20]),
        _ => (at.v311, &[]),
    };
    let mut stream = dial(to, (n % 8) as u8 + 2).await?;
    stream.write_all(start).await?;
    Ok(stream)
}

async fn half_open(at: &Addresses, time: Duration) -> io::Result<String> {
    let mut clients = Vec::new();
    let mut tick = pace(300);
    for n in 0..HALF_OPEN {
        tick.tick().await;
        let version = BOTH[n % 2];
        let mut connect = Connect::new(version, "intruder", format!("half-open-{n}"));
        connect.keep_alive_secs = 2;
        let mut client = Client::connect(at.of(version), (n % 8) as u8 + 2, &connect).await?;
        if n % 4 < 2 {
            client.subscribe(COMMANDS, 1).await?;
        }
        clients.push(client);
    }
    // One and a half keep-alives, and some more.
    let until = Instant::now() + time.max(Duration::from_secs(6));
    let connect = Connect::new(Version::V311, "intruder", "half-open-publisher");
    let mut publisher = Client::connect(at.v311, 2, &connect).await?;
    let mut tick = pace(10);
    let mut sent = 0;
    while Instant::now() < until {
        tick.tick().await;
        publisher.send(&Publish::new(Version::V311, COMMANDS, 0, b"{}").bytes()).await?;
        sent += 1;
    }
    publisher.send(&DISCONNECT).await?;
    let mut ended = 0;
    for client in &mut clients {
        let end = async { while client.next().await.is_ok() {} };
        ended += u32::from(timeout(Duration::from_millis(100), end).await.is_ok());
    }
    Ok(format!("{HALF_OPEN} fell silent, {sent} messages to half, {ended} ended by the broker"))
}

/// Half as many as fall silent in `half_open`, who read.
async fn audience(at: &Addresses, time: Duration) -> io::Result<String> {
    let mut tasks = JoinSet::new();
    let mut tick = pace(300);
    for n in 0..HALF_OPEN / 2 {
        tick.tick().await;
        let version = BOTH[n % 2];
        let connect = Connect::new(version, "intruder", format!("audience-{n}"));
        let mut client = Client::connect(at.of(version), (n % 8) as u8 + 2, &connect).await?;
        client.subscribe(PROBED, 0).await?;
        tasks.spawn(async move {
            let until = Instant::now() + time;
            let mut heard = 0;
            while let Ok(packet) = timeout(until - Instant::now(), client.next()).await {
                packet?;
                heard += 1;
            }
            client.send(&DISCONNECT).await?;
            io::Result::Ok(heard)
        });
    }
    let mut heard = 0;
    while let Some(result) = tasks.join_next().await {
        heard += result.map_err(io::Error::other)??;
    }
    Ok(format!("{} heard {heard} messages", HALF_OPEN / 2))
}
