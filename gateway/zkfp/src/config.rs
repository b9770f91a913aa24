//! How the host is started and watched.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How the host is started and watched.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// The executable that calls [`crate::host::run`]; default: this one.
    pub exe: PathBuf,
    /// Its arguments; default: `reader-host`.
    pub args: Vec<OsString>,
    /// The SDK's library; default: the simulator's if there is a simulator, else `libzkfp.so` as
    /// the loader finds it.
    pub library: Option<PathBuf>,
    /// The simulator's folder, made by the caller. Absent: real readers.
    pub simulator_dir: Option<PathBuf>,
    /// Where the operating system lists USB devices; default `/sys/bus/usb/devices`.
    pub usb_devices: PathBuf,
    /// An armed reader is asked once in this time; default 50 ms.
    pub poll_period: Duration,
    /// Plugging in and out is looked for once in this time; default 250 ms.
    pub presence_period: Duration,
    /// A call that takes longer makes its reader unresponsive and fails the requests that wait;
    /// default 1.5 s.
    pub slow_call: Duration,
    /// A call that takes longer ends the child; default 10 s.
    pub dead_call: Duration,
    /// A child that doesn't say anything for so long is ended; default 5 s.
    pub silence: Duration,
    /// Time for the child to load the library and greet; default 15 s.
    pub start_deadline: Duration,
    /// Time for a request to be answered; default 5 s.
    pub request_deadline: Duration,
    /// The first restart waits at most this long, each further one twice as long; default 250 ms.
    pub first_restart: Duration,
    /// No restart waits longer; default 30 s.
    pub last_restart: Duration,
    /// A child that uses more memory is ended; default 1 GiB.
    pub memory_limit_bytes: u64,
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            exe: PathBuf::from("/proc/self/exe"),
            args: vec!["reader-host".into()],
            library: None,
            simulator_dir: None,
            usb_devices: PathBuf::from("/sys/bus/usb/devices"),
            poll_period: Duration::from_millis(50),
            presence_period: Duration::from_millis(250),
            slow_call: Duration::from_millis(1500),
            dead_call: Duration::from_secs(10),
            silence: Duration::from_secs(5),
            start_deadline: Duration::from_secs(15),
            request_deadline: Duration::from_secs(5),
            first_restart: Duration::from_millis(250),
            last_restart: Duration::from_secs(30),
            memory_limit_bytes: 1024 * 1024 * 1024,
        }
    }
}
