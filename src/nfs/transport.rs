//! Transport: TCP with RPC record marking (RFC 5531 §11), protected against malicious servers.
//!
//! `nfs3_client` allocates as much memory as a record announces, up to 2 GiB. It does the same with lengths inside
//! the record, and it reads forever from a connection that has ended. A process that listens on the port must not be
//! able to kill the agent this way. So [`Records`] validates each record before the decoder reads it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nfs3_client::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

/// Longest accepted reply, in bytes. The longest expected ones contain a page of data, or part of a directory.
pub(super) const REPLY_MAX_BYTES: u32 = 16384;

/// Longest verifier, in bytes: `opaque body<400>` in RFC 5531 §8.2.
const VERIFIER_MAX_BYTES: u32 = 400;

/// Length of a record mark, in bytes (RFC 5531 §11).
const RECORD_MARK_BYTES: usize = 4;

/// Position of the verifier's length in an accepted reply: after transaction id, message type, reply status and
/// flavor (RFC 5531 §9).
const VERIFIER_LENGTH_AT: std::ops::Range<usize> = 16..20;

/// Source ports that an export without `insecure` accepts. Ports below 665 are left to services of this host, as the
/// kernel does (`sunrpc.min_resvport` and `max_resvport`).
const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 665..=1023;

/// Connection that reads records of a bounded length.
pub(super) struct Records {
    stream: TcpStream,
    /// Length of a record whose mark was read but whose content was not.
    announced: Option<usize>,
}

impl Records {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, announced: None }
    }
}

impl AsyncRead for Records {
    async fn async_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).await
    }

    async fn async_read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(buf).await?;
        match self.announced.take() {
            None => self.announced = Some(record_length(buf)?),
            Some(length) if length != buf.len() => {
                return Err(invalid("the length of the reply differs from its record mark"));
            }
            Some(_) => check_verifier(buf)?,
        }
        Ok(())
    }
}

impl AsyncWrite for Records {
    async fn async_write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf).await
    }

    async fn async_write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.stream.write_all(buf).await
    }
}

fn record_length(mark: &[u8]) -> io::Result<usize> {
    let mark: [u8; RECORD_MARK_BYTES] = mark.try_into().map_err(|_| invalid("the reply has no record mark"))?;
    // The highest bit marks the last fragment of a record.
    let length = u32::from_be_bytes(mark) & 0x7fff_ffff;
    if length > REPLY_MAX_BYTES {
        return Err(invalid("the reply is longer than any valid one"));
    }
    usize::try_from(length).map_err(|_| invalid("the reply is longer than memory"))
}

fn check_verifier(reply: &[u8]) -> io::Result<()> {
    let Some(length) = reply.get(VERIFIER_LENGTH_AT).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    else {
        // Too short for a verifier: a denial, or a reply that the decoder rejects.
        return Ok(());
    };
    // A denial has a version number at this position, which is small.
    if length > VERIFIER_MAX_BYTES {
        Err(invalid("the verifier of the reply is longer than RFC 5531 allows"))
    } else {
        Ok(())
    }
}

fn invalid(detail: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

/// Connects from a reserved source port, which exports require unless they are `insecure`. Uses another port if this
/// process may not use a reserved one, or all are in use. The caller sets the deadline.
///
/// # Errors
/// Of connect(2).
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let any = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // The first port is random, so that two targets rarely try the same ports.
    let count = RESERVED_PORTS.end() - RESERVED_PORTS.start() + 1;
    let (_, begin, ..) = Uuid::new_v4().as_fields();
    for offset in 0..count {
        let port = RESERVED_PORTS.start() + (begin % count + offset) % count;
        let socket = socket(address)?;
        match socket.bind(SocketAddr::new(any, port)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(_) => break,
        }
        match socket.connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            outcome => return outcome,
        }
    }
    socket(address)?.connect(address).await
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Otherwise a port stays in TIME_WAIT for a minute after each use, and there are only 359.
    socket.set_zero_linger()?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_reply_is_rejected_before_allocation() {
        assert_eq!(record_length(&[0x80, 0, 0, 24]).expect("short"), 24);
        assert!(record_length(&[0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(record_length(b"HTTP").is_err());
        let mut reply = [0_u8; 24];
        assert!(check_verifier(&reply).is_ok());
        reply[VERIFIER_LENGTH_AT].copy_from_slice(&401_u32.to_be_bytes());
        assert!(check_verifier(&reply).is_err());
    }
}
