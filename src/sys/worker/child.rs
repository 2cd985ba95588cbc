//! The worker's side: one request after the other, with plain blocking system calls.
//!
//! There is no runtime, no thread and no state here, so that a worker is small, starts in a
//! millisecond and can be killed at any point. It ends when its input does, which is when the agent
//! lets it go or is gone itself. Any request may block for as long as a dead server likes; that is
//! the agent's business, which holds the deadline and the SIGKILL.

#![allow(clippy::disallowed_methods, reason = "a worker is the one place where storage may be touched")]

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{geteuid, setgroups};
use rustix::fs::{AtFlags, NFS_SUPER_MAGIC, StatFs, StatxFlags, fstatfs, statx};

use super::protocol::frame::{self, HELLO, HostTime, Numbered, Order};
use super::protocol::{FaultKind, FileSystemCounts, Request, Response, UnmountHow, WorkerFault};
use super::{canary, mount_point};
use crate::sys::children::become_a_child;

/// `targetwatch probe-worker`: serves requests until its input ends. Returns the exit code: 0 then,
/// 1 when the agent said something that no agent says.
#[must_use]
pub fn main() -> ExitCode {
    // Had the agent died before this line, the input would be at its end.
    let _ = become_a_child();
    if geteuid().is_root() {
        // The canary is to be refused what the backup user is refused. Where this is not permitted,
        // it says so itself.
        let _ = setgroups(&[]);
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the agent's own; there is no log here to write to.
            let _ = writeln!(io::stderr(), "targetwatch probe-worker: {error}; it is started by `targetwatch serve`");
            ExitCode::FAILURE
        }
    }
}

/// Says that it is there, and serves requests until the input ends.
///
/// # Errors
/// When the input is no request or nobody reads the answers.
pub fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    frame::write(output, HELLO, &Ok::<_, WorkerFault>(Response::Done))?;
    while let Some(order) = frame::read::<Order<Request>>(input)? {
        match order.body {
            Order::One(request) => frame::write(output, order.number, &perform(&request))?,
            Order::Batch { until, requests } => serve_batch(&requests, until, output, perform)?,
        }
    }
    Ok(())
}

/// Answers one after the other, since the next one may hang.
fn serve_batch(
    requests: &[Numbered<Request>],
    until: HostTime,
    output: &mut impl Write,
    mut perform: impl FnMut(&Request) -> Result<Response, WorkerFault>,
) -> io::Result<()> {
    for (index, request) in requests.iter().enumerate() {
        // The first has waited for nobody, so a host that is slow makes progress.
        let answer = (index == 0 || HostTime::now() < until).then(|| perform(&request.body));
        frame::write(output, request.number, &answer)?;
    }
    Ok(())
}

/// Does what is asked, for as long as that takes.
fn perform(request: &Request) -> Result<Response, WorkerFault> {
    match request {
        Request::StatVfs { path, expect_nfs } => measure(path, *expect_nfs).map(Response::Counts),
        Request::Canary(request) => canary::write(request).map(Response::Canary),
        Request::PrepareMountPoint { root, relative } => mount_point::prepare(root, relative).map(Response::Prepared),
        Request::RemoveMountPoint { root, relative } => mount_point::remove(root, relative).map(|()| Response::Done),
        Request::Unmount { path, how } => unmount(path, *how).map(|()| Response::Done),
    }
}

