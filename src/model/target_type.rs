//! Target types: named ways to use a target, which clients pick by name.

use jiff::Timestamp;
use uuid::Uuid;

use super::TargetId;

/// A target type's id: a version 4 UUID.
pub type TargetTypeId = Uuid;

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
}
