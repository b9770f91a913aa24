//! The main flow with Mosquitto in place of both embedded brokers.

use std::{
    fs::Permissions,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use crate::{
    identify_by_touch::enrol,
    support::{
        eventually,
        mosquitto::{Broker, Version},
        process::run,
        site::{ExternalBroker, GATEWAY, Options, Site},
    },
};

const PASSWORD: &str = "sample-password";

struct Mosquitto {
    child: std::process::Child,
    _dir: tempfile::TempDir,
    external: ExternalBroker,
}

impl Mosquitto {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let users = path("users");
        std::fs::write(&users, "").unwrap();
        let secret = path("secret");
        assert_eq!(run(&["secret", &secret]).0, 0);
        let (code, derived, error) = run(&["secret", &secret, "--show-mqtt-password"]);
        assert_eq!(code, 0, "{error}");
        let accounts = [
            ("edge-gateway", PASSWORD),
            (GATEWAY, derived.trim()),
            ("bridge", PASSWORD),
            ("platform", PASSWORD),
        ];
        for (user, password) in accounts {
            let done = Command::new("mosquitto_passwd")
                .args(["-b", &users, user, password])
                .status()
                .expect("mosquitto is installed (test.sh does it)");
            assert!(done.success());
        }
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\nuser root\n"
        );
        std::fs::write(path("mosquitto.conf"), config).unwrap();
        std::fs::write(path("password"), PASSWORD).unwrap();
        std::fs::set_permissions(path("password"), Permissions::from_mode(0o600)).unwrap();
        let child = Command::new("mosquitto")
            .args(["-c", &path("mosquitto.conf")])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("mosquitto is installed (test.sh does it)");
        let password_file = path("password");
        let address = format!("127.0.0.1:{port}");
        Self { child, _dir: dir, external: ExternalBroker { address, password_file, secret } }
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
    let external = mosquitto.external.clone();
    eventually("mosquitto listens", async || TcpStream::connect(&external.address).ok()).await;
    let site = Site::start(Options { external: Some(external), ..Options::default() }).await;
    let platform = Broker {
        address: mosquitto.external.address.clone(),
        user: "platform".into(),
        password: PASSWORD.into(),
        extra: Vec::new(),
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
