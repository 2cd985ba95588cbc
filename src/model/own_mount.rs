//! Identity of a mount that the agent made.
//!
//! A server may resolve the path of a mount, so the source that the kernel shows may differ from the target's export.
//! The agent therefore recognizes a mount by the numbers that the kernel assigned. They are unique among existing
//! mounts, and are not valid after a reboot.

use serde::{Deserialize, Serialize};

/// Identity of a mount according to the kernel's mount table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMountId {
    /// Boot of this host for which the numbers are valid (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Id of the mount. The kernel reuses it after the unmount. 0 in an intent.
    pub mount_id: u32,
    /// Device number of the file system, `major:minor`. Mounts of one file system of a server share it.
    pub device: String,
    /// Source as the kernel shows it, such as `host:/path`.
    pub source: String,
    /// Only in an intent: time of `CLOCK_MONOTONIC`, in milliseconds, at which `mount.nfs` has ended. A later mount was
    /// made by another process. The clock is the same for all processes of a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_ends_by_ms: Option<u64>,
}

impl OwnMountId {
    /// Returns the record of a mount that is about to be made. It identifies no mount.
    #[must_use]
    pub fn intent(boot_id: String, command_ends_by_ms: u64) -> Self {
        let [device, source] = [const { String::new() }; 2];
        Self { boot_id, mount_id: 0, device, source, command_ends_by_ms: Some(command_ends_by_ms) }
    }

    /// Whether this is the record of a mount that was about to be made. No mount has the id 0.
    #[must_use]
    pub fn is_intent(&self) -> bool {
        self.mount_id == 0
    }
}
