//! Listening on TCP addresses and Unix sockets, with a bound on everything that a client can occupy.
//!
//! A client that sends nothing, or sends slowly, occupies one of [`CONNECTIONS_MAX`] connections for at
//! most [`HANDSHAKE_TIMEOUT`] and [`HEAD_TIMEOUT`], and [`super::body::BODY_TIMEOUT`] for a body. A client
//! that does not read its answer, or reads slower than [`READ_RATE_MIN`], is dropped after
//! [`WRITE_TIMEOUT`]. Each other host may have [`PEER_CONNECTIONS_MAX`] connections. All clients on this host together
//! may have [`LOOPBACK_CONNECTIONS_MAX`] over loopback addresses. Further connections are closed at once. When all
//! connections are in use, the next client waits in the kernel's backlog. Unix sockets have their own limit, so remote
//! clients cannot lock an administrator out. Without free file descriptors, accepting pauses instead of spinning.

#![allow(clippy::disallowed_methods, reason = "the socket's own file, which is on a local file system")]

mod min_rate;
mod peers;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use crate::model::settings::Listen;
use crate::sys::group::group_id;
use crate::tls::ServerTls;
use min_rate::MinRateStream;
use peers::{Admitted, Peers};

pub use min_rate::{READ_RATE_MIN, WRITE_TIMEOUT};
pub use peers::{LOOPBACK_CONNECTIONS_MAX, PEER_CONNECTIONS_MAX};

/// Answers requests.
pub trait RequestHandler: Clone + Send + Sync + 'static {
    /// Answers a request that arrived over the transport `peer`.
    fn answer(&self, peer: Peer, request: Request) -> impl Future<Output = Response> + Send;
}

/// Largest number of connections at the same time, of all TCP addresses together.
pub const CONNECTIONS_MAX: usize = 1024;

// Clients on this host and one other host together must not be able to use all connections.
const _: () = assert!(LOOPBACK_CONNECTIONS_MAX + PEER_CONNECTIONS_MAX < CONNECTIONS_MAX);

/// Largest number of connections at the same time, of all Unix sockets together.
pub const UNIX_CONNECTIONS_MAX: usize = 256;

/// Largest number of connections at the same time, of all addresses of `[metrics] listen` together. Each monitoring
/// system that scrapes the node needs one.
pub const METRICS_CONNECTIONS_MAX: usize = 64;

/// Deadline of a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request, or keep a connection idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request, in bytes. hyper answers 431 beyond it, or beyond 100 header fields. The limits of
/// [`super::limits`] are lower.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// Pause after a connection could not be accepted, which happens without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Mode of the file of a Unix socket: the agent's user and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Transport of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp,
    /// Over a Unix socket, whose permissions admitted the client.
    Unix,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens on it.
    #[error(
        "{address} is in use by another process: is another agent running (systemctl status targetwatch)? Find the process with ss -lxtnp, or choose another address in [api] listen"
    )]
    InUse {
        /// The address.
        address: Listen,
    },
    /// The path of a Unix socket is another file.
    #[error(
        "{address} cannot be listened on: the path exists and is not a socket, move it away, or choose another path in [api] listen"
    )]
    NotASocket {
        /// The address.
        address: Listen,
    },
    /// The group of a Unix socket cannot be set.
    #[error("{address} cannot be given to the group {group} ({source}): choose another [api] socket_group")]
    Group {
        /// The address.
        address: Listen,
        /// The group.
        group: String,
        /// Cause.
        source: io::Error,
    },
    /// The system refuses it.
    #[error(
        "{address} cannot be listened on ({source}): choose another address in [api] listen. The directory of a Unix socket must exist and be writable for the agent"
    )]
    Failed {
        /// The address.
        address: Listen,
        /// Cause.
        source: io::Error,
    },
}

/// Bound addresses. A Unix socket's file is removed when they are dropped.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<Listener>,
    tls: Option<Arc<ServerTls>>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: SocketFile },
}

/// File of a Unix socket, removed on drop.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // An error means that the file or its directory does not exist.
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Connection {
    Tcp(TcpStream, Admitted),
    Unix(UnixStream),
}

/// State that every connection needs.
#[derive(Clone)]
struct Serving<H> {
    handler: H,
    graceful: Arc<GracefulShutdown>,
    tls: Option<Arc<ServerTls>>,
    peers: Peers,
}

