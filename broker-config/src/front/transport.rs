//! From an accepted socket to the bytes of MQTT: PROXY header, TLS, WebSocket, as the listener has it.
//!
//! Each step has [`HANDSHAKE`] at most; silent and slow peers (K6) wait in a task of their own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::{Listener, Transport},
    refusal::Refusal,
    shared::Shared,
    tls,
};

use super::{proxy, websocket};

/// For each of PROXY header, TLS handshake and WebSocket handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Bytes both ways, whatever carries them.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

impl Peer {
    /// Of a line of our own.
    pub(crate) fn nowhere() -> Self {
        Self::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }
}

/// Who is at the other end, as far as it is known before CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client's, also behind a proxy.
    pub(crate) address: SocketAddr,
    /// The name in its certificate, which was checked.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) transport: Transport,
    pub(crate) tls: bool,
}

impl Peer {
    /// Over TCP alone, without a certificate.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, certificate: None, transport: Transport::Tcp, tls: false }
    }
}

/// What a client's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certificate {
    User(String),
    /// It was issued by whom we trust, but names no single user.
    Nameless,
}

/// A socket from which MQTT can be read.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Wire>,
    pub(super) peer: Peer,
}

/// The client's address: the socket's, or what the listener's proxy says.
pub(super) async fn address(
    stream: &mut TcpStream,
    socket: SocketAddr,
    listener: &Listener,
) -> Result<SocketAddr, Refusal> {
    // On a listener for both families, IPv4 addresses come mapped.
    let socket = SocketAddr::new(socket.ip().to_canonical(), socket.port());
    if listener.proxies.is_empty() {
        return Ok(socket);
    }
    if !listener.proxies.contains(&socket.ip()) {
        return Err(Refusal::Proxy);
    }
    match timeout(HANDSHAKE, proxy::read(stream, socket)).await {
        Ok(Ok(address)) => Ok(address),
        Ok(Err(_)) | Err(_) => Err(Refusal::Proxy),
    }
}

/// TLS and WebSocket, where the listener has them.
pub(super) async fn open(
    stream: TcpStream,
    address: SocketAddr,
    listener: &Listener,
    shared: &Shared,
) -> Result<Opened, Refusal> {
    let mut peer =
        Peer { transport: listener.transport, tls: listener.tls, ..Peer::plain(address) };
    let stream: Box<dyn Wire> = match (&shared.tls, listener.tls) {
        (_, false) => Box::new(stream),
        (None, true) => return Err(Refusal::Tls),
        (Some(tls), true) => {
            let accepting = TlsAcceptor::from(tls.config()).accept(stream);
            let stream = match timeout(HANDSHAKE, accepting).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(broker = %shared.name, %address, %error, "TLS handshake failed");
                    return Err(Refusal::Tls);
                }
                Err(_) => return Err(Refusal::Tls),
            };
            let (_, session) = stream.get_ref();
            peer.certificate = session.peer_certificates().and_then(<[_]>::first).map(|first| {
                tls::common_name(first).map_or(Certificate::Nameless, Certificate::User)
            });
            Box::new(stream)
        }
    };
    let stream = match listener.transport {
        Transport::Tcp => stream,
        Transport::WebSocket => {
            let max_bytes = shared.max_packet_bytes() + 5;
            let accepting = websocket::accept(stream, listener, max_bytes);
            match timeout(HANDSHAKE, accepting).await {
                Ok(accepted) => Box::new(accepted?),
                Err(_) => return Err(Refusal::WebSocket),
            }
        }
    };
    Ok(Opened { stream, peer })
}
