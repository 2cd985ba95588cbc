//! The canary file: written, read back and removed as the user that writes backups.
//!
//! A measurement proves that a server answers. Only a write proves that a backup could be written. The worker
//! writes with that user's file-system ids (setfsuid(2)), which the NFS client sends to the server, and without
//! supplementary groups. With these ids, the worker also loses root's capabilities for files.
//!
//! The bytes must be read back from the server. After `fsync` the server has the data, but a plain read would be
//! answered from this host's page cache. So the file is read with `O_DIRECT`. If the file system refuses `O_DIRECT`,
//! the kernel is first advised to drop its cached copy (posix_fadvise(2)), but it may keep the copy. The answer reports
//! which of the two was used.
//!
//! A worker that is killed leaves its file behind. The next canary of the same node removes such leftovers. A leftover
//! is a small regular file with the name of a canary, older than [`canary_file::LEFTOVER_AGE_S`] by the server's clock.

#![allow(clippy::disallowed_methods, reason = "runs in a worker, where storage may be touched")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, PosixFadviseAdvice, openat, posix_fadvise};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, close, fsync, getegid, geteuid, getgroups, setfsgid, setfsuid, unlinkat};
use rustix::fs::fstatfs;

use super::directory::open_directory;
use super::protocol::{CanaryRequest, CanaryWritten, FaultKind, ReadBack, WorkerFault};
use crate::model::canary_file::{
    self, CANARY_FILE_BYTES, CanaryFileNames, LEFTOVER_SEARCH_MAX, LEFTOVERS_MAX, fill, mismatch,
};

/// A page in memory, aligned as `O_DIRECT` requires.
#[repr(align(4096))]
struct Page([u8; CANARY_FILE_BYTES]);

/// Writes a canary, reads it back, compares and removes it.
pub(super) fn write(request: &CanaryRequest) -> Result<CanaryWritten, WorkerFault> {
    if !request.names.are_sound() {
        let at = format!("{:?} is not the name of a canary", request.names.name);
        return Err(WorkerFault::new(FaultKind::BadRequest, at));
    }
    let directory = open_directory(&request.path, request.expect_nfs)?;
    let assumed = AssumedIds::assume(request.uid, request.gid)?;
    let outcome = write_as_user(&directory, request);
    drop(assumed);
    outcome.map_err(|fault| with_cause(fault, &directory))
}

/// Adds the facts about the directory that explain the fault. A call that gets no answer adds nothing.
fn with_cause(mut fault: WorkerFault, directory: &OwnedFd) -> WorkerFault {
    let cause = match fault.errno() {
        Some(Errno::EACCES | Errno::EPERM) => fstat(directory).ok().map(|stat| {
            let mode = stat.st_mode & 0o7777;
            format!("the root of the export belongs to uid {} gid {} and has mode {mode:04o}", stat.st_uid, stat.st_gid)
        }),
        // The error for missing space is the same.
        Some(Errno::ENOSPC) => fstatfs(directory)
            .ok()
            .filter(|counts| counts.f_files > 0 && counts.f_ffree == 0)
            .map(|counts| format!("all {} inodes are used, so no file can be created", counts.f_files)),
        _ => None,
    };
    if let Some(cause) = cause {
        fault.at = format!("{}; {cause}", fault.at);
    }
    fault
}

fn write_as_user(directory: &OwnedFd, request: &CanaryRequest) -> Result<CanaryWritten, WorkerFault> {
    let name = request.names.name.as_str();
    let path = request.path.join(name);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|errno| WorkerFault::system("create", &path, errno))?;
    let mut content = Box::new(Page([0; CANARY_FILE_BYTES]));
    fill(&mut content.0);
    // The file exists from here on, and is always removed. It is closed first, because NFS does not remove an open file
    // but renames it (.nfsXXXX).
    let outcome =
        store(file, &content, &path).and_then(|written| Ok((written, read_back(directory, name, &content, &path)?)));
    let removed = unlinkat(directory, name, UnlinkatFlags::NoRemoveDir);
    let (written, read_back) = outcome?;
    removed.map_err(|errno| WorkerFault::system("remove", &path, errno))?;
    let leftovers_removed = remove_leftovers(directory, &request.names, written.st_mtime);
    Ok(CanaryWritten { bytes: CANARY_FILE_BYTES as u64, read_back, leftovers_removed })
}

