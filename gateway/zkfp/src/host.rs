//! The child process that the SDK lives in.
//!
//! Standard input is the socket to the parent. Three threads:
//!
//! | thread | does |
//! |---|---|
//! | main, the *owner* | every SDK call: polls armed readers, answers requests, looks for plugged readers |
//! | reader | frames from the socket into the owner's inbox; at the end of the socket it ends the process |
//! | writer | frames from the owner to the socket, and a heartbeat that tells which call the owner is in |
//!
//! The process never outlives its parent: it ends when the socket does, even while a vendor call
//! hangs, and on Linux the kernel kills it when the parent dies.

mod gallery;
mod owner;
mod presence;
mod touch;
mod wire;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use crate::frame::Framed;
use crate::message::{Down, Settings, Up, VERSION};
use crate::sdk::{CallClock, Sdk};

/// A parent greets at once, or isn't one.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// Exit code for wrong use, as in sysexits.h: there is no parent, or it is of another version.
pub const EXIT_USAGE: u8 = 64;
/// Exit code for a library that can't be loaded.
const EXIT_UNAVAILABLE: u8 = 69;

/// Runs the host: what `ridgeway reader-host` does. Takes no arguments; the parent says the rest.
pub fn run(args: &[String]) -> ExitCode {
    if !args.is_empty() || io::stdin().is_terminal() {
        eprintln!("reader-host is started by the gateway, without arguments");
        return ExitCode::from(EXIT_USAGE);
    }
    tie_to_parent();
    let mut socket = match parent_socket() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("reader-host is started by the gateway: standard input: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match serve(&mut socket) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reader-host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: &mut UnixStream) -> io::Result<ExitCode> {
    let Some(settings) = greet(socket)? else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let clock = CallClock::default();
    let sdk = match Sdk::load(&settings.library, clock.clone()) {
        Ok(sdk) => sdk,
        Err(error) => {
            wire::send(socket, &Framed::plain(Up::NotLoaded { reason: error.to_string() }))?;
            return Ok(ExitCode::from(EXIT_UNAVAILABLE));
        }
    };
    wire::send(socket, &Framed::plain(Up::Loaded { library: settings.library.clone() }))?;
    let inbox = wire::start_reader(socket.try_clone()?)?;
    let outbox = wire::start_writer(socket.try_clone()?, clock)?;
    owner::Owner::new(sdk, &settings, outbox).run(&inbox);
    Ok(ExitCode::SUCCESS)
}

/// The parent's settings, if it is of this version.
fn greet(socket: &mut UnixStream) -> io::Result<Option<Settings>> {
    socket.set_read_timeout(Some(GREETING_DEADLINE))?;
    let hello = wire::receive(socket)?;
    socket.set_read_timeout(None)?;
    match hello {
        Down::Hello { version, settings } if version == VERSION => {
            wire::send(socket, &Framed::plain(Up::Welcome { version: VERSION.to_owned() }))?;
            Ok(Some(settings))
        }
        Down::Hello { version, .. } => {
            let reason = format!("the gateway is of version {version}, the reader host {VERSION}");
            wire::send(socket, &Framed::plain(Up::Refused { reason }))?;
            Ok(None)
        }
        Down::Request { .. } | Down::Stop => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the parent didn't greet"))
        }
    }
}

/// Standard input as a socket.
fn parent_socket() -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr()?;
    Ok(socket)
}

/// Dies with the parent and not before it: a service manager signals both at once, and the parent
/// would take the child's end for a crash. Leaves no core file: it would hold templates.
fn tie_to_parent() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: numbers only; no handler is installed.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a local that outlives the call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    #[cfg(target_os = "linux")]
    // SAFETY: numbers only. The signal comes when the thread that started this process ends; the
    // parent keeps that thread for as long as this process lives.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn settings() -> Settings {
        Settings {
            library: "libzkfp.so".into(),
            simulator_dir: None,
            usb_devices: "/sys/bus/usb/devices".into(),
            poll_period_ms: 50,
            presence_period_ms: 250,
            slow_call_ms: 1500,
        }
    }

    fn greeted_with(message: Down) -> (io::Result<Option<Settings>>, Vec<u8>) {
        let (mut parent, mut child) = UnixStream::pair().unwrap();
        parent.write_all(&Framed::plain(message).encode().unwrap()).unwrap();
        let result = greet(&mut child);
        drop(child);
        let mut said = Vec::new();
        io::Read::read_to_end(&mut parent, &mut said).unwrap();
        (result, said)
    }

    #[test]
    fn a_parent_of_another_version_is_refused_with_both_versions() {
        let version = "0.0.0/0".to_owned();
        let (result, said) = greeted_with(Down::Hello { version, settings: settings() });
        assert!(result.unwrap().is_none());
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("0.0.0/0") && said.contains(VERSION), "{said}");
    }

    #[test]
    fn a_parent_of_this_version_is_welcome_and_one_that_does_not_greet_is_none() {
        let version = VERSION.to_owned();
        let (result, _) = greeted_with(Down::Hello { version, settings: settings() });
        assert!(result.unwrap().is_some());
        assert!(greeted_with(Down::Stop).0.is_err());
    }
}
