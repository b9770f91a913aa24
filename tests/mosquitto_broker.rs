//! The main flow with Mosquitto in place of both embedded brokers.

use crate::{
    identify_by_touch::enrol,
    support::{
        eventually,
        mosquitto::Version,
        mosquitto_broker::MosquittoBroker,
        site::{Options, Site},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn the_main_flow_works_with_mosquitto() {
    let mosquitto = MosquittoBroker::start().await;
    let both = Some(mosquitto.external());
    let options = Options { edge: both.clone(), cloud: both, ..Options::default() };
    let site = Site::start(options).await;
    let listener = mosquitto.platform().subscribe("ridgeway/v1/#", Version::V5);
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
