//! Passwords as other brokers keep them.

use std::{io, num::NonZeroU32};

use aws_lc_rs::{digest, pbkdf2};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Rounds of PBKDF2. A broker checks a password once a connection; these cost it some ten milliseconds.
pub(super) const ROUNDS: NonZeroU32 = NonZeroU32::new(20_000).expect("not zero");
/// bcrypt's logarithm of rounds: some fifty milliseconds a connection.
const BCRYPT_COST: u32 = 10;
/// bcrypt reads no more.
pub(super) const BCRYPT_BYTES: usize = 72;

/// Mosquitto: `$7$rounds$salt$hash`, PBKDF2 with SHA-512, as `mosquitto_passwd` writes it.
pub(super) fn mosquitto(password: &str) -> io::Result<String> {
    let salt = salt::<12>()?;
    let key = pbkdf2_sha512(password, &salt);
    Ok(format!("$7${ROUNDS}${}${}", STANDARD.encode(salt), STANDARD.encode(key)))
}

/// EMQX: PBKDF2 with SHA-512 in hex, and the salt, whose text is what is hashed.
pub(super) fn emqx(password: &str) -> io::Result<(String, String)> {
    let salt = hex(&salt::<16>()?);
    Ok((hex(&pbkdf2_sha512(password, salt.as_bytes())), salt))
}

/// NATS: bcrypt.
pub(super) fn nats(password: &str) -> io::Result<String> {
    let parts = bcrypt::hash_with_salt(password, BCRYPT_COST, salt()?).map_err(io::Error::other)?;
    // Go reads `2a`, which is the same for passwords up to 72 bytes.
    Ok(parts.format_for_version(bcrypt::Version::TwoA))
}

/// RabbitMQ: base64 of a salt and the SHA-256 of salt and password.
pub(super) fn rabbitmq(password: &str) -> io::Result<String> {
    let mut bytes = salt::<4>()?.to_vec();
    let hash = digest::digest(&digest::SHA256, &[&bytes, password.as_bytes()].concat());
    bytes.extend_from_slice(hash.as_ref());
    Ok(STANDARD.encode(bytes))
}

fn pbkdf2_sha512(password: &str, salt: &[u8]) -> [u8; digest::SHA512_OUTPUT_LEN] {
    let mut key = [0; digest::SHA512_OUTPUT_LEN];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ROUNDS, salt, password.as_bytes(), &mut key);
    key
}

fn salt<const N: usize>() -> io::Result<[u8; N]> {
    let mut salt = [0; N];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    Ok(salt)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