impl Listeners {
    /// Binds every address, or none. A `group`, given by name or number, may use the Unix sockets.
    ///
    /// # Errors
    /// [`ListenError`] for the first address that cannot be bound, or when the group does not exist or the agent may
    /// not give files to it.
    pub async fn bind(addresses: &[Listen], group: Option<&str>) -> Result<Self, ListenError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            listeners.push(
                match address {
                    Listen::Tcp(socket) => TcpListener::bind(socket).await.map(Listener::Tcp),
                    Listen::Unix(path) => bind_unix(path, address).await?,
                }
                .map_err(|source| failed(address, source))?,
            );
        }
        let bound = Self { listeners, tls: None };
        group.map_or(Ok(()), |group| bound.share_with(group))?;
        Ok(bound)
    }

    fn share_with(&self, group: &str) -> Result<(), ListenError> {
        for listener in &self.listeners {
            let Listener::Unix { file: SocketFile(path), .. } = listener else { continue };
            group_id(group).and_then(|id| std::os::unix::fs::chown(path, None, Some(id))).map_err(|source| {
                ListenError::Group { address: Listen::Unix(path.clone()), group: group.to_owned(), source }
            })?;
        }
        Ok(())
    }

    /// Returns the same listeners, with TLS on the TCP addresses.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ServerTls>>) -> Self {
        Self { tls, ..self }
    }

    /// The bound addresses, with the ports that the system chose for port 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        let address = |listener: &Listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            Listener::Unix { file, .. } => Some(Listen::Unix(file.0.clone())),
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// Serves with at most `max` TCP connections until `stop` ends. Then it waits up to `drain` for the requests in
    /// progress.
    pub async fn serve(
        self,
        max: usize,
        handler: impl RequestHandler,
        stop: impl Future<Output = ()>,
        drain: Duration,
    ) {
        let graceful = Arc::new(GracefulShutdown::new());
        let permits = Arc::new(Semaphore::new(max));
        let unix_permits = Arc::new(Semaphore::new(UNIX_CONNECTIONS_MAX));
        let peers = Peers::default();
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let (handler, graceful) = (handler.clone(), graceful.clone());
            let serving = Serving { handler, graceful, tls: self.tls.clone(), peers: peers.clone() };
            let permits = match listener {
                Listener::Tcp(_) => permits.clone(),
                Listener::Unix { .. } => unix_permits.clone(),
            };
            accepting.spawn(accept(listener, serving, permits));
        }
        stop.await;
        // Stops accepting connections, and drops the listeners and all other references to `graceful`.
        accepting.shutdown().await;
        if let Some(graceful) = Arc::into_inner(graceful)
            && tokio::time::timeout(drain, graceful.shutdown()).await.is_err()
        {
            tracing::warn!(
                "some requests were not answered within {} ms after the agent was stopped",
                drain.as_millis()
            );
        }
    }
}

async fn bind_unix(path: &Path, address: &Listen) -> Result<io::Result<Listener>, ListenError> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                return Err(ListenError::NotASocket { address: address.clone() });
            }
            // A killed process leaves its file behind, but then no process accepts the connection.
            if UnixStream::connect(path).await.is_ok() {
                return Err(ListenError::InUse { address: address.clone() });
            }
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        }
        bound => bound,
    };
    Ok(bound.and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Listener::Unix { listener, file: SocketFile(path.to_owned()) })
    }))
}

fn failed(address: &Listen, source: io::Error) -> ListenError {
    let address = address.clone();
    if source.kind() == io::ErrorKind::AddrInUse {
        ListenError::InUse { address }
    } else {
        ListenError::Failed { address, source }
    }
}

async fn accept(listener: Listener, serving: Serving<impl RequestHandler>, permits: Arc<Semaphore>) {
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                // Answers are small and written at once, so waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                serving.peers.admit(peer).map(|admitted| Connection::Tcp(stream, admitted))
            }),
            Listener::Unix { listener, .. } => {
                listener.accept().await.map(|(stream, _)| Some(Connection::Unix(stream)))
            }
        };
        match accepted {
            Ok(None) => tracing::debug!("a peer has too many connections"),
            Ok(Some(connection)) => {
                let (handler, watcher) = (serving.handler.clone(), serving.graceful.watcher());
                let tls = serving.tls.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    match (connection, tls) {
                        (Connection::Unix(stream), _) => answer(stream, Peer::Unix, handler, watcher).await,
                        (Connection::Tcp(stream, _admitted), None) => {
                            answer(stream, Peer::Tcp, handler, watcher).await;
                        }
                        (Connection::Tcp(stream, _admitted), Some(tls)) => {
                            if let Some(stream) = handshake(stream, &tls).await {
                                answer(stream, Peer::Tcp, handler, watcher).await;
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(stream: TcpStream, tls: &ServerTls) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake did not end in time");
            None
        }
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    peer: Peer,
    handler: impl RequestHandler,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.answer(peer, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        // A client may close its sending side after its request, as `nc -N` does, and still gets the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(MinRateStream::new(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
