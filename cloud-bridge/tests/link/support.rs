//! A bridge on free ports, a gateway that speaks frames, a platform, a dashboard.

use std::{path::Path, time::Duration};

use broker_config::client::Target;
use cloud_bridge::{
    Bridge, Config,
    secrets::{LinkSecret, SealingKey},
};
use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::{AsyncClient, Event, LastWill, Packet, QoS};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_tungstenite::tungstenite::Message;
use topics::{
    BootId, Clock, CommandId, Draft, EventBody, EventIds, GatewayId, GatewayStatus, Lane, Record,
    Root, StoreId, Timestamp, Topic,
    link::{AgentInfo, Batch, Frame, Hello, LaneAck, LaneHello, Outcome, Probe, Received},
    record::{Cause, Moment},
    topic::Filter,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const GATEWAY: &str = "hq";

pub(crate) fn gateway_id() -> GatewayId {
    GATEWAY.parse().unwrap()
}

pub(crate) fn config(dir: &Path) -> Config {
    serde_json::from_value(json!({
        "bridge": {"data_dir": dir.join("bridge")},
        "api": {"listen": "127.0.0.1:0",
            "keys": [{"name": "other", "key": "another-key-0123456789"}]},
        "mqtt": {"listen": "127.0.0.1:0"},
        "gateways": [{"id": GATEWAY, "secret_file": dir.join("link-secret"), "name": "Lobby"}],
    }))
    .unwrap()
}

pub(crate) async fn start(dir: &Path) -> Bridge {
    // Shown where a test fails; a second one is refused, which is fine.
    let _ = tracing_subscriber::fmt()
        .with_env_filter("info,rumqttd=error")
        .with_test_writer()
        .try_init();
    let bridge = Bridge::start(config(dir)).await.unwrap();
    timeout(PATIENCE, bridge.ready()).await.expect("the bridge is ready");
    bridge
}

pub(crate) async fn stop(bridge: Bridge) {
    timeout(PATIENCE, bridge.stop(Duration::from_secs(10))).await.expect("the bridge stops");
}

/// Waits until `found` gives something.
pub(crate) async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The API with a key.
#[derive(Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Api {
    pub(crate) fn new(bridge: &Bridge) -> Self {
        Self::with_key(bridge, bridge.api_key())
    }

    pub(crate) fn with_key(bridge: &Bridge, key: &str) -> Self {
        // The client wants a provider even where it speaks plain HTTP.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let base = format!("http://{}", bridge.http_addr());
        Self { client: reqwest::Client::new(), base, key: key.to_owned() }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.client.get(format!("{}{path}", self.base));
        self.send(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.client.post(format!("{}{path}", self.base)).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(self.client.delete(format!("{}{path}", self.base))).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: &'static str) -> (u16, Value) {
        self.send(self.client.post(format!("{}{path}", self.base)).body(body)).await
    }

    pub(crate) async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.header("X-API-Key", &self.key).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

/// A dashboard's socket.
pub(crate) struct Dashboard {
    stream: tokio_tungstenite::WebSocketStream<
        tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>,
    >,
    pub(crate) seen: Vec<String>,
}

impl Dashboard {
    pub(crate) async fn open(bridge: &Bridge, key: &str) -> Self {
        let url = format!("ws://{}/ws", bridge.http_addr());
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut socket = Self { stream, seen: Vec::new() };
        socket.send(json!({"type": "auth", "apiKey": key})).await;
        socket.wait_for(|message| message["type"] == "auth:success").await;
        socket
    }

    /// A socket that has said nothing yet.
    pub(crate) async fn stranger(bridge: &Bridge, query: &str) -> Self {
        let url = format!("ws://{}/{query}", bridge.http_addr());
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Self { stream, seen: Vec::new() }
    }

    /// The close code that ends it.
    pub(crate) async fn closed(&mut self) -> u16 {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.stream.next()).await;
            match next.expect("it is closed in time") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("closed without a word: {other:?}"),
            }
        }
    }

    pub(crate) async fn following(bridge: &Bridge) -> Self {
        let mut socket = Self::open(bridge, bridge.api_key()).await;
        socket.send(json!({"type": "subscribe", "agentId": GATEWAY})).await;
        socket.wait_for(|message| message["type"] == "subscribe:success").await;
        socket
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    pub(crate) async fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.stream.next()).await;
            let message =
                next.unwrap_or_else(|_| panic!("it does not come; seen: {:#?}", self.seen));
            let Message::Text(text) = message.expect("the socket stays open").unwrap() else {
                continue;
            };
            self.seen.push(text.to_string());
            let value: Value = serde_json::from_str(&text).unwrap();
            if wanted(&value) {
                return value;
            }
        }
    }
}

