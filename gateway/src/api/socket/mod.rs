//! The WebSocket on `/` and `/ws`: the driver. What a message means is decided in [`talk`].
//!
//! Each socket has one task and a bounded queue towards its peer. A peer that reads too slowly for
//! either the queue or the journal's broadcast is cut (1013) and counted; it never holds anything
//! up. Events are those of the journal, byte for byte; see [`talk::Talk::admit`] for who gets which.

mod talk;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{
    Sink, SinkExt as _, Stream, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, interval_at, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use topics::{ErrorBody, ErrorCode, record::Cause};

pub(super) use self::talk::without_user;
use self::talk::{Answer, Ask, Start, Talk};
use super::{
    Shared,
    auth::{Caller, Credential},
    error::{ApiError, ApiResult},
    layers::socket_origin_allowed,
    now,
};
use crate::journal::Committed;

/// Messages waiting for a peer: an enrolment has about a dozen, so that this is several readers'
/// worth of a second in which a peer doesn't read.
const QUEUE_MESSAGES: usize = 256;
/// The largest message of a client.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// A peer that takes nothing for so long is cut.
const WRITE_WAIT: Duration = Duration::from_secs(20);
/// A close frame is worth this wait.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Close codes.
mod code {
    pub(super) const STOPPING: u16 = 1001;
    pub(super) const UNAUTHENTICATED: u16 = 1008;
    pub(super) const TOO_LARGE: u16 = 1009;
    pub(super) const TOO_SLOW: u16 = 1013;
    pub(super) const SILENT: u16 = 4408;
}

/// The sockets' waits.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A client that has not shown a credential by then is cut.
    pub auth: Duration,
    /// Between two pings.
    pub ping: Duration,
    /// A client without any sign of life for so long is cut.
    pub silence: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            auth: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            silence: Duration::from_secs(60),
        }
    }
}

/// The open sockets' account.
pub(super) struct Sockets {
    most: usize,
    open: AtomicUsize,
    overflowed: AtomicU64,
    timing: Timing,
}

impl Sockets {
    pub(super) fn new(most: usize, timing: Timing) -> Self {
        Self { most, open: AtomicUsize::new(0), overflowed: AtomicU64::new(0), timing }
    }

    /// Sockets that were cut because their peer read too slowly.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}

/// One of the sockets that may be open at a time.
struct Seat(Arc<Shared>);

impl Seat {
    fn take(shared: &Arc<Shared>) -> ApiResult<Self> {
        let seat = Seat(shared.clone());
        if shared.sockets.open.fetch_add(1, Ordering::Relaxed) < shared.sockets.most {
            return Ok(seat);
        }
        Err(ApiError::new(ErrorCode::ServiceUnavailable, "Too many open WebSockets")
            .with("reason", "overload"))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sockets.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `/`: a socket where one is asked for; a browser's plain visit goes to the admin page.
pub(super) async fn at_root(
    state: State<Arc<Shared>>,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => open(state, query, headers, upgrade),
        Err(_) => (StatusCode::FOUND, [(header::LOCATION, "/admin")]).into_response(),
    }
}

/// `/ws`: a socket; 426 where none is asked for.
pub(super) async fn at_ws(
    state: State<Arc<Shared>>,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => open(state, query, headers, upgrade),
        Err(_) => {
            let error = ApiError::http(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket");
            let mut response = error.into_response();
            let websocket = header::HeaderValue::from_static("websocket");
            response.headers_mut().insert(header::UPGRADE, websocket);
            response
        }
    }
}

fn open(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !socket_origin_allowed(&shared.cors_origins, &headers) {
        let message = "Pages of this origin may not connect (api.cors_origins)";
        return ApiError::http(StatusCode::FORBIDDEN, message).into_response();
    }
    let seat = match Seat::take(&shared) {
        Ok(seat) => seat,
        Err(error) => return error.into_response(),
    };
    let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, text)| &**text);
    let shown = Credential::from_headers(&headers)
        .or(value("apiKey").map(Credential::ApiKey))
        .or(value("token").map(Credential::Bearer));
    let handshake = shown.map(|shown| shared.keys.caller(Some(shown)).map_err(ApiError::into_body));
    upgrade.max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES).on_upgrade(
        move |socket| {
            let tracker = shared.tracker.clone();
            tracker.track_future(run(seat, socket, handshake))
        },
    )
}

