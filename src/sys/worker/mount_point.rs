//! Mount points: creates and removes directories below the mount root, and unmounts what is mounted on them.
//!
//! The names below the root come from exports, and the directories may be writable by other users. So
//! nothing is looked up by path: each component is opened relative to the previous one, and never through
//! a symbolic link. A bare mount point belongs to the agent and no other user may write to it. Otherwise a
//! backup that is written while nothing is mounted would fill the root disk instead of failing.
//!
//! mount.nfs resolves the path of the mount point again. Meanwhile, a user that can rename a directory on that path
//! could replace it by a link. Then the export would be mounted over any directory of the host. So the mount root and
//! all its parents must belong to root and be writable only by root. Directories below the root are changed to meet
//! that. An unmount and a removal could be redirected in the same way. So they look the mount point up in its parent
//! directory, which they verify and hold open. A mount point itself cannot be replaced while something is mounted on it
//! (rename(2), EBUSY).

#![allow(clippy::disallowed_methods, reason = "runs in a worker, where storage may be touched")]

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, getegid, geteuid, unlinkat};

use super::super::mount_table::MountTable;
use super::protocol::{FaultKind, PreparedMountPoint, UnmountHow, WorkerFault};

/// Mode of a mount point. Users other than the owner may list and traverse it.
const MODE: Mode = Mode::from_bits_truncate(0o755);

/// Mode of a private mount root.
const PRIVATE_MODE: Mode = Mode::S_IRWXU;

/// Mode bits that let users other than the owner write.
const WRITABLE_BY_OTHERS: Mode = Mode::from_bits_truncate(0o022);

/// Maximum number of symbolic links in the path of the mount root, as in path_resolution(7).
const LINKS_MAX: usize = 40;

/// Flags that open a directory without the permission to read it.
const HOLD: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Creates the directory. If it is bare, makes it writable only for its owner.
pub(super) fn prepare(root: &Path, relative: &Path) -> Result<PreparedMountPoint, WorkerFault> {
    let components = components(root, relative)?;
    let mut directory = open_protected(root, &Requirement { creates: true, holds_new_mount_points: true })?;
    let device = device(&directory, root)?;
    let mut path = root.to_owned();
    let (mut created, mut tightened) = (false, false);
    for component in components {
        path.push(component);
        created = match mkdirat(&directory, component, MODE) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(WorkerFault::system("mkdir", &path, errno)),
        };
        directory = step(&directory, component, &path)?;
        if self::device(&directory, &path)? != device {
            let at = format!("{}: something is mounted there, where a bare directory was expected", path.display());
            return Err(WorkerFault::new(FaultKind::Mounted, at));
        }
        tightened |= tighten(&directory, created, &path)?;
    }
    let holds_files = !created && holds_files(&directory, &path)?;
    Ok(PreparedMountPoint { created, tightened, holds_files })
}

/// Creates a mount root that only its owner may list and traverse. Refuses an existing directory that others may.
pub(super) fn make_private(root: &Path) -> Result<(), WorkerFault> {
    let exists = match open_protected(root, &Requirement { creates: false, holds_new_mount_points: true }) {
        Ok(directory) => Some(directory),
        Err(fault) if fault.errno() == Some(Errno::ENOENT) => None,
        Err(fault) => return Err(fault),
    };
    let Some(directory) = exists else {
        let directory = open_protected(root, &Requirement { creates: true, holds_new_mount_points: true })?;
        return fchmod(reopen(&directory, root)?, PRIVATE_MODE)
            .map_err(|errno| WorkerFault::system("chmod", root, errno));
    };
    let stat = fstat(&directory).map_err(|errno| WorkerFault::system("fstat", root, errno))?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if mode.intersects(Mode::S_IRWXG | Mode::S_IRWXO) {
        let at = format!("{} has mode {:04o}, so other users may access private mounts", root.display(), mode.bits());
        return Err(WorkerFault::new(FaultKind::Unprotected, at));
    }
    Ok(())
}

/// Requirements for the directory that contains a mount point, or for the mount root.
struct Requirement {
    /// Whether it is created with its parents if it is missing.
    creates: bool,
    /// Whether the directory must protect mount points that do not exist yet. A directory with the sticky bit, such as
    /// `/tmp`, protects only existing ones.
    holds_new_mount_points: bool,
}

/// Verifies that only root can replace a mount point or a directory on the way to it.
pub(super) fn verify(path: &Path) -> Result<(), WorkerFault> {
    open_parent(path, &Requirement { creates: false, holds_new_mount_points: true }).map(drop)
}

