//! The registry's file: locked, inspected, created, opened.
//!
//! An existing file is judged before anything can write to it. Its header must name SQLite and
//! this application, its pages must be sound, its schema known, its rows readable; until all that
//! is established even the checkpoint that SQLite does on closing is off. A new registry is built
//! beside its place and renamed into it, so a file in place is a whole registry: an empty one is a
//! loss that is reported, not a start that is made.
//!
//! A file that was removed or replaced while it is open can be written as before, and all of that is
//! lost when it is closed: each change is preceded by a look at what is in its place ([`Identity`]).

#![allow(clippy::disallowed_methods, reason = "the registry's file is on a local disk, never below the mount root")]

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::schema::{self, APPLICATION_ID};
use super::target_rows;
use crate::registry::error::OpenError;
use crate::registry::snapshot::RegisteredTarget;
use crate::registry::store::StorageError;

/// How long a change waits for another program, such as a backup of the file, to let go of it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A larger file is opened without checking all its pages, which would delay the start. Thousands
/// of targets take a few mebibytes, and a history that is full some hundred kibibytes.
const CHECKED_MAX_BYTES: u64 = 256 << 20;

/// Length, magic string, and the places of `user_version` and `application_id` in the header of a
/// database file (<https://www.sqlite.org/fileformat.html#the_database_header>).
const HEADER_BYTES: usize = 100;
const HEADER_MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_USER_VERSION: usize = 60;
const HEADER_APPLICATION_ID: usize = 68;

/// An open registry file.
pub(super) struct Opened {
    /// The connection, ready for changes.
    pub(super) connection: Connection,
    /// Keeps other agents off while it lives.
    pub(super) lock: File,
    /// Tells whether they are still what is in place.
    pub(super) identity: Identity,
    /// Every target that the file contains.
    pub(super) targets: Vec<RegisteredTarget>,
}

/// Which files a connection has open: the database and its write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(Vec<(PathBuf, u64, u64)>);

impl Identity {
    /// Of the files that are in place now.
    fn of(path: &Path) -> std::io::Result<Self> {
        let of_one = |path: PathBuf| fs::metadata(&path).map(|found| (path, found.dev(), found.ino()));
        [path.to_owned(), with_suffix(path, "-wal")].into_iter().map(of_one).collect::<Result<_, _>>().map(Self)
    }

    /// Sees that the files are in place.
    ///
    /// # Errors
    /// [`StorageError`] when one was removed or replaced, or cannot be looked at.
    pub(super) fn verify(&self) -> Result<(), StorageError> {
        for (path, device, inode) in &self.0 {
            let is_same = match fs::metadata(path) {
                Ok(found) => (found.dev(), found.ino()) == (*device, *inode),
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => {
                    return Err(StorageError(format!(
                        "{} cannot be looked at ({error}): a registry on a local disk that the agent may read was expected; mend what hides it, then repeat the change",
                        path.display()
                    )));
                }
            };
            if !is_same {
                return Err(StorageError(format!(
                    "{} was removed or replaced while the agent was running: put the registry back from a backup, then restart the agent",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Opens or creates the registry at `path`.
///
/// # Errors
/// [`OpenError`] as `SqliteStore::open` says; an existing file is then as it was.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    create_directory(path)?;
    let lock = lock(path)?;
    if !exists(path)? {
        create(path)?;
    }
    let size = inspect_header(path)?;
    let (connection, targets) = open_checked(path, size)?;
    // The first reading makes the write-ahead log.
    let identity = schema::version(&connection).map_err(|error| unwritable(path, error));
    let identity = identity.and_then(|_| Identity::of(path).map_err(|error| unwritable(path, error)))?;
    Ok(Opened { connection, lock, identity, targets })
}

/// Creates the file's directory, if it alone is missing: a misspelt path is not to be followed.
fn create_directory(path: &Path) -> Result<(), OpenError> {
    let directory = directory(path);
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_directory(directory.parent().unwrap_or(Path::new("/"))).map_err(|error| unwritable(path, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = format!("directory {} does not exist, nor does the one it would be in", directory.display());
            Err(unwritable(path, detail))
        }
        // Whatever is in its place will show when the lock is created there.
        Err(_) => Ok(()),
    }
}

/// Locks a file of its own: SQLite's locks on the database would be lost with any other descriptor
/// of it that this process closes (fcntl(2), "Record locks").
fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = with_suffix(path, ".lock");
    let options = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).to_owned();
    let lock =
        options().open(&lock_path).map_err(|error| unwritable(path, format!("{}: {error}", lock_path.display())))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let detail = format!("another agent is using it (it holds the lock on {})", lock_path.display());
            Err(unwritable(path, detail))
        }
        Err(TryLockError::Error(error)) => Err(unwritable(path, format!("{}: {error}", lock_path.display()))),
    }
}

fn exists(path: &Path) -> Result<bool, OpenError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unwritable(path, error)),
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    if exists(&with_suffix(path, "-wal"))? {
        return Err(not_a_registry(path, "the file is missing, but the write-ahead log that belongs to it is there"));
    }
    let new = with_suffix(path, ".new");
    for leftover in [&new, &with_suffix(&new, "-journal")] {
        match fs::remove_file(leftover) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unwritable(path, error)),
            _ => {}
        }
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(|error| unwritable(path, error))?;
    let mut connection = connect(&new).map_err(|error| unwritable(path, error))?;
    schema::upgrade(&mut connection).map_err(|error| unwritable(path, error))?;
    connection.close().map_err(|(_, error)| unwritable(path, error))?;
    fs::rename(&new, path).map_err(|error| unwritable(path, error))?;
    sync_directory(directory(path)).map_err(|error| unwritable(path, error))
}

