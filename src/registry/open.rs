//! Opening the store that the configuration selects, and its maintenance.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{MaintenanceError, OpenError};
use super::handle::Registry;
use super::sqlite::SqliteStore;
use super::sqlite::inspection::{self, Inspected};
use super::sqlite::maintenance::{self, BackedUp, Content, Restored};
use crate::model::{MountName, OwnMountId, RegistryUrl};

/// Opens the registry at a URL. Waits for the disk, so call it before the runtime serves anything.
///
/// # Errors
/// [`OpenError`]; what exists is left as it was.
pub fn open(url: &RegistryUrl) -> Result<Registry, OpenError> {
    match url {
        RegistryUrl::Sqlite(path) => Ok(Registry::new(Arc::new(SqliteStore::open(path)?))),
    }
}

/// Copies the registry at a URL to a file, as [`maintenance::backup`].
///
/// # Errors
/// [`MaintenanceError`]; the file is then as it was.
pub fn backup(url: &RegistryUrl, to: &Path, overwrite: bool) -> Result<BackedUp, MaintenanceError> {
    match url {
        RegistryUrl::Sqlite(path) => maintenance::backup(path, to, overwrite),
    }
}

/// Replaces the registry at a URL by a backup, as [`maintenance::restore`].
///
/// # Errors
/// [`MaintenanceError`]; the registry is then as it was.
pub fn restore(url: &RegistryUrl, from: &Path) -> Result<Restored, MaintenanceError> {
    match url {
        RegistryUrl::Sqlite(path) => maintenance::restore(path, from),
    }
}

/// Returns the mount that this host's agent made for a target, as [`maintenance::own_mount`].
///
/// # Errors
/// [`OpenError`].
pub fn own_mount(url: &RegistryUrl, mount_name: &MountName, export: &str) -> Result<Option<OwnMountId>, OpenError> {
    match url {
        RegistryUrl::Sqlite(path) => maintenance::own_mount(path, mount_name, export),
    }
}

/// Accepts that the registry at a URL lost changes, as [`maintenance::accept_loss`].
///
/// # Errors
/// [`OpenError`]; what exists is left as it was.
pub fn accept_loss(url: &RegistryUrl) -> Result<(Content, Option<OpenError>), OpenError> {
    match url {
        RegistryUrl::Sqlite(path) => maintenance::accept_loss(path),
    }
}

/// Reads the registry at a URL, as [`inspection::inspect`].
///
/// # Errors
/// [`OpenError`] when an agent could not open it.
pub fn inspect(url: &RegistryUrl) -> Result<Inspected, OpenError> {
    match url {
        RegistryUrl::Sqlite(path) => inspection::inspect(path),
    }
}

/// Returns the file on which an agent holds a lock while it uses the registry at a URL.
#[must_use]
pub fn lock_path(url: &RegistryUrl) -> PathBuf {
    match url {
        RegistryUrl::Sqlite(path) => inspection::lock_path(path),
    }
}
