//! `GET /metrics`: counters and gauges of the embedded broker, in Prometheus' text format. A scraper
//! shows a key as any caller does (`Authorization: Bearer …`).

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{Api, auth::Caller};

pub(crate) async fn text(State(api): State<Api>, _: Caller) -> Response {
    // With a broker that isn't ours there is nothing of it to tell.
    let text = api.broker.as_ref().map(broker_config::Meter::prometheus).unwrap_or_default();
    ([(header::CONTENT_TYPE, broker_config::PROMETHEUS)], text).into_response()
}
