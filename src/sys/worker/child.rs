//! The worker process: executes one request after the other with plain blocking system calls.
//!
//! There is no runtime, no thread and no state here. So a worker is small, starts in a millisecond and can be
//! killed at any point. It exits when its input ends, because the agent closed it or has exited. A request may block as
//! long as a server is dead. The agent knows the deadline, and kills the worker.

#![allow(clippy::disallowed_methods, reason = "a worker is the one place where storage may be touched")]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{geteuid, setgroups};

use super::protocol::frame::{self, Batch, HELLO, HostTime, Numbered};
use super::protocol::{IDENTITY, Request, Response, WorkerFault};
use super::{canary, directory, mount_copy, mount_point};
use crate::sys::child_setup;

/// `targetwatch-probe-worker` and `targetwatch probe-worker`: serves requests until its input ends. Returns the exit
/// code: 0 at the end of the input, and 1 if the input is not a valid request.
#[must_use]
pub fn main() -> ExitCode {
    panic::set_hook(Box::new(|panic| write_if_ready(io::stderr(), &format!("targetwatch probe-worker: {panic}\n"))));
    // The agent starts it through a link in /proc, which does not contain its name.
    let _ = prctl::set_name(c"probe-worker");
    // The error is ignored: if the agent has already died, the input is at its end.
    let _ = child_setup::apply();
    if geteuid().is_root() {
        // The canary must not have more permissions than the backup user. An error is ignored here, because the canary
        // itself reports it.
        let _ = setgroups(&[]);
    }
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A worker has no log. Its standard error is that of the agent.
            let line = format!("targetwatch probe-worker: {error}. It is started by `targetwatch serve`\n");
            write_if_ready(io::stderr(), &line);
            ExitCode::FAILURE
        }
    }
}

/// Writes a line unless that would block, because nothing may read the agent's standard error. A pipe that is ready
/// accepts at least `PIPE_BUF` bytes, and this process is not its only writer (pipe(7)).
fn write_if_ready(mut output: impl Write + AsFd, line: &str) {
    let is_ready = {
        let mut outputs = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
        poll(&mut outputs, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    };
    if is_ready {
        let _ = output.write_all(line.as_bytes());
    }
}

/// Sends the first answer, and executes requests until the input ends.
///
/// # Errors
/// When the input is not a request, or the output was closed.
pub fn serve(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let hello: Result<Response, WorkerFault> = Ok(Response::Ready { protocol: IDENTITY });
    frame::write(output, &Numbered { number: HELLO, body: Some(hello) })?;
    while let Some(batch) = frame::read::<Batch<Request>>(input)? {
        serve_batch(&batch, output, perform)?;
    }
    Ok(())
}

/// Answers requests one by one, because the next one may hang.
fn serve_batch(
    batch: &Batch<Request>,
    output: &mut impl Write,
    mut perform: impl FnMut(&Request) -> Result<Response, WorkerFault>,
) -> io::Result<()> {
    for (index, request) in batch.requests.iter().enumerate() {
        // The first request is always executed, so that a slow host makes progress.
        let answer = (index == 0 || HostTime::now() < batch.until).then(|| perform(&request.body));
        frame::write(output, &Numbered { number: request.number, body: answer })?;
    }
    Ok(())
}

/// Executes a request without a deadline.
fn perform(request: &Request) -> Result<Response, WorkerFault> {
    match request {
        Request::StatVfs { path, expect_nfs } => directory::measure(path, *expect_nfs).map(Response::Counts),
        Request::StatMount { root, relative, user } => mount_copy::measure(root, relative, *user).map(Response::Counts),
        Request::Canary(request) => canary::write(request).map(Response::Canary),
        Request::PrepareMountPoint { root, relative, is_private } => {
            if *is_private {
                mount_point::make_private(root)?;
            }
            mount_point::prepare(root, relative).map(Response::Prepared)
        }
        Request::RemoveMountPoint { root, relative } => mount_point::remove(root, relative).map(|()| Response::Done),
        Request::VerifyMountPoint { path } => mount_point::verify(path).map(|()| Response::Done),
        Request::Unmount { path, mount_id, how } => {
            mount_point::unmount(path, *mount_id, *how).map(|()| Response::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use nix::errno::Errno;

    use super::super::protocol::FaultKind;
    use super::*;

    fn stat(path: &Path, expect_nfs: bool) -> Result<Response, WorkerFault> {
        perform(&Request::StatVfs { path: path.to_owned(), expect_nfs })
    }

    fn read_answer(output: &mut &[u8]) -> Numbered<Option<Result<Response, WorkerFault>>> {
        frame::read(output).expect("reads").expect("a frame")
    }

    fn root() -> Request {
        Request::StatVfs { path: "/".into(), expect_nfs: false }
    }

    #[test]
    fn message_is_dropped_when_stderr_is_full() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        while nix::unistd::write(&writer, &[0; 4096]).is_ok() {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("set");
        // This blocks for ever if it writes.
        write_if_ready(std::fs::File::from(writer.try_clone().expect("a descriptor")), "a message\n");
        nix::unistd::read(&reader, &mut [0; 65536]).expect("read");
        write_if_ready(std::fs::File::from(writer), "a message\n");
        let mut rest = Vec::new();
        std::fs::File::from(reader).read_to_end(&mut rest).expect("read");
        assert!(rest.ends_with(b"a message\n"));
    }

    #[test]
    fn worker_answers_requests_in_order_until_its_input_ends() {
        let mut input = Vec::new();
        for number in [4, 9] {
            let requests = vec![Numbered { number, body: root() }];
            input.extend(frame::encode(&Batch { until: HostTime::now(), requests }).expect("encodes"));
        }
        let mut output = Vec::new();
        serve(&mut input.as_slice(), &mut output).expect("an end");
        let mut output = output.as_slice();
        let hello = read_answer(&mut output);
        assert_eq!((hello.number, hello.body), (HELLO, Some(Ok(Response::Ready { protocol: IDENTITY }))));
        for number in [4, 9] {
            let answer = read_answer(&mut output);
            assert_eq!(answer.number, number);
            let Some(Ok(Response::Counts(counts))) = answer.body else {
                panic!("{:?}", answer.body);
            };
            assert!(counts.blocks > 0 && counts.unit_bytes >= 512 && counts.magic != 0);
            assert!(counts.blocks > counts.blocks_available);
        }
        assert!(serve(&mut b"\x02\0\0\0\xff\xff".as_slice(), &mut Vec::new()).is_err());
    }

    #[test]
    fn worker_hands_back_batch_requests_after_their_time() {
        let until = HostTime::now().after(Duration::from_millis(200));
        let slow = |request: &Request| {
            while HostTime::now() < until {
                std::thread::yield_now();
            }
            perform(request)
        };
        let requests = [4, 9, 5].map(|number| Numbered { number, body: root() }).into();
        let mut output = Vec::new();
        serve_batch(&Batch { until, requests }, &mut output, slow).expect("answered");
        let mut output = output.as_slice();
        for (number, is_begun) in [(4, true), (9, false), (5, false)] {
            let answer = read_answer(&mut output);
            assert_eq!((answer.number, answer.body.is_some()), (number, is_begun));
        }
    }

    #[test]
    fn statvfs_refuses_other_file_systems_when_nfs_is_expected() {
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
}
