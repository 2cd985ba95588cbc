//! Changes: what a use case asks the registry to do.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{NodeScope, ProjectId, SpecFields, Target, TargetId, TargetType, TargetTypeId, TypeProject};

/// One change of the registry. It is made completely or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a target with its first type. Both become the default if the target is created as the default. They also do
    /// if none exists and the target does not decline.
    CreateTarget {
        /// The target.
        target: Box<Target>,
        /// Its first type.
        first_type: TargetType,
        /// Whether the target does not become the default even if there is none.
        declines_default: bool,
    },
    /// Changes a target. When a target becomes the default, one of its types becomes the default type. That is the
    /// current default type if it is one of them, or else its first public type, or else its first type.
    ModifyTarget {
        /// The target.
        id: TargetId,
        /// What to change.
        change: TargetChange,
        /// The time of the change.
        now: Timestamp,
    },
    /// Removes a target with its types and its history.
    DeleteTarget(TargetId),
    /// Adds a type to a target. A type that is the default makes its target the default.
    CreateType(TargetType),
    /// Changes a target type. A type that becomes the default makes its target the default.
    ModifyType {
        /// The target type.
        id: TargetTypeId,
        /// What to change.
        change: TypeChange,
        /// The time of the change.
        now: Timestamp,
    },
    /// Removes a target type. The default type and the last type of a target cannot be removed.
    DeleteType(TargetTypeId),
}

impl Change {
    /// Whether the change restricts a target to some nodes.
    pub(super) fn restricts_nodes(&self) -> bool {
        match self {
            Self::CreateTarget { target, .. } => target.scope.is_some(),
            Self::ModifyTarget { change, .. } => matches!(change.scope, Some(Some(_))),
            Self::DeleteTarget(_) | Self::CreateType(_) | Self::ModifyType { .. } | Self::DeleteType(_) => false,
        }
    }
}

/// What to change about a target. `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetChange {
    /// Fields of the storage to change. A fixed field may only repeat its value.
    pub fields: SpecFields,
    /// Metadata to set. Other keys stay.
    pub metadata: BTreeMap<String, String>,
    /// Whether to remove all metadata before setting `metadata`.
    pub purge_metadata: bool,
    /// New name of the target's first type, which is the name of the target.
    pub type_name: Option<String>,
    /// Whether the target becomes the default, together with one of its types. `false` is refused for
    /// the default target: another target must become the default instead.
    pub is_default: Option<bool>,
    /// New scope. `Some(None)`: all nodes.
    pub scope: Option<Option<NodeScope>>,
}

/// What to change about a target type. `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeChange {
    /// The name.
    pub name: Option<String>,
    /// The description. An empty text removes it.
    pub description: Option<String>,
    /// Whether every project sees the type. A type that becomes public loses its projects.
    pub is_public: Option<bool>,
    /// Whether the type becomes the default, together with its target. `false` is refused for the
    /// default type: another type must become the default instead.
    pub is_default: Option<bool>,
    /// Whether to remove all projects before adding others. This never makes the type public, so that fewer projects
    /// see it and never more.
    pub purge_projects: bool,
    /// Projects to remove, if they are assigned.
    pub remove_projects: BTreeSet<ProjectId>,
    /// Projects to add, if they are not assigned. A public type stops being public.
    pub add_projects: Vec<TypeProject>,
    /// Whether to remove all metadata before anything is set.
    pub purge_metadata: bool,
    /// Metadata keys to remove. A key with a value is removed only if it has that value.
    pub remove_metadata: BTreeMap<String, Option<String>>,
    /// Metadata to set. Other keys stay.
    pub set_metadata: BTreeMap<String, String>,
}
