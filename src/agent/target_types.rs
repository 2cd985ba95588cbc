//! The use cases of target types. None waits for storage, because only targets are probed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::error::AgentError;
use super::lifecycle::{Agent, VERSION};
use crate::model::{ProjectId, TargetId, TargetType, TargetTypeId, TypeProject};
use crate::registry::{Change, Refusal, RegistryError, TypeChange};

/// Request to create a target type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewType {
    /// The target that the type uses.
    pub target_id: TargetId,
    /// The name.
    pub name: String,
    /// The description.
    pub description: Option<String>,
    /// Whether the type and its target become the default.
    pub is_default: bool,
    /// Whether every project sees the type. With `None` the type is public unless `projects` contains a project.
    pub is_public: Option<bool>,
    /// The projects that see the type.
    pub projects: BTreeSet<ProjectId>,
    /// Metadata of the type.
    pub metadata: BTreeMap<String, String>,
    /// The user who creates it, if authentication names one.
    pub user_id: Option<String>,
}

/// Request to change a target type: a [`TypeChange`] with projects whose assignments have no ids yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeUpdate {
    /// Projects to add.
    pub add_projects: BTreeSet<ProjectId>,
    /// All other changes. Its `add_projects` is ignored.
    pub change: TypeChange,
}

impl NewType {
    fn with_id(self, id: TargetTypeId, now: Timestamp) -> TargetType {
        let Self { target_id, name, description, is_default, is_public, projects, metadata, user_id } = self;
        TargetType {
            id,
            target_id,
            name,
            description,
            is_public: is_public.unwrap_or(projects.is_empty()),
            is_default,
            user_id,
            created_at: now,
            updated_at: None,
            version: VERSION.to_owned(),
            projects: assignments(projects, now),
            metadata,
        }
    }
}

impl Agent {
    /// Returns a target type by its id, which may be a former one. Its target may be out of the scope of this node.
    #[must_use]
    pub fn target_type(&self, id: TargetTypeId) -> Option<Arc<TargetType>> {
        self.shared.registry.snapshot().target_type(self.current_type_id(id)).cloned()
    }

    /// Creates a target type. A type that is the default makes its target the default.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, a rule forbids it, or it cannot be made durable.
    pub async fn create_type(&self, new: NewType) -> Result<Arc<TargetType>, AgentError> {
        let id = Uuid::new_v4();
        let new = NewType { target_id: self.current_target_id(new.target_id), ..new };
        self.change_type(id, |now| Change::CreateType(new.with_id(id, now))).await
    }

    /// Changes a target type completely or not at all.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such type, a rule forbids it, or it cannot be made durable.
    pub async fn modify_type(&self, id: TargetTypeId, update: TypeUpdate) -> Result<Arc<TargetType>, AgentError> {
        let TypeUpdate { add_projects, change } = update;
        self.change_type(id, |now| {
            let change = TypeChange { add_projects: assignments(add_projects, now), ..change };
            Change::ModifyType { id, change, now }
        })
        .await
    }

    /// Deletes a target type. The default type and the last type of a target cannot be deleted.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such type, a rule forbids it, or it cannot be made durable.
    pub async fn delete_type(&self, id: TargetTypeId) -> Result<(), AgentError> {
        self.change(|_| Ok(Change::DeleteType(id))).await.map(drop)
    }

    async fn change_type(
        &self,
        id: TargetTypeId,
        change: impl FnOnce(Timestamp) -> Change,
    ) -> Result<Arc<TargetType>, AgentError> {
        let snapshot = self.change(|now| Ok(change(now))).await?;
        snapshot.target_type(id).cloned().ok_or_else(|| RegistryError::from(Refusal::TypeNotFound(id)).into())
    }
}

/// Returns new assignments to these projects.
fn assignments(projects: BTreeSet<ProjectId>, now: Timestamp) -> Vec<TypeProject> {
    let assigned = |project_id| TypeProject {
        id: Uuid::new_v4(),
        project_id,
        created_at: now,
        updated_at: None,
        version: VERSION.to_owned(),
    };
    projects.into_iter().map(assigned).collect()
}
