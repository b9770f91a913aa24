//! The on-site broker.

use gateway::config::IdleMode;
use rumqttc::v5::{
    self,
    mqttbytes::{QoS, v5::PublishProperties},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::support::{PATIENCE, Site, text};

/// A platform on MQTT 5.
struct Platform {
    client: v5::AsyncClient,
    messages: mpsc::Receiver<v5::mqttbytes::v5::Publish>,
    turning: JoinHandle<()>,
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.turning.abort();
    }
}

impl Platform {
    async fn join(site: &Site, filter: &str) -> Self {
        let (user, password) = site.gateway().platform_login();
        let address = site.gateway().mqtt_addr();
        let (host, port) = address.rsplit_once(':').unwrap();
        let mut options = v5::MqttOptions::new("platform-5", host, port.parse().unwrap());
        options.set_credentials(user, password).set_max_packet_size(Some(300_000));
        let (client, mut eventloop) = v5::AsyncClient::new(options, 64);
        let (sender, messages) = mpsc::channel(1_024);
        let (subscribed, ready) = tokio::sync::oneshot::channel();
        client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        let turning = tokio::spawn(async move {
            let mut subscribed = Some(subscribed);
            while let Ok(event) = eventloop.poll().await {
                match event {
                    v5::Event::Incoming(v5::Incoming::Publish(publish)) => {
                        let _ = sender.send(publish).await;
                    }
                    v5::Event::Incoming(v5::Incoming::SubAck(_)) => {
                        subscribed.take().map(|subscribed| subscribed.send(()));
                    }
                    _ => {}
                }
            }
        });
        timeout(PATIENCE, ready).await.unwrap().unwrap();
        Self { client, messages, turning }
    }

    /// The next message on a topic that ends like this.
    async fn until(&mut self, end: &str) -> (v5::mqttbytes::v5::Publish, Value) {
        let mut seen = Vec::new();
        loop {
            let next = timeout(PATIENCE, self.messages.recv()).await;
            let message = next.unwrap_or_else(|_| panic!("no {end} after {seen:?}")).unwrap();
            let topic = String::from_utf8(message.topic.to_vec()).unwrap();
            if topic.ends_with(end) {
                let body = serde_json::from_slice(&message.payload).unwrap();
                return (message, body);
            }
            seen.push(topic);
        }
    }

    async fn ask(&self, body: Value, properties: PublishProperties) {
        let topic = "ridgeway/v1/hq/commands/request";
        let asked = self.client.publish_with_properties(
            topic,
            QoS::AtLeastOnce,
            false,
            body.to_string(),
            properties,
        );
        asked.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touch_at_the_door_is_one_object_on_socket_and_broker() {
    let site = Site::start(|config| config.readers.idle_mode = IdleMode::Identify).await;
    let mut platform = Platform::join(&site, "ridgeway/v1/#").await;
    let mut socket = site.socket().await;
    socket.say(json!({"type": "subscribe"})).await;
    socket.until("subscribe:success").await;
    let finger = site.press("stranger/left-thumb", 3);
    let heard = socket.until("access:denied").await;
    let (message, published) = platform.until("/readers/device-001/events/access/denied").await;
    drop(finger);
    assert_eq!(published, heard);
    assert!(!message.retain);
    let properties = message.properties.unwrap();
    let attribute = |name: &str| {
        properties
            .user_properties
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(attribute("specversion"), Some("1.0"));
    assert_eq!(attribute("id"), Some(text(&published, "id")));
    assert_eq!(attribute("type"), Some("access:denied"));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_retained_and_a_stop_says_offline() {
    let mut site = Site::start(|_| {}).await;
    let mut early = Platform::join(&site, "ridgeway/v1/#").await;
    while early.until("/readers/device-001/status").await.1["status"] != "idle" {}
    drop(early);
    let mut platform = Platform::join(&site, "ridgeway/v1/#").await;
    let (message, reader) = platform.until("/readers/device-001/status").await;
    assert!(message.retain, "it was there before");
    assert_eq!((&reader["status"], &reader["serialNumber"]), (&json!("idle"), &json!("SIM-0001")));
    let status = loop {
        let (_, status) = platform.until("ridgeway/v1/hq/status").await;
        if status["readers"][0]["status"] == "idle" {
            break status;
        }
    };
    assert_eq!(
        (&status["state"], &status["uplink"]["state"]),
        (&json!("online"), &json!("disabled"))
    );
    let stop = site.stop();
    let goodbye = async {
        loop {
            let (_, status) = platform.until("ridgeway/v1/hq/status").await;
            if status["state"] == "offline" {
                return status;
            }
        }
    };
    let (status, ()) = tokio::join!(goodbye, stop);
    assert!(status["since"].is_string(), "the last word, not the Last Will: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_answered_once_and_repeats_with_the_same() {
    let site = Site::start(|_| {}).await;
    let mut platform = Platform::join(&site, "ridgeway/v1/hq/commands/#").await;
    let health = json!({"id": "c-1", "command": "health", "ttlMs": 10_000});
    let asked = PublishProperties {
        response_topic: Some("ridgeway/v1/hq/commands/response/node-red".to_owned()),
        correlation_data: Some("abc".into()),
        ..Default::default()
    };
    platform.ask(health.clone(), asked).await;
    let (message, first) = platform.until("/commands/response/node-red").await;
    assert_eq!((&first["id"], &first["status"]), (&json!("c-1"), &json!("completed")), "{first}");
    assert_eq!(first["result"]["status"], "healthy");
    assert_eq!(message.properties.unwrap().correlation_data.as_deref(), Some(&b"abc"[..]));
    platform.ask(health, PublishProperties::default()).await;
    let (_, again) = platform.until("/commands/response").await;
    assert_eq!(again, first, "the stored result");

    for (body, code) in [
        (json!({"id": "c-2", "command": "reboot", "ttlMs": 1_000}), 400),
        (json!({"id": "c-3", "command": "health"}), 400),
        (
            json!({"id": "c-4", "command": "verify", "params": {"userId": "u", "template": "QUJD"}, "ttlMs": 1_000}),
            400,
        ),
    ] {
        platform.ask(body.clone(), PublishProperties::default()).await;
        let (_, response) = platform.until("/commands/response").await;
        assert_eq!((&response["id"], &response["status"]), (&body["id"], &json!("failed")));
        assert_eq!(response["error"]["code"], code, "{response}");
    }
    let refused = site.gateway().edge_stats().refused;
    platform.ask(json!("no object"), PublishProperties::default()).await;
    site.until("it is counted", async || {
        (site.gateway().edge_stats().refused > refused).then_some(())
    })
    .await;
}
