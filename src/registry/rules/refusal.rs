//! Refusals: which rule forbids a change, and what to do instead.

use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::model::{TargetId, TargetTypeId};
use crate::registry::limits::{ASSIGNMENTS_MAX, TARGETS_MAX, TYPE_METADATA_TOTAL_MAX, TYPES_MAX};

/// The rule that forbids a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No target of that id.
    #[error("there is no backup target {0}")]
    TargetNotFound(TargetId),
    /// Two targets cannot be mounted in one directory.
    #[error(
        "filesystem_export {export:?} would be mounted at {mount_name}, which backup target {other_id} ({other_export}) already uses: two exports with the same path cannot both be targets of one node; delete that target first"
    )]
    MountPathTaken {
        /// The refused export.
        export: String,
        /// Its directory below the mount root.
        mount_name: String,
        /// The target that is there.
        other_id: TargetId,
        /// That target's export.
        other_export: String,
    },
    /// Target type names are unique.
    #[error("{field} {name:?} is already the name of a backup target type: choose another")]
    TypeNameTaken {
        /// What the client called it.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// There is exactly one default.
    #[error(
        "is_default: backup target {other_id} ({other_export}) is already the default: create this one without is_default, then GET /backup_targets/<id>/set_default to switch"
    )]
    DefaultTaken {
        /// The default target.
        other_id: TargetId,
        /// Its export.
        other_export: String,
    },
    /// The default target stays it until another one becomes it.
    #[error(
        "is_default: backup target {0} is the default, and there is always one: make another one the default instead (GET /backup_targets/<id>/set_default)"
    )]
    DefaultStays(TargetId),
    /// The default target cannot go while others exist.
    #[error(
        "backup target {0} is the default and others exist: make another one the default first (GET /backup_targets/<id>/set_default)"
    )]
    DefaultInUse(TargetId),
    /// The registry is full.
    #[error("the registry holds {TARGETS_MAX} backup targets, which is its limit: delete one first")]
    TooManyTargets,
    /// A field that this kind of target does not have.
    #[error("{field} cannot be set on backup target {id}, which is not an s3 target")]
    NotS3 {
        /// The target.
        id: TargetId,
        /// The field.
        field: &'static str,
    },
    /// The export of a target is fixed.
    #[error(
        "s3_endpoint_url {given:?} is another export than that of backup target {id} ({export}): an export cannot be changed; create a new target"
    )]
    ExportFixed {
        /// The target.
        id: TargetId,
        /// What was asked for.
        given: String,
        /// The target's export.
        export: String,
    },
    /// No target type of that id.
    #[error("there is no backup target type {0}")]
    TypeNotFound(TargetTypeId),
    /// The last type of a target cannot go.
    #[error(
        "backup target type {id} ({name}) is the only one of backup target {target_id}, which would be of no use without one: create another first, or delete the backup target itself"
    )]
    LastType {
        /// The type.
        id: TargetTypeId,
        /// Its name.
        name: String,
        /// Its target.
        target_id: TargetId,
    },
    /// The default type cannot go.
    #[error(
        "backup target type {id} ({name}) is the default: make another one the default first (PUT /backup_target_types/<id> with is_default 1)"
    )]
    DefaultTypeInUse {
        /// The type.
        id: TargetTypeId,
        /// Its name.
        name: String,
    },
    /// The default type stays it until another one becomes it.
    #[error(
        "is_default: backup target type {id} ({name}) is the default, and there is always one: make another one the default instead (PUT /backup_target_types/<id> with is_default 1)"
    )]
    DefaultTypeStays {
        /// The type.
        id: TargetTypeId,
        /// Its name.
        name: String,
    },
    /// A type is public or some projects', never both.
    #[error(
        "is_public and project_list contradict each other: a public backup target type is every project's; leave one of them out"
    )]
    PublicWithProjects,
    /// The type has enough projects.
    #[error("the backup target type would have {0} projects: {TYPE_PROJECTS_MAX} is the limit")]
    TooManyProjects(usize),
    /// The type has enough metadata.
    #[error("the backup target type would have {0} metadata entries: {TYPE_METADATA_MAX} is the limit")]
    TooMuchMetadata(usize),
    /// All types together have enough projects.
    #[error(
        "all backup target types together would have {0} projects: {ASSIGNMENTS_MAX} is the limit of the registry; remove some first"
    )]
    TooManyAssignments(usize),
    /// All types together have enough metadata.
    #[error(
        "all backup target types together would have {0} metadata entries: {TYPE_METADATA_TOTAL_MAX} is the limit of the registry; remove some first"
    )]
    TooMuchMetadataInTotal(usize),
    /// The registry is full.
    #[error("the registry holds {TYPES_MAX} backup target types, which is its limit: delete one first")]
    TooManyTypes,
}
