//! First check of any storage in the network: whether its address accepts connections.
//!
//! Name lookup and connect share one deadline. The addresses of a name are tried one after the other, each with an
//! equal share of the remaining time. So an address that drops packets does not hide another that works. It is reported
//! as a warning, because other programs, such as mount.nfs, wait much longer for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::checked::Checked;
use crate::model::Reason;
use crate::model::report::{Finding, finding};
use crate::sys::resolve::{ResolveError, STORAGE};

/// Maximum number of addresses of one name that are tried.
pub const ADDRESSES_TRIED: usize = 8;

/// A connection, and all addresses of the name.
#[derive(Debug)]
pub struct Connected<S = TcpStream> {
    /// The connection.
    pub stream: S,
    /// Every address of the name, at most [`ADDRESSES_MAX`](crate::sys::resolve::ADDRESSES_MAX). If the name is an
    /// address, that address.
    pub addresses: Vec<IpAddr>,
}

/// Connects to `address` (a name or an IP address without brackets) within `deadline`.
///
/// The connection is the fact of the check. Failures are [`Reason::NameNotResolved`],
/// [`Reason::NameLookupTimedOut`], [`Reason::ConnectionRefused`], [`Reason::ConnectTimedOut`],
/// [`Reason::HostUnreachable`], and [`Reason::AgentError`] when this host has no socket left.
pub async fn tcp_connect(address: &str, port: u16, deadline: Duration) -> Checked<Connected> {
    tcp_connect_by(TcpStream::connect, address, port, deadline).await
}

/// The same with another way to connect a socket to an address, which a caller may drop at any time.
pub(super) async fn tcp_connect_by<S, C: Future<Output = io::Result<S>>>(
    connect: impl Fn(SocketAddr) -> C,
    address: &str,
    port: u16,
    deadline: Duration,
) -> Checked<Connected<S>> {
    let ends = Instant::now() + deadline;
    let mut addresses = match STORAGE.resolve(address, ends).await {
        Ok(addresses) => addresses,
        Err(ResolveError::TimedOut) => return Checked::timed_out(lookup_timed_out(address, deadline)),
        Err(ResolveError::NotFound(why)) => return Checked::failed(not_resolved(address, &why)),
    };
    addresses.iter_mut().for_each(|address| address.set_port(port));
    connect_any(connect, address, port, &addresses, deadline, ends).await
}

/// Connects to one of the addresses of `name`.
async fn connect_any<S, C: Future<Output = io::Result<S>>>(
    connect: impl Fn(SocketAddr) -> C,
    name: &str,
    port: u16,
    addresses: &[SocketAddr],
    deadline: Duration,
    ends: Instant,
) -> Checked<Connected<S>> {
    let tried = &addresses[..addresses.len().min(ADDRESSES_TRIED)];
    let mut failure: Option<(SocketAddr, io::Error)> = None;
    let mut silent = Vec::new();
    for (position, socket_address) in tried.iter().enumerate() {
        let left = ends.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(tried.len() - position).unwrap_or(1);
        match timeout(share, connect(*socket_address)).await {
            Ok(Ok(stream)) => {
                let warning = (!silent.is_empty()).then(|| silent_addresses(name, &silent, *socket_address));
                let addresses = addresses.iter().map(SocketAddr::ip).collect();
                return Checked::passed(Connected { stream, addresses }).with_warnings(warning);
            }
            Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => {
                // A missing route explains less than the refusal of another address.
                if failure.as_ref().is_none_or(|(_, earlier)| !is_of_server(earlier) && is_of_server(&error)) {
                    failure = Some((*socket_address, error));
                }
            }
            Ok(Err(_)) | Err(_) => silent.push(socket_address.ip()),
        }
    }
    match failure {
        // An address that did not answer may answer later. Only a refusal by all addresses is definite.
        Some((socket_address, error)) if silent.is_empty() => {
            let finding = connect_failed(name, socket_address, &error);
            // A failure of this host, such as a lack of sockets, says nothing about the server.
            if finding.reason == Reason::AgentError { Checked::timed_out(finding) } else { Checked::failed(finding) }
        }
        _ => Checked::timed_out(finding!(
            Reason::ConnectTimedOut,
            "nothing answered at {name} port {port} within {} ms: check that the server is up and that no firewall drops the packets",
            deadline.as_millis()
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
    finding!(
        Reason::NameLookupTimedOut,
        "no name server answered for {address} within {} ms: check the name servers in /etc/resolv.conf",
        deadline.as_millis()
    )
}

fn not_resolved(address: &str, why: &str) -> Finding {
    finding!(
        Reason::NameNotResolved,
        "{address} has no address ({why}): check its spelling, and DNS or /etc/hosts on this host"
    )
}

/// Warning about the addresses that did not answer before another address answered.
fn silent_addresses(name: &str, silent: &[IpAddr], answering: SocketAddr) -> Finding {
    let (port, silent) = (answering.port(), silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    finding!(
        Reason::ConnectTimedOut,
        "{name} has an address that does not answer on port {port}: {silent}. The agent used {} instead. Programs that try the addresses in order, such as mount.nfs, wait for the first one: repair it, or remove it from DNS or /etc/hosts",
        answering.ip()
    )
}

/// Whether the server, or something in front of it, answered.
fn is_of_server(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | ConnectionAborted)
}

/// Whether the error of connecting to an address means that this host has no IPv6: it is disabled, or has no address or
/// no route.
fn lacks_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    address.is_ipv6() && matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH))
}

