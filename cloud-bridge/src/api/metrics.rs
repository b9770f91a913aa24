//! `GET /metrics`: counters and gauges of the bridge and of the embedded broker, in Prometheus' text
//! format. A scraper shows a key as any caller does (`Authorization: Bearer …`).
//!
//! | metric | labels | |
//! |---|---|---|
//! | `ridgeway_bridge_store_outage` | | 1 while commits fail, 0 otherwise |
//! | `ridgeway_bridge_store_failed_commits_total` | | commits that failed |
//! | `ridgeway_bridge_unreadable_frames_total` | `gateway` (empty: not configured here), `reason` | frames that could not be read |

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{Api, auth::Caller};
use crate::service::Service;

pub(crate) async fn text(State(api): State<Api>, _: Caller) -> Response {
    let mut text = own(&api.service);
    // With a broker that isn't ours there is nothing of it to tell.
    text += &api.broker.as_ref().map(broker_config::Meter::prometheus).unwrap_or_default();
    ([(header::CONTENT_TYPE, broker_config::PROMETHEUS)], text).into_response()
}

fn own(service: &Service) -> String {
    let mut text = String::new();
    let health = service.store.health();
    head(&mut text, "store_outage", "gauge", "1 while the store's commits fail.");
    value(&mut text, "store_outage", health.outage.is_some().into());
    head(&mut text, "store_failed_commits_total", "counter", "The store's commits that failed.");
    value(&mut text, "store_failed_commits_total", health.failed_commits);
    head(&mut text, "unreadable_frames_total", "counter", "Frames that could not be read.");
    for (gateway, reason, count) in service.unreadable().counts() {
        let gateway = gateway.map_or("", topics::GatewayId::as_str);
        let reason = reason.as_str();
        let labels = format!("{{gateway=\"{gateway}\",reason=\"{reason}\"}}");
        value(&mut text, &format!("unreadable_frames_total{labels}"), count);
    }
    text
}

// Writing to a String can't fail.

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let name = format!("ridgeway_bridge_{name}");
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn value(text: &mut String, name: &str, value: u64) {
    let _ = writeln!(text, "ridgeway_bridge_{name} {value}");
}
