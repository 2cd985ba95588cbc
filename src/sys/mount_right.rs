//! Whether this process may mount. If not, mount(2) fails with EPERM, which is also the error if the server refuses.

#![allow(clippy::disallowed_methods, reason = "/proc of this process, which no storage delays")]

use procfs::process::Process;

/// `CAP_SYS_ADMIN` in capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// User ids of the initial user namespace in `/proc/self/uid_map` (user_namespaces(7)).
const ALL_IDS: [&str; 3] = ["0", "0", "4294967295"];

/// Whether the kernel lets commands that this process starts mount NFS. They must be root with `CAP_SYS_ADMIN` in the
/// initial user namespace. True if this is unknown.
#[must_use]
pub fn may_mount() -> bool {
    let status = Process::myself().and_then(|process| process.status());
    let ids = std::fs::read_to_string("/proc/self/uid_map");
    // A program that root executes gets the capabilities of the bounding set.
    let has_capability = status.map_or(true, |status| has_sys_admin(status.euid, status.capbnd.unwrap_or(u64::MAX)));
    has_capability && ids.map_or(true, |ids| is_initial_namespace(&ids))
}

fn has_sys_admin(user: u32, bounding_set: u64) -> bool {
    user == 0 && bounding_set & (1 << CAP_SYS_ADMIN) != 0
}

fn is_initial_namespace(ids: &str) -> bool {
    ids.split_whitespace().eq(ALL_IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_of_the_host_with_cap_sys_admin_may_mount() {
        assert!(has_sys_admin(0, 0x0000_01ff_ffff_ffff));
        assert!(!has_sys_admin(0, 0x0000_00c0), "without the capability");
        assert!(!has_sys_admin(42436, u64::MAX), "not root");
        assert!(is_initial_namespace("         0          0 4294967295\n"));
        assert!(!is_initial_namespace("         0       1000          1\n         1     100000      65536\n"));
    }
}
