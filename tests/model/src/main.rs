//! Runs schedules: `link-model [--from SEED] [--seeds COUNT]`, or one of them with its trace:
//! `link-model --seed SEED`.

use std::{process::ExitCode, time::Instant};

use link_model::{Sum, run_many, trace};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--seed") {
        return match trace(seed) {
            Ok(figures) => {
                println!("{figures:?}");
                ExitCode::SUCCESS
            }
            Err(failure) => {
                println!("seed {}: {}", failure.seed, failure.reason);
                ExitCode::FAILURE
            }
        };
    }
    let (from, count) = (number("--from").unwrap_or(0), number("--seeds").unwrap_or(1_000_000));
    let started = Instant::now();
    match run_many(from, count) {
        Ok(sum) => {
            let Sum { schedules, steps, events, quiet_after, .. } = sum;
            let took = started.elapsed();
            let rate = schedules as f64 / took.as_secs_f64();
            println!(
                "{schedules} schedules from seed {from}, {steps} steps, {events} events, quiet \
                 after {quiet_after:?} at most: {took:.1?}, {rate:.0} schedules/s"
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
