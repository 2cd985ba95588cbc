//! The registry URL: selects the store of the registry.

use std::path::PathBuf;

/// Store of the registry (`[registry] url`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// An SQLite database file, `sqlite:///absolute/path`.
    Sqlite(PathBuf),
}
