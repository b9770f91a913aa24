//! The clocks that an event carries.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use topics::{BootId, Clock, Timestamp, record::Moment};

/// The wall clock, now.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Everything that surrounds an event which happens now.
pub fn moment() -> Moment {
    Moment { timestamp: now(), clock: clock(), boot: boot_id(), uptime_ms: uptime_ms() }
}

/// This run of the operating system. Where the system tells none, one of this process.
pub fn boot_id() -> BootId {
    static BOOT: OnceLock<BootId> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        told.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| {
            let mut bytes = [0; 16];
            // Without random bytes: the zero id, which matches no other boot either.
            let _ = getrandom::fill(&mut bytes);
            BootId::from_bytes(bytes)
        })
    })
}

/// Milliseconds since that boot; monotonic.
pub fn uptime_ms() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let (start, uptime_at_start_ms) = START.get_or_init(|| {
        let told = std::fs::read_to_string("/proc/uptime").ok();
        let seconds = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        (Instant::now(), (seconds.unwrap_or(0.0) * 1000.0) as u64)
    });
    uptime_at_start_ms + u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Whether the time service says that the wall clock is right. systemd-timesyncd leaves this mark;
/// without it nobody can tell.
fn clock() -> Clock {
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
        Clock::Synced
    } else {
        Clock::Unsynced
    }
}
