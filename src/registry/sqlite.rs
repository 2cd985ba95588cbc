//! The embedded registry: one SQLite file, one writer.
//!
//! One thread owns the connection and takes jobs from a bounded queue, so no task of the runtime
//! ever waits for the disk, and a job that was queued is done even when its caller has gone. Each
//! change is one `IMMEDIATE` transaction that also checks the rules ([`rules`], [`type_rules`]). The
//! write-ahead log with `synchronous = FULL` makes a change durable when its transaction has
//! committed, and only then is it answered.
//!
//! A file that exists is never replaced: what is not a sound registry of a known schema is refused
//! and left as it is, to the byte ([`mod@file`]). A second agent on the same file is refused too.

mod defaults;
mod file;
mod rows;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod transitions;
mod type_rows;
mod type_rules;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Entry, Registry, RegistryError, TargetChange, TypeChange};
use crate::model::{Target, TargetId, TargetType, TargetTypeId, Transition};

/// How many jobs may wait for the writer before a caller waits to queue one more.
const QUEUE_MAX: usize = 64;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A registry in a SQLite file. Dropping it lets the queued jobs finish and then closes the file.
#[derive(Debug)]
pub struct SqliteRegistry {
    jobs: mpsc::Sender<Job>,
    identity: Arc<file::Identity>,
    closed: oneshot::Receiver<()>,
}

impl SqliteRegistry {
    /// Opens the registry at `path`, or creates an empty one when there is no file. The file's
    /// directory is created when only that is missing. Waits for the disk: call it before the
    /// runtime serves anything.
    ///
    /// # Errors
    /// [`RegistryError::NotARegistry`], [`RegistryError::NewerSchema`] or
    /// [`RegistryError::Unwritable`], the latter also when another agent has the file; the file is
    /// then as it was before.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let file::Opened { mut connection, lock, identity } = file::open(path)?;
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
                // Nobody listening is the usual case: a registry that was dropped, not closed.
                let _ = on_close.send(());
            })
            .map_err(|error| RegistryError::Unwritable { path: path.to_owned(), detail: error.to_string() })?;
        Ok(Self { jobs, identity: Arc::new(identity), closed })
    }

    /// Waits until the queued jobs are done and the file is closed and unlocked.
    pub async fn close(self) {
        let Self { jobs, closed, .. } = self;
        drop(jobs);
        // An error means that the thread is gone, and the file with it.
        let _ = closed.await;
    }

    /// Runs `work`, a change, on the writer's thread, as long as the file is in its place. It is run
    /// even if the caller stops waiting.
    async fn run<T, F>(&self, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, RegistryError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let identity = self.identity.clone();
        let job: Job = Box::new(move |connection| {
            // A caller that has gone needs no answer.
            let _ = reply.send(identity.verify().and_then(|()| work(connection)));
        });
        self.queue(job, answer).await
    }

    /// The same for work that changes nothing: it is not run for a caller that has gone, so that
    /// readers of a disk that hangs do not queue in front of whoever comes after it.
    async fn read<T, F>(&self, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, RegistryError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !reply.is_closed() {
                let _ = reply.send(work(connection));
            }
        });
        self.queue(job, answer).await
    }

    async fn queue<T>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let gone = || RegistryError::Storage("its writer has stopped".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn load(&self) -> Result<Vec<Entry>, RegistryError> {
        self.read(|connection| rows::load(connection).map_err(storage)).await
    }

    async fn create_target(&self, target: Target, first_type: TargetType) -> Result<Entry, RegistryError> {
        self.run(move |connection| rules::create_target(connection, target, first_type)).await
    }

    async fn modify_target(
        &self,
        id: TargetId,
        change: TargetChange,
        now: Timestamp,
    ) -> Result<Vec<Entry>, RegistryError> {
        self.run(move |connection| rules::modify_target(connection, id, change, now)).await
    }

    async fn set_default_target(&self, id: TargetId, now: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        self.run(move |connection| rules::set_default_target(connection, id, now)).await
    }

    async fn may_delete_target(&self, id: TargetId) -> Result<(), RegistryError> {
        self.run(move |connection| rules::may_delete_target(connection, id)).await
    }

    async fn delete_target(&self, id: TargetId) -> Result<(), RegistryError> {
        self.run(move |connection| rules::delete_target(connection, id)).await
    }

    async fn create_type(&self, new: TargetType) -> Result<Vec<Entry>, RegistryError> {
        self.run(move |connection| type_rules::create_type(connection, new)).await
    }

    async fn modify_type(
        &self,
        id: TargetTypeId,
        change: TypeChange,
        now: Timestamp,
    ) -> Result<Vec<Entry>, RegistryError> {
        self.run(move |connection| type_rules::modify_type(connection, id, change, now)).await
    }

    async fn delete_type(&self, id: TargetTypeId) -> Result<Entry, RegistryError> {
        self.run(move |connection| type_rules::delete_type(connection, id)).await
    }

    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), RegistryError> {
        self.run(move |connection| transitions::add(connection, &transitions)).await
    }

    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, RegistryError> {
        self.read(move |connection| transitions::of_target(connection, id).map_err(storage)).await
    }
}

fn storage(error: impl std::fmt::Display) -> RegistryError {
    RegistryError::Storage(error.to_string())
}
