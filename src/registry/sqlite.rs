//! The embedded store: one SQLite file, one writer.
//!
//! One thread owns the connection and takes jobs from a bounded queue. So no task of the runtime waits for the disk. A
//! queued commit is finished even when its caller has stopped waiting. Each commit is one `IMMEDIATE` transaction. The
//! write-ahead log with `synchronous = FULL` makes it durable before the caller gets its answer. When no job follows
//! for [`CHECKPOINT_AFTER`], the log is copied into the file and emptied. A copy of the file alone is then complete.
//! Targets are read once, when the file is opened. Afterwards its lock excludes other writers, and the snapshot in
//! memory follows every commit.
//!
//! Opening never replaces an existing file. Anything but an intact registry of a known schema is refused
//! and left unchanged, byte for byte ([`mod@file`]). A second agent on the same file is refused too.

mod canary_rows;
mod columns;
mod errors;
mod file;
mod generation;
mod identity;
mod inspection;
mod maintenance;
mod membership_rows;
mod own_mount_rows;
mod paths;
mod schema;
mod target_rows;
#[cfg(test)]
mod tests;
mod transition_rows;
mod type_rows;
mod write_ahead_log;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use file::Loss;
use generation::Generation;
use identity::FileIdentity;
pub use inspection::{inspect, lock_path, read_copy};
pub use maintenance::{accept_loss, backup, own_mount, restore};

use super::error::OpenError;
use super::membership::{Adoption, Aliases};
use super::shared::CloudId;
use super::snapshot::{Revision, Snapshot, Write};
use super::store::{CommitError, CopyStore, StorageError, Store};
use crate::model::{CanaryRecord, OwnMountId, TargetId, Transition};

/// Most jobs that wait for the writer. Further callers wait until they can queue theirs.
const QUEUE_MAX: usize = 64;

/// How often the writer of a registry that was opened on a full disk tries to end its exclusive lock.
const SHARE_EVERY: Duration = Duration::from_secs(5);

/// How long the writer waits for another job before it copies the log into the file. So a client that sends one
/// change after another does not wait for the copy.
const CHECKPOINT_AFTER: Duration = Duration::from_millis(200);

enum Job {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    /// Closes the file and then notifies the caller.
    Close(oneshot::Sender<()>),
}

/// A store in an SQLite file. Dropping it lets the queued jobs finish and then closes the file.
#[derive(Debug)]
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    identity: Arc<FileIdentity>,
    record: Arc<generation::Record>,
    snapshot: Arc<watch::Sender<Arc<Snapshot>>>,
    cloud_id: Option<CloudId>,
    aliases: Arc<Aliases>,
    role: Role,
}

/// Who decides the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// This node alone.
    Single,
    /// A shared registry. The file is a copy of it.
    Copy,
}

impl Role {
    /// Returns the content in the order of the role: that of all nodes for a copy, or that of the commits.
    fn ordered(self, snapshot: Snapshot) -> Snapshot {
        match self {
            Self::Single => snapshot,
            Self::Copy => snapshot.ordered_by_creation(),
        }
    }
}

