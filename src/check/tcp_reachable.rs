//! First check of any storage over a network: does the address accept connections?
//!
//! Name lookup and connect share one deadline. The addresses of a name are tried one after the other, each with an
//! equal share of the remaining time. So an address that drops packets does not hide another that works.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Checked;
use crate::model::Reason;
use crate::model::report::Finding;
use crate::sys::resolve::{ResolveError, STORAGE};

/// Maximum number of addresses of one name that are tried.
pub const ADDRESSES_TRIED: usize = 8;

/// A connection, and all addresses of the name.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: TcpStream,
    /// Every address of the name, at most [`ADDRESSES_MAX`](crate::sys::resolve::ADDRESSES_MAX); of an address, itself.
    pub addresses: Vec<IpAddr>,
}

/// Connects to `address` (a name or an IP address without brackets) within `deadline`.
///
/// The connection is the fact of the check. Failures are [`Reason::NameNotResolved`],
/// [`Reason::NameLookupTimedOut`], [`Reason::ConnectionRefused`], [`Reason::ConnectTimedOut`],
/// [`Reason::HostUnreachable`], and [`Reason::AgentError`] when this host has no socket left.
pub async fn tcp_connect(address: &str, port: u16, deadline: Duration) -> Checked<Connected> {
    let ends = Instant::now() + deadline;
    let mut addresses = match STORAGE.resolve(address, ends).await {
        Ok(addresses) => addresses,
        Err(ResolveError::TimedOut) => return Checked::timed_out(lookup_timed_out(address, deadline)),
        Err(ResolveError::NotFound(why)) => return Checked::failed(not_resolved(address, &why)),
    };
    addresses.iter_mut().for_each(|address| address.set_port(port));
    let all: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    let tried = &addresses[..addresses.len().min(ADDRESSES_TRIED)];
    let mut failure = None;
    let mut unanswered = false;
    for (position, socket_address) in tried.iter().enumerate() {
        let left = ends.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(tried.len() - position).unwrap_or(1);
        match timeout(share, TcpStream::connect(socket_address)).await {
            Ok(Ok(stream)) => return Checked::passed(Connected { stream, addresses: all }),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => unanswered = true,
            Ok(Err(error)) => failure = Some((socket_address, error)),
            Err(_) => unanswered = true,
        }
    }
    match failure {
        // An address that did not answer may do so later. Only a refusal by all is definite.
        Some((socket_address, error)) if !unanswered => {
            Checked::failed(connect_failed(address, *socket_address, &error))
        }
        _ => Checked::timed_out(Finding::new(
            Reason::ConnectTimedOut,
            format!(
                "nothing answered at {address} port {port} within {} ms: check that the server is up and that no firewall drops the packets",
                deadline.as_millis()
            ),
        )),
    }
}

/// Resolves `address` (a name or an IP address without brackets) within `deadline`.
///
/// # Errors
/// [`Reason::NameNotResolved`] or [`Reason::NameLookupTimedOut`].
pub async fn addresses_of(address: &str, deadline: Duration) -> Result<Vec<IpAddr>, Finding> {
    match STORAGE.resolve(address, Instant::now() + deadline).await {
        Ok(addresses) => Ok(addresses.iter().map(SocketAddr::ip).collect()),
        Err(ResolveError::TimedOut) => Err(lookup_timed_out(address, deadline)),
        Err(ResolveError::NotFound(why)) => Err(not_resolved(address, &why)),
    }
}

fn lookup_timed_out(address: &str, deadline: Duration) -> Finding {
    Finding::new(
        Reason::NameLookupTimedOut,
        format!(
            "no name server answered for {address} within {} ms: check the name servers in /etc/resolv.conf",
            deadline.as_millis()
        ),
    )
}

fn not_resolved(address: &str, why: &str) -> Finding {
    Finding::new(
        Reason::NameNotResolved,
        format!("{address} has no address ({why}): check its spelling, and DNS or /etc/hosts on this host"),
    )
}

fn connect_failed(address: &str, socket_address: SocketAddr, error: &io::Error) -> Finding {
    let port = socket_address.port();
    let at = if address == socket_address.ip().to_string() {
        format!("{address} port {port}")
    } else {
        format!("{address} ({}) port {port}", socket_address.ip())
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Finding::new(
            Reason::ConnectionRefused,
            format!("{at} refused the connection: start the service there, or correct the port"),
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Finding::new(
            Reason::HostUnreachable,
            format!("this host has no route to {at} ({error}): check its routes, and that the server is up"),
        ),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Finding::new(
            Reason::ConnectionBroken,
            format!("{at} closed the connection while it was being opened ({error}): check the server and firewalls"),
        ),
        _ => Finding::new(
            Reason::AgentError,
            format!("this host could not open a connection to {at}: {error}; check its limits on open files and ports"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;
    use tokio::net::TcpListener;

    const DEADLINE: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn listener_is_reached_by_address_and_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        assert_eq!(tcp_connect("127.0.0.1", port, DEADLINE).await.outcome(), Outcome::Passed);
        assert_eq!(tcp_connect("localhost", port, DEADLINE).await.outcome(), Outcome::Passed);
    }

    #[tokio::test]
    async fn closed_port_fails_definitely() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        let checked = tcp_connect("127.0.0.1", port, DEADLINE).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Failed, Some(Reason::ConnectionRefused)));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains(&format!("127.0.0.1 port {port}"))));
    }

    #[tokio::test]
    async fn full_backlog_times_out_within_the_deadline() {
        // A listener that never accepts, with a full queue: the kernel then drops further SYNs.
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let listener = socket.listen(1).expect("listen");
        let port = listener.local_addr().expect("address").port();
        let began = Instant::now();
        let mut queue = Vec::new();
        let checked = loop {
            let checked = tcp_connect("127.0.0.1", port, DEADLINE).await;
            if checked.outcome() != Outcome::Passed || queue.len() > 16 {
                break checked;
            }
            queue.push(checked);
        };
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::ConnectTimedOut)));
        assert!(began.elapsed() < DEADLINE * 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn unknown_name_differs_from_a_failed_lookup() {
        // RFC 6761 §6.4: .invalid never exists; without any name server the lookup itself fails.
        let checked = tcp_connect("nowhere.invalid", 443, DEADLINE).await;
        assert!(matches!(
            (checked.outcome(), checked.reason()),
            (Outcome::Failed, Some(Reason::NameNotResolved)) | (Outcome::TimedOut, Some(Reason::NameLookupTimedOut))
        ));
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("nowhere.invalid")));
    }
}
