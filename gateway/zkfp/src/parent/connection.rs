//! One host's life, from its greeting to its end.
//!
//! The loop waits in one place: for requests, for the socket, for room for an event, for a
//! deadline, for the stop. Nothing it does there waits for the host: at most [`MAX_IN_FLIGHT`]
//! requests are under way, which the child's inbox always has room for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::process::{Process, Started};
use super::supervisor::deliver;
use super::{Command, Reply};
use crate::codes::SdkCode;
use crate::config::HostConfig;
use crate::error::ReaderError;
use crate::event::{DownReason, HostEvent, Touch};
use crate::frame::{FrameBuffer, Framed};
use crate::message::{
    Answer, CurrentCall, Down, Event, Failure, MAX_IN_FLIGHT, Problem, Request, Settings, Up,
    VERSION,
};
use crate::serial::Serial;
use crate::template::SdkTemplate;

/// Events that wait for their consumer. Beyond it the socket isn't read, and the host waits.
const MAX_EVENTS: usize = 256;
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Time for the child to end by itself, and after that for the kernel to end it.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Why the connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was to be.
    Stopped,
    /// By itself.
    Down(DownReason),
}

/// A host that has greeted and loaded its library.
#[derive(Debug)]
pub(super) struct Connection {
    process: Process,
    socket: UnixStream,
    buffer: FrameBuffer,
    waiting: HashMap<u64, Waiting>,
    last_id: u64,
    events: VecDeque<HostEvent>,
    /// Readers that are reported as slow.
    slow: BTreeSet<Serial>,
    heard: Instant,
}

/// A request that the child has. Its caller may have been told already.
#[derive(Debug)]
struct Waiting {
    request: Request,
    since: Instant,
    reply: Option<oneshot::Sender<Result<Reply, ReaderError>>>,
}

/// Greets, and waits for the library to be loaded.
pub(super) async fn open(
    (process, socket): Started,
    settings: Settings,
) -> Result<(Connection, PathBuf), DownReason> {
    let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    let socket = socket.map_err(|error| DownReason::NotStarted(error.to_string()))?;
    let mut connection = Connection {
        socket,
        buffer: FrameBuffer::default(),
        waiting: HashMap::new(),
        last_id: 0,
        events: VecDeque::new(),
        slow: BTreeSet::new(),
        heard: Instant::now(),
        process,
    };
    connection.send(Down::Hello { version: VERSION.to_owned(), settings }, vec![]).await?;
    match connection.next().await? {
        Up::Welcome { version } if version == VERSION => {}
        Up::Welcome { version } => return Err(DownReason::Protocol(format!("version {version}"))),
        Up::Refused { reason } => return Err(DownReason::Protocol(reason)),
        other => return Err(out_of_turn(&other)),
    }
    match connection.next().await? {
        Up::Loaded { library } => Ok((connection, library)),
        Up::NotLoaded { reason } => Err(DownReason::NotLoaded(reason)),
        other => Err(out_of_turn(&other)),
    }
}

impl Connection {
    /// Serves until the end, and then tells all who wait.
    pub(super) async fn run(
        mut self,
        config: &HostConfig,
        requests: &mut mpsc::Receiver<Command>,
        events: &mpsc::Sender<HostEvent>,
        stop: &CancellationToken,
    ) -> Ended {
        let ended = self.serve(config, requests, events, stop).await;
        self.fail_all(|operation| match &ended {
            Ended::Stopped => ReaderError::Stopping { operation },
            Ended::Down(_) => ReaderError::Disconnected { operation },
        });
        match ended {
            Ended::Stopped => self.stop().await,
            Ended::Down(reason) => {
                // What the host reported before its end is still true of the time before.
                for event in std::mem::take(&mut self.events) {
                    if !deliver(events, event, stop).await {
                        return Ended::Stopped;
                    }
                }
                Ended::Down(reason)
            }
        }
    }

