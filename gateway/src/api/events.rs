//! `GET /api/events?after=<id>&limit=`: what happened, for those who were away. Oldest first.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use topics::{ErrorCode, EventId, Record};

use super::{
    Shared,
    auth::Caller,
    error::{ApiError, ApiResult},
    socket::without_user,
};
use crate::config::Permission;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Vec<(String, String)>>,
) -> ApiResult<Response> {
    caller.need(Permission::DeviceRead)?;
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let after: Option<EventId> = value("after")
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| ApiError::field("after", "must be an event's id"))?;
    let limit = match value("limit").map(|text| text.parse::<usize>()) {
        None => DEFAULT_LIMIT,
        Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => limit,
        Some(_) => return Err(ApiError::field("limit", format!("must be 1 to {MAX_LIMIT}"))),
    };
    let records = shared.events_after(after, limit).await?;
    Ok(answer(&records, caller.may(Permission::FingerprintIdentify)))
}

impl Shared {
    /// Reads the journal off the async threads: it may have to come from the disk.
    async fn events_after(&self, after: Option<EventId>, limit: usize) -> ApiResult<Vec<Record>> {
        let journal = self.journal.clone();
        let read = tokio::task::spawn_blocking(move || journal.events_after(after, limit)).await;
        match read {
            Ok(Ok(Some(records))) => Ok(records),
            Ok(Ok(None)) => {
                Err(ApiError::new(ErrorCode::RecordNotFound, "The journal holds no such event")
                    .with("after", after.map(|id| id.to_string()))
                    .with("table", "events"))
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "events can't be read");
                Err(ApiError::new(ErrorCode::DbQueryFailed, "The events can't be read"))
            }
            Err(error) => {
                tracing::error!(%error, "reading events failed");
                Err(ApiError::new(ErrorCode::InternalError, "Reading the events failed"))
            }
        }
    }
}

/// The records' events as they are, in `events`; the id to ask after next in `next`.
fn answer(records: &[Record], with_users: bool) -> Response {
    let bytes: usize = records.iter().map(|record| record.json().len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 80);
    body.extend_from_slice(br#"{"success":true,"events":["#);
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        if with_users {
            body.extend_from_slice(record.json());
        } else {
            body.extend_from_slice(&without_user(record.json()));
        }
    }
    let next = records.last().and_then(|record| record.event().ok()).map(|event| event.id);
    let next_text = next.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
    body.extend_from_slice(format!("],\"next\":{next_text}}}").as_bytes());
    let kind = HeaderValue::from_static("application/json");
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Some(value) = next.and_then(|id| HeaderValue::from_str(&id.to_string()).ok()) {
        response.headers_mut().insert(HeaderName::from_static("x-next-after"), value);
    }
    response
}
