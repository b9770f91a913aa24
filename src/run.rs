//! `ridgeway gateway` and `ridgeway bridge`: load the configuration, start, say where, wait for a
//! signal, stop.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use cloud_bridge::Bridge;
use gateway::Gateway;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    announce::{Announcement, CloudSide, GatewaySide, Login},
    cli::{ServiceArgs, Side},
    settings,
};

/// How long a stop may take: intake ends, what is committed is told, then everything closes.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

pub(crate) async fn gateway(args: ServiceArgs) -> anyhow::Result<()> {
    let config = settings::load(&args.config, std::env::vars(), gateway::Config::validate)?;
    let stop = stop_signal()?;
    let gateway = Gateway::start(config).await?;
    if args.json {
        gateway.ready().await;
        let (gateway, edge) = gateway_side(&gateway);
        say(&Announcement { gateway: Some(gateway), edge: Some(edge), cloud: None })?;
    }
    let outcome = until_stopped(stop, gateway.failed(), "site").await;
    gateway.stop(GRACE).await;
    outcome
}

pub(crate) async fn bridge(args: ServiceArgs) -> anyhow::Result<()> {
    let config = settings::load(&args.config, std::env::vars(), cloud_bridge::Config::validate)?;
    let stop = stop_signal()?;
    let bridge = Bridge::start(config).await?;
    if args.json {
        bridge.ready().await;
        say(&Announcement { cloud: Some(cloud_side(&bridge)), ..Announcement::default() })?;
    }
    let outcome = until_stopped(stop, bridge.failed(), "cloud").await;
    bridge.stop(GRACE).await;
    outcome
}

/// A service manager starts again what fails; what is asked to stop does so with success.
async fn until_stopped(
    stop: impl Future<Output = ()>,
    failed: impl Future<Output = ()>,
    broker: &str,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stop => Ok(()),
        () = failed => anyhow::bail!("the {broker}'s MQTT broker failed again and again; giving up"),
    }
}

fn say(announcement: &Announcement) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", announcement.json_line()?)?;
    Ok(out.flush()?)
}

pub(crate) fn gateway_side(gateway: &Gateway) -> (GatewaySide, Login) {
    let side = GatewaySide {
        id: gateway.id().to_string(),
        http: gateway.http_addr().to_string(),
        mqtt: gateway.mqtt_addr(),
        api_key: gateway.api_key().to_owned(),
        simulator_dir: gateway.simulator_dir().map(Into::into),
    };
    let (user, password) = gateway.platform_login();
    (side, Login { mqtt_user: user.to_owned(), mqtt_password: password.to_owned() })
}

pub(crate) fn cloud_side(bridge: &Bridge) -> CloudSide {
    let (user, password) = bridge.platform_login();
    CloudSide {
        http: bridge.http_addr().to_string(),
        mqtt: bridge.mqtt_addr(),
        api_key: bridge.api_key().to_owned(),
        login: Login { mqtt_user: user.to_owned(), mqtt_password: password.to_owned() },
    }
}

/// An error with its causes, each said once: some errors' texts hold their cause already.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// A configuration file to start from.
pub(crate) fn sample(side: Side) -> &'static str {
    match side {
        Side::Gateway => gateway::config::SAMPLE,
        Side::Bridge => cloud_bridge::config::SAMPLE,
    }
}

/// Resolves on SIGINT or SIGTERM. A second one ends the process at once.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("can't watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't watch for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // Ends with the process.
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            eprintln!("ridgeway: stopped at once, on a second signal");
            std::process::exit(1);
        });
    })
}

/// A runtime for a machine with few cores; work that blocks has its own threads.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the async runtime")
}

pub(crate) fn log_to_stderr(default_level: &str) {
    // The broker's and the client's own lines are about single connections and say neither who nor
    // why: the guard and the drivers around them do.
    let quiet = format!("rumqttc=off,{}", broker_config::LOG_DIRECTIVE);
    let wanted = std::env::var("RIDGEWAY_LOG").unwrap_or_else(|_| default_level.to_owned());
    let filter = EnvFilter::try_new(format!("{quiet},{wanted}")).unwrap_or_else(|error| {
        eprintln!(
            "ridgeway: RIDGEWAY_LOG={wanted:?} is not understood ({error}); using {default_level}"
        );
        EnvFilter::new(format!("{quiet},{default_level}"))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
