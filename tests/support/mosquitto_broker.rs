//! A Mosquitto of our own, that can be killed and started again where it was. It keeps nothing.

use std::{
    fs::Permissions,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use super::{
    eventually,
    mosquitto::Broker,
    process::run,
    site::{ExternalBroker, GATEWAY, free_ports},
};

const PASSWORD: &str = "sample-password";

pub(crate) struct MosquittoBroker {
    child: Option<Child>,
    dir: tempfile::TempDir,
    external: ExternalBroker,
}

impl MosquittoBroker {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [port] = free_ports();
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
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\nuser root\n\
             max_queued_messages 0\n"
        );
        std::fs::write(path("mosquitto.conf"), config).unwrap();
        std::fs::write(path("password"), PASSWORD).unwrap();
        std::fs::set_permissions(path("password"), Permissions::from_mode(0o600)).unwrap();
        let (address, password_file) = (format!("127.0.0.1:{port}"), path("password"));
        let external = ExternalBroker { address, password_file, secret };
        let mut broker = Self { child: None, dir, external };
        broker.revive();
        let address = &broker.external.address;
        eventually("mosquitto listens", async || TcpStream::connect(address).ok()).await;
        broker
    }

    /// For a site's options.
    pub(crate) fn external(&self) -> ExternalBroker {
        self.external.clone()
    }

    /// As a platform sees it.
    pub(crate) fn platform(&self) -> Broker {
        Broker {
            address: self.external.address.clone(),
            user: "platform".into(),
            password: PASSWORD.into(),
            extra: Vec::new(),
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn revive(&mut self) {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed (test.sh does it)");
        self.child = Some(child);
    }
}

impl Drop for MosquittoBroker {
    fn drop(&mut self) {
        self.kill();
    }
}
