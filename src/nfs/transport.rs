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

/// Source ports that an export without `insecure` accepts. The kernel mounts from ports 665 to 1023
/// (`sunrpc.min_resvport` and `max_resvport`), and those below 704 are left to it.
const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 704..=1023;

/// Bit of a record mark for the last fragment of a record.
const LAST_FRAGMENT: u32 = 0x8000_0000;

/// Maximum number of fragments of a reply. Servers send one for each buffer, so a handful.
const FRAGMENTS_MAX: usize = 64;

/// Connection that reads records of a bounded length.
#[derive(Debug)]
pub struct Records {
    stream: TcpStream,
    /// A received record. The decoder has consumed only its length.
    received: Option<Vec<u8>>,
}

impl From<TcpStream> for Records {
    fn from(stream: TcpStream) -> Self {
        Self { stream, received: None }
    }
}

impl Records {
    /// Address and port of the server.
    ///
    /// # Errors
    /// Of getpeername(2), when the connection has ended.
    pub fn server(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

/// For a client of one call, which leaves the connection to another client.
impl AsyncRead for &mut Records {
    async fn async_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (**self).async_read(buf).await
    }

    async fn async_read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        (**self).async_read_exact(buf).await
    }
}

impl AsyncWrite for &mut Records {
    async fn async_write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (**self).async_write(buf).await
    }

    async fn async_write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        (**self).async_write_all(buf).await
    }
}

impl AsyncRead for Records {
    async fn async_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).await
    }

    /// Reads a record mark, and then the record. `nfs3_client` refuses a record of several fragments, so it gets each
    /// record as one fragment.
    async fn async_read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let bytes = match self.received.take() {
            None => {
                let (record, length) = read_record(&mut self.stream).await?;
                self.received = Some(record);
                (LAST_FRAGMENT | length).to_be_bytes().to_vec()
            }
            Some(record) => record,
        };
        if bytes.len() != buf.len() {
            return Err(invalid("the length of the reply differs from its record mark"));
        }
        buf.copy_from_slice(&bytes);
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

