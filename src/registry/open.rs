//! Selection of the store by the URL of the configuration.

use std::path::Path;
use std::sync::Arc;

use super::error::OpenError;
use super::handle::Registry;
use super::replica::ReplicaStore;
use super::shared::SharedRegistry;
use super::sqlite::SqliteStore;
use crate::etcd::FleetSize;
use crate::model::RegistryUrl;
use crate::model::settings::SharedRegistrySettings;

/// Opens the registry of a single node at a URL. Waits for the disk, so call it before the runtime serves anything.
///
/// # Errors
/// [`OpenError`]; what exists is left as it was.
pub fn open(url: &RegistryUrl) -> Result<Registry, OpenError> {
    match url {
        RegistryUrl::Sqlite(_) | RegistryUrl::Etcd(_) => Ok(Registry::new(Arc::new(SqliteStore::open(url.file())?))),
    }
}

/// Opens this node's copy of a shared registry, as [`open`]. Sends no request to the shared registry.
///
/// # Errors
/// [`OpenError`]; what exists is left as it was.
pub fn open_copy(
    settings: &SharedRegistrySettings,
    shared: Arc<dyn SharedRegistry>,
    fleet_size: FleetSize,
) -> Result<Registry, OpenError> {
    let copy = SqliteStore::open_copy(&settings.cache)?;
    Ok(Registry::new(Arc::new(ReplicaStore::new(copy, shared, settings.interval, fleet_size))))
}

/// Returns the file of the registry at a URL, for the functions that maintain it, such as [`backup`](super::backup).
/// `None` if the store has no file.
#[must_use]
pub fn file(url: &RegistryUrl) -> Option<&Path> {
    match url {
        RegistryUrl::Sqlite(_) | RegistryUrl::Etcd(_) => Some(url.file()),
    }
}
