//! A gateway's and a bridge's configuration, and a line between them that counts.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const ANY: &str = "127.0.0.1:0";

/// Where both keep their data, and where the bridge's broker will listen.
pub(super) struct Site {
    dir: PathBuf,
    pub(super) cloud: SocketAddr,
}

impl Site {
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(dir).with_context(|| format!("can't make {}", dir.display()))?;
        std::fs::create_dir(dir.join("no-readers"))?;
        crate::secret::create(&dir.join("secret"))?;
        // A free port, given back just before the bridge takes it.
        let cloud = TcpListener::bind(ANY)?.local_addr()?;
        Ok(Self { dir: dir.to_owned(), cloud })
    }

    pub(super) fn journal_file(&self) -> PathBuf {
        self.dir.join("gateway").join("journal.redb")
    }

    pub(super) fn gateway_settings(&self, bridge: SocketAddr) -> Value {
        json!({
            "gateway": { "id": "bench", "data_dir": self.dir.join("gateway") },
            "api": { "listen": ANY }, "mqtt": { "listen": ANY },
            "readers": { "simulator_dir": self.dir.join("no-readers") },
            "uplink": { "url": format!("mqtt://{bridge}"), "secret_file": self.dir.join("secret") },
        })
    }

    pub(super) fn gateway(&self, bridge: SocketAddr) -> anyhow::Result<gateway::Config> {
        Ok(serde_json::from_value(self.gateway_settings(bridge))?)
    }

    /// The gateway's settings as a file.
    pub(super) fn gateway_file(&self, bridge: SocketAddr) -> anyhow::Result<PathBuf> {
        let path = self.dir.join("gateway.toml");
        std::fs::write(&path, toml::to_string(&self.gateway_settings(bridge))?)?;
        Ok(path)
    }

    pub(super) fn bridge(&self) -> anyhow::Result<cloud_bridge::Config> {
        Ok(serde_json::from_value(json!({
            "bridge": { "data_dir": self.dir.join("bridge") },
            "api": { "listen": ANY }, "mqtt": { "listen": self.cloud },
            "gateways": [{ "id": "bench", "secret_file": self.dir.join("secret") }],
        }))?)
    }
}

/// A line that counts what goes up. Ends with the program.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    up: Arc<AtomicU64>,
}

impl Wire {
    pub(super) async fn start(cloud: SocketAddr) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(ANY).await?;
        let address = listener.local_addr()?;
        let up = Arc::new(AtomicU64::new(0));
        let counted = up.clone();
        tokio::spawn(async move {
            while let Ok((gateway, _)) = listener.accept().await {
                tokio::spawn(carry(gateway, cloud, counted.clone()));
            }
        });
        Ok(Self { address, up })
    }

    /// Bytes so far.
    pub(super) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }
}

async fn carry(
    mut gateway: TcpStream,
    cloud: SocketAddr,
    counted: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut cloud = TcpStream::connect(cloud).await?;
    cloud.set_nodelay(true)?;
    gateway.set_nodelay(true)?;
    let (mut from_gateway, mut to_gateway) = gateway.split();
    let (mut from_cloud, mut to_cloud) = cloud.split();
    let up = async {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let read = from_gateway.read(&mut chunk).await?;
            if read == 0 {
                return std::io::Result::Ok(());
            }
            counted.fetch_add(read as u64, Ordering::Relaxed);
            to_cloud.write_all(&chunk[..read]).await?;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = tokio::io::copy(&mut from_cloud, &mut to_gateway) => ended.map(|_| ()),
    }
}
