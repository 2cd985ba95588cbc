//! The registry's file: lock, inspection, creation, opening.
//!
//! An existing file is inspected before anything can write to it. Its header must name SQLite and this
//! application, its pages must be intact, its schema must be known and its rows readable. Until then even the
//! checkpoint that SQLite makes on closing is disabled. A new registry is built under another name and
//! renamed, so a file at the path is always complete. An empty file means that data was lost, so it is refused.

#![allow(clippy::disallowed_methods, reason = "the registry's file is on a local disk, never below the mount root")]

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::errors::{has_no_space_for_index, not_a_registry, unreadable, unwritable};
use super::generation::{self, Found, Generation, Record};
use super::identity::FileIdentity;
use super::paths::{directory, remove_if_there, sync_directory, with_suffix};
use super::schema::{self, APPLICATION_ID};
use super::target_rows;
use crate::registry::error::{Obstacle, OpenError};
use crate::registry::snapshot::RegisteredTarget;

/// Longest time that a change waits for another program that locks the file, such as a backup.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Size of SQLite's page cache, in KiB.
const CACHE_KIB: i32 = 256;

/// Largest file whose pages are all checked, in bytes. The check of a larger one would delay the start.
/// Thousands of targets take a few MiB, and the full history of one target a few hundred KiB.
const CHECKED_MAX_BYTES: u64 = 256 << 20;

/// Header of a database file: length, magic string, and offsets of `user_version` and `application_id`
/// (<https://www.sqlite.org/fileformat.html#the_database_header>).
const HEADER_BYTES: usize = 100;
const HEADER_MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_USER_VERSION: usize = 60;
const HEADER_APPLICATION_ID: usize = 68;

/// Suffix of the lock file.
pub(super) const LOCK: &str = ".lock";

/// An open registry file.
pub(super) struct Opened {
    /// The connection, ready for changes.
    pub(super) connection: Connection,
    /// Excludes other agents until it is dropped.
    pub(super) lock: File,
    /// Detects when the open files are no longer at their paths.
    pub(super) identity: FileIdentity,
    /// Generation of the last acknowledged change.
    pub(super) record: Record,
    /// The loss of acknowledged changes that was accepted, if there was one.
    pub(super) accepted: Option<OpenError>,
    /// Every target that the file contains.
    pub(super) targets: Vec<RegisteredTarget>,
}

/// What to do with a file that lost acknowledged changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Refuse to open it.
    Refused,
    /// Open it and treat its content as the current state.
    Accepted,
}

/// Opens or creates the registry at `path`.
///
/// # Errors
/// [`OpenError`] as `SqliteStore::open` says; an existing file is then as it was.
pub(super) fn open(path: &Path, loss: Loss) -> Result<Opened, OpenError> {
    create_directory(path)?;
    let lock = lock(path)?;
    let recorded = Record::read(path);
    let mut accepted = None;
    if !exists(path)? {
        accepted = verify_absent(path, &recorded).err();
        if loss == Loss::Refused
            && let Some(lost) = accepted
        {
            return Err(lost);
        }
        create(path)?;
    }
    // A record that cannot be used proves no loss.
    let recorded = recorded.unwrap_or_else(|problem| {
        tracing::warn!(
            "{problem}: the agent replaces it, and cannot detect at this start whether the registry lost changes"
        );
        None
    });
    let required = recorded.as_ref().filter(|_| loss == Loss::Refused);
    inspect_header(path, OpenOptions::new().read(true).write(true))?;
    let (connection, targets) = open_checked(path, required)?;
    let failed = |error: rusqlite::Error| unwritable(path, error);
    let mut generation = Generation::read(&connection, targets.len()).map_err(failed)?;
    match &recorded {
        Some(recorded) => {
            if let Err(lost) = recorded.verify(path, Found::Generation(&generation)) {
                recorded.continue_in(&connection).map_err(failed)?;
                generation = Generation::read(&connection, targets.len()).map_err(failed)?;
                accepted.get_or_insert(lost);
            }
        }
        None if generation.number > 0 => tracing::warn!(
            path = %path.display(),
            "the registry has no record of its latest change beside it: changes that it lost before cannot be detected"
        ),
        None => {}
    }
    let record = Record::open(path, recorded.as_ref(), &generation);
    // The write-ahead log exists by now: the first read created it.
    let identity = FileIdentity::of(path).map_err(|error| unwritable(path, error))?;
    Ok(Opened { connection, lock, identity, record, accepted, targets })
}