/// Writes the content to the server's disk. Each step, even close, may report a full disk or quota.
fn store(file: OwnedFd, content: &Page, path: &Path) -> Result<FileStat, WorkerFault> {
    let mut file = File::from(file);
    file.write_all(&content.0).map_err(|error| WorkerFault::system("write", path, errno_of(&error)))?;
    fsync(&file).map_err(|errno| WorkerFault::system("fsync", path, errno))?;
    let written = fstat(&file).map_err(|errno| WorkerFault::system("fstat", path, errno))?;
    close(file).map_err(|errno| WorkerFault::system("close", path, errno))?;
    Ok(written)
}

fn read_back(directory: &OwnedFd, name: &str, content: &Page, path: &Path) -> Result<ReadBack, WorkerFault> {
    let mut page = Box::new(Page([0; CANARY_FILE_BYTES]));
    let mut how = ReadBack::Direct;
    let mut read = read_page(directory, name, OFlag::O_DIRECT, &mut page);
    if let Err(Errno::EINVAL | Errno::EOPNOTSUPP) = read {
        how = ReadBack::Advised;
        read = read_page(directory, name, OFlag::empty(), &mut page);
    }
    let length = read.map_err(|errno| WorkerFault::system("read", path, errno))?;
    if let Some(difference) = mismatch(&content.0, &page.0[..length]) {
        return Err(WorkerFault::new(FaultKind::CanaryMismatch, format!("{}: {difference}", path.display())));
    }
    Ok(how)
}

fn read_page(directory: &OwnedFd, name: &str, direct: OFlag, page: &mut Page) -> Result<usize, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | direct;
    let mut file = File::from(openat(directory, name, flags, Mode::empty())?);
    if direct.is_empty() {
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    }
    let mut length = 0;
    while length < CANARY_FILE_BYTES {
        match file.read(&mut page.0[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno_of(&error)),
        }
    }
    Ok(length)
}

/// Removes leftovers of earlier canaries of this node. Errors are ignored, because the canary itself has passed.
/// `now` is the server's time, in seconds.
fn remove_leftovers(directory: &OwnedFd, names: &CanaryFileNames, now: i64) -> u32 {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // The user may be allowed to write to the directory but not to list it.
    let Ok(mut listing) = Dir::openat(directory, ".", flags, Mode::empty()) else {
        return 0;
    };
    let mut removed = 0;
    for entry in listing.iter().take(LEFTOVER_SEARCH_MAX).flatten() {
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if is_leftover(directory, name, names, now) && unlinkat(directory, name, UnlinkatFlags::NoRemoveDir).is_ok() {
            removed += 1;
            if removed == LEFTOVERS_MAX {
                break;
            }
        }
    }
    removed
}

fn is_leftover(directory: impl AsFd, name: &str, names: &CanaryFileNames, now: i64) -> bool {
    names.is_of_node(name)
        && fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
                && canary_file::is_leftover(stat.st_size.cast_unsigned(), stat.st_mtime, now)
        })
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Guard that sets the file-system ids of another user until it is dropped.
struct AssumedIds;

impl AssumedIds {
    fn assume(uid: u32, gid: u32) -> Result<Self, WorkerFault> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let assumed = Self;
        setfsgid(gid);
        setfsuid(uid);
        let groups = getgroups().map_or(1, |groups| groups.iter().filter(|group| **group != gid).count());
        let is_other = uid != geteuid() || gid != getegid();
        if fs_ids() != (uid, gid) || (is_other && groups > 0) {
            let at = format!(
                "cannot write as user {uid} and group {gid}: this needs CAP_SETUID and CAP_SETGID, which the agent has as root"
            );
            return Err(WorkerFault::new(FaultKind::Identity, at));
        }
        Ok(assumed)
    }
}

impl Drop for AssumedIds {
    fn drop(&mut self) {
        setfsuid(geteuid());
        setfsgid(getegid());
        if fs_ids() != (geteuid(), getegid()) {
            // The next request must not be executed as the other user. The pool starts a new worker for it.
            std::process::abort();
        }
    }
}

