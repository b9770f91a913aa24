//! The schedules that continuous integration runs: the same million each time. `MODEL_SEEDS` sets
//! another number, and `scripts/model --from SEED` runs others.

#[test]
fn whatever_fails_nothing_is_lost_silently_stored_twice_or_stuck() {
    const SCHEDULES: u64 = 1_000_000;
    let told = std::env::var("MODEL_SEEDS").ok().and_then(|text| text.parse().ok());
    match link_model::run_many(0, told.unwrap_or(SCHEDULES)) {
        Ok(sum) => println!("{sum:?}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_seed_says_all() {
    for seed in 0..64 {
        let figures = || link_model::run(seed).map_err(|failure| failure.to_string());
        assert_eq!(figures(), figures());
    }
}
