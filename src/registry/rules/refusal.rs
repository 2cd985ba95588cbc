//! Refusals: the rule that forbids a change, and what the client can do.

use crate::model::target::METADATA_MAX;
use crate::model::target_spec::SpecError;
use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::model::{TargetId, TargetTypeId};
use crate::registry::limits::{
    ASSIGNMENTS_MAX, TARGET_METADATA_MAX_BYTES, TARGET_METADATA_TOTAL_MAX_BYTES, TARGETS_MAX, TYPE_METADATA_TOTAL_MAX,
    TYPES_MAX,
};

/// The rule that forbids a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No target has this id.
    #[error("there is no backup target {0}")]
    TargetNotFound(TargetId),
    /// Another target has the same mount directory, or one that contains it or is inside it.
    #[error(
        "filesystem_export {export:?} would be mounted at {mount_name}, which backup target {other_id} ({other_export}) already uses: one node cannot have two targets with the same exported path. Delete that target first"
    )]
    MountPathTaken {
        /// The refused export.
        export: String,
        /// Its directory below the mount root.
        mount_name: String,
        /// The target that has it.
        other_id: TargetId,
        /// That target's export.
        other_export: String,
    },
    /// Another target is the same storage in another spelling.
    #[error(
        "filesystem_export {export:?} is the storage of backup target {other_id} ({other_export}) in another spelling: use that target, or delete it first"
    )]
    StorageTaken {
        /// The refused export.
        export: String,
        /// The target that has the storage.
        other_id: TargetId,
        /// That target's export.
        other_export: String,
    },
    /// Another target type has this name.
    #[error("{field} {name:?} is already the name of a backup target type: choose another")]
    TypeNameTaken {
        /// The request field that contained the name.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// The default target stays the default until another target becomes the default.
    #[error(
        "is_default: backup target {0} is the default, and one target must be: make another one the default instead (GET /backup_targets/<id>/set_default)"
    )]
    DefaultStays(TargetId),
    /// The default target cannot be deleted while others exist.
    #[error(
        "backup target {0} is the default and other targets exist: make another one the default first (GET /backup_targets/<id>/set_default)"
    )]
    DefaultInUse(TargetId),
    /// The target would have more than [`METADATA_MAX`] metadata entries.
    #[error(
        "the backup target would have {0} metadata entries: {METADATA_MAX} is the limit. Remove some with purge_metadata"
    )]
    TooManyTargetEntries(usize),
    /// The target would have more than [`TARGET_METADATA_MAX_BYTES`] of metadata.
    #[error(
        "the backup target would have {0} bytes of metadata, mount options, secret reference and scope: {TARGET_METADATA_MAX_BYTES} is the limit. Send less, or remove some with purge_metadata"
    )]
    TargetMetadataTooLarge(usize),
    /// All targets together would have more than [`TARGET_METADATA_TOTAL_MAX_BYTES`] of metadata.
    #[error(
        "all backup targets together would have {0} bytes of metadata, mount options, secret references and scopes: {TARGET_METADATA_TOTAL_MAX_BYTES} is the limit of the registry. Remove some first"
    )]
    TargetMetadataTooLargeInTotal(usize),
    /// The registry has [`TARGETS_MAX`] targets.
    #[error("the registry contains {TARGETS_MAX} backup targets, which is its limit: delete one first")]
    TooManyTargets,
    /// A field of the target is fixed, malformed, not a field of this kind, or not allowed in a new target.
    #[error(transparent)]
    InvalidFields(#[from] SpecError),
    /// The scope contains no node, or a name that no node can have.
    #[error("scope: {0}")]
    InvalidScope(String),
    /// No target type has this id.
    #[error("there is no backup target type {0}")]
    TypeNotFound(TargetTypeId),
    /// The last type of a target cannot be deleted.
    #[error(
        "backup target type {id} ({name}) is the only type of backup target {target_id}, and every target needs one: create another first, or delete the backup target itself"
    )]
    LastType {
        /// Id of the type.
        id: TargetTypeId,
        /// Name of the type.
        name: String,
        /// Id of the only target of the type.
        target_id: TargetId,
    },
    /// The default type cannot be deleted.
    #[error(
        "backup target type {id} ({name}) is the default: make another one the default first (PUT /backup_target_types/<id> with is_default 1)"
    )]
    DefaultTypeInUse {
        /// Id of the type.
        id: TargetTypeId,
        /// Name of the type.
        name: String,
    },
    /// The default type stays the default until another type becomes the default.
    #[error(
        "is_default: backup target type {id} ({name}) is the default, and exactly one type must be: make another one the default instead (PUT /backup_target_types/<id> with is_default 1)"
    )]
    DefaultTypeStays {
        /// Id of the type.
        id: TargetTypeId,
        /// Name of the type.
        name: String,
    },
    /// A type is public or assigned to projects, never both.
    #[error(
        "is_public and project_list contradict each other: every project sees a public backup target type. Omit one of them"
    )]
    PublicWithProjects,
    /// The type would have more than [`TYPE_PROJECTS_MAX`] projects.
    #[error("the backup target type would have {0} projects: {TYPE_PROJECTS_MAX} is the limit")]
    TooManyProjects(usize),
    /// The type would have more than [`TYPE_METADATA_MAX`] metadata entries.
    #[error("the backup target type would have {0} metadata entries: {TYPE_METADATA_MAX} is the limit")]
    TooMuchMetadata(usize),
    /// All types together would have more than [`ASSIGNMENTS_MAX`] projects.
    #[error(
        "all backup target types together would have {0} projects: {ASSIGNMENTS_MAX} is the limit of the registry. Remove some first"
    )]
    TooManyAssignments(usize),
    /// All types together would have more than [`TYPE_METADATA_TOTAL_MAX`] metadata entries.
    #[error(
        "all backup target types together would have {0} metadata entries: {TYPE_METADATA_TOTAL_MAX} is the limit of the registry. Remove some first"
    )]
    TooMuchMetadataInTotal(usize),
    /// The registry has [`TYPES_MAX`] types.
    #[error("the registry contains {TYPES_MAX} backup target types, which is its limit: delete one first")]
    TooManyTypes,
}
