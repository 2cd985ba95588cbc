//! The census of child processes: how many there are, and which target each works for.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use crate::model::TargetId;

/// A child that was killed but did not exit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} (process {pid}) was killed but does not exit: it waits in the kernel for storage that does not answer. This target is not probed until it has exited"
)]
pub struct StuckChild {
    /// Process id.
    pub pid: u32,
    /// Name: `probe-worker`, or the path of a command.
    pub what: String,
    /// The target that it works for.
    pub target: Option<TargetId>,
    /// Time at which it was marked stuck, which is `UNKILLABLE_AFTER` after its kill.
    pub since: std::time::Instant,
}

/// Why a target could not be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Another child worked for the target until the deadline.
    #[error("another child works for this target and did not end in time")]
    Busy,
    /// The target's last child cannot be killed.
    #[error(transparent)]
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
    /// Notified when a claim ends and when a child is stuck.
    changed: watch::Sender<()>,
    spawned: AtomicU64,
    killed: AtomicU64,
}

impl Inner {
    /// Wakes those who wait for a change, if there are any. Whoever subscribes later looks at the state later.
    fn notify(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Claimed targets, each with its child if that is stuck.
    targets: HashMap<TargetId, Option<StuckChild>>,
    /// Names of the children that were not reaped yet, by process id.
    alive: BTreeMap<u32, String>,
    /// Children that were killed but have not exited, by process id.
    stuck: BTreeMap<u32, StuckChild>,
}

/// Numbers of children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChildCounts {
    /// Children that were not reaped yet, including the stuck ones.
    pub alive: usize,
    /// Children that were killed but have not exited.
    pub stuck: usize,
    /// Children that were started since the agent started.
    pub spawned_total: u64,
    /// Children that were killed since the agent started.
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

    /// Returns the current counts.
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

    /// Returns the children that do not die, ordered by process id.
    #[must_use]
    pub fn stuck_children(&self) -> Vec<StuckChild> {
        self.state().stuck.values().cloned().collect()
    }

    /// Returns the target's child that does not die, if there is one.
    #[must_use]
    pub fn stuck(&self, target: TargetId) -> Option<StuckChild> {
        self.state().targets.get(&target).cloned().flatten()
    }

    /// Claims a target for a child. Waits until `deadline` for an earlier child to end.
    ///
    /// # Errors
    /// [`ClaimError::Stuck`] as soon as that is known, [`ClaimError::Busy`] at `deadline`.
    pub async fn claim(&self, target: TargetId, deadline: Instant) -> Result<TargetClaim, ClaimError> {
        let mut changed = None;
        loop {
            match self.try_claim(target) {
                Err(ClaimError::Busy) => {}
                decided => return decided,
            }
            // Subscribed before the next try, which sees what changed until then.
            let Some(changed) = &mut changed else {
                changed = Some(self.inner.changed.subscribe());
                continue;
            };
            // The sender lives in `self`, so this fails only at the deadline.
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(ClaimError::Busy);
            }
        }
    }

    fn try_claim(&self, target: TargetId) -> Result<TargetClaim, ClaimError> {
        match self.state().targets.entry(target) {
            Entry::Vacant(free) => {
                free.insert(None);
                Ok(TargetClaim { census: self.clone(), target, span: Span::current() })
            }
            Entry::Occupied(taken) => Err(taken.get().clone().map_or(ClaimError::Busy, ClaimError::Stuck)),
        }
    }

    pub(super) fn mark_stuck(&self, child: StuckChild) {
        let mut state = self.state();
        if let Some(slot) = child.target.and_then(|target| state.targets.get_mut(&target)) {
            *slot = Some(child.clone());
        }
        state.stuck.insert(child.pid, child);
        drop(state);
        self.inner.notify();
    }

    pub(super) fn started(&self, pid: u32, what: &str) {
        self.inner.spawned.fetch_add(1, Ordering::Relaxed);
        self.state().alive.insert(pid, what.to_owned());
    }

    pub(super) fn killed(&self) {
        self.inner.killed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, pid: u32) {
        let mut state = self.state();
        state.alive.remove(&pid);
        state.stuck.remove(&pid);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a single insert or remove, so a panic leaves nothing half done.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exclusive right to run a child for a target. Dropping it releases the target.
#[derive(Debug)]
pub struct TargetClaim {
    census: ChildCensus,
    target: TargetId,
    /// Span of the probe that claimed the target.
    pub(super) span: Span,
}

impl TargetClaim {
    /// Returns the claimed target.
    #[must_use]
    pub fn target(&self) -> TargetId {
        self.target
    }
}

impl Drop for TargetClaim {
    fn drop(&mut self) {
        self.census.state().targets.remove(&self.target);
        self.census.inner.notify();
    }
}
