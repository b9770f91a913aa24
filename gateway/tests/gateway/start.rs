//! Starting and stopping.

use std::time::Duration;

use gateway::{Gateway, StartError};

use crate::support::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_on_the_same_data_is_refused_with_the_reason() {
    let site = Site::start(|_| {}).await;
    let error = Gateway::start(site.config().clone()).await.err().unwrap();
    let message = error.to_string();
    assert!(matches!(error, StartError::InUse { .. }), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(message.contains("gateway.data_dir"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_the_key_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for key in ["api.listen", "mqtt.listen"] {
        let mut config = gateway::Config::default();
        config.gateway.data_dir = folder.path().join(key);
        config.readers.simulator_dir = Some(folder.path().join("simulator"));
        config.api.listen = "127.0.0.1:0".parse().unwrap();
        config.mqtt.listen = "127.0.0.1:0".parse().unwrap();
        match key {
            "api.listen" => config.api.listen = address,
            _ => config.mqtt.listen = address,
        }
        let message = Gateway::start(config).await.err().unwrap().to_string();
        for part in [key, "in use", &address.to_string()] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_clean_and_the_next_start_goes_on() {
    let mut site = Site::start(|_| {}).await;
    let key = site.gateway().api_key().to_owned();
    let before = site.get("/api/events?limit=1000").await.1;
    let started = std::time::Instant::now();
    site.stop().await;
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "within its grace: {:?}",
        started.elapsed()
    );
    site.start_again().await;
    assert_eq!(site.gateway().api_key(), key);
    let after = site.get("/api/events?limit=1000").await.1;
    let (before, after) =
        (before["events"].as_array().unwrap(), after["events"].as_array().unwrap());
    assert_eq!(&after[..before.len()], &before[..]);
    let states: Vec<_> = after.iter().filter_map(|event| event["status"].as_str()).collect();
    assert!(states.contains(&"stopping"), "{states:?}");
}
