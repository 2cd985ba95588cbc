//! A worker process and the pipes to it.

use std::io;
use std::os::fd::AsFd as _;
use std::process::Stdio;

use futures::StreamExt as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::super::protocol::frame::{self, HELLO, Numbered};
use super::super::protocol::{IDENTITY, Response, WorkerFault};
use super::error::CallError;
use super::schedule::IdleWorker;
use super::settings::WorkerPoolSettings;
use crate::sys::children::{self, Child, ChildCensus, Program};
use crate::sys::command::DEFAULT_PATH;

/// Name of workers in logs and the census.
const WORKER: &str = "probe-worker";

pub(super) type Answer = Result<Response, WorkerFault>;

/// A worker. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    input: ChildStdin,
    /// Keeps a partial frame when `answer` is cancelled.
    output: FramedRead<ChildStdout, LengthDelimitedCodec>,
}

impl Worker {
    #[allow(clippy::disallowed_methods, reason = "the program is this one, and starts in a thread of its own")]
    pub(super) async fn start(settings: &WorkerPoolSettings, census: &ChildCensus) -> io::Result<Self> {
        let mut command = std::process::Command::new(&settings.program);
        command
            .args(&settings.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))
            .envs(std::env::var_os("LANG").map(|language| ("LANG", language)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = children::spawn(command, Program::Ours, WORKER.to_owned(), census).await?;
        let pipes = child.process().and_then(|process| process.stdin.take().zip(process.stdout.take()));
        let (input, output) = pipes.ok_or_else(|| io::Error::other("the worker has no pipes"))?;
        let output = LengthDelimitedCodec::builder()
            .little_endian()
            .length_field_length(frame::LENGTH_BYTES)
            .max_frame_length(frame::FRAME_MAX_BYTES)
            .new_read(output);
        Ok(Self { child, input, output })
    }

    /// Waits until the worker is ready for requests.
    ///
    /// # Errors
    /// When its first answer is not that of a worker with the protocol of this program.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        match self.answer(HELLO).await? {
            Some(Ok(Response::Ready { protocol: IDENTITY })) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the worker program has another version")),
        }
    }

    /// Sends a frame without waiting for an answer.
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.input.write_all(frame).await
    }

    /// Waits for the next answer: `None` if the worker hands the request back without having started it. Safe
    /// to cancel.
    pub(super) async fn answer(&mut self, number: u64) -> io::Result<Option<Answer>> {
        let frame = self.output.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        let answer: Numbered<Option<Answer>> = frame::decode(&frame)?;
        if answer.number != number {
            let message = format!("it answered request {} instead of {number}", answer.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(answer.body)
    }

    /// Whether there is nothing to read from the worker, not even the end of its output.
    pub(super) fn is_silent(&self) -> bool {
        let mut output = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
        let was_polled = loop {
            match poll(&mut output, PollTimeout::ZERO) {
                // Interrupted by a signal, such as SIGCHLD.
                Err(Errno::EINTR) => {}
                outcome => break outcome.is_ok(),
            }
        };
        was_polled && output[0].any() == Some(false) && self.output.read_buffer().is_empty()
    }

    /// Whether the worker executes instructions or waits for a processor. A worker that waits for storage does neither
    /// (proc_pid_stat(5)).
    pub(super) fn is_runnable(&self) -> bool {
        let stat = procfs::process::Process::new(self.child.pid().cast_signed()).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.state == 'R')
    }

    /// Closes the input, so that the worker ends.
    pub(super) fn end(self) {
        drop(self.input);
        self.child.retire();
    }
}

impl IdleWorker for Worker {
    /// Whether an idle worker can be used. There must be nothing to read from it, not even the end of its output. A
    /// worker that has ended is reaped here and need not be killed.
    fn is_usable(&mut self) -> bool {
        let is_silent = self.is_silent();
        if !is_silent && !self.child.has_ended() {
            tracing::warn!("a probe worker broke and is replaced: it sent an unexpected reply");
        }
        is_silent
    }
}

/// Logs that a worker broke, unless it simply ended.
pub(super) fn log_broken(error: &CallError) {
    if !matches!(error, CallError::WorkerDied { source } if is_end(source)) {
        tracing::warn!(%error, "a probe worker is replaced");
    }
}

/// Whether a worker was found to have ended.
pub(super) fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}
