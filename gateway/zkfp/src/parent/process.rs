//! The child process.
//!
//! A thread of its own starts it, collects what it writes to standard error, and reaps it. The
//! thread lives exactly as long as the child: the kernel's "parent has died" signal is sent when
//! the *thread* that started a process ends, and async runtimes end threads when they like.

use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use crate::config::HostConfig;

/// Of the parent's environment the child gets these: the loader's and the vendor's, no secrets.
const KEPT_ENVIRONMENT: [&str; 7] =
    ["PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "TZ", "RUST_BACKTRACE"];
/// The simulator reads its folder's name here.
const SIMULATOR_VARIABLE: &str = "RIDGEWAY_SIMULATOR_DIR";
/// Longer lines of the child's standard error are cut.
const MAX_LINE_BYTES: usize = 400;

/// A child and this side's end of its socket.
pub(super) type Started = (Process, UnixStream);

/// A running child. Dropping it ends it: none stays behind.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) exit: oneshot::Receiver<ExitStatus>,
    reaped: Arc<Mutex<bool>>,
}

impl Process {
    /// Starts a child whose standard input is the other end of the socket.
    pub(super) async fn start(config: &HostConfig) -> io::Result<Started> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = command(config, theirs);
        let (started, is_started) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        let reaped = Arc::new(Mutex::new(false));
        let its_reaped = Arc::clone(&reaped);
        thread::Builder::new().name("reader-host".into()).spawn(move || {
            let spawned = command.spawn();
            // The command holds the child's end of the socket; its end must be seen.
            drop(command);
            let mut child = match spawned {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            drop(started.send(Ok(child.id())));
            if let Some(stderr) = child.stderr.take() {
                relay(child.id(), stderr);
            }
            if let Some(status) = reap(&mut child, &its_reaped) {
                // Nobody may wait for it any more.
                let _ = exited.send(status);
            }
        })?;
        let pid = is_started.await.map_err(|_| io::Error::other("the starter ended"))??;
        Ok((Process { pid, exit, reaped }, socket))
    }

    /// Ends the child at once.
    pub(super) fn kill(&self) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        // Only a child that isn't reaped owns its number.
        if let (false, Ok(pid)) = (*reaped, libc::pid_t::try_from(self.pid)) {
            // SAFETY: numbers only; the child is ours, see above.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(config: &HostConfig, socket: UnixStream) -> Command {
    let mut command = Command::new(&config.exe);
    command
        .args(&config.args)
        .env_clear()
        .envs(KEPT_ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::from(OwnedFd::from(socket)))
        // Vendor libraries chatter; the parent's output is its own.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal is for the parent, which then ends its child.
        .process_group(0);
    if let Some(folder) = &config.simulator_dir {
        command.env(SIMULATOR_VARIABLE, absolute(folder));
    }
    command
}

/// Waits for the end, then reaps: in between, nobody may signal the number any more.
fn reap(child: &mut Child, reaped: &Mutex<bool>) -> Option<ExitStatus> {
    let id = libc::id_t::from(child.id());
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the output is a local; the child stays a zombie, so that its number is kept.
        let code = unsafe {
            libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT)
        };
        let interrupted = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        if code == 0 || !interrupted {
            break;
        }
    }
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    *reaped = true;
    child.wait().ok()
}

/// What the child and the vendor's code complain about, line by line, until it ends.
fn relay(pid: u32, stderr: ChildStderr) {
    let mut line = Vec::new();
    for byte in BufReader::new(stderr).bytes().map_while(Result::ok) {
        if byte != b'\n' && line.len() < MAX_LINE_BYTES {
            line.push(byte);
        } else if byte == b'\n' {
            let text = String::from_utf8_lossy(&line);
            // Ours starts with our name; the vendor's chatter is for whoever looks for it.
            match text.strip_prefix("reader-host: ") {
                Some(ours) => tracing::warn!(pid, "reader host: {ours}"),
                None => tracing::debug!(pid, "SDK: {text}"),
            }
            line.clear();
        }
    }
}

/// The child may have another working directory some day; the folder stays the same.
pub(super) fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
