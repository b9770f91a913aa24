//! The bridge's two connections to the cloud's broker, each kept by a loop of its own.
//!
//! | connection | MQTT | subscribes | publishes |
//! |---|---|---|---|
//! | link | 3.1.1 | every `up`, gateways' states | `down` |
//! | public ([`publisher`](crate::publisher)) | 5 | `commands/request` | events, responses, states |
//!
//! **Forgotten on the way** (a firewall, a cut cable). Nothing of the bridge's own depends on a heartbeat here:
//! MQTT's keep-alive of 15 s does it. Every 15 s a ping goes, and where the one before it was not answered the
//! connection is dropped instead: 15 s to 30 s after the cut, which is two heartbeat intervals. A broker that
//! sets another keep-alive (MQTT 5's Server Keep Alive) sets this for the public connection; the link's is 3.1.1.
//!
//! On any error the connection is dropped with all that was pending, and a new one is made after a
//! back-off: nothing rests on what a client of a broker remembers.

use std::time::Duration;

use broker_config::client::{Backoff, Target, at_once};
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, Packet, QoS};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use topics::{GatewayStatus, Root, Topic, topic::Filter};

use crate::{ingest::reader::Arrival, secrets};

/// Requests that wait to be written: acknowledgements, probes' answers and commands of a round.
const REQUEST_DEPTH: usize = 1_024;
/// How long a connection must hold before the back-off starts anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Keeps the link's connection until `stop`.
pub(crate) async fn keep_link(
    target: Target,
    root: Root,
    arrivals: mpsc::Sender<Arrival>,
    up: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let started = std::time::Instant::now();
        let (client, mut events) = AsyncClient::new(target.v4(), REQUEST_DEPTH);
        events.set_network_options(at_once(events.network_options()));
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = link(&root, client, events, &arrivals, &up) => ended,
        };
        up.send_replace(false);
        if arrivals.send(Arrival::LinkDown).await.is_err() {
            break;
        }
        if started.elapsed() >= STABLE_AFTER {
            backoff.reset();
        }
        tracing::warn!(broker = ?target, reason = %ended, "the link's connection ended");
        pause(&mut backoff, &stop).await;
    }
}

/// Waits before the next connection.
pub(crate) async fn pause(backoff: &mut Backoff, stop: &CancellationToken) {
    // Without randomness all would come back at once; the middle is as good as any.
    let random = secrets::random::<8>().map_or(u64::MAX / 2, u64::from_le_bytes);
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(backoff.next(random)) => {}
    }
}

/// One connection, until it ends.
async fn link(
    root: &Root,
    client: AsyncClient,
    mut events: EventLoop,
    arrivals: &mpsc::Sender<Arrival>,
    up: &watch::Sender<bool>,
) -> Ended {
    let filters = [Filter::LinkUp(None), Filter::GatewayStatus(None)];
    let mut unconfirmed = filters.len();
    loop {
        let arrival = match events.poll().await {
            Err(error) => return Ended::Connection(Box::new(error)),
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                for filter in &filters {
                    if client.try_subscribe(filter.format(root), QoS::AtLeastOnce).is_err() {
                        return Ended::Queue;
                    }
                }
                continue;
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let refused = rumqttc::SubscribeReasonCode::Failure;
                if answer.return_codes.contains(&refused) {
                    return Ended::Refused;
                }
                unconfirmed = unconfirmed.saturating_sub(1);
                if unconfirmed > 0 {
                    continue;
                }
                up.send_replace(true);
                tracing::info!("the link's connection is up");
                Arrival::LinkUp(client.clone())
            }
            Ok(Event::Incoming(Packet::Publish(message))) => {
                match received(root, &message.topic, message.payload) {
                    Some(arrival) => arrival,
                    None => continue,
                }
            }
            Ok(_) => continue,
        };
        if arrivals.send(arrival).await.is_err() {
            return Ended::Stopping;
        }
    }
}

fn received(root: &Root, topic: &str, payload: bytes::Bytes) -> Option<Arrival> {
    match Topic::parse(root, topic) {
        Ok(Topic::LinkUp { gateway }) => Some(Arrival::Frame { gateway, payload }),
        Ok(Topic::GatewayStatus { gateway }) => {
            let status: GatewayStatus = serde_json::from_slice(&payload)
                .inspect_err(|error| tracing::warn!(%gateway, %error, "its status can't be read"))
                .ok()?;
            if status.gateway != gateway {
                tracing::warn!(%gateway, "its status names another gateway");
                return None;
            }
            Some(Arrival::Status(status))
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "a message on a topic that is not ours");
            None
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("{0}")]
    Connection(Box<ConnectionError>),
    #[error("{0}")]
    Connection5(Box<rumqttc::v5::ConnectionError>),
    #[error("the broker refuses a subscription that the bridge needs")]
    Refused,
    #[error("too much waits to be written")]
    Queue,
    #[error("the bridge stops")]
    Stopping,
}
