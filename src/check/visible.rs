//! `visible`: programs outside of the agent see the target's mount.
//!
//! A process sees the mounts of its mount namespace. If the agent has one of its own, as in a container or in a unit
//! with `PrivateMounts=`, the host sees its mounts only if they propagate (mount_namespaces(7)). Otherwise a program of
//! the host finds an empty directory at the mount path, on the disk of the host. All facts come from the mount tables
//! in `/proc`. What they do not show is not a failure: the check is then skipped.

use std::path::Path;

use super::Checked;
use super::mounted::OwnMount;
use crate::model::Reason;
use crate::model::report::finding;
use crate::model::settings::VisibilitySettings;
use crate::sys::{HostMounts, HostView, MountTable, MountTableWatch};

/// Checks whether the host sees a mount at `path`.
pub fn visible(
    mounts: &MountTableWatch,
    host: &HostMounts,
    settings: &VisibilitySettings,
    path: &Path,
    mount: &OwnMount,
) -> Checked {
    if !settings.host {
        return Checked::not_needed("disabled in [visibility]: whether the host sees the mount is not verified");
    }
    let own = mounts.current();
    let host = match host.view(&own) {
        Ok(HostView::OwnNamespace) => return Checked::passed(()).detail("the agent and the host have the same mounts"),
        Ok(HostView::Other(table)) => table,
        Err(error) => return Checked::not_needed(format!("not verified: {error}")),
    };
    let find = |table: &MountTable| table.entries().iter().find(|entry| entry.mount_id == mount.mount_id).cloned();
    match find(&own) {
        Some(entry) if host.shows(&entry) => Checked::passed(()).detail("the host shares the mount"),
        // The host's table was read after the own one, so the mount may have been unmounted in between. An unmount
        // propagates at once.
        Some(_) if mounts.reread().is_ok_and(|table| find(&table).is_some()) => Checked::failed(finding!(
            Reason::MountsNotShared,
            "the host does not see the mount at {}, because the agent mounts in a mount namespace of its own: a program of the host that writes a backup there would write to the disk of the host. Give the agent's container the mount root with `shared` propagation, or remove settings such as PrivateMounts= and ProtectSystem= from its unit. If every program that uses the backups has the agent's mounts, set `host = false` in [visibility]",
            path.display()
        )),
        _ => Checked::not_needed("not verified: the mount changed meanwhile"),
    }
}
