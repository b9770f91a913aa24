//! Power cuts of everything: gateway, bridge, the broker between them and the readers' process are killed
//! at random moments under load. In the end everything that anybody was told is in the bridge's store,
//! once; every command ran at most once, and its result is there; both sides' books add up.
//!
//! `./test.sh` runs the short ones, `scripts/soak` thousands of kills. The seed is printed; it repeats
//! the order of events, not the machine's timing.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    account::{Books, SETTLING, settle},
    eventually,
    http::Api,
    load::Touches,
    mosquitto_broker::MosquittoBroker,
    random::{Random, seed},
    site::{GATEWAY, Options, Site},
    text,
    told::{Ids, Told},
    wan::Cut,
    within,
};

/// Between two commands.
const COMMAND_PAUSE: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Gateway,
    Bridge,
    /// Between them; an embedded one dies with its process.
    Broker,
    Reader,
    /// Bridge and gateway, as close as it gets.
    Both,
}

/// Of ten blows. What is killed too often is never at work.
const DECK: [Victim; 10] = [
    Victim::Gateway,
    Victim::Gateway,
    Victim::Gateway,
    Victim::Bridge,
    Victim::Bridge,
    Victim::Broker,
    Victim::Broker,
    Victim::Reader,
    Victim::Both,
    Victim::Both,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brokers {
    Embedded,
    /// One on site, which is never killed and reached through a bad line, and one in the cloud.
    Mosquitto,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifteen_kills_with_mosquitto_between() {
    let seed = seed("fifteen_kills_with_mosquitto_between");
    episode(Brokers::Mosquitto, 15, seed, Instant::now() + Duration::from_secs(3600)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifteen_kills_with_embedded_brokers() {
    let seed = seed("fifteen_kills_with_embedded_brokers");
    episode(Brokers::Embedded, 15, seed, Instant::now() + Duration::from_secs(3600)).await;
}

/// Kills in an episode of a soak; then all is compared, and a new site begins.
const EPISODE: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "scripts/soak runs it"]
async fn soak() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect(name))
    };
    let kills = number("RIDGEWAY_SOAK_KILLS", 100);
    let end = Instant::now() + Duration::from_secs(number("RIDGEWAY_SOAK_MINUTES", 600) * 60);
    let seed = seed("soak");
    let mut total = Tally::default();
    while total.kills() < kills && Instant::now() < end {
        let number = total.episodes;
        let brokers = if number.is_multiple_of(2) { Brokers::Mosquitto } else { Brokers::Embedded };
        let kills = EPISODE.min(kills - total.kills());
        total.add(episode(brokers, kills, seed + number, end).await);
        println!("so far: {total}");
    }
    println!("\n{}", total.table());
}

/// One site through so many kills, or until `end`.
async fn episode(brokers: Brokers, kills: u64, seed: u64, end: Instant) -> Tally {
    let started = Instant::now();
    let mut scene = Scene::start(brokers, seed).await;
    while scene.tally.kills() < kills && Instant::now() < end {
        scene.next_kill().await;
    }
    let tally = scene.end(started).await;
    println!("{brokers:?}, seed {seed}: {tally}");
    tally
}

struct Scene {
    edge: Option<MosquittoBroker>,
    cloud: Option<MosquittoBroker>,
    random: Random,
    deck: Vec<Victim>,
    told: Told,
    /// What happened before anybody listened.
    early: BTreeSet<String>,
    touches: Touches,
    commands: Commands,
    tally: Tally,
    site: Site,
}

impl Scene {
    async fn start(brokers: Brokers, seed: u64) -> Self {
        let (edge, cloud) = match brokers {
            Brokers::Embedded => (None, None),
            Brokers::Mosquitto => {
                (Some(MosquittoBroker::start().await), Some(MosquittoBroker::start().await))
            }
        };
        let options = Options {
            readers: vec!["SIM-0001", "SIM-0002", "SIM-0003"],
            edge: edge.as_ref().map(MosquittoBroker::external),
            cloud: cloud.as_ref().map(MosquittoBroker::external),
            has_lan: edge.is_some(),
            ..Options::default()
        };
        let site = Site::start(options).await;
        let broker = edge.as_ref().map_or_else(|| site.edge_broker(), MosquittoBroker::platform);
        let told = Told::listen(&site.local(), &site.cloud(), &broker);
        let early = ids(&site.local().events().await);
        let (touches, commands) = (Touches::start(&site), Commands::start(site.cloud(), seed));
        let (random, deck, tally) = (Random::new(seed), Vec::new(), Tally::default());
        Self { site, edge, cloud, random, deck, told, early, touches, commands, tally }
    }

