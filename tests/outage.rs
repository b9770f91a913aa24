//! The bridge is away, a thousand events happen, the gateway is killed, all comes back: nothing is
//! lost, nothing is there twice, and what is fresh does not wait behind what is old.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    eventually,
    site::{Options, Site},
    text,
    wan::Way,
    within,
};

const EVENTS: u64 = 1_000;
/// Of the WAN while the site catches up. What a batch of so similar events compresses to is small.
const SLOW: Way = Way::BytesPerSecond(4 * 1024);
const READERS: [&str; 2] = ["SIM-0001", "SIM-0002"];

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_events_through_an_outage_and_a_power_cut_arrive_once_in_order_fresh_first() {
    let options = Options { readers: READERS.to_vec(), has_wan: true, ..Options::default() };
    let mut site = Site::start(options).await;
    site.stop_bridge();

    touch_until(&site, EVENTS).await;
    let before: Vec<Value> = site.local().events().await;
    assert!(before.len() as u64 >= EVENTS);
    site.kill_gateway();
    site.start_gateway();
    let after_restart: BTreeSet<String> = ids(&site.local().events().await);
    for event in &before {
        assert!(after_restart.contains(text(event, "id")), "told, then lost: {event}");
    }

    // So slow that the backlog takes seconds, and a touch meanwhile is a fresh event for certain.
    site.wan().set_both(SLOW);
    site.start_bridge();
    let mut dashboard = site.cloud_socket().await;
    dashboard.wait_for(|m| m["type"] == "event").await;
    site.sensor(0).put("stranger/left-thumb", 1, Some(Duration::from_millis(250)));
    dashboard
        .wait_for(|m| m["data"]["type"] == "identification:result" && is_fresh(&m["data"], &before))
        .await;
    site.wan().mend();
    // With it the backlog is through. Had it come before, it would not come again.
    let newest = before.iter().max_by_key(|event| event["seq"].as_u64()).unwrap();
    dashboard.wait_for(|m| m["data"]["id"] == newest["id"]).await;

    let all = within(Duration::from_secs(60), "everything is stored", async || {
        let local = site.local().events().await;
        let cloud = site.cloud().events().await;
        (ids(&cloud) == ids(&local) && cloud.len() == local.len()).then_some(cloud)
    })
    .await;
    assert_eq!(ids(&all).len(), all.len(), "each once");
    assert_lanes_are_whole(&all);
    assert_backlog_in_order(&dashboard.seen, &before);
}

/// Touches both readers until the gateway has recorded `wanted` events.
async fn touch_until(site: &Site, wanted: u64) {
    let mut round = 0u64;
    loop {
        let sensors = [site.sensor(0), site.sensor(1)];
        let touches = sensors.each_ref().map(|sensor| {
            // Few different images: making them is the test's cost, not the gateway's.
            let finger = format!("visitor-{}/left-index", round % 3);
            let sensor = sensor.clone();
            async move { sensor.press(&finger, 1).await }
        });
        let [first, second] = touches;
        tokio::join!(first, second);
        round += 1;
        if round.is_multiple_of(20) && site.local().events().await.len() as u64 >= wanted {
            return;
        }
        assert!(round < 1_000, "the touches make no events");
    }
}

fn is_fresh(event: &Value, before: &[Value]) -> bool {
    before.iter().all(|old| old["id"] != event["id"])
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|event| text(event, "id").to_owned()).collect()
}

/// Per lane: contiguous from 1.
fn assert_lanes_are_whole(events: &[Value]) {
    let mut lanes: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for event in events {
        lanes.entry(text(event, "lane")).or_default().insert(event["seq"].as_u64().unwrap());
    }
    for (lane, seqs) in lanes {
        let expected: BTreeSet<u64> = (1..=seqs.len() as u64).collect();
        assert_eq!(seqs, expected, "lane {lane}");
    }
}

/// What the dashboard saw of the old events: each lane rising. And a fresh one came before the last
/// of the old ones.
fn assert_backlog_in_order(seen: &[Value], before: &[Value]) {
    let old = ids(before);
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut fresh_at = None;
    let mut last_old_at = 0;
    let events = seen.iter().filter(|m| m["type"] == "event").map(|m| &m["data"]);
    for (at, event) in events.enumerate() {
        if !old.contains(text(event, "id")) {
            fresh_at.get_or_insert(at);
            continue;
        }
        last_old_at = at;
        let seq = event["seq"].as_u64().unwrap();
        let before = last.insert(text(event, "lane").to_owned(), seq);
        assert!(before.is_none_or(|before| before < seq), "out of order: {event}");
    }
    let fresh_at = fresh_at.expect("a fresh event was seen");
    assert!(
        fresh_at < last_old_at,
        "the fresh event (place {fresh_at}) waited for the whole backlog (to {last_old_at})"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_loses_nothing_that_it_acknowledged() {
    let mut site = Site::start(Options::default()).await;
    for round in 0..5 {
        site.sensor(0).press("visitor-1/left-index", 1).await;
        site.bridge.take().unwrap().kill();
        site.sensor(0).press("visitor-2/left-index", 1).await;
        site.start_bridge();
        eventually(&format!("round {round}: all is stored"), async || {
            let (local, cloud) = (site.local().events().await, site.cloud().events().await);
            (ids(&local) == ids(&cloud) && local.len() == cloud.len()).then_some(())
        })
        .await;
    }
    assert_lanes_are_whole(&site.cloud().events().await);
}