/// Opens a directory for being measured and written to. With `O_PATH`: that asks for no permission
/// to read it, which an export with `root_squash` may refuse root, and yet holds on to it, so that
/// what is verified to be NFS is also what is used. When it was unmounted a moment ago, the path
/// leads to the root disk.
pub(super) fn open_directory(path: &Path, expect_nfs: bool) -> Result<OwnedFd, WorkerFault> {
    let directory = open_any_directory(path)?;
    if expect_nfs {
        verify_it_is_nfs(&file_system(&directory, path)?, path)?;
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

/// Asks the server, if it is one's: so once for each measurement.
fn file_system(directory: &OwnedFd, path: &Path) -> Result<StatFs, WorkerFault> {
    fstatfs(directory).map_err(|errno| WorkerFault::system("fstatfs", path, Errno::from_raw(errno.raw_os_error())))
}

/// Magic numbers have 32 bits, whatever the word of the platform.
fn magic_of(file_system: &StatFs) -> u32 {
    file_system.f_type as u32
}

fn verify_it_is_nfs(file_system: &StatFs, path: &Path) -> Result<(), WorkerFault> {
    let magic = magic_of(file_system);
    if magic == NFS_SUPER_MAGIC as u32 {
        return Ok(());
    }
    let at = format!("{} is not on NFS (file system type {magic:#x})", path.display());
    Err(WorkerFault::new(FaultKind::NotNfs, at))
}

fn measure(path: &Path, expect_nfs: bool) -> Result<FileSystemCounts, WorkerFault> {
    let directory = open_any_directory(path)?;
    let counts = file_system(&directory, path)?;
    if expect_nfs {
        verify_it_is_nfs(&counts, path)?;
    }
    verify_it_exists(&directory, path)?;
    let count = |number| u64::try_from(number).unwrap_or_default();
    Ok(FileSystemCounts {
        // As fstatvfs(3) of the GNU C library has it: file systems that tell no fragment size have none.
        unit_bytes: count(if counts.f_frsize == 0 { counts.f_bsize } else { counts.f_frsize }),
        blocks: counts.f_blocks,
        blocks_free: counts.f_bfree,
        blocks_available: counts.f_bavail,
        files: counts.f_files,
        files_free: counts.f_ffree,
        magic: u64::from(magic_of(&counts)),
    })
}

/// Whether the directory still exists on the server. The counts alone do not tell: a server may go
/// on giving them for a directory that was removed while somebody holds on to it, and attributes may
/// come from this host's cache, so they are asked for anew (statx(2), `AT_STATX_FORCE_SYNC`).
fn verify_it_exists(directory: &OwnedFd, path: &Path) -> Result<(), WorkerFault> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let attributes = statx(directory, "", flags, StatxFlags::NLINK)
        .map_err(|errno| WorkerFault::system("statx", path, Errno::from_raw(errno.raw_os_error())))?;
    let is_removed = attributes.stx_mask & StatxFlags::NLINK.bits() != 0 && attributes.stx_nlink == 0;
    if is_removed { Err(WorkerFault::system("statx", path, Errno::ESTALE)) } else { Ok(()) }
}

/// Unmounts with the system call itself. `umount.nfs` would also tell an NFSv3 server's mountd,
/// which is a courtesy that a dead server makes expensive.
fn unmount(path: &Path, how: UnmountHow) -> Result<(), WorkerFault> {
    let (call, flags) = match how {
        UnmountHow::Plain => ("umount", MntFlags::empty()),
        UnmountHow::Force => ("umount -f", MntFlags::MNT_FORCE),
        UnmountHow::Lazy => ("umount -l", MntFlags::MNT_DETACH),
    };
    umount2(path, flags | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| WorkerFault::system(call, path, errno))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stat(path: &Path, expect_nfs: bool) -> Result<Response, WorkerFault> {
        perform(&Request::StatVfs { path: path.to_owned(), expect_nfs })
    }

    fn root() -> Request {
        Request::StatVfs { path: "/".into(), expect_nfs: false }
    }

    #[test]
    fn requests_are_answered_in_turn_until_the_input_ends() {
        let mut input = frame::encode(4, &Order::One(root())).expect("encodes");
        let until = HostTime::now().after(Duration::from_secs(600));
        let batch = Order::Batch { until, requests: vec![Numbered { number: 9, body: root() }] };
        input.extend(frame::encode(HELLO, &batch).expect("encodes"));
        let mut output = Vec::new();
        serve(&mut input.as_slice(), &mut output).expect("an end");
        let mut output = output.as_slice();
        let hello = frame::read::<Result<Response, WorkerFault>>(&mut output).expect("reads").expect("a frame");
        assert_eq!((hello.number, hello.body), (HELLO, Ok(Response::Done)));
        for number in [4, 9] {
            let answer = frame::read::<Result<Response, WorkerFault>>(&mut output).expect("reads").expect("a frame");
            assert_eq!(answer.number, number);
            let Ok(Response::Counts(counts)) = answer.body else {
                panic!("{:?}", answer.body);
            };
            assert!(counts.blocks > 0 && counts.unit_bytes >= 512 && counts.magic != 0);
            assert!(counts.capacity().capacity_bytes > counts.capacity().available_bytes);
        }
        assert!(serve(&mut b"\x02\0\0\0[]".as_slice(), &mut Vec::new()).is_err());
    }

    #[test]
    fn what_a_batch_has_no_time_for_is_given_back() {
        let until = HostTime::now().after(Duration::from_millis(200));
        let slow = |request: &Request| {
            while HostTime::now() < until {
                std::thread::yield_now();
            }
            perform(request)
        };
        let requests = [4, 9, 5].map(|number| Numbered { number, body: root() });
        let mut output = Vec::new();
        serve_batch(&requests, until, &mut output, slow).expect("answered");
        let mut output = output.as_slice();
        for (number, is_begun) in [(4, true), (9, false), (5, false)] {
            let answer =
                frame::read::<Option<Result<Response, WorkerFault>>>(&mut output).expect("reads").expect("a frame");
            assert_eq!((answer.number, answer.body.is_some()), (number, is_begun));
        }
    }

    #[test]
    fn only_a_directory_on_nfs_is_measured_when_nfs_is_expected() {
        let fault = stat(Path::new("/tmp"), true).expect_err("not NFS here");
        assert_eq!((fault.kind, fault.errno()), (FaultKind::NotNfs, None));
        assert!(fault.at.starts_with("/tmp is not on NFS"), "{fault}");
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("a link");
        for (path, kind, errno) in [
            (link.as_path(), FaultKind::NotADirectory, Some(Errno::ENOTDIR)),
            (Path::new("/etc/passwd"), FaultKind::NotADirectory, Some(Errno::ENOTDIR)),
            (Path::new("/nonexistent"), FaultKind::System, Some(Errno::ENOENT)),
            (Path::new("tmp"), FaultKind::BadRequest, None),
        ] {
            let fault = stat(path, false).expect_err("no directory");
            assert_eq!((fault.kind, fault.errno()), (kind, errno), "{fault}");
        }
    }

    #[test]
    fn what_is_not_mounted_is_not_unmounted() {
        let directory = tempfile::tempdir().expect("a directory");
        for how in [UnmountHow::Plain, UnmountHow::Force, UnmountHow::Lazy] {
            let fault = unmount(directory.path(), how).expect_err("nothing is mounted");
            // Not root: EPERM.
            assert!(matches!(fault.errno(), Some(Errno::EINVAL | Errno::EPERM)), "{fault}");
        }
    }
}
