//! The registry: what is known about targets, kept over a restart and over `kill -9`.
//!
//! A change that was answered is on disk. The rules that must hold whatever clients race for —
//! no two targets in one directory, one name for one type, exactly one default target, which has the
//! one default type — are checked in the same transaction as the change, here and not above, so
//! that a store which several agents share can implement this trait later without a lock of its own.
//!
//! [`sqlite`] is the embedded store.

pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::model::target_type::{TYPE_METADATA_MAX, TYPE_PROJECTS_MAX};
use crate::model::{ProjectId, S3Endpoint, Target, TargetId, TargetType, TargetTypeId, Transition, TypeProject};

pub use sqlite::SqliteRegistry;

/// The most targets that one registry holds: what a node can probe in an interval, with room.
pub const TARGETS_MAX: usize = 10_000;

/// The most target types that one registry holds: the one that every target has, and as many again.
pub const TYPES_MAX: usize = 2 * TARGETS_MAX;

/// The most transitions of one target that are kept: the latest.
pub const TRANSITIONS_MAX: usize = 500;

/// The most assignments to projects that all types of one registry have together. What each may
/// have would add up to more than a node can keep in memory.
pub const ASSIGNMENTS_MAX: usize = 100_000;

/// The most metadata entries that all types of one registry have together, likewise.
pub const TYPE_NOTES_MAX: usize = 100_000;

/// A target with its types, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The target.
    pub target: Target,
    /// Its types; never empty.
    pub types: Vec<TargetType>,
}

/// What to change about a target. `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetChange {
    /// Whether the bucket is declared immutable.
    pub immutable: Option<bool>,
    /// The endpoint with another scheme; host and port are part of the export and stay.
    pub endpoint: Option<S3Endpoint>,
    /// Metadata to set; other keys stay.
    pub metadata: BTreeMap<String, String>,
    /// Whether to remove all metadata before setting `metadata`.
    pub purge_metadata: bool,
    /// Whether it, with one of its types, is to be the default. The default cannot be told not to
    /// be: another one becomes it instead.
    pub is_default: Option<bool>,
}

/// What to change about a target type. `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeChange {
    /// Its name.
    pub name: Option<String>,
    /// What is said of it; an empty text takes away what was said.
    pub description: Option<String>,
    /// Whether every project sees it. A type that becomes public is no project's any more.
    pub is_public: Option<bool>,
    /// Whether it, and its target, are to be the default. The default cannot be told not to be:
    /// another one becomes it instead.
    pub is_default: Option<bool>,
    /// Whether to take it from all its projects before giving it to others. That alone does not
    /// make it public: fewer see it, never more.
    pub purge_projects: bool,
    /// Projects to take it from, if it is theirs.
    pub remove_projects: BTreeSet<ProjectId>,
    /// Projects to give it to, if it is not theirs. A public type becomes theirs alone.
    pub add_projects: Vec<TypeProject>,
    /// Whether to remove all metadata before anything is set.
    pub purge_metadata: bool,
    /// Metadata to remove: of a key, the value that it must have to be removed, or any.
    pub remove_metadata: BTreeMap<String, Option<String>>,
    /// Metadata to set; other keys stay.
    pub set_metadata: BTreeMap<String, String>,
}

/// Why the registry could not be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file exists and is not a registry.
    #[error(
        "registry {path}: {detail}. It was left as it is: restore it from a backup, or move it away to start with an empty registry"
    )]
    NotARegistry {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file was written by a newer agent.
    #[error(
        "registry {path} has schema {found} and this agent knows schemas up to {known}: install the agent version that wrote it, or a later one"
    )]
    NewerSchema {
        /// The database file.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema that this agent knows.
        known: i64,
    },
    /// The file or its directory cannot be opened or written.
    #[error(
        "registry {path} cannot be opened for writing: {detail}. The agent's user needs to write this file and its directory"
    )]
    Unwritable {
        /// The database file.
        path: PathBuf,
        /// What the system says.
        detail: String,
    },
    /// A change could not be made durable: disk full, file gone, input/output error.
    #[error("the registry could not be changed: {0}. Nothing was changed")]
    Storage(String),
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
        "all backup target types together would have {0} metadata entries: {TYPE_NOTES_MAX} is the limit of the registry; remove some first"
    )]
    TooManyNotes(usize),
    /// The registry is full.
    #[error("the registry holds {TYPES_MAX} backup target types, which is its limit: delete one first")]
    TooManyTypes,
}

/// A store of targets. Every method that returns `Ok` has made its change durable.
///
/// # Errors
/// Each method gives [`RegistryError`]: the broken rule, or [`RegistryError::Storage`]; in both
/// cases nothing was changed.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Every target with its types, oldest first.
    async fn load(&self) -> Result<Vec<Entry>, RegistryError>;

    /// Adds a target with its first type. The first target of all becomes the default, and so
    /// does its type, whatever `is_default` says.
    async fn create_target(&self, target: Target, first_type: TargetType) -> Result<Entry, RegistryError>;

    /// Changes a target, all of it or nothing. One that becomes the default does as in
    /// [`Self::set_default_target`]. Returns every entry that changed, that of the target last.
    async fn modify_target(
        &self,
        id: TargetId,
        change: TargetChange,
        now: Timestamp,
    ) -> Result<Vec<Entry>, RegistryError>;

    /// Makes a target, and one of its types, the default, and no other: the type that is the
    /// default already, if it is one of this target's, or else its first that is public, or else
    /// its first. Returns every entry that changed, the new default last.
    async fn set_default_target(&self, id: TargetId, now: Timestamp) -> Result<Vec<Entry>, RegistryError>;

    /// Whether [`Self::delete_target`] would be refused, without deleting: asked before the
    /// target's mount is taken down.
    async fn may_delete_target(&self, id: TargetId) -> Result<(), RegistryError>;

    /// Removes a target and its types.
    async fn delete_target(&self, id: TargetId) -> Result<(), RegistryError>;

    /// Adds a type to a target. One that is the default makes its target the default too. A type
    /// with projects is not public. Returns every entry that changed, that of the type last.
    async fn create_type(&self, new: TargetType) -> Result<Vec<Entry>, RegistryError>;

    /// Changes a target type, all of it or nothing. Returns every entry that changed, that of the
    /// type last.
    async fn modify_type(
        &self,
        id: TargetTypeId,
        change: TypeChange,
        now: Timestamp,
    ) -> Result<Vec<Entry>, RegistryError>;

    /// Removes a target type, unless it is the default or the last of its target. Returns the entry
    /// that it was in.
    async fn delete_type(&self, id: TargetTypeId) -> Result<Entry, RegistryError>;

    /// Adds transitions to the histories of their targets, in this order, and lets the oldest above
    /// [`TRANSITIONS_MAX`] go. Those of a target that is not there any more are not kept.
    async fn add_transitions(&self, transitions: Vec<Transition>) -> Result<(), RegistryError>;

    /// The history of a target, newest first. Not read when nobody waits for it any more.
    async fn transitions(&self, id: TargetId) -> Result<Vec<Transition>, RegistryError>;
}