/// Creates the file's directory if only that is missing. The parents of a misspelt path are not created.
pub(super) fn create_directory(path: &Path) -> Result<(), OpenError> {
    let directory = directory(path);
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_directory(directory.parent().unwrap_or(Path::new("/"))).map_err(|error| unwritable(path, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let detail = format!("directory {} and its parent do not exist", directory.display());
            Err(unwritable(path, detail))
        }
        // Creating the lock reports any other problem.
        Err(_) => Ok(()),
    }
}

/// Locks a separate file (`.lock`). A lock on the database itself would be lost as soon as this process closes any
/// descriptor of it (fcntl(2), "Record locks").
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock_path = with_suffix(path, LOCK);
    let options = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).to_owned();
    let failed = |error: std::io::Error| unwritable(path, Obstacle::from(error).at(&lock_path));
    let lock = options().open(&lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let detail = format!(
                "another agent is using it (it holds the lock on {}): stop that agent first",
                lock_path.display()
            );
            Err(unwritable(path, detail))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

pub(super) fn exists(path: &Path) -> Result<bool, OpenError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unwritable(path, error)),
    }
}

/// Verifies that a registry without a file lost nothing. `recorded` is its record.
///
/// # Errors
/// [`OpenError::ChangesLost`].
pub(super) fn verify_absent(path: &Path, recorded: &Result<Option<Generation>, String>) -> Result<(), OpenError> {
    match recorded {
        Ok(recorded) => recorded.as_ref().map_or(Ok(()), |recorded| recorded.verify(path, Found::Nothing)),
        // The existence of a record shows that there was a registry.
        Err(problem) => Err(generation::unknown_loss(path, problem)),
    }
}

/// Verifies that no write-ahead log remains of a registry without a file.
///
/// # Errors
/// [`OpenError::NotARegistry`].
pub(super) fn verify_no_log(path: &Path) -> Result<(), OpenError> {
    if exists(&with_suffix(path, "-wal"))? {
        return Err(not_a_registry(path, "the file is missing, but its write-ahead log exists"));
    }
    Ok(())
}

fn create(path: &Path) -> Result<(), OpenError> {
    verify_no_log(path)?;
    let new = with_suffix(path, ".new");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        remove_if_there(&with_suffix(&new, suffix)).map_err(|error| unwritable(path, error))?;
    }
    create_private(&new).map_err(|error| unwritable(path, error))?;
    let mut connection = connect(&new).map_err(|error| unwritable(path, error))?;
    schema::upgrade(&mut connection, |_| Ok(())).map_err(|error| unwritable(path, error))?;
    connection.close().map_err(|(_, error)| unwritable(path, error))?;
    fs::rename(&new, path).map_err(|error| unwritable(path, error))?;
    sync_directory(directory(path)).map_err(|error| unwritable(path, error))
}

/// Creates an empty file that no other user may read.
pub(super) fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Inspects the header without SQLite, which could write to the file.
pub(super) fn inspect_header(path: &Path, options: &OpenOptions) -> Result<(), OpenError> {
    // Otherwise opening a pipe for reading would wait for its writer. A pipe is refused below.
    let mut file = options
        .clone()
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| unwritable(path, error))?;
    let metadata = file.metadata().map_err(|error| unwritable(path, error))?;
    if !metadata.is_file() {
        return Err(not_a_registry(path, "not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(not_a_registry(path, "the file is empty"));
    }
    let mut header = [0; HEADER_BYTES];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(unwritable(path, error)),
        Ok(()) if header.starts_with(HEADER_MAGIC) => {}
        _ => return Err(not_a_registry(path, "the file is not an SQLite database")),
    }
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let found = number(HEADER_APPLICATION_ID);
    if found != APPLICATION_ID {
        let detail = format!(
            "the file is a database of another application (application_id {found}, expected {APPLICATION_ID})"
        );
        return Err(not_a_registry(path, detail));
    }
    known_schema(path, number(HEADER_USER_VERSION).into())
}

