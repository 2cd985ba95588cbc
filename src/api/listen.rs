//! Listening: TCP addresses and Unix sockets, with a bound on everything a client could hold.
//!
//! A client that connects and says nothing, or says it slowly, costs one of [`CONNECTIONS_MAX`]
//! places for at most [`HEAD_TIMEOUT`] (and [`super::body::BODY_TIMEOUT`] for a body). When all
//! places are taken the next client waits in the kernel's backlog. When file descriptors are out,
//! accepting pauses instead of spinning.

#![allow(clippy::disallowed_methods, reason = "the socket's own file, which is on a local file system")]

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::Service;
use crate::model::settings::Listen;

/// The most connections at the same time, of all listeners together.
pub const CONNECTIONS_MAX: usize = 1024;

/// How long a client may take to send the head of a request, or keep a connection idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest head of a request, in bytes; hyper answers 431 beyond it, or beyond 100 headers.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// How long accepting pauses after it failed, as it does when file descriptors are out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may connect to a Unix socket: the agent's user and group.
const SOCKET_MODE: u32 = 0o660;

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
    Tcp(TcpStream),
    Unix(UnixStream),
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
        Ok(Self { listeners })
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
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, service.clone(), graceful.clone(), places.clone()));
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

async fn accept(listener: Listener, service: Service, graceful: Arc<GracefulShutdown>, places: Arc<Semaphore>) {
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // Answers are small and whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                Connection::Tcp(stream)
            }),
            Listener::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Connection::Unix(stream)),
        };
        match accepted {
            Ok(connection) => {
                let (service, watcher) = (service.clone(), graceful.watcher());
                tokio::spawn(async move {
                    let _place = place;
                    match connection {
                        Connection::Tcp(stream) => answer(stream, service, watcher).await,
                        Connection::Unix(stream) => answer(stream, service, watcher).await,
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

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: Service,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
