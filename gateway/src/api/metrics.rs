//! `GET /metrics`: counters and gauges of the embedded broker, in Prometheus' text format. A scraper
//! shows a key as any caller does (`Authorization: Bearer …`).

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{Shared, auth::Caller, error::ApiResult};
use crate::config::Permission;

pub(super) async fn text(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> ApiResult<Response> {
    caller.need(Permission::DeviceRead)?;
    // With a broker that isn't ours there is nothing of it to tell.
    let text = shared.broker.as_ref().map(broker_config::Meter::prometheus).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, broker_config::PROMETHEUS)], text).into_response())
}
