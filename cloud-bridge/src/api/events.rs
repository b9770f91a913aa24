//! Stored events, for those who were away.

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use topics::{ErrorBody, ErrorCode, EventId, GatewayId};

use super::{Api, auth::Caller, error::ApiError};
use crate::{service::unknown_agent, view};

/// Events in an answer when nobody says how many, and at most.
const DEFAULT: usize = 100;
const MAX: usize = 1_000;
const NEXT_AFTER: HeaderName = HeaderName::from_static("x-next-after");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Which {
    after: Option<String>,
    limit: Option<usize>,
    /// The newest of all gateways, as many; instead of the others.
    last: Option<usize>,
    agent_id: Option<String>,
}

/// A page of events, oldest first.
#[derive(Serialize)]
pub(crate) struct Events {
    /// Each byte for byte as it came.
    events: Vec<Box<RawValue>>,
    /// What to ask for next: `after` the last one of these; the same as asked where there is none.
    next: Option<String>,
}

/// `GET /api/events`
pub(crate) async fn list(
    State(api): State<Api>,
    _: Caller,
    Query(which): Query<Which>,
) -> Result<(HeaderMap, Json<Events>), ApiError> {
    let store = &api.service.store;
    let agent = which.agent_id.filter(|id| id != "*").map(GatewayId::new).transpose()?;
    if let Some(id) = agent.as_ref().filter(|id| !api.service.gateways.contains_key(id)) {
        return Err(unknown_agent(id).into());
    }
    let after = match which.after.as_deref().filter(|after| !after.is_empty()) {
        None => 0,
        Some(text) => {
            let id: EventId = text.parse()?;
            store.index_of(id)?.ok_or_else(|| unknown_event(text))?
        }
    };
    let limit = which.limit.unwrap_or(DEFAULT).clamp(1, MAX);
    let found = match which.last {
        Some(last) => store.newest(last.min(MAX))?,
        None => store.events(after, agent.as_ref(), limit)?,
    };
    let next = found.last().map(|stored| stored.event.id.to_string()).or(which.after);
    let mut headers = HeaderMap::new();
    if let Some(next) = next.as_deref().and_then(|next| HeaderValue::from_str(next).ok()) {
        headers.insert(NEXT_AFTER, next);
    }
    let events = view::events(found.into_iter().map(|stored| stored.event));
    Ok((headers, Json(Events { events, next })))
}

fn unknown_event(id: &str) -> ErrorBody {
    let text = format!("event {id} not found: it was never stored, or is no longer kept");
    ErrorBody::new(ErrorCode::RecordNotFound, text).with("table", "events").with("eventId", id)
}
