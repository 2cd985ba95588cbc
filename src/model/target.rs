//! Targets: the data that the registry stores about an NFS export or an S3 bucket.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::line::{LINE_MAX_CHARS, line_problem};
use super::mount_name::MountName;
use super::node_scope::NodeScope;
use super::target_spec::TargetSpec;

/// A target's id: a version 4 UUID.
pub type TargetId = Uuid;

/// A target as the registry stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Id of the target.
    pub id: TargetId,
    /// Storage of the target.
    pub spec: TargetSpec,
    /// Its directory below the mount root, fixed at creation: backup images store the path.
    pub mount_name: MountName,
    /// Whether backups that name no target use this one. At most one target is the default.
    pub is_default: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The version of the agent that created it.
    pub version: String,
    /// Metadata of the target.
    pub metadata: BTreeMap<String, String>,
    /// The nodes on which it is expected. `None`: all nodes.
    pub scope: Option<NodeScope>,
}

/// Metadata keys that the agent sets itself, so a client cannot set them.
pub const RESERVED_METADATA_KEYS: &[&str] = &["bucket", "immutable", "object_lock", "object_lock_verdict"];

/// Largest number of metadata entries of one target.
pub const METADATA_MAX: usize = 64;

/// Largest length of a metadata value, in characters.
pub const METADATA_VALUE_MAX_CHARS: usize = 4096;

/// Returns the problem of metadata that a client gives to a target, if there is one.
#[must_use]
pub fn metadata_problem(metadata: &BTreeMap<String, String>) -> Option<String> {
    if metadata.len() > METADATA_MAX {
        return Some(format!("{} keys, {METADATA_MAX} is the limit", metadata.len()));
    }
    metadata.iter().find_map(|(key, value)| {
        if RESERVED_METADATA_KEYS.contains(&key.as_str()) {
            return Some(format!("key {key:?} is set by the agent itself, leave it out"));
        }
        let key_problem = line_problem(key, LINE_MAX_CHARS).map(|problem| format!("key {problem}"));
        key_problem.or_else(|| {
            line_problem(value, METADATA_VALUE_MAX_CHARS).map(|problem| format!("value of {key:?} {problem}"))
        })
    })
}
