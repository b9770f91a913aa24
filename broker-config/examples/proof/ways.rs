//! Streams to the broker over TLS and WebSocket.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

use super::client::{Wire, dial, timed};

/// What clients of a broker with its own authority trust.
pub(crate) fn trust(authority: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A TLS stream from 127.0.0.`from`.
pub(crate) async fn tls(
    to: SocketAddr,
    from: u8,
    config: Arc<ClientConfig>,
) -> io::Result<impl Wire + 'static> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let stream = dial(to, from).await?;
    timed(TlsConnector::from(config).connect(name, stream)).await
}

/// Bytes in WebSocket messages over `stream`; a task between carries them until one side ends.
pub(crate) async fn websocket(stream: impl Wire + 'static) -> io::Result<impl Wire + 'static> {
    let mut request = "ws://localhost/mqtt".into_client_request().map_err(io::Error::other)?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let shake = async { client_async(request, stream).await.map_err(io::Error::other) };
    let (mut socket, _) = timed(shake).await?;
    let (near, mut far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let mut chunk = [0; 8_192];
        loop {
            tokio::select! {
                read = far.read(&mut chunk) => match read {
                    Ok(read) if read > 0 => {
                        let message = Message::binary(chunk[..read].to_vec());
                        if socket.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(_) => return,
                },
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        if far.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        }
    });
    Ok(near)
}
