//! The clocks that an event carries.

use std::{
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use topics::{BootId, Clock, Timestamp, record::Moment};

/// How long the time service's word holds.
const LOOK_AGAIN_MS: u64 = 1_000;

/// The wall clock, now.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Everything that surrounds an event which happens now.
pub fn moment() -> Moment {
    let uptime_ms = uptime_ms();
    Moment { timestamp: now(), clock: clock(uptime_ms), boot: boot_id(), uptime_ms }
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
/// without it nobody can tell. Looked for once in [`LOOK_AGAIN_MS`]: an event is made in less time than
/// a look takes.
fn clock(uptime_ms: u64) -> Clock {
    /// When it was looked for last, and in the lowest bit whether it was there.
    static LOOKED: AtomicU64 = AtomicU64::new(0);
    let looked = LOOKED.load(Ordering::Relaxed);
    let is_new = looked != 0 && uptime_ms.saturating_sub(looked >> 1) < LOOK_AGAIN_MS;
    let synced = if is_new {
        looked & 1 == 1
    } else {
        let synced = Path::new("/run/systemd/timesync/synchronized").exists();
        LOOKED.store(uptime_ms << 1 | u64::from(synced), Ordering::Relaxed);
        synced
    };
    if synced { Clock::Synced } else { Clock::Unsynced }
}
