//! State that tasks and use cases share.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};

use super::error::AgentError;
use super::publisher::{StatusChange, ViewPublisher};
use super::statistics::ProbeStatistics;
use super::transition_log::TransitionLog;
use crate::driver::Host;
use crate::model::MountName;
use crate::model::settings::AgentSettings;
use crate::registry::{Registry, Snapshot};

/// State that outlives a single task or request.
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) host: Arc<Host>,
    pub(super) settings: watch::Sender<Arc<AgentSettings>>,
    pub(super) stopping: watch::Sender<bool>,
    pub(super) views: ViewPublisher,
    pub(super) transitions: TransitionLog,
    pub(super) statistics: ProbeStatistics,
    /// Whether each target has a task, which probes it.
    pub(super) has_tasks: bool,
    /// Runs the tasks of the targets. Changes come from the API, which has another runtime.
    pub(super) runtime: Handle,
    /// Directories that tasks of removed targets are unmounting.
    unmounting: watch::Sender<Vec<MountName>>,
    /// Held during a change of the registry. So changes of one agent do not conflict, and the agent stops between
    /// two of them. Never held during a wait for storage.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    /// The state of an agent in the current runtime.
    pub(super) fn new(
        registry: Registry,
        host: Arc<Host>,
        settings: AgentSettings,
        changes: mpsc::Sender<StatusChange>,
    ) -> Self {
        Self {
            transitions: TransitionLog::new(registry.clone()),
            registry,
            host,
            settings: watch::Sender::new(Arc::new(settings)),
            stopping: watch::Sender::new(false),
            views: ViewPublisher::new(changes),
            statistics: ProbeStatistics::default(),
            has_tasks: true,
            runtime: Handle::current(),
            unmounting: watch::Sender::default(),
            changing: Arc::default(),
        }
    }

    /// Returns the part of the registry's content that concerns this node: the targets whose scope contains it.
    pub(super) fn own_part(&self, snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
        snapshot.part(|target| self.host.is_in_scope_of(target))
    }

    /// Whether a target of this node uses a directory, or one that contains it or is inside it.
    pub(super) fn is_directory_used(&self, name: &MountName) -> bool {
        let snapshot = self.registry.snapshot();
        let mut own = snapshot.targets().iter().filter(|other| self.host.is_in_scope_of(&other.target));
        own.any(|other| other.target.mount_name.collides_with(name))
    }

    /// Announces that a directory is being unmounted, until the returned value is dropped.
    pub(super) fn begin_unmount(self: &Arc<Self>, name: &MountName) -> Unmounting {
        self.unmounting.send_modify(|names| names.push(name.clone()));
        Unmounting { shared: self.clone(), name: name.clone() }
    }

    /// Waits until no task of a removed target is unmounting this directory. A target that was created in it
    /// would otherwise lose its new mount.
    pub(super) async fn unmounted(&self, name: &MountName) {
        let is_free = |names: &Vec<MountName>| !names.iter().any(|other| other.collides_with(name));
        // The sender is part of `self`, so it is not closed.
        let _ = self.unmounting.subscribe().wait_for(is_free).await;
    }

    /// Waits for the turn to change the registry.
    ///
    /// # Errors
    /// [`AgentError::Stopping`] when the agent accepts no more changes.
    pub(super) async fn begin_change(&self) -> Result<OwnedMutexGuard<()>, AgentError> {
        let guard = self.changing.clone().lock_owned().await;
        if *self.stopping.borrow() { Err(AgentError::Stopping) } else { Ok(guard) }
    }
}

/// A directory that is being unmounted.
pub(super) struct Unmounting {
    shared: Arc<Shared>,
    name: MountName,
}

impl Drop for Unmounting {
    fn drop(&mut self) {
        self.shared.unmounting.send_modify(|names| {
            if let Some(at) = names.iter().position(|name| *name == self.name) {
                names.swap_remove(at);
            }
        });
    }
}
