//! Holders of file locks, without taking a lock: a process that starts meanwhile would find the file locked.

#![allow(clippy::disallowed_methods, reason = "a lock file on a local disk, never below the mount root")]

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{major, minor};
use procfs::{Current as _, LockType, Locks};

/// Returns the process that holds a flock(2) lock on a file, from `/proc/locks` (proc_locks(5)). `None` if none does or
/// it is unknown: the device of a file on btrfs is not that of the table.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let file = std::fs::metadata(path).ok()?;
    let (device, inode) = ((major(file.dev()), minor(file.dev())), file.ino());
    let is_on_file = |lock: &procfs::Lock| {
        lock.lock_type == LockType::FLock && lock.inode == inode && (lock.devmaj.into(), lock.devmin.into()) == device
    };
    let holder = Locks::current().ok()?.0.into_iter().find(is_on_file)?;
    holder.pid.and_then(|pid| pid.try_into().ok()).filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_of_a_lock_is_found_until_the_lock_ends() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(holder(file.path()), None);
        file.as_file().lock().expect("locked");
        assert_eq!(holder(file.path()), Some(std::process::id()));
        file.as_file().unlock().expect("unlocked");
        assert_eq!(holder(file.path()), None);
        assert_eq!(holder(Path::new("/nonexistent")), None);
    }
}
