//! `ridgeway secret`: makes the one secret that a gateway and its bridge share. The gateway's
//! password at the cloud's broker and the key that seals templates on their way are derived from it.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use anyhow::Context as _;
use base64::Engine as _;
use gateway::keys::LinkSecret;

use crate::cli::SecretArgs;

pub(crate) fn run(args: SecretArgs) -> anyhow::Result<()> {
    if args.show_mqtt_password {
        println!("{}", LinkSecret::load(&args.file)?.mqtt_password().expose());
        return Ok(());
    }
    create(&args.file)?;
    println!(
        "Wrote a new link secret to {0} (mode 0600).\n\
         Gateway: [uplink] secret_file = {0:?}\n\
         Bridge:  [[gateways]] secret_file = a copy of the same file",
        args.file.display().to_string()
    );
    Ok(())
}

/// Writes a new secret to `path`, which must not exist: a new one in the place of an old one would
/// cut off whoever has that.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    let mut secret = [0u8; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    write_private(path, format!("{text}\n").as_bytes(), true)
        .with_context(|| format!("can't write the secret to {}", path.display()))
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, bytes: &[u8], new: bool) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    if new {
        options.create_new(true)
    } else {
        options.create(true).truncate(true)
    };
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