/// Unmounts the topmost mount at a path with umount2(2). `umount.nfs` would also notify the mountd of an NFSv3 server,
/// and wait for it if it is dead. The mount point is not opened, because that would make it busy.
///
/// A call may wait for another one of its target, and meanwhile a process may mount something over the mount. So the
/// worker compares the id of the topmost mount. It takes the id from the mount table, because statx(2) could wait for a
/// dead server.
pub(super) fn unmount(path: &Path, mount_id: u32, how: UnmountHow) -> Result<(), WorkerFault> {
    let (call, flags) = match how {
        UnmountHow::Plain => ("umount", MntFlags::empty()),
        UnmountHow::Force => ("umount -f", MntFlags::MNT_FORCE),
        UnmountHow::Lazy => ("umount -l", MntFlags::MNT_DETACH),
    };
    let (parent, name) = open_parent(path, &Requirement { creates: false, holds_new_mount_points: false })?;
    let table = MountTable::read().map_err(|error| {
        WorkerFault::new(FaultKind::System, format!("{}: the mount table cannot be read: {error}", path.display()))
    })?;
    if let Some(other) = table.topmost_at(path).filter(|topmost| topmost.mount_id != mount_id) {
        return Err(WorkerFault::new(
            FaultKind::Mounted,
            format!("{}: {} is mounted there", path.display(), other.source),
        ));
    }
    // umount2(2) takes no descriptor of a directory.
    let held = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    umount2(&held, flags | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| WorkerFault::system(call, path, errno))
}

/// Opens the parent directory of a mount point. Returns it with the name of the mount point.
fn open_parent<'a>(path: &'a Path, requirement: &Requirement) -> Result<(OwnedFd, &'a OsStr), WorkerFault> {
    let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute()) else {
        return Err(WorkerFault::new(FaultKind::BadRequest, format!("{} is not a mount point", path.display())));
    };
    Ok((open_protected(parent, requirement)?, name))
}

/// Opens a directory, and verifies it and each directory and each symbolic link on the way.
fn open_protected(root: &Path, requirement: &Requirement) -> Result<OwnedFd, WorkerFault> {
    let system = |call| move |errno| WorkerFault::system(call, root, errno);
    let open_top = || open("/", HOLD, Mode::empty()).map_err(system("open"));
    let names_of = |path: &Path| path.iter().rev().filter(|name| *name != "/").map(OsStr::to_owned).collect::<Vec<_>>();
    let (mut directory, mut path, mut names) = (open_top()?, PathBuf::from("/"), names_of(root));
    let mut links = 0;
    loop {
        verify_protected(&directory, &path, names.is_empty() && requirement.holds_new_mount_points)?;
        let Some(name) = names.pop() else { return Ok(directory) };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut next = openat(&directory, name.as_os_str(), flags, Mode::empty());
        if requirement.creates && matches!(next, Err(Errno::ENOENT)) {
            match mkdirat(&directory, name.as_os_str(), MODE) {
                // Another worker may have just created it.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(system("mkdir")(errno)),
            }
            next = openat(&directory, name.as_os_str(), flags, Mode::empty());
        }
        let next = next.map_err(system("open"))?;
        path.push(&name);
        match SFlag::from_bits_truncate(fstat(&next).map_err(system("fstat"))?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => directory = next,
            SFlag::S_IFLNK if links < LINKS_MAX => {
                links += 1;
                verify_protected(&next, &path, false)?;
                let target = PathBuf::from(readlinkat(&next, "").map_err(system("readlink"))?);
                names.extend(names_of(&target));
                path.pop();
                if target.is_absolute() {
                    (directory, path) = (open_top()?, PathBuf::from("/"));
                }
            }
            SFlag::S_IFLNK => return Err(system("open")(Errno::ELOOP)),
            _ => return Err(system("open")(Errno::ENOTDIR)),
        }
    }
}

/// Verifies that only root, or this process's user, can replace a symbolic link or the entries of a directory. In a
/// directory with the sticky bit, such as `/tmp`, users can replace only their own entries (unlink(2), EPERM). That is
/// enough unless the directory must protect mount points that do not exist yet.
fn verify_protected(file: &OwnedFd, path: &Path, holds_new_mount_points: bool) -> Result<(), WorkerFault> {
    let stat = fstat(file).map_err(|errno| WorkerFault::system("fstat", path, errno))?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let is_link = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK;
    let is_restricted = mode.contains(Mode::S_ISVTX) && !holds_new_mount_points;
    let problem = if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        format!("belongs to user {}, who can redirect the mount", stat.st_uid)
    } else if mode.intersects(WRITABLE_BY_OTHERS) && !is_link && !is_restricted {
        format!("has mode {:04o}, so users other than root can redirect the mount", mode.bits())
    } else {
        return Ok(());
    };
    Err(WorkerFault::new(FaultKind::Unprotected, format!("{} {problem}", path.display())))
}

