//! Histories: every change of a status on its way to the registry, and back to whoever asks.
//!
//! A probe must not wait for the registry's disk, so it leaves its transition in memory
//! ([`History::note`]) and a task of its own writes what is there, many at once. While the registry
//! cannot be written, transitions wait, [`WAITING_MAX`] of them and the oldest are dropped; the
//! failure is logged once, and so is its end. Reading is of the registry, the one answer of the
//! agent that is too large to be kept in memory, and is bounded by [`READ_MAX`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::AgentError;
use super::shared::Shared;
use crate::model::{TargetId, Transition};
use crate::registry::{Registry, TRANSITIONS_MAX};

/// How many transitions wait for the registry at most: one of each target that a registry holds.
const WAITING_MAX: usize = crate::registry::TARGETS_MAX;

/// How many transitions are written in one transaction at most.
const BATCH_MAX: usize = 256;

/// How long after a failure the registry is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a reader waits for the registry at most.
const READ_MAX: Duration = Duration::from_secs(2);

/// How long the end of the agent waits for what was not written yet.
const LAST_WRITE_MAX: Duration = Duration::from_millis(500);

/// Transitions that are not in the registry yet.
#[derive(Debug, Default)]
pub(super) struct History {
    waiting: Mutex<Waiting>,
    noted: Notify,
    /// Held while a batch is written, so that batches stay in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Oldest first, each with its number.
    transitions: VecDeque<(u64, Transition)>,
    next_number: u64,
    /// How many were dropped since the registry was last written.
    dropped: u64,
    is_failing: bool,
}

impl History {
    /// Takes a transition. Waits for nothing.
    pub(super) fn note(&self, transition: Transition) {
        let mut waiting = self.waiting();
        let number = waiting.next_number;
        waiting.next_number += 1;
        waiting.transitions.push_back((number, transition));
        if waiting.transitions.len() > WAITING_MAX {
            waiting.transitions.pop_front();
            waiting.dropped += 1;
        }
        drop(waiting);
        self.noted.notify_one();
    }

    /// Writes everything that waits. Returns whether it could.
    async fn write(&self, registry: &dyn Registry) -> bool {
        let _writing = self.writing.lock().await;
        loop {
            let batch: Vec<(u64, Transition)> = self.waiting().transitions.iter().take(BATCH_MAX).cloned().collect();
            let Some((last, _)) = batch.last() else {
                return true;
            };
            let last = *last;
            let transitions = batch.into_iter().map(|(_, transition)| transition).collect();
            let written = registry.add_transitions(transitions).await;
            let mut waiting = self.waiting();
            match written {
                Ok(()) => {
                    // Some of them may have been dropped meanwhile, and others have come.
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

    /// What waits of one target, oldest first.
    fn waiting_of(&self, id: TargetId) -> Vec<Transition> {
        let waiting = self.waiting();
        waiting.transitions.iter().map(|(_, waits)| waits).filter(|waits| waits.target_id == id).cloned().collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change leaves it sound: nothing is half done after a panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Writes what is noted until the agent stops. What is being written then is written to its end:
    /// the registry may commit what nobody waits for any more, and it would be written twice.
    pub(super) async fn keep_history(&self) {
        let mut stopping = self.stopping.subscribe();
        loop {
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.history.noted.notified() => {}
            }
            while !self.history.write(&*self.registry).await {
                tokio::select! {
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                }
            }
        }
    }

    /// Waits for what is being written and writes the rest, for the last time and bounded.
    pub(super) async fn end_history(&self) {
        if timeout(LAST_WRITE_MAX, self.history.write(&*self.registry)).await != Ok(true) {
            tracing::warn!(
                "the latest entries in the history of targets may be lost: the registry did not confirm them in time"
            );
        }
    }

    /// The history of a target, newest first.
    ///
    /// # Errors
    /// [`AgentError::NoHistory`] when the registry does not give it in time.
    pub(super) async fn history_of(&self, id: TargetId) -> Result<Vec<Transition>, AgentError> {
        // Before what is written: what is on its way there is in both then, and not in neither.
        let mut history = self.history.waiting_of(id);
        history.reverse();
        let because = |detail: String| AgentError::NoHistory { id, detail };
        let written = timeout(READ_MAX, self.registry.transitions(id))
            .await
            .map_err(|_| because(format!("no answer within {} s", READ_MAX.as_secs())))?
            .map_err(|error| because(error.to_string()))?;
        Ok(join(history, written))
    }
}

/// What waited and what is written as one history; each newest first. What was written meanwhile is in
/// both: the oldest of what waited, since they are written in order. So two entries tell how many.
fn join(mut waited: Vec<Transition>, written: Vec<Transition>) -> Vec<Transition> {
    if waited.first().is_some_and(|newest| written.contains(newest)) {
        waited.clear();
    } else if let Some(in_both) = waited.iter().position(|waits| written.first() == Some(waits)) {
        waited.truncate(in_both);
    }
    waited.extend(written);
    waited.truncate(TRANSITIONS_MAX);
    waited
}

#[cfg(test)]
pub(super) mod tests;
