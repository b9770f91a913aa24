//! The `ridgeway` command: parse, load the configuration, wire up, run. What it runs lives in the
//! `gateway` and `cloud-bridge` crates.
//!
//! Exit codes: 0 done or stopped as asked, 1 failed, 64 used or configured wrongly.
#![forbid(unsafe_code)]

mod announce;
mod bench;
mod broker;
mod broker_config;
mod cli;
mod demo;
mod feed;
mod finger;
mod journal;
mod mqtt;
mod output;
mod run;
mod secret;
mod settings;
mod template;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

/// Gives back what a thousand clients needed: see `docs/decisions/0010-allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Used or configured wrongly (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if let Command::ReaderHost(args) = &cli.command {
        // Before any thread or runtime: this process belongs to the vendor's library.
        return zkfp::host::run(&args.args);
    }
    run::log_to_stderr(cli.command.default_log_level());
    match run::runtime().and_then(|runtime| runtime.block_on(dispatch(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ridgeway: {}", run::explain(error.as_ref()));
            let wrong = error.is::<settings::SettingsError>() || error.is::<cli::UsageError>();
            if wrong { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Gateway(args) => run::gateway(args).await,
        Command::Bridge(args) => run::bridge(args).await,
        Command::Finger(args) => finger::run(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Broker(args) => broker::run(args),
        Command::Journal(args) => {
            // It reads files and a socket, and waits for nothing else.
            tokio::task::spawn_blocking(|| journal::run(args)).await?
        }
        // Files and calculations.
        Command::Template(args) => tokio::task::spawn_blocking(|| template::run(args)).await?,
        Command::Secret(args) => secret::run(args),
        Command::Sample(args) => {
            print!("{}", run::sample(args.side));
            Ok(())
        }
        Command::BrokerConfig(args) => broker_config::run(args),
        Command::Bench(args) => bench::run(args).await,
        Command::ReaderHost(_) => Ok(()), // taken in `main`
    }
}

/// Help and version go to standard output with 0; a mistake goes to standard error with 64.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
}
