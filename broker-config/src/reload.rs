//! Files that may change while the broker runs: certificates and users. They are looked at every two
//! seconds; a change that can't be used is logged once and what was before stays.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Between two looks. Reading some small files costs less than a watch that every system does otherwise.
const INTERVAL: Duration = Duration::from_secs(2);

/// Looks until told to stop.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut said = String::new();
    loop {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        let looked = shared.clone();
        // Files may lie on a disk that is slow; a panic there is ours, and is told as an error.
        let found = tokio::task::spawn_blocking(move || look(&looked)).await;
        let problems = found.unwrap_or_else(|error| error.to_string());
        if problems != said && !problems.is_empty() {
            tracing::error!(broker = %shared.name, %problems, "changed files can't be used; the old ones stay");
        }
        said = problems;
    }
}

/// Takes what has changed; says what can't be taken.
fn look(shared: &Shared) -> String {
    let mut problems = Vec::new();
    match shared.tls.as_ref().map(|tls| tls.reload()) {
        None | Some(Ok(false)) => {}
        Some(Ok(true)) => {
            tracing::info!(broker = %shared.name, "new connections get the new certificate");
        }
        Some(Err(error)) => problems.push(error.to_string()),
    }
    match shared.users.reload() {
        Ok(changed) => {
            for user in changed {
                tracing::info!(broker = %shared.name, %user, "removed or changed: its connections end");
                shared.revoke(&user);
            }
        }
        Err(error) => problems.push(error.to_string()),
    }
    problems.join("; ")
}
