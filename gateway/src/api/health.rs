//! `GET /api/health` and `GET /health`: without a credential.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use topics::ReaderState;

use super::{Shared, now};
use crate::{
    command::HealthReport,
    journal::{Batch, Journal, Table},
    operation::Operations,
};

/// The row that is read to see whether the journal works, and written after it failed.
const HEALTH_KEY: &[u8] = b"health";
/// Between two tries of a journal that fails.
const TRY_AGAIN: Duration = Duration::from_secs(5);

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

/// After a failed commit, commits a row until that succeeds: with nobody at the readers nothing else would
/// find out that there is room again. Ends with `token`.
pub(crate) async fn keep_trying(journal: Journal, token: CancellationToken) {
    let mut failing = journal.failing();
    let wait = async {
        while failing.wait_for(|failing| *failing).await.is_ok() {
            tokio::time::sleep(TRY_AGAIN).await;
            let row = Batch::new().put(Table::Settings, HEALTH_KEY, now().to_string().into_bytes());
            // The writer logs the failure.
            let _ = journal.commit(row).await;
        }
    };
    token.run_until_cancelled(wait).await;
}
