//! Why a registry cannot be opened, backed up or restored.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a registry could not be opened. An existing file was left unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file exists and is not a registry.
    #[error(
        "registry {path}: {detail}. It was left unchanged: restore it from a backup (targetwatch registry restore FILE), or move it and its log (-wal) away and start with an empty registry (targetwatch registry accept-loss)"
    )]
    NotARegistry {
        /// The database file.
        path: PathBuf,
        /// Why it is not one.
        detail: String,
    },
    /// Changes that were acknowledged are missing.
    #[error(
        "registry {path} lost changes that were acknowledged: {found}, expected {expected}, as {record} says. Its log (-wal) was removed or damaged, or another file replaced it. It was left unchanged: restore the latest state (targetwatch registry restore FILE), or accept the loss (targetwatch registry accept-loss)"
    )]
    ChangesLost {
        /// The database file.
        path: PathBuf,
        /// What it contains.
        found: String,
        /// What was acknowledged.
        expected: String,
        /// The file that says so.
        record: PathBuf,
    },
    /// The file was written by a newer agent.
    #[error(
        "registry {path} has schema {found} and this agent knows schemas up to {known}: install the agent version that wrote it, or a later one"
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// Schema of the file.
        found: i64,
        /// Newest schema that this agent knows.
        known: i64,
    },
    /// The file cannot be read. Only commands that change nothing return this error.
    #[error("registry {path} cannot be read: {obstacle}{}", .obstacle.advice("Run the command as root or as the agent's user"))]
    Unreadable {
        /// The database file.
        path: PathBuf,
        /// Why not.
        obstacle: Obstacle,
    },
    /// The file or its directory cannot be opened or written.
    #[error("registry {path} cannot be opened for writing: {obstacle}{}", .obstacle.advice("The agent's user needs to write this file and its directory"))]
    Unwritable {
        /// The database file.
        path: PathBuf,
        /// Why not.
        obstacle: Obstacle,
    },
}

/// What prevents the use of a file that may be intact, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    detail: String,
    /// Whether a permission is missing. Then the advice depends on the purpose.
    is_denied: bool,
}

impl Obstacle {
    /// A missing permission.
    #[must_use]
    pub fn denied(error: impl fmt::Display) -> Self {
        Self { detail: error.to_string(), is_denied: true }
    }

    /// Names the file that the error is about.
    #[must_use]
    pub fn at(self, file: &Path) -> Self {
        Self { detail: format!("{}: {}", file.display(), self.detail), ..self }
    }

    fn advice(&self, if_denied: &str) -> String {
        if self.is_denied { format!(". {if_denied}") } else { String::new() }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl From<String> for Obstacle {
    fn from(detail: String) -> Self {
        Self { detail, is_denied: false }
    }
}

impl From<&str> for Obstacle {
    fn from(detail: &str) -> Self {
        detail.to_owned().into()
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FREE_SPACE,
            // EIO has no kind.
            _ if error.raw_os_error() == Some(nix::libc::EIO) => EXAMINE_DISK,
            _ => "",
        };
        let is_denied = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
        Self { detail: format!("{error}{remedy}"), is_denied }
    }
}

/// What to do about a full disk.
pub(super) const FREE_SPACE: &str = ": free some space";

/// What to do about an input/output error.
pub(super) const EXAMINE_DISK: &str = ": look at the kernel's log (dmesg), and examine the disk";

/// Why a registry could not be backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The registry itself cannot be used.
    #[error(transparent)]
    Registry(#[from] OpenError),
    /// The backup exists already.
    #[error("backup {0}: the file exists, choose another name or replace it (--overwrite)")]
    Exists(PathBuf),
    /// The backup cannot be written.
    #[error("backup {path} cannot be written: {detail}")]
    Unwritable {
        /// The backup.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The file is not a backup of a registry.
    #[error("backup {path} cannot be restored: {detail}. The registry was left unchanged")]
    NotRestorable {
        /// The backup.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
}
