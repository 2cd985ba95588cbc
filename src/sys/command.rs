//! Commands: foreign programs such as `mount.nfs`, with a deadline.
//!
//! A command has an environment of `PATH` and `LC_ALL=C`, its own process group, and no input unless the caller gives
//! it one. Its messages are shown in reports and compared with known messages, so they must be English. At the
//! deadline, or when the caller drops the future, the whole group is killed. It also dies with the agent. Otherwise a
//! restarted agent would mount a second time while the `mount.nfs` of its predecessor is still trying.
//!
//! Call `mount.nfs` directly and not through `mount`, so that the process that hangs is the child itself.
//! `rpc.statd`, which `mount.nfs` may start, leaves the group and continues to run.

#![allow(clippy::disallowed_methods, reason = "the program is on a local disk, and starts in a thread of its own")]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::children::{self, Assignment, ChildCensus, ClaimError, Program, StuckChild, UNKILLABLE_AFTER};
use crate::model::TargetId;

/// Maximum number of bytes that are kept from the end of each output. The last lines contain the error.
pub const OUTPUT_MAX_BYTES: usize = 4096;

/// How long output is still read after the command has ended. Normally the output ends with the command. A daemon that
/// the command started may keep the pipe open for ever.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// `PATH` of commands when the agent itself has none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Result of a command that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Exit code, or `None` when a signal ended the command.
    pub code: Option<i32>,
    /// Signal that ended the command.
    pub signal: Option<i32>,
    /// End of standard output, at most [`OUTPUT_MAX_BYTES`].
    pub stdout: String,
    /// End of standard error, at most [`OUTPUT_MAX_BYTES`].
    pub stderr: String,
    /// Time from start to end.
    pub duration: Duration,
}

impl Finished {
    /// Whether the exit code is 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// What a command gets in addition to its arguments.
#[derive(Debug, Clone, Default)]
pub struct CommandInput {
    /// Variables of its environment.
    pub variables: Vec<(&'static str, String)>,
    /// Its standard input.
    pub stdin: Bytes,
}

/// Why a command did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program does not exist.
    #[error("{} is not installed", .0.display())]
    NotFound(PathBuf),
    /// The program could not be started.
    #[error("{} could not be started: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Error of fork or exec.
        source: io::Error,
    },
    /// The command did not end before its deadline and was killed.
    #[error("{} did not end within {} s and was killed", program.display(), after.as_secs_f64())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The deadline.
        after: Duration,
        /// The process, if it did not exit.
        unkillable: Option<StuckChild>,
    },
    /// Another child works for the target, or a killed child of the target does not exit.
    #[error("{} was not started: {source}", program.display())]
    Claim {
        /// The program.
        program: PathBuf,
        /// Why the target could not be claimed.
        source: ClaimError,
    },
}

/// Runs a command for a target and waits until it ends. Waits at most `deadline` for an earlier child of the target
/// to end, again `deadline` for the command, and then twice [`UNKILLABLE_AFTER`] for a killed command to exit. Dropping
/// the future kills the command.
///
/// # Errors
/// [`CommandError`] when the command did not end by itself. An exit code other than 0 is not an error.
pub async fn run_bounded(
    census: &ChildCensus,
    target: TargetId,
    program: &Path,
    arguments: &[OsString],
    deadline: Duration,
) -> Result<Finished, CommandError> {
    run_bounded_with(census, target, program, arguments, &CommandInput::default(), deadline).await
}

/// Runs a command with an input, as [`run_bounded`]. A command that works for no target claims another id.
///
/// # Errors
/// As [`run_bounded`].
pub async fn run_bounded_with(
    census: &ChildCensus,
    target: TargetId,
    program: &Path,
    arguments: &[OsString],
    input: &CommandInput,
    deadline: Duration,
) -> Result<Finished, CommandError> {
    let claim = census
        .claim(target, tokio::time::Instant::now() + deadline)
        .await
        .map_err(|source| CommandError::Claim { program: program.to_owned(), source })?;
    let began = Instant::now();
    let assignment = Assignment { claim, permit: None };
    let outcome = tokio::time::timeout(deadline, run(census, assignment, program, arguments, input));
    match outcome.await {
        Ok(Ok((status, stdout, stderr))) => Ok(Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: stdout.into_text(),
            stderr: stderr.into_text(),
            duration: began.elapsed(),
        }),
        Ok(Err(source)) if source.kind() == io::ErrorKind::NotFound => Err(CommandError::NotFound(program.to_owned())),
        Ok(Err(source)) => Err(CommandError::Spawn { program: program.to_owned(), source }),
        Err(_) => {
            // The timeout dropped the future, which killed the command. Its claim ends with it.
            let dead_by = tokio::time::Instant::now() + UNKILLABLE_AFTER * 2;
            let unkillable = match census.claim(target, dead_by).await {
                Err(ClaimError::Stuck(child)) => Some(child),
                Ok(_) | Err(ClaimError::Busy) => None,
            };
            Err(CommandError::TimedOut { program: program.to_owned(), after: deadline, unkillable })
        }
    }
}

