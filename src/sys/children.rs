//! Child processes: which target each works for, and how they are killed.
//!
//! Three rules hold for every child:
//!
//! - **One per target.** A child works under a [`TargetClaim`], and a target has one claim.
//! - **No child outlives its caller.** A [`Child`] is dropped at its deadline, or when the future of its
//!   caller is dropped. It is then killed at once with its whole process group, and a task of its own
//!   reaps it. It keeps the claim of its target until it is gone.
//! - **Unkillable children are reported.** SIGKILL does not end a process that waits uninterruptibly in
//!   the kernel. After [`UNKILLABLE_AFTER`] its target is marked stuck. Claims then fail at once, with the
//!   process id, until the child is gone.
//!
//! Children also die with the agent, even if that is killed: each has SIGKILL as its parent-death
//! signal. Linux sends that when the *thread* that forked ends (prctl(2), PR_SET_PDEATHSIG), and a
//! runtime's threads come and go, so all children are made by one thread that lives as long as the
//! process. That thread is also the only one that waits for `exec` to read a program from disk.

mod spawner;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use procfs::process::Process;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tracing::Span;

use crate::model::TargetId;

pub(super) use spawner::{Program, spawn};

/// How long a killed child may take to die before its target is marked stuck.
pub const UNKILLABLE_AFTER: Duration = Duration::from_secs(1);

/// First interval between two looks for processes that are left in a group whose leader is gone. It doubles
/// each time.
const GROUP_POLL: Duration = Duration::from_millis(5);

/// Longest interval between two such looks.
const GROUP_POLL_MAX: Duration = Duration::from_millis(500);

/// A child that was killed and did not die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckChild {
    /// Its process id.
    pub pid: u32,
    /// What it is: `probe-worker`, or the path of a command.
    pub what: String,
    /// The target that it was at work for.
    pub target: Option<TargetId>,
    /// When it was found not to die.
    pub since: std::time::Instant,
}

/// Why a target could not be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Another child was at work for it all the time.
    #[error("another child is at work for this target and did not end in time")]
    Busy,
    /// Its last child cannot be killed.
    #[error(
        "{} (process {}) was killed and does not die: it waits in the kernel for storage that does not answer; this target is left alone until it is gone",
        .0.what,
        .0.pid
    )]
    Stuck(StuckChild),
}

/// All children of this process. Cheap to clone; all clones are the same census.
#[derive(Debug, Clone)]
pub struct ChildCensus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Told whenever a claim ends or a child is found to be stuck.
    changed: watch::Sender<()>,
    spawned: AtomicU64,
    killed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The targets that have a child, with that child if it is stuck.
    targets: HashMap<TargetId, Option<StuckChild>>,
    /// Every child that was not reaped, by process id.
    alive: BTreeMap<u32, String>,
    /// Every child that does not die, by process id.
    stuck: BTreeMap<u32, StuckChild>,
}

/// How many children there are and were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChildCounts {
    /// Not reaped yet, the stuck ones included.
    pub alive: usize,
    /// Killed, and not dead.
    pub stuck: usize,
    /// Ever made.
    pub spawned_total: u64,
    /// Ever killed.
    pub killed_total: u64,
}

impl Default for ChildCensus {
    fn default() -> Self {
        Self::new()
    }
}

impl ChildCensus {
    /// A census without children.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            spawned: AtomicU64::new(0),
            killed: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> ChildCounts {
        let state = self.state();
        ChildCounts {
            alive: state.alive.len(),
            stuck: state.stuck.len(),
            spawned_total: self.inner.spawned.load(Ordering::Relaxed),
            killed_total: self.inner.killed.load(Ordering::Relaxed),
        }
    }

    /// The children that do not die, by process id.
    #[must_use]
    pub fn stuck_children(&self) -> Vec<StuckChild> {
        self.state().stuck.values().cloned().collect()
    }

    /// The child of this target that does not die, if there is one.
    #[must_use]
    pub fn stuck(&self, target: TargetId) -> Option<StuckChild> {
        self.state().targets.get(&target).cloned().flatten()
    }

