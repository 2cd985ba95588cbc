//! Start, stop, settings and changes of the agent.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::error::AgentError;
use super::own_mount_log;
use super::private_mounts;
use super::publisher::StatusChange;
use super::reconcile::Reconciler;
use super::shared::Shared;
use super::statistics::ProbeStatistics;
use super::view::View;
use crate::driver::{Host, PoolStats};
use crate::model::request_id::during_current;
use crate::model::settings::AgentSettings;
use crate::model::{LabeledNode, TargetId, TargetTypeId};
use crate::registry::{Change, Registry, ReplicaStatus, Snapshot, WriteResult};

/// Version of this agent, which new targets and types record.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Longest time that [`Agent::registry_problem`] waits for the disk of the registry.
const REGISTRY_CHECK_MAX: Duration = Duration::from_secs(1);

/// Longest time that [`Agent::stop`] waits for a running change. A change of a registry in etcd can take many seconds.
const STOP_CHANGE_MAX: Duration = Duration::from_millis(500);

/// The running agent. Cheap to clone; all clones are the same agent.
#[derive(Clone)]
pub struct Agent {
    pub(super) shared: Arc<Shared>,
    pub(super) reconciler: Arc<Reconciler>,
}

impl Agent {
    /// Starts a task for every target of the registry. Never waits for storage. Changes of status are sent to `changes`
    /// unless it is full or closed.
    #[must_use]
    pub fn start(
        registry: Registry,
        host: Arc<Host>,
        settings: AgentSettings,
        changes: mpsc::Sender<StatusChange>,
    ) -> Self {
        let shared = Arc::new(Shared::new(registry, host, settings, changes));
        tokio::spawn({
            let shared = shared.clone();
            async move { shared.transitions.run(shared.stopping.subscribe()).await }
        });
        shared.host.own_mounts.expect_log();
        tokio::spawn({
            let shared = shared.clone();
            async move {
                own_mount_log::run(&shared.registry, &shared.host.own_mounts, shared.stopping.subscribe()).await;
            }
        });
        tokio::spawn({
            let shared = shared.clone();
            async move { private_mounts::sweep(&shared).await }
        });
        tokio::spawn({
            let shared = shared.clone();
            async move { shared.views.mark_overdue_until(shared.stopping.subscribe()).await }
        });
        Self { reconciler: Reconciler::start(shared.clone()), shared }
    }

    /// Starts an agent that only reads and changes the registry. It mounts and probes nothing, so the status of its
    /// targets is not known. A target that it deletes is unmounted by the agents that share the registry.
    #[must_use]
    pub fn without_probes(registry: Registry, host: Arc<Host>, settings: AgentSettings) -> Self {
        let mut shared = Shared::new(registry, host, settings, mpsc::channel(1).0);
        shared.has_tasks = false;
        let shared = Arc::new(shared);
        Self { reconciler: Reconciler::start(shared.clone()), shared }
    }

