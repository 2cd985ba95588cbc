//! `reachable`, its first half: the name has an address and something accepts connections there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::Checked;
use crate::model::Reason;
use crate::model::report::Finding;

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;

/// Connects to `address`, a name or an IP address without brackets. A name's addresses are tried
/// in the resolver's order, each for its share of what is left of `deadline`, so that a dead first
/// one does not hide a second that is alive.
pub async fn tcp_connect(address: &str, port: u16, deadline: Duration) -> Checked<TcpStream> {
    let end = Instant::now() + deadline;
    // The resolver's thread may stay behind when this gives up; tokio bounds how many there are.
    let addresses: Vec<SocketAddr> = match timeout_at(end, lookup_host((address, port))).await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => return not_resolved(address, &error.to_string()),
        Err(_) => {
            return Checked::timed_out(Finding::new(
                Reason::NameLookupTimedOut,
                format!(
                    "{address} was not resolved within {} ms: look at the name servers in /etc/resolv.conf",
                    deadline.as_millis()
                ),
            ));
        }
    };
    let mut failure = None;
    for (index, peer) in addresses.iter().enumerate() {
        let shares = u32::try_from(addresses.len() - index).unwrap_or(1);
        let until = Instant::now() + end.saturating_duration_since(Instant::now()) / shares;
        match timeout_at(until, TcpStream::connect(peer)).await {
            Ok(Ok(stream)) => return Checked::passed(stream),
            Ok(Err(error)) => failure = Some(not_connected(*peer, &error)),
            Err(_) => failure = Some(connect_timed_out(*peer, deadline)),
        }
    }
    failure.unwrap_or_else(|| not_resolved(address, "it has no address"))
}

fn not_resolved(address: &str, detail: &str) -> Checked<TcpStream> {
    let message = format!(
        "{address} cannot be resolved ({detail}): correct the host in the export, or add it to DNS or /etc/hosts"
    );
    Checked::failed(Finding::new(Reason::NameNotResolved, message))
}

fn connect_timed_out(peer: SocketAddr, deadline: Duration) -> Checked<TcpStream> {
    let message = format!(
        "nothing at {peer} answered within {} ms: the host is down, or a firewall drops packets on the way",
        deadline.as_millis()
    );
    Checked::timed_out(Finding::new(Reason::ConnectTimedOut, message))
}

fn not_connected(peer: SocketAddr, error: &io::Error) -> Checked<TcpStream> {
    let (reason, advice) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            Reason::ConnectionRefused,
            "the host is up and nothing listens on that port: start the service, or correct the port",
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            (Reason::HostUnreachable, "look at this host's routes (ip route get) and whether that host is up")
        }
        io::ErrorKind::TimedOut => {
            (Reason::ConnectTimedOut, "the host is down, or a firewall drops packets on the way")
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            (Reason::ConnectionBroken, "look at the service's log and at firewalls on the way")
        }
        io::ErrorKind::PermissionDenied => (Reason::HostUnreachable, "a firewall of this host forbids it"),
        _ => (Reason::AgentError, "this is a limit of the agent's own host"),
    };
    let finding = Finding::new(reason, format!("{peer} cannot be connected to ({error}): {advice}"));
    if reason == Reason::ConnectTimedOut { Checked::timed_out(finding) } else { Checked::failed(finding) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Outcome;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_listens_is_reachable_and_what_does_not_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let reached = tcp_connect("127.0.0.1", port, Duration::from_secs(2)).await;
        assert_eq!(reached.outcome(), Outcome::Passed);
        drop((listener, reached));
        let refused = tcp_connect("127.0.0.1", port, Duration::from_secs(2)).await;
        assert_eq!((refused.outcome(), refused.reason()), (Outcome::Failed, Some(Reason::ConnectionRefused)));
        let message = refused.finding().map(|finding| finding.message.clone()).unwrap_or_default();
        assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    }

    #[tokio::test]
    async fn a_full_backlog_is_a_timeout_at_the_deadline() {
        // A listener whose backlog is full drops further attempts, as a black hole would.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(1).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut pending = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            pending.push(stream);
        }
        let began = Instant::now();
        let checked = tcp_connect("127.0.0.1", address.port(), Duration::from_millis(200)).await;
        assert_eq!((checked.outcome(), checked.reason()), (Outcome::TimedOut, Some(Reason::ConnectTimedOut)));
        assert!(began.elapsed() >= Duration::from_millis(200));
    }

    #[tokio::test]
    async fn a_name_without_address_is_named() {
        let checked = tcp_connect("no-such-host.invalid", 2049, Duration::from_secs(5)).await;
        assert!(checked.finding().is_some_and(|finding| finding.message.contains("no-such-host.invalid")));
    }
}
