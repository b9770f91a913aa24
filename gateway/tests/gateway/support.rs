//! A whole gateway on a free port, with simulated readers in a real child process.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use gateway::{
    Config, Gateway,
    config::{IdleMode, ReaderProgram},
};
use minutiae::synth::Finger;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite};

/// Nothing that is waited for takes longer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a test binary does instead of testing when a gateway starts it as its readers' host.
pub(crate) fn be_the_host() -> ! {
    let code = zkfp::host::run(&[]);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS))
}

pub(crate) struct Site {
    _dir: TempDir,
    config: Config,
    gateway: Option<Gateway>,
    pub(crate) client: reqwest::Client,
}

impl Site {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let simulator = dir.path().join("simulator");
        fs::create_dir_all(simulator.join("SIM-0001")).unwrap();
        let mut config = Config::default();
        config.gateway.id = "hq".parse().unwrap();
        config.gateway.data_dir = dir.path().join("data");
        config.api.listen = "127.0.0.1:0".parse().unwrap();
        config.api.requests_per_minute = 100_000;
        config.api.captures_per_minute = 100_000;
        config.mqtt.listen = "127.0.0.1:0".parse().unwrap();
        config.readers.simulator_dir = Some(simulator);
        config.readers.idle_mode = IdleMode::Off;
        config.readers.poll_ms = 20;
        config.readers.host = Some(ReaderProgram {
            exe: std::env::current_exe().unwrap(),
            args: ["--exact", "reader_host", "--ignored", "--nocapture"].map(Into::into).into(),
        });
        change(&mut config);
        // Only the first test of a process gets to install it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::new();
        let mut site = Self { _dir: dir, config, gateway: None, client };
        site.start_again().await;
        site
    }

    /// Starts it on the data of before.
    pub(crate) async fn start_again(&mut self) {
        let gateway = Gateway::start(self.config.clone()).await.unwrap();
        gateway.ready().await;
        self.gateway = Some(gateway);
        self.until("a reader is connected", async || {
            let devices = self.get("/api/devices").await.1;
            devices.as_array().is_some_and(|list| !list.is_empty()).then_some(())
        })
        .await;
    }

    pub(crate) async fn stop(&mut self) {
        self.gateway.take().unwrap().stop(Duration::from_secs(10)).await;
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway().http_addr())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.client.get(self.url(path))).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.client.post(self.url(path)).json(&body)).await
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let key = self.gateway().api_key().to_owned();
        let response = request.header("X-API-Key", key).send().await.unwrap();
        let status = response.status().as_u16();
        assert!(response.headers().contains_key("content-length"), "always a Content-Length");
        (status, response.json().await.unwrap())
    }

    /// A WebSocket that has signed in.
    pub(crate) async fn socket(&self) -> Socket {
        let mut socket = self.bare_socket("/ws").await;
        socket.say(json!({"type": "auth", "apiKey": self.gateway().api_key()})).await;
        socket.until("auth:success").await;
        socket
    }

    pub(crate) async fn bare_socket(&self, path: &str) -> Socket {
        let url = format!("ws://{}{path}", self.gateway().http_addr());
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        Socket { stream }
    }

    /// Puts a finger on the sensor; it stays until the guard is dropped.
    pub(crate) fn press(&self, finger: &str, impression: u64) -> OnSensor {
        let image = Finger::named(finger).impression(impression);
        let reader = self.config.readers.simulator_dir.as_ref().unwrap().join("SIM-0001");
        let name = format!("finger-{impression}.{}x{}.raw", image.width(), image.height());
        let (draft, path) = (reader.join(format!(".{name}")), reader.join(&name));
        fs::write(&draft, image.pixels()).unwrap();
        fs::rename(&draft, &path).unwrap();
        OnSensor { path }
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}: not within {PATIENCE:?}");
    }
}

/// A finger on the sensor.
pub(crate) struct OnSensor {
    path: PathBuf,
}

impl Drop for OnSensor {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

pub(crate) struct Socket {
    pub(crate) stream: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
}

impl Socket {
    pub(crate) async fn say(&mut self, message: Value) {
        self.stream.send(tungstenite::Message::text(message.to_string())).await.unwrap();
    }

    /// The next message, but for pings.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = self.stream.next().await;
            if let tungstenite::Message::Text(text) = message.expect("it is open").unwrap() {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] != "ping" {
                    return message;
                }
            }
        }
    }

    /// Skips messages until one of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        self.through(kind).await.pop().unwrap()
    }

    /// All messages up to one of this type.
    pub(crate) async fn through(&mut self, kind: &str) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            let next = timeout(PATIENCE, self.next()).await;
            seen.push(next.unwrap_or_else(|_| panic!("{kind} does not come after {seen:#?}")));
            if seen[seen.len() - 1]["type"] == kind {
                return seen;
            }
        }
    }

    /// Reads until it is closed; the close code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.expect("it closes in time") {
                Some(Ok(tungstenite::Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("closed without a code: {other:?}"),
            }
        }
    }
}

/// The types of these messages.
pub(crate) fn types(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["type"].as_str().unwrap()).collect()
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}
