//! Real clients: Mosquitto's programs and rumqttc, on the embedded broker.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::harness::*;
use crate::{
    Secret,
    client::{Backoff, Target},
};

/// A process that ends with the test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn login(address: SocketAddr, version: &str, user: &str) -> Vec<String> {
    let port = address.port().to_string();
    ["-h", "127.0.0.1", "-p", &port, "-V", version, "-u", user, "-P", &format!("{user}-password")]
        .map(str::to_owned)
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_own_clients() {
    let broker = start().await;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let subscriber = mosquitto("mosquitto_sub");
            // Into a pipe it would speak only at its end.
            let subscriber = Command::new("stdbuf")
                .arg("-oL")
                .arg(subscriber.get_program())
                .stdin(Stdio::null())
                .args(login(broker.local_addr(), version, "platform"))
                .args(["-t", "ridgeway/v1/#", "-q", qos, "-v", "-d", "-C", "3", "-W", "30"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut subscriber = Running(subscriber);
            let mut lines = BufReader::new(subscriber.0.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("Subscribed")));
            for n in 0..3 {
                let published = mosquitto("mosquitto_pub")
                    .args(login(broker.local_addr(), version, "edge"))
                    .args(["-t", EVENT, "-q", qos, "-m", &format!("message {n}")])
                    .status()
                    .unwrap();
                assert!(published.success());
            }
            let all: Vec<String> = lines.map_while(Result::ok).collect();
            let got: Vec<&str> =
                all.iter().map(String::as_str).filter(|l| l.starts_with("ridgeway/")).collect();
            let sent = [0, 1, 2].map(|n| format!("{EVENT} message {n}"));
            assert_eq!(got, sent, "{version}, QoS {qos}: {all:#?}");
            assert!(subscriber.0.wait().unwrap().success());
        }
        let denied = mosquitto("mosquitto_sub")
            .args(login(broker.local_addr(), version, "viewer"))
            .args(["-t", "#", "-W", "30"])
            .output()
            .unwrap();
        let word = String::from_utf8_lossy(&denied.stderr).into_owned();
        assert!(word.contains("All subscription requests were denied"), "{word}");
        let mut wrong = login(broker.local_addr(), version, "edge");
        wrong.pop();
        let refused = mosquitto("mosquitto_pub")
            .args(wrong)
            .args(["wrong", "-t", EVENT, "-m", "x"])
            .output()
            .unwrap();
        let word = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success());
        let word = word.to_lowercase();
        assert!(word.contains("not auth") || word.contains("bad user name"), "{word}");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn rumqttc_with_our_options_in_both_versions() {
    let broker = start().await;
    let target = |user: &str| {
        Target::new("127.0.0.1", broker.local_addr().port(), format!("{user}-rumqttc"))
            .login(user, Secret::from(format!("{user}-password")))
    };
    let (old, mut old_events) = rumqttc::AsyncClient::new(target("platform").v4(), 10);
    let (new, mut new_events) = rumqttc::v5::AsyncClient::new(target("edge").v5(), 10);
    old.subscribe(EVENT, rumqttc::QoS::AtLeastOnce).await.unwrap();
    let payload = vec![b'x'; 200_000];
    let exchange = async {
        loop {
            tokio::select! {
                event = old_events.poll() => match event.unwrap() {
                    rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_)) => {
                        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                        new.publish(EVENT, qos, false, payload.clone()).await.unwrap();
                    }
                    rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => return publish,
                    _ => {}
                },
                event = new_events.poll() => { event.unwrap(); }
            }
        }
    };
    let got = tokio::time::timeout(PATIENCE, exchange).await.unwrap();
    assert_eq!((got.topic.as_str(), got.payload.len()), (EVENT, 200_000));
    let mut backoff = Backoff::default();
    assert!(backoff.next(u64::MAX) <= Duration::from_millis(500));
    broker.shutdown().await;
}