    /// Claims a target for a child, waiting until `give_up` for an earlier one to end.
    ///
    /// # Errors
    /// [`ClaimError::Stuck`] as soon as that is known, [`ClaimError::Busy`] at `give_up`.
    pub async fn claim(&self, target: TargetId, give_up: Instant) -> Result<TargetClaim, ClaimError> {
        let mut changed = self.inner.changed.subscribe();
        loop {
            match self.try_claim(target) {
                Err(ClaimError::Busy) => {}
                decided => return decided,
            }
            // The sender lives in `self`, so only the time can fail this.
            if tokio::time::timeout_at(give_up, changed.changed()).await.is_err() {
                return Err(ClaimError::Busy);
            }
        }
    }

    fn try_claim(&self, target: TargetId) -> Result<TargetClaim, ClaimError> {
        match self.state().targets.entry(target) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(None);
                Ok(TargetClaim { census: self.clone(), target, span: Span::current() })
            }
            std::collections::hash_map::Entry::Occupied(taken) => {
                Err(taken.get().clone().map_or(ClaimError::Busy, ClaimError::Stuck))
            }
        }
    }

    fn mark_stuck(&self, child: StuckChild) {
        let mut state = self.state();
        if let Some(slot) = child.target.and_then(|target| state.targets.get_mut(&target)) {
            *slot = Some(child.clone());
        }
        state.stuck.insert(child.pid, child);
        drop(state);
        self.inner.changed.send_replace(());
    }

    fn born(&self, pid: u32, what: &str) {
        self.inner.spawned.fetch_add(1, Ordering::Relaxed);
        self.state().alive.insert(pid, what.to_owned());
    }

    fn gone(&self, pid: u32) {
        let mut state = self.state();
        state.alive.remove(&pid);
        state.stuck.remove(&pid);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single insert or remove: nothing is half done after a panic.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have a child at work for a target. Dropping it gives it up.
#[derive(Debug)]
pub struct TargetClaim {
    census: ChildCensus,
    target: TargetId,
    /// The span of the probe that claimed the target.
    span: Span,
}

impl TargetClaim {
    /// The target.
    #[must_use]
    pub fn target(&self) -> TargetId {
        self.target
    }
}

impl Drop for TargetClaim {
    fn drop(&mut self) {
        self.census.state().targets.remove(&self.target);
        self.census.inner.changed.send_replace(());
    }
}

/// What a child holds until it is gone. When it is known to be stuck, what it is stuck in gives up its
/// permit, and what it was to do after that gives up the claim too: it will not do it.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) claim: TargetClaim,
    /// A place among the processes that may be at work. A stuck child gives it back: there is one
    /// at most for each target, and the places are for those that can still work.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// A living child, the leader of a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Child {
    /// `None` once it was reaped or handed to the task that reaps it.
    process: Option<tokio::process::Child>,
    pid: u32,
    what: String,
    /// What it is at work for, the first of it last: usually one target, and none while it is idle.
    pub(super) assignments: Vec<Assignment>,
    census: ChildCensus,
    runtime: Handle,
}

impl Child {
    fn new(process: tokio::process::Child, what: String, census: ChildCensus, runtime: Handle) -> Self {
        // A child that was not waited for has an id.
        let pid = process.id().unwrap_or_default();
        census.born(pid, &what);
        Self { process: Some(process), pid, what, assignments: Vec::new(), census, runtime }
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// The process itself, for its pipes.
    pub(super) fn process(&mut self) -> Option<&mut tokio::process::Child> {
        self.process.as_mut()
    }

    /// Waits for it to end by itself. Safe to drop.
    pub(super) async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        let Some(process) = self.process.as_mut() else {
            return Err(std::io::Error::other("waited for already"));
        };
        let status = process.wait().await?;
        self.process = None;
        self.census.gone(self.pid);
        self.assignments.clear();
        Ok(status)
    }

    /// Whether it has ended. One that has is reaped.
    pub(super) fn has_ended(&mut self) -> bool {
        // An error means that it was reaped elsewhere, so it is gone too.
        let has_ended = self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
        if has_ended && self.process.take().is_some() {
            self.census.gone(self.pid);
        }
        has_ended
    }

