//! An NFS server, version 3 and read-only, that also behaves badly when a test asks for it.
//!
//! MOUNT and NFS (RFC 1813) over TCP, both programs on one port; there is no port mapper, so a
//! client has to be told the port. FSSTAT is answered from the exported directory's statvfs.
//! Exported directories must be local: they are read in the task that serves.

mod answer;
mod files;
mod program;
mod record;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;

use super::loopback::Loopback;
use files::Files;

/// A directory to export.
#[derive(Debug, Clone)]
pub struct NfsExportFixture {
    /// The path by which clients ask for it.
    pub path: String,
    /// The local directory.
    pub directory: PathBuf,
}

/// How the server treats connections and calls, from the moment it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    Healthy,
    /// Accepts and reads, and never answers what it read.
    Silent,
    /// Refuses to mount this path (`MNT3ERR_ACCES`), as servers do for hosts that may not.
    RefuseExport(String),
    /// Has other versions of the programs than any that is asked for (`PROG_MISMATCH`).
    VersionMismatch {
        /// The lowest version it says it has.
        low: u32,
        /// The highest.
        high: u32,
    },
    /// Rejects the caller's credential (`AUTH_TOOWEAK`).
    AuthError,
    /// Answers with a well-formed record of noise.
    Garbage,
    /// Closes a connection when it is made, and those that exist at their next call.
    CloseAtOnce,
    /// Mounts, and answers `NFS3ERR_STALE` to every handle, new ones too.
    StaleHandle,
    /// Announces a reply and closes in the middle of it.
    EofMidRecord,
    /// Announces a reply of 2 GiB, sends a few bytes and waits.
    HugeRecord,
}

/// The running server.
pub struct NfsServer {
    listener: Loopback,
    shared: Arc<Shared>,
}

impl NfsServer {
    /// Serves the exports on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port or an exported directory cannot be had.
    pub async fn start(exports: Vec<NfsExportFixture>) -> io::Result<Self> {
        Self::start_on(0, exports).await
    }

    /// The same on a given port: the server that comes back after [`NfsServer::stop`].
    ///
    /// # Errors
    /// When the port or an exported directory cannot be had.
    pub async fn start_on(port: u16, exports: Vec<NfsExportFixture>) -> io::Result<Self> {
        let files = Mutex::new(Files::new(exports)?);
        let shared = Arc::new(Shared { behaviour: Mutex::new(Behaviour::Healthy), files });
        let serving = shared.clone();
        let listener = Loopback::start(port, move |stream| serve(stream, serving.clone())).await?;
        Ok(Self { listener, shared })
    }

    /// The port of both programs.
    pub fn port(&self) -> u16 {
        self.listener.address().port()
    }

    /// Changes how calls are treated from now on. A call that met [`Behaviour::Silent`] stays unanswered.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Makes every handle given so far stale, as when an export is made anew: mounting again heals it.
    pub fn forget_handles(&self) {
        lock(&self.shared.files).forget_handles();
    }

    /// Closes the listener and every connection; from its return on, connections are refused.
    pub async fn stop(self) {
        self.listener.stop().await;
    }
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    files: Mutex<Files>,
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers calls in order until the client leaves, or either side breaks the protocol.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let behaviour = || lock(&shared.behaviour).clone();
    if behaviour() == Behaviour::CloseAtOnce {
        return;
    }
    while let Ok(Some(call)) = record::read(&mut stream).await {
        let sent = match answer::to(&call, &behaviour(), &shared.files) {
            answer::Answer::None => Ok(()),
            answer::Answer::Close => return,
            answer::Answer::Record(reply) => record::write(&mut stream, &reply).await,
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
