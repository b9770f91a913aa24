//! A site and its cloud: a gateway and a bridge in processes of their own, on free ports, with their
//! data in a temporary folder. Either can be killed and started again on the same data and ports.

use std::{net::TcpListener, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    eventually,
    finger::Sensor,
    http::Api,
    mosquitto::Broker,
    process::{Process, run},
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
    /// An external broker for both sides, instead of the embedded ones.
    pub(crate) external: Option<ExternalBroker>,
    /// More lines for the gateway's configuration.
    pub(crate) gateway_extra: String,
    /// The way to the bridge leads through [`Site::wan`], which can be made a bad one.
    pub(crate) has_wan: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: vec!["SIM-0001"],
            idle_mode: "identify",
            external: None,
            gateway_extra: String::new(),
            has_wan: false,
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

pub(crate) struct Site {
    dir: TempDir,
    options: Options,
    ports: Ports,
    pub(crate) gateway: Option<Process>,
    pub(crate) bridge: Option<Process>,
    gateway_line: Value,
    bridge_line: Value,
    wan: Option<Wan>,
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
        // All held at once, so that they differ.
        let held = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [gateway_http, edge_mqtt, cloud_http, cloud_mqtt] =
            held.map(|listener| listener.local_addr().unwrap().port());
        Self { gateway_http, edge_mqtt, cloud_http, cloud_mqtt }
    }
}

impl Site {
    /// Both sides, up and connected.
    pub(crate) async fn start(options: Options) -> Self {
        let mut site = Self::new(options);
        if site.options.has_wan {
            site.open_wan().await;
        }
        site.start_bridge();
        site.start_gateway();
        site.connected().await;
        site
    }

    /// Nothing started yet.
    pub(crate) fn new(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self {
            dir,
            options,
            ports: Ports::free(),
            gateway: None,
            bridge: None,
            gateway_line: Value::Null,
            bridge_line: Value::Null,
            wan: None,
        };
        for serial in &site.options.readers {
            std::fs::create_dir_all(site.simulator().join(serial)).unwrap();
        }
        let secret = site.path("link-secret");
        match &site.options.external {
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

    /// From now on the gateway reaches the bridge through it.
    async fn open_wan(&mut self) {
        let wan = Wan::open(self.ports.cloud_mqtt).await;
        let config = self.path("gateway.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let [direct, through] =
            [self.ports.cloud_mqtt, wan.port()].map(|port| format!("mqtt://127.0.0.1:{port}"));
        std::fs::write(config, text.replace(&direct, &through)).unwrap();
        self.wan = Some(wan);
    }

    /// The way to the bridge, of a site with one.
    pub(crate) fn wan(&self) -> &Wan {
        self.wan.as_ref().expect("the site has a WAN of its own")
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

    pub(crate) fn simulator(&self) -> PathBuf {
        self.dir.path().join("simulator")
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
        let (edge, uplink, cloud) = match &self.options.external {
            None => (
                format!("[mqtt]\nlisten = \"127.0.0.1:{edge_mqtt}\""),
                format!("[uplink]\nurl = \"mqtt://127.0.0.1:{cloud_mqtt}\""),
                format!("[mqtt]\nlisten = \"127.0.0.1:{cloud_mqtt}\""),
            ),
            Some(broker) => {
                let (url, file) = (format!("mqtt://{}", broker.address), &broker.password_file);
                let login = |user: &str| {
                    format!("url = \"{url}\"\nusername = \"{user}\"\npassword_file = \"{file}\"")
                };
                (
                    format!("[mqtt]\nmode = \"external\"\n{}", login("edge-gateway")),
                    format!("[uplink]\nurl = \"{url}\""),
                    format!("[mqtt]\nmode = \"external\"\n{}", login("bridge")),
                )
            }
        };
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
{uplink}
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