async fn run(
    census: &ChildCensus,
    assignment: Assignment,
    program: &Path,
    arguments: &[OsString],
    input: &CommandInput,
) -> io::Result<(ExitStatus, Tail, Tail)> {
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))
        .env("LC_ALL", "C")
        .envs(input.variables.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(if input.stdin.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = children::spawn(command, Program::Foreign, program.display().to_string(), census).await?;
    child.assignments.push(assignment);
    let pipes = child.process().map(|process| (process.stdin.take(), process.stdout.take(), process.stderr.take()));
    let (stdin, stdout, stderr) = pipes.unwrap_or_default();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read its input.
            let _ = stdin.write_all(&input.stdin).await;
        }
    };
    let (mut out, mut err) = (Tail::default(), Tail::default());
    let status = {
        let copying = async { tokio::join!(write, out.fill(stdout), err.fill(stderr)) };
        tokio::pin!(copying);
        let mut copied = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                _ = &mut copying, if !copied => copied = true,
            }
        };
        if !copied {
            let _ = tokio::time::timeout(DRAIN_GRACE, copying).await;
        }
        status
    };
    Ok((status, out, err))
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    async fn fill(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else {
            return;
        };
        // On the heap: an array would be a part of every future that may run a command.
        let mut buffer = vec![0; OUTPUT_MAX_BYTES];
        // An error ends the output too.
        while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
            self.0.extend_from_slice(&buffer[..length]);
            let surplus = self.0.len().saturating_sub(OUTPUT_MAX_BYTES);
            self.0.drain(..surplus);
        }
    }

    fn into_text(self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    async fn shell(script: &str, deadline_ms: u64) -> Result<Finished, CommandError> {
        let arguments = ["-c", script].map(OsString::from);
        let census = ChildCensus::new();
        let deadline = Duration::from_millis(deadline_ms);
        let outcome = run_bounded(&census, Uuid::new_v4(), Path::new("/bin/sh"), &arguments, deadline).await;
        assert_eq!(census.counts().alive, 0, "reaped");
        outcome
    }

    #[tokio::test]
    async fn command_returns_exit_status_and_output() {
        let finished = shell("echo out; echo err >&2; exit 32", 5000).await.expect("ends");
        assert_eq!((finished.code, finished.signal, finished.is_success()), (Some(32), None, false));
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        let finished = shell("kill -TERM $$", 5000).await.expect("ends");
        assert_eq!((finished.code, finished.signal), (None, Some(15)));
    }

    #[tokio::test]
    async fn command_output_keeps_the_end() {
        let finished = shell("head -c 3000000 /dev/zero >&2; echo the end >&2", 5000).await.expect("ends");
        assert_eq!(finished.stderr.len(), OUTPUT_MAX_BYTES);
        assert!(finished.stderr.ends_with("the end\n"));
    }

    #[tokio::test]
    async fn command_has_a_fixed_environment_and_no_input() {
        let finished = shell("env | cut -d= -f1 | sort | tr '\\n' ' '; cat", 5000).await.expect("ends");
        assert_eq!(finished.stdout, "LC_ALL PATH PWD ", "PWD is the shell's own");
    }

    #[tokio::test]
    async fn command_gets_its_variables_and_its_input() {
        let census = ChildCensus::new();
        let run = async |script: &str, stdin: Vec<u8>| {
            let arguments = ["-c", script].map(OsString::from);
            let input = CommandInput { variables: vec![("NAME", "va\nlue".to_owned())], stdin: stdin.into() };
            let (program, deadline) = (Path::new("/bin/sh"), Duration::from_secs(5));
            let run = run_bounded_with(&census, Uuid::new_v4(), program, &arguments, &input, deadline);
            run.await.expect("ends").stdout
        };
        assert_eq!(run("echo \"$NAME\"; cat", b"input".to_vec()).await, "va\nlue\ninput");
        assert_eq!(run("echo unread", vec![b'x'; 1 << 20]).await, "unread\n");
    }

    #[tokio::test]
    async fn whole_group_is_killed_at_the_deadline() {
        let began = Instant::now();
        let error = shell("sleep 600 & trap '' TERM; sleep 600; sleep 600", 200).await.expect_err("killed");
        assert!(matches!(&error, CommandError::TimedOut { unkillable: None, .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(error.to_string(), "/bin/sh did not end within 0.2 s and was killed");
    }

    #[tokio::test]
    async fn command_returns_when_its_daemon_keeps_the_pipe_open() {
        let began = Instant::now();
        let finished = shell("echo started; setsid sleep 5 & exit 0", 4000).await.expect("ends");
        assert_eq!(finished.stdout, "started\n");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn missing_program_is_named() {
        let (census, deadline) = (ChildCensus::new(), Duration::from_secs(5));
        let missing = Path::new("/nonexistent/mount.nfs");
        let error = run_bounded(&census, Uuid::new_v4(), missing, &[], deadline).await.expect_err("missing");
        assert!(matches!(&error, CommandError::NotFound(path) if path == missing), "{error}");
        let no_program = Path::new("/etc/passwd");
        let error = run_bounded(&census, Uuid::new_v4(), no_program, &[], deadline).await.expect_err("no program");
        assert!(matches!(&error, CommandError::Spawn { .. }), "{error}");
    }

    #[tokio::test]
    async fn dropped_command_is_killed() {
        let (census, target) = (ChildCensus::new(), Uuid::new_v4());
        let arguments = [OsString::from("600")];
        let sleep = run_bounded(&census, target, Path::new("/bin/sleep"), &arguments, Duration::from_secs(60));
        assert!(tokio::time::timeout(Duration::from_millis(100), sleep).await.is_err());
        let soon = tokio::time::Instant::now() + Duration::from_secs(1);
        assert!(census.claim(target, soon).await.is_ok(), "its target is free again");
        assert_eq!(census.counts().killed_total, 1);
    }
}
