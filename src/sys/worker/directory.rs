//! Opened directories: how a worker opens, verifies and measures the directory of a request.

#![allow(clippy::disallowed_methods, reason = "runs in a worker, where storage may be touched")]

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use rustix::fs::{AtFlags, NFS_SUPER_MAGIC, StatFs, StatxFlags, fstatfs, statx};

use super::protocol::{FaultKind, FileSystemCounts, WorkerFault};

/// Opens a directory to measure it or to write to it. `O_PATH` does not need the permission to read, which an export
/// with `root_squash` may deny to root. The open descriptor also ensures that the verified file system is the one that
/// is used: after an unmount, the path leads to the root disk.
pub(super) fn open_directory(path: &Path, expect_nfs: bool) -> Result<OwnedFd, WorkerFault> {
    let directory = open_any_directory(path)?;
    if expect_nfs {
        verify_it_is_nfs(magic_of(&file_system(&directory, path)?), path)?;
    }
    Ok(directory)
}

fn open_any_directory(path: &Path) -> Result<OwnedFd, WorkerFault> {
    if !path.is_absolute() {
        return Err(WorkerFault::new(FaultKind::BadRequest, format!("{} is not an absolute path", path.display())));
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| WorkerFault::system("open", path, errno))
}

/// Measures the file system, which costs a request to the server.
fn file_system(directory: &OwnedFd, path: &Path) -> Result<StatFs, WorkerFault> {
    fstatfs(directory).map_err(|errno| WorkerFault::system("fstatfs", path, Errno::from_raw(errno.raw_os_error())))
}

/// Returns the magic number, which has 32 bits on every platform.
fn magic_of(file_system: &StatFs) -> u32 {
    file_system.f_type as u32
}

fn verify_it_is_nfs(magic: u32, path: &Path) -> Result<(), WorkerFault> {
    if magic == NFS_SUPER_MAGIC as u32 {
        return Ok(());
    }
    let at = format!("{} is not on NFS (file system type {magic:#x})", path.display());
    Err(WorkerFault::new(FaultKind::NotNfs, at))
}

pub(super) fn measure(path: &Path, expect_nfs: bool) -> Result<FileSystemCounts, WorkerFault> {
    let directory = open_any_directory(path)?;
    let counts = file_system(&directory, path)?;
    if expect_nfs {
        verify_it_is_nfs(magic_of(&counts), path)?;
    }
    verify_it_exists(&directory, path)?;
    Ok(in_protocol(&counts))
}

/// Measures the file system of an opened directory, which `path` names in errors.
pub(super) fn measure_opened(directory: &OwnedFd, path: &Path) -> Result<FileSystemCounts, WorkerFault> {
    let counts = file_system(directory, path)?;
    verify_it_exists(directory, path)?;
    Ok(in_protocol(&counts))
}

fn in_protocol(counts: &StatFs) -> FileSystemCounts {
    let count = |number| u64::try_from(number).unwrap_or_default();
    FileSystemCounts {
        // The same fallback as in fstatvfs(3) of the GNU C library, for file systems that report no fragment size.
        unit_bytes: count(if counts.f_frsize == 0 { counts.f_bsize } else { counts.f_frsize }),
        blocks: counts.f_blocks,
        blocks_free: counts.f_bfree,
        blocks_available: counts.f_bavail,
        files: counts.f_files,
        files_free: counts.f_ffree,
        magic: u64::from(magic_of(counts)),
    }
}

/// Verifies that the directory still exists on the server. A server may return counts for a directory that was
/// removed while a process had it open. Attributes in this host's cache may be outdated, so they are requested from the
/// server (statx(2), `AT_STATX_FORCE_SYNC`).
fn verify_it_exists(directory: &OwnedFd, path: &Path) -> Result<(), WorkerFault> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let attributes = statx(directory, "", flags, StatxFlags::NLINK)
        .map_err(|errno| WorkerFault::system("statx", path, Errno::from_raw(errno.raw_os_error())))?;
    let is_removed = attributes.stx_mask & StatxFlags::NLINK.bits() != 0 && attributes.stx_nlink == 0;
    if is_removed { Err(WorkerFault::system("statx", path, Errno::ESTALE)) } else { Ok(()) }
}
