//! The command line.

mod template;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

pub(crate) use template::{
    EvaluateArgs, ExtractArgs, GenerateArgs, MatchArgs, OpenFormat, PairsOf, ShowArgs,
    TemplateAction, TemplateArgs,
};

/// An MQTT edge gateway for fingerprint readers, and the cloud bridge it reports to.
#[derive(Debug, Parser)]
#[command(name = "ridgeway", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on this machine, with two simulated readers.
    Demo(DemoArgs),
    /// Run a site's gateway.
    Gateway(ServiceArgs),
    /// Run the cloud bridge.
    Bridge(ServiceArgs),
    /// Put synthetic fingers on simulated readers.
    Finger(FingerArgs),
    /// Follow a gateway's events.
    Watch(WatchArgs),
    /// Users and client certificates of the embedded MQTT broker.
    Broker(BrokerArgs),
    /// Look into a gateway's journal, whether or not it runs.
    Journal(JournalArgs),
    /// Fingerprint templates: extract, compare, look at, evaluate, and prints to try it with.
    Template(TemplateArgs),
    /// Make a link secret for a gateway and its bridge, or show what is derived from one.
    Secret(SecretArgs),
    /// Print a sample configuration that explains every key with its default and unit.
    Sample(SampleArgs),
    /// Write the configuration of another MQTT broker that is to take the embedded one's place: users,
    /// rights, TLS and limits equal to it.
    BrokerConfig(BrokerConfigArgs),
    /// Measure journal, uplink and broker on this machine, beside what they are built on.
    Bench(BenchArgs),
    /// The child process in which the vendor's library runs.
    #[command(hide = true)]
    ReaderHost(ReaderHostArgs),
}

impl Command {
    /// What is logged unless RIDGEWAY_LOG says otherwise: a service tells what it does, a tool only
    /// what is wrong.
    pub(crate) fn default_log_level(&self) -> &'static str {
        match self {
            Command::Gateway(_) | Command::Bridge(_) => "info",
            Command::Demo(_)
            | Command::Finger(_)
            | Command::Watch(_)
            | Command::Broker(_)
            | Command::Journal(_)
            | Command::Template(_)
            | Command::Secret(_)
            | Command::Sample(_)
            | Command::BrokerConfig(_)
            | Command::Bench(_)
            | Command::ReaderHost(_) => "warn",
        }
    }
}

