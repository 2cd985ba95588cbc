//! The write-ahead log of an open registry: copying it into the file, and its index on a disk that was full.

#![allow(clippy::disallowed_methods, reason = "the registry's log is on a local disk, never below the mount root")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::file::BUSY_TIMEOUT;
use super::identity::FileIdentity;
use super::paths::with_suffix;
use super::schema;

/// Free space at which the agent creates the index of the log (32 KiB) on a disk that was full, in bytes.
const INDEX_SPACE_BYTES: u64 = 256 << 10;

/// Copies the write-ahead log into the file and empties it, if the files are still at their paths and no other program
/// reads the log (<https://www.sqlite.org/pragma.html#pragma_wal_checkpoint>). Returns false if another program reads
/// it: the caller tries again soon. A disk error is logged, and the next change reports it.
pub(super) fn checkpoint(connection: &Connection, identity: &FileIdentity) -> bool {
    if identity.verify().is_err() {
        return true;
    }
    // A reader must not delay the next change.
    let copied = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)));
    let restored = connection.busy_timeout(BUSY_TIMEOUT);
    match copied.and_then(|is_busy| restored.map(|()| is_busy)) {
        // If the kernel wrote nothing, later changes would overwrite the only copy in the log.
        Ok(is_busy) => identity.verify_written().is_err() || !is_busy,
        Err(error) => {
            tracing::warn!(%error, "the registry's log was not copied into its file: check the disk. The agent tries again after the next change");
            true
        }
    }
}

/// Closes the file. Afterwards the file is complete without its log. If the files are no longer at their paths, SQLite
/// must not copy the log into a file without a path, and then remove the log.
pub(super) fn close(connection: Connection, identity: &FileIdentity) {
    checkpoint(&connection, identity);
    let is_lost = identity.verify().is_err();
    let log = connection.path().filter(|_| !is_lost).map(|path| with_suffix(Path::new(path), "-wal"));
    let closed = connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, is_lost)
        .and_then(|_| connection.close().map_err(|(_, error)| error));
    if let Err(error) = closed {
        tracing::warn!(%error, "the registry was not closed cleanly: its log (-wal) is needed at the next start");
    } else if let Some(log) = log.filter(|log| fs::metadata(log).is_ok_and(|found| found.len() > 0)) {
        tracing::warn!(
            log = %log.display(),
            "the log was not copied into the registry's file, because another program reads the registry or the disk fails: it is needed at the next start"
        );
    }
}

/// Whether other programs can read the registry of this connection.
pub(super) fn is_shared(connection: &Connection) -> bool {
    let mode = connection.pragma_query_value(None, "locking_mode", |row| row.get::<_, String>(0));
    mode.is_ok_and(|mode| mode != "exclusive")
}

/// Ends the exclusive lock of a registry that was opened on a full disk, if there is space for the index of its log.
/// Returns whether other programs can read the registry now.
pub(super) fn share(connection: &Connection, identity: &FileIdentity) -> bool {
    if !identity.has_space(INDEX_SPACE_BYTES) || identity.verify().is_err() {
        return false;
    }
    let set = |name: &str, value: &str| connection.pragma_update_and_check(None, name, value, |_| Ok(()));
    // While the index is in memory, SQLite keeps the lock until it leaves the mode of the log
    // (https://www.sqlite.org/pragma.html#pragma_locking_mode).
    let shared = set("journal_mode", "delete")
        .and_then(|()| set("locking_mode", "normal"))
        .and_then(|()| set("journal_mode", "wal"))
        // The first read creates the index.
        .and_then(|()| schema::version(connection));
    if shared.is_err() {
        let locked = set("locking_mode", "exclusive").and_then(|()| set("journal_mode", "wal"));
        if let Err(error) = locked.and_then(|()| schema::version(connection).map(drop)) {
            tracing::warn!(%error, "the registry's log cannot be opened: check the space and the errors of the disk");
        }
    }
    identity.renew();
    let is_shared = shared.is_ok() && is_shared(connection);
    if is_shared {
        tracing::info!("the registry's disk has space: other programs can read the registry again");
    }
    is_shared
}
