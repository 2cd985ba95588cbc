//! Holders of file locks, without taking a lock: a process that starts meanwhile would find the file locked.
//!
//! `/proc/locks` names a file by the device and inode of its file system. For overlayfs and btrfs, these are not the
//! ones that stat(2) returns. So the open files of the holders of other locks are compared too, which needs root.

#![allow(clippy::disallowed_methods, reason = "/proc, and a lock file on a local disk, never below the mount root")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::stat::{major, minor};
use procfs::{Current as _, Lock, LockType, Locks};

/// Returns the process that holds a flock(2) lock on a file, from `/proc/locks` (proc_locks(5)). `None` if none does,
/// or if this process may not know it.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let locks: Vec<Lock> =
        Locks::current().ok()?.0.into_iter().filter(|lock| lock.lock_type == LockType::FLock).collect();
    let device = (major(file.dev()), minor(file.dev()));
    let is_on_file =
        |lock: &&Lock| lock.inode == file.ino() && (u64::from(lock.devmaj), u64::from(lock.devmin)) == device;
    let pid_of = |lock: &Lock| lock.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    if let Some(pid) = locks.iter().find(is_on_file).and_then(pid_of) {
        return Some(pid);
    }
    let holders: BTreeSet<u32> = locks.iter().filter_map(pid_of).collect();
    holders.into_iter().find(|pid| has_open(*pid, path, &file))
}

/// Whether a process has a file open. Only files of the same name are accessed, because others may be on storage that
/// does not answer.
fn has_open(pid: u32, path: &Path, file: &fs::Metadata) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().map(|descriptor| descriptor.path()).any(|descriptor| {
        fs::read_link(&descriptor).is_ok_and(|target| target.file_name() == path.file_name())
            && fs::metadata(&descriptor).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
    })
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

    #[test]
    fn open_file_is_recognized_by_its_identity() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = tempfile::NamedTempFile::new().expect("a file");
        let metadata = |file: &tempfile::NamedTempFile| file.as_file().metadata().expect("a file");
        assert!(has_open(std::process::id(), file.path(), &metadata(&file)));
        assert!(!has_open(std::process::id(), file.path(), &metadata(&other)));
        assert!(!has_open(u32::MAX, file.path(), &metadata(&file)));
    }
}
