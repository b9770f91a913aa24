//! API keys: who calls, and what they may do.
//!
//! A key is known by the SHA-256 of its text. The first one lives in a file of its own, made on
//! first start; others come with the configuration. Comparison takes the same time for every key.

use std::{io, path::Path};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, StatusCode, header};
use subtle::{Choice, ConstantTimeEq as _};
use topics::ErrorCode;

use super::{FIRST_KEY, error::ApiError};
use crate::{
    config::{ApiKeySection, Permission},
    journal::Owner,
};

const KEY_PREFIX: &str = "ak_live_";
const KEY_CHARS: usize = 32;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Who calls, once that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    key: String,
    permissions: Vec<Permission>,
}

impl Caller {
    /// The key's name, by which its uses are counted.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Who owns what this caller starts.
    pub(crate) fn owner(&self) -> Owner {
        Owner::ApiKey(self.key.clone())
    }

    /// Whether it may do what needs `permission`. Who may enrol, verify or identify may scan.
    pub(crate) fn may(&self, permission: Permission) -> bool {
        let has = |wanted: Permission| self.permissions.contains(&wanted);
        let implied = permission == Permission::FingerprintScan
            && (has(Permission::FingerprintEnroll)
                || has(Permission::FingerprintVerify)
                || has(Permission::FingerprintIdentify));
        has(permission) || has(Permission::All) || implied
    }

    /// 403 unless it may.
    pub(crate) fn need(&self, permission: Permission) -> Result<(), ApiError> {
        if self.may(permission) {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::Unauthorized, "Insufficient permissions")
            .with("required", permission.as_str())
            .with("provided", "api_key"))
    }

    /// The documented names of what it may do.
    pub(crate) fn permission_names(&self) -> Vec<&'static str> {
        self.permissions.iter().map(|permission| permission.as_str()).collect()
    }
}

/// What a request shows to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential<'a> {
    /// `X-API-Key`, or `apiKey` of a socket.
    ApiKey(&'a str),
    /// `Authorization: Bearer`, or `token` of a socket.
    Bearer(&'a str),
}

impl<'a> Credential<'a> {
    /// The credential in these headers.
    pub(crate) fn from_headers(headers: &'a HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(key) = text("x-api-key") {
            return Some(Credential::ApiKey(key.trim()));
        }
        let bearer = text(header::AUTHORIZATION.as_str())?;
        let (scheme, token) = bearer.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Credential::Bearer(token.trim()))
    }
}

struct Key {
    sha256: [u8; 32],
    caller: Caller,
}

/// The keys that open the service.
pub struct Keys(Vec<Key>);

impl Keys {
    /// The first key and the configured ones.
    pub fn new(first: &str, others: &[ApiKeySection]) -> Self {
        let mut keys = vec![key(FIRST_KEY, hash(first), Permission::ORDINARY.to_vec())];
        for section in others {
            let sha256 = match (&section.key, &section.sha256) {
                (Some(text), _) => Some(hash(text)),
                (None, Some(hex)) => hex::decode(hex).ok().and_then(|bytes| bytes.try_into().ok()),
                (None, None) => None,
            };
            // The configuration was checked: neither is missing or malformed.
            let Some(sha256) = sha256 else { continue };
            let permissions =
                section.permissions.clone().unwrap_or_else(|| Permission::ORDINARY.to_vec());
            keys.push(key(&section.name, sha256, permissions));
        }
        Self(keys)
    }

    /// Who shows this credential.
    pub(crate) fn caller(&self, shown: Option<Credential<'_>>) -> Result<Caller, ApiError> {
        match shown {
            None => Err(invalid_key("API key is missing (invalid API key)", "missing")),
            Some(Credential::ApiKey(text)) => self
                .find(text)
                .ok_or_else(|| invalid_key("API key is not known (invalid API key)", "unknown")),
            Some(Credential::Bearer(text)) => self.find(text).ok_or_else(|| {
                ApiError::new(ErrorCode::Unauthorized, "The token is not known (unauthorized)")
                    .with_status(StatusCode::UNAUTHORIZED)
            }),
        }
    }