/// A client of the cloud's broker, MQTT 3.1.1.
pub(crate) struct Client {
    pub(crate) client: AsyncClient,
    messages: mpsc::UnboundedReceiver<rumqttc::Publish>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(crate) async fn connect(
        bridge: &Bridge,
        (user, password): (&str, &str),
        filters: Vec<String>,
        will: Option<LastWill>,
    ) -> Self {
        let address = bridge.mqtt_addr();
        let (host, port) = address.rsplit_once(':').unwrap();
        let id = format!("test-{user}");
        let target =
            Target::new(host, port.parse().unwrap(), id).login(user, password.to_owned().into());
        let mut options = target.v4();
        if let Some(will) = will {
            options.set_last_will(will);
        }
        let (client, mut events) = AsyncClient::new(options, 256);
        for filter in &filters {
            client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
        }
        let (sender, messages) = mpsc::unbounded_channel();
        let (confirmed, mut subscribed) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => drop(confirmed.send(())),
                    Event::Incoming(Packet::Publish(message)) => drop(sender.send(message)),
                    _ => {}
                }
            }
        });
        for _ in &filters {
            let confirmed = timeout(PATIENCE, subscribed.recv()).await;
            confirmed.expect("subscribed in time").expect("the connection holds");
        }
        Self { client, messages, task }
    }

    pub(crate) async fn platform(bridge: &Bridge) -> Self {
        let filters = vec![Filter::All.format(&Root::default())];
        Self::connect(bridge, bridge.platform_login(), filters, None).await
    }

    pub(crate) async fn next(&mut self) -> rumqttc::Publish {
        let next = timeout(PATIENCE, self.messages.recv()).await;
        next.expect("a message in time").expect("the connection holds")
    }

    /// What has arrived and nobody asked for yet.
    pub(crate) fn drain(&mut self) -> Vec<rumqttc::Publish> {
        std::iter::from_fn(|| self.messages.try_recv().ok()).collect()
    }

    pub(crate) async fn wait_for(
        &mut self,
        wanted: impl Fn(&rumqttc::Publish) -> bool,
    ) -> rumqttc::Publish {
        loop {
            let message = self.next().await;
            if wanted(&message) {
                return message;
            }
        }
    }
}

/// A gateway's end of the link, with a journal in memory.
pub(crate) struct Gateway {
    link: Client,
    link_key: SealingKey,
    pub(crate) session: u64,
    pub(crate) store: StoreId,
    ids: EventIds,
    chains: [u64; 4],
    pub(crate) next: [u64; 4],
}

impl Gateway {
    /// Connects, with its Last Will; says nothing yet.
    pub(crate) async fn connect(bridge: &Bridge, dir: &Path) -> Self {
        let secret = LinkSecret::load_or_create(&dir.join("link-secret")).unwrap();
        Self {
            link: Self::link(bridge, &secret).await,
            link_key: secret.seal_key(),
            session: 1,
            store: StoreId::from_bytes([7; 16]),
            ids: EventIds::default(),
            chains: [0; 4],
            next: [1; 4],
        }
    }

    async fn link(bridge: &Bridge, secret: &LinkSecret) -> Client {
        let root = Root::default();
        let will = serde_json::to_string(&GatewayStatus::offline(gateway_id())).unwrap();
        let status = Topic::GatewayStatus { gateway: gateway_id() }.format(&root);
        let will = LastWill::new(status, will, QoS::AtLeastOnce, true);
        let filters = vec![Filter::LinkDown(Some(gateway_id())).format(&root)];
        Client::connect(bridge, (GATEWAY, &secret.mqtt_password()), filters, Some(will)).await
    }

    /// Connects again, to a bridge that was started again.
    pub(crate) async fn reconnect(&mut self, bridge: &Bridge, dir: &Path) {
        let secret = LinkSecret::load_or_create(&dir.join("link-secret")).unwrap();
        self.link = Self::link(bridge, &secret).await;
    }

    /// Connects and resumes.
    pub(crate) async fn online(bridge: &Bridge, dir: &Path) -> Self {
        let mut gateway = Self::connect(bridge, dir).await;
        gateway.hello().await;
        gateway
    }

    pub(crate) async fn hello(&mut self) -> Vec<LaneAck> {
        match self.greet().await {
            Outcome::Resume { lanes } => lanes,
            other => panic!("not resumed: {other:?}"),
        }
    }

