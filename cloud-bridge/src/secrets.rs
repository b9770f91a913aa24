//! Secrets in files of mode 0600, and what is sealed with them.
//!
//! | file | holds | who reads it |
//! |---|---|---|
//! | `master.key` | 32 bytes, base64url | this bridge: seals templates at rest |
//! | a gateway's `secret_file` | 32 bytes, base64url: the link secret | this bridge and that gateway |
//! | `api.key` | an API key, `ak_live_` and 32 letters and digits | whoever calls the API |
//! | a user's `password_file` | a password for the broker | whoever subscribes |
//!
//! Each is made where it is missing; one that others may read is refused, with the command that
//! mends it.
//!
//! # Sealed bytes
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | key id: the first bytes of SHA-256 of the key |
//! | 4 | 12 | nonce, random |
//! | 16 | … | AES-256-GCM ciphertext and 16 bytes of tag |
//!
//! The associated data names the table and the record, so that a sealed value can't be moved to
//! another place.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{aead, digest, hkdf};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Why a secret's file can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SecretError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others (mode {mode:o}); mend it with: chmod 600 {path}")]
    Mode { path: PathBuf, mode: u32 },
    #[error("{path} does not hold {expected}")]
    Content { path: PathBuf, expected: &'static str },
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why sealed bytes don't open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SealError {
    #[error("sealed with another key")]
    OtherKey,
    #[error("damaged, or moved from where it belongs")]
    Damaged,
}

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;

/// A key that seals.
pub struct SealingKey {
    key: aead::LessSafeKey,
    id: [u8; KEY_ID_BYTES],
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        // The only failure is a key of another length.
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, bytes)
            .expect("AES-256 takes a key of 32 bytes");
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest::digest(&digest::SHA256, bytes).as_ref()[..KEY_ID_BYTES]);
        Self { key: aead::LessSafeKey::new(key), id }
    }

    /// The key in `path`, made where it is missing.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        Ok(Self::new(&load_or_create_key(path)?))
    }

    /// Seals `plain` for the record `id` of `table`.
    pub fn seal(&self, table: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_BYTES] = random().map_err(|_| SealError::Damaged)?;
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(aad(table, id)),
                &mut body,
            )
            .map_err(|_| SealError::Damaged)?;
        let mut sealed = Vec::with_capacity(KEY_ID_BYTES + NONCE_BYTES + body.len());
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) made for the same record of the same table.
    pub fn open(&self, table: &str, id: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (key_id, rest) = sealed.split_at_checked(KEY_ID_BYTES).ok_or(SealError::Damaged)?;
        let (nonce, body) = rest.split_at_checked(NONCE_BYTES).ok_or(SealError::Damaged)?;
        if key_id != self.id {
            return Err(SealError::OtherKey);
        }
        let nonce =
            aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let mut body = body.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, aead::Aad::from(aad(table, id)), &mut body)
            .map_err(|_| SealError::Damaged)?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

fn aad(table: &str, id: &str) -> Vec<u8> {
    [table.as_bytes(), b"\0", id.as_bytes()].concat()
}

/// What a gateway and its bridge share.
pub struct LinkSecret([u8; KEY_BYTES]);

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret(…)")
    }
}

impl LinkSecret {
    /// The secret in `path`, made where it is missing.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        Ok(Self(load_or_create_key(path)?))
    }

    /// The gateway's password on the cloud's broker.
    pub fn mqtt_password(&self) -> String {
        let mut text = hex::encode(self.derive("ridgeway mqtt password v1"));
        text.truncate(32);
        text
    }

    /// The key for what only the two of them may read.
    pub fn seal_key(&self) -> SealingKey {
        SealingKey::new(&self.derive("ridgeway link seal v1"))
    }

    fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                KEY_BYTES
            }
        }
        let mut out = [0; KEY_BYTES];
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.0);
        // The only failure is an output of more than 255 hashes.
        key.expand(&[purpose.as_bytes()], Length)
            .and_then(|okm| okm.fill(&mut out))
            .expect("HKDF-SHA256 gives 32 bytes");
        out
    }
}