/// Removes the directory, and then its parents below the root that have become empty.
pub(super) fn remove(root: &Path, relative: &Path) -> Result<(), WorkerFault> {
    let components = components(root, relative)?;
    let requirement = Requirement { creates: false, holds_new_mount_points: false };
    let mut directory = match open_protected(root, &requirement) {
        Err(fault) if fault.errno() == Some(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    let mut path = root.to_owned();
    let mut parents: Vec<(OwnedFd, &OsStr)> = Vec::with_capacity(components.len());
    for (index, component) in components.iter().enumerate() {
        path.push(component);
        // The last component is not opened, so that a file system that is unexpectedly mounted there is not accessed.
        if index + 1 < components.len() {
            let next = match step(&directory, component, &path) {
                Err(fault) if fault.errno() == Some(Errno::ENOENT) => return Ok(()),
                other => other?,
            };
            parents.push((std::mem::replace(&mut directory, next), component));
        } else {
            remove_leaf(&directory, component, &path)?;
        }
    }
    while let Some((parent, name)) = parents.pop() {
        // An error means that the directory contains another mount point or other files.
        if unlinkat(&parent, name, UnlinkatFlags::RemoveDir).is_err() {
            break;
        }
    }
    Ok(())
}

fn remove_leaf(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), WorkerFault> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // POSIX allows EEXIST and ENOTEMPTY for a directory that is not empty.
        Err(Errno::EEXIST) => Err(WorkerFault::system("rmdir", path, Errno::ENOTEMPTY)),
        Err(Errno::EBUSY) => Err(WorkerFault::system("rmdir", path, Errno::EBUSY).of_kind(FaultKind::Mounted)),
        Err(errno) => Err(WorkerFault::system("rmdir", path, errno)),
    }
}

/// Returns the components of the relative path. Each must be a plain name.
pub(super) fn components<'a>(root: &Path, relative: &'a Path) -> Result<Vec<&'a OsStr>, WorkerFault> {
    let bad = || {
        let at = format!("{:?} is not a directory below {:?}", relative.display(), root.display());
        WorkerFault::new(FaultKind::BadRequest, at)
    };
    if !root.is_absolute() {
        return Err(bad());
    }
    let names: Option<Vec<&OsStr>> = relative
        .components()
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    names.filter(|names| !names.is_empty()).ok_or_else(bad)
}

/// Opens a directory in another one, unless it is a symbolic link. `path` names it in errors.
pub(super) fn step(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, WorkerFault> {
    openat(directory, name, HOLD | OFlag::O_NOFOLLOW, Mode::empty())
        .map_err(|errno| WorkerFault::system("open", path, errno))
}

fn device(directory: &OwnedFd, path: &Path) -> Result<u64, WorkerFault> {
    fstat(directory).map(|stat| stat.st_dev).map_err(|errno| WorkerFault::system("fstat", path, errno))
}

/// Opens a directory that is open with `O_PATH` for listing and changing it.
fn reopen(directory: &OwnedFd, path: &Path) -> Result<OwnedFd, WorkerFault> {
    openat(directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| WorkerFault::system("open", path, errno))
}

/// Makes a bare mount point writable only for this process's user. Returns whether a change was needed.
fn tighten(directory: &OwnedFd, created: bool, path: &Path) -> Result<bool, WorkerFault> {
    let directory = reopen(directory, path)?;
    let stat = fstat(&directory).map_err(|errno| WorkerFault::system("fstat", path, errno))?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    if created {
        // The umask may have removed bits.
        fchmod(&directory, MODE).map_err(|errno| WorkerFault::system("chmod", path, errno))?;
        return Ok(false);
    }
    let is_foreign = stat.st_uid != geteuid().as_raw();
    if is_foreign {
        fchown(&directory, Some(geteuid()), Some(getegid()))
            .map_err(|errno| WorkerFault::system("chown", path, errno))?;
    }
    let is_writable = mode.intersects(WRITABLE_BY_OTHERS);
    if is_writable {
        // Also removes set-group-ID, which a hardened unit (RestrictSUIDSGID=) may not set.
        fchmod(&directory, mode - WRITABLE_BY_OTHERS - Mode::S_ISUID - Mode::S_ISGID)
            .map_err(|errno| WorkerFault::system("chmod", path, errno))?;
    }
    Ok(is_foreign || is_writable)
}

fn holds_files(directory: &OwnedFd, path: &Path) -> Result<bool, WorkerFault> {
    let mut listing =
        Dir::from_fd(reopen(directory, path)?).map_err(|errno| WorkerFault::system("list", path, errno))?;
    Ok(listing.iter().flatten().any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")))
}

#[cfg(test)]
mod tests;
