//! A WebSocket client that keeps what it received.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::PATIENCE;

pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// All that was received, in order.
    pub(crate) seen: Vec<Value>,
}

impl Socket {
    /// Connects and authenticates with a key.
    pub(crate) async fn open(address: &str, path: &str, key: &str) -> Self {
        let (stream, _) =
            tokio_tungstenite::connect_async(format!("ws://{address}{path}")).await.unwrap();
        let mut socket = Self { stream, seen: Vec::new() };
        socket.send(json!({"type": "auth", "apiKey": key})).await;
        socket.wait_for(|message| message["type"] == "auth:success").await;
        socket
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Waits for the next message that `wanted` takes. All before it are kept in `seen` too.
    pub(crate) async fn wait_for(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.stream.next()).await;
            let message = next
                .unwrap_or_else(|_| {
                    panic!("the message does not arrive; seen: {:#?}", self.types())
                })
                .expect("the socket stays open")
                .unwrap();
            let Message::Text(text) = message else { continue };
            let value: Value = serde_json::from_str(&text).unwrap();
            self.seen.push(value.clone());
            if wanted(&value) {
                return value;
            }
        }
    }

    /// The types of all that was received, in order.
    pub(crate) fn types(&self) -> Vec<String> {
        let name = |value: &Value| match &value["data"]["type"] {
            Value::String(inner) => inner.clone(),
            _ => value["type"].as_str().unwrap_or("?").to_owned(),
        };
        self.seen.iter().map(name).collect()
    }
}
