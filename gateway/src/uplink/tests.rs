//! The driver against the embedded broker and a small bridge of frames.

use std::{collections::BTreeMap, time::Duration};

use broker_config::{Broker, BrokerConfig, User, client::Target};
use rumqttc::{AsyncClient, Event, Packet, QoS};
use tokio::time::timeout;
use topics::{
    ConnectionState, Draft, EventBody, EventId, GatewayStatus, Lane, Role, StoreId, Timestamp,
    Topic,
    link::{Ack, Frame, LaneAck, Outcome, Probed, Resume},
    record::Cause,
    topic::Filter,
};

use super::*;
use crate::journal::{self, Attachment, Batch, JournalConfig};

const DEADLINE: Duration = Duration::from_secs(60);
const OFFSET_MS: i64 = 5_000;

fn gateway() -> GatewayId {
    "hq-lobby".parse().unwrap()
}

/// What the bridge saw.
#[derive(Debug)]
enum Seen {
    Stored(usize),
    Status(ConnectionState),
    Frame(Box<Frame>),
}

/// A bridge that stores in memory, with the clock [`OFFSET_MS`] ahead.
struct Bridge {
    client: AsyncClient,
    seen: mpsc::UnboundedSender<Seen>,
    stored: BTreeMap<(StoreId, Lane, u64), EventId>,
}

impl Bridge {
    async fn run(mut self, mut events: rumqttc::EventLoop) {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    for filter in [Filter::LinkUp(None), Filter::GatewayStatus(None)] {
                        let filter = filter.format(&Root::default());
                        self.client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    match Topic::parse(&Root::default(), &publish.topic).unwrap() {
                        Topic::GatewayStatus { .. } => {
                            let status: GatewayStatus =
                                serde_json::from_slice(&publish.payload).unwrap();
                            let _ = self.seen.send(Seen::Status(status.state));
                        }
                        _ => self.frame(Frame::decode(&publish.payload).unwrap()),
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        let now = Timestamp::from_millis(journal::now().as_millis() + OFFSET_MS);
        match frame {
            Frame::Hello(hello) => {
                let (session, store) = (hello.session, hello.store);
                let outcome = Outcome::Resume { lanes: self.acks(store) };
                self.send(&Frame::Resume(Resume { session, store, now, outcome }));
                let _ = self.seen.send(Seen::Frame(Box::new(Frame::Hello(hello))));
            }
            Frame::Batch(batch) => {
                for record in &batch.records {
                    let id = journal::event_id(record).unwrap();
                    let place = (batch.store, record.lane(), record.seq());
                    assert_eq!(*self.stored.entry(place).or_insert(id), id, "the same once more");
                }
                let (session, store) = (batch.session, batch.store);
                let lanes = self.acks(store);
                self.send(&Frame::Ack(Ack { session, store, lanes, now }));
                let _ = self.seen.send(Seen::Stored(self.stored.len()));
            }
            Frame::Probe(probe) => {
                let (session, nonce) = (probe.session, probe.nonce);
                self.send(&Frame::Probed(Probed { session, nonce, now }));
            }
            other => drop(self.seen.send(Seen::Frame(Box::new(other)))),
        }
    }

    fn acks(&self, store: StoreId) -> Vec<LaneAck> {
        let ack = |lane: Lane| {
            let has = |seq: &u64| self.stored.contains_key(&(store, lane, *seq));
            let watermark = (1..).take_while(has).last().unwrap_or(0);
            let above = self.stored.keys().filter(|key| key.0 == store && key.1 == lane);
            let ranges = above.filter(|key| key.2 > watermark).map(|key| (key.2, key.2)).collect();
            LaneAck { lane, watermark, chain: 0, ranges }
        };
        Lane::ALL.into_iter().map(ack).collect()
    }

    fn send(&self, frame: &Frame) {
        let topic = Topic::LinkDown { gateway: gateway() }.format(&Root::default());
        let sent = self.client.try_publish(topic, QoS::AtLeastOnce, false, frame.encode().unwrap());
        sent.unwrap();
    }
}

async fn until<T>(
    seen: &mut mpsc::UnboundedReceiver<Seen>,
    mut wanted: impl FnMut(Seen) -> Option<T>,
) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(seen.recv().await.expect("the bridge runs")) {
                return found;
            }
        }
    };
    timeout(DEADLINE, found).await.expect("in time")
}

