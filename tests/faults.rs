//! What can happen to a reader: the documented error, the gateway stays up, the reader comes back.

use serde_json::json;

use crate::support::{
    eventually,
    finger::Sensor,
    http::Api,
    site::{Options, Site},
};

async fn site() -> (Site, Api, Sensor) {
    let mut site =
        Site::new(Options { idle_mode: "off", gateway_extra: String::new(), ..Options::default() });
    site.start_gateway();
    let (api, sensor) = (site.local(), site.sensor(0));
    (site, api, sensor)
}

/// The reader works: a capture gives a template.
async fn works(api: &Api, sensor: &Sensor) {
    eventually("the reader is back", async || {
        let devices = api.ok("/api/devices").await;
        (devices[0]["status"] == "connected").then_some(())
    })
    .await;
    let capture = tokio::spawn({
        let api = api.clone();
        async move { api.post("/api/fingerprint/capture", json!({})).await }
    });
    sensor.press_for("user-001/right-index", 1, std::time::Duration::from_secs(1)).await;
    let (status, body) = capture.await.unwrap();
    assert_eq!(status, 200, "{body}");
}

/// Starts a capture, lets `harm` happen, and gives the answer's status and error code.
async fn captured_while(api: &Api, harm: impl AsyncFnOnce()) -> (u16, u64) {
    let capture = tokio::spawn({
        let api = api.clone();
        async move { api.post("/api/fingerprint/capture", json!({"timeout": 15000})).await }
    });
    eventually("the capture runs", async || {
        let devices = api.ok("/api/devices").await;
        (devices[0]["status"] == "busy").then_some(())
    })
    .await;
    harm().await;
    let (status, body) = capture.await.unwrap();
    (status, body["error"]["code"].as_u64().unwrap_or_else(|| panic!("{body}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn unplugging_a_reader_is_1003_and_plugging_it_in_again_brings_it_back() {
    let (site, api, sensor) = site().await;
    works(&api, &sensor).await;
    let away = site.simulator().join(".away");
    let answer =
        captured_while(&api, async || std::fs::rename(sensor.folder(), &away).unwrap()).await;
    assert_eq!(answer, (503, 1003));
    eventually("it is gone from the list", async || {
        (api.ok("/api/devices").await == json!([])).then_some(())
    })
    .await;
    std::fs::rename(&away, sensor.folder()).unwrap();
    works(&api, &sensor).await;
    assert_eq!(api.ok("/api/devices").await[0]["id"], "device-001", "under the same id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_vendors_library_is_1003_and_the_reader_comes_back() {
    let (_site, api, sensor) = site().await;
    works(&api, &sensor).await;
    let answer = captured_while(&api, async || sensor.fault(Some("crash"))).await;
    assert_eq!(answer, (503, 1003));
    sensor.fault(None);
    works(&api, &sensor).await;
    assert_eq!(api.ok("/api/health").await["status"], "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_answers_too_slowly_is_1005() {
    let (_site, api, sensor) = site().await;
    works(&api, &sensor).await;
    let answer = captured_while(&api, async || sensor.fault(Some("slow 2500"))).await;
    assert_eq!(answer, (503, 1005));
    sensor.fault(None);
    works(&api, &sensor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_template_is_2003_and_goes_nowhere() {
    let (_site, api, sensor) = site().await;
    works(&api, &sensor).await;
    sensor.fault(Some("garbage-template"));
    let answer = captured_while(&api, async || {
        sensor.put("user-001/right-index", 1, Some(std::time::Duration::from_millis(500)));
    })
    .await;
    assert_eq!(answer, (422, 2003));
    sensor.fault(None);
    works(&api, &sensor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_unplug_is_noticed() {
    let (_site, api, sensor) = site().await;
    works(&api, &sensor).await;
    let answer = captured_while(&api, async || sensor.fault(Some("silent-unplug"))).await;
    assert_eq!(answer, (503, 1003));
    sensor.fault(None);
    works(&api, &sensor).await;
}
