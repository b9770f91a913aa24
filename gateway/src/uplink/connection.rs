//! One connection to the cloud's broker: an event loop in a task of its own, gone with it.

use std::time::Duration;

use broker_config::client::at_once;
use bytes::Bytes;
use rumqttc::{AsyncClient, ConnectReturnCode, Event, EventLoop, LastWill, Packet, QoS};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{GatewayStatus, Topic, topic::Filter};

use super::UplinkConfig;

/// Packets that may wait for the event loop: above the link's window with probes and states.
const REQUESTS: usize = 64;
/// Packets of the bridge that may wait for the driver; then TCP slows the broker down.
const ARRIVALS: usize = 64;
/// For the last packets to go out when the gateway stops.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a connection tells.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The subscription stands.
    Up,
    /// A frame of the bridge.
    Frame(Bytes),
    /// It is gone.
    Down(String),
}

/// A connection. Dropped, it is cut.
#[derive(Debug)]
pub(super) struct Connection {
    client: AsyncClient,
    arrivals: mpsc::Receiver<Arrival>,
    cut: tokio_util::sync::DropGuard,
    goodbye: CancellationToken,
}

impl Connection {
    pub(super) fn start(config: &UplinkConfig, tracker: &TaskTracker) -> Self {
        let mut options = config.target.v4();
        let topic = Topic::GatewayStatus { gateway: config.gateway.clone() };
        let offline = super::status::encode(&GatewayStatus::offline(config.gateway.clone()));
        let will = LastWill::new(topic.format(&config.root), offline, QoS::AtLeastOnce, true);
        options.set_last_will(will);
        let (client, mut events) = AsyncClient::new(options, REQUESTS);
        events.set_network_options(at_once(events.network_options()));
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let (cut, goodbye) = (CancellationToken::new(), CancellationToken::new());
        let filter = Filter::LinkDown(Some(config.gateway.clone())).format(&config.root);
        let task = Task { events, client: client.clone(), sender, filter };
        tracker.spawn(task.run(cut.clone(), goodbye.clone()));
        Self { client, arrivals, cut: cut.drop_guard(), goodbye }
    }

    /// The next arrival. After the last it waits for ever.
    pub(super) async fn arrival(&mut self) -> Arrival {
        match self.arrivals.recv().await {
            Some(arrival) => arrival,
            None => std::future::pending().await,
        }
    }

    /// Queues a packet; false where there is no room.
    pub(super) fn publish(&self, topic: String, retain: bool, payload: Vec<u8>) -> bool {
        self.client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok()
    }

    /// Sends what is queued and a DISCONNECT, then ends.
    pub(super) fn say_goodbye(self) {
        // A full queue: the Last Will says the same.
        let _ = self.client.try_disconnect();
        self.goodbye.cancel();
        let _ = self.cut.disarm();
    }
}

struct Task {
    events: EventLoop,
    client: AsyncClient,
    sender: mpsc::Sender<Arrival>,
    filter: String,
}

impl Task {
    async fn run(mut self, cut: CancellationToken, goodbye: CancellationToken) {
        let reason = tokio::select! {
            () = cut.cancelled() => return,
            () = goodbye.cancelled() => {
                // Ends with the error that follows the DISCONNECT.
                let _ = tokio::time::timeout(GOODBYE, async {
                    while self.events.poll().await.is_ok() {}
                })
                .await;
                return;
            }
            reason = poll(&mut self.events, &self.client, &self.sender, &self.filter) => reason,
        };
        let _ = self.sender.send(Arrival::Down(reason)).await;
    }
}

/// Runs the event loop to its end; gives the reason.
async fn poll(
    events: &mut EventLoop,
    client: &AsyncClient,
    sender: &mpsc::Sender<Arrival>,
    filter: &str,
) -> String {
    loop {
        let packet = match events.poll().await {
            Ok(Event::Incoming(packet)) => packet,
            Ok(Event::Outgoing(_)) => continue,
            Err(error) => return error.to_string(),
        };
        let arrival = match packet {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                if client.try_subscribe(filter, QoS::AtLeastOnce).is_err() {
                    return "the subscription could not be queued".to_owned();
                }
                continue;
            }
            Packet::ConnAck(ack) => return format!("the broker refuses: {:?}", ack.code),
            Packet::SubAck(ack) => {
                if ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                    return "the broker refuses the subscription".to_owned();
                }
                Arrival::Up
            }
            Packet::Publish(publish) => Arrival::Frame(publish.payload),
            Packet::Disconnect => return "the broker disconnects".to_owned(),
            _ => continue, // acknowledgements and pings: the event loop's own affair
        };
        if sender.send(arrival).await.is_err() {
            return "nobody listens any more".to_owned();
        }
    }
}
