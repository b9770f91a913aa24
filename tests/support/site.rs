//! A site and its cloud: a gateway and a bridge in processes of their own, on free ports, with their
//! data in a temporary folder. Either can be killed and started again on the same data and ports.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    eventually,
    finger::Sensor,
    http::Api,
    mosquitto::Broker,
    process::{Process, run},
    random::Random,
    socket::Socket,
    text,
    wan::Wan,
};

pub(crate) const GATEWAY: &str = "hq-lobby";

/// What differs from the defaults.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) readers: Vec<&'static str>,
    pub(crate) idle_mode: &'static str,
    /// External brokers instead of the embedded ones.
    pub(crate) edge: Option<ExternalBroker>,
    pub(crate) cloud: Option<ExternalBroker>,
    /// More lines for the gateway's configuration, at the end of `[uplink]`.
    pub(crate) gateway_extra: String,
    /// The way to the bridge leads through [`Site::wan`], which can be made a bad one.
    pub(crate) has_wan: bool,
    /// The same for the gateway's way to an external broker on site: [`Site::lan`].
    pub(crate) has_lan: bool,
    /// And for the bridge's way to an external broker in the cloud: [`Site::backbone`].
    pub(crate) has_backbone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: vec!["SIM-0001"],
            idle_mode: "identify",
            edge: None,
            cloud: None,
            gateway_extra: String::new(),
            has_wan: false,
            has_lan: false,
            has_backbone: false,
        }
    }
}

/// A broker that is not ours.
#[derive(Clone, Debug)]
pub(crate) struct ExternalBroker {
    pub(crate) address: String,
    /// Of its users `edge-gateway` and `bridge`. The gateway's own user there has its id as a name,
    /// and the password that follows from its secret.
    pub(crate) password_file: String,
    /// The gateway's secret, made before the broker's users.
    pub(crate) secret: String,
}

impl ExternalBroker {
    fn port(&self) -> u16 {
        self.address.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

pub(crate) struct Site {
    dir: TempDir,
    options: Options,
    ports: Ports,
    pub(crate) gateway: Option<Process>,
    pub(crate) bridge: Option<Process>,
    gateway_line: Value,
    bridge_line: Value,
    wan: Option<Wan>,
    lan: Option<Wan>,
    backbone: Option<Wan>,
}

/// Free ports, found once, so that a restart comes back where its clients expect it.
#[derive(Clone, Copy, Debug)]
struct Ports {
    gateway_http: u16,
    edge_mqtt: u16,
    cloud_http: u16,
    cloud_mqtt: u16,
}

impl Ports {
    fn free() -> Self {
        let [gateway_http, edge_mqtt, cloud_http, cloud_mqtt] = free_ports();
        Self { gateway_http, edge_mqtt, cloud_http, cloud_mqtt }
    }
}

/// Ports that nobody listens on, and that the system gives to no client: one whose server is killed is
/// still free when the server comes back.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u64 = 12_000;
    const COUNT: u64 = 20_000;
    let mut random = Random::new(u64::from(uuid::Uuid::new_v4().as_fields().0));
    let bind = |port| TcpListener::bind(("127.0.0.1", port)).ok();
    // All held at once, so that they differ.
    let held = [(); N].map(|()| {
        loop {
            if let Some(held) = bind((FIRST + random.below(COUNT)) as u16) {
                break held;
            }
        }
    });
    held.map(|listener| listener.local_addr().unwrap().port())
}

impl Site {
    /// Both sides, up and connected.
    pub(crate) async fn start(options: Options) -> Self {
        let mut site = Self::new(options);
        site.start_bridge();
        site.start_gateway();
        site.connected().await;
        site
    }

