//! The transition log: every change of a status on its way to the registry, and the histories that
//! clients read.
//!
//! A probe must not wait for the registry's disk. It leaves its transition in memory
//! ([`TransitionLog::record`]), and a task of its own writes the waiting ones in batches. While the
//! registry cannot be written, at most [`WAITING_MAX`] transitions wait and the oldest are dropped. The
//! failure is logged once, and its end too. Histories are read from the registry, because they are too
//! large to be kept in memory; the wait for them is bounded by [`READ_MAX`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::error::AgentError;
use crate::model::{TargetId, Transition};
use crate::registry::{Registry, TARGETS_MAX, TRANSITIONS_MAX};

/// The most transitions that wait for the registry: one of each target that a registry holds.
const WAITING_MAX: usize = TARGETS_MAX;

/// The most transitions that are written in one transaction.
const BATCH_MAX: usize = 256;

/// The time from a failed write to the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The longest that a reader waits for the registry.
const READ_MAX: Duration = Duration::from_secs(2);

/// The longest that the end of the agent waits for the last write.
const LAST_WRITE_MAX: Duration = Duration::from_millis(500);

/// Owner of the transitions that are not in the registry yet.
#[derive(Debug)]
pub(super) struct TransitionLog {
    registry: Registry,
    waiting: Mutex<Waiting>,
    recorded: Notify,
    /// Held while a batch is written, so that batches stay in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Oldest first, each with its sequence number.
    transitions: VecDeque<(u64, Transition)>,
    next_number: u64,
    /// Number of transitions that were dropped since the last successful write.
    dropped: u64,
    is_failing: bool,
}

impl TransitionLog {
    /// Returns an empty log in front of a registry.
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, waiting: Mutex::default(), recorded: Notify::new(), writing: tokio::sync::Mutex::default() }
    }

    /// Records a transition. Waits for nothing.
    pub(super) fn record(&self, transition: Transition) {
        let mut waiting = self.waiting();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.transitions.push_back((number, transition));
        if waiting.transitions.len() > WAITING_MAX {
            waiting.transitions.pop_front();
            waiting.dropped += 1;
        }
        drop(waiting);
        self.recorded.notify_one();
    }

    /// Writes waiting transitions until the agent stops. A write that began is finished: the registry may
    /// commit it even if the caller stops waiting, and the transitions would be written twice.
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

    /// Waits for the current write and writes the rest once, bounded.
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
        // Read before the registry: a transition that is being written is then in both, never in neither.
        let mut waiting = self.waiting_of(id);
        waiting.reverse();
        let because = |detail: String| AgentError::NoHistory { id, detail };
        let written = timeout(READ_MAX, self.registry.transitions(id))
            .await
            .map_err(|_| because(format!("no answer within {} s", READ_MAX.as_secs())))?
            .map_err(|error| because(error.to_string()))?;
        Ok(join(waiting, written))
    }

    /// Writes all waiting transitions. Returns whether it succeeded.
    async fn write(&self) -> bool {
        let _writing = self.writing.lock().await;
        loop {
            let batch: Vec<(u64, Transition)> = self.waiting().transitions.iter().take(BATCH_MAX).cloned().collect();
            let Some((last, _)) = batch.last() else {
                return true;
            };
            let last = *last;
            let transitions = batch.into_iter().map(|(_, transition)| transition).collect();
            let written = self.registry.add_transitions(transitions).await;
            let mut waiting = self.waiting();
            match written {
                Ok(()) => {
                    // Some may have been dropped meanwhile, and others added.
                    while waiting.transitions.front().is_some_and(|(number, _)| *number <= last) {
                        waiting.transitions.pop_front();
                    }
                    let dropped = std::mem::take(&mut waiting.dropped);
                    if std::mem::take(&mut waiting.is_failing) {
                        tracing::info!(dropped, "the history of targets is written again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut waiting.is_failing, true) {
                        tracing::error!(%error, "the history of targets is not written; its latest {WAITING_MAX} entries are kept in memory");
                    }
                    return false;
                }
            }
        }
    }

    /// Returns the waiting transitions of one target, oldest first.
    fn waiting_of(&self, id: TargetId) -> Vec<Transition> {
        let waiting = self.waiting();
        waiting.transitions.iter().map(|(_, waits)| waits).filter(|waits| waits.target_id == id).cloned().collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change is complete: a panic leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins waiting and written transitions into one history; all are newest first. Transitions that were
/// written meanwhile are in both. They are the oldest of the waiting ones, because writes are in order,
/// so the newest entry of each side tells how many there are.
fn join(mut waiting: Vec<Transition>, written: Vec<Transition>) -> Vec<Transition> {
    if waiting.first().is_some_and(|newest| written.contains(newest)) {
        waiting.clear();
    } else if let Some(in_both) = waiting.iter().position(|waits| written.first() == Some(waits)) {
        waiting.truncate(in_both);
    }
    waiting.extend(written);
    waiting.truncate(TRANSITIONS_MAX);
    waiting
}

#[cfg(test)]
pub(super) mod tests;
