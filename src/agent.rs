//! The agent: one task per target, and the use cases that API and command line call.
//!
//! Reading is from memory: [`Agent::view`] is a snapshot that tasks replace when something
//! changed, so no reader waits for storage, the registry or another reader. Changing goes through
//! the registry first and becomes visible when it is durable. Probing belongs to the target's own
//! task (`task`), which owns the driver: a probe, a mount and an unmount of one target never
//! overlap, and a target that hangs delays nobody else. Target types have no task: nothing is probed
//! of a name ([`target_types`]).

pub mod error;
mod history;
mod shared;
pub mod status;
pub mod target_types;
mod task;
pub mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::model::settings::{AgentSettings, DeclaredTarget};
use crate::model::{MountName, Target, TargetId, TargetSpec, TargetType, Transition};
use crate::registry::{Entry, Registry, RegistryError, TargetChange};
use shared::Shared;
use task::{Command, FirstProbe, TaskHandle};

/// What [`Agent::start`] needs of the host.
pub use crate::driver::{Host, ProcessRole};
pub use error::AgentError;
pub use status::TargetStatus;
pub use target_types::{NewType, TypeUpdate};
pub use view::{TargetView, View};

/// The version that targets are stamped with: this agent's.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How many waits of one `deadline` a probe is waited for, with those for a child to be free: more than
/// any has whose workers do not break.
const DEADLINES_IN_A_PROBE: u32 = 20;

/// What a client asks for when it creates a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTarget {
    /// Its storage.
    pub spec: TargetSpec,
    /// The name of its first target type; the export if none.
    pub type_name: Option<String>,
    /// Whether it is to be the default target.
    pub is_default: bool,
    /// Notes about it.
    pub metadata: BTreeMap<String, String>,
    /// Who creates it, where authentication tells.
    pub user_id: Option<String>,
}

/// The running agent. Cheap to clone; all clones are the same agent.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<HashMap<TargetId, TaskHandle>>>,
}

impl Agent {
    /// Loads the targets and begins to probe them. Never waits for storage.
    ///
    /// # Errors
    /// [`RegistryError`] when the registry cannot be read.
    pub async fn start(
        registry: Arc<dyn Registry>,
        host: Arc<Host>,
        settings: AgentSettings,
    ) -> Result<Self, RegistryError> {
        let entries = registry.load().await?;
        let shared = Arc::new(Shared::new(registry, host, Arc::new(settings), entries));
        let agent = Self { shared, tasks: Arc::default() };
        tokio::spawn({
            let shared = agent.shared.clone();
            async move { shared.keep_history().await }
        });
        for view in &agent.view().targets {
            agent.start_task(view.target.clone(), FirstProbe::Soon);
        }
        Ok(agent)
    }

