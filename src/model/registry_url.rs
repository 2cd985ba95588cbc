//! The registry URL: selects the store of the registry.

use std::fmt;
use std::path::PathBuf;

/// Store of the registry (`[registry] url`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// An SQLite database file, `sqlite:///absolute/path`.
    Sqlite(PathBuf),
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite://{}", path.display()),
        }
    }
}