    fn find(&self, text: &str) -> Option<Caller> {
        let shown = hash(text);
        let mut found = None;
        for key in &self.0 {
            let same: Choice = key.sha256.ct_eq(&shown);
            if same.into() {
                found = Some(&key.caller);
            }
        }
        found.cloned()
    }
}

fn key(name: &str, sha256: [u8; 32], permissions: Vec<Permission>) -> Key {
    Key { sha256, caller: Caller { key: name.to_owned(), permissions } }
}

fn hash(text: &str) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    sha256
}

fn invalid_key(message: &str, reason: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidApiKey, message)
        .with("header", "X-API-Key")
        .with("reason", reason)
}

/// The first key: read from its file, or made with it.
pub fn first_key(path: &Path) -> io::Result<String> {
    crate::files::text_or_made(path, || Ok(format!("{KEY_PREFIX}{}", random_text(KEY_CHARS)?)))
}

/// Random letters and digits.
pub(crate) fn random_text(chars: usize) -> io::Result<String> {
    let mut text = String::with_capacity(chars);
    while text.len() < chars {
        let mut bytes = [0u8; 64];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        // 248 is the largest multiple of 62 in a byte: past it, letters would not be equally likely.
        let letters = bytes.iter().filter(|byte| **byte < 248);
        let letters = letters.map(|byte| char::from(ALPHABET[usize::from(*byte) % 62]));
        text.extend(letters.take(chars - text.len()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn keys() -> Keys {
        let other = ApiKeySection {
            name: "reception".to_owned(),
            key: None,
            sha256: Some(hex::encode(hash("hand-written"))),
            permissions: Some(vec![Permission::FingerprintIdentify]),
        };
        Keys::new("ak_live_first", &[other])
    }

    #[test]
    fn a_key_opens_and_another_does_not() {
        let keys = keys();
        let caller = keys.caller(Some(Credential::ApiKey("ak_live_first"))).unwrap();
        assert_eq!(caller.key(), FIRST_KEY);
        assert!(keys.caller(Some(Credential::Bearer("hand-written"))).is_ok());
        for (shown, code, reason) in [
            (None, 4001, Some("missing")),
            (Some(Credential::ApiKey("")), 4001, Some("unknown")),
            (Some(Credential::ApiKey("ak_live_firs")), 4001, Some("unknown")),
            (Some(Credential::Bearer("x")), 4003, None),
        ] {
            let error = keys.caller(shown).unwrap_err();
            assert_eq!(error.clone().render("r").status(), 401);
            let body = error.into_body();
            assert_eq!(body.code, code);
            assert_eq!(body.details.get("reason").and_then(|value| value.as_str()), reason);
        }
    }

    #[test]
    fn permissions_are_enforced_and_scanning_is_implied() {
        let caller = keys().caller(Some(Credential::ApiKey("hand-written"))).unwrap();
        assert!(caller.need(Permission::FingerprintIdentify).is_ok());
        assert!(caller.need(Permission::FingerprintScan).is_ok());
        let error = caller.need(Permission::FingerprintEnroll).unwrap_err();
        assert_eq!(error.render("r").status(), 403);
    }

    #[test]
    fn credentials_in_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(Credential::from_headers(&headers), None);
        headers.insert("authorization", HeaderValue::from_static("bearer abc"));
        assert_eq!(Credential::from_headers(&headers), Some(Credential::Bearer("abc")));
        headers.insert("x-api-key", HeaderValue::from_static("k"));
        assert_eq!(Credential::from_headers(&headers), Some(Credential::ApiKey("k")));
    }

    #[test]
    fn a_first_key_is_made_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.key");
        let made = first_key(&path).unwrap();
        assert_eq!((made.len(), &made[..8]), (40, "ak_live_"));
        assert_eq!(first_key(&path).unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
