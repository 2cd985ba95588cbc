//! Sweep of the private root: ends private mounts of targets that an earlier agent process knew and this one does not.
//!
//! The agent ends a private mount after its probe, or when its target is deleted or changed. A target that is removed
//! while the agent does not run has no driver afterwards, so its mount would stay.

use std::path::Path;
use std::sync::Arc;

use super::nfs_driver::NfsDriver;
use crate::driver::driver_trait::{DetachError, Driver as _};
use crate::driver::host::Host;
use crate::model::settings::AgentSettings;
use crate::model::{MountMode, MountName, NfsExport, NfsTarget, TargetId};
use crate::sys::{MountEntry, MountTable};

/// A private mount that an earlier agent process made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateMount {
    /// Name of its directory below the private root.
    pub name: MountName,
    source: NfsExport,
}

impl PrivateMount {
    /// Returns the private mounts of a mount table, one for each directory.
    #[must_use]
    pub fn all(table: &MountTable, settings: &AgentSettings) -> Vec<Self> {
        let root = &settings.mounts.private_root;
        let mut found: Vec<Self> = Vec::new();
        for mount in table.below(root).filter_map(|entry| Self::of(entry, root)) {
            if !found.iter().any(|other| other.name == mount.name) {
                found.push(mount);
            }
        }
        found
    }

    /// Returns the private mount that an entry of the mount table is: NFS without a shared cache, in a directory with
    /// the name of an export. The kernel may show another path than the exported one, so the source is not compared.
    fn of(entry: &MountEntry, root: &Path) -> Option<Self> {
        let is_unshared = entry.super_options.split(',').any(|option| option == "nosharecache");
        let (name, key) = MountName::of_directory(&entry.mount_point, root).ok()?;
        let is_of_export = key.starts_with('/') || NfsExport::parse(&key).is_ok();
        let source = NfsExport::parse(&entry.source).ok()?;
        (entry.is_nfs() && is_unshared && is_of_export && name.below(root) == entry.mount_point)
            .then_some(Self { name, source })
    }

    /// Unmounts it like the private mount of a target, and removes its directory. Bounded like a probe. Returns a
    /// remark if a plain unmount was not enough.
    ///
    /// # Errors
    /// [`DetachError`] when it is still mounted.
    pub async fn end(self, host: &Arc<Host>, settings: &AgentSettings) -> Result<Option<String>, DetachError> {
        let spec = NfsTarget { export: self.source, options: None, mode: Some(MountMode::Observe) };
        // No target has this id.
        NfsDriver::new(TargetId::new_v4(), spec, self.name, host.clone()).detach(settings).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nfs_mounts_in_directories_of_exports_are_private_mounts() {
        let settings = AgentSettings::quiet();
        let root = settings.mounts.private_root.display().to_string();
        // `/b?`, `/mnt/tvault/162` twice, `nas:/a`, and what is not a private mount.
        let table: String = [
            (format!("{root}/L2I"), "nfs", "nas:/b?", "rw,vers=3,nosharecache"),
            (format!("{root}/L21udC90dmF1bHQvMTYy"), "nfs4", "nas:/resolved", "rw,vers=4.2,nosharecache,soft"),
            (format!("{root}/L21udC90dmF1bHQvMTYy"), "nfs4", "[fd00::1]:/mnt/tvault/162", "rw,nosharecache"),
            (format!("{root}/bmFzOi9h"), "nfs", "nas:/a", "rw,nosharecache"),
            (format!("{root}/L3g="), "nfs", "nas:/x", "rw,vers=3"),
            (format!("{root}/L3g="), "tmpfs", "tmpfs", "rw"),
            (format!("{root}/L3g="), "fuse.s3fs", "nas:/x", "rw,nosharecache"),
            (format!("{root}/L3g=/below"), "nfs", "nas:/x", "rw,nosharecache"),
            (format!("{root}/check-7/L3g="), "nfs", "nas:/x", "rw,nosharecache"),
            (format!("{root}/backups"), "nfs", "nas:/x", "rw,nosharecache"),
            (root.clone(), "nfs", "nas:/x", "rw,nosharecache"),
            ("/mnt/L3g=".to_owned(), "nfs", "nas:/x", "rw,nosharecache"),
        ]
        .iter()
        .enumerate()
        .map(|(id, (at, kind, source, options))| {
            format!("{} 1 0:{id} / {at} rw - {kind} {source} {options}\n", id + 50)
        })
        .collect();
        let found = PrivateMount::all(&MountTable::parse(table.as_bytes()), &settings);
        let names: Vec<_> = found.iter().map(|mount| mount.name.as_str()).collect();
        assert_eq!(names, ["L2I/", "L21udC90dmF1bHQvMTYy", "bmFzOi9h"]);
    }
}
