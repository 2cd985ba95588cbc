//! Selection of the store by the URL of the configuration.

use std::path::Path;
use std::sync::Arc;

use super::error::OpenError;
use super::handle::Registry;
use super::sqlite::SqliteStore;
use crate::model::RegistryUrl;

/// Opens the registry at a URL. Waits for the disk, so call it before the runtime serves anything.
///
/// # Errors
/// [`OpenError`]; what exists is left as it was.
pub fn open(url: &RegistryUrl) -> Result<Registry, OpenError> {
    match url {
        RegistryUrl::Sqlite(path) => Ok(Registry::new(Arc::new(SqliteStore::open(path)?))),
    }
}

/// Returns the file of the registry at a URL, for the functions that maintain it, such as [`backup`](super::backup).
/// `None` if the store has no file.
#[must_use]
pub fn file(url: &RegistryUrl) -> Option<&Path> {
    match url {
        RegistryUrl::Sqlite(path) => Some(path),
    }
}
