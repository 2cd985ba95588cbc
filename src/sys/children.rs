//! Child processes: which target each works for, and how they are killed.
//!
//! Three rules hold for every child:
//!
//! - **One per target.** A child works under a [`TargetClaim`], and a target has one claim.
//! - **No child outlives its caller.** A [`Child`] is dropped at its deadline, or when the future of its
//!   caller is dropped. It is then killed at once with its whole process group, and a separate task
//!   reaps it. It keeps the claim of its target until it has exited.
//! - **Unkillable children are reported.** SIGKILL does not end a process that waits uninterruptibly in
//!   the kernel. After [`UNKILLABLE_AFTER`] its target is marked stuck. Claims then fail at once, with the
//!   process id, until the child has exited.
//!
//! Children also die with the agent, even if the agent is killed: each has SIGKILL as its parent-death
//! signal. Linux sends this signal when the *thread* that forked ends (prctl(2), PR_SET_PDEATHSIG). The threads of a
//! runtime come and go, so one thread that lives as long as the process starts all children. Only that thread waits for
//! `exec` to read a program from disk.

mod census;
mod group;
mod spawner;

use std::io;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::Span;

pub use census::{ChildCensus, ChildCounts, ClaimError, StuckChild, TargetClaim};
pub(super) use spawner::Program;

/// Time that a killed child has to exit before its target is marked stuck.
pub const UNKILLABLE_AFTER: Duration = Duration::from_secs(1);

/// Work for one target, which a child holds until it has exited. A stuck child keeps only the claim of the
/// assignment in which it is stuck. It will never start the others.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) claim: TargetClaim,
    /// Permit of a busy worker. A stuck child releases it, because it cannot work any more. A target has at most
    /// one stuck child, which bounds their number.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

type Process = tokio::process::Child;

/// Starts a child, the leader of a new process group, which dies with this process. Must be called within a tokio
/// runtime. If the caller drops the future, the child is killed as soon as it exists.
///
/// # Errors
/// As fork(2) and execve(2), for example when the program does not exist.
pub(super) async fn spawn(command: Command, program: Program, what: String, census: &ChildCensus) -> io::Result<Child> {
    let (census, runtime) = (census.clone(), Handle::current());
    spawner::spawn(command, program, |process| Child::new(process, what, census, runtime)).await
}

/// A living child, the leader of its own process group. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Child {
    /// `None` once it was reaped or handed to the task that reaps it.
    process: Option<Process>,
    pid: u32,
    what: String,
    /// Assignments in reverse order of execution. Usually one, and none while the child is idle.
    pub(super) assignments: Vec<Assignment>,
    census: ChildCensus,
    runtime: Handle,
}

impl Child {
    fn new(process: Process, what: String, census: ChildCensus, runtime: Handle) -> Self {
        // A child that was not waited for has an id.
        let pid = process.id().unwrap_or_default();
        census.started(pid, &what);
        Self { process: Some(process), pid, what, assignments: Vec::new(), census, runtime }
    }

    /// Returns the process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the process, for its pipes.
    pub(super) fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Waits until the child ends by itself. Safe to cancel.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let Some(process) = self.process.as_mut() else {
            return Err(io::Error::other("waited for already"));
        };
        let status = process.wait().await?;
        self.process = None;
        self.census.ended(self.pid);
        self.assignments.clear();
        Ok(status)
    }

    /// Whether the child has ended. If so, it is reaped.
    pub(super) fn has_ended(&mut self) -> bool {
        // An error means that it was reaped elsewhere, so it is gone too.
        let has_ended = self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
        if has_ended && self.process.take().is_some() {
            self.census.ended(self.pid);
        }
        has_ended
    }

    /// Reaps the child when it ends by itself, as a worker does when its input ends. Kills it if it does not.
    pub(super) fn retire(mut self) {
        if let Some(process) = self.process.take() {
            self.reap(process, false);
        }
    }

    fn reap(&mut self, mut process: Process, kill: bool) {
        let (pid, what) = (self.pid, std::mem::take(&mut self.what));
        let assignments = std::mem::take(&mut self.assignments);
        let census = self.census.clone();
        if kill {
            census.killed();
            group::kill(pid);
        }
        self.runtime.spawn(async move {
            if !kill && timeout(UNKILLABLE_AFTER, process.wait()).await.is_err() {
                census.killed();
                group::kill(pid);
            }
            reap(process, pid, what, assignments, &census).await;
        });
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            self.reap(process, true);
        }
    }
}

/// Waits until a killed child and all processes of its group have exited. Marks it stuck after [`UNKILLABLE_AFTER`].
async fn reap(mut process: Process, pid: u32, what: String, mut assignments: Vec<Assignment>, census: &ChildCensus) {
    // A worker executes one assignment after the other, so it hangs in the first, which is the last in this order.
    let target = assignments.last().map(|assignment| assignment.claim.target());
    let span = assignments.last().map_or_else(Span::none, |assignment| assignment.claim.span.clone());
    let end = async {
        // An error means that it was reaped elsewhere, so it is gone too.
        let _ = process.wait().await;
        group::end(pid).await;
    };
    if timeout(UNKILLABLE_AFTER, end).await.is_err() {
        let stuck = StuckChild { pid, what: what.clone(), target, since: Instant::now() };
        census.mark_stuck(stuck);
        assignments.drain(..assignments.len().saturating_sub(1));
        if let Some(assignment) = assignments.first_mut() {
            assignment.permit = None;
        }
        span.in_scope(|| {
            tracing::warn!(
                pid,
                child = what,
                "a child was killed but does not exit: its target is not probed, or its command not run, until then"
            );
        });
        let _ = process.wait().await;
        group::end(pid).await;
        span.in_scope(|| tracing::info!(pid, child = what, "the stuck child has exited"));
    }
    census.ended(pid);
    drop(assignments);
}

#[cfg(test)]
mod tests;