/// The text in `path` without the space around it; where the file is missing, `make` fills it.
pub(crate) fn load_or_create_text(
    path: &Path,
    make: impl FnOnce() -> Result<String, SecretError>,
) -> Result<String, SecretError> {
    let text = match read_private(path)? {
        Some(text) => text,
        None => {
            let text = make()?;
            create_private(path, &text)?;
            text
        }
    };
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(SecretError::Content { path: path.into(), expected: "anything" });
    }
    Ok(text)
}

/// The password in a file that somebody else looks after; one that others may read is refused.
pub(crate) fn read_password(path: &Path) -> Result<String, SecretError> {
    load_or_create_text(path, || {
        Err(SecretError::Io { path: path.into(), source: std::io::ErrorKind::NotFound.into() })
    })
}

/// A new API key.
pub(crate) fn new_api_key() -> Result<String, SecretError> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut key = String::from("ak_live_");
    while key.len() < 40 {
        let [byte] = random::<1>()?;
        // 248 is the last multiple of 62: beyond it the first letters would be likelier.
        if byte < 248 {
            key.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
        }
    }
    Ok(key)
}

/// A new password.
pub(crate) fn new_password() -> Result<String, SecretError> {
    Ok(hex::encode(random::<16>()?))
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    Ok(bytes)
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn load_or_create_key(path: &Path) -> Result<[u8; KEY_BYTES], SecretError> {
    let text = load_or_create_text(path, || Ok(URL_SAFE_NO_PAD.encode(random::<KEY_BYTES>()?)))?;
    URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(SecretError::Content { path: path.into(), expected: "32 bytes as base64url text" })
}

/// What is in `path`, if it exists; refused where others may read it.
fn read_private(path: &Path) -> Result<Option<String>, SecretError> {
    let failed = |source| SecretError::Io { path: path.into(), source };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Mode { path: path.into(), mode });
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}

/// Writes a new file that only its owner may read, durable before it is used.
fn create_private(path: &Path, text: &str) -> Result<(), SecretError> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(|source| SecretError::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_in_its_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = SealingKey::load_or_create(&dir.path().join("a.key")).unwrap();
        let other = SealingKey::load_or_create(&dir.path().join("b.key")).unwrap();
        let sealed = key.seal("templates", "u-1", b"secret").unwrap();
        assert_eq!(key.open("templates", "u-1", &sealed).unwrap(), b"secret");
        assert_eq!(key.open("templates", "u-2", &sealed), Err(SealError::Damaged));
        assert_eq!(key.open("commands", "u-1", &sealed), Err(SealError::Damaged));
        assert_eq!(other.open("templates", "u-1", &sealed), Err(SealError::OtherKey));
        assert_eq!(key.open("templates", "u-1", &sealed[..10]), Err(SealError::Damaged));
        let mut damaged = sealed;
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(key.open("templates", "u-1", &damaged), Err(SealError::Damaged));
    }

    #[test]
    fn a_key_is_the_same_on_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/link.key");
        let password = LinkSecret::load_or_create(&path).unwrap().mqtt_password();
        assert_eq!(password.len(), 32);
        assert_eq!(LinkSecret::load_or_create(&path).unwrap().mqtt_password(), password);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// Both ends derive the same from the same file: HKDF-SHA256 with an empty salt.
    #[test]
    fn the_password_of_a_known_secret() {
        assert_eq!(LinkSecret([7; 32]).mqtt_password(), "4406cee684654a05b7df2b85a730061f");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        SealingKey::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = SealingKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn an_api_key_looks_as_documented() {
        let key = new_api_key().unwrap();
        assert!(key.len() == 40 && key.starts_with("ak_live_"));
        assert_ne!(key, new_api_key().unwrap());
    }
}
