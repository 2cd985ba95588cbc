//! `reachable` of an NFS server: a TCP connection, then the NULL call of the NFS program.
//!
//! It runs before the mount is accessed, so a server that is down costs a socket and not a child process.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::checked::Checked;
use super::tcp_reachable::{Connected, tcp_connect, tcp_connect_by};
use crate::model::NfsOptions;
use crate::model::nfs_options::NfsVersion;
use crate::nfs::{self, Records};

/// A server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsServer {
    /// The address that answered.
    pub address: IpAddr,
    /// Every address of its name.
    pub addresses: Vec<IpAddr>,
}

/// Checks the server at `address`, a name or an IP address without brackets, on the port and with the version in the
/// options.
pub async fn nfs_reachable(address: &str, options: &NfsOptions, deadline: Duration) -> Checked<NfsServer> {
    answers_nfs(address, options.port(), options.version(), deadline).await
}

/// The same from a source port that exports accept. Also returns the connection, for more calls.
pub async fn nfs_reachable_over_the_wire(
    address: &str,
    options: &NfsOptions,
    deadline: Duration,
) -> Checked<(NfsServer, Records)> {
    let end = Instant::now() + deadline;
    let connecting = tcp_connect_by(nfs::connect, address, options.port(), deadline).await;
    pinged(connecting, options.port(), options.version(), end).await
}

/// Checks a server on a port, with a version.
pub async fn answers_nfs(address: &str, port: u16, version: NfsVersion, deadline: Duration) -> Checked<NfsServer> {
    let end = Instant::now() + deadline;
    let connecting = tcp_connect(address, port, deadline).await;
    pinged(connecting, port, version, end).await.map(|(server, _)| server)
}

/// Verifies that a connected server answers NFS.
async fn pinged(
    connecting: Checked<Connected<impl Into<Records>>>,
    port: u16,
    version: NfsVersion,
    end: Instant,
) -> Checked<(NfsServer, Records)> {
    let warnings = connecting.findings().to_vec();
    let Connected { stream, addresses } = match connecting.into_fact() {
        Ok(connected) => connected,
        Err(checked) => return checked,
    };
    let connection = stream.into();
    let peer = match connection.server() {
        Ok(peer) => peer,
        // The connection has already ended. The call below reports how.
        Err(_) => std::net::SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port),
    };
    let left = end.saturating_duration_since(Instant::now());
    match nfs::ping(connection, version, left).await {
        Ok(connection) => Checked::passed((NfsServer { address: peer.ip(), addresses }, connection))
            .detail(format!("{peer} answers NFS"))
            .with_warnings(warnings),
        Err(error) if error.is_timeout() => Checked::timed_out(error.finding()),
        Err(error) => Checked::failed(error.finding()),
    }
}
