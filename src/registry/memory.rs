//! The store in memory: for tests and demonstrations. Its content is lost when it is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::limits::TRANSITIONS_MAX;
use super::shared::CloudId;
use super::snapshot::{Revision, Snapshot, Write};
use super::store::{CommitError, CopyStore, StorageError, Store};
use crate::model::{CanaryRecord, OwnMountId, TargetId, Transition};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Oldest transition first.
    histories: Mutex<HashMap<TargetId, VecDeque<Transition>>>,
    canaries: Mutex<HashMap<TargetId, CanaryRecord>>,
    own_mounts: Mutex<HashMap<TargetId, OwnMountId>>,
    /// Whether it is the copy of a shared registry, which is ordered by the times of creation.
    is_copy: bool,
    /// The shared registry that the node has joined.
    cloud_id: Mutex<Option<CloudId>>,
}

impl MemoryStore {
    /// Returns an empty copy of a shared registry, which no node has joined yet.
    #[must_use]
    pub fn copy() -> Self {
        Self { is_copy: true, ..Self::default() }
    }

    fn histories(&self) -> MutexGuard<'_, HashMap<TargetId, VecDeque<Transition>>> {
        // After a panic, at worst some transitions are missing.
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn canaries(&self) -> MutexGuard<'_, HashMap<TargetId, CanaryRecord>> {
        self.canaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mounts(&self) -> MutexGuard<'_, HashMap<TargetId, OwnMountId>> {
        self.own_mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl CopyStore for MemoryStore {
    fn cloud_id(&self) -> Option<CloudId> {
        *self.cloud_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put_cloud_id(&self, cloud_id: Option<CloudId>) -> Result<(), StorageError> {
        *self.cloud_id.lock().unwrap_or_else(PoisonError::into_inner) = cloud_id;
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    async fn commit(&self, expected: Revision, writes: Vec<Write>) -> Result<Arc<Snapshot>, CommitError> {
        // Locked before the snapshot changes, as in `add_transitions`: no history outlives its target.
        let (mut histories, mut canaries, mut mounts) = (self.histories(), self.canaries(), self.mounts());
        let mut outcome = Err(CommitError::Conflict);
        self.snapshot.send_if_modified(|current| {
            if current.revision() == expected {
                if !writes.is_empty() {
                    let next = current.apply(&writes, expected.next());
                    *current = Arc::new(if self.is_copy { next.ordered_by_creation() } else { next });
                }
                outcome = Ok(current.clone());
            }
            outcome.is_ok() && !writes.is_empty()
        });
        if outcome.is_ok() {
            for write in &writes {
                if let Write::DeleteTarget(id) = write {
                    histories.remove(id);
                    canaries.remove(id);
                    mounts.remove(id);
                }
            }
        }
        outcome
    }

    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), StorageError> {
        let mut histories = self.histories();
        let snapshot = self.snapshot();
        for transition in transitions {
            if snapshot.target(transition.target_id).is_some() {
                let history = histories.entry(transition.target_id).or_default();
                history.push_back(transition);
                if history.len() > TRANSITIONS_MAX {
                    history.pop_front();
                }
            }
        }
        Ok(())
    }

    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, StorageError> {
        Ok(self.histories().get(&id).into_iter().flatten().rev().cloned().collect())
    }

    async fn put_canary_record(&self, id: TargetId, record: CanaryRecord) -> Result<(), StorageError> {
        let mut canaries = self.canaries();
        if self.snapshot().target(id).is_some() {
            canaries.insert(id, record);
        }
        Ok(())
    }

    async fn canary_record(&self, id: TargetId) -> Result<Option<CanaryRecord>, StorageError> {
        Ok(self.canaries().get(&id).cloned())
    }

    async fn put_own_mounts(&self, mounts: Vec<(TargetId, Option<OwnMountId>)>) -> Result<(), StorageError> {
        let (mut stored, snapshot) = (self.mounts(), self.snapshot());
        for (id, mount) in mounts {
            match mount.filter(|_| snapshot.target(id).is_some()) {
                Some(mount) => stored.insert(id, mount),
                None => stored.remove(&id),
            };
        }
        Ok(())
    }

    async fn own_mounts(&self) -> Result<Vec<(TargetId, OwnMountId)>, StorageError> {
        Ok(self.mounts().clone().into_iter().collect())
    }
}