/// Why a socket ends.
enum End {
    /// With this close code, after what is queued.
    Close(u16, Cow<'static, str>),
    /// At once: its peer reads too slowly.
    TooSlow,
    /// The peer is gone.
    Gone,
}

async fn run(seat: Seat, socket: WebSocket, handshake: Option<Result<Caller, ErrorBody>>) {
    let (sink, stream) = socket.split();
    let (queue, waiting) = mpsc::channel(QUEUE_MESSAGES);
    let cut = CancellationToken::new();
    let conversation = async {
        let shared = &seat.0;
        let mut socket = Socket {
            shared,
            live: shared.journal.live(),
            talk: Talk::new(Instant::now(), shared.sockets.timing),
            queue: &queue,
        };
        match socket.converse(stream, handshake).await {
            End::Close(code, reason) => {
                let reason = Utf8Bytes::from(reason.as_ref());
                let close = Message::Close(Some(CloseFrame { code, reason }));
                // Queued behind what is there; a queue that doesn't move isn't waited for long.
                if timeout(CLOSE_WAIT, queue.send(close)).await.is_err() {
                    cut.cancel();
                }
            }
            End::TooSlow => {
                shared.sockets.overflowed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a WebSocket was cut: its peer reads too slowly");
                cut.cancel();
            }
            End::Gone => cut.cancel(),
        }
    };
    tokio::join!(conversation, write(sink, waiting, &cut));
}

/// Sends what waits, until a close frame went, the peer takes nothing, or the socket is cut.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut waiting: mpsc::Receiver<Message>,
    cut: &CancellationToken,
) {
    loop {
        let message = tokio::select! {
            biased;
            () = cut.cancelled() => break,
            message = waiting.recv() => message,
        };
        let Some(message) = message else { break };
        let last = matches!(message, Message::Close(_));
        tokio::select! {
            biased;
            () = cut.cancelled() => break,
            sent = timeout(WRITE_WAIT, sink.send(message)) => match sent {
                Ok(Ok(())) if !last => {}
                _ => break,
            },
        }
    }
    waiting.close();
    if cut.is_cancelled() {
        let close = CloseFrame { code: code::TOO_SLOW, reason: "too slow".into() };
        let _ = timeout(CLOSE_WAIT, sink.send(Message::Close(Some(close)))).await;
    }
    let _ = timeout(CLOSE_WAIT, close(&mut sink)).await;
}

async fn close<S: Sink<Message> + Unpin>(sink: &mut S) {
    // The peer may be gone already: there is nobody to tell.
    let _ = sink.close().await;
}

/// One socket while it is open.
struct Socket<'a> {
    shared: &'a Arc<Shared>,
    live: broadcast::Receiver<Arc<Committed>>,
    talk: Talk,
    queue: &'a mpsc::Sender<Message>,
}