async fn record(journal: &Journal, count: u64) {
    for scan in 0..count {
        let body = EventBody::ScanStarted {
            device_id: "device-001".parse().unwrap(),
            scan_id: format!("scan-{scan}"),
        };
        let draft = Draft::new(&body, &journal::moment(), &Cause::default()).unwrap();
        journal.commit(Batch::new().event(draft, Attachment::default())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_and_what_is_fresh_reach_the_bridge_and_commands_come_down() {
    let mut broker = BrokerConfig::new("cloud", "127.0.0.1:0".parse().unwrap());
    broker.users.push(User::new("hq-lobby", "gateway-password", Role::CloudGateway(gateway())));
    broker.users.push(User::new("bridge", "bridge-password", Role::Bridge));
    let broker = Broker::start(broker).await.unwrap();
    let target = |user: &str| {
        let address = broker.local_addr();
        Target::new(address.ip().to_string(), address.port(), format!("test-{user}"))
    };

    let (sender, mut seen) = mpsc::unbounded_channel();
    let options = target("bridge").login("bridge", "bridge-password".into()).v4();
    let (client, events) = AsyncClient::new(options, 1000);
    let bridge = Bridge { client: client.clone(), seen: sender, stored: BTreeMap::new() };
    let tracker = TaskTracker::new();
    tracker.spawn(bridge.run(events));

    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig::new(dir.path().join("journal.redb"), gateway());
    let (journal, _) = Journal::open(config).unwrap();
    record(&journal, 300).await;
    let (commands, mut incoming) = mpsc::channel(4);
    let (_readers, readers) = watch::channel(Vec::new());
    let token = CancellationToken::new();
    let mut uplink = Uplink::start(
        UplinkConfig {
            gateway: gateway(),
            root: Root::default(),
            target: target("gateway").login("hq-lobby", "gateway-password".into()),
            agent: AgentInfo { name: "HQ lobby".into(), ..AgentInfo::default() },
            link: LinkConfig { batch_records: 20, ..LinkConfig::default() },
        },
        Parts { journal: journal.clone(), commands, readers },
        &tracker,
        token.clone(),
    );

    let session = until(&mut seen, |seen| match seen {
        Seen::Frame(frame) => match *frame {
            Frame::Hello(hello) => Some(hello.session),
            _ => None,
        },
        Seen::Stored(_) | Seen::Status(_) => None,
    })
    .await;
    until(&mut seen, |seen| matches!(seen, Seen::Stored(300)).then_some(())).await;
    record(&journal, 1).await;
    until(&mut seen, |seen| matches!(seen, Seen::Stored(301)).then_some(())).await;
    let connected = uplink.state.wait_for(|state| *state == UplinkState::Connected { queued: 0 });
    timeout(DEADLINE, connected).await.unwrap().unwrap();
    assert_eq!(journal.lanes()[2].watermark, 301);
    let offset = uplink.offset_ms.borrow().unwrap();
    assert!((offset - OFFSET_MS).abs() < 2_000, "{offset}");

    let command = CommandDown {
        session,
        id: "c-1".parse().unwrap(),
        command: "health".into(),
        params: serde_json::Value::Null,
        sealed: None,
        issued_at: journal::now(),
        expires_at: journal::now(),
        now: journal::now(),
    };
    let topic = Topic::LinkDown { gateway: gateway() }.format(&Root::default());
    let frame = Frame::Command(command).encode().unwrap();
    client.publish(topic, QoS::AtLeastOnce, false, frame).await.unwrap();
    let arrived = timeout(DEADLINE, incoming.recv()).await.unwrap().unwrap();
    assert_eq!(arrived.command.id.as_str(), "c-1");
    arrived.durable.send(()).unwrap();
    until(&mut seen, |seen| match seen {
        Seen::Frame(frame) => match *frame {
            Frame::Received(received) => Some(received),
            _ => None,
        },
        Seen::Stored(_) | Seen::Status(_) => None,
    })
    .await;

    token.cancel();
    until(&mut seen, |seen| matches!(seen, Seen::Status(ConnectionState::Offline)).then_some(()))
        .await;
    broker.shutdown().await;
    tracker.close();
    timeout(DEADLINE, tracker.wait()).await.unwrap();
    journal.close().await.unwrap();
}
