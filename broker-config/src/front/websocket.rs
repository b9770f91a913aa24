//! MQTT in WebSocket messages: the handshake, and the stream of bytes that the rest of the front sees.
//!
//! | asked | answer |
//! |---|---|
//! | subprotocol `mqtt` among those offered | 101; else 400 |
//! | no `Origin` | 101: no browser |
//! | an `Origin` that the listener names, or that is this very listener | 101: some clients that are no browsers (paho) name the latter, and no page of another comes from there |
//! | any other `Origin` | 403: no web page connects on behalf of its visitor |
//! | any path | the same |
//!
//! MQTT packets may cross the borders of messages, either way. A text message ends the connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message,
        handshake::server::{Callback, ErrorResponse, Request, Response},
        http::{HeaderMap, HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use crate::{config::Listener, refusal::Refusal};

const SUBPROTOCOL: &str = "mqtt";
/// Instead of the default 128 KiB, for each connection.
const READ_BUFFER_BYTES: usize = 8 << 10;

/// Takes the handshake. Messages may have `max_bytes`, the largest packet.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    listener: &Listener,
    max_bytes: usize,
) -> Result<WebSocket<S>, Refusal> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(max_bytes))
        .max_frame_size(Some(max_bytes));
    let mut refused = None;
    let check = Check { listener, refused: &mut refused };
    match accept_hdr_async_with_config(stream, check, Some(config)).await {
        Ok(inner) => Ok(WebSocket::new(inner)),
        Err(_) => Err(refused.unwrap_or(Refusal::WebSocket)),
    }
}

struct Check<'a> {
    listener: &'a Listener,
    refused: &'a mut Option<Refusal>,
}

impl Callback for Check<'_> {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        let headers = request.headers();
        if !offers_mqtt(headers) {
            return Err(error(
                StatusCode::BAD_REQUEST,
                "this is MQTT: ask for the subprotocol mqtt\n",
            ));
        }
        if !is_allowed(headers, self.listener) {
            *self.refused = Some(Refusal::Origin);
            return Err(error(StatusCode::FORBIDDEN, "this page's origin may not connect here\n"));
        }
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        Ok(response)
    }
}

fn offers_mqtt(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|offered| offered.trim() == SUBPROTOCOL)
}

fn is_allowed(headers: &HeaderMap, listener: &Listener) -> bool {
    let mut given = headers.get_all(header::ORIGIN).iter();
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some(origin), None) => {
            let is_origin =
                |allowed: &str| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
            listener.origins.iter().any(|allowed| is_origin(allowed))
                || own_origin(headers, listener.tls).is_some_and(|own| is_origin(&own))
        }
        (Some(_), Some(_)) => false,
    }
}

/// The origin of a page that this listener would serve, if it served any. Without TLS only by address:
/// a name may be one that a stranger lets point here.
fn own_origin(headers: &HeaderMap, tls: bool) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    if tls {
        return Some(format!("https://{host}"));
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    (is_address || name == "localhost").then(|| format!("http://{host}"))
}

fn error(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = status;
    response
}

/// The bytes inside the messages.
pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<S>,
    unread: Bytes,
}

impl<S> WebSocket<S> {
    /// After the handshake.
    pub(crate) fn new(inner: WebSocketStream<S>) -> Self {
        Self { inner, unread: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                // Their answers are the library's business.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let what = "MQTT travels in binary messages";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(ended(error)),
            }
        }
        let take = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..take]);
        self.unread.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(context)).map_err(failed)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.inner).start_send(message).map_err(failed)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context).map_err(failed)
    }
}

/// An orderly end is the end of the bytes.
fn ended(error: Error) -> io::Result<()> {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Ok(()),
        other => Err(failed(other)),
    }
}

fn failed(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
