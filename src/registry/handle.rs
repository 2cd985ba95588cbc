//! The registry as the agent uses it: rules in front of a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::change::Change;
use super::membership::ReplicaStatus;
use super::rules::{self, Refusal};
use super::snapshot::{Snapshot, Write};
use super::store::{CommitError, SharedChangeError, StorageError, Store};
use crate::model::{CanaryRecord, OwnMountId, Tally, TargetId, TargetTypeId, Transition};

/// Most attempts to commit one change while other writers are faster. Conflicts are rare: an agent makes one change at
/// a time, and a shared store sees a few changes a day.
const COMMIT_ATTEMPTS_MAX: u32 = 8;

/// Longest time after which another attempt begins.
const COMMIT_ATTEMPTS_TIME: Duration = Duration::from_secs(10);

/// Why a change failed. Nothing was changed, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A rule forbids the change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The change could not be made durable.
    #[error("the registry could not be changed: {0}. {effect}", effect = .0.effect())]
    Storage(#[from] StorageError),
    /// The registry that all nodes share could not be changed.
    #[error(transparent)]
    Fleet(#[from] SharedChangeError),
    /// A scope without a registry that all nodes share.
    #[error(
        "scope: {0}, so the target is on this node alone. Leave it out, or let this node share the registry of the fleet ([registry] url)"
    )]
    NoFleet(&'static str),
    /// Other writers were faster at every attempt.
    #[error(
        "the registry could not be changed: other writers changed it at the same time at every attempt. Nothing was changed. Repeat the request"
    )]
    Contended,
}

/// A registry: a store, and the rules that every change must keep.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    writes: Arc<Tally<WriteResult>>,
}

/// Result of a write to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriteResult {
    /// It is durable.
    Written,
    /// It could not be made durable.
    Failed,
}

impl Registry {
    /// Returns the registry in this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, writes: Arc::default() }
    }

    /// Returns the current content. Waits for nothing.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.store.snapshot()
    }

    /// Returns the number of writes to the store that had this result, since the start of the agent.
    #[must_use]
    pub fn writes(&self, result: WriteResult) -> u64 {
        self.writes.of(&result)
    }

    /// Returns a receiver of the current content, as [`Store::watch`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.store.watch()
    }

    /// Makes a change durable and returns the content that includes it.
    ///
    /// # Errors
    /// [`RegistryError`], which says whether something was changed.
    pub async fn change(&self, change: &Change) -> Result<Arc<Snapshot>, RegistryError> {
        self.commit(change, |writes| writes).await
    }

    /// Verifies that a change is allowed and that the store can be written now, without changing
    /// anything.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn verify(&self, change: &Change) -> Result<(), RegistryError> {
        self.commit(change, |_| Vec::new()).await.map(drop)
    }

    /// Verifies that the store can be changed now, as [`Store::verify_writable`].
    ///
    /// # Errors
    /// [`CommitError`] when it cannot.
    pub async fn verify_writable(&self) -> Result<(), CommitError> {
        self.store.verify_writable().await
    }

    /// Returns the id of a target from this id, which may be a former one.
    #[must_use]
    pub fn current_target_id(&self, id: TargetId) -> TargetId {
        let former = |id| self.store.aliases().targets.get(id).copied();
        if self.snapshot().target(id).is_some() { id } else { former(&id).unwrap_or(id) }
    }

    /// Returns the id of a target type from this id, which may be a former one.
    #[must_use]
    pub fn current_type_id(&self, id: TargetTypeId) -> TargetTypeId {
        let former = |id| self.store.aliases().types.get(id).copied();
        if self.snapshot().target_type(id).is_some() { id } else { former(&id).unwrap_or(id) }
    }

    /// Returns the state of a registry that uses a shared one, as [`Store::replica_status`].
    #[must_use]
    pub fn replica_status(&self) -> Option<ReplicaStatus> {
        self.store.replica_status()
    }

    /// Returns why other nodes do not have the targets of this registry. `None` if they do.
    fn no_fleet(&self) -> Option<&'static str> {
        match self.store.replica_status() {
            None => Some("this node has a registry of its own"),
            Some(status) if !status.is_joined && !self.snapshot().targets().is_empty() => {
                Some("this node has not joined the registry of the fleet")
            }
            Some(_) => None,
        }
    }

    async fn commit(
        &self,
        change: &Change,
        select: impl Fn(Vec<Write>) -> Vec<Write>,
    ) -> Result<Arc<Snapshot>, RegistryError> {
        if change.restricts_nodes()
            && let Some(problem) = self.no_fleet()
        {
            return Err(RegistryError::NoFleet(problem));
        }
        let began = Instant::now();
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            if attempt > 0 && began.elapsed() > COMMIT_ATTEMPTS_TIME {
                break;
            }
            let snapshot = self.snapshot();
            let writes = select(rules::decide(&snapshot, change)?);
            let is_write = !writes.is_empty();
            let outcome = match self.store.commit(snapshot.revision(), writes).await {
                Ok(committed) => Ok(committed),
                Err(CommitError::Conflict) => continue,
                Err(CommitError::Storage(error)) => Err(error.into()),
                Err(CommitError::Fleet(error)) => Err(error.into()),
            };
            return if is_write { self.count_write(outcome) } else { outcome };
        }
        Err(RegistryError::Contended)
    }

    /// Counts a write with its outcome.
    fn count_write<T, E>(&self, outcome: Result<T, E>) -> Result<T, E> {
        self.writes.count(if outcome.is_ok() { WriteResult::Written } else { WriteResult::Failed });
        outcome
    }

    /// Adds transitions to the histories of their targets, as [`Store::add_transitions`].
    ///
    /// # Errors
    /// [`StorageError`] when they could not be made durable; none was added then.
    pub async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError> {
        self.count_write(self.store.add_transitions(transitions).await)
    }

    /// Returns the history of a target, newest first.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read.
    pub async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError> {
        self.store.transitions(id).await
    }

    /// Stores or removes the identities of mounts of this host, as [`Store::put_own_mounts`].
    ///
    /// # Errors
    /// [`StorageError`] when they could not be made durable; none was changed then.
    pub async fn put_own_mounts(&self, mounts: Vec<(TargetId, Option<OwnMountId>)>) -> Result<(), StorageError> {
        self.count_write(self.store.put_own_mounts(mounts).await)
    }

    /// Returns the stored identities of mounts of this host.
    ///
    /// # Errors
    /// [`StorageError`] when they cannot be read.
    pub async fn own_mounts(&self) -> Result<Vec<(TargetId, OwnMountId)>, StorageError> {
        self.store.own_mounts().await
    }

    /// Follows the changes of other nodes, as [`Store::follow`].
    pub async fn follow(&self) {
        self.store.follow().await;
    }

    /// Finishes the commits that began, and closes the store, as [`Store::close`].
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Replaces the record of a target's canaries, as [`Store::put_canary_record`].
    ///
    /// # Errors
    /// [`StorageError`] when it could not be made durable. The old record then stays.
    pub async fn put_canary_record(&self, id: TargetId, record: CanaryRecord) -> Result<(), StorageError> {
        self.count_write(self.store.put_canary_record(id, record).await)
    }

    /// Returns the record of a target's canaries, if there is one.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read.
    pub async fn canary_record(&self, id: TargetId) -> Result<Option<CanaryRecord>, StorageError> {
        self.store.canary_record(id).await
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registry").finish_non_exhaustive()
    }
}
