//! The PROXY protocol's header, version 2: a proxy tells whose connection it passes on.
//!
//! Believed only from the addresses that the listener names; without one, or from elsewhere, the
//! connection ends. A proxy's own (`LOCAL`, a health check) counts as the proxy's.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, command, family, length.
const FIXED_BYTES: usize = 16;
/// Addresses and extensions; real ones have some hundred bytes.
const MAX_REST_BYTES: usize = 2_048;

/// Reads the header; gives the client's address, or `proxy` for a connection of the proxy's own.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    proxy: SocketAddr,
) -> io::Result<SocketAddr> {
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(invalid("no PROXY protocol v2 header"));
    }
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if rest > MAX_REST_BYTES {
        return Err(invalid("PROXY header too long"));
    }
    header.resize(FIXED_BYTES + rest, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    let header = Header::try_from(header.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match (header.command, header.addresses) {
        (Command::Local, _) => Ok(proxy),
        (Command::Proxy, Addresses::IPv4(a)) => {
            Ok((IpAddr::from(a.source_address), a.source_port).into())
        }
        (Command::Proxy, Addresses::IPv6(a)) => {
            Ok((IpAddr::from(a.source_address).to_canonical(), a.source_port).into())
        }
        (Command::Proxy, Addresses::Unspecified | Addresses::Unix(_)) => {
            Err(invalid("PROXY header without an IP address"))
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1:7";

    async fn read_bytes(mut bytes: &[u8]) -> Result<(String, usize), String> {
        let proxy = PROXY.parse().unwrap();
        let address = read(&mut bytes, proxy).await.map_err(|error| error.to_string())?;
        Ok((address.to_string(), bytes.len()))
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [PROTOCOL_PREFIX, &[0x20 | command, family], &len, rest].concat()
    }

    #[tokio::test]
    async fn the_clients_address_is_taken_and_no_byte_more_is_read() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let with_extension = [&v4[..], &[4, 0, 1, 42]].concat();
        let bytes = [header(1, 0x11, &with_extension), b"MQTT".to_vec()].concat();
        assert_eq!(read_bytes(&bytes).await, Ok(("192.0.2.7:4660".into(), 4)));
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0, 5, 0, 80]].concat();
        assert_eq!(read_bytes(&header(1, 0x21, &v6)).await, Ok(("[2001:db8::9]:5".into(), 0)));
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 7], &[0; 16], &[0, 5, 0, 80]].concat();
        assert_eq!(read_bytes(&header(1, 0x21, &mapped)).await, Ok(("192.0.2.7:5".into(), 0)));
        assert_eq!(read_bytes(&header(0, 0, &[])).await, Ok((PROXY.into(), 0)));
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = header(1, 0x11, &[0; 3_000]);
        let cut = &header(1, 0x11, &[0; 12])[..20];
        let short = header(1, 0x11, &[1, 2, 3]);
        let unix = header(1, 0x31, &[0; 216]);
        let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n";
        for bytes in [&long[..], cut, &short, &unix, v1, b"\x10\x0c\0\x04MQTT"] {
            assert!(read_bytes(bytes).await.is_err(), "{bytes:?}");
        }
    }
}
