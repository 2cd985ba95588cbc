//! The embedded store: one SQLite file, one thread that writes it.
//!
//! Write-ahead log with full synchronisation: a change that was answered survives power loss. All
//! work is done by one thread that owns the connection and is fed through a bounded queue, so
//! changes have an order and no caller's thread waits for a disk. The connection is exclusive: a
//! second agent on the same file is told so and stops, instead of both believing that they own the
//! mounts. A file that is not a registry of a known schema is never touched.

mod change;
mod rows;
mod schema;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{Entry, Registry, RegistryError, TargetChange};
use crate::model::{Target, TargetId, TargetType};

/// How many requests may wait for the thread; whoever comes after that waits for room.
const QUEUE_MAX: usize = 64;

/// How long opening waits for another process to let go of the file: an agent that is being
/// restarted may overlap with its predecessor.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// Who may read a new registry: the agent's user. Its log gets the same mode.
const MODE: u32 = 0o600;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A registry in an SQLite file. Dropping it lets waiting requests finish.
pub struct SqliteRegistry {
    jobs: mpsc::Sender<Job>,
}

impl SqliteRegistry {
    /// Opens the registry at `path`, and makes it if there is none. Its directory must exist.
    ///
    /// # Errors
    /// [`RegistryError::NotARegistry`], [`RegistryError::NewerSchema`] or
    /// [`RegistryError::Unwritable`]. The file is left as it was.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let connection = connect(path)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(QUEUE_MAX);
        std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || {
                let mut connection = connection;
                while let Some(job) = waiting.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(|error| unwritable(path, format!("its thread cannot be started: {error}")))?;
        Ok(Self { jobs })
    }

    /// Has the thread do something in one transaction, which is durable when this returns `Ok`.
    async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = in_transaction(connection, work);
            // A caller who left has its change all the same.
            let _ = reply.send(outcome);
        });
        let gone = || RegistryError::Storage("its thread has ended".to_owned());
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let outcome = work(&transaction)?;
    transaction.commit()?;
    Ok(outcome)
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn load(&self) -> Result<Vec<Entry>, RegistryError> {
        self.transact(rows::entries).await
    }

    async fn create_target(&self, target: Target, first_type: TargetType) -> Result<Entry, RegistryError> {
        self.transact(move |transaction| change::create(transaction, target, first_type)).await
    }

    async fn modify_target(&self, id: TargetId, change: TargetChange, now: Timestamp) -> Result<Entry, RegistryError> {
        self.transact(move |transaction| change::modify(transaction, id, change, now)).await
    }

    async fn set_default_target(&self, id: TargetId, now: Timestamp) -> Result<Vec<Entry>, RegistryError> {
        self.transact(move |transaction| change::set_default(transaction, id, now)).await
    }

    async fn may_delete_target(&self, id: TargetId) -> Result<(), RegistryError> {
        self.transact(move |transaction| change::may_delete(transaction, id)).await
    }

    async fn delete_target(&self, id: TargetId) -> Result<(), RegistryError> {
        self.transact(move |transaction| change::delete(transaction, id)).await
    }
}

fn connect(path: &Path) -> Result<Connection, RegistryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = |error: rusqlite::Error| open_failure(path, &error);
    // SQLite would let everybody read it; what cannot be made here, it explains better.
    let _ = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    let mut connection = Connection::open_with_flags(path, flags).map_err(opened)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(opened)?;
    // Looked at before anything is set, since setting may write.
    schema::verify(&connection, path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(opened)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(opened)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(opened)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(opened)?;
    schema::bring_up_to_date(&mut connection).map_err(opened)?;
    let damage: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(opened)?;
    if damage != "ok" {
        return Err(RegistryError::NotARegistry {
            path: path.to_owned(),
            detail: format!("the file is damaged ({damage})"),
        });
    }
    in_transaction(&mut connection, rows::entries)
        .map_err(|error| RegistryError::NotARegistry { path: path.to_owned(), detail: error.to_string() })?;
    Ok(connection)
}

fn open_failure(path: &Path, error: &rusqlite::Error) -> RegistryError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            RegistryError::NotARegistry { path: path.to_owned(), detail: format!("it is not a database ({error})") }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => unwritable(
            path,
            "another process uses it: is another agent running? (systemctl status targetwatch; fuser -v on the file)"
                .to_owned(),
        ),
        _ => unwritable(path, error.to_string()),
    }
}

fn unwritable(path: &Path, detail: String) -> RegistryError {
    RegistryError::Unwritable { path: PathBuf::from(path), detail }
}

#[cfg(test)]
mod tests;
