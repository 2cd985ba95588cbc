//! Target types: named ways to use a target, which clients pick by name.
//!
//! A type is public, or it is for some projects: never both. Every target has at least one type, and
//! the default type is one of the default target's, so that who names neither gets what the operator
//! chose in either way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::{ProjectId, TargetId, TypeProject};

/// A target type's id: a version 4 UUID.
pub type TargetTypeId = Uuid;

/// The most metadata entries of one type.
pub const TYPE_METADATA_MAX: usize = 64;

/// The longest metadata key or value of a type, in bytes.
pub const TYPE_METADATA_MAX_BYTES: usize = 255;

/// The most projects of one type.
pub const TYPE_PROJECTS_MAX: usize = 1000;

/// A target type as the registry keeps it. Every target has at least one, made with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetType {
    /// Its id.
    pub id: TargetTypeId,
    /// The target that it uses.
    pub target_id: TargetId,
    /// Its name, unique among all target types.
    pub name: String,
    /// What its creator says of it.
    pub description: Option<String>,
    /// Whether every project sees it.
    pub is_public: bool,
    /// Whether it is used where no type is named. Exactly one type is the default.
    pub is_default: bool,
    /// The user who created it, where authentication tells one.
    pub user_id: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was changed, if ever.
    pub updated_at: Option<Timestamp>,
    /// The version of the agent that created it.
    pub version: String,
    /// The projects that see it, in the order of their assignment; none when it is public. A type
    /// that is neither public nor any project's is seen by admins only.
    pub projects: Vec<TypeProject>,
    /// What was noted about it.
    pub metadata: BTreeMap<String, String>,
}

impl TargetType {
    /// Whether it is for this project.
    #[must_use]
    pub fn is_for(&self, project: &ProjectId) -> bool {
        self.is_public || self.projects.iter().any(|assigned| assigned.project_id == *project)
    }
}
