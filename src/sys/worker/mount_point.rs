//! Mount points: creates and removes directories below the mount root.
//!
//! The names below the root come from exports, and the directories may be writable by others, so
//! nothing is looked up by path: each component is opened from the one before it and never through
//! a symbolic link. A bare mount point belongs to the agent and no other user may write to it, or a
//! backup that is written while nothing is mounted fills the root disk instead of failing.

#![allow(clippy::disallowed_methods, reason = "runs in a worker, where storage may be touched")]

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, getegid, geteuid, unlinkat};

use super::protocol::{FaultKind, PreparedMountPoint, WorkerFault};

/// Mode of a mount point. Users other than the owner may list and traverse it.
const MODE: Mode = Mode::from_bits_truncate(0o755);

/// Mode bits that let users other than the owner write.
const WRITABLE_BY_OTHERS: Mode = Mode::from_bits_truncate(0o022);

/// Flags that open a directory without the permission to read it.
const HOLD: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Creates the directory, and makes it writable for its owner only while it is bare.
pub(super) fn prepare(root: &Path, relative: &Path) -> Result<PreparedMountPoint, WorkerFault> {
    let components = components(root, relative)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(root).map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::ENOTDIR, Errno::from_raw);
        WorkerFault::system("mkdir", root, errno)
    })?;
    // The administrator configures the root, so it may contain symbolic links.
    let mut directory = open(root, HOLD, Mode::empty()).map_err(|errno| WorkerFault::system("open", root, errno))?;
    let device = device(&directory, root)?;
    let mut path = root.to_owned();
    let mut created = false;
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
    }
    let tightened = tighten(&directory, created, &path)?;
    let holds_files = !created && holds_files(&directory, &path)?;
    Ok(PreparedMountPoint { created, tightened, holds_files })
}

/// Removes the directory, and its parents below the root that are empty then.
pub(super) fn remove(root: &Path, relative: &Path) -> Result<(), WorkerFault> {
    let components = components(root, relative)?;
    let mut directory = match open(root, HOLD, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(WorkerFault::system("open", root, errno)),
    };
    let mut path = root.to_owned();
    let mut parents: Vec<(OwnedFd, &OsStr)> = Vec::with_capacity(components.len());
    for (index, component) in components.iter().enumerate() {
        path.push(component);
        // The leaf is not opened. If something is mounted there after all, it is not touched.
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
        // It contains another mount point or other files.
        if unlinkat(&parent, name, UnlinkatFlags::RemoveDir).is_err() {
            break;
        }
    }
    Ok(())
}

fn remove_leaf(parent: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), WorkerFault> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // POSIX allows both.
        Err(Errno::EEXIST) => Err(WorkerFault::system("rmdir", path, Errno::ENOTEMPTY)),
        Err(Errno::EBUSY) => Err(WorkerFault::system("rmdir", path, Errno::EBUSY).of_kind(FaultKind::Mounted)),
        Err(errno) => Err(WorkerFault::system("rmdir", path, errno)),
    }
}

/// Returns the components of the relative path, all of which must be plain names.
fn components<'a>(root: &Path, relative: &'a Path) -> Result<Vec<&'a OsStr>, WorkerFault> {
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

