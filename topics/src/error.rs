//! The documented error codes: one table for REST, WebSocket, MQTT and command results.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A documented error. Its number and name are what clients test; see the table below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the documentation's own; the table gives their meaning.
pub enum ErrorCode {
    Validation,
    DeviceNotFound,
    DeviceBusy,
    DeviceDisconnected,
    DeviceInitFailed,
    DeviceTimeout,
    LowQuality,
    NoFingerprintDetected,
    TemplateExtractionFailed,
    MatchFailed,
    EnrollmentFailed,
    DbConnectionFailed,
    DbQueryFailed,
    DuplicateEntry,
    RecordNotFound,
    InvalidApiKey,
    ApiKeyRevoked,
    Unauthorized,
    RateLimitExceeded,
    TokenExpired,
    InternalError,
    ServiceUnavailable,
    ConfigurationError,
    BackupFailed,
    UpdateFailed,
    /// A command that came after its expiry. Not in the documentation, which has no expiry.
    Expired,
}

use ErrorCode::*;

/// (code, number, name, HTTP status, whether trying again can help)
const TABLE: [(ErrorCode, u16, &str, u16, bool); 26] = [
    (Validation, 400, "VALIDATION_ERROR", 400, false),
    (DeviceNotFound, 1001, "DEVICE_NOT_FOUND", 404, false),
    (DeviceBusy, 1002, "DEVICE_BUSY", 503, true),
    (DeviceDisconnected, 1003, "DEVICE_DISCONNECTED", 503, false),
    (DeviceInitFailed, 1004, "DEVICE_INIT_FAILED", 503, false),
    (DeviceTimeout, 1005, "DEVICE_TIMEOUT", 503, true),
    (LowQuality, 2001, "LOW_QUALITY", 422, true),
    (NoFingerprintDetected, 2002, "NO_FINGERPRINT_DETECTED", 422, true),
    (TemplateExtractionFailed, 2003, "TEMPLATE_EXTRACTION_FAILED", 422, true),
    (MatchFailed, 2004, "MATCH_FAILED", 422, false),
    (EnrollmentFailed, 2005, "ENROLLMENT_FAILED", 422, true),
    (DbConnectionFailed, 3001, "DB_CONNECTION_FAILED", 500, false),
    (DbQueryFailed, 3002, "DB_QUERY_FAILED", 500, false),
    (DuplicateEntry, 3003, "DUPLICATE_ENTRY", 409, false),
    (RecordNotFound, 3004, "RECORD_NOT_FOUND", 404, false),
    (InvalidApiKey, 4001, "INVALID_API_KEY", 401, false),
    (ApiKeyRevoked, 4002, "API_KEY_REVOKED", 401, false),
    (Unauthorized, 4003, "UNAUTHORIZED", 403, false),
    (RateLimitExceeded, 4004, "RATE_LIMIT_EXCEEDED", 429, true),
    (TokenExpired, 4005, "TOKEN_EXPIRED", 401, false),
    (InternalError, 5001, "INTERNAL_ERROR", 500, false),
    (ServiceUnavailable, 5002, "SERVICE_UNAVAILABLE", 503, true),
    (ConfigurationError, 5003, "CONFIGURATION_ERROR", 500, false),
    (BackupFailed, 5004, "BACKUP_FAILED", 500, false),
    (UpdateFailed, 5005, "UPDATE_FAILED", 500, true),
    (Expired, 408, "EXPIRED", 409, false),
];

impl ErrorCode {
    fn row(self) -> &'static (ErrorCode, u16, &'static str, u16, bool) {
        // The table has every variant: a test walks them.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[20])
    }

    /// The documented number.
    pub fn number(self) -> u16 {
        self.row().1
    }

    /// The code with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The documented constant, such as `DEVICE_BUSY`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The HTTP status it is answered with (4003 is 401 where the credential itself is bad).
    pub fn http_status(self) -> u16 {
        self.row().3
    }

    /// Whether trying again, unchanged, can help.
    pub fn retryable(self) -> bool {
        self.row().4
    }
}

/// An error as it stands in a command's response, in a journal record and, with more around it, in a
/// REST answer. Never holds internals: what only an operator may see is logged instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code} {name}: {message}")]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// The documented number.
    pub code: u16,
    /// The documented constant.
    pub name: String,
    /// For people.
    pub message: String,
    /// Whether trying again, unchanged, can help.
    pub retryable: bool,
    /// Context; the fields depend on the code.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl ErrorBody {
    /// An error with its documented number, name and retryability.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            name: code.name().to_owned(),
            message: message.into(),
            retryable: code.retryable(),
            details: Map::new(),
        }
    }

    /// The same with one more field of context.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.details.insert(field.to_owned(), value.into());
        self
    }

    /// The code, where the number is one we know.
    pub fn error_code(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_row_and_number() {
        for (code, number, name, ..) in TABLE {
            assert_eq!(ErrorCode::from_number(number), Some(code), "{name}");
            assert_eq!(code.name(), name);
        }
        assert_eq!(TABLE[20].0, InternalError, "the fallback row");
    }

    #[test]
    fn it_reads_as_documented() {
        let error = ErrorBody::new(LowQuality, "low quality scan").with("quality", 45);
        assert_eq!(
            serde_json::to_value(&error).unwrap(),
            serde_json::json!({"code": 2001, "name": "LOW_QUALITY", "message": "low quality scan",
                "retryable": true, "details": {"quality": 45}})
        );
    }
}