    async fn serve(
        &mut self,
        config: &HostConfig,
        requests: &mut mpsc::Receiver<Command>,
        events: &mpsc::Sender<HostEvent>,
        stop: &CancellationToken,
    ) -> Ended {
        let mut chunk = vec![0_u8; CHUNK_BYTES];
        loop {
            let silent_at = self.heard + config.silence;
            let has_room = self.events.len() < MAX_EVENTS;
            let step = tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                command = requests.recv(), if self.waiting.len() < MAX_IN_FLIGHT => match command {
                    Some(command) => self.forward(command).await,
                    None => return Ended::Stopped,
                },
                read = self.socket.read(&mut chunk), if has_room => match read {
                    Ok(length) if length > 0 => {
                        self.heard = Instant::now();
                        self.buffer.push(chunk.get(..length).unwrap_or_default());
                        self.take_frames(config)
                    }
                    Ok(_) | Err(_) => Err(self.exit_reason().await),
                },
                permit = events.reserve(), if !self.events.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.events.pop_front() {
                            permit.send(event);
                        }
                        Ok(())
                    }
                    Err(_) => return Ended::Stopped,
                },
                // A host that waits for the consumer of its events isn't silent.
                () = sleep_until(silent_at), if has_room => {
                    Err(DownReason::Silent(config.silence))
                }
            };
            if let Err(reason) = step {
                return Ended::Down(reason);
            }
        }
    }

    async fn forward(&mut self, command: Command) -> Result<(), DownReason> {
        let Command { request, templates, reply } = command;
        self.last_id += 1;
        let id = self.last_id;
        let waiting =
            Waiting { request: request.clone(), since: Instant::now(), reply: Some(reply) };
        self.waiting.insert(id, waiting);
        self.send(Down::Request { id, request }, templates).await
    }

    async fn send(&mut self, message: Down, templates: Vec<Vec<u8>>) -> Result<(), DownReason> {
        let frame = Framed { message, templates }
            .encode()
            .map_err(|error| DownReason::Protocol(error.to_string()))?;
        match self.socket.write_all(&frame).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.exit_reason().await),
        }
    }

    /// The next message while greeting.
    async fn next(&mut self) -> Result<Up, DownReason> {
        let mut chunk = vec![0_u8; CHUNK_BYTES];
        loop {
            if let Some(framed) = self.buffer.next::<Up>().map_err(not_understood)? {
                return Ok(framed.message);
            }
            match self.socket.read(&mut chunk).await {
                Ok(length) if length > 0 => {
                    self.buffer.push(chunk.get(..length).unwrap_or_default());
                }
                Ok(_) | Err(_) => return Err(self.exit_reason().await),
            }
        }
    }

    fn take_frames(&mut self, config: &HostConfig) -> Result<(), DownReason> {
        while let Some(framed) = self.buffer.next::<Up>().map_err(not_understood)? {
            match framed.message {
                Up::Reply { id, result } => self.take_reply(id, result, framed.templates)?,
                Up::Event(event) => self.take_event(event, framed.templates)?,
                Up::Heartbeat { memory_bytes, call } => {
                    if memory_bytes > config.memory_limit_bytes {
                        return Err(DownReason::TooLarge { bytes: memory_bytes });
                    }
                    self.judge(call, config)?;
                }
                other @ (Up::Welcome { .. }
                | Up::Refused { .. }
                | Up::Loaded { .. }
                | Up::NotLoaded { .. }) => return Err(out_of_turn(&other)),
            }
        }
        Ok(())
    }

    fn take_reply(
        &mut self,
        id: u64,
        result: Result<Answer, Failure>,
        templates: Vec<Vec<u8>>,
    ) -> Result<(), DownReason> {
        let waiting = self.waiting.remove(&id);
        let waiting = waiting.ok_or_else(|| DownReason::Protocol("an unasked reply".into()))?;
        let Some(reply) = waiting.reply else { return Ok(()) };
        let result = match result {
            Ok(answer) => Ok(Reply { answer, templates }),
            // Not an error: the answer to `recapture` is no.
            Err(Failure::NoFinger) => Ok(Reply { answer: Answer::Stranger, templates: vec![] }),
            Err(failure) => Err(explain(failure, &waiting.request)),
        };
        // Who doesn't wait any more doesn't need the answer.
        drop(reply.send(result));
        Ok(())
    }

    fn take_event(&mut self, event: Event, templates: Vec<Vec<u8>>) -> Result<(), DownReason> {
        let event = match event {
            Event::Devices(devices) => {
                self.slow.retain(|slow| devices.iter().any(|device| device.serial == *slow));
                HostEvent::Devices(devices)
            }
            Event::InitFailed(code) => HostEvent::InitFailed(ReaderError::InitFailed { code }),
            Event::Touch { serial, touch, capture, quality, width, height } => {
                let template = <[Vec<u8>; 1]>::try_from(templates)
                    .map_err(|_| DownReason::Protocol("a touch without a template".into()))?;
                let [template] = template;
                match SdkTemplate::new(template) {
                    Ok(template) => HostEvent::Touch(Touch {
                        serial,
                        touch,
                        capture,
                        template,
                        quality,
                        width,
                        height,
                    }),
                    Err(error) => bad_capture(serial, error.to_string()),
                }
            }
            Event::BadPlacement { serial, touch } => HostEvent::BadPlacement { serial, touch },
            Event::Lifted { serial, touch } => HostEvent::Lifted { serial, touch },
            Event::Problem { serial, problem } => {
                if matches!(problem, Problem::Slow { .. }) && !self.slow.insert(serial.clone()) {
                    return Ok(());
                }
                problem_event(serial, problem)
            }
            Event::Recovered { serial } => {
                self.slow.remove(&serial);
                HostEvent::ReaderRecovered { serial }
            }
        };
        self.events.push_back(event);
        Ok(())
    }

    /// A call that lasts too long fails those who wait; one that lasts much too long ends the host.
    fn judge(&mut self, call: Option<CurrentCall>, config: &HostConfig) -> Result<(), DownReason> {
        let Some(call) = call else { return Ok(()) };
        let lasted = Duration::from_millis(call.for_ms);
        if lasted >= config.dead_call {
            return Err(DownReason::CallTooLong { call: call.name, time: lasted });
        }
        if lasted < config.slow_call {
            return Ok(());
        }
        for waiting in self.waiting.values_mut() {
            let waited = waiting.since.elapsed();
            if let Some(reply) = waiting.reply.take_if(|_| waited >= config.slow_call) {
                let operation = waiting.request.operation();
                drop(reply.send(Err(ReaderError::NoAnswer { operation, waited })));
            }
        }
        if let Some(serial) = call.serial.filter(|serial| self.slow.insert(serial.clone())) {
            let error = ReaderError::NoAnswer { operation: "capture", waited: lasted };
            self.events.push_back(HostEvent::ReaderError { serial, error });
        }
        Ok(())
    }

    fn fail_all(&mut self, error: impl Fn(&'static str) -> ReaderError) {
        for (_, waiting) in self.waiting.drain() {
            if let Some(reply) = waiting.reply {
                drop(reply.send(Err(error(waiting.request.operation()))));
            }
        }
    }

    /// Asks the child to end, and waits for it.
    async fn stop(mut self) -> Ended {
        let asked = timeout(END_DEADLINE, async {
            let asked = self.send(Down::Stop, vec![]).await;
            if asked.is_ok() {
                drop((&mut self.process.exit).await);
            }
        });
        if asked.await.is_err() {
            tracing::warn!(pid = self.process.pid, "the reader host doesn't stop; ending it");
            self.process.kill();
            drop(timeout(END_DEADLINE, &mut self.process.exit).await);
        }
        Ended::Stopped
    }

    /// The socket has ended; the process says why.
    async fn exit_reason(&mut self) -> DownReason {
        match timeout(END_DEADLINE, &mut self.process.exit).await {
            Ok(Ok(status)) => exit_reason(status),
            Ok(Err(_)) | Err(_) => DownReason::Exited(None),
        }
    }
}