fn step(directory: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd, WorkerFault> {
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

/// Makes a bare mount point writable for this process's user only. Returns whether it was not.
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
        // Without set-group-ID, which a hardened unit (RestrictSUIDSGID=) may not set.
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
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    fn root() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("var/mounts");
        (directory, root)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    #[test]
    fn missing_mount_point_is_created_with_its_parents() {
        let (_guard, root) = root();
        let prepared = prepare(&root, Path::new("L2I/")).expect("made");
        assert_eq!(prepared, PreparedMountPoint { created: true, tightened: false, holds_files: false });
        assert_eq!(mode(&root.join("L2I")), 0o755);
        let prepared = prepare(&root, Path::new("L2I/YWJj/eHl6")).expect("made");
        assert!(prepared.created);
        let again = prepare(&root, Path::new("L2I/YWJj/eHl6")).expect("there");
        assert_eq!(again, PreparedMountPoint { created: false, tightened: false, holds_files: false });
    }

    #[test]
    fn mount_point_writable_by_others_is_tightened_and_hidden_files_are_reported() {
        let (_guard, root) = root();
        let point = root.join("x");
        fs::create_dir_all(&point).expect("made");
        fs::set_permissions(&point, fs::Permissions::from_mode(0o2777)).expect("a mode");
        fs::write(point.join("backup.img"), "on the root disk").expect("a file");
        if geteuid().is_root() {
            chown(&point, Some(42436), Some(42436)).expect("an owner");
        }
        let prepared = prepare(&root, Path::new("x")).expect("put right");
        assert_eq!(prepared, PreparedMountPoint { created: false, tightened: true, holds_files: true });
        assert_eq!(mode(&point) & 0o777, 0o755);
        assert_eq!(fs::metadata(&point).expect("there").uid(), geteuid().as_raw());
    }

    #[test]
    fn mount_point_lookup_follows_no_links_or_files() {
        let (guard, root) = root();
        fs::create_dir_all(&root).expect("made");
        symlink(guard.path(), root.join("link")).expect("a link");
        fs::write(root.join("file"), "").expect("a file");
        for relative in ["link", "link/x", "file", "file/x"] {
            let fault = prepare(&root, Path::new(relative)).expect_err(relative);
            assert_eq!(fault.kind, FaultKind::NotADirectory, "{fault}");
            assert!(fault.at.contains("/var/mounts/link") || fault.at.contains("/var/mounts/file"), "{fault}");
            assert!(remove(&root, Path::new(relative)).is_err(), "{relative}");
        }
        assert!(root.join("link").is_symlink() && !guard.path().join("x").exists());
    }

    #[test]
    fn mount_point_outside_an_absolute_root_is_refused() {
        let (_guard, root) = root();
        for relative in ["", ".", "..", "../x", "x/../../y", "/etc"] {
            assert_eq!(prepare(&root, Path::new(relative)).expect_err(relative).kind, FaultKind::BadRequest);
            assert_eq!(remove(&root, Path::new(relative)).expect_err(relative).kind, FaultKind::BadRequest);
        }
        assert_eq!(prepare(Path::new("mounts"), Path::new("x")).expect_err("relative").kind, FaultKind::BadRequest);
        assert!(!root.exists(), "and nothing was made");
    }

    #[test]
    fn removal_takes_empty_parents_but_never_the_root() {
        let (_guard, root) = root();
        prepare(&root, Path::new("a/b/c")).expect("made");
        prepare(&root, Path::new("a/d")).expect("made");
        remove(&root, Path::new("a/b/c")).expect("removed");
        assert!(!root.join("a/b").exists() && root.join("a/d").exists());
        remove(&root, Path::new("a/b/c")).expect("gone already");
        remove(&root, Path::new("a/d")).expect("removed");
        assert!(!root.join("a").exists() && root.exists());
    }

    #[test]
    fn mount_point_with_files_is_not_removed() {
        let (_guard, root) = root();
        prepare(&root, Path::new("x")).expect("made");
        fs::write(root.join("x/backup.img"), "precious").expect("a file");
        let fault = remove(&root, Path::new("x")).expect_err("not empty");
        assert_eq!((fault.kind, fault.errno()), (FaultKind::NotEmpty, Some(Errno::ENOTEMPTY)), "{fault}");
        assert!(root.join("x/backup.img").exists());
    }

    /// `cargo test --lib mount_point -- --ignored`, as root.
    #[test]
    #[ignore = "mounts: needs root"]
    fn mounted_directory_is_neither_prepared_nor_removed() {
        use nix::mount::{MsFlags, mount, umount};
        let (_guard, root) = root();
        prepare(&root, Path::new("x")).expect("made");
        mount(Some("none"), &root.join("x"), Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounted");
        let prepared = prepare(&root, Path::new("x"));
        let removed = remove(&root, Path::new("x"));
        umount(&root.join("x")).expect("unmounted");
        assert_eq!(prepared.expect_err("mounted").kind, FaultKind::Mounted);
        assert_eq!(removed.expect_err("mounted").kind, FaultKind::Mounted);
    }
}
