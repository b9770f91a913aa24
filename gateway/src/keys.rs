//! Secrets in files of mode 0600, and what is sealed with them.
//!
//! | file | holds | used for |
//! |---|---|---|
//! | master key | 32 random bytes, base64url, made on first start | templates at rest; marks of scanned templates |
//! | link secret | 32 random bytes, base64url, shared with the bridge | the password on the cloud's broker; what only the bridge may read |
//!
//! A file that others may read is refused, with the command that mends it.
//!
//! # Sealed bytes
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | key id: the first bytes of SHA-256 of the key |
//! | 4 | 12 | nonce, random |
//! | 16 | … | AES-256-GCM ciphertext and 16 bytes of tag |
//!
//! The associated data names the table and the record: a sealed value opens in its own place only.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{aead, digest, hkdf, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use broker_config::Secret;

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 12;

/// Why a key can't be had, or sealed bytes don't open.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeyError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others (mode {mode:o}): run chmod 600 {path}")]
    Mode { path: String, mode: u32 },
    #[error("{} does not hold 32 bytes as base64url text", path.display())]
    Content { path: PathBuf },
    #[error("the system gives no random numbers")]
    Random,
    #[error("sealed with another key")]
    OtherKey,
    #[error("sealed bytes are damaged, or moved from where they belong")]
    Damaged,
}

/// The gateway's own key.
pub struct MasterKey {
    seal: SealKey,
    marks: [u8; KEY_BYTES],
}

impl MasterKey {
    /// The key in the file at `path`; made where there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let root = load_or_create(path)?;
        Ok(Self {
            seal: SealKey::new(&derive(&root, "ridgeway master seal v1"), &root),
            marks: derive(&root, "ridgeway scan marks v1"),
        })
    }

    /// Seals `plain` for one place; `place` names table and record.
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.seal.seal_for(place, plain)
    }

    /// Opens what was sealed for the same place.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.seal.open_for(place, sealed)
    }

    /// The key of the marks in templates that a scan gave out.
    pub fn scan_mark_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.marks)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.marks.fill(0);
    }
}

/// What the gateway and its bridge share.
pub struct LinkSecret([u8; KEY_BYTES]);

impl LinkSecret {
    /// The secret in the file at `path`, which must be there: the bridge needs the same.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        load(path).map(Self)
    }

    /// The same, made where there is none: for the side that is set up first.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        load_or_create(path).map(Self)
    }

    /// The gateway's password on the cloud's broker.
    pub fn mqtt_password(&self) -> Secret {
        Secret::from(hex::encode(&derive(&self.0, "ridgeway mqtt password v1")[..16]))
    }

    /// The key for what only the two of them may read.
    pub fn seal_key(&self) -> SealKey {
        let key = derive(&self.0, "ridgeway link seal v1");
        SealKey::new(&key, &key)
    }
}

impl fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkSecret(…)")
    }
}

impl Drop for LinkSecret {
    fn drop(&mut self) {
        self.0.fill(0);
    }
}

/// A key that seals.
pub struct SealKey {
    key: aead::LessSafeKey,
    id: [u8; KEY_ID_BYTES],
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    fn new(key: &[u8; KEY_BYTES], named_by: &[u8; KEY_BYTES]) -> Self {
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest::digest(&digest::SHA256, named_by).as_ref()[..KEY_ID_BYTES]);
        // The only failure is a key of another length.
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key).expect("32 bytes");
        Self { key: aead::LessSafeKey::new(key), id }
    }

    /// Seals `plain` for the record `id` of `table`.
    pub fn seal(&self, table: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.seal_for(&place(table, id), plain)
    }

    /// Opens what was sealed for the same record of the same table.
    pub fn open(&self, table: &str, id: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.open_for(&place(table, id), sealed)
    }

    fn seal_for(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| KeyError::Random)?;
        let mut sealed = Vec::with_capacity(KEY_ID_BYTES + NONCE_BYTES + plain.len() + 16);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        let mut body = plain.to_vec();
        let (nonce, place) = (aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(place));
        let done = self.key.seal_in_place_append_tag(nonce, place, &mut body);
        done.map_err(|_| KeyError::Damaged)?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    fn open_for(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (id, rest) = sealed.split_at_checked(KEY_ID_BYTES).ok_or(KeyError::Damaged)?;
        let (nonce, body) = rest.split_at_checked(NONCE_BYTES).ok_or(KeyError::Damaged)?;
        if id != self.id {
            return Err(KeyError::OtherKey);
        }
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Damaged)?;
        let mut body = body.to_vec();
        let opened = self.key.open_in_place(nonce, aead::Aad::from(place), &mut body);
        let length = opened.map_err(|_| KeyError::Damaged)?.len();
        body.truncate(length);
        Ok(body)
    }
}

