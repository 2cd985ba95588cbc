//! The reconciler: makes tasks and view equal to the content of the registry.
//!
//! Snapshots come from the registry's watch, and from use cases that have just committed a change and do not wait
//! for the watch. The reconciler ignores a snapshot that is older than the last one, so views appear in the order
//! of commits. Nothing here waits.
//!
//! Only targets whose scope contains this node ([`Shared::own_part`]) have tasks and are in the view. So a
//! target that leaves this node is unmounted as after a deletion, and one that arrives is probed as after a creation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::shared::Shared;
use super::task::{self, FirstProbe, Mailbox, TaskHandle};
use crate::model::TargetId;
use crate::registry::{Difference, Snapshot};

/// Owner of the tasks.
pub(super) struct Reconciler {
    shared: Arc<Shared>,
    state: Mutex<Reconciled>,
}

/// Running tasks, and the snapshot that they match.
#[derive(Default)]
struct Reconciled {
    /// All targets of the registry.
    whole: Arc<Snapshot>,
    /// Those of this node.
    own: Arc<Snapshot>,
    tasks: HashMap<TargetId, TaskHandle>,
}

impl Reconciler {
    /// Starts a task for every target, unless the agent probes nothing, and a task that follows the registry until the
    /// agent is dropped.
    pub(super) fn start(shared: Arc<Shared>) -> Arc<Self> {
        let mut snapshots = shared.registry.watch();
        let first = snapshots.borrow_and_update().clone();
        let reconciler = Arc::new(Self { shared, state: Mutex::default() });
        reconciler.apply(&mut reconciler.state(), &first, FirstProbe::Soon);
        reconciler.unmount_others(&first);
        tokio::spawn(follow(Arc::downgrade(&reconciler), snapshots));
        reconciler
    }

    /// Applies a snapshot to tasks and view, unless a later one was applied already.
    pub(super) fn reconcile(&self, snapshot: &Arc<Snapshot>) {
        let mut state = self.state();
        if snapshot.revision() > state.whole.revision() {
            self.apply(&mut state, snapshot, FirstProbe::Now);
        }
    }

    /// Returns the mailbox of a target's task, if the target has a task.
    pub(super) fn mailbox(&self, id: TargetId) -> Option<Arc<Mailbox>> {
        self.state().tasks.get(&id).map(|task| task.mailbox().clone())
    }

    fn apply(&self, state: &mut Reconciled, snapshot: &Arc<Snapshot>, first_probe: FirstProbe) {
        let own = self.shared.own_part(snapshot);
        let differences = own.differences_from(&state.own);
        let former = std::mem::replace(&mut state.whole, snapshot.clone());
        state.own = own.clone();
        if differences.is_empty() {
            return;
        }
        // The view changes before the tasks, because the report of a target that is not in the view would be lost.
        let mount_root = self.shared.settings.borrow().mounts.root.clone();
        self.shared.views.publish_differences(&differences, &own, &mount_root);
        for difference in differences {
            match difference {
                Difference::Added(registered) => {
                    if first_probe == FirstProbe::Now {
                        let mount_path = registered.target.mount_name.below(&mount_root);
                        let was_elsewhere = former.target(registered.target.id).is_some();
                        let what = if was_elsewhere { "this node is in its scope now" } else { "created" };
                        tracing::info!(target_id = %registered.target.id, export = registered.target.spec.export(), mount_path = %mount_path.display(), "{what}");
                    }
                    if self.shared.has_tasks {
                        let handle = task::start(&self.shared, registered.target.clone(), first_probe);
                        state.tasks.insert(registered.target.id, handle);
                    }
                }
                Difference::Changed(registered) => {
                    if let Some(task) = state.tasks.get(&registered.target.id) {
                        task.mailbox().assign(Some(registered.target.clone()));
                    }
                }
                Difference::Removed(registered) => {
                    let id = registered.target.id;
                    let is_elsewhere = snapshot.target(id).is_some();
                    let what = if is_elsewhere { "this node is not in its scope any more" } else { "deleted" };
                    tracing::info!(target_id = %id, export = registered.target.spec.export(), "{what}");
                    if let Some(board) = &self.shared.host.facts {
                        board.withdraw(id);
                    }
                    if let Some(task) = state.tasks.remove(&id) {
                        task.mailbox().assign(None);
                    }
                }
            }
        }
    }

    /// Unmounts the targets of an earlier process whose scope does not contain this node any more, because its labels
    /// changed with the restart.
    fn unmount_others(&self, whole: &Snapshot) {
        let (shared, mounts) = (&self.shared, self.shared.host.mounts.current());
        let root = shared.settings.borrow().mounts.root.clone();
        let others = whole.targets().iter().filter(|registered| !shared.host.is_in_scope_of(&registered.target));
        for registered in others.filter(|_| shared.has_tasks) {
            if mounts.topmost_at(&registered.target.mount_name.below(&root)).is_some() {
                task::start(shared, registered.target.clone(), FirstProbe::Soon).mailbox().assign(None);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, Reconciled> {
        // After a panic some tasks may be missing. The others work.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reconciles every snapshot that the registry publishes. Holds no reference while it waits, so dropping the agent
/// ends it.
async fn follow(reconciler: Weak<Reconciler>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        let Some(reconciler) = reconciler.upgrade() else {
            return;
        };
        reconciler.reconcile(&snapshot);
    }
}

#[cfg(test)]
mod tests;