/// Opens a registry whose header was inspected. `required` is a generation that the registry must have reached.
pub(super) fn open_checked(
    path: &Path,
    required: Option<&Generation>,
) -> Result<(Connection, Vec<RegisteredTarget>), OpenError> {
    let damaged = |error| unreadable(path, &error);
    let mut connection = connect(path).map_err(damaged)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(damaged)?;
    let version = verify_pages(path, &connection)?;
    // Before the upgrade, so that a refused file stays as it was.
    if let Some(required) = required {
        verify_generation(path, &connection, version, required)?;
    }
    // A file whose rows cannot be read is not upgraded, so that the release that wrote it can still open it.
    let targets = if version < schema::KNOWN {
        schema::upgrade(&mut connection, target_rows::load)
    } else {
        target_rows::load(&connection)
    };
    let targets = targets.map_err(damaged)?;
    let writing = |error: rusqlite::Error| unwritable(path, error);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(writing)?;
    if mode != "wal" {
        return Err(unwritable(path, "its file system does not support a write-ahead log: expected a local disk"));
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(writing)?;
    Ok((connection, targets))
}

/// Verifies the schema and the pages of an open file, and returns the schema.
pub(super) fn verify_pages(path: &Path, connection: &Connection) -> Result<i64, OpenError> {
    let damaged = |error| unreadable(path, &error);
    // The write-ahead log may contain a newer header than the file.
    let version = schema::version(connection).map_err(damaged)?;
    known_schema(path, version)?;
    let size: u64 = fs::metadata(path).map_err(|error| unwritable(path, error))?.len();
    if size <= CHECKED_MAX_BYTES {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
        if verdict != "ok" {
            return Err(not_a_registry(path, format!("the file is damaged ({verdict})")));
        }
    }
    Ok(version)
}

/// Verifies that an open file of this schema has reached the `required` generation. Its targets are only counted, so
/// that the schema may be an older one.
///
/// # Errors
/// [`OpenError::ChangesLost`], or when the file cannot be read.
pub(super) fn verify_generation(
    path: &Path,
    connection: &Connection,
    schema: i64,
    required: &Generation,
) -> Result<(), OpenError> {
    if schema < generation::SCHEMA {
        return required.verify(path, Found::OlderSchema(schema));
    }
    let count = connection.query_row("SELECT count(*) FROM target", [], |row| row.get::<_, u32>(0));
    let found = count.and_then(|count| Generation::read(connection, count as usize));
    let found = found.map_err(|error| unreadable(path, &error))?;
    required.verify(path, Found::Generation(&found))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    match connect_with(path, "normal") {
        Err(error) if has_no_space_for_index(&error) => {
            tracing::warn!(path = %path.display(), "the registry's disk is full: the agent keeps the index of the log in memory, and no other program can read the registry before there is space");
            connect_with(path, "exclusive")
        }
        outcome => outcome,
    }
}

fn connect_with(path: &Path, locking_mode: &str) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // This pragma comes first, because the next one opens the log.
    connection.pragma_update(None, "locking_mode", locking_mode)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The content is also in memory as a snapshot, so few pages are read twice. The default is 2000 KiB.
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

fn known_schema(path: &Path, found: i64) -> Result<(), OpenError> {
    match found {
        1..=schema::KNOWN => Ok(()),
        found if found > schema::KNOWN => {
            Err(OpenError::NewerSchema { path: path.to_owned(), found, known: schema::KNOWN })
        }
        _ => Err(not_a_registry(path, format!("the file has schema {found}, which no version of the agent writes"))),
    }
}
