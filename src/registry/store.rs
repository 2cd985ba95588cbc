//! The interface of a store: snapshots, commits, notifications, and the histories of targets.
//!
//! A store does not know the rules. The revision that each commit expects orders concurrent writers.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::membership::{Aliases, ReplicaStatus};
use super::shared::CloudId;
use super::snapshot::{Revision, Snapshot, Write};
use crate::model::{CanaryRecord, OwnMountId, TargetId, Transition};

/// Why a store could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// Disk full, file removed, input/output error.
    #[error("{0}")]
    Failed(String),
    /// The file system is mounted read-only.
    #[error("{0}")]
    ReadOnly(String),
    /// The file system became read-only during the change.
    #[error("{0}")]
    Uncertain(String),
}

impl StorageError {
    /// What happened to a change that failed with this error, or what to do about it.
    pub(super) fn effect(&self) -> &'static str {
        match self {
            Self::Failed(_) | Self::ReadOnly(_) => "Nothing was changed",
            Self::Uncertain(_) => "Restart the agent when the file system is writable again",
        }
    }
}

/// Why a change of the registry that all nodes share failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharedChangeError {
    /// The shared registry cannot be changed now.
    #[error("fleet_unavailable: the registry of the fleet cannot be changed now: {0}. Nothing was changed")]
    Unavailable(String),
    /// The answer to the change did not arrive.
    #[error(
        "fleet_unavailable: {0}. The agent reads the registry of the fleet again as soon as it can: look there before you repeat the request"
    )]
    Uncertain(String),
    /// The shared registry was changed, but the copy of this node was not.
    #[error(
        "fleet_unavailable: the registry of the fleet was changed, but this node cannot store its copy: {0}. The agent tries again at each comparison. Do not repeat the request"
    )]
    CopyFailed(StorageError),
}

/// Why a commit failed. Nothing was changed, except that [`StorageError::Uncertain`] and some [`SharedChangeError`]
/// leave it open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The store is not at the expected revision.
    #[error("the registry is no longer at the revision for which the change was decided")]
    Conflict,
    /// The writes could not be made durable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The registry that all nodes share could not be changed.
    #[error(transparent)]
    Fleet(#[from] SharedChangeError),
}

/// A store of targets, their types and their histories. `registry/contract.rs` tests every
/// implementation.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns a receiver of the current snapshot. It is notified of every commit of any writer. A slow receiver skips
    /// snapshots and never sees an older one again. Later snapshots keep the order of targets and types. New ones come
    /// last, except in a copy of a shared registry, which is ordered by the times of creation.
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>>;

    /// Returns the current snapshot. Waits for nothing.
    fn snapshot(&self) -> Arc<Snapshot> {
        self.watch().borrow().clone()
    }

    /// Makes all writes durable if the store is at the expected revision, and returns the snapshot
    /// that contains them. A commit of no writes verifies that the store can be written now, and
    /// leaves the revision as it is. A commit that began is finished even if the caller stops waiting.
    ///
    /// # Errors
    /// [`CommitError`], which says whether something was changed.
    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError>;

    /// Verifies that the store can be changed now, as far as this can be known without a request to another host.
    ///
    /// # Errors
    /// [`CommitError`], except [`CommitError::Conflict`].
    async fn verify_writable(&self) -> Result<(), CommitError> {
        match self.commit(self.snapshot().revision(), Vec::new()).await {
            // With a conflict, another writer was faster, so the store can be written.
            Ok(_) | Err(CommitError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the former ids of targets and types.
    fn aliases(&self) -> Arc<Aliases> {
        Arc::default()
    }

    /// Returns the state of a store whose content is a copy of a shared registry. `None` if it is not such a store.
    fn replica_status(&self) -> Option<ReplicaStatus> {
        None
    }

    /// Adds transitions to the histories of their targets, in this order. Each history keeps the
    /// latest [`TRANSITIONS_MAX`](super::TRANSITIONS_MAX). Transitions of a target that does not exist
    /// are ignored. The revision does not change.
    ///
    /// # Errors
    /// [`StorageError`] when they could not be made durable. None was added then.
    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError>;

    /// Returns the history of a target, newest first, in the order in which it was added. Not read
    /// for a caller that has stopped waiting.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read.
    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError>;

    /// Replaces the record of a target's canaries. Ignored for a target that does not exist. The revision does not
    /// change.
    ///
    /// # Errors
    /// [`StorageError`] when it could not be made durable. The old record then stays.
    async fn put_canary_record(&self, id: TargetId, record: CanaryRecord) -> Result<(), StorageError>;

    /// Returns the record of a target's canaries, if there is one.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read.
    async fn canary_record(&self, id: TargetId) -> Result<Option<CanaryRecord>, StorageError>;

    /// Stores or removes the identities of mounts that this host's agent made. Those of targets that do not exist are
    /// ignored. The revision does not change.
    ///
    /// # Errors
    /// [`StorageError`] when they could not be made durable. None was changed then.
    async fn put_own_mounts(&self, mounts: Vec<(TargetId, Option<OwnMountId>)>) -> Result<(), StorageError>;

    /// Returns the stored identities of mounts of this host. They may be of an earlier boot.
    ///
    /// # Errors
    /// [`StorageError`] when they cannot be read.
    async fn own_mounts(&self) -> Result<Vec<(TargetId, OwnMountId)>, StorageError>;

    /// Follows the changes of other writers, until the future is dropped. Returns if the store notices them by itself.
    async fn follow(&self) {}

    /// Finishes the commits that began, and closes the store. Every later call fails.
    async fn close(&self) {}
}

/// A store that can be the copy of a shared registry.
#[async_trait]
pub trait CopyStore: Store {
    /// Returns the id of the shared registry that the node had joined when the store was opened.
    fn cloud_id(&self) -> Option<CloudId>;

    /// Stores the id of the shared registry that the node has joined. `None` for a single node.
    ///
    /// # Errors
    /// [`StorageError`] when it could not be made durable.
    async fn put_cloud_id(&self, cloud_id: Option<CloudId>) -> Result<(), StorageError>;
}
