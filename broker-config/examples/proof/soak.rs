//! One run: a broker, clients that behave, attackers, and the verdict.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    attack::{Attacker, Scenario},
    ledger::{Ledger, Summary},
    load::{Load, Newcomers, PUBLISHERS, SUBSCRIBERS},
    random::Random,
    subject::Subject,
};

/// For what is owed to arrive after the last message was sent.
const DRAIN: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    /// Against rumqttd alone.
    pub(crate) bare: bool,
}

/// What came of it; a line of JSON.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) load: Summary,
    pub(crate) attacks: u64,
    /// Attacks that ended with an error; most are meant to.
    pub(crate) attacks_ended: u64,
    pub(crate) newcomers: u64,
    pub(crate) newcomers_unserved: u64,
    pub(crate) newcomer_max_ms: u64,
    pub(crate) rebuilds: u64,
    pub(crate) slow_lost: u64,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// Empty: passed.
    pub(crate) violations: Vec<String>,
}

/// Runs it.
pub(crate) async fn run(plan: Plan) -> anyhow::Result<Outcome> {
    let subject = match plan.bare {
        false => Subject::ours(plan.scenario).await?,
        true => Subject::bare(plan.scenario).await?,
    };
    let kept: Vec<bool> = SUBSCRIBERS.iter().map(|(_, kept)| *kept).collect();
    let ledger = Arc::new(Ledger::new(PUBLISHERS.len(), &kept));
    let stop = CancellationToken::new();
    let load = Load { at: subject.addresses().clone(), ledger: ledger.clone(), stop: stop.clone() };
    let tasks = TaskTracker::new();
    for subscriber in 0..SUBSCRIBERS.len() {
        tasks.spawn(load.clone().subscribe(subscriber));
    }
    for publisher in 0..PUBLISHERS.len() {
        tasks.spawn(load.clone().publish(publisher));
    }
    let newcomers_stop = CancellationToken::new();
    let visits = Load { stop: newcomers_stop.clone(), ..load };
    let newcomers = tokio::spawn(visits.newcomers());
    let began = Instant::now();
    let attacks = attack(&subject, plan, began + plan.time).await?;
    if plan.scenario.attackers() == 0 {
        sleep(plan.time).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    newcomers_stop.cancel();
    let newcomers = newcomers.await?;
    ledger.close();
    drain(&ledger).await;
    let load = ledger.summary();
    let stats = subject.stats().unwrap_or_default();
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    subject.end().await;
    let mut outcome = Outcome {
        scenario: plan.scenario.name(),
        seed: plan.seed,
        seconds,
        load,
        attacks: attacks.tried,
        attacks_ended: attacks.ended,
        newcomers: newcomers.came,
        newcomers_unserved: newcomers.unserved,
        newcomer_max_ms: newcomers.longest.as_millis() as u64,
        rebuilds: stats.rebuilds,
        slow_lost: stats.lost,
        refusals: stats.refusals,
        violations: Vec::new(),
    };
    outcome.violations = judge(plan, &outcome, newcomers);
    Ok(outcome)
}

#[derive(Debug, Clone, Copy, Default)]
struct Attacks {
    tried: u64,
    ended: u64,
}

async fn attack(subject: &Subject, plan: Plan, until: Instant) -> anyhow::Result<Attacks> {
    let attackers = plan.scenario.attackers();
    let mut random = Random::new(plan.seed);
    let mut tasks = Vec::new();
    for who in 0..attackers {
        let mut attacker =
            Attacker::new(subject.addresses().clone(), who, Random::new(random.next()));
        let pace = Duration::from_secs(1) * attackers as u32 / plan.scenario.pace();
        tasks.push(tokio::spawn(async move {
            let mut attacks = Attacks::default();
            let mut tick = interval(pace);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while Instant::now() < until {
                tick.tick().await;
                attacks.tried += 1;
                attacks.ended += u64::from(attacker.attack(plan.scenario).await.is_err());
            }
            attacks
        }));
    }
    let mut all = Attacks::default();
    for task in tasks {
        let attacks = task.await?;
        all.tried += attacks.tried;
        all.ended += attacks.ended;
    }
    Ok(all)
}

/// Waits until nothing is owed, for a while.
async fn drain(ledger: &Ledger) {
    let deadline = Instant::now() + DRAIN;
    let is_settled = || ledger.all_acknowledged() && ledger.summary().lost == 0;
    while !is_settled() && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
    }
}

fn judge(plan: Plan, outcome: &Outcome, newcomers: Newcomers) -> Vec<String> {
    let mut violations = Vec::new();
    let mut require = |holds: bool, what: String| {
        if !holds {
            violations.push(what);
        }
    };
    let load = &outcome.load;
    let minutes = plan.time.as_secs_f64() / 60.0;
    require(load.owed > 0, "nothing was delivered".to_owned());
    require(load.lost == 0, format!("{} of {} messages lost", load.lost, load.owed));
    let unacknowledged = format!(
        "{} unacknowledged, {} of them delivered",
        load.unacknowledged, load.unacknowledged_delivered
    );
    require(load.unacknowledged == 0, unacknowledged);
    let may = minutes.ceil().max(1.0) as u32;
    require(load.reconnects <= may, format!("{} reconnects of one client", load.reconnects));
    let in_order = load.disordered == 0 || load.reconnects > 0;
    require(in_order, format!("{} out of order", load.disordered));
    require(newcomers.came > 0, "no newcomer came".to_owned());
    require(newcomers.unserved == 0, format!("{} newcomers not served", newcomers.unserved));
    if !plan.bare {
        for reason in plan.scenario.refusals() {
            let counted = outcome.refusals.contains_key(reason);
            // Time-outs take a while to happen.
            let too_short = *reason == "slow_connect" && plan.time < Duration::from_secs(6);
            require(counted || too_short, format!("no refusal {reason}: was it an attack?"));
        }
        if plan.scenario.attackers() > 0 {
            require(outcome.attacks > 0, "no attack".to_owned());
        }
    }
    violations
}
