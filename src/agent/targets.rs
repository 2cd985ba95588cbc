//! The use cases of targets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::error::AgentError;
use super::lifecycle::{Agent, VERSION, run_to_completion};
use super::task::Mailbox;
use super::view::TargetView;
use crate::model::settings::DeclaredTarget;
use crate::model::{MountName, NodeScope, SpecFields, Target, TargetId, TargetSpec, TargetType, Transition};
use crate::registry::{Change, Snapshot, TargetChange};

/// Longest wait for one requested probe, as a multiple of its `deadline`. Includes the waits for a free child process.
/// A probe takes this long only if its workers break.
const DEADLINES_IN_A_PROBE: u32 = 20;

/// Request to create a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTarget {
    /// Storage of the target.
    pub spec: TargetSpec,
    /// Name of the first target type. Without it, the export is the name.
    pub type_name: Option<String>,
    /// Whether the target becomes the default. With `None` it becomes the default only if there is no default.
    pub is_default: Option<bool>,
    /// Metadata of the target.
    pub metadata: BTreeMap<String, String>,
    /// The nodes on which it is expected. `None`: all nodes.
    pub scope: Option<NodeScope>,
    /// The user who creates it, if authentication names one.
    pub user_id: Option<String>,
}

impl Agent {
    /// Creates a target. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when a rule of the registry forbids it or it cannot be made durable.
    pub async fn create_target(&self, new: NewTarget) -> Result<Arc<TargetView>, AgentError> {
        let id = Uuid::new_v4();
        let snapshot = self.change(|now| self.creation(id, new, now)).await?;
        // Not from the view, which may already contain the first probe, or may no longer contain the target.
        self.not_checked(&snapshot, id)
    }

    /// Returns a target of the registry without a probe.
    fn not_checked(&self, snapshot: &Snapshot, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        let registered = snapshot.target(id).ok_or(AgentError::TargetNotFound(id))?;
        Ok(Arc::new(TargetView::not_checked(registered, &self.settings().mounts.root, Timestamp::now())))
    }

    /// Creates the declared targets of the configuration that do not exist yet, and applies declared fields to those
    /// that exist. A failure is logged and does not stop the others.
    pub async fn declare_targets(&self, declared: &[DeclaredTarget]) {
        for DeclaredTarget { spec, changes, type_name, is_default, metadata } in declared {
            let export = spec.export();
            if let Some(existing) = self.registered(spec) {
                self.apply_declared(&existing, changes).await;
                continue;
            }
            let new = NewTarget {
                spec: spec.clone(),
                type_name: type_name.clone(),
                is_default: *is_default,
                metadata: metadata.clone(),
                scope: None,
                user_id: None,
            };
            match self.create_target(new).await {
                Ok(_) => {}
                Err(error) => {
                    // Another node that shares the registry may have created it meanwhile.
                    match self.registered(spec) {
                        Some(existing) => self.apply_declared(&existing, changes).await,
                        None => tracing::error!(export, %error, "the declared target was not created"),
                    }
                }
            }
        }
    }

    /// Returns the target of the registry with this storage.
    fn registered(&self, spec: &TargetSpec) -> Option<Arc<Target>> {
        let snapshot = self.shared.registry.snapshot();
        let mut targets = snapshot.targets().iter().map(|registered| &registered.target);
        targets.find(|other| other.spec.is_same_storage(spec)).cloned()
    }

    async fn apply_declared(&self, target: &Target, fields: &SpecFields) {
        if target.spec.with_fields(fields).is_ok_and(|spec| spec == target.spec) {
            return;
        }
        let export = target.spec.export();
        let change = TargetChange { fields: fields.clone(), ..TargetChange::default() };
        match self.modify_target(target.id, change).await {
            Ok(_) => {
                tracing::info!(target_id = %target.id, export, "the target was changed to what the configuration declares")
            }
            Err(error) => {
                tracing::error!(target_id = %target.id, export, %error, "the declared target was not changed")
            }
        }
    }

    /// Changes a target completely or not at all. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, a rule forbids it, or it cannot be made durable.
    pub async fn modify_target(&self, id: TargetId, change: TargetChange) -> Result<Arc<TargetView>, AgentError> {
        let snapshot = self.change(|now| Ok(Change::ModifyTarget { id, change, now })).await?;
        // This node does not probe a target whose scope does not contain it.
        self.target(id).or_else(|_| self.not_checked(&snapshot, id))
    }

