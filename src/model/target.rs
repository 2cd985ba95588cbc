//! Target: one NFS export or one S3 bucket, as the registry keeps it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::{MountName, TargetSpec};

/// A target's id: a version 4 UUID.
pub type TargetId = Uuid;

/// A target as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its storage.
    pub spec: TargetSpec,
    /// Its directory below the mount root, fixed at creation: backup images store the path.
    pub mount_name: MountName,
    /// Whether it is the target of backups that name none. Exactly one target is the default.
    pub is_default: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The version of the agent that created it.
    pub version: String,
    /// What its creator noted about it.
    pub metadata: BTreeMap<String, String>,
}

/// The metadata keys that the agent itself answers for, and that a client therefore cannot set.
pub const RESERVED_METADATA_KEYS: &[&str] = &["bucket", "immutable", "object_lock", "object_lock_verdict"];
