//! Processor time of a broker, from Linux's accounting of threads; elsewhere there are no figures.

use std::{fs, process};

/// Whose time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cpu {
    /// All threads of this process but the calling one, which is the load.
    Here,
    /// Another process.
    Process(u32),
}

impl Cpu {
    /// Microseconds until now.
    pub(super) fn spent(self) -> Option<f64> {
        let (process, except) = match self {
            Cpu::Here => (process::id(), Some(fs::read_link("/proc/thread-self").ok()?)),
            Cpu::Process(id) => (id, None),
        };
        let except = except.as_ref().and_then(|path| path.file_name());
        let mut micros = 0.0;
        for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
            let thread = thread.ok()?;
            if Some(thread.file_name().as_os_str()) == except {
                continue;
            }
            // "nanoseconds on a processor, nanoseconds waiting for one, turns"; gone if the thread is.
            let Ok(line) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            micros += line.split(' ').next()?.parse::<f64>().ok()? / 1e3;
        }
        Some(micros)
    }
}
