//! Permissions of a process. Without the permission to mount, mount(2) fails with EPERM, which is also the error if the
//! server refuses.

#![allow(clippy::disallowed_methods, reason = "/proc, which no storage delays")]

use procfs::ProcResult;
use procfs::process::Process;

use crate::model::named::named;

/// User ids of the initial user namespace in `/proc/PID/uid_map` (user_namespaces(7)).
const ALL_IDS: [&str; 3] = ["0", "0", "4294967295"];

named! {
    /// A capability that the agent uses (capabilities(7)).
    Capability {
        /// Mount and unmount.
        SysAdmin => "CAP_SYS_ADMIN",
        /// Write a canary with the backup user's id.
        SetUid => "CAP_SETUID",
        /// Write a canary with the backup user's group.
        SetGid => "CAP_SETGID",
        /// Connect from a port below 1024.
        NetBindService => "CAP_NET_BIND_SERVICE",
        /// Take over the mount points of other users, and give the socket to a group.
        Chown => "CAP_CHOWN",
        /// Read files and directories of other users.
        DacReadSearch => "CAP_DAC_READ_SEARCH",
    }
}

impl Capability {
    /// Number in the set of capabilities (`linux/capability.h`).
    const fn bit(self) -> u32 {
        match self {
            Self::Chown => 0,
            Self::DacReadSearch => 2,
            Self::SetGid => 6,
            Self::SetUid => 7,
            Self::NetBindService => 10,
            Self::SysAdmin => 21,
        }
    }
}

/// Permissions of commands that a process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessRights {
    is_root: bool,
    bounding_set: u64,
    is_in_initial_namespace: bool,
}

impl ProcessRights {
    /// Reads the permissions of a process. What is unknown counts as permitted.
    ///
    /// # Errors
    /// When the process does not exist, or hides its status.
    pub fn of(pid: u32) -> ProcResult<Self> {
        let process = Process::new(pid.try_into().unwrap_or(i32::MAX))?;
        let status = process.status()?;
        let ids = std::fs::read_to_string(format!("/proc/{pid}/uid_map"));
        Ok(Self {
            is_root: status.euid == 0,
            // A program that root executes gets the capabilities of the bounding set.
            bounding_set: status.capbnd.unwrap_or(u64::MAX),
            is_in_initial_namespace: ids.map_or(true, |ids| is_initial_namespace(&ids)),
        })
    }

    /// Whether the process is root, of any user namespace.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.is_root
    }

    /// Whether the process has the ids of the host, and not those of a user namespace.
    #[must_use]
    pub fn is_in_initial_namespace(self) -> bool {
        self.is_in_initial_namespace
    }

    /// Whether commands of the process get a capability. Only root gets any.
    #[must_use]
    pub fn has(self, capability: Capability) -> bool {
        self.is_root && self.bounding_set & (1 << capability.bit()) != 0
    }

    /// Whether the kernel lets commands of the process mount NFS. They must be root with `CAP_SYS_ADMIN` in the initial
    /// user namespace.
    #[must_use]
    pub fn may_mount(self) -> bool {
        self.has(Capability::SysAdmin) && self.is_in_initial_namespace
    }
}

#[cfg(test)]
impl ProcessRights {
    /// The permissions of root of the host.
    pub(crate) const ROOT: Self = Self { is_root: true, bounding_set: u64::MAX, is_in_initial_namespace: true };

    /// The same without a capability.
    pub(crate) fn without(self, capability: Capability) -> Self {
        Self { bounding_set: self.bounding_set & !(1 << capability.bit()), ..self }
    }
}

/// Whether the kernel lets commands that this process starts mount NFS. True if this is unknown.
#[must_use]
pub fn may_mount() -> bool {
    ProcessRights::of(std::process::id()).map_or(true, ProcessRights::may_mount)
}

fn is_initial_namespace(ids: &str) -> bool {
    ids.split_whitespace().eq(ALL_IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_of_the_host_with_cap_sys_admin_may_mount() {
        let all = ProcessRights::ROOT;
        assert!(all.may_mount());
        assert!(!ProcessRights { bounding_set: 0x0000_00c0, ..all }.may_mount(), "without the capability");
        assert!(!ProcessRights { is_root: false, ..all }.may_mount());
        assert!(!ProcessRights { is_in_initial_namespace: false, ..all }.may_mount());
        assert!(is_initial_namespace("         0          0 4294967295\n"));
        assert!(!is_initial_namespace("         0       1000          1\n         1     100000      65536\n"));
    }

    #[test]
    fn capabilities_are_read_from_the_bounding_set() {
        let identity = ProcessRights { is_root: true, bounding_set: 0x0000_00c0, is_in_initial_namespace: true };
        let found = Capability::ALL.iter().filter(|capability| identity.has(**capability)).collect::<Vec<_>>();
        assert_eq!(found, [&Capability::SetUid, &Capability::SetGid]);
        assert!(ProcessRights::of(std::process::id()).is_ok());
        assert!(ProcessRights::of(u32::MAX).is_err());
    }
}