/// Reads the fragments of a record, and verifies it. Returns it with its length.
async fn read_record(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<(Vec<u8>, u32)> {
    let (mut record, mut length) = (Vec::new(), 0);
    for _ in 0..FRAGMENTS_MAX {
        let mut mark = [0; RECORD_MARK_BYTES];
        stream.read_exact(&mut mark).await?;
        let mark = u32::from_be_bytes(mark);
        let (begin, fragment) = (record.len(), mark & !LAST_FRAGMENT);
        length = record_length(length, fragment)?;
        // At most REPLY_MAX_BYTES.
        record.resize(begin + fragment as usize, 0);
        stream.read_exact(&mut record[begin..]).await?;
        if mark & LAST_FRAGMENT != 0 {
            check_verifier(&record)?;
            return Ok((record, length));
        }
    }
    Err(invalid("the reply has more fragments than any valid one"))
}

/// Length of a record after one more fragment.
fn record_length(before: u32, fragment: u32) -> io::Result<u32> {
    let length = before.saturating_add(fragment);
    if length > REPLY_MAX_BYTES { Err(invalid("the reply is longer than any valid one")) } else { Ok(length) }
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

/// Connects from a reserved source port, which exports require unless they are `insecure`. Uses another port only if
/// this process may not use a reserved one. The caller sets the deadline.
///
/// # Errors
/// Of connect(2), or [`io::ErrorKind::AddrInUse`] if no port is free for this server. A refusal of another port would
/// say nothing about the export.
pub async fn connect(address: SocketAddr) -> io::Result<Records> {
    let any = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // The first port is random, so that two targets rarely try the same ports.
    let count = RESERVED_PORTS.end() - RESERVED_PORTS.start() + 1;
    let (_, begin, ..) = Uuid::new_v4().as_fields();
    let mut socket = new_socket(address)?;
    for offset in 0..count {
        let port = RESERVED_PORTS.start() + (begin % count + offset) % count;
        match socket.bind(SocketAddr::new(any, port)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(_) => return new_socket(address)?.connect(address).await.map(Records::from),
        }
        match socket.connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => socket = new_socket(address)?,
            outcome => return outcome.map(Records::from),
        }
    }
    // Fails if the address is the cause and not the ports, as on a host without IPv6.
    new_socket(address)?.connect(address).await?;
    Err(io::Error::new(io::ErrorKind::AddrInUse, "all source ports that an export accepts are in use"))
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections to different servers share a port. So a server that does not answer takes no port from another one.
    socket.set_reuseaddr(true)?;
    // Otherwise a port stays in TIME_WAIT for a minute after each use. There are only 320 reserved ones, and thousands
    // of targets on one server use up the others too.
    socket.set_zero_linger()?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fragments_are_joined_to_a_record_of_bounded_length() {
        let read = |bytes: Vec<u8>| async move { read_record(&mut bytes.as_slice()).await.map(|(record, _)| record) };
        let fragments = |lengths: &[u32]| {
            let last = lengths.len() - 1;
            let fragment = |(index, length): (usize, &u32)| {
                let mark = length | if index == last { LAST_FRAGMENT } else { 0 };
                let content = vec![u8::try_from(index).expect("few"); *length as usize];
                [&mark.to_be_bytes()[..], &content].concat()
            };
            lengths.iter().enumerate().flat_map(fragment).collect::<Vec<u8>>()
        };
        assert_eq!(read(fragments(&[24])).await.expect("one"), [0; 24]);
        let joined = read(fragments(&[20, 0, 5, 3])).await.expect("several");
        assert_eq!(joined, [&[0; 20][..], &[2; 5], &[3; 3]].concat());
        assert_eq!(read(fragments(&[REPLY_MAX_BYTES - 1, 1])).await.expect("long").len(), REPLY_MAX_BYTES as usize);
        for invalid in [fragments(&[REPLY_MAX_BYTES, 1]), fragments(&[0; FRAGMENTS_MAX + 1]), b"HTTP/1.1 400".into()] {
            let error = read(invalid).await.expect_err("not a reply");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        // Its content is not awaited.
        let endless = read(vec![0xff; RECORD_MARK_BYTES]).await.expect_err("too long");
        assert_eq!(endless.kind(), io::ErrorKind::InvalidData);
        let cut = read(fragments(&[4, 4])[..10].to_vec()).await.expect_err("cut");
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn servers_share_source_ports_and_none_gets_an_unreserved_one() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root uses ports below 1024");
            return;
        }
        let listen = async |address| tokio::net::TcpListener::bind(address).await.expect("a listener");
        let (full, other) = (listen("127.0.0.1:0").await, listen("127.0.0.2:0").await);
        let connect_to = async |listener: &tokio::net::TcpListener| {
            let address = listener.local_addr().expect("an address");
            let (connected, accepted) = tokio::join!(connect(address), listener.accept());
            connected.map(|connection| (connection, accepted.expect("accepted")))
        };
        let mut connections = Vec::new();
        let refused = loop {
            match connect_to(&full).await {
                Ok(connection) => connections.push(connection),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{refused}");
        connections.push(connect_to(&other).await.expect("a port"));
        // A few belong to services of this host.
        assert!((300..=RESERVED_PORTS.len() + 1).contains(&connections.len()), "{}", connections.len());
        for (Records { stream, .. }, _) in &connections {
            assert!(RESERVED_PORTS.contains(&stream.local_addr().expect("an address").port()));
            assert_eq!(stream.linger().expect("an option"), Some(std::time::Duration::ZERO));
        }
        connections.remove(0);
        connect_to(&full).await.expect("the port of the ended connection");
    }

    #[test]
    fn oversized_verifier_is_rejected() {
        let mut reply = [0_u8; 24];
        assert!(check_verifier(&reply).is_ok());
        reply[VERIFIER_LENGTH_AT].copy_from_slice(&401_u32.to_be_bytes());
        assert!(check_verifier(&reply).is_err());
    }
}
