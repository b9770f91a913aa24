//! API keys. Only their SHA-256 stays in memory; all are compared, in constant time.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use subtle::ConstantTimeEq as _;

use super::{Api, error::ApiError};
use crate::secrets::sha256;

/// The keys that are taken.
pub(crate) struct Keys(Vec<(String, [u8; 32])>);

impl Keys {
    pub(crate) fn new(keys: Vec<(String, [u8; 32])>) -> Self {
        Self(keys)
    }

    /// The name of this key.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        let hash = sha256(key.as_bytes());
        let mut found = None;
        for (name, known) in &self.0 {
            if bool::from(hash.ct_eq(known)) {
                found = Some(name.as_str());
            }
        }
        found
    }
}

/// Who calls: the name of its key.
pub(crate) struct Caller(pub(crate) String);

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let key = key_in(&parts.headers).ok_or_else(|| ApiError::key("missing"))?;
        let name = api.keys.find(key).ok_or_else(|| ApiError::key("unknown"))?;
        Ok(Self(name.to_owned()))
    }
}

/// The key that a request carries.
pub(crate) fn key_in(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    text("x-api-key").or_else(|| {
        let (scheme, token) = text(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    })
}