    /// Nothing started yet.
    pub(crate) fn new(options: Options) -> Self {
        let (dir, ports) = (tempfile::tempdir().unwrap(), Ports::free());
        let port = |broker: &Option<ExternalBroker>, embedded| {
            broker.as_ref().map_or(embedded, ExternalBroker::port)
        };
        let cloud = port(&options.cloud, ports.cloud_mqtt);
        let edge = port(&options.edge, ports.edge_mqtt);
        let site = Self {
            wan: options.has_wan.then(|| Wan::open(cloud)),
            lan: options.has_lan.then(|| Wan::open(edge)),
            backbone: options.has_backbone.then(|| Wan::open(cloud)),
            dir,
            options,
            ports,
            gateway: None,
            bridge: None,
            gateway_line: Value::Null,
            bridge_line: Value::Null,
        };
        for serial in &site.options.readers {
            std::fs::create_dir_all(site.simulator().join(serial)).unwrap();
        }
        let secret = site.path("link-secret");
        match &site.options.cloud {
            Some(broker) => {
                std::fs::copy(&broker.secret, &secret).unwrap();
            }
            None => {
                let (code, _, error) = run(&["secret", &secret]);
                assert_eq!(code, 0, "{error}");
            }
        }
        site.write_configs();
        site
    }

    /// The way to the bridge, of a site with one.
    pub(crate) fn wan(&self) -> &Wan {
        self.wan.as_ref().expect("the site has a WAN of its own")
    }

    /// The gateway's way to its broker on site, of a site with one.
    pub(crate) fn lan(&self) -> &Wan {
        self.lan.as_ref().expect("the site has a LAN of its own")
    }

    /// The bridge's way to its broker, where that can be made a bad one.
    pub(crate) fn backbone(&self) -> Option<&Wan> {
        self.backbone.as_ref()
    }

    pub(crate) fn start_gateway(&mut self) {
        let process = Process::start(
            "gateway",
            &["gateway", "--config", &self.path("gateway.toml"), "--json"],
        );
        self.gateway_line = process.json();
        self.gateway = Some(process);
    }

    pub(crate) fn start_bridge(&mut self) {
        let process =
            Process::start("bridge", &["bridge", "--config", &self.path("bridge.toml"), "--json"]);
        self.bridge_line = process.json();
        self.bridge = Some(process);
    }

    /// Waits until the bridge says that the gateway is online and has nothing queued.
    pub(crate) async fn connected(&self) {
        let cloud = self.cloud();
        eventually("the bridge sees the gateway", async || {
            let agents = cloud.ok("/api/agents").await;
            let agents = agents.as_array().cloned().unwrap_or_default();
            agents.iter().any(|agent| agent["status"] == "online").then_some(())
        })
        .await;
    }

    pub(crate) fn kill_gateway(&mut self) {
        self.gateway.take().expect("the gateway runs").kill();
    }

    pub(crate) fn kill_bridge(&mut self) {
        self.bridge.take().expect("the bridge runs").kill();
    }

    pub(crate) fn stop_bridge(&mut self) {
        let status = self.bridge.take().expect("the bridge runs").terminate();
        assert!(status.success(), "the bridge ends cleanly: {status}");
    }

    /// The gateway's REST API.
    pub(crate) fn local(&self) -> Api {
        let gateway = &self.gateway_line["gateway"];
        Api::new(text(gateway, "http"), text(gateway, "apiKey"))
    }

    /// The bridge's REST API.
    pub(crate) fn cloud(&self) -> Api {
        let cloud = &self.bridge_line["cloud"];
        Api::new(text(cloud, "http"), text(cloud, "apiKey"))
    }

    /// The bridge's address and key, for a person.
    pub(crate) fn cloud_login(&self) -> (String, String) {
        let cloud = &self.bridge_line["cloud"];
        (text(cloud, "http").to_owned(), text(cloud, "apiKey").to_owned())
    }

    pub(crate) async fn local_socket(&self) -> Socket {
        let gateway = &self.gateway_line["gateway"];
        Socket::open(text(gateway, "http"), "/ws", text(gateway, "apiKey")).await
    }