fn place(table: &str, id: &str) -> Vec<u8> {
    [table.as_bytes(), b"\0", id.as_bytes()].concat()
}

fn derive(secret: &[u8; KEY_BYTES], purpose: &str) -> [u8; KEY_BYTES] {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            KEY_BYTES
        }
    }
    let mut out = [0; KEY_BYTES];
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
    // The only failure is an output of more than 255 hashes.
    key.expand(&[purpose.as_bytes()], Length)
        .and_then(|derived| derived.fill(&mut out))
        .expect("HKDF-SHA256 gives 32 bytes");
    out
}

fn load(path: &Path) -> Result<[u8; KEY_BYTES], KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.display().to_string(), mode });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).ok();
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| KeyError::Content { path: path.to_owned() })
}

fn load_or_create(path: &Path) -> Result<[u8; KEY_BYTES], KeyError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; KEY_BYTES];
            getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
            write_new(path, &URL_SAFE_NO_PAD.encode(bytes))
                .map_err(|source| KeyError::File { path: path.to_owned(), source })?;
        }
        Ok(_) | Err(_) => {}
    }
    load(path)
}

/// Durable before it is used, complete or not at all, and never over another one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".new-{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let (key, other) = (LinkSecret([1; 32]).seal_key(), LinkSecret([2; 32]).seal_key());
        let sealed = key.seal("templates", "u-1", b"secret").unwrap();
        assert_eq!(key.open("templates", "u-1", &sealed).unwrap(), b"secret");
        let fails = |result: Result<Vec<u8>, KeyError>| result.unwrap_err().to_string();
        assert!(fails(key.open("templates", "u-2", &sealed)).contains("moved"));
        assert!(fails(key.open("commands", "u-1", &sealed)).contains("moved"));
        assert!(fails(other.open("templates", "u-1", &sealed)).contains("another key"));
        for cut in 0..sealed.len() {
            assert!(key.open("templates", "u-1", &sealed[..cut]).is_err());
            let mut flipped = sealed.clone();
            flipped[cut] ^= 1;
            assert!(key.open("templates", "u-1", &flipped).is_err());
        }
        assert_ne!(key.seal("templates", "u-1", b"secret").unwrap(), sealed, "a fresh nonce");
    }

    #[test]
    fn keys_are_made_once_and_told_to_nobody() {
        let dir = folder();
        let path = dir.path().join("sub/master.key");
        let key = MasterKey::load_or_create(&path).unwrap();
        let sealed = key.seal(b"t", b"x").unwrap();
        let again = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(again.open(b"t", &sealed).unwrap(), b"x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{key:?}"), "MasterKey(…)");
        let mark = hmac::sign(&key.scan_mark_key(), b"m");
        assert!(hmac::verify(&again.scan_mark_key(), b"m", mark.as_ref()).is_ok());
    }

    /// The bridge derives the same: HKDF-SHA256 with an empty salt.
    #[test]
    fn the_password_of_a_known_secret() {
        assert_eq!(
            LinkSecret([7; 32]).mqtt_password().expose(),
            "4406cee684654a05b7df2b85a730061f"
        );
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_way_out() {
        let dir = folder();
        let path = dir.path().join("master.key");
        MasterKey::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = MasterKey::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short").unwrap();
        assert!(matches!(LinkSecret::load(&path), Err(KeyError::Content { .. })));
        let missing = LinkSecret::load(&dir.path().join("missing"));
        assert!(matches!(missing, Err(KeyError::File { .. })));
    }
}
