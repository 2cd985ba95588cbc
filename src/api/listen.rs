//! Listening: TCP addresses and Unix sockets, with a bound on everything a client could hold.
//!
//! A client that sends nothing, or sends slowly, occupies one of [`CONNECTIONS_MAX`] connections for at
//! most [`HANDSHAKE_TIMEOUT`] and [`HEAD_TIMEOUT`], and [`super::body::BODY_TIMEOUT`] for a body. A client
//! that does not read its answer, or reads slower than [`PACE_BYTES_PER_SECOND`], is dropped after
//! [`WRITE_TIMEOUT`]. A remote host may have [`PEER_CONNECTIONS_MAX`] connections, and further ones are
//! closed at once. When all connections are in use, the next client waits in the kernel's backlog. Unix
//! sockets have a limit of their own, so remote clients cannot lock an administrator out. Without free
//! file descriptors, accepting pauses instead of spinning.

#![allow(clippy::disallowed_methods, reason = "the socket's own file, which is on a local file system")]

mod paced;
mod peers;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::model::settings::Listen;
use crate::sys::group::group_id;
use crate::tls::ServerTls;
use paced::Paced;
use peers::{Admitted, Peers};

pub use paced::{PACE_BYTES_PER_SECOND, WRITE_TIMEOUT};
pub use peers::PEER_CONNECTIONS_MAX;

/// A service that answers requests.
pub type Service = BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>;

/// The most connections at the same time, of all TCP addresses together.
pub const CONNECTIONS_MAX: usize = 1024;

/// The most connections at the same time, of all Unix sockets together.
pub const UNIX_CONNECTIONS_MAX: usize = 256;

/// How long a client may take to agree on TLS.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request, or keep a connection idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes; hyper answers 431 beyond it, or beyond 100 headers.
/// Those of [`super::limits`] are lower and are told.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// How long accepting pauses after it failed, as it does when file descriptors are out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may connect to a Unix socket: the agent's user and group.
const SOCKET_MODE: u32 = 0o660;

/// How a request came in; an extension of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp,
    /// Over a Unix socket, whose file's permissions let it in.
    Unix,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error(
        "{address} is in use by another process: is another agent running? (systemctl status targetwatch; ss -lxtnp shows who it is), or choose another address in [api] listen"
    )]
    InUse {
        /// The address.
        address: Listen,
    },
    /// A Unix socket's path is taken by a file.
    #[error(
        "{address} cannot be listened on: there is a file that is no socket; move it away, or choose another path in [api] listen"
    )]
    NotASocket {
        /// The address.
        address: Listen,
    },
    /// Its group cannot be set.
    #[error("{address} cannot be given to the group {group} ({source}): choose another [api] socket_group")]
    Group {
        /// The address.
        address: Listen,
        /// The group.
        group: String,
        /// What is wrong.
        source: io::Error,
    },
    /// The system says no.
    #[error(
        "{address} cannot be listened on ({source}): choose another address in [api] listen; a Unix socket's directory must exist and be writable for the agent"
    )]
    Failed {
        /// The address.
        address: Listen,
        /// What it says.
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

/// The file of a Unix socket, removed with it.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already, or its directory is: nothing is left to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Connection {
    Tcp(TcpStream, Admitted),
    Unix(UnixStream),
}

/// What every connection is answered with.
#[derive(Clone)]
struct Serving {
    service: Service,
    graceful: Arc<GracefulShutdown>,
    tls: Option<Arc<ServerTls>>,
    peers: Peers,
}

impl Listeners {
    /// Binds every address, or none.
    ///
    /// # Errors
    /// [`ListenError`] for the first that cannot be bound.
    pub async fn bind(addresses: &[Listen]) -> Result<Self, ListenError> {
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
        Ok(Self { listeners, tls: None })
    }

    /// Lets a group, given by name or number, use the Unix sockets.
    ///
    /// # Errors
    /// [`ListenError::Group`] when there is no such group, or the agent may not give files to it.
    pub fn share_with(&self, group: &str) -> Result<(), ListenError> {
        for listener in &self.listeners {
            let Listener::Unix { file: SocketFile(path), .. } = listener else { continue };
            group_id(group).and_then(|id| std::os::unix::fs::chown(path, None, Some(id))).map_err(|source| {
                ListenError::Group { address: Listen::Unix(path.clone()), group: group.to_owned(), source }
            })?;
        }
        Ok(())
    }

    /// The same with TLS on its TCP addresses.
    #[must_use]
    pub fn with_tls(self, tls: Arc<ServerTls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The addresses that are listened on, with the ports that the system chose for port 0.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        let address = |listener: &Listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            Listener::Unix { file, .. } => Some(Listen::Unix(file.0.clone())),
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// Serves until `stop` is done, and then until the requests that are being answered are, at
    /// most for `drain`.
    pub async fn serve(self, service: Service, stop: impl Future<Output = ()>, drain: Duration) {
        let graceful = Arc::new(GracefulShutdown::new());
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let unix_places = Arc::new(Semaphore::new(UNIX_CONNECTIONS_MAX));
        let peers = Peers::default();
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let (service, graceful) = (service.clone(), graceful.clone());
            let serving = Serving { service, graceful, tls: self.tls.clone(), peers: peers.clone() };
            let places = match listener {
                Listener::Tcp(_) => places.clone(),
                Listener::Unix { .. } => unix_places.clone(),
            };
            accepting.spawn(accept(listener, serving, places));
        }
        stop.await;
        // Ends accepting, and with it the listeners and what else holds `graceful`.
        accepting.shutdown().await;
        if let Some(graceful) = Arc::into_inner(graceful)
            && tokio::time::timeout(drain, graceful.shutdown()).await.is_err()
        {
            tracing::warn!("some requests were not answered within {} ms of the end", drain.as_millis());
        }
    }
}

async fn bind_unix(path: &Path, address: &Listen) -> Result<io::Result<Listener>, ListenError> {
    let bound = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                return Err(ListenError::NotASocket { address: address.clone() });
            }
            // Left behind by a process that was killed, unless somebody answers.
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

async fn accept(listener: Listener, serving: Serving, places: Arc<Semaphore>) {
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                // Answers are small and whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                serving.peers.admit(peer.ip()).map(|admitted| Connection::Tcp(stream, admitted))
            }),
            Listener::Unix { listener, .. } => {
                listener.accept().await.map(|(stream, _)| Some(Connection::Unix(stream)))
            }
        };
        match accepted {
            Ok(None) => tracing::debug!("a peer has too many connections"),
            Ok(Some(connection)) => {
                let (service, watcher) = (serving.service.clone(), serving.graceful.watcher());
                let tls = serving.tls.clone();
                tokio::spawn(async move {
                    let _place = place;
                    match (connection, tls) {
                        (Connection::Unix(stream), _) => answer(stream, Peer::Unix, service, watcher).await,
                        (Connection::Tcp(stream, _admitted), None) => {
                            answer(stream, Peer::Tcp, service, watcher).await;
                        }
                        (Connection::Tcp(stream, _admitted), Some(tls)) => {
                            if let Some(stream) = handshake(stream, &tls).await {
                                answer(stream, Peer::Tcp, service, watcher).await;
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
            tracing::debug!(%error, "a client and the agent did not agree on TLS");
            None
        }
        Err(_) => {
            tracing::debug!("a client did not agree on TLS in time");
            None
        }
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    peer: Peer,
    service: Service,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.map(Body::new)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(Paced::new(stream)), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