    /// Returns all targets as they are now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.views.view()
    }

    /// Returns a receiver of each new view. A slow receiver skips views.
    #[must_use]
    pub fn watch_view(&self) -> watch::Receiver<Arc<View>> {
        self.shared.views.watch()
    }

    /// Returns a sentence about a target whose probes do not end. `None` if there is none.
    #[must_use]
    pub fn overdue_probe(&self) -> Option<String> {
        let view = self.view();
        let overdue = view.targets.iter().find(|view| view.is_overdue())?;
        Some(format!("the probes of {} do not end", overdue.target.spec.export()))
    }

    /// Returns this node in the fleet. `None` without one.
    #[must_use]
    pub fn fleet_node(&self) -> Option<&LabeledNode> {
        self.shared.host.fleet_node.as_ref()
    }

    /// Returns the settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<AgentSettings> {
        self.shared.settings.borrow().clone()
    }

    /// Returns the counts of all probes.
    #[must_use]
    pub fn statistics(&self) -> &ProbeStatistics {
        &self.shared.statistics
    }

    /// Returns the numbers of workers and calls.
    #[must_use]
    pub fn worker_stats(&self) -> PoolStats {
        self.shared.host.workers.stats()
    }

    /// Returns the requests to S3 services by operation and result.
    #[must_use]
    pub fn s3_operations(&self) -> Vec<((&'static str, &'static str), u64)> {
        self.shared.host.buckets.operations().all()
    }

    /// Returns the requests to the key manager by result.
    #[must_use]
    pub fn key_manager_requests(&self) -> Vec<(&'static str, u64)> {
        self.shared.host.key_manager.requests().all()
    }

    /// Returns the number of writes to the registry that had this result.
    #[must_use]
    pub fn registry_writes(&self, result: WriteResult) -> u64 {
        self.shared.registry.writes(result)
    }

    /// Returns the id of a target from this id, which may be a former one, as [`Registry::current_target_id`].
    #[must_use]
    pub fn current_target_id(&self, id: TargetId) -> TargetId {
        self.shared.registry.current_target_id(id)
    }

    /// Returns the id of a target type from this id, as [`Self::current_target_id`].
    #[must_use]
    pub fn current_type_id(&self, id: TargetTypeId) -> TargetTypeId {
        self.shared.registry.current_type_id(id)
    }

    /// Returns how many transitions wait for the registry, and how many were dropped since the start.
    #[must_use]
    pub fn history_counts(&self) -> (usize, u64) {
        self.shared.transitions.counts()
    }

    /// Returns why the registry cannot be changed now, or `None` if it can. Waits for its disk at most
    /// [`REGISTRY_CHECK_MAX`].
    pub async fn registry_problem(&self) -> Option<String> {
        match timeout(REGISTRY_CHECK_MAX, self.shared.registry.verify_writable()).await {
            Ok(verdict) => verdict.err().map(|error| error.to_string()),
            Err(_) => Some(format!("its disk did not answer within {} s", REGISTRY_CHECK_MAX.as_secs())),
        }
    }

    /// Returns the state of the registry that all nodes share. `None` if this node has a registry of its own.
    #[must_use]
    pub fn shared_registry(&self) -> Option<ReplicaStatus> {
        self.shared.registry.replica_status()
    }

    /// Applies new settings, and probes every target with them. Ignores a change of the mount roots, because the agent
    /// would lose track of the mounts below the old ones.
    pub fn change_settings(&self, mut settings: AgentSettings) {
        let former = &self.settings().mounts;
        let mounts = &mut settings.mounts;
        for (key, former, root) in
            [("root", &former.root, &mut mounts.root), ("private_root", &former.private_root, &mut mounts.private_root)]
        {
            if root != former {
                let former = former.display();
                tracing::warn!(root = %former, "a change of [mounts] {key} needs a restart: the old one stays in force");
            }
            root.clone_from(former);
        }
        self.shared.settings.send_replace(Arc::new(settings));
    }

    /// Ends every task and every child process, and refuses every later change. Mounts stay. Waits for limited times
    /// until a running change of the registry has ended, and until the history is written.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        self.shared.host.workers.shut_down();
        // Every later change is refused when its turn comes.
        if timeout(STOP_CHANGE_MAX, self.shared.begin_change()).await.is_err() {
            tracing::warn!("a change of the registry has not ended, and the agent stops without it");
        }
        let Shared { registry, host, transitions, .. } = &*self.shared;
        tokio::join!(transitions.write_rest(), own_mount_log::store_rest(registry, &host.own_mounts));
    }

    /// Returns a receiver that becomes true when the agent stops.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.shared.stopping.subscribe()
    }

    /// Blocks every change until the returned value is dropped.
    #[cfg(test)]
    pub(crate) async fn hold_changes(&self) -> Result<impl Sized, AgentError> {
        self.shared.begin_change().await
    }

    /// Changes the registry, and returns its content when the view shows the change. `change` receives the current time
    /// when its turn comes. If the caller drops the future before that, nothing changes. A change that has begun is
    /// completed.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(Timestamp) -> Result<Change, AgentError>,
    ) -> Result<Arc<Snapshot>, AgentError> {
        let changing = self.shared.begin_change().await?;
        let change = change(Timestamp::now())?;
        let agent = self.clone();
        run_to_completion(async move {
            let _changing = changing;
            let before = agent.shared.registry.snapshot();
            let snapshot = agent.shared.registry.change(&change).await?;
            log_type_change(&change, &before);
            agent.reconciler.reconcile(&snapshot);
            Ok(snapshot)
        })
        .await
    }

    /// Returns why a target has no task: the agent is stopping, or it is not a target of this node.
    pub(super) fn no_task(&self, id: TargetId) -> AgentError {
        if *self.shared.stopping.borrow() { AgentError::Stopping } else { self.not_here(id) }
    }

    /// Returns why a target is not in the view.
    pub(super) fn not_here(&self, id: TargetId) -> AgentError {
        match &self.shared.host.fleet_node {
            Some(node) if self.is_elsewhere(id) => AgentError::OutOfScope { id, node: node.name.clone() },
            _ => AgentError::TargetNotFound(id),
        }
    }

    /// Whether the registry has this target, and its scope does not contain this node.
    pub(super) fn is_elsewhere(&self, id: TargetId) -> bool {
        let snapshot = self.shared.registry.snapshot();
        snapshot.target(id).is_some_and(|registered| !self.shared.host.is_in_scope_of(&registered.target))
    }
}

/// Logs changes of target types. The reconciler logs those of targets.
fn log_type_change(change: &Change, before: &Snapshot) {
    match change {
        Change::CreateType(new) => {
            tracing::info!(target_type_id = %new.id, target_id = %new.target_id, "created a type");
        }
        Change::DeleteType(id) => {
            let target_id = before.target_type(*id).map(|deleted| tracing::field::display(deleted.target_id));
            tracing::info!(target_type_id = %id, target_id, "deleted a type");
        }
        _ => {}
    }
}

/// Completes the work even if the caller drops the future, because the client of a request can hang up.
pub(super) async fn run_to_completion<T: Send + 'static>(
    work: impl Future<Output = Result<T, AgentError>> + Send + 'static,
) -> Result<T, AgentError> {
    match tokio::spawn(during_current(work)).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the end of the runtime cancels it.
            Err(_) => Err(AgentError::Stopping),
        },
    }
}
