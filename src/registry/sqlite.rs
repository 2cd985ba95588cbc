//! The embedded store: one SQLite file, one writer.
//!
//! One thread owns the connection and takes jobs from a bounded queue, so no task of the runtime
//! waits for the disk, and a queued commit is finished even when its caller has gone. Each commit is
//! one `IMMEDIATE` transaction. The write-ahead log with `synchronous = FULL` makes it durable before it
//! is answered. The file is read when it is opened; afterwards its lock excludes other writers, and the
//! snapshot in memory follows every commit.
//!
//! An existing file is never replaced: anything but a sound registry of a known schema is refused
//! and left unchanged to the byte ([`mod@file`]). A second agent on the same file is refused too.

mod columns;
mod file;
mod schema;
mod target_rows;
#[cfg(test)]
mod tests;
mod transition_rows;
mod type_rows;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::error::OpenError;
use super::snapshot::{Revision, Snapshot, Write};
use super::store::{CommitError, StorageError, Store};
use crate::model::{TargetId, Transition};

/// The most jobs that wait for the writer. A caller waits until it can queue one more.
const QUEUE_MAX: usize = 64;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A store in an SQLite file. Dropping it lets the queued jobs finish and then closes the file.
#[derive(Debug)]
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    identity: Arc<file::Identity>,
    snapshot: Arc<watch::Sender<Arc<Snapshot>>>,
    closed: oneshot::Receiver<()>,
}

impl SqliteStore {
    /// Opens the store at `path`, or creates an empty one when there is no file. The file's directory
    /// is created when only that is missing. Waits for the disk: call it before the runtime serves
    /// anything.
    ///
    /// # Errors
    /// [`OpenError::NotARegistry`], [`OpenError::NewerSchema`] or [`OpenError::Unwritable`], the latter
    /// also when another agent has the file. An existing file is left as it was.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file::Opened { mut connection, lock, identity, targets } = file::open(path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let (on_close, closed) = oneshot::channel();
        thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
                drop(connection);
                drop(lock);
                // The receiver is usually gone: most stores are dropped and not closed.
                let _ = on_close.send(());
            })
            .map_err(|error| OpenError::Unwritable { path: path.to_owned(), detail: error.to_string() })?;
        let snapshot = Arc::new(watch::Sender::new(Arc::new(Snapshot::new(targets))));
        Ok(Self { jobs, identity: Arc::new(identity), snapshot, closed })
    }

    /// Waits until the queued jobs are done and the file is closed and unlocked.
    pub async fn close(self) {
        let Self { jobs, closed, .. } = self;
        drop(jobs);
        // An error means that the thread is gone, and the file with it.
        let _ = closed.await;
    }

    /// Runs `work`, a change, on the writer's thread, if the file is in its place. It runs even if the
    /// caller stops waiting.
    async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let identity = self.identity.clone();
        let job: Job = Box::new(move |connection| {
            // A caller that has gone needs no answer.
            let _ = reply.send(identity.verify().map_err(E::from).and_then(|()| work(connection)));
        });
        self.queue(job, answer).await
    }

    /// Runs `work`, which changes nothing, on the writer's thread. It is skipped for a caller that has
    /// gone, so that readers of a hanging disk do not queue in front of later callers.
    async fn read<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StorageError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !reply.is_closed() {
                let _ = reply.send(work(connection));
            }
        });
        self.queue(job, answer).await
    }

    async fn queue<T, E: From<StorageError>>(&self, job: Job, answer: oneshot::Receiver<Result<T, E>>) -> Result<T, E> {
        let gone = || StorageError("its writer has stopped".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError> {
        let snapshot = self.snapshot.clone();
        self.run(move |connection| {
            // Only this thread replaces the snapshot: it cannot change before the end of the job.
            let current = snapshot.borrow().clone();
            if current.revision() != expected {
                return Err(CommitError::Conflict);
            }
            if writes.is_empty() {
                return Ok(current);
            }
            write(connection, &writes).map_err(StorageError::from)?;
            let next = Arc::new(current.apply(&writes, expected.next()));
            snapshot.send_replace(next.clone());
            Ok(next)
        })
        .await
    }

    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError> {
        self.run(move |connection| Ok(transition_rows::add(connection, &transitions)?)).await
    }

    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError> {
        self.read(move |connection| Ok(transition_rows::of_target(connection, id)?)).await
    }
}

/// Makes all writes in one transaction, or none of them.
fn write(connection: &mut Connection, writes: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for write in writes {
        match write {
            Write::PutTarget(target) => target_rows::put(&transaction, target)?,
            Write::DeleteTarget(id) => target_rows::delete(&transaction, *id)?,
            Write::PutType(target_type) => type_rows::put(&transaction, target_type)?,
            Write::DeleteType(id) => type_rows::delete(&transaction, *id)?,
        }
    }
    transaction.commit()
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}