/// The command line is well-formed, but what it asks for can't be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where journal, store, keys and the simulated readers' folder are kept.
    #[arg(long, value_name = "DIR", default_value = "ridgeway-data")]
    pub(crate) data_dir: PathBuf,
    /// Address of the gateway's REST and WebSocket API (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) gateway_http: SocketAddr,
    /// Address of the site's MQTT broker (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    pub(crate) edge_mqtt: SocketAddr,
    /// Address of the bridge's API and page (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub(crate) cloud_http: SocketAddr,
    /// Address of the cloud's MQTT broker (port 0: any free one).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1884")]
    pub(crate) cloud_mqtt: SocketAddr,
    /// Print one JSON line with addresses and credentials, then each event as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The configuration file (TOML). RIDGEWAY__SECTION__KEY in the environment overrides a key.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Print one JSON line with addresses and credentials once it is ready.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FingerArgs {
    #[command(subcommand)]
    pub(crate) action: FingerAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FingerAction {
    /// List the simulated readers and what lies on them.
    List(SimulatorArgs),
    /// Press a finger on a reader and lift it again.
    ///
    /// Any name is a finger: the same name is always the same finger, and each press a little
    /// different, as with a real one.
    Press(PressArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SimulatorArgs {
    /// The demo's data directory.
    #[arg(long, value_name = "DIR", default_value = "ridgeway-data")]
    pub(crate) data_dir: PathBuf,
    /// The simulated readers' folder, where it is not the demo's.
    #[arg(long, value_name = "DIR")]
    pub(crate) simulator_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PressArgs {
    /// Whose finger: `user-001/right-index`.
    pub(crate) finger: String,
    /// The reader: an id such as `device-001`, or a serial number.
    #[arg(long, value_name = "READER", default_value = "device-001")]
    pub(crate) reader: String,
    /// Which impression of the finger (default: another one each time).
    #[arg(long, value_name = "N")]
    pub(crate) impression: Option<u64>,
    /// How long it stays on the sensor: `800ms`, `1s`.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(crate) hold: Duration,
    /// How often to press, lifting in between (an enrolment takes three).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) times: u32,
    #[command(flatten)]
    pub(crate) simulator: SimulatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The data directory of the demo to follow.
    #[arg(long, value_name = "DIR", default_value = "ridgeway-data")]
    pub(crate) data_dir: PathBuf,
    /// Another broker: `host:port`.
    #[arg(long, value_name = "ADDR", requires = "user")]
    pub(crate) mqtt: Option<String>,
    /// The user there; the password is read from RIDGEWAY_MQTT_PASSWORD.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// The topics' root there.
    #[arg(long, value_name = "ROOT", default_value = "ridgeway/v1")]
    pub(crate) root: topics::Root,
    /// Print each event as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerArgs {
    #[command(subcommand)]
    pub(crate) action: BrokerAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BrokerAction {
    /// Who may connect, in the users file; a running broker takes changes within two seconds.
    User {
        #[command(subcommand)]
        action: UserAction,
    },
    /// Make a certificate with which a user signs in, from the broker's own authority.
    Certificate(CertificateArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserAction {
    /// Add a user, or replace the one of that name.
    ///
    /// Its password is made at random and shown once, unless --password-stdin gives one.
    Add(UserAddArgs),
    /// List the users.
    List {
        #[command(flatten)]
        place: Where,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a user; its connections end.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The configuration file of the gateway or the bridge whose broker it is.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// 1 to 64 of A-Z a-z 0-9 - _ . @
    pub(crate) name: String,
    /// What it may do.
    #[arg(long)]
    pub(crate) role: UserRole,
    /// Panels: the gateway that they see (on a gateway: itself).
    #[arg(long, value_name = "ID")]
    pub(crate) gateway: Option<topics::GatewayId>,
    /// Custom: a filter whose topics it may publish to; several times for several.
    #[arg(long, value_name = "FILTER")]
    pub(crate) publish: Vec<String>,
    /// Custom: a filter that it may subscribe; several times for several.
    #[arg(long, value_name = "FILTER")]
    pub(crate) subscribe: Vec<String>,
    /// Read the password from standard input, one line of 12 characters or more.
    #[arg(long, conflicts_with = "certificate_only")]
    pub(crate) password_stdin: bool,
    /// No password: only a client certificate lets it in.
    #[arg(long)]
    pub(crate) certificate_only: bool,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum UserRole {
    /// Sees all that is public, sends commands.
    Platform,
    /// Sees one gateway's state and readers.
    Panel,
    /// Sees states and events.
    Viewer,
    /// What --publish and --subscribe list.
    Custom,
}

#[derive(Debug, Args)]
pub(crate) struct CertificateArgs {
    /// The user whose certificate it is.
    pub(crate) name: String,
    /// Where NAME.pem, NAME.key and ca.pem are written.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    pub(crate) action: JournalAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JournalAction {
    /// What it holds, what the bridge has of it, how full it is, and whether it adds up.
    Status(JournalStatusArgs),
    /// Print the latest records as they were told, a JSON event a line.
    Tail(TailArgs),
    /// Read every record and check it, its place and the accounting. Exits with 1 on damage.
    Verify(JournalStatusArgs),
    /// Write all records that are held to a new file, a JSON event a line.
    Export(ExportArgs),
    /// Give the space that the file no longer needs back to the disk; the gateway must be stopped.
    Compact(JournalStatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JournalPlace {
    /// The gateway's configuration file, which names its data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The gateway's data directory, or the demo's.
    #[arg(long, value_name = "DIR", default_value = "ridgeway-data", conflicts_with = "config")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct JournalStatusArgs {
    #[command(flatten)]
    pub(crate) place: JournalPlace,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    pub(crate) place: JournalPlace,
    /// How many of the latest.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) lines: u32,
    /// Go on with those that come, until Ctrl-C or the gateway's end.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this lane: access, results, events or telemetry.
    #[arg(long, value_parser = lane)]
    pub(crate) lane: Option<topics::Lane>,
    /// JSON, which it is unless --text.
    #[arg(long)]
    pub(crate) json: bool,
    /// For reading: time, place, type, what.
    #[arg(long, conflicts_with = "json")]
    pub(crate) text: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file, which must not be there yet; `-`: standard output.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: JournalPlace,
    /// Print the summary as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    /// Where to write it (mode 0600). Give the same file to both sides.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print the gateway's password at the cloud's broker, for a broker that is not ours.
    #[arg(long)]
    pub(crate) show_mqtt_password: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SampleArgs {
    /// Which side.
    pub(crate) side: Side,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Side {
    Gateway,
    Bridge,
}

#[derive(Debug, Args)]
pub(crate) struct BrokerConfigArgs {
    /// Which broker.
    pub(crate) broker: BrokerKind,
    /// The configuration file of the gateway or the bridge that the broker is for.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Where to write the files (made with mode 0700, the files with 0600).
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Where the broker will find them, if they are moved there afterwards. Default: DIR of --out.
    #[arg(long, value_name = "DIR")]
    pub(crate) at: Option<PathBuf>,
    /// Whose configuration it is, where the file doesn't tell.
    #[arg(long)]
    pub(crate) side: Option<Side>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum BrokerKind {
    /// Eclipse Mosquitto 2.0.
    Mosquitto,
    /// EMQX 5.
    Emqx,
    /// nats-server 2.9 or newer.
    Nats,
    /// RabbitMQ 3.10 or newer.
    Rabbitmq,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure.
    pub(crate) what: BenchWhat,
    /// Where the files are made (and removed): on the disk to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// How often each is measured; the median is shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each is measured in a round, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) slice_ms: u64,
    /// Events in the uplink's backlog.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) events: u32,
    /// Events in the uplink's backlog while fresh ones come, and while a gateway is killed.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_900_000))]
    pub(crate) fresh_events: u32,
    /// Only what has this in its name: of the broker such as `QoS 1` or `latency`; of the uplink a part,
    /// `drain`, `fresh`, `wire`, `process` or `peer`.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Broker: only these, by the start of their name in lower case: `ridgeway,bare`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) targets: Vec<String>,
    /// Broker: through TLS as well.
    #[arg(long)]
    pub(crate) tls: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum BenchWhat {
    /// Durable appends, against raw redb.
    Journal,
    /// The way from a gateway's journal to a bridge's store, both on this machine.
    Uplink,
    /// The embedded broker, against a bare rumqttd and, when it is installed, Mosquitto.
    Broker,
    /// All of these, one after the other.
    All,
}

#[derive(Debug, Args)]
pub(crate) struct ReaderHostArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// `800ms`, `1.5s`, `2s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write 800ms or 1.5s, at most 60s");
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000.0),
    };
    let millis = number.parse::<f64>().map_err(|_| wrong())? * unit_ms;
    if !(1.0..=60_000.0).contains(&millis) {
        return Err(wrong());
    }
    Ok(Duration::from_millis(millis as u64))
}

fn lane(text: &str) -> Result<topics::Lane, String> {
    let found = topics::Lane::ALL.into_iter().find(|lane| lane.as_str() == text);
    found.ok_or_else(|| "must be access, results, events or telemetry".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(duration("800ms"), Ok(Duration::from_millis(800)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "5", "s", "-1s", "61s", "NaNs", "1m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
