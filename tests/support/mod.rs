//! What the end-to-end tests stand on: the real `ridgeway` binary in processes of its own, real
//! clients, fingers on simulated sensors, and waiting for conditions instead of sleeping.

pub(crate) mod account;
pub(crate) mod browser;
pub(crate) mod disk;
pub(crate) mod finger;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod mosquitto;
pub(crate) mod mosquitto_broker;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod site;
pub(crate) mod socket;
pub(crate) mod told;
pub(crate) mod wan;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up on it. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` gives something, and gives it; fails with `what` after [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look).await
}

/// [`eventually`] with another patience.
pub(crate) async fn within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A JSON object's field as text.
#[track_caller]
pub(crate) fn text<'a>(value: &'a serde_json::Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

/// The only item, with a message that shows what there was.
#[track_caller]
pub(crate) fn only<T: Debug>(mut items: Vec<T>, what: &str) -> T {
    assert_eq!(items.len(), 1, "{what}: {items:#?}");
    items.remove(0)
}
