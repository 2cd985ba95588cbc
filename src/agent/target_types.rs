//! The use cases of target types. None waits for storage: a type is a name, and what is probed is
//! its target.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Agent, AgentError, VERSION};
use crate::model::{ProjectId, TargetId, TargetType, TargetTypeId, TypeProject};
use crate::registry::{Entry, RegistryError, TypeChange};

/// What a client asks for when it creates a target type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewType {
    /// The target that it uses.
    pub target_id: TargetId,
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub description: Option<String>,
    /// Whether it, and its target, are to be the default.
    pub is_default: bool,
    /// Whether every project sees it; if not said, it is public unless it is given to projects.
    pub is_public: Option<bool>,
    /// The projects that see it.
    pub projects: BTreeSet<ProjectId>,
    /// Notes about it.
    pub metadata: BTreeMap<String, String>,
    /// Who creates it, where authentication tells.
    pub user_id: Option<String>,
}

/// What a client asks for when it changes a target type: a [`TypeChange`] whose projects are not
/// stamped yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeUpdate {
    /// Projects to give it to.
    pub add_projects: BTreeSet<ProjectId>,
    /// Everything else.
    pub change: TypeChange,
}

impl NewType {
    fn stamped(self, now: Timestamp) -> TargetType {
        let Self { target_id, name, description, is_default, is_public, projects, metadata, user_id } = self;
        TargetType {
            id: Uuid::new_v4(),
            target_id,
            name,
            description,
            is_public: is_public.unwrap_or(projects.is_empty()),
            is_default,
            user_id,
            created_at: now,
            updated_at: None,
            version: VERSION.to_owned(),
            projects: stamp(projects, now),
            metadata,
        }
    }
}

impl Agent {
    /// Creates a target type. One that is the default makes its target the default too.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such target, a rule forbids it, or it cannot be made durable.
    pub async fn create_type(&self, new: NewType) -> Result<TargetType, AgentError> {
        self.change(async move |agent| {
            let new = new.stamped(Timestamp::now());
            let (id, target_id) = (new.id, new.target_id);
            let changed = agent.shared.registry.create_type(new).await?;
            tracing::info!(target_type_id = %id, %target_id, "created a type");
            agent.republish_type(changed, id)
        })
        .await
    }

    /// Changes a target type, all of what is asked or nothing.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such type, a rule forbids it, or it cannot be made durable.
    pub async fn modify_type(&self, id: TargetTypeId, update: TypeUpdate) -> Result<TargetType, AgentError> {
        self.change(async move |agent| {
            let now = Timestamp::now();
            let TypeUpdate { add_projects, change } = update;
            let change = TypeChange { add_projects: stamp(add_projects, now), ..change };
            let changed = agent.shared.registry.modify_type(id, change, now).await?;
            agent.republish_type(changed, id)
        })
        .await
    }

    /// Deletes a target type; not the default one, and not the last of its target.
    ///
    /// # Errors
    /// [`AgentError`] when there is no such type, a rule forbids it, or it cannot be made durable.
    pub async fn delete_type(&self, id: TargetTypeId) -> Result<(), AgentError> {
        self.change(async move |agent| {
            let left = agent.shared.registry.delete_type(id).await?;
            tracing::info!(target_type_id = %id, target_id = %left.target.id, "deleted a type");
            agent.republish(left);
            Ok(())
        })
        .await
    }

    fn republish_type(&self, changed: Vec<Entry>, id: TargetTypeId) -> Result<TargetType, AgentError> {
        let found = changed.iter().flat_map(|entry| &entry.types).find(|found| found.id == id).cloned();
        self.republish_all(changed);
        found.ok_or_else(|| RegistryError::TypeNotFound(id).into())
    }
}

fn stamp(projects: BTreeSet<ProjectId>, now: Timestamp) -> Vec<TypeProject> {
    let assigned = |project_id| TypeProject {
        id: Uuid::new_v4(),
        project_id,
        created_at: now,
        updated_at: None,
        version: VERSION.to_owned(),
    };
    projects.into_iter().map(assigned).collect()
}