    /// A dashboard that follows everything.
    pub(crate) async fn cloud_socket(&self) -> Socket {
        let cloud = &self.bridge_line["cloud"];
        let mut socket = Socket::open(text(cloud, "http"), "/ws", text(cloud, "apiKey")).await;
        socket.send(serde_json::json!({"type": "subscribe", "agentId": GATEWAY})).await;
        socket.wait_for(|message| message["type"] == "subscribe:success").await;
        socket
    }

    pub(crate) fn edge_broker(&self) -> Broker {
        let edge = &self.gateway_line["edge"];
        Broker {
            address: text(&self.gateway_line["gateway"], "mqtt").to_owned(),
            user: text(edge, "mqttUser").to_owned(),
            password: text(edge, "mqttPassword").to_owned(),
            extra: Vec::new(),
        }
    }

    pub(crate) fn cloud_broker(&self) -> Broker {
        let cloud = &self.bridge_line["cloud"];
        Broker {
            address: text(cloud, "mqtt").to_owned(),
            user: text(cloud, "mqttUser").to_owned(),
            password: text(cloud, "mqttPassword").to_owned(),
            extra: Vec::new(),
        }
    }

    pub(crate) fn sensor(&self, index: usize) -> Sensor {
        Sensor::new(&self.simulator(), self.options.readers[index])
    }

    pub(crate) fn sensors(&self) -> Vec<Sensor> {
        (0..self.options.readers.len()).map(|index| self.sensor(index)).collect()
    }

    pub(crate) fn simulator(&self) -> PathBuf {
        self.dir.path().join("simulator")
    }

    /// Where all of the site's files are.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// More lines for a configuration.
    pub(crate) fn append(&self, name: &str, lines: &str) {
        let path = self.path(name);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}\n{lines}")).unwrap();
    }

    fn write_configs(&self) {
        let Ports { gateway_http, edge_mqtt, cloud_http, cloud_mqtt } = self.ports;
        let dir = self.dir.path().display();
        let through = |way: &Option<Wan>, port| way.as_ref().map_or(port, Wan::port);
        let external = |broker: &ExternalBroker, user: &str, port: u16| {
            let file = &broker.password_file;
            format!(
                "[mqtt]\nmode = \"external\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
                 username = \"{user}\"\npassword_file = \"{file}\""
            )
        };
        let embedded = |port: u16| format!("[mqtt]\nlisten = \"127.0.0.1:{port}\"");
        let edge = match &self.options.edge {
            None => embedded(edge_mqtt),
            Some(broker) => external(broker, "edge-gateway", through(&self.lan, broker.port())),
        };
        let (cloud, cloud_port) = match &self.options.cloud {
            None => (embedded(cloud_mqtt), cloud_mqtt),
            Some(broker) => {
                (external(broker, "bridge", through(&self.backbone, broker.port())), broker.port())
            }
        };
        let uplink_port = through(&self.wan, cloud_port);
        let idle_mode = self.options.idle_mode;
        let extra = &self.options.gateway_extra;
        let gateway = format!(
            r#"
[gateway]
id = "{GATEWAY}"
name = "HQ lobby"
data_dir = "{dir}/gateway"
[api]
listen = "127.0.0.1:{gateway_http}"
requests_per_minute = 100000
captures_per_minute = 100000
[readers]
simulator_dir = "{dir}/simulator"
idle_mode = "{idle_mode}"
{edge}
[uplink]
url = "mqtt://127.0.0.1:{uplink_port}"
secret_file = "{dir}/link-secret"
{extra}
"#
        );
        let bridge = format!(
            r#"
[bridge]
data_dir = "{dir}/bridge"
[api]
listen = "127.0.0.1:{cloud_http}"
{cloud}
[[gateways]]
id = "{GATEWAY}"
secret_file = "{dir}/link-secret"
"#
        );
        std::fs::write(self.path("gateway.toml"), gateway).unwrap();
        std::fs::write(self.path("bridge.toml"), bridge).unwrap();
    }
}