fn exit_reason(status: ExitStatus) -> DownReason {
    match status.signal() {
        Some(signal) => DownReason::Crashed { signal },
        None => DownReason::Exited(status.code()),
    }
}

fn not_understood(error: crate::frame::FrameError) -> DownReason {
    DownReason::Protocol(error.to_string())
}

fn out_of_turn(message: &Up) -> DownReason {
    let name = match message {
        Up::Welcome { .. } => "a greeting",
        Up::Refused { .. } => "a refusal",
        Up::Loaded { .. } => "a loaded library",
        Up::NotLoaded { .. } => "a failed load",
        Up::Reply { .. } => "a reply",
        Up::Event(_) => "an event",
        Up::Heartbeat { .. } => "a heartbeat",
    };
    DownReason::Protocol(format!("{name} out of turn"))
}

fn bad_capture(serial: Serial, reason: String) -> HostEvent {
    let error = ReaderError::BadCapture { serial: serial.clone(), reason };
    HostEvent::ReaderError { serial, error }
}

fn problem_event(serial: Serial, problem: Problem) -> HostEvent {
    let error = match problem {
        Problem::Busy => ReaderError::Busy { serial: serial.clone() },
        Problem::Slow { for_ms } => {
            ReaderError::NoAnswer { operation: "capture", waited: Duration::from_millis(for_ms) }
        }
        Problem::Failing(code) => ReaderError::Failing { serial: serial.clone(), code },
        Problem::BadTemplate { length } => {
            return bad_capture(serial, format!("a template of {length} bytes"));
        }
    };
    HostEvent::ReaderError { serial, error }
}

/// A failure in the words of who asked.
fn explain(failure: Failure, request: &Request) -> ReaderError {
    let operation = request.operation();
    match (failure, request) {
        (
            Failure::UnknownReader,
            Request::Arm { serial, .. }
            | Request::Recapture { serial }
            | Request::Test { serial }
            | Request::Info { serial },
        ) => ReaderError::UnknownReader { serial: serial.clone() },
        (Failure::NoMatcher, _) => ReaderError::NoMatcher { operation },
        (Failure::GalleryNotLoaded, _) => ReaderError::GalleryNotLoaded,
        (Failure::GalleryFull, _) => ReaderError::GalleryFull,
        (Failure::Sdk(code), Request::Test { serial }) => {
            ReaderError::Failing { serial: serial.clone(), code }
        }
        (Failure::Sdk(code @ SdkCode::MERGE_FAILED), _) => ReaderError::NotOneFinger { code },
        (Failure::Sdk(code), _) => ReaderError::MatcherFailed { operation, code },
        (Failure::UnknownReader | Failure::NoFinger | Failure::Malformed, _) => {
            ReaderError::Protocol { operation }
        }
    }
}