    /// Lets it end by itself, as it does when its input ends, and kills it if it does not.
    pub(super) fn retire(mut self) {
        if let Some(process) = self.process.take() {
            self.bury(process, false);
        }
    }

    fn bury(&mut self, mut process: tokio::process::Child, kill: bool) {
        let (pid, what) = (self.pid, std::mem::take(&mut self.what));
        let assignments = std::mem::take(&mut self.assignments);
        let census = self.census.clone();
        if kill {
            self.census.inner.killed.fetch_add(1, Ordering::Relaxed);
            kill_group(pid);
        }
        self.runtime.spawn(async move {
            if !kill && tokio::time::timeout(UNKILLABLE_AFTER, process.wait()).await.is_err() {
                census.inner.killed.fetch_add(1, Ordering::Relaxed);
                kill_group(pid);
            }
            bury(process, pid, what, assignments, &census).await;
        });
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            self.bury(process, true);
        }
    }
}

/// Kills a process group whose leader has not been reaped. Until then no other process has its id.
fn kill_group(leader: u32) {
    if let Some(group) = group_id(leader) {
        // It may have died by itself meanwhile, which is as good.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// `None` for the ids that would mean "every process" or "my own group".
fn group_id(leader: u32) -> Option<Pid> {
    i32::try_from(leader).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Waits until a killed child and all processes of its group are gone. Logs when that takes long.
async fn bury(
    mut process: tokio::process::Child,
    pid: u32,
    what: String,
    mut assignments: Vec<Assignment>,
    census: &ChildCensus,
) {
    // A worker does one thing after the other, so what it hangs in is the first of its work.
    let target = assignments.last().map(|assignment| assignment.claim.target);
    let span = assignments.last().map_or_else(Span::none, |assignment| assignment.claim.span.clone());
    let timely = tokio::time::timeout(UNKILLABLE_AFTER, async {
        // An error means that it was reaped elsewhere, so it is gone too.
        let _ = process.wait().await;
        group_end(pid).await;
    });
    if timely.await.is_err() {
        let stuck = StuckChild { pid, what: what.clone(), target, since: std::time::Instant::now() };
        census.mark_stuck(stuck);
        assignments.drain(..assignments.len().saturating_sub(1));
        if let Some(assignment) = assignments.first_mut() {
            assignment.permit = None;
        }
        span.in_scope(|| {
            tracing::warn!(
                pid,
                child = what,
                "a child was killed and does not die; its target is left alone until it is gone"
            );
        });
        let _ = process.wait().await;
        group_end(pid).await;
        span.in_scope(|| tracing::info!(pid, child = what, "the child that did not die is gone"));
    }
    census.gone(pid);
    drop(assignments);
}

/// Waits until no process is left in the killed group of a leader that was reaped. A helper that a command
/// started may be what hangs.
async fn group_end(leader: u32) {
    let Some(group) = group_id(leader) else {
        return;
    };
    let mut pause = GROUP_POLL;
    let mut members: Option<Vec<Process>> = None;
    loop {
        // Where the agent is process 1, as in a container, its children's orphans are its own to reap.
        while matches!(
            waitpid(Pid::from_raw(-group.as_raw()), Some(WaitPidFlag::WNOHANG)),
            Ok(status) if status != WaitStatus::StillAlive
        ) {}
        if killpg(group, None::<Signal>) == Err(Errno::ESRCH) {
            return;
        }
        // A dead process belongs to its group until its parent, now process 1, has reaped it, which
        // is not what is waited for. Who is alive is looked up once: nobody is added to a group of
        // the killed.
        if let Some(members) = &mut members {
            members.retain(|member| is_alive_in(member, group));
            if members.is_empty() {
                return;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(GROUP_POLL_MAX);
        members.get_or_insert_with(|| members_of(group));
    }
}

/// Returns the living processes of a group. Reads the state of every process, so it is slow.
fn members_of(group: Pid) -> Vec<Process> {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    processes.filter(|process| is_alive_in(process, group)).collect()
}

fn is_alive_in(process: &Process, group: Pid) -> bool {
    process.stat().is_ok_and(|stat| stat.pgrp == group.as_raw() && !matches!(stat.state, 'Z' | 'X' | 'x'))
}

#[cfg(test)]
mod tests;
