//! A disk fills up, the gateway's or the bridge's: whose it is refuses what it can't record, says so, and
//! goes on by itself when there is room again. Nothing of what was told is lost.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    account::{SETTLING, settle},
    disk::Disk,
    eventually,
    http::Api,
    load::Touches,
    mosquitto::Version,
    site::{GATEWAY, Options, Site},
    text,
    told::Told,
    within,
};

/// Refusals while the disk is full.
const REFUSALS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_says_so_and_loses_nothing() {
    let options = Options { readers: vec!["SIM-0001", "SIM-0002"], ..Options::default() };
    let mut site = Site::new(options);
    let Some(disk) = Disk::mount(&site.folder().join("gateway"), 16) else {
        println!("skipped: only root can mount a disk to be filled");
        return;
    };
    site.start_bridge();
    site.start_gateway();
    site.connected().await;
    let (local, api) = (site.local(), site.local());
    let mut told = Told::listen(&local, &site.cloud(), &site.edge_broker());
    let touches = Touches::start(&site);
    for is_power_cut in [false, true, false] {
        disk.fill();
        // Again and again: between two failures a small commit may still find room.
        for _ in 0..REFUSALS {
            eventually("a capture is refused", async || {
                let (status, body) =
                    api.post("/api/fingerprint/capture", json!({"timeout": 1000})).await;
                let reason = &body["error"]["details"]["reason"];
                (status == 503 && reason == "disk full").then_some(())
            })
            .await;
        }
        let (status, health) = api.get("/api/health").await;
        assert_eq!((status, &health["status"]), (503, &json!("unhealthy")), "{health}");
        if is_power_cut {
            site.kill_gateway();
            site.start_gateway();
        }
        disk.empty();
        eventually("it is healthy by itself", async || {
            let (status, _) = api.get("/api/health").await;
            (status == 200).then_some(())
        })
        .await;
        let before = api.events().await.len();
        eventually("events are recorded again", async || {
            (api.events().await.len() > before + 5).then_some(())
        })
        .await;
    }
    touches.stop().await;
    told.take_edge();
    let (_, cloud) = settle(&mut site).await;
    for ids in [told.local.all(), told.edge.all(), told.cloud.all()] {
        let mut lost = ids;
        cloud.iter().for_each(|event| _ = lost.remove(text(event, "id")));
        assert!(lost.is_empty(), "told, then lost: {lost:?}");
    }
}

/// What somebody posts to the bridge meanwhile: each is kept or refused.
#[derive(Default)]
struct Posts {
    kept: Vec<String>,
    refused: Vec<String>,
}

impl Posts {
    /// The documented refusal, or the documented success.
    async fn post(&mut self, cloud: &Api) {
        let path = format!("/api/users/u-{}/template", self.kept.len() + self.refused.len());
        // Large enough to need room, not only a free page.
        let template = STANDARD.encode([7; 12 << 10]);
        let (status, body) = cloud.post(&path, json!({"template": template})).await;
        if status == 201 {
            self.kept.push(path);
            return;
        }
        let (code, retryable) = (&body["error"]["code"], &body["error"]["retryable"]);
        assert_eq!((status, code, retryable), (503, &json!(5002), &json!(true)), "{body}");
        self.refused.push(path);
    }

    async fn check(&self, cloud: &Api) {
        for (paths, status) in [(&self.kept, 200), (&self.refused, 404)] {
            for path in paths {
                assert_eq!(cloud.get(path).await.0, status, "{path}");
            }
        }
    }
}

/// How often the bridge said in its log that the store takes nothing.
fn lines_about_it(site: &Site) -> usize {
    let log = site.bridge.as_ref().unwrap().log();
    log.lines().filter(|line| line.contains("the store takes nothing;")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_a_full_disk_refuses_says_so_and_loses_nothing() {
    let readers = vec!["SIM-0001", "SIM-0002"];
    let gateway_extra = "probe_ms = 5000".to_owned();
    let mut site = Site::new(Options { readers, gateway_extra, ..Options::default() });
    let Some(disk) = Disk::mount(&site.folder().join("bridge"), 16) else {
        println!("skipped: only root can mount a disk to be filled");
        return;
    };
    site.start_bridge();
    site.start_gateway();
    site.connected().await;
    let cloud = site.cloud();
    let mut told = Told::listen(&site.local(), &cloud, &site.edge_broker());
    let status = format!("ridgeway/v1/{GATEWAY}/status");
    let states = site.edge_broker().subscribe(&status, Version::V311);
    let mut uplink = Value::Null;
    let mut uplink = move || {
        let newest = states.drain().into_iter().rfind(|message| !message.payload.is_empty());
        uplink = newest.map_or(uplink.take(), |message| message.json()["uplink"].clone());
        uplink.clone()
    };
    let touches = Touches::start(&site);
    let mut posts = Posts::default();
    for is_power_cut in [false, true, false] {
        let said = lines_about_it(&site);
        disk.fill();
        for _ in 0..REFUSALS {
            let before = posts.refused.len();
            eventually("a template is refused", async || {
                posts.post(&cloud).await;
                (posts.refused.len() > before).then_some(())
            })
            .await;
        }
        let (status, health) = cloud.get("/health").await;
        let shown = (&health["status"], &health["store"], &health["reason"]);
        let full = (&json!("degraded"), &json!("failed"), &json!("disk full"));
        assert_eq!((status, shown), (503, full), "{health}");
        let metrics = cloud.text("/metrics").await;
        assert!(metrics.contains("ridgeway_bridge_store_outage 1\n"), "{metrics}");
        within(SETTLING, "the gateway says it", async || {
            let state = uplink();
            let reason = state["reason"].as_str().unwrap_or_default();
            (state["state"] == "degraded" && reason.contains("disk is full")).then_some(())
        })
        .await;
        assert_eq!(lines_about_it(&site), said + 1, "said once");
        if is_power_cut {
            site.kill_bridge();
            site.start_bridge();
        }
        disk.empty();
        eventually("it is well by itself", async || {
            (cloud.get("/health").await.0 == 200).then_some(())
        })
        .await;
        let before = cloud.events().await.len();
        within(SETTLING, "events are stored again", async || {
            (cloud.events().await.len() > before + 20).then_some(())
        })
        .await;
        within(SETTLING, "the uplink is up", async || {
            let state = uplink();
            (state["state"] == "connected" || state["state"] == "catching-up").then_some(())
        })
        .await;
    }
    touches.stop().await;
    posts.check(&cloud).await;
    assert!(cloud.text("/metrics").await.contains("ridgeway_bridge_store_outage 0\n"));
    told.take_edge();
    let (_, stored) = settle(&mut site).await;
    for ids in [told.local.all(), told.edge.all(), told.cloud.all()] {
        let mut lost = ids;
        stored.iter().for_each(|event| _ = lost.remove(text(event, "id")));
        assert!(lost.is_empty(), "told, then lost: {lost:?}");
    }
}