    /// Says hello; how it is taken.
    pub(crate) async fn greet(&mut self) -> Outcome {
        self.session += 1;
        let lanes = Lane::ALL.map(|lane| LaneHello {
            lane,
            oldest: 1,
            next: self.next[lane.index()],
            watermark: 0,
            chain: 0,
        });
        let hello = Hello {
            session: self.session,
            gateway: gateway_id(),
            store: self.store,
            boot: BootId::from_bytes([3; 16]),
            uptime_ms: 1,
            wall: now(),
            probe_ms: None,
            lanes: lanes.to_vec(),
            agent: AgentInfo { name: "HQ".into(), version: "0.1.0".into(), ..Default::default() },
        };
        self.send(&Frame::Hello(hello)).await;
        let session = self.session;
        self.wait_for(|frame| match frame {
            Frame::Resume(resume) if resume.session == session => Some(resume.outcome),
            _ => None,
        })
        .await
    }

    pub(crate) async fn send(&self, frame: &Frame) {
        self.send_bytes(frame.encode().unwrap()).await;
    }

    pub(crate) async fn send_bytes(&self, bytes: Vec<u8>) {
        let topic = Topic::LinkUp { gateway: gateway_id() }.format(&Root::default());
        self.link.client.publish(topic, QoS::AtLeastOnce, false, bytes).await.unwrap();
    }

    pub(crate) async fn wait_for<T>(&mut self, wanted: impl Fn(Frame) -> Option<T>) -> T {
        loop {
            let message = self.link.next().await;
            if let Some(found) = wanted(Frame::decode(&message.payload).unwrap()) {
                return found;
            }
        }
    }

    /// Sends records and waits until all of their lanes' numbers are acknowledged.
    pub(crate) async fn deliver(&mut self, records: Vec<Record>) {
        let (session, store, next) = (self.session, self.store, self.next);
        self.send(&Frame::Batch(Batch { store, session, records })).await;
        self.wait_for(|frame| match frame {
            Frame::Ack(ack) => {
                let done = |lane: &LaneAck| lane.watermark + 1 == next[lane.lane.index()];
                ack.lanes.iter().all(done).then_some(())
            }
            _ => None,
        })
        .await;
    }

    pub(crate) fn record(&mut self, body: &EventBody, command: Option<&CommandId>) -> Record {
        self.record_with(body, command, None)
    }

    /// With a private part, sealed as the gateway seals it.
    pub(crate) fn record_with(
        &mut self,
        body: &EventBody,
        command: Option<&CommandId>,
        private: Option<Value>,
    ) -> Record {
        let moment = Moment {
            timestamp: now(),
            clock: Clock::Synced,
            boot: BootId::from_bytes([3; 16]),
            uptime_ms: 9,
        };
        let cause = Cause { command_id: command.cloned(), request_id: None };
        let mut draft = Draft::new(body, &moment, &cause).unwrap();
        if let (Some(private), Some(command)) = (private, command) {
            let plain = private.to_string();
            let id = command.as_str();
            let sealed = self.link_key.seal("command-result", id, plain.as_bytes()).unwrap();
            draft = draft.with_private(sealed).unwrap();
        }
        let lane = draft.lane().index();
        let random = u64::from_le_bytes(self.store.as_bytes()[..8].try_into().unwrap());
        let id = self.ids.next(now(), random);
        let record = draft.into_record(&gateway_id(), id, self.next[lane], self.chains[lane]);
        self.chains[lane] = record.chain();
        self.next[lane] += 1;
        record
    }

    pub(crate) fn scan_started(&mut self) -> Record {
        let scan_id = format!("scan-{}", self.next[Lane::Events.index()]);
        let device_id = "device-001".parse().unwrap();
        self.record(&EventBody::ScanStarted { device_id, scan_id }, None)
    }

    /// The next command, confirmed.
    pub(crate) async fn command(&mut self) -> topics::link::CommandDown {
        let command = self
            .wait_for(|frame| match frame {
                Frame::Command(command) => Some(command),
                _ => None,
            })
            .await;
        let received = Received { session: self.session, command: command.id.clone() };
        self.send(&Frame::Received(received)).await;
        command
    }

    pub(crate) fn open(&self, id: &CommandId, sealed: &str) -> Value {
        use base64::Engine as _;
        let sealed = base64::engine::general_purpose::STANDARD.decode(sealed).unwrap();
        let plain = self.link_key.open("command-params", id.as_str(), &sealed).unwrap();
        serde_json::from_slice(&plain).unwrap()
    }

    pub(crate) async fn probe(&mut self, nonce: u64) {
        let session = self.session;
        self.send(&Frame::Probe(Probe { session, nonce, readers: vec![], queued: 3 })).await;
        self.wait_for(|frame| match frame {
            Frame::Probed(probed) => (probed.nonce == nonce).then_some(()),
            _ => None,
        })
        .await;
    }
}

pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}
