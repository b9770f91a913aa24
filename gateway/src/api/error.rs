//! One error type for every answer of the service, rendered as the documented envelope.
//!
//! ```json
//! {"success":false,
//!  "error":{"code":1002,"name":"DEVICE_BUSY","message":"…","statusCode":503,"retryable":true,
//!           "retryAfter":2,"details":{"deviceId":"device-001","retryAfter":2}},
//!  "code":1002,"message":"…"}
//! ```
//!
//! `code` and `message` stand on the first level too, because one documented client reads them
//! there. An [`ApiError`] travels to the outermost layer as an extension of an empty response and is
//! rendered there, where the request's id is known.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use topics::{ErrorBody, ErrorCode};

/// Seconds after which a busy reader is worth another try, as documented.
const BUSY_RETRY_SECONDS: u64 = 2;
/// The same for a service that is starting, stopping or out of space.
const UNAVAILABLE_RETRY_SECONDS: u64 = 5;

/// What the service answers when it can't do what was asked.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// A documented error with its documented status.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorBody::new(code, message).into()
    }

    /// 400: `field` is missing or wrong.
    pub(crate) fn field(field: &str, reason: impl Into<String>) -> Self {
        invalid(field, reason).into()
    }

    /// An error of HTTP itself; its code is the status, which documented clients fall back to.
    pub(crate) fn http(status: StatusCode, message: impl Into<String>) -> Self {
        let body = ErrorBody {
            code: status.as_u16(),
            name: ErrorCode::Validation.name().to_owned(),
            message: message.into(),
            retryable: false,
            details: Map::new(),
        };
        Self { status, body }
    }

    /// With another status than the code's own.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With one more field of context.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.body = self.body.with(field, value);
        self
    }

    /// The error as other surfaces tell it.
    pub(crate) fn into_body(self) -> ErrorBody {
        self.body
    }

    /// Seconds after which another try makes sense.
    fn retry_after(&self) -> Option<u64> {
        if let Some(given) = self.body.details.get("retryAfter").and_then(Value::as_u64) {
            return Some(given);
        }
        match self.body.error_code() {
            Some(ErrorCode::DeviceBusy) => Some(BUSY_RETRY_SECONDS),
            Some(ErrorCode::ServiceUnavailable) => Some(UNAVAILABLE_RETRY_SECONDS),
            _ => None,
        }
    }

    /// The answer, with the id of the request it answers.
    pub(crate) fn render(mut self, request_id: &str) -> Response {
        let retry_after = self.retry_after();
        if let Some(seconds) = retry_after {
            self.body = self.body.with("retryAfter", seconds);
        }
        if self.status.is_server_error() {
            self.body = self.body.with("requestId", request_id);
        }
        let ErrorBody { code, name, message, retryable, details } = self.body;
        let mut error = json!({
            "code": code, "name": name, "message": message, "statusCode": self.status.as_u16(),
            "retryable": retryable,
        });
        if let Some(seconds) = retry_after {
            error["retryAfter"] = seconds.into();
        }
        if !details.is_empty() {
            error["details"] = Value::Object(details);
        }
        let envelope =
            json!({ "success": false, "error": error, "code": code, "message": message });
        let mut response = (self.status, axum::Json(envelope)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        let status = body
            .error_code()
            .and_then(|code| StatusCode::from_u16(code.http_status()).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// 400/VALIDATION_ERROR about one field.
pub(crate) fn invalid(field: &str, reason: impl Into<String>) -> ErrorBody {
    let reason = reason.into();
    ErrorBody::new(ErrorCode::Validation, format!("{field}: {reason}"))
        .with("field", field)
        .with("reason", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(error: ApiError) -> (Response, Value) {
        let (parts, body) = error.render("r-1").into_parts();
        let bytes = axum::body::to_bytes(body, 10_000).await.unwrap();
        (Response::from_parts(parts, Default::default()), serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn it_is_the_documented_envelope_with_first_level_copies() {
        let error = ApiError::new(ErrorCode::DeviceBusy, "Reader is busy (device busy)")
            .with("deviceId", "device-001");
        let (response, body) = body(error).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(
            body,
            json!({
                "success": false,
                "error": {
                    "code": 1002, "name": "DEVICE_BUSY", "message": "Reader is busy (device busy)",
                    "statusCode": 503, "retryable": true, "retryAfter": 2,
                    "details": {"deviceId": "device-001", "retryAfter": 2, "requestId": "r-1"},
                },
                "code": 1002,
                "message": "Reader is busy (device busy)",
            })
        );
    }

    #[tokio::test]
    async fn an_error_of_http_has_its_status_as_code() {
        let (response, body) = body(ApiError::http(StatusCode::METHOD_NOT_ALLOWED, "no")).await;
        assert_eq!((response.status().as_u16(), &body["error"]["code"]), (405, &json!(405)));
        assert!(body["error"].get("details").is_none());
    }
}