    /// At a random moment; then the victim is back after a random while.
    async fn next_kill(&mut self) {
        self.pause(50, 1_500).await;
        let victim = self.next_victim();
        match victim {
            Victim::Gateway => self.gateway().await,
            Victim::Bridge => {
                self.site.kill_bridge();
                self.pause(0, 800).await;
                tokio::task::block_in_place(|| self.site.start_bridge());
            }
            Victim::Broker => {
                self.cloud.as_mut().unwrap().kill();
                self.pause(0, 800).await;
                self.cloud.as_mut().unwrap().revive();
            }
            Victim::Reader => {
                let hosts = children(self.site.gateway.as_ref().unwrap().pid());
                hosts.into_iter().for_each(kill);
            }
            Victim::Both => self.both().await,
        }
        *self.tally.killed.entry(victim).or_default() += 1;
        self.told.take_edge();
        // Now and then all find together again; else the next blow comes while they try.
        if self.random.coin() {
            let cloud = self.site.cloud();
            within(SETTLING, "the gateway is back at the bridge", async || {
                let (_, agents) = cloud.try_get("/api/agents").await?;
                (agents[0]["status"] == "online").then_some(())
            })
            .await;
        }
    }

    /// All have their turns, in random order.
    fn next_victim(&mut self) -> Victim {
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.deck.retain(|victim| self.cloud.is_some() || *victim != Victim::Broker);
        }
        self.deck.swap_remove(self.random.below(self.deck.len() as u64) as usize)
    }

    async fn gateway(&mut self) {
        // What the site's broker has not got yet must come from the journal after the restart.
        let is_cut_off = self.edge.is_some() && self.random.coin();
        if is_cut_off {
            self.site.lan().shut();
            self.site.lan().cut(Cut::Reset);
            self.pause(200, 1_000).await;
        }
        self.end_gateway().await;
        self.pause(0, 800).await;
        if is_cut_off {
            self.site.lan().mend();
        }
        tokio::task::block_in_place(|| self.site.start_gateway());
    }

    async fn both(&mut self) {
        self.site.kill_bridge();
        self.pause(0, 10).await;
        self.end_gateway().await;
        Books::read(&self.site).await.assert_sound();
        let gateway_first = self.random.coin();
        tokio::task::block_in_place(|| {
            if gateway_first {
                self.site.start_gateway();
            }
            self.site.start_bridge();
            if !gateway_first {
                self.site.start_gateway();
            }
        });
    }

    /// The readers' process goes with it.
    async fn end_gateway(&mut self) {
        let hosts = children(self.site.gateway.as_ref().unwrap().pid());
        self.site.kill_gateway();
        eventually("the readers' process ends with the gateway", async || {
            hosts.iter().all(|&pid| !is_running(pid)).then_some(())
        })
        .await;
    }

    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        tokio::time::sleep(self.random.millis(from_ms, to_ms)).await;
    }

    /// The load ends; everything is compared.
    async fn end(mut self, started: Instant) -> Tally {
        self.tally.touches = self.touches.stop().await;
        let accepted = self.commands.stop().await;
        let cloud = self.site.cloud();
        for id in &accepted {
            let status = within(SETTLING, &format!("{id} ends"), async || {
                let command = cloud.ok(&format!("/api/commands/{id}")).await;
                command["finishedAt"].is_string().then(|| text(&command, "status").to_owned())
            })
            .await;
            *self.tally.commands.entry(status).or_default() += 1;
        }
        if self.edge.is_some() {
            let local = self.site.local();
            within(SETTLING, "the site's broker has brought everything", async || {
                self.told.take_edge();
                let told = self.told.edge.all();
                let mut events = ids(&local.events().await).into_iter();
                events.all(|id| told.contains(&id) || self.early.contains(&id)).then_some(())
            })
            .await;
        }
        // Before the last look at the bridge: what happens after that is in neither.
        self.told.take_edge();
        let told = [&self.told.local, &self.told.edge, &self.told.cloud].map(Ids::all);
        let (local, cloud) = settle(&mut self.site).await;
        let stored = ids(&cloud);
        assert_kept("the gateway's API", &told[0], &stored);
        assert_kept("the site's broker", &told[1], &stored);
        assert_kept("the bridge's WebSocket", &told[2], &stored);
        assert_once(&accepted, &cloud);
        self.tally.events = local.len() as u64;
        self.tally.repeats = self.told.repeats;
        self.tally.told = told[0].union(&told[1]).count() as u64;
        self.tally.seconds = started.elapsed().as_secs();
        self.tally.episodes = 1;
        self.tally
    }
}

/// What was told is stored. What is stored is there once and the same as in the journal: see `settle`.
#[track_caller]
fn assert_kept(who: &str, told: &BTreeSet<String>, stored: &BTreeSet<String>) {
    assert!(!told.is_empty(), "{who} told nothing");
    let lost: Vec<&String> = told.difference(stored).collect();
    assert!(lost.is_empty(), "told by {who}, then lost: {lost:?}");
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|event| text(event, "id").to_owned()).collect()
}

