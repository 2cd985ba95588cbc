//! An NFS server, version 3, with [failures](Behaviour) that a test can select.
//!
//! It serves MOUNT and NFS (RFC 1813) over TCP on one port. There is no port mapper, so clients need the
//! port in their options. FSSTAT reports the exported directory's statvfs. Exported directories must be
//! local, because the serving task reads them with blocking calls.

mod answer;
mod files;
mod program;
mod record;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::loopback::LoopbackServer;
use files::Files;

/// The first port that any user may use.
const RESERVED_PORTS_END: u16 = 1024;

/// A directory to export.
#[derive(Debug, Clone)]
pub struct NfsExportFixture {
    /// The path that clients mount.
    pub path: String,
    /// The local directory.
    pub directory: PathBuf,
}

/// How the server treats connections and calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers correctly.
    Healthy,
    /// Accepts connections, reads calls, and never answers them.
    Silent,
    /// Refuses to mount this path (`MNT3ERR_ACCES`), as servers do for hosts without permission.
    RefuseExport(String),
    /// Refuses callers whose source port is not below 1024, as exports without `insecure` do.
    RequireReservedPort,
    /// Supports only other versions of the programs than the client requests (`PROG_MISMATCH`).
    VersionMismatch {
        /// The lowest version that it reports.
        low: u32,
        /// The highest version that it reports.
        high: u32,
    },
    /// Rejects the caller's credential (`AUTH_TOOWEAK`).
    AuthError,
    /// Answers with a well-formed record of arbitrary bytes.
    Garbage,
    /// Closes new connections at once, and existing ones at their next call.
    CloseAtOnce,
    /// Closes a connection after it has answered NULL.
    CloseAfterNull,
    /// Mounts, and answers `NFS3ERR_STALE` to every handle, also to new ones.
    StaleHandle,
    /// Refuses to change anything (`NFS3ERR_ROFS`).
    ReadOnly,
    /// Reads other bytes than were written.
    CorruptData,
    /// Reports these counts in FSSTAT: total, free and available bytes, and total and free inodes.
    Counts([u64; 5]),
    /// Announces a reply and closes in the middle of it.
    EofMidRecord,
    /// Announces a reply of 2 GiB, sends a few bytes and waits.
    HugeRecord,
}

/// The running server.
pub struct NfsServer {
    listener: LoopbackServer,
    shared: Arc<Shared>,
}

impl NfsServer {
    /// Serves the exports on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port is not free or an exported directory cannot be read.
    pub async fn start(exports: Vec<NfsExportFixture>) -> io::Result<Self> {
        Self::start_on(0, exports).await
    }

    /// The same on a given port, to restart a server after [`NfsServer::stop`].
    ///
    /// # Errors
    /// When the port is not free or an exported directory cannot be read.
    pub async fn start_on(port: u16, exports: Vec<NfsExportFixture>) -> io::Result<Self> {
        let files = Mutex::new(Files::new(exports)?);
        let shared = Arc::new(Shared { behaviour: Mutex::new(Behaviour::Healthy), files, unanswered: Notify::new() });
        let serving = shared.clone();
        let listener = LoopbackServer::start(port, move |stream| serve(stream, serving.clone())).await?;
        Ok(Self { listener, shared })
    }

    /// The port of both programs.
    pub fn port(&self) -> u16 {
        self.listener.address().port()
    }

    /// Changes how calls are treated from now on. Calls that [`Behaviour::Silent`] received stay unanswered.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Waits for a call that stays unanswered, or returns at once if there was one since the last wait.
    pub async fn unanswered_call(&self) {
        self.shared.unanswered.notified().await;
    }

    /// Makes all existing handles stale, as an export that was recreated does. A new mount gets a valid handle.
    pub fn invalidate_handles(&self) {
        lock(&self.shared.files).invalidate_handles();
    }

    /// Closes the listener and every connection. After it returns, connections are refused.
    pub async fn stop(self) {
        self.listener.stop().await;
    }
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    files: Mutex<Files>,
    /// Notified of each call that stays unanswered.
    unanswered: Notify,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers calls in order until the client disconnects, or either side violates the protocol.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let has_reserved_port = stream.peer_addr().is_ok_and(|peer| peer.port() < RESERVED_PORTS_END);
    let behaviour = || match lock(&shared.behaviour).clone() {
        Behaviour::RequireReservedPort if has_reserved_port => Behaviour::Healthy,
        behaviour => behaviour,
    };
    if behaviour() == Behaviour::CloseAtOnce {
        return;
    }
    while let Ok(Some(call)) = record::read(&mut stream).await {
        let sent = match answer::to(&call, &behaviour(), &shared.files) {
            answer::Answer::None => {
                shared.unanswered.notify_one();
                Ok(())
            }
            answer::Answer::Close => return,
            answer::Answer::Record(reply) => {
                let sent = record::write(&mut stream, &reply).await;
                if behaviour() == Behaviour::CloseAfterNull && answer::is_null(&call) {
                    return;
                }
                sent
            }
            answer::Answer::Part { announced, sent, then_close } => {
                let sent = record::write_part(&mut stream, announced, &sent).await;
                if then_close {
                    return;
                }
                sent
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
