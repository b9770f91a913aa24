//! Clients that behave: publishers and subscribers with QoS 1, and newcomers.
//!
//! A publisher keeps what isn't acknowledged and sends it again after a reconnect, as a gateway does.
//! Each payload begins with `LOAD`, the publisher and the message's number. A newcomer comes every half
//! second by another way, wants one message, and goes.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, Wire, dial},
    ledger::Ledger,
    packets::{self, BOTH, Connect, Publish, Version},
    subject::Addresses,
    ways,
};

/// Of each publisher.
pub(crate) const MESSAGES_PER_SECOND: u64 = 100;
/// Unacknowledged messages of a publisher.
const WINDOW: usize = 20;
/// Between tries to connect.
const RETRY: Duration = Duration::from_millis(50);
/// A newcomer that isn't served by then has found the broker unavailable.
pub(crate) const NEWCOMER_PATIENCE: Duration = Duration::from_secs(5);
const NEWCOMER_EVERY: Duration = Duration::from_millis(500);
const MARK: &[u8; 4] = b"LOAD";
/// All that the publishers send, and nothing that attackers do but for K7.
pub(crate) const FILTER: &str = "ridgeway/v1/hq/readers/#";

/// One of each version.
pub(crate) const PUBLISHERS: [Version; 2] = BOTH;
/// Version, and whether the session is kept.
pub(crate) const SUBSCRIBERS: [(Version, bool); 4] =
    [(Version::V311, false), (Version::V5, false), (Version::V311, true), (Version::V5, true)];

/// What all of them share.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) at: Addresses,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stop: CancellationToken,
}

impl Load {
    /// Publishes until told to stop.
    pub(crate) async fn publish(self, publisher: usize) {
        let work = async {
            let mut waiting = VecDeque::new();
            loop {
                let _ = self.publish_connected(publisher, &mut waiting).await;
                self.ledger.reconnect(publisher);
                sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn publish_connected(
        &self,
        publisher: usize,
        waiting: &mut VecDeque<u64>,
    ) -> io::Result<()> {
        let version = PUBLISHERS[publisher];
        let connect = Connect::new(version, "edge", format!("load-publisher-{publisher}"));
        let mut client = self.connect(&connect).await;
        for number in waiting.iter() {
            client.send(&message(version, publisher, *number, true)).await?;
        }
        let mut tick = interval(Duration::from_millis(1_000 / MESSAGES_PER_SECOND));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick(), if waiting.len() < WINDOW => {
                    if let Some(number) = self.ledger.send(publisher) {
                        waiting.push_back(number);
                        client.send(&message(version, publisher, number, false)).await?;
                    }
                }
                packet = client.next() => {
                    let packet = packet?;
                    if packet.kind() == packets::PUBACK
                        && let Some(at) = waiting.iter().position(|n| id(*n) == packet.id())
                        && let Some(number) = waiting.remove(at)
                    {
                        self.ledger.acknowledge(publisher, number);
                    }
                }
            }
        }
    }

    /// Takes what comes until told to stop.
    pub(crate) async fn subscribe(self, subscriber: usize) {
        let work = async {
            loop {
                let _ = self.subscribe_connected(subscriber).await;
                self.ledger.leave(subscriber);
                self.ledger.reconnect(PUBLISHERS.len() + subscriber);
                sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn subscribe_connected(&self, subscriber: usize) -> io::Result<()> {
        let (version, kept) = SUBSCRIBERS[subscriber];
        let mut connect =
            Connect::new(version, "platform", format!("load-subscriber-{subscriber}"));
        connect.clean = !kept;
        let mut client = self.connect(&connect).await;
        client.send(&packets::subscribe(version, 1, &[FILTER], 1)).await?;
        loop {
            let packet = client.next().await?;
            match packet.kind() {
                packets::SUBACK if packet.body.last().is_some_and(|code| *code <= 2) => {
                    self.ledger.arrive(subscriber);
                }
                packets::SUBACK => return Err(io::ErrorKind::PermissionDenied.into()),
                packets::PUBLISH => {
                    let Some((_, id, payload)) =
                        packets::read_publish(version, packet.first, &packet.body)
                    else {
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    if let Some((publisher, number)) = read_payload(payload) {
                        self.ledger.receive(subscriber, publisher, number);
                    }
                    if id > 0 {
                        client.send(&packets::ack(0x40, id)).await?;
                    }
                }
                _ => {}
            }
        }
    }

    /// However often it takes.
    async fn connect(&self, connect: &Connect) -> Client {
        loop {
            match Client::connect(self.at.of(connect.version), 1, connect).await {
                Ok(client) => return client,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Has newcomers come until told to stop; those that weren't served in time, and the longest time
    /// that one took.
    pub(crate) async fn newcomers(self) -> Newcomers {
        let mut seen = Newcomers::default();
        let work = async {
            for n in 0.. {
                let began = Instant::now();
                let served = timeout(NEWCOMER_PATIENCE, self.newcomer(n)).await;
                seen.came += 1;
                seen.unserved += u64::from(served.is_err());
                seen.longest = seen.longest.max(began.elapsed());
                sleep(NEWCOMER_EVERY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = self.stop.cancelled() => {}
        }
        seen
    }

    /// Tries until it has got a message.
    async fn newcomer(&self, n: usize) {
        let connect = Connect::new(BOTH[n % 2], "visitor", format!("newcomer-{}", n % 7));
        loop {
            if self.visit(n, &connect).await.is_ok() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    async fn visit(&self, n: usize, connect: &Connect) -> io::Result<()> {
        let stream: Box<dyn Wire> = match (&self.at.others, n % 3) {
            (Some(others), 1) => Box::new(ways::tls(others.tls, 1, others.trust.clone()).await?),
            (Some(others), 2) => Box::new(ways::websocket(dial(others.websocket, 1).await?).await?),
            _ => Box::new(dial(self.at.of(connect.version), 1).await?),
        };
        let mut client = Client::over(stream, connect.version);
        client.hello(connect).await?;
        client.subscribe("ridgeway/v1/hq/readers/+/events/#", 0).await?;
        client.expect(packets::PUBLISH).await?;
        client.send(&packets::DISCONNECT).await
    }
}

/// How newcomers fared.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Newcomers {
    pub(crate) came: u64,
    pub(crate) unserved: u64,
    pub(crate) longest: Duration,
}

/// The number's packet id: never 0, and never one of the window's others.
fn id(number: u64) -> u16 {
    (number % 60_000) as u16 + 1
}

fn message(version: Version, publisher: usize, number: u64, again: bool) -> Vec<u8> {
    let topic = format!("ridgeway/v1/hq/readers/load-{publisher}/events/scan/complete");
    let mut payload = [0; 200];
    payload[..4].copy_from_slice(MARK);
    payload[4] = publisher as u8;
    payload[5..13].copy_from_slice(&number.to_be_bytes());
    let mut publish = Publish::new(version, &topic, id(number), &payload);
    publish.again = again;
    publish.bytes()
}

fn read_payload(payload: &[u8]) -> Option<(usize, u64)> {
    let rest = payload.strip_prefix(MARK)?;
    let number = rest.get(1..9)?.try_into().ok()?;
    Some((rest[0].into(), u64::from_be_bytes(number)))
}
