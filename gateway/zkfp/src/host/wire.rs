//! The child's two ends of the socket, each on its own thread.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use crate::frame::{FrameBuffer, Framed};
use crate::message::{Down, HEARTBEAT, MAX_IN_FLIGHT, Request, Up};
use crate::sdk::CallClock;

/// Requests waiting for the owner: more than the parent has under way, so that reading never stops.
const INBOX: usize = 2 * MAX_IN_FLIGHT;
/// Frames waiting for the parent. When it is full the owner waits: the parent is stuck.
const OUTBOX: usize = 256;
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// What comes in for the owner.
#[derive(Debug)]
pub(super) enum Incoming {
    Request { id: u64, request: Request, templates: Vec<Vec<u8>> },
    Stop,
}

/// The way out for the owner. A lost parent is noticed by the reader thread.
pub(super) type Outbox = SyncSender<Framed<Up>>;

pub(super) fn send(socket: &mut UnixStream, framed: &Framed<Up>) -> io::Result<()> {
    socket.write_all(&framed.encode().map_err(invalid)?)
}

/// Waits for one message, before the threads are started.
pub(super) fn receive(socket: &mut UnixStream) -> io::Result<Down> {
    let mut buffer = FrameBuffer::default();
    // Byte by byte: what follows the first frame belongs to the reader thread.
    let mut byte = [0_u8; 1];
    loop {
        if let Some(framed) = buffer.next::<Down>().map_err(invalid)? {
            return Ok(framed.message);
        }
        socket.read_exact(&mut byte)?;
        buffer.push(&byte);
    }
}

pub(super) fn start_reader(mut socket: UnixStream) -> io::Result<Receiver<Incoming>> {
    let (inbox, receiver) = sync_channel(INBOX);
    thread::Builder::new().name("reader".into()).spawn(move || {
        if let Err(error) = read_all(&mut socket, &inbox) {
            eprintln!("reader-host: {error}");
        }
        // SAFETY: ends the process at once. The owner may hang in vendor code, and exit handlers
        // of vendor code are not to be waited for either.
        unsafe { libc::_exit(0) };
    })?;
    Ok(receiver)
}

pub(super) fn start_writer(mut socket: UnixStream, clock: CallClock) -> io::Result<Outbox> {
    let (outbox, receiver) = sync_channel(OUTBOX);
    thread::Builder::new().name("writer".into()).spawn(move || {
        match write_all(&mut socket, &receiver, &clock) {
            // A lost parent is the reader thread's business.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => eprintln!("reader-host: {error}"),
        }
    })?;
    Ok(outbox)
}

fn read_all(socket: &mut UnixStream, inbox: &SyncSender<Incoming>) -> io::Result<()> {
    let mut buffer = FrameBuffer::default();
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    loop {
        let length = match socket.read(&mut chunk) {
            // A parent that was killed with something unread resets the connection.
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Ok(length) => length,
            Err(error) => return Err(error),
        };
        buffer.push(chunk.get(..length).unwrap_or_default());
        while let Some(framed) = buffer.next::<Down>().map_err(invalid)? {
            let incoming = match framed.message {
                Down::Request { id, request } => {
                    Incoming::Request { id, request, templates: framed.templates }
                }
                Down::Stop => Incoming::Stop,
                Down::Hello { .. } => return Err(invalid("a second greeting")),
            };
            // The owner is gone only when the process ends.
            if inbox.send(incoming).is_err() {
                return Ok(());
            }
        }
    }
}

fn write_all(
    socket: &mut UnixStream,
    frames: &Receiver<Framed<Up>>,
    clock: &CallClock,
) -> io::Result<()> {
    let mut next_heartbeat = Instant::now();
    loop {
        if Instant::now() >= next_heartbeat {
            send(socket, &heartbeat(clock))?;
            next_heartbeat = Instant::now() + HEARTBEAT;
        }
        let wait = next_heartbeat.saturating_duration_since(Instant::now());
        match frames.recv_timeout(wait) {
            Ok(framed) => send(socket, &framed)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn heartbeat(clock: &CallClock) -> Framed<Up> {
    Framed::plain(Up::Heartbeat { memory_bytes: memory_bytes(), call: clock.current() })
}

/// Memory of this process's own that is in use: resident pages that aren't a file's.
fn memory_bytes() -> u64 {
    // SAFETY: a number goes in, a number comes out.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm.split_whitespace().skip(1).filter_map(|field| field.parse::<u64>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * u64::try_from(page_bytes).unwrap_or(4096)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
