//! SELinux of this host, as selinuxfs shows it from the kernel's memory.

#![allow(clippy::disallowed_methods, reason = "selinuxfs answers from memory: nothing here can wait for storage")]

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where selinuxfs is mounted. Absent on a host without SELinux, and mostly in containers.
pub const SELINUX: &str = "/sys/fs/selinux";

/// Largest number of bytes that are read of a file. `enforce` has one digit, and a boolean its current and its pending
/// value.
const VALUE_MAX_BYTES: u64 = 16;

/// Whether SELinux enforces a policy that denies virtual machines the files on NFS (`virt_use_nfs`). False if it is not
/// known.
pub fn denies_nfs_to_guests(selinux: &Path) -> bool {
    first_digit(&selinux.join("enforce")) == Some(b'1')
        && first_digit(&selinux.join("booleans/virt_use_nfs")) == Some(b'0')
}

fn first_digit(path: &Path) -> Option<u8> {
    let mut value = Vec::new();
    File::open(path).ok()?.take(VALUE_MAX_BYTES).read_to_end(&mut value).ok()?;
    value.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nfs_is_denied_only_if_the_policy_is_enforced_and_the_boolean_is_off() {
        let directory = tempfile::tempdir().expect("a directory");
        let selinux = directory.path();
        assert!(!denies_nfs_to_guests(selinux), "no SELinux");
        std::fs::create_dir(selinux.join("booleans")).expect("created");
        for (enforce, boolean, denies) in
            [("1", "0 0", true), ("1", "0 1", true), ("1", "1 1", false), ("1", "1 0", false), ("0", "0 0", false)]
        {
            std::fs::write(selinux.join("enforce"), enforce).expect("written");
            std::fs::write(selinux.join("booleans/virt_use_nfs"), boolean).expect("written");
            assert_eq!(denies_nfs_to_guests(selinux), denies, "{enforce} {boolean}");
        }
        std::fs::write(selinux.join("enforce"), "1").expect("written");
        std::fs::remove_file(selinux.join("booleans/virt_use_nfs")).expect("removed");
        assert!(!denies_nfs_to_guests(selinux), "a policy without the boolean");
    }
}