    /// Makes a target the only default. Never waits for storage.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target or it cannot be made durable.
    pub async fn set_default_target(&self, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        self.modify_target(id, TargetChange { is_default: Some(true), ..TargetChange::default() }).await
    }

    /// Unmounts a target and removes it from the registry. Waits for the unmount, which has deadlines.
    ///
    /// # Errors
    /// [`AgentError::Busy`] when its mount is in use on a live server, [`AgentError`] when a rule
    /// forbids it or it cannot be made durable. The target then stays, and is mounted again.
    pub async fn delete_target(&self, id: TargetId) -> Result<(), AgentError> {
        if !self.shared.has_tasks || self.is_elsewhere(id) {
            return self.change(|_| Ok(Change::DeleteTarget(id))).await.map(drop);
        }
        let mailbox = self.mailbox(id)?;
        // Before the task is interrupted, so that no probe waits for a registry that does not answer.
        {
            let _changing = self.shared.begin_change().await?;
            self.shared.registry.verify(&Change::DeleteTarget(id)).await?;
        }
        // The task may have ended, because another request deleted the target or the agent stops.
        let answer = mailbox.delete().await.ok_or_else(|| self.no_task(id))?;
        let agent = self.clone();
        run_to_completion(async move {
            let snapshot = answer.await.map_err(|_| agent.no_task(id))??;
            agent.reconciler.reconcile(&snapshot);
            Ok(())
        })
        .await
    }

    /// Probes a target now, and returns it with the report of a probe that began after this call. The wait is bounded
    /// by the deadlines of the probe.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target or the agent is stopping.
    pub async fn check_now(&self, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        let mailbox = self.mailbox(id)?;
        let request = mailbox.request_probe();
        let bound = self.check_bound();
        match tokio::time::timeout(bound, mailbox.served(request)).await {
            Err(_) => Err(AgentError::CheckTimedOut { id, after: bound }),
            Ok(false) => Err(self.no_task(id)),
            Ok(true) => self.target(id),
        }
    }

    /// Returns the transitions of a target, newest first. Waits a limited time for the registry.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, or the registry cannot be read now.
    pub async fn history(&self, id: TargetId) -> Result<Vec<Transition>, AgentError> {
        self.target(id)?;
        self.shared.transitions.of_target(id).await
    }

    fn mailbox(&self, id: TargetId) -> Result<Arc<Mailbox>, AgentError> {
        self.reconciler.mailbox(id).ok_or_else(|| self.no_task(id))
    }

    /// Returns a target of this node.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target.
    pub fn target(&self, id: TargetId) -> Result<Arc<TargetView>, AgentError> {
        self.view().target(id).cloned().ok_or_else(|| self.not_here(id))
    }

    fn creation(&self, id: TargetId, new: NewTarget, now: Timestamp) -> Result<Change, AgentError> {
        let NewTarget { spec, type_name, is_default, metadata, scope, user_id } = new;
        let first_type = TargetType {
            id: Uuid::new_v4(),
            target_id: id,
            name: type_name.unwrap_or_else(|| spec.export()),
            description: None,
            is_public: true,
            is_default: is_default == Some(true),
            user_id,
            created_at: now,
            updated_at: None,
            version: VERSION.to_owned(),
            projects: Vec::new(),
            metadata: BTreeMap::new(),
        };
        let target = Target {
            id,
            mount_name: MountName::derive(&spec, self.settings().mounts.path_key)?,
            spec,
            is_default: is_default == Some(true),
            created_at: now,
            updated_at: now,
            version: VERSION.to_owned(),
            metadata,
            scope,
        };
        Ok(Change::CreateTarget { target: target.into(), first_type, declines_default: is_default == Some(false) })
    }

    /// Returns the longest wait for a requested probe. A running probe may have to end first.
    fn check_bound(&self) -> Duration {
        let settings = self.settings();
        let one = settings.probe.deadline * DEADLINES_IN_A_PROBE + settings.probe.mount_deadline * 2;
        one * 2
    }
}
