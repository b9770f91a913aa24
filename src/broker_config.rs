//! `ridgeway broker-config`: the configuration of another broker, equal to the embedded one's, and
//! what is to be done with it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use broker_config::{
    BrokerConfig,
    external::{External, Kind},
};

use crate::{
    cli::{BrokerConfigArgs, BrokerKind, Side, UsageError},
    settings,
};

/// One side's broker, and how that side logs in.
struct Wanted {
    config: BrokerConfig,
    user: String,
    password_file: PathBuf,
    service: &'static str,
}

pub(crate) fn run(args: BrokerConfigArgs) -> anyhow::Result<()> {
    let out = std::path::absolute(&args.out)
        .with_context(|| format!("can't use {}", args.out.display()))?;
    let at = args.at.as_deref().unwrap_or(&out);
    let side = match args.side {
        Some(side) => side,
        None => side_of(&args.config)?,
    };
    let wanted = wanted(side, &args.config)?;
    let made = External::new(kind(args.broker), &wanted.config, at)?;
    made.write(&out)?;
    print!("{}", told(&made, &wanted, &args.config, &out));
    Ok(())
}

fn kind(broker: BrokerKind) -> Kind {
    match broker {
        BrokerKind::Mosquitto => Kind::Mosquitto,
        BrokerKind::Emqx => Kind::Emqx,
        BrokerKind::Nats => Kind::Nats,
        BrokerKind::Rabbitmq => Kind::RabbitMq,
    }
}

/// `[gateway]` stands only in a gateway's file, `[bridge]` and `[[gateways]]` only in a bridge's.
fn side_of(path: &Path) -> anyhow::Result<Side> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| settings::SettingsError::Read { path: path.to_owned(), source })?;
    // What is wrong with a file that can't be read this way is told with its line, further on.
    let table = text.parse::<toml::Table>().unwrap_or_default();
    let has = |key| table.contains_key(key);
    match (has("gateway"), has("bridge") || has("gateways")) {
        (true, false) => Ok(Side::Gateway),
        (false, true) => Ok(Side::Bridge),
        _ => {
            let path = path.display();
            let what = format!("is {path} a gateway's or a bridge's? Say --side gateway or bridge");
            Err(UsageError(what).into())
        }
    }
}

fn wanted(side: Side, path: &Path) -> anyhow::Result<Wanted> {
    let environment = std::env::vars();
    Ok(match side {
        Side::Gateway => {
            let config = settings::load(path, environment, gateway::Config::validate)?;
            let broker = gateway::ExternalBroker::new(&config)?;
            Wanted {
                config: broker.config,
                user: broker.user,
                password_file: broker.password_file,
                service: "gateway",
            }
        }
        Side::Bridge => {
            let config = settings::load(path, environment, cloud_bridge::Config::validate)?;
            let broker = cloud_bridge::ExternalBroker::new(&config)?;
            Wanted {
                config: broker.config,
                user: broker.user,
                password_file: broker.password_file,
                service: "bridge",
            }
        }
    })
}

/// The files, what is different, and the way to the other broker.
fn told(made: &External, wanted: &Wanted, config: &Path, out: &Path) -> String {
    let names: Vec<_> = made.files.iter().map(|file| file.name).collect();
    let mut text = format!("Wrote {} to {} (mode 0600).\n", names.join(", "), out.display());
    if !made.notes.is_empty() {
        text += "\nNot as the embedded broker has it:\n";
        made.notes.iter().for_each(|note| text += &format!("  - {note}\n"));
    }
    text += &format!(
        "\nNext:\n  1. Stop the {}. Both brokers would want the same address.\n  2. Start the broker:\n",
        wanted.service
    );
    made.next.iter().for_each(|line| text += &format!("       {line}\n"));
    text += &format!(
        "  3. In {}, and then start the {}:\n{}",
        config.display(),
        wanted.service,
        section(wanted)
    );
    text
}

/// What belongs into `[mqtt]`.
fn section(wanted: &Wanted) -> String {
    // Plain on loopback needs no authority; else the first.
    let listeners = &wanted.config.listeners;
    let near = listeners.iter().find(|l| !l.tls && l.address.ip().is_loopback());
    let Some(listener) = near.or(listeners.first()) else { return String::new() };
    let scheme = if listener.tls { "mqtts" } else { "mqtt" };
    let host = match listener.address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv6() => "[::1]".to_owned(),
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        ip if ip.is_ipv6() => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let mut text = format!(
        "       [mqtt]\n       mode = \"external\"\n       url = \"{scheme}://{host}:{}\"\n       \
         username = {:?}\n       password_file = {:?}\n",
        listener.address.port(),
        wanted.user,
        absolute(&wanted.password_file),
    );
    if listener.tls {
        text += "       ca_file = \"the PEM file of the authority of the broker's certificate\"\n";
    }
    text
}

/// The service may be started elsewhere than this command.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