impl SqliteStore {
    /// Opens the store at `path`, or creates an empty one when there is no file. The file's directory
    /// is created when only that is missing. Waits for the disk: call it before the runtime serves
    /// anything.
    ///
    /// # Errors
    /// [`OpenError`]. It is [`OpenError::Unwritable`] when another agent uses the file. An existing file is left as it
    /// was.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, Role::Single)
    }

    /// Opens the store at `path` as the copy of a shared registry, as [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_copy(path: &Path) -> Result<Self, OpenError> {
        Self::open_as(path, Role::Copy)
    }

    fn open_as(path: &Path, role: Role) -> Result<Self, OpenError> {
        let file::Opened { connection, lock, identity, record, targets, .. } = file::open(path, Loss::Refused)?;
        let failed = |error: rusqlite::Error| errors::unreadable(path, &error);
        let cloud_id = membership_rows::cloud_id(&connection).map_err(failed)?;
        let aliases = Arc::new(membership_rows::aliases(&connection).map_err(failed)?);
        let identity = Arc::new(identity);
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let cannot_start = |error: std::io::Error| errors::unwritable(path, error);
        // Only for the timeouts of the writer.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(cannot_start)?;
        let writer = Writer { connection, identity: identity.clone(), queue, runtime };
        thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || {
                let on_close = writer.run();
                drop(lock);
                if let Some(on_close) = on_close {
                    // The caller may have stopped waiting.
                    let _ = on_close.send(());
                }
            })
            .map_err(cannot_start)?;
        let snapshot = Arc::new(watch::Sender::new(Arc::new(role.ordered(Snapshot::new(targets)))));
        Ok(Self { jobs, identity, record: Arc::new(record), snapshot, cloud_id, aliases, role })
    }

    /// Makes the file the copy of a shared registry, as [`Adoption`] says. The snapshot does not change before the file
    /// is opened again.
    ///
    /// # Errors
    /// [`StorageError`] when it could not be made durable. Nothing was changed then.
    pub async fn adopt(&self, adoption: Adoption) -> Result<(), StorageError> {
        self.write_rows(move |connection| membership_rows::adopt(connection, &adoption)).await
    }

    /// Runs `work`, a change, on the writer's thread, if the open file is still at its path. The change runs even if
    /// the caller stops waiting.
    async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let identity = self.identity.clone();
        let job = Box::new(move |connection: &mut Connection| {
            // The caller may have stopped waiting.
            let _ = reply.send(identity.verify().map_err(E::from).and_then(|()| work(connection)));
        });
        self.queue(Job::Run(job), answer).await
    }

    /// Runs `work`, a write that changes no snapshot, and verifies that the kernel made it durable.
    async fn write_rows<F>(&self, work: F) -> Result<(), StorageError>
    where
        F: FnOnce(&mut Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        let identity = self.identity.clone();
        self.run(move |connection| {
            work(connection)?;
            // A write that is lost makes later ones unreadable, because they follow it in the log.
            identity.verify_written()
        })
        .await
    }

    /// Runs `work`, which changes nothing, on the writer's thread. It is skipped if the caller has stopped waiting, so
    /// that abandoned reads of a hanging disk do not delay later callers.
    async fn read<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |connection: &mut Connection| {
            if !reply.is_closed() {
                let _ = reply.send(work(connection));
            }
        });
        self.queue(Job::Run(job), answer).await
    }

    async fn queue<T, E: From<StorageError>>(&self, job: Job, answer: oneshot::Receiver<Result<T, E>>) -> Result<T, E> {
        let stopped = || StorageError::Failed("its writer has stopped".to_owned());
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// The thread that owns the connection.
struct Writer {
    connection: Connection,
    identity: Arc<FileIdentity>,
    queue: mpsc::Receiver<Job>,
    runtime: Runtime,
}

impl Writer {
    /// Runs jobs until the store is closed or dropped, and closes the file. Returns the channel that reports the close
    /// to the caller that requested it.
    fn run(mut self) -> Option<oneshot::Sender<()>> {
        // Opening may have left changes in the log.
        let (mut is_copied, mut is_shared) = (false, write_ahead_log::is_shared(&self.connection));
        let on_close = loop {
            let next = if is_copied && is_shared {
                Ok(self.queue.blocking_recv())
            } else {
                let wait = if is_copied { SHARE_EVERY } else { CHECKPOINT_AFTER };
                self.runtime.block_on(async { timeout(wait, self.queue.recv()).await })
            };
            match next {
                Ok(Some(Job::Run(work))) => {
                    work(&mut self.connection);
                    is_copied = false;
                }
                Ok(Some(Job::Close(on_close))) => break Some(on_close),
                Ok(None) => break None,
                Err(_) if is_copied => is_shared = write_ahead_log::share(&self.connection, &self.identity),
                Err(_) => is_copied = write_ahead_log::checkpoint(&self.connection, &self.identity),
            }
        };
        write_ahead_log::close(self.connection, &self.identity);
        on_close
    }
}

#[async_trait]
impl CopyStore for SqliteStore {
    fn cloud_id(&self) -> Option<CloudId> {
        self.cloud_id
    }

    async fn put_cloud_id(&self, cloud_id: Option<CloudId>) -> Result<(), StorageError> {
        self.write_rows(move |connection| membership_rows::put(connection, cloud_id)).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    fn aliases(&self) -> Arc<Aliases> {
        self.aliases.clone()
    }

    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError> {
        let (snapshot, record, identity) = (self.snapshot.clone(), self.record.clone(), self.identity.clone());
        let role = self.role;
        self.run(move |connection| {
            // Only this thread replaces the snapshot: it cannot change before the end of the job.
            let current = snapshot.borrow().clone();
            if current.revision() != expected {
                return Err(CommitError::Conflict);
            }
            if writes.is_empty() {
                return Ok(current);
            }
            write(connection, &writes, role).map_err(StorageError::from)?;
            identity.verify_written()?;
            let next = Arc::new(role.ordered(current.apply(&writes, expected.next())));
            write_record(connection, &record, next.targets().len());
            snapshot.send_replace(next.clone());
            Ok(next)
        })
        .await
    }

    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError> {
        self.write_rows(move |connection| transition_rows::add(connection, &transitions)).await
    }

    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError> {
        self.read(move |connection| Ok(transition_rows::of_target(connection, id)?)).await
    }

    async fn close(&self) {
        let (on_close, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(on_close)).await.is_ok() {
            // An error means that the thread has ended, which closed the file.
            let _ = closed.await;
        }
    }

    async fn put_canary_record(&self, id: TargetId, record: CanaryRecord) -> Result<(), StorageError> {
        self.write_rows(move |connection| canary_rows::put(connection, id, &record)).await
    }

    async fn canary_record(&self, id: TargetId) -> Result<Option<CanaryRecord>, StorageError> {
        self.read(move |connection| Ok(canary_rows::of_target(connection, id)?)).await
    }

    async fn put_own_mounts(&self, mounts: Vec<(TargetId, Option<OwnMountId>)>) -> Result<(), StorageError> {
        self.write_rows(move |connection| own_mount_rows::put(connection, &mounts)).await
    }

    async fn own_mounts(&self) -> Result<Vec<(TargetId, OwnMountId)>, StorageError> {
        self.read(move |connection| Ok(own_mount_rows::load(connection)?)).await
    }
}

/// Makes all writes in one transaction, or none of them.
fn write(connection: &mut Connection, writes: &[Write], role: Role) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if role == Role::Single {
        // A comparison with a shared registry would undo the change.
        membership_rows::clear(&transaction)?;
    }
    target_rows::write(&transaction, writes)?;
    Generation::increment(&transaction)?;
    transaction.commit()
}

/// Records the generation of a change that is durable. The change is acknowledged even if that fails, because the
/// registry's file contains it.
fn write_record(connection: &Connection, record: &generation::Record, targets: usize) {
    let written =
        Generation::read(connection, targets).map_err(std::io::Error::other).and_then(|now| record.write(&now));
    if let Err(error) = written {
        generation::log_unwritten(&error);
    }
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
