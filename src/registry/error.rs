//! Why a registry cannot be opened, backed up or restored.

use std::path::PathBuf;

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
    #[error("registry {path} cannot be read: {detail}. Run the command as root or as the agent's user")]
    Unreadable {
        /// The database file.
        path: PathBuf,
        /// Error of the operating system.
        detail: String,
    },
    /// The file or its directory cannot be opened or written.
    #[error(
        "registry {path} cannot be opened for writing: {detail}. The agent's user needs to write this file and its directory"
    )]
    Unwritable {
        /// The database file.
        path: PathBuf,
        /// Error of the operating system.
        detail: String,
    },
}

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
