//! How many clients the limit of open files allows.
//!
//! A client costs one; what isn't left for clients is left for everything else in the process.

/// For everything else in the process: journal, HTTP, logs, and another broker's listeners.
#[cfg(unix)]
const RESERVED: u64 = 200;
#[cfg(unix)]
const PER_CLIENT: u64 = 1;
/// Raising the soft limit further helps nobody, and makes some programs slow that are started from here.
#[cfg(unix)]
const ENOUGH: u64 = 65_536;

/// Raises the soft limit as far as is allowed, and says how many clients fit. At least 16.
#[cfg(unix)]
pub(crate) fn clients_that_fit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(ENOUGH, |hard| hard.min(ENOUGH));
    let mut soft = limit.current.unwrap_or(u64::MAX);
    if soft < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => soft = wanted,
            Err(error) => tracing::warn!(%error, "the limit of open files stays at {soft}"),
        }
    }
    fit(soft)
}

/// Where there is no such limit.
#[cfg(not(unix))]
pub(crate) fn clients_that_fit() -> usize {
    usize::MAX
}

#[cfg(unix)]
fn fit(descriptors: u64) -> usize {
    let clients = descriptors.saturating_sub(RESERVED) / PER_CLIENT;
    usize::try_from(clients).unwrap_or(usize::MAX).max(16)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_a_client() {
        assert_eq!(fit(1_024), 824);
        assert_eq!(fit(65_536), 65_336);
        assert_eq!(fit(64), 16);
        assert!(clients_that_fit() >= 16);
    }
}
