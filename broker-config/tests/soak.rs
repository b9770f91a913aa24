//! The soak's short form: every attack alone, and all together, each for two seconds against a broker of
//! its own, all at the same time. The long form is `examples/soak.rs`.

#[path = "../examples/proof/mod.rs"]
mod proof;

use std::time::Duration;

use proof::{
    attack::ALL,
    random::Random,
    soak::{Plan, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_stops_rumqttd_is_noticed_by_others() {
    let mut random = Random::new(Random::seed().unwrap());
    let runs: Vec<_> = ALL
        .into_iter()
        .map(|scenario| {
            let seed = random.next();
            let plan = Plan { scenario, time: Duration::from_secs(2), seed, bare: false };
            println!("{}: seed {seed}", scenario.name());
            tokio::spawn(run(plan))
        })
        .collect();
    for run in runs {
        let outcome = run.await.unwrap().unwrap();
        println!("{}", serde_json::to_string(&outcome).unwrap());
        assert_eq!(outcome.violations, Vec::<String>::new(), "{}", outcome.scenario);
    }
}
