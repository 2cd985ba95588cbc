//! The registry URL: selects the store of the registry.

use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::SharedRegistrySettings;

/// Store of the registry (`[registry] url`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryUrl {
    /// An SQLite database file, `sqlite:///absolute/path`.
    Sqlite(PathBuf),
    /// A registry in etcd with a copy on this node, `etcd://host:2379/prefix`.
    Etcd(Box<SharedRegistrySettings>),
}

impl RegistryUrl {
    /// Returns the file of this node: the registry itself, or the copy of a shared one.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Sqlite(path) => path,
            Self::Etcd(settings) => &settings.cache,
        }
    }

    /// Returns the settings of a registry that all nodes share.
    #[must_use]
    pub fn shared(&self) -> Option<&SharedRegistrySettings> {
        match self {
            Self::Sqlite(_) => None,
            Self::Etcd(settings) => Some(settings),
        }
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(formatter, "sqlite://{}", path.display()),
            Self::Etcd(settings) => settings.fmt(formatter),
        }
    }
}
