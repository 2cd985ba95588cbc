//! Why a registry cannot be opened.

use std::path::PathBuf;

/// Why a registry could not be opened. What exists was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file exists and is not a registry.
    #[error(
        "registry {path}: {detail}. It was left as it is: restore it from a backup, or move it away to start with an empty registry"
    )]
    NotARegistry {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file was written by a newer agent.
    #[error(
        "registry {path} has schema {found} and this agent knows schemas up to {known}: install the agent version that wrote it, or a later one"
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this agent knows.
        known: i64,
    },
    /// The file or its directory cannot be opened or written.
    #[error(
        "registry {path} cannot be opened for writing: {detail}. The agent's user needs to write this file and its directory"
    )]
    Unwritable {
        /// The database file.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
}
