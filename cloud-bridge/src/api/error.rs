//! The documented error envelope: the error, and copies on the first level, which one documented
//! client reads.

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use topics::{ErrorBody, ErrorCode, IdError};

use super::plain;

/// What a handler fails with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    body: ErrorBody,
    status: StatusCode,
}

impl ApiError {
    pub(crate) fn with_status(body: ErrorBody, status: StatusCode) -> Self {
        Self { body, status }
    }

    /// 401 with the reason.
    pub(crate) fn key(reason: &str) -> Self {
        let body = ErrorBody::new(ErrorCode::InvalidApiKey, "API key is missing or not valid")
            .with("header", "X-API-Key")
            .with("reason", reason);
        body.into()
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        let status = body.error_code().map_or(500, ErrorCode::http_status);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { body, status }
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(error: crate::store::StoreError) -> Self {
        crate::service::store_error(error).into()
    }
}

impl From<IdError> for ApiError {
    fn from(error: IdError) -> Self {
        let reason = error.to_string();
        ErrorBody::new(ErrorCode::Validation, reason.clone())
            .with("field", error.kind)
            .with("reason", reason)
            .into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ErrorBody { code, name, message, retryable, details } = self.body;
        let retry_after = details.get("retryAfter").and_then(serde_json::Value::as_u64);
        let mut error = json!({
            "code": code,
            "name": name,
            "message": message,
            "statusCode": self.status.as_u16(),
            "retryable": retryable,
            "details": details,
        });
        if let Some(seconds) = retry_after {
            error["retryAfter"] = seconds.into();
        }
        let body = json!({"success": false, "error": error, "code": code, "message": message});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A JSON body, whatever its content type says.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = axum::body::Bytes::from_request(request, state).await.map_err(|_| {
            let large = StatusCode::PAYLOAD_TOO_LARGE;
            plain(large, "PAYLOAD_TOO_LARGE", "the body is larger than 1 MiB, or was cut short")
        })?;
        let bytes = if bytes.is_empty() { b"{}".as_slice().into() } else { bytes };
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let reason = error.to_string();
            ErrorBody::new(
                ErrorCode::Validation,
                format!("the body is not as documented: {reason}"),
            )
            .with("field", "body")
            .with("reason", reason)
            .into()
        })
    }
}
