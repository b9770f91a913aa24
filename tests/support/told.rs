//! What the outside was told: every event that anybody saw, on the gateway's REST API and WebSocket, on the
//! site's broker, on the bridge's WebSocket. Whoever is cut off comes back, as a client does.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{
    http::Api,
    mosquitto::{Broker, Subscriber, Version},
};

/// Ids of events, filled while it lives.
#[derive(Clone, Default)]
pub(crate) struct Ids(Arc<Mutex<BTreeSet<String>>>);

impl Ids {
    pub(crate) fn all(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().clone()
    }

    /// Whether it is new.
    fn add(&self, event: &Value) -> bool {
        match (event["id"].as_str(), event["seq"].as_u64()) {
            (Some(id), Some(_)) => self.0.lock().unwrap().insert(id.to_owned()),
            _ => false, // no event
        }
    }
}

/// Those who listen, until it is dropped.
pub(crate) struct Told {
    pub(crate) local: Ids,
    pub(crate) cloud: Ids,
    pub(crate) edge: Ids,
    /// Events that the site's broker brought again.
    pub(crate) repeats: u64,
    listener: Subscriber,
    _tasks: JoinSet<()>,
}

/// Before a client that was cut off tries again.
const PAUSE: Duration = Duration::from_millis(100);

impl Told {
    pub(crate) fn listen(local: &Api, cloud: &Api, edge: &Broker) -> Self {
        let (at_gateway, at_bridge) = (Ids::default(), Ids::default());
        let mut tasks = JoinSet::new();
        let all = json!({"type": "subscribe", "deviceId": "*"});
        tasks.spawn(follow(local.clone(), all, at_gateway.clone()));
        tasks.spawn(follow(cloud.clone(), json!({"type": "subscribe"}), at_bridge.clone()));
        tasks.spawn(ask(local.clone(), at_gateway.clone()));
        let listener = edge.subscribe("ridgeway/v1/#", Version::V311);
        Self {
            local: at_gateway,
            cloud: at_bridge,
            edge: Ids::default(),
            repeats: 0,
            listener,
            _tasks: tasks,
        }
    }

    /// Takes in what the site's broker has brought until now.
    pub(crate) fn take_edge(&mut self) {
        for message in self.listener.drain() {
            if message.topic.contains("/events/") && !self.edge.add(&message.json()) {
                self.repeats += 1;
            }
        }
    }
}

/// A WebSocket that comes back.
async fn follow(api: Api, subscribe: Value, ids: Ids) {
    loop {
        let (address, key) = api.login();
        if let Ok((mut stream, _)) = connect_async(format!("ws://{address}/ws")).await {
            for message in [json!({"type": "auth", "apiKey": key}), subscribe.clone()] {
                let _ = stream.send(Message::text(message.to_string())).await;
            }
            while let Some(Ok(message)) = stream.next().await {
                let Message::Text(text) = message else { continue };
                let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
                ids.add(&message);
                ids.add(&message["data"]);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Somebody who asks for what is new, again and again.
async fn ask(api: Api, ids: Ids) {
    let mut after = String::new();
    loop {
        let path = format!("/api/events?limit=1000{after}");
        if let Some((200, page)) = api.try_get(&path).await {
            let events = page["events"].as_array().cloned().unwrap_or_default();
            for event in &events {
                ids.add(event);
            }
            if let Some(last) = events.last() {
                after = format!("&after={}", super::text(last, "id"));
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