impl Socket<'_> {
    async fn converse(
        &mut self,
        mut stream: SplitStream<WebSocket>,
        handshake: Option<Result<Caller, ErrorBody>>,
    ) -> End {
        let timing = self.shared.sockets.timing;
        let mut pings = interval_at(Instant::now() + timing.ping, timing.ping);
        if let Some(shown) = handshake {
            let answers = self.talk.signed_in(shown, None, now());
            if let Err(end) = answers.into_iter().try_for_each(|answer| self.send(answer)) {
                return end;
            }
        }
        loop {
            let step = tokio::select! {
                () = self.shared.token.cancelled() => {
                    return End::Close(code::STOPPING, "the service is stopping".into());
                }
                () = self.queue.closed() => return End::Gone,
                message = next(&mut stream) => self.received(message).await,
                committed = self.live.recv() => self.committed(committed),
                _ = pings.tick() => self.ping(),
                () = sleep_until(self.talk.deadline()) => Err(self.late()),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn received(&mut self, message: Received) -> Result<(), End> {
        self.talk.alive(Instant::now());
        match message {
            Received::Text(text) => {
                let shared = self.shared;
                let reader = |wanted: &str| shared.known_reader(wanted).map(|reader| reader.id);
                let asked = self.talk.text(&text, &shared.keys, &reader, now());
                for ask in asked {
                    self.ask(ask).await?;
                }
                Ok(())
            }
            Received::Sign => Ok(()),
            Received::TooLarge => {
                Err(End::Close(code::TOO_LARGE, "a message may have 256 KiB".into()))
            }
            Received::Gone => Err(End::Gone),
        }
    }

    async fn ask(&mut self, ask: Ask) -> Result<(), End> {
        match ask {
            Ask::Answer(answer) => self.send(answer),
            Ask::Start(caller, start) => {
                let failure = self.start(&caller, &start).await.err();
                self.refused(failure, start.request_id, start.device)
            }
            Ask::Stop { caller, scan_id, request_id } => {
                let stopped = self.shared.operations.stop(&scan_id, &caller.owner()).await;
                self.refused(stopped.err(), request_id, None)
            }
        }
    }

    /// Starts what a client asked for. What follows comes to it as events.
    async fn start(&self, caller: &Caller, start: &Start) -> Result<(), ErrorBody> {
        caller.need(start.permission).map_err(ApiError::into_body)?;
        let standing = self.shared.requests.take(caller.key(), now());
        if !standing.allowed {
            return Err(standing.error("requests"));
        }
        let request = start.request.clone();
        let cause = Cause { command_id: None, request_id: start.request_id.clone() };
        let device = start.device.as_deref();
        self.shared.begin(caller, device, request, cause).await.map_err(ApiError::into_body)?;
        Ok(())
    }

    fn refused(
        &mut self,
        failure: Option<ErrorBody>,
        request_id: Option<String>,
        device: Option<String>,
    ) -> Result<(), End> {
        match failure {
            Some(error) => self.send(talk::scan_error(&error, request_id, device, now())),
            None => Ok(()),
        }
    }

    fn committed(
        &mut self,
        committed: Result<Arc<Committed>, broadcast::error::RecvError>,
    ) -> Result<(), End> {
        match committed {
            Ok(committed) => match self.talk.admit(&committed) {
                Some(text) => self.push(Message::Text(text)),
                None => Ok(()),
            },
            Err(broadcast::error::RecvError::Lagged(_)) => Err(End::TooSlow),
            Err(broadcast::error::RecvError::Closed) => {
                Err(End::Close(code::STOPPING, "the service is stopping".into()))
            }
        }
    }

    fn ping(&mut self) -> Result<(), End> {
        self.send(talk::ping(now()))?;
        self.push(Message::Ping(Default::default()))
    }

    fn late(&self) -> End {
        if self.talk.is_signed_in() {
            return End::Close(code::SILENT, "no sign of life".into());
        }
        match self.send(talk::auth_late(now())) {
            Ok(()) => End::Close(code::UNAUTHENTICATED, "not authenticated in time".into()),
            Err(end) => end,
        }
    }

    fn send(&self, answer: Answer) -> Result<(), End> {
        match answer {
            Answer::Message(value) => self.push(Message::Text(value.to_string().into())),
            Answer::Close(reason) => Err(End::Close(code::UNAUTHENTICATED, reason.into())),
        }
    }

    fn push(&self, message: Message) -> Result<(), End> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => End::TooSlow,
            mpsc::error::TrySendError::Closed(_) => End::Gone,
        })
    }
}

/// What came from a peer.
enum Received {
    Text(Utf8Bytes),
    /// Nothing to read, but a sign of life.
    Sign,
    TooLarge,
    Gone,
}

async fn next<S>(stream: &mut S) -> Received
where
    S: Stream<Item = Result<Message, axum::Error>> + Unpin,
{
    match stream.next().await {
        Some(Ok(Message::Text(text))) => Received::Text(text),
        // Documented clients send text; one that frames it as binary is understood too.
        Some(Ok(Message::Binary(bytes))) => match Utf8Bytes::try_from(bytes) {
            Ok(text) => Received::Text(text),
            Err(_) => Received::Sign,
        },
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::Sign,
        Some(Ok(Message::Close(_))) | None => Received::Gone,
        Some(Err(error)) if error.to_string().contains("too long") => Received::TooLarge,
        Some(Err(_)) => Received::Gone,
    }
}
