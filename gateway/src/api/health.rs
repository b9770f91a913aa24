//! `GET /api/health` and `GET /health`: without a credential.

use std::{sync::Arc, time::Instant};

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use topics::ReaderState;

use super::{Shared, now};
use crate::{
    command::HealthReport,
    journal::{Journal, Table},
    operation::Operations,
};

/// The row that is read to see whether the journal works; it need not be there.
const HEALTH_KEY: &[u8] = b"health";

pub(super) async fn long(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let report = report(&shared.journal, &shared.operations, shared.started);
    let healthy = report["status"] == "healthy";
    (status(healthy), Json(report))
}

pub(super) async fn short(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let works = works(&shared.journal);
    let word = if works { "ok" } else { "error" };
    (status(works), Json(json!({ "status": word, "timestamp": now() })))
}

fn status(healthy: bool) -> StatusCode {
    if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// The documented health report, for who asks elsewhere than over HTTP.
pub fn health_report(journal: Journal, operations: Operations, started: Instant) -> HealthReport {
    Arc::new(move || report(&journal, &operations, started))
}

/// A missing reader alone is no ill health.
fn report(journal: &Journal, operations: &Operations, started: Instant) -> Value {
    let works = works(journal);
    let states: Vec<ReaderState> =
        operations.readers().iter().map(|reader| reader.status).collect();
    let has = |state| states.contains(&state);
    let device = if has(ReaderState::Idle) || has(ReaderState::Busy) {
        "connected"
    } else if has(ReaderState::Error) {
        "error"
    } else {
        "disconnected"
    };
    json!({
        "status": if works { "healthy" } else { "unhealthy" },
        "uptime": started.elapsed().as_secs(),
        "deviceStatus": device,
        "dbStatus": if works { "operational" } else { "unavailable" },
        "version": crate::VERSION,
        "timestamp": now(),
    })
}

/// Whether the journal can be written and read now.
fn works(journal: &Journal) -> bool {
    journal.is_sound() && journal.get(Table::Settings, HEALTH_KEY).is_ok()
}
