//! A client that says what it is told, over any stream.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::packets::{self, Connect, Version};

/// Something that took longer went wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a client runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A packet from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    pub(crate) fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The two bytes that acknowledgements begin with.
    pub(crate) fn id(&self) -> u16 {
        match self.body[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }
}

/// A stream to `to` that comes from 127.0.0.`from`, so that some clients have an address to themselves.
pub(crate) async fn dial(to: SocketAddr, from: u8) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0).into())?;
    let stream = timed(socket.connect(to)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A result in time, or an error.
pub(crate) async fn timed<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, what).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client<S = TcpStream> {
    pub(crate) version: Version,
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl Client {
    /// Connected from 127.0.0.`from`; the CONNACK said yes.
    pub(crate) async fn connect(to: SocketAddr, from: u8, connect: &Connect) -> io::Result<Self> {
        let mut client = Self::over(dial(to, from).await?, connect.version);
        client.hello(connect).await?;
        Ok(client)
    }
}

impl<S: Wire> Client<S> {
    pub(crate) fn over(stream: S, version: Version) -> Self {
        Self { version, stream, buffer: Vec::new() }
    }

    /// Says CONNECT; an error if the answer isn't yes.
    pub(crate) async fn hello(&mut self, connect: &Connect) -> io::Result<()> {
        let code = self.hello_code(connect).await?;
        if code == 0 { Ok(()) } else { Err(io::Error::other(format!("CONNACK says {code:#x}"))) }
    }

    /// Says CONNECT; the CONNACK's code.
    pub(crate) async fn hello_code(&mut self, connect: &Connect) -> io::Result<u8> {
        self.send(&connect.bytes()).await?;
        let ack = self.expect(packets::CONNACK).await?;
        ack.body.get(1).copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timed(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// The next packet, however long it takes. May be cancelled without losing bytes.
    pub(crate) async fn next(&mut self) -> io::Result<Packet> {
        loop {
            if let Some((body, end)) = packets::frame(&self.buffer) {
                let packet =
                    Packet { first: self.buffer[0], body: self.buffer[body..end].to_vec() };
                self.buffer.drain(..end);
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next packet of this kind, in time; others are passed over.
    pub(crate) async fn expect(&mut self, kind: u8) -> io::Result<Packet> {
        timed(async {
            loop {
                let packet = self.next().await?;
                if packet.kind() == kind {
                    return Ok(packet);
                }
            }
        })
        .await
    }

    /// Subscribes one filter; an error unless it is granted.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        self.send(&packets::subscribe(self.version, 1, &[filter], qos)).await?;
        let ack = self.expect(packets::SUBACK).await?;
        match ack.body.last() {
            Some(granted) if *granted <= 2 => Ok(()),
            code => Err(io::Error::other(format!("SUBACK for {filter} says {code:?}"))),
        }
    }

    /// Reads to the end, which must come in time.
    pub(crate) async fn rest(&mut self) -> io::Result<()> {
        let mut waste = [0; 4_096];
        timed(async {
            loop {
                match self.stream.read(&mut waste).await {
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(_) => {}
                }
            }
        })
        .await
    }
}