/// Judges the file by its header, which takes no SQLite. Returns its size in bytes.
fn inspect_header(path: &Path) -> Result<u64, OpenError> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| unwritable(path, error))?;
    let metadata = file.metadata().map_err(|error| unwritable(path, error))?;
    if !metadata.is_file() {
        return Err(not_a_registry(path, "it is not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(not_a_registry(path, "the file is empty"));
    }
    let mut header = [0; HEADER_BYTES];
    if file.read_exact(&mut header).is_err() || !header.starts_with(HEADER_MAGIC) {
        return Err(not_a_registry(path, "the file is not an SQLite database"));
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let found = number(HEADER_APPLICATION_ID);
    if found != APPLICATION_ID {
        let detail = format!(
            "the file is a database of another application (application_id {found}, expected {APPLICATION_ID})"
        );
        return Err(not_a_registry(path, detail));
    }
    known_schema(path, number(HEADER_USER_VERSION).into())?;
    Ok(metadata.len())
}

fn open_checked(path: &Path, size: u64) -> Result<(Connection, Vec<RegisteredTarget>), OpenError> {
    let damaged = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(
            rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::DatabaseBusy
            | rusqlite::ErrorCode::DatabaseLocked
            | rusqlite::ErrorCode::DiskFull
            | rusqlite::ErrorCode::PermissionDenied
            | rusqlite::ErrorCode::ReadOnly,
        ) => unwritable(path, error),
        _ => not_a_registry(path, format!("the file is damaged ({error})")),
    };
    let mut connection = connect(path).map_err(damaged)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(damaged)?;
    // The header in the file may be older than what the write-ahead log says.
    let version = schema::version(&connection).map_err(damaged)?;
    known_schema(path, version)?;
    if size <= CHECKED_MAX_BYTES {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
        if verdict != "ok" {
            return Err(not_a_registry(path, format!("the file is damaged ({verdict})")));
        }
    }
    let writing = |error: rusqlite::Error| unwritable(path, error);
    if version < schema::KNOWN {
        schema::upgrade(&mut connection).map_err(writing)?;
    }
    let targets = target_rows::load(&connection);
    let targets = targets.map_err(|error| not_a_registry(path, format!("the file is damaged ({error})")))?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(writing)?;
    if mode != "wal" {
        return Err(unwritable(path, "its file system does not support a write-ahead log: expected a local disk"));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(writing)?;
    Ok((connection, targets))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn known_schema(path: &Path, found: i64) -> Result<(), OpenError> {
    match found {
        1..=schema::KNOWN => Ok(()),
        found if found > schema::KNOWN => {
            Err(OpenError::NewerSchema { path: path.to_owned(), found, known: schema::KNOWN })
        }
        _ => Err(not_a_registry(path, format!("the file has schema {found}, which no agent wrote"))),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn unwritable(path: &Path, detail: impl ToString) -> OpenError {
    OpenError::Unwritable { path: path.to_owned(), detail: detail.to_string() }
}

fn not_a_registry(path: &Path, detail: impl Into<String>) -> OpenError {
    OpenError::NotARegistry { path: path.to_owned(), detail: detail.into() }
}