    /// All targets as they are now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.view()
    }

    /// A receiver of each new view; those that it is too slow for it does not get.
    #[must_use]
    pub fn watch_view(&self) -> watch::Receiver<Arc<View>> {
        self.shared.watch_view()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<AgentSettings> {
        self.shared.settings.borrow().clone()
    }

    /// Creates a target. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when a rule of the registry forbids it or it cannot be made durable.
    pub async fn create_target(&self, new: NewTarget) -> Result<Arc<TargetView>, AgentError> {
        self.change(async move |agent| {
            let (target, first_type) = agent.stamp(new)?;
            let entry = agent.shared.registry.create_target(target, first_type).await?;
            let target = entry.target.clone();
            let view = agent.shared.publish_entry(entry);
            tracing::info!(target_id = %target.id, export = target.spec.export(), mount_path = %view.mount_path.display(), "created");
            agent.start_task(target, FirstProbe::Now);
            Ok(view)
        })
        .await
    }

    /// Creates the targets that the configuration declares and that are not there yet. One that
    /// cannot be created is logged and keeps nobody from starting.
    pub async fn declare_targets(&self, declared: &[DeclaredTarget]) {
        for DeclaredTarget { spec, type_name, is_default, metadata } in declared {
            let export = spec.export();
            let is_there =
                |view: &Arc<TargetView>| view.target.spec.kind() == spec.kind() && view.target.spec.export() == export;
            if self.view().targets.iter().any(is_there) {
                continue;
            }
            let new = NewTarget {
                spec: spec.clone(),
                type_name: type_name.clone(),
                is_default: *is_default,
                metadata: metadata.clone(),
                user_id: None,
            };
            if let Err(error) = self.create_target(new).await {
                tracing::error!(export, %error, "the declared target was not created");
            }
        }
    }

    /// Changes a target, all of what is asked or nothing. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, a rule forbids it, or it cannot be made durable.
    pub async fn modify_target(&self, id: TargetId, change: TargetChange) -> Result<Arc<TargetView>, AgentError> {
        self.change(async move |agent| {
            let changed = agent.shared.registry.modify_target(id, change, Timestamp::now()).await?;
            agent.republish_target(changed, id)
        })
        .await
    }

    /// Makes a target the default, and no other. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target or it cannot be made durable.
    pub async fn set_default_target(&self, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        self.change(async move |agent| {
            let changed = agent.shared.registry.set_default_target(id, Timestamp::now()).await?;
            agent.republish_target(changed, id)
        })
        .await
    }

    /// Unmounts a target and removes it from the registry. Waits for the unmount, bounded.
    ///
    /// # Errors
    /// [`AgentError::Busy`] when its mount is in use on a live server, [`AgentError`] when a rule
    /// forbids it or it cannot be made durable. The target stays then, and is mounted again.
    pub async fn delete_target(&self, id: TargetId) -> Result<(), AgentError> {
        let commands = self.task(id, |task| task.commands.clone())?;
        let (reply, answer) = oneshot::channel();
        // A task that ends meanwhile has deleted the target for somebody else, or the agent stops.
        commands.send(Command::Delete(reply)).await.map_err(|_| self.why_gone(id))?;
        let agent = self.clone();
        to_its_end(async move {
            answer.await.map_err(|_| agent.why_gone(id))??;
            agent.tasks().remove(&id);
            Ok(())
        })
        .await
    }

    /// Probes a target now and returns it with the report of a probe that began after this call.
    /// The wait is bounded by the deadlines of the probe.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target or the agent is stopping.
    pub async fn check_now(&self, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        let (mine, mut served) = self.task(id, |task| {
            task.requested.send_modify(|number| *number += 1);
            (*task.requested.borrow(), task.served.clone())
        })?;
        let bound = self.check_bound();
        match tokio::time::timeout(bound, served.wait_for(|number| *number >= mine)).await {
            Err(_) => Err(AgentError::CheckTimedOut { id, after: bound }),
            Ok(Err(_)) => Err(self.why_gone(id)),
            Ok(Ok(_)) => self.view().target(id).cloned().ok_or(AgentError::TargetNotFound(id)),
        }
    }

    /// The transitions of a target, newest first, as far back as they are kept. Waits for the
    /// registry, bounded.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, or the registry cannot be read now.
    pub async fn history(&self, id: TargetId) -> Result<Vec<Transition>, AgentError> {
        self.view().target(id).ok_or(AgentError::TargetNotFound(id))?;
        self.shared.history_of(id).await
    }

    /// Puts new settings in force and probes every target with them. The mount root stays as it
    /// is: what is mounted below the old one would be lost sight of.
    pub fn change_settings(&self, mut settings: AgentSettings) {
        let root = &self.settings().mounts.root;
        if settings.mounts.root != *root {
            tracing::warn!(root = %root.display(), "[mounts] root is changed by a restart only; the old one stays in force");
            settings.mounts.root.clone_from(root);
        }
        self.shared.settings.send_replace(Arc::new(settings));
    }

    /// Ends every task and every child, and refuses every change from now on. What is mounted
    /// stays mounted. Waits for a change of the registry that is under way, and for the rest of the
    /// history, bounded.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        self.shared.host.workers.shut_down();
        // Whoever gets it after this is told that the agent is stopping.
        drop(self.shared.begin_change().await);
        self.shared.end_history().await;
    }

    /// A receiver that becomes true when the agent stops.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.shared.stopping.subscribe()
    }

    /// Lets no change begin until what it returns is dropped.
    #[cfg(test)]
    pub(crate) async fn hold_changes(&self) -> Result<impl Sized, AgentError> {
        self.shared.begin_change().await
    }

    /// Makes one change at a time. Who stops waiting before its turn has changed nothing; once begun,
    /// a change is made to its end, because readers are to see what became durable.
    async fn change<T, F>(&self, change: impl FnOnce(Self) -> F) -> Result<T, AgentError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, AgentError>> + Send + 'static,
    {
        let changing = self.shared.begin_change().await?;
        let change = change(self.clone());
        to_its_end(async move {
            let _changing = changing;
            change.await
        })
        .await
    }

    fn stamp(&self, new: NewTarget) -> Result<(Target, TargetType), AgentError> {
        let NewTarget { spec, type_name, is_default, metadata, user_id } = new;
        let now = Timestamp::now();
        let mount_name = MountName::derive(&spec, self.settings().mounts.path_key)?;
        let id = Uuid::new_v4();
        let first_type = TargetType {
            id: Uuid::new_v4(),
            target_id: id,
            name: type_name.unwrap_or_else(|| spec.export()),
            description: None,
            is_public: true,
            is_default,
            user_id,
            created_at: now,
            updated_at: None,
            version: VERSION.to_owned(),
            projects: Vec::new(),
            metadata: BTreeMap::new(),
        };
        let (version, created_at, updated_at) = (VERSION.to_owned(), now, now);
        Ok((Target { id, spec, mount_name, is_default, created_at, updated_at, version, metadata }, first_type))
    }

    fn republish_target(&self, changed: Vec<Entry>, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        self.republish_all(changed);
        self.view().target(id).cloned().ok_or(AgentError::TargetNotFound(id))
    }

    fn republish(&self, entry: Entry) -> Arc<TargetView> {
        self.tell_task(&entry);
        self.shared.publish_entry(entry)
    }

    fn republish_all(&self, entries: Vec<Entry>) {
        for entry in &entries {
            self.tell_task(entry);
        }
        self.shared.publish_entries(entries);
    }

    fn tell_task(&self, entry: &Entry) {
        if let Some(task) = self.tasks().get(&entry.target.id) {
            let target = Arc::new(entry.target.clone());
            // Only another storage is the task's business: it makes a new driver and probes again.
            task.target.send_if_modified(|current| {
                let is_another = current.spec != target.spec;
                *current = target;
                is_another
            });
        }
    }

    fn start_task(&self, target: Target, first: FirstProbe) {
        let id = target.id;
        let handle = task::start(&self.shared, Arc::new(target), first);
        self.tasks().insert(id, handle);
    }

    fn task<T>(&self, id: TargetId, get: impl FnOnce(&TaskHandle) -> T) -> Result<T, AgentError> {
        self.tasks().get(&id).map(get).ok_or(AgentError::TargetNotFound(id))
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<TargetId, TaskHandle>> {
        // Every change is a single insert or remove: nothing is half done after a panic.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why_gone(&self, id: TargetId) -> AgentError {
        if *self.shared.stopping.borrow() { AgentError::Stopping } else { AgentError::TargetNotFound(id) }
    }

    /// How long a probe that is asked for may take: another may have to end first.
    fn check_bound(&self) -> Duration {
        let settings = self.settings();
        let one = settings.probe.deadline * DEADLINES_IN_A_PROBE + settings.probe.mount_deadline * 2;
        one * 2
    }
}

/// Does something though nobody may wait for it any more: the client of a request can hang up.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, AgentError>> + Send + 'static,
) -> Result<T, AgentError> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the end of the runtime cancels it.
            Err(_) => Err(AgentError::Stopping),
        },
    }
}
