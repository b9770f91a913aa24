//! `ridgeway broker`: users and client certificates of the embedded MQTT broker of a gateway or a
//! bridge, whether or not it runs. It takes changes within two seconds.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use broker_config::{
    tls::Authority,
    users::{Entry, RoleName, Rules, UsersFile, hash_password},
};

use crate::{
    cli::{BrokerAction, BrokerArgs, CertificateArgs, UserAction, UserAddArgs, UserRole, Where},
    secret::write_private,
    settings,
};

/// Shorter passwords are guessed.
const MIN_PASSWORD_CHARS: usize = 12;
/// Longer ones are somebody's mistake.
const MAX_PASSWORD_BYTES: u64 = 1_024;

pub(crate) fn run(args: BrokerArgs) -> anyhow::Result<()> {
    match args.action {
        BrokerAction::User { action } => match action {
            UserAction::Add(args) => add(args),
            UserAction::List { place, json } => list(&Places::of(&place)?.users, json),
            UserAction::Remove { name, place } => remove(&Places::of(&place)?.users, &name),
        },
        BrokerAction::Certificate(args) => certificate(args),
    }
}

/// Where a broker's users and certificates are.
struct Places {
    users: UsersFile,
    rules: Rules,
    tls_dir: PathBuf,
    /// Certificates are looked at by listeners.
    asks_certificates: bool,
}

impl Places {
    fn of(place: &Where) -> anyhow::Result<Self> {
        let path = &place.config;
        let environment = std::env::vars();
        if is_bridge(path)? {
            let config = settings::load(path, environment, cloud_bridge::Config::validate)?;
            Ok(Self {
                users: UsersFile::new(config.mqtt_users_file()),
                rules: config.mqtt_users_rules(),
                tls_dir: config.mqtt_tls_dir(),
                asks_certificates: asks(&config.mqtt.tls),
            })
        } else {
            let config = settings::load(path, environment, gateway::Config::validate)?;
            Ok(Self {
                users: UsersFile::new(config.mqtt_users_file()),
                rules: config.mqtt_users_rules(),
                tls_dir: config.mqtt_tls_dir(),
                asks_certificates: asks(&config.mqtt.tls),
            })
        }
    }
}

fn asks(tls: &broker_config::Tls) -> bool {
    tls.client_certificates != broker_config::ClientCertificates::Off
}

/// Whose configuration it is: a bridge's has sections that a gateway's has not.
fn is_bridge(path: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| settings::SettingsError::Read { path: path.to_owned(), source })?;
    let table = text.parse::<toml::Table>().unwrap_or_default();
    Ok(["bridge", "gateways", "store", "commands"].iter().any(|key| table.contains_key(*key)))
}

fn add(args: UserAddArgs) -> anyhow::Result<()> {
    let places = Places::of(&args.place)?;
    let (password, made) = match (args.certificate_only, args.password_stdin) {
        (true, _) => (None, false),
        (false, true) => (Some(given_password()?), false),
        (false, false) => (Some(random_password()?), true),
    };
    let hash = password.as_deref().map(hash_password).transpose().map_err(anyhow::Error::msg)?;
    let role = match args.role {
        UserRole::Platform => RoleName::Platform,
        UserRole::Panel => RoleName::Panel,
        UserRole::Viewer => RoleName::Viewer,
        UserRole::Custom => RoleName::Custom,
    };
    let entry = Entry {
        name: args.name.clone(),
        role,
        gateway: args.gateway,
        password: hash,
        publish: args.publish,
        subscribe: args.subscribe,
    };
    let replaced = places.users.put(entry, &places.rules)?;
    let done = if replaced { "Replaced" } else { "Added" };
    println!("{done} {} in {}.", args.name, places.users.path().display());
    if made && let Some(password) = password {
        println!("Its password, shown only now: {password}");
    }
    if args.certificate_only {
        println!("It needs a client certificate: ridgeway broker certificate {} …", args.name);
    }
    println!("A running broker knows within two seconds.");
    Ok(())
}

/// The line on standard input.
fn given_password() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD_BYTES + 1)
        .read_to_string(&mut text)
        .context("can't read a password from standard input")?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let fits = password.chars().count() >= MIN_PASSWORD_CHARS
        && text.len() as u64 <= MAX_PASSWORD_BYTES
        && !password.contains(char::is_control);
    if fits {
        return Ok(password.to_owned());
    }
    anyhow::bail!(crate::cli::UsageError(format!(
        "the password on standard input is not one line of {MIN_PASSWORD_CHARS} to \
         {MAX_PASSWORD_BYTES} characters"
    )))
}

fn random_password() -> anyhow::Result<String> {
    use base64::Engine as _;
    let mut bytes = [0u8; 18];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

fn list(file: &UsersFile, json: bool) -> anyhow::Result<()> {
    let mut entries = file.entries()?;
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    if json {
        let rows: Vec<_> = entries
            .iter()
            .map(|entry| {
                serde_json::json!({
                    "name": entry.name, "role": entry.role, "gateway": entry.gateway,
                    "password": entry.password.is_some(),
                    "publish": entry.publish, "subscribe": entry.subscribe,
                })
            })
            .collect();
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(());
    }
    if entries.is_empty() {
        println!("No users in {}.", file.path().display());
    }
    let mut out = std::io::stdout().lock();
    for entry in entries {
        let role = serde_json::to_value(entry.role)?;
        let proof = if entry.password.is_some() { "password" } else { "certificate only" };
        writeln!(out, "{:<24} {:<10} {proof}", entry.name, role.as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn remove(file: &UsersFile, name: &str) -> anyhow::Result<()> {
    if !file.remove(name)? {
        anyhow::bail!("there is no user {name:?} in {}", file.path().display());
    }
    println!("Removed {name} from {}.", file.path().display());
    println!("A running broker ends its connections within two seconds.");
    Ok(())
}

fn certificate(args: CertificateArgs) -> anyhow::Result<()> {
    let places = Places::of(&args.place)?;
    let authority = Authority::open(&places.tls_dir)?;
    let issued = authority.issue_client(&args.name)?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("can't make {}", args.out.display()))?;
    let file = |end: &str| args.out.join(format!("{}.{end}", args.name));
    for (path, text) in [
        (file("pem"), &issued.certificate),
        (file("key"), &issued.key),
        (args.out.join("ca.pem"), &issued.authority),
    ] {
        write_private(&path, text.as_bytes(), false)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    println!(
        "Wrote {0}, {1} (keep it secret) and ca.pem for {2}, valid for 825 days:\n  \
         mosquitto_sub --cafile {3} --cert {0} --key {1} -h HOST -p 8883 -t 'ridgeway/v1/GATEWAY-ID/status' -v",
        file("pem").display(),
        file("key").display(),
        args.name,
        args.out.join("ca.pem").display(),
    );
    let known = places.users.entries()?.iter().any(|entry| entry.name == args.name);
    if !known {
        println!(
            "Nobody of that name is in {}; unless it is in the configuration, add it:\n  \
             ridgeway broker user add {} --role panel --certificate-only --config {}",
            places.users.path().display(),
            args.name,
            args.place.config.display(),
        );
    }
    if !places.asks_certificates {
        println!(
            "The configuration doesn't ask for certificates: set [mqtt.tls] client_certificates to \
             \"optional\" or \"required\", and restart."
        );
    }
    Ok(())
}
