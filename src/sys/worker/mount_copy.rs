//! Measures a mount that another program owns, without keeping it busy.
//!
//! A process that resolves a path into a mount, or holds a file below it, uses the mount. If its owner unmounts it at
//! that moment, umount(2) fails with EBUSY. So the worker copies the mounts below the mount root (open_tree(2)), which
//! does not access them, and measures the copy. An unmount of the original then succeeds even while the copy hangs. It
//! must not propagate to the copy, which would be busy, so the copies are private (mount_namespaces(7)). The mount
//! point can be removed as well, because no mount namespace contains the copy.

#![allow(clippy::disallowed_methods, reason = "runs in a worker, where storage may be touched")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, CWD, Gid, StatxAttributes, StatxFlags, Uid, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::directory::measure_opened;
use super::mount_point::{components, step};
use super::protocol::{FaultKind, FileSystemCounts, WorkerFault};

/// Measures the topmost mount at a mount point, as a user and a group if they are given.
pub(super) fn measure(root: &Path, relative: &Path, user: Option<(u32, u32)>) -> Result<FileSystemCounts, WorkerFault> {
    let path = root.join(relative);
    let copies = copy_private(root)?;
    let mut copy = None;
    for component in components(root, relative)? {
        // Symbolic links are not followed.
        let next = step(copy.as_ref().unwrap_or(&copies), component, &path).map_err(|fault| match fault.errno() {
            Some(nix::errno::Errno::ENOENT) => not_mounted(&path),
            _ => fault,
        })?;
        copy = Some(next);
    }
    let copy = copy.ok_or_else(|| not_mounted(&path))?;
    // The copies of all other mounts end here. They would keep those file systems in use.
    drop(copies);
    if !is_mount_root(&copy, &path)? {
        return Err(not_mounted(&path));
    }
    match user {
        Some((uid, gid)) => measure_as(&copy, &path, Uid::from_raw(uid), Gid::from_raw(gid)),
        None => measure_opened(&copy, &path),
    }
}

/// Measures with all ids of another user, as FUSE demands (`fuse_allow_current_process` in `fs/fuse/dir.c`). Ids belong
/// to a thread (credentials(7)), so a thread takes them and ends.
fn measure_as(copy: &OwnedFd, path: &Path, uid: Uid, gid: Gid) -> Result<FileSystemCounts, WorkerFault> {
    let measuring = || {
        set_thread_res_gid(gid, gid, gid).and_then(|()| set_thread_res_uid(uid, uid, uid)).map_err(|errno| {
            let at = format!("{}: the ids {uid}:{gid} cannot be taken: {errno}", path.display());
            WorkerFault::new(FaultKind::Identity, at)
        })?;
        measure_opened(copy, path)
    };
    thread::scope(|scope| {
        let started = thread::Builder::new().spawn_scoped(scope, measuring);
        let ended = started.map_err(|error| error.to_string()).map(ScopedJoinHandle::join);
        match ended {
            Ok(Ok(measured)) => measured,
            Ok(Err(_)) => {
                Err(WorkerFault::new(FaultKind::Identity, format!("{}: the thread panicked", path.display())))
            }
            Err(error) => Err(WorkerFault::new(FaultKind::Identity, format!("{}: no thread: {error}", path.display()))),
        }
    })
}

/// Copies the mounts at and below a directory.
fn copy_private(root: &Path) -> Result<OwnedFd, WorkerFault> {
    // The mount is not accessed yet, so no error is its own.
    let unsupported = |call: &str, errno: nix::errno::Errno| {
        let at = format!("{call} {}: {} ({errno:?})", root.display(), errno.desc());
        WorkerFault::new(FaultKind::NoMountCopies, at)
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copies = open_tree(CWD, root, flags).map_err(|errno| unsupported("open_tree", nix_errno(errno)))?;
    let held = Path::new("/proc/self/fd").join(copies.as_raw_fd().to_string());
    let none: Option<&Path> = None;
    mount(none, &held, none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
        .map_err(|errno| unsupported("mount --make-rprivate", errno))?;
    Ok(copies)
}

/// Whether an opened directory is the root of a mount, and not a directory in one (statx(2)). Attributes are not
/// requested from a server.
fn is_mount_root(directory: &OwnedFd, path: &Path) -> Result<bool, WorkerFault> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let attributes = statx(directory, "", flags, StatxFlags::empty())
        .map_err(|errno| WorkerFault::system("statx", path, nix_errno(errno)))?;
    if !attributes.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        let at = format!("{}: the kernel does not report the roots of mounts", path.display());
        return Err(WorkerFault::new(FaultKind::NoMountCopies, at));
    }
    Ok(attributes.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn nix_errno(errno: Errno) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(errno.raw_os_error())
}

fn not_mounted(path: &Path) -> WorkerFault {
    WorkerFault::new(FaultKind::NotMounted, format!("{}: nothing is mounted there", path.display()))
}

#[cfg(test)]
mod tests {
    use nix::mount::{MntFlags, umount2};

    use super::*;

    /// `cargo test --lib mount_copy -- --ignored`, as root.
    #[test]
    #[ignore = "mounts: needs root"]
    fn mount_is_measured_through_a_copy() {
        let root = tempfile::tempdir().expect("a directory");
        let at = root.path().join("x");
        std::fs::create_dir_all(&at).expect("created");
        let measured = || measure(root.path(), Path::new("x"), None);
        assert_eq!(measured().expect_err("nothing is mounted").kind, FaultKind::NotMounted);
        assert_eq!(measure(root.path(), Path::new("y"), None).expect_err("no directory").kind, FaultKind::NotMounted);
        mount(Some("none"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mounted");
        let copies = copy_private(root.path()).expect("copied");
        let counts = measured();
        let as_user = measure(root.path(), Path::new("x"), Some((42436, 42436)));
        // The copies of a call that hangs keep neither the mount busy nor its directory in use.
        let unmounted = umount2(&at, MntFlags::empty());
        let removed = std::fs::remove_dir(&at);
        drop(copies);
        let counts = counts.expect("measured");
        assert_eq!(counts.unit_bytes * counts.blocks, 1 << 20);
        assert_eq!(as_user, Ok(counts));
        unmounted.expect("not busy");
        removed.expect("not in use");
    }
}