/// Each command has one result at most, and began once at most; each that was accepted has one.
#[track_caller]
fn assert_once(accepted: &[String], stored: &[Value]) {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for event in stored {
        if let (Some(id), Some(kind)) = (event["commandId"].as_str(), event["type"].as_str()) {
            *counts.entry((kind, id)).or_default() += 1;
        }
    }
    let mut began = 0;
    for ((kind, id), count) in &counts {
        let is_start = *kind == "scan:started";
        began += u64::from(is_start);
        assert!(*count == 1 || !(is_start || *kind == "command:result"), "{id}: {count} {kind}");
    }
    assert!(began > 0, "none ever began");
    for id in accepted {
        assert!(counts.contains_key(&("command:result", id)), "{id} has no result");
    }
}

/// Somebody in the cloud who sends commands, each until it is accepted.
struct Commands {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Commands {
    fn start(cloud: Api, seed: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(command(cloud, seed, Arc::clone(&is_over)));
        Self { is_over, task }
    }

    async fn stop(self) -> Vec<String> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn command(cloud: Api, seed: u64, is_over: Arc<AtomicBool>) -> Vec<String> {
    let path = format!("/api/agents/{GATEWAY}/commands");
    let mut accepted = Vec::new();
    for number in 0u64.. {
        let id = format!("kill-{seed}-{number}");
        let (command, params) = match number % 4 {
            0 => ("devices", json!({})),
            1 => ("capture", json!({"timeout": 1_000})),
            2 => ("health", json!({})),
            _ => ("device:test", json!({})),
        };
        let body = json!({"id": id, "command": command, "params": params, "ttlMs": 3_600_000});
        let mut answers = 0;
        // Every third one twice, as by a client that missed the answer.
        while answers < if number.is_multiple_of(3) { 2 } else { 1 } {
            if is_over.load(Ordering::Relaxed) {
                return accepted;
            }
            match cloud.try_post(&path, body.clone()).await {
                Some((200 | 202, _)) => answers += 1,
                Some((status @ 400..=499, body)) => panic!("{status} {body}"),
                Some(_) | None => {}
            }
            tokio::time::sleep(COMMAND_PAUSE / 2).await;
        }
        accepted.push(id);
        tokio::time::sleep(COMMAND_PAUSE).await;
    }
    accepted
}

/// Processes that this one started.
fn children(parent: u32) -> Vec<u32> {
    let line = format!("PPid:\t{parent}");
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().any(|found| found == line).then_some(pid)
    });
    processes.collect()
}

fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
}

/// What an episode, or all of them, came to. Nothing lost and nothing twice, or it would have failed.
#[derive(Debug, Default)]
struct Tally {
    episodes: u64,
    killed: BTreeMap<Victim, u64>,
    commands: BTreeMap<String, u64>,
    touches: u64,
    events: u64,
    told: u64,
    repeats: u64,
    seconds: u64,
}

impl Tally {
    /// Processes: both are two.
    fn kills(&self) -> u64 {
        let both = self.killed.get(&Victim::Both).copied().unwrap_or_default();
        self.killed.values().sum::<u64>() + both
    }

    fn add(&mut self, other: Tally) {
        for (victim, count) in other.killed {
            *self.killed.entry(victim).or_default() += count;
        }
        for (status, count) in other.commands {
            *self.commands.entry(status).or_default() += count;
        }
        self.episodes += other.episodes;
        self.touches += other.touches;
        self.events += other.events;
        self.told += other.told;
        self.repeats += other.repeats;
        self.seconds += other.seconds;
    }

    fn table(&self) -> String {
        let mut lines = vec![format!("| {:<34} | {:>9} |", "episodes", self.episodes)];
        let mut line =
            |name: String, count: u64| lines.push(format!("| {name:<34} | {count:>9} |"));
        line("processes killed".into(), self.kills());
        for (victim, count) in &self.killed {
            line(format!("  {victim:?}").to_lowercase(), *count);
        }
        line("touches".into(), self.touches);
        line("commands".into(), self.commands.values().sum());
        for (status, count) in &self.commands {
            line(format!("  {status}"), *count);
        }
        line("events".into(), self.events);
        line("of these told on site".into(), self.told);
        line("brought again by the site's broker".into(), self.repeats);
        line("lost".into(), 0);
        line("stored twice".into(), 0);
        line("seconds".into(), self.seconds);
        lines.join("\n")
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let commands: u64 = self.commands.values().sum();
        write!(
            f,
            "{} kills {:?}, {} touches, {commands} commands {:?}, {} events ({} told on site, {} of \
             them again), 0 lost, 0 twice, {} s",
            self.kills(),
            self.killed,
            self.touches,
            self.commands,
            self.events,
            self.told,
            self.repeats,
            self.seconds
        )
    }
}
