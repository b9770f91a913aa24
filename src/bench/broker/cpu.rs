//! Processor time of a broker, from Linux's accounting of threads; elsewhere there are no figures.

use std::{collections::HashMap, ffi::OsString, fs, process};

/// Whose time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cpu {
    /// All threads of this process but the calling one, which is the load.
    Here,
    /// Another process.
    Process(u32),
}

/// Nanoseconds of each thread until now.
pub(super) struct Spent(HashMap<OsString, u64>);

impl Cpu {
    pub(super) fn spent(self) -> Option<Spent> {
        let (process, except) = match self {
            Cpu::Here => (process::id(), Some(fs::read_link("/proc/thread-self").ok()?)),
            Cpu::Process(id) => (id, None),
        };
        let except = except.as_ref().and_then(|path| path.file_name());
        let mut spent = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
            let thread = thread.ok()?;
            if Some(thread.file_name().as_os_str()) == except {
                continue;
            }
            // "nanoseconds on a processor, nanoseconds waiting for one, turns"; gone if the thread is.
            let Ok(line) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            spent.insert(thread.file_name(), line.split(' ').next()?.parse().ok()?);
        }
        Some(Spent(spent))
    }
}

impl Spent {
    /// Microseconds since `before`, of the threads that are still there.
    pub(super) fn micros_since(&self, before: &Self) -> f64 {
        let since = self.0.iter().map(|(thread, nanos)| {
            nanos.saturating_sub(before.0.get(thread).copied().unwrap_or(0))
        });
        since.sum::<u64>() as f64 / 1e3
    }
}
