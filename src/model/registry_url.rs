//! The registry URL: which store the agent uses.

use std::path::PathBuf;

/// Where the registry is, from `[registry] url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// An SQLite database file, `sqlite:///absolute/path`.
    Sqlite(PathBuf),
}
