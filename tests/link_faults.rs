//! Everything that a line between a site and its cloud can do: meanwhile both sides say the truth, and
//! afterwards all that happened is stored at the bridge, once, whole and in order.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    account::{SETTLING, assert_order, settle},
    eventually,
    load::Touches,
    mosquitto::{Subscriber, Version},
    mosquitto_broker::MosquittoBroker,
    random::{Random, seed},
    site::{ExternalBroker, GATEWAY, Options, Site},
    text,
    wan::{Cut, Direction, Wan, Way},
    within,
};

/// Between two of the gateway's probes.
const PROBE: Duration = Duration::from_secs(1);
/// The same where it is measured how soon a silent line is noticed: long beside what a busy machine adds.
const LONG_PROBE: Duration = Duration::from_secs(5);
/// Probes' intervals within which the gateway says that nothing comes back, and within which it gives the
/// connection up.
const NOTICED: u32 = 2;
const GIVEN_UP: u32 = 2;
/// Within this the bridge notices that a gateway is silent: two intervals of the default.
const BRIDGE_NOTICES: Duration = Duration::from_secs(30);
/// For a side that was told: sooner than it would notice by itself.
const PROMPT: Duration = Duration::from_secs(10);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(4);
/// Longer than a gateway waits for an acknowledgement, shorter than the keep-alive.
const RESENT: Duration = Duration::from_millis(12_500);
/// How long a line flaps: nothing tells that it was long enough.
const FLAPPING: Duration = Duration::from_secs(10);
/// For a fresh event, once the line is good again: nothing that is old may be in its way.
const FRESH: Duration = Duration::from_secs(5);
/// 64 kbit/s.
const MODEM: Way = Way::BytesPerSecond(8_000);

/// A site whose readers are touched without end, and what it says of its way to the bridge.
struct Scene {
    touches: Touches,
    states: Subscriber,
    uplink: String,
    site: Site,
}

impl Scene {
    async fn start(probe: Duration) -> Self {
        Self::with(probe, None).await
    }

    /// With a broker of somebody else's in the cloud, if there is one.
    async fn with(probe: Duration, cloud: Option<ExternalBroker>) -> Self {
        let options = Options {
            has_backbone: cloud.is_some(),
            cloud,
            readers: vec!["SIM-0001", "SIM-0002"],
            has_wan: true,
            gateway_extra: format!("probe_ms = {}", probe.as_millis()),
            ..Options::default()
        };
        let site = Site::start(options).await;
        let topic = format!("ridgeway/v1/{GATEWAY}/status");
        let states = site.edge_broker().subscribe(&topic, Version::V311);
        let touches = Touches::start(&site);
        let mut scene = Self { touches, states, uplink: String::new(), site };
        scene.uplink_is("connected at first", |state| state == "connected").await;
        scene.more_events(10).await;
        scene
    }

    /// The state of the uplink, as the gateway last told on site.
    fn uplink(&mut self) -> &str {
        for message in self.states.drain() {
            let status = message.json();
            if let Some(state) = status["uplink"]["state"].as_str() {
                self.uplink = state.to_owned();
            }
        }
        &self.uplink
    }

    async fn uplink_is(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        within(SETTLING, what, async || wanted(self.uplink()).then_some(())).await;
    }

    async fn agent(&self) -> String {
        let agents = self.site.cloud().ok("/api/agents").await;
        text(&agents[0], "status").to_owned()
    }

    async fn agent_is(&self, state: &str) {
        within(SETTLING, &format!("the bridge says {state}"), async || {
            (self.agent().await == state).then_some(())
        })
        .await;
    }

    /// Waits until the gateway has recorded so many more.
    async fn more_events(&self, more: usize) {
        let before = self.site.local().events().await.len();
        eventually("the site goes on", async || {
            (self.site.local().events().await.len() >= before + more).then_some(())
        })
        .await;
    }

    /// The line is good again. What follows from that, and the whole account.
    async fn ends_well(mut self) {
        self.uplink_is("the uplink is up again", |s| s == "connected" || s == "catching-up").await;
        self.agent_is("online").await;
        self.newest_arrives().await;
        let touched = self.touches.stop().await;
        assert!(touched >= 5, "there was load: {touched}");
        let (_, cloud) = settle(&mut self.site).await;
        // At most one with each connection of either side.
        let sessions =
            self.site.wan().connections() + self.site.backbone().map_or(0, Wan::connections);
        assert_order(&cloud, sessions);
    }

    /// What has just happened is at the bridge soon.
    async fn newest_arrives(&self) {
        self.more_events(2).await;
        let happened = Instant::now();
        let newest = self.site.local().events().await.pop().unwrap();
        within(FRESH, "a fresh event is stored", async || {
            let stored = self.site.cloud().ok("/api/events?last=500").await;
            let is_it = |event: &Value| event["id"] == newest["id"];
            stored["events"].as_array().unwrap().iter().any(is_it).then_some(())
        })
        .await;
        println!("a fresh event took {:?}", happened.elapsed());
    }
}

