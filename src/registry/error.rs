//! Why a registry cannot be opened.

use std::path::PathBuf;

/// Why a registry could not be opened. An existing one was left unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file exists and is not a registry.
    #[error(
        "registry {path}: {detail}. It was left unchanged: restore it from a backup, or move it away to start with an empty registry"
    )]
    NotARegistry {
        /// The database file.
        path: PathBuf,
        /// Why it is not one.
        detail: String,
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
