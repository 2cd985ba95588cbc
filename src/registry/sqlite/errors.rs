//! Errors of a registry that cannot be opened, from those of SQLite and the operating system.

use std::path::Path;

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_NOMEM, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_SHORT_READ};

use crate::registry::error::{EXAMINE_DISK, FREE_SPACE, Obstacle, OpenError};

/// Whether SQLite cannot create the index of the write-ahead log (`-shm`). With an exclusive lock, it needs no such
/// file (<https://www.sqlite.org/wal.html#use_of_wal_without_shared_memory>).
pub(super) fn has_no_space_for_index(error: &rusqlite::Error) -> bool {
    extended_code(error) == SQLITE_IOERR_SHMSIZE
}

/// Returns the error of a file that SQLite cannot read.
pub(super) fn unreadable(path: &Path, error: &rusqlite::Error) -> OpenError {
    use ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, NoLargeFileSupport, OutOfMemory,
        PermissionDenied, ReadOnly, SystemIoFailure,
    };
    match error.sqlite_error_code() {
        // The file ends before the place that SQLite reads.
        Some(SystemIoFailure) if extended_code(error) == SQLITE_IOERR_SHORT_READ => {
            not_a_registry(path, format!("the file is damaged ({error})"))
        }
        Some(
            CannotOpen
            | DatabaseBusy
            | DatabaseLocked
            | DiskFull
            | FileLockingProtocolFailed
            | NoLargeFileSupport
            | OutOfMemory
            | PermissionDenied
            | ReadOnly
            | SystemIoFailure,
        ) => unwritable(path, error),
        _ => not_a_registry(path, format!("the file is damaged ({error})")),
    }
}

impl From<&rusqlite::Error> for Obstacle {
    fn from(error: &rusqlite::Error) -> Self {
        if has_no_space_for_index(error) {
            return format!("its disk is full, and SQLite needs 32 KiB for the index of its log (-shm){FREE_SPACE}")
                .into();
        }
        let remedy = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                return format!(
                    "another program locks it ({error}): stop that program. An agent that was started on a full disk needs no stop: free some space, and it releases the file within seconds"
                )
                .into();
            }
            Some(ErrorCode::DiskFull) => FREE_SPACE,
            Some(ErrorCode::SystemIoFailure) if extended_code(error) != SQLITE_IOERR_NOMEM => EXAMINE_DISK,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                return Self::denied(error);
            }
            _ => "",
        };
        format!("{error}{remedy}").into()
    }
}

impl From<rusqlite::Error> for Obstacle {
    fn from(error: rusqlite::Error) -> Self {
        (&error).into()
    }
}

fn extended_code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |error| error.extended_code)
}

pub(super) fn unwritable(path: &Path, obstacle: impl Into<Obstacle>) -> OpenError {
    OpenError::Unwritable { path: path.to_owned(), obstacle: obstacle.into() }
}

pub(super) fn not_a_registry(path: &Path, detail: impl Into<String>) -> OpenError {
    OpenError::NotARegistry { path: path.to_owned(), detail: detail.into() }
}
