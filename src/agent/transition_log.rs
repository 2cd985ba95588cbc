//! The transition log: writes changes of status to the registry, and reads histories from it.
//!
//! A probe must not wait for the registry's disk. It leaves its transition in memory ([`TransitionLog::record`]), and
//! a separate task writes pending transitions in batches. While the registry cannot be written, at most
//! [`PENDING_MAX`] transitions are kept and the oldest are dropped. The beginning and the end of such a failure are
//! logged. Histories are read from the registry, because they are too large for memory. A reader waits at most
//! [`READ_MAX`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::error::AgentError;
use crate::model::{TargetId, Transition};
use crate::registry::{Registry, TARGETS_MAX, TRANSITIONS_MAX};

/// Largest number of pending transitions: one for each target of a full registry.
const PENDING_MAX: usize = TARGETS_MAX;

/// Largest number of transitions in one transaction.
const BATCH_MAX: usize = 256;

/// Time from a failed write to the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Longest wait of a reader for the registry.
const READ_MAX: Duration = Duration::from_secs(2);

/// Longest wait for the last write when the agent stops.
const LAST_WRITE_MAX: Duration = Duration::from_millis(500);

/// Transitions that are not in the registry yet.
#[derive(Debug)]
pub(super) struct TransitionLog {
    registry: Registry,
    pending: Mutex<Pending>,
    recorded: Notify,
    /// Held while a batch is written, so that batches stay in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Oldest first, each with its sequence number.
    transitions: VecDeque<(u64, Transition)>,
    next_number: u64,
    /// Number of transitions that were dropped since the last successful write.
    dropped: u64,
    /// Number of transitions that were dropped since the start.
    dropped_total: u64,
    is_failing: bool,
}

impl TransitionLog {
    /// Returns an empty log in front of a registry.
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, pending: Mutex::default(), recorded: Notify::new(), writing: tokio::sync::Mutex::default() }
    }

    /// Records a transition. Does not wait.
    pub(super) fn record(&self, transition: Transition) {
        let mut pending = self.pending();
        let number = pending.next_number;
        pending.next_number += 1;
        pending.transitions.push_back((number, transition));
        if pending.transitions.len() > PENDING_MAX {
            pending.transitions.pop_front();
            pending.dropped += 1;
            pending.dropped_total += 1;
        }
        drop(pending);
        self.recorded.notify_one();
    }

    /// Returns how many transitions are pending, and how many were dropped since the start.
    pub(super) fn counts(&self) -> (usize, u64) {
        let pending = self.pending();
        (pending.transitions.len(), pending.dropped_total)
    }

    /// Writes pending transitions until the agent stops. A write that has begun is completed: the registry commits it
    /// even if the future is dropped, and the transitions would then be written twice.
    pub(super) async fn run(&self, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.recorded.notified() => {}
            }
            while !self.write().await {
                tokio::select! {
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                }
            }
        }
    }

    /// Waits for the current write and writes the rest once, within [`LAST_WRITE_MAX`].
    pub(super) async fn write_rest(&self) {
        if timeout(LAST_WRITE_MAX, self.write()).await != Ok(true) {
            tracing::warn!(
                "the latest entries in the history of targets may be lost: the registry did not confirm them in time"
            );
        }
    }

    /// Returns the history of a target, newest first.
    ///
    /// # Errors
    /// [`AgentError::NoHistory`] when the registry does not answer in time or cannot be read.
    pub(super) async fn of_target(&self, id: TargetId) -> Result<Vec<Transition>, AgentError> {
        // Read before the registry, so that a transition that is being written is in at least one of them.
        let mut pending = self.pending_of(id);
        pending.reverse();
        let because = |detail: String| AgentError::NoHistory { id, detail };
        let written = timeout(READ_MAX, self.registry.transitions(id))
            .await
            .map_err(|_| because(format!("no answer within {} s", READ_MAX.as_secs())))?
            .map_err(|error| because(error.to_string()))?;
        Ok(join(pending, written))
    }

    /// Writes all pending transitions. Returns whether it succeeded.
    async fn write(&self) -> bool {
        let _writing = self.writing.lock().await;
        loop {
            let batch: Vec<(u64, Transition)> = self.pending().transitions.iter().take(BATCH_MAX).cloned().collect();
            let Some((last, _)) = batch.last() else {
                return true;
            };
            let last = *last;
            let transitions = batch.into_iter().map(|(_, transition)| transition).collect();
            let written = self.registry.add_transitions(transitions).await;
            let mut pending = self.pending();
            match written {
                Ok(()) => {
                    // During the write, some may have been dropped and others added.
                    while pending.transitions.front().is_some_and(|(number, _)| *number <= last) {
                        pending.transitions.pop_front();
                    }
                    let dropped = std::mem::take(&mut pending.dropped);
                    if std::mem::take(&mut pending.is_failing) {
                        tracing::info!(dropped, "the registry accepts the history of targets again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut pending.is_failing, true) {
                        tracing::error!(%error, "cannot write the history of targets: the latest {PENDING_MAX} entries are kept in memory");
                    }
                    return false;
                }
            }
        }
    }

    /// Returns the pending transitions of one target, oldest first.
    fn pending_of(&self, id: TargetId) -> Vec<Transition> {
        let pending = self.pending();
        pending
            .transitions
            .iter()
            .map(|(_, transition)| transition)
            .filter(|transition| transition.target_id == id)
            .cloned()
            .collect()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Every change is complete, so a panic leaves nothing half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins pending and written transitions into one history. All lists are newest first. A transition that was just
/// written may be in both lists. Transitions are written in order. So if the newest pending transition was written, all
/// were. Otherwise the position of the newest written transition shows which pending ones are in both lists.
fn join(mut pending: Vec<Transition>, written: Vec<Transition>) -> Vec<Transition> {
    if pending.first().is_some_and(|newest| written.contains(newest)) {
        pending.clear();
    } else if let Some(in_both) = pending.iter().position(|transition| written.first() == Some(transition)) {
        pending.truncate(in_both);
    }
    pending.extend(written);
    pending.truncate(TRANSITIONS_MAX);
    pending
}

#[cfg(test)]
pub(super) mod tests;