/// Returns the current file-system ids. setfsuid(2) only returns the previous id, so an invalid id is passed, which
/// changes nothing.
fn fs_ids() -> (Uid, Gid) {
    (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::time::{Duration, SystemTime};

    fn request(path: &Path, uid: Uid, gid: Gid) -> CanaryRequest {
        let names = CanaryFileNames::new("here");
        CanaryRequest { path: path.to_owned(), uid: uid.as_raw(), gid: gid.as_raw(), names, expect_nfs: false }
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn canary_is_written_read_back_and_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let written = write(&request(directory.path(), geteuid(), getegid())).expect("writable");
        assert_eq!((written.bytes, written.leftovers_removed), (4096, 0));
        assert_eq!(names(directory.path()), Vec::<String>::new());
        // A tmpfs of an older kernel does not support O_DIRECT.
        let in_memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
        assert!(write(&request(in_memory.path(), geteuid(), getegid())).is_ok());
    }

    #[test]
    fn leftovers_of_this_node_are_removed_and_other_files_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mine, theirs) = (CanaryFileNames::new("here"), CanaryFileNames::new("elsewhere"));
        let fresh = CanaryFileNames::new("here").name;
        let large = CanaryFileNames::new("here").name;
        let linked = CanaryFileNames::new("here").name;
        let kept = [&fresh, &large, &linked, &theirs.name, "backup.img", ".targetwatch-canary-"];
        for name in [mine.name.as_str(), &fresh, &large, &theirs.name, "backup.img", ".targetwatch-canary-"] {
            let file = File::create(directory.path().join(name)).expect("a file");
            file.set_len(if name == large { 4097 } else { 4096 }).expect("a size");
            if name != fresh {
                file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("an age");
            }
        }
        std::os::unix::fs::symlink("backup.img", directory.path().join(&linked)).expect("a link");
        let written = write(&request(directory.path(), geteuid(), getegid())).expect("writable");
        assert_eq!(written.leftovers_removed, 1);
        let mut kept = kept.map(str::to_owned).to_vec();
        kept.sort();
        assert_eq!(names(directory.path()), kept);
    }

    #[test]
    fn canary_with_a_foreign_name_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut request = request(directory.path(), geteuid(), getegid());
        request.names.name = "../escape".to_owned();
        assert_eq!(write(&request).expect_err("refused").kind, FaultKind::BadRequest);
    }

    #[test]
    fn canary_is_written_with_the_rights_of_the_user() {
        if !geteuid().is_root() {
            return;
        }
        setgroups_of_root();
        let (uid, gid) = (Uid::from_raw(42436), Gid::from_raw(42436));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let fault = write(&request(path, uid, gid)).expect_err("root's directory");
        assert_eq!((fault.kind, fault.errno()), (FaultKind::System, Some(Errno::EACCES)), "{fault}");
        assert!(fault.at.starts_with("create /"), "{fault}");
        assert!(fault.at.ends_with("; the root of the export belongs to uid 0 gid 0 and has mode 0755"), "{fault}");
        chown(path, Some(42436), Some(42436)).expect("an owner");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o300)).expect("a mode");
        write(&request(path, uid, gid)).expect("its own directory, even if it cannot be listed");
        assert_eq!(fs_ids(), (geteuid(), getegid()), "and this is root again");
        assert!(names(path).is_empty());
    }

    #[test]
    fn file_system_without_a_free_inode_is_named() {
        if !geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNS).is_err() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let mounted = mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .and_then(|()| mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("nr_inodes=3,mode=0777")));
        if mounted.is_err() {
            return;
        }
        for name in ["one", "two"] {
            File::create(path.join(name)).expect("a file");
        }
        let fault = write(&request(path, geteuid(), getegid())).expect_err("no inode is free");
        assert_eq!(fault.errno(), Some(Errno::ENOSPC), "{fault}");
        assert!(fault.at.ends_with("; all 3 inodes are used, so no file can be created"), "{fault}");
        umount2(path, MntFlags::MNT_DETACH).expect("unmounted");
    }

    /// Drops the supplementary groups of the process, as a worker does.
    fn setgroups_of_root() {
        nix::unistd::setgroups(&[]).expect("root");
    }
}
