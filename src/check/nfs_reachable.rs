//! `reachable`, of an NFS server: a TCP connection, then the NULL call of the NFS program.
//!
//! Asked before the mount is touched: a server that is down then costs a socket and not a child.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::Checked;
use super::tcp_reachable::tcp_connect;
use crate::model::NfsOptions;
use crate::nfs;

/// Asks the server at `address`, a name or an IP address without brackets, on the port and for
/// the version of the options. The fact is the address that answered.
pub async fn nfs_reachable(address: &str, options: &NfsOptions, deadline: Duration) -> Checked<IpAddr> {
    let end = Instant::now() + deadline;
    let stream = match tcp_connect(address, options.port(), deadline).await.into_fact() {
        Ok(stream) => stream,
        Err(checked) => return checked,
    };
    let peer = match stream.peer_addr() {
        Ok(peer) => peer,
        // The connection is gone again already; the call below says how.
        Err(_) => std::net::SocketAddr::new(IpAddr::from([0, 0, 0, 0]), options.port()),
    };
    let left = end.saturating_duration_since(Instant::now());
    match nfs::ping(stream, options.version(), left).await {
        Ok(()) => Checked::passed(peer.ip()).detail(format!("{peer} answers NFS")),
        Err(error) if error.is_timeout() => Checked::timed_out(error.finding()),
        Err(error) => Checked::failed(error.finding()),
    }
}
