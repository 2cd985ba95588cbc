//! Opening the store that the configuration selects.

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