async fn cut_off(cut: Cut) {
    let mut scene = Scene::start(PROBE).await;
    scene.site.wan().shut();
    let began = Instant::now();
    scene.site.wan().cut(cut);
    scene.uplink_is("the gateway knows it", |state| state == "offline").await;
    scene.agent_is("offline").await;
    assert!(began.elapsed() < PROMPT, "both were told, and knew after {:?}", began.elapsed());
    scene.more_events(20).await;
    assert_eq!(scene.uplink(), "offline");
    assert_eq!(scene.agent().await, "offline");
    scene.site.wan().mend();
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_cut_with_a_reset() {
    cut_off(Cut::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_closed_in_order() {
    cut_off(Cut::Close).await;
}

/// A line that goes silent and closes nothing: both sides notice by themselves, in time.
async fn silent(silence: impl Fn(&Wan)) {
    let mut scene = Scene::start(LONG_PROBE).await;
    let began = Instant::now();
    silence(scene.site.wan());
    scene.uplink_is("the gateway knows it", |s| s == "degraded" || s == "offline").await;
    let gateway = began.elapsed();
    scene.agent_is("offline").await;
    let bridge = began.elapsed();
    println!("silence: the gateway noticed after {gateway:?}, the bridge after {bridge:?}");
    assert!(gateway < LONG_PROBE * NOTICED + SLACK, "the gateway noticed after {gateway:?}");
    assert!(bridge < LONG_PROBE * NOTICED + SLACK, "the bridge noticed after {bridge:?}");
    scene.more_events(20).await;
    assert_ne!(scene.uplink(), "connected");
    scene.site.wan().mend();
    scene.ends_well().await;
}

/// They wait for the most part, so they wait together.
#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_cable_and_a_line_that_drops_one_direction() {
    tokio::join!(
        silent(|wan| wan.set_both(Way::Stalled)),
        silent(|wan| wan.set(Direction::Up, Way::Lost)),
        silent(|wan| wan.set(Direction::Down, Way::Lost)),
    );
}

/// What is sent on the old connection is gone, and nobody says so; a new one would work.
#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_forgot_the_connection() {
    let scene = Scene::start(LONG_PROBE).await;
    let (connections, began) = (scene.site.wan().connections(), Instant::now());
    scene.site.wan().forget();
    within(SETTLING, "the gateway connects anew", async || {
        (scene.site.wan().connections() > connections).then_some(())
    })
    .await;
    println!("the gateway connected anew after {:?}", began.elapsed());
    assert!(began.elapsed() < LONG_PROBE * GIVEN_UP + SLACK, "{:?}", began.elapsed());
    scene.more_events(20).await;
    scene.ends_well().await;
}

/// Too short for anybody to give up, but longer than a gateway waits for an acknowledgement: it sends again
/// what is under way already, and all of it arrives twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_brings_everything_twice_and_breaks_nothing() {
    let scene = Scene::start(PROBE * 60).await;
    let connections = scene.site.wan().connections();
    scene.site.wan().set_both(Way::Stalled);
    tokio::time::sleep(RESENT).await; // the fault's duration
    scene.site.wan().mend();
    scene.newest_arrives().await;
    assert_eq!(scene.site.wan().connections(), connections, "the old connection is good");
    scene.ends_well().await;
}

/// The same for the bridge's own connections to a broker that is not in its process.
#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_that_forgot_the_bridge() {
    let mosquitto = MosquittoBroker::start().await;
    let scene = Scene::with(LONG_PROBE, Some(mosquitto.external())).await;
    let connections = || scene.site.backbone().map_or(0, Wan::connections);
    let (before, began) = (connections(), Instant::now());
    scene.site.backbone().unwrap().forget();
    within(SETTLING, "the bridge connects anew", async || {
        // One for the link, one for what it publishes.
        (connections() >= before + 2).then_some(())
    })
    .await;
    println!("the bridge connected anew after {:?}", began.elapsed());
    assert!(began.elapsed() < BRIDGE_NOTICES + SLACK, "{:?}", began.elapsed());
    scene.ends_well().await;
}

async fn half_closed(direction: Direction) {
    let scene = Scene::start(PROBE).await;
    let connections = scene.site.wan().connections();
    scene.site.wan().half_close(direction);
    eventually("a new connection", async || {
        (scene.site.wan().connections() > connections).then_some(())
    })
    .await;
    scene.more_events(20).await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_is_closed_towards_the_bridge() {
    half_closed(Direction::Up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_is_closed_towards_the_gateway() {
    half_closed(Direction::Down).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modem() {
    let mut scene = Scene::start(PROBE).await;
    scene.site.wan().shut();
    scene.site.wan().cut(Cut::Reset);
    scene.more_events(100).await;
    scene.site.wan().mend();
    scene.site.wan().set_both(MODEM);
    scene.uplink_is("the uplink is up", |s| s == "connected" || s == "catching-up").await;
    for _ in 0..5 {
        scene.newest_arrives().await;
    }
    scene.agent_is("online").await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_flaps() {
    let mut random = Random::new(seed("a_line_that_flaps"));
    let scene = Scene::start(PROBE).await;
    scene.site.wan().flap(&mut random, FLAPPING).await;
    scene.ends_well().await;
}
