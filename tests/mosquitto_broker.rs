//! The main flow with Mosquitto in place of both embedded brokers.

use std::{net::TcpListener, process::Command};

use crate::{
    identify_by_touch::enrol,
    support::{
        eventually,
        mosquitto::{Broker, Version},
        site::{ExternalBroker, Options, Site},
    },
};

const PASSWORD: &str = "sample-password";

struct Mosquitto {
    child: std::process::Child,
    _dir: tempfile::TempDir,
    address: String,
    password_file: String,
}

impl Mosquitto {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let users = path("users");
        std::fs::write(&users, "").unwrap();
        for user in ["edge-gateway", "cloud-gateway", "bridge", "platform"] {
            let done = Command::new("mosquitto_passwd")
                .args(["-b", &users, user, PASSWORD])
                .status()
                .expect("mosquitto is installed (test.sh does it)");
            assert!(done.success());
        }
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\nuser root\n"
        );
        std::fs::write(path("mosquitto.conf"), config).unwrap();
        std::fs::write(path("password"), PASSWORD).unwrap();
        let child = Command::new("mosquitto")
            .args(["-c", &path("mosquitto.conf")])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("mosquitto is installed (test.sh does it)");
        let password_file = path("password");
        Self { child, _dir: dir, address: format!("127.0.0.1:{port}"), password_file }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_flow_works_with_mosquitto() {
    let mosquitto = Mosquitto::start();
    eventually("mosquitto listens", async || std::net::TcpStream::connect(&mosquitto.address).ok())
        .await;
    let external = ExternalBroker {
        address: mosquitto.address.clone(),
        password: mosquitto.password_file.clone(),
    };
    let site = Site::start(Options { external: Some(external), ..Options::default() }).await;
    let platform = Broker {
        address: mosquitto.address.clone(),
        user: "platform".into(),
        password: PASSWORD.into(),
    };
    let listener = platform.subscribe("ridgeway/v1/#", Version::V5);
    enrol(&site, "user-001", "user-001/right-index").await;
    site.sensor(0).press("user-001/right-index", 9).await;
    let event = listener.wait_for(|m| m.topic.ends_with("identification/result")).json();
    assert_eq!(event["userId"], "user-001", "{event}");
    eventually("the bridge has stored everything", async || {
        let (local, cloud) = (site.local().events().await, site.cloud().events().await);
        (local.len() == cloud.len()).then_some(())
    })
    .await;
}