fn connect_failed(address: &str, socket_address: SocketAddr, error: &io::Error) -> Finding {
    let port = socket_address.port();
    let at = if address == socket_address.ip().to_string() {
        format!("{address} port {port}")
    } else {
        format!("{address} ({}) port {port}", socket_address.ip())
    };
    match error.kind() {
        _ if lacks_ipv6(socket_address, error) => finding!(
            Reason::HostUnreachable,
            "this host has no IPv6 to reach {at} ({error}): give it an IPv6 address and a route, or use an IPv4 address of the server"
        ),
        io::ErrorKind::ConnectionRefused => finding!(
            Reason::ConnectionRefused,
            "{at} refused the connection: start the service there, or correct the port"
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => finding!(
            Reason::HostUnreachable,
            "this host has no route to {at} ({error}): check its routes, and that the server is up"
        ),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => finding!(
            Reason::ConnectionBroken,
            "{at} closed the connection while it was being opened ({error}): check the server and firewalls"
        ),
        _ => finding!(
            Reason::AgentError,
            "this host could not open a connection to {at}: {error}. Check its limits on open files and ports, and its own firewall"
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

    /// A listener that never accepts, with a full queue: the kernel then drops further SYNs.
    async fn silent_listener(address: &str) -> (TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind(address.parse().expect("address")).expect("bind");
        let listener = socket.listen(1).expect("listen");
        let address = listener.local_addr().expect("address");
        let mut queue = Vec::new();
        while let Ok(Ok(stream)) = timeout(DEADLINE, TcpStream::connect(address)).await {
            queue.push(stream);
            assert!(queue.len() <= 16, "the queue is never full");
        }
        (listener, queue)
    }

    #[tokio::test]
    async fn full_backlog_times_out_within_the_deadline() {
        let (listener, _queue) = silent_listener("127.0.0.1:0").await;
        let port = listener.local_addr().expect("address").port();
        let began = Instant::now();
        let checked = tcp_connect("127.0.0.1", port, DEADLINE).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::ConnectTimedOut)));
        assert!(began.elapsed() < DEADLINE * 2, "{:?}", began.elapsed());
    }

    #[test]
    fn host_without_ipv6_is_named() {
        let (v6, v4) = ("[fd00::1]:2049".parse().expect("address"), "10.0.0.1:2049".parse().expect("address"));
        for errno in [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL, Errno::ENETUNREACH] {
            let finding = connect_failed("nas", v6, &io::Error::from(errno));
            assert_eq!(finding.reason, Reason::HostUnreachable, "{errno}");
            assert!(
                finding.message.starts_with("this host has no IPv6 to reach nas (fd00::1) port 2049"),
                "{finding:?}"
            );
            let finding = connect_failed("nas", v4, &io::Error::from(errno));
            assert!(!finding.message.contains("IPv6"), "{finding:?}");
        }
        let finding = connect_failed("fd00::1", v6, &io::Error::from(Errno::EHOSTUNREACH));
        assert!(finding.message.starts_with("this host has no route to fd00::1 port 2049"), "{finding:?}");
    }

    async fn connect_to(addresses: [&str; 2], port: u16) -> Checked<Connected> {
        let addresses = addresses.map(|address| SocketAddr::new(address.parse().expect("an address"), port));
        connect_any(TcpStream::connect, "nas", port, &addresses, DEADLINE, Instant::now() + DEADLINE).await
    }

    #[tokio::test]
    async fn silent_address_before_one_that_answers_is_a_warning() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let (_silent, _queue) = silent_listener(&format!("127.0.0.2:{port}")).await;
        let checked = connect_to(["127.0.0.2", "127.0.0.1"], port).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::Passed, Some(Reason::ConnectTimedOut)));
        let message = checked.finding().map_or("", |finding| finding.message.as_str());
        assert!(message.contains(": 127.0.0.2. The agent used 127.0.0.1 instead"), "{message}");
        assert_eq!(connect_to(["127.0.0.1", "127.0.0.2"], port).await.reason(), None, "it is not tried");
    }

    #[tokio::test]
    async fn refusal_is_reported_rather_than_a_missing_route() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        // The kernel has no route for a connection to the broadcast address.
        for addresses in [["127.0.0.1", "255.255.255.255"], ["255.255.255.255", "127.0.0.1"]] {
            assert_eq!(connect_to(addresses, port).await.reason(), Some(Reason::ConnectionRefused), "{addresses:?}");
        }
        let unreachable = connect_to(["255.255.255.255", "255.255.255.255"], port).await;
        assert_eq!(unreachable.reason(), Some(Reason::HostUnreachable));
    }

    #[tokio::test]
    async fn host_without_a_socket_says_nothing_about_the_server() {
        let connect = async |_| Err::<TcpStream, _>(io::Error::from(Errno::EMFILE));
        let address = "127.0.0.1:2049".parse().expect("an address");
        let checked = connect_any(connect, "nas", 2049, &[address], DEADLINE, Instant::now() + DEADLINE).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::AgentError)));
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
