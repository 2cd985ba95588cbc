//! Targets: what the registry keeps about one NFS export or one S3 bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use uuid::Uuid;

use super::{MountName, NfsExport, S3Location};

/// A target's id: a version 4 UUID.
pub type TargetId = Uuid;

/// The kinds of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// An NFS export.
    Nfs,
    /// An S3 bucket.
    S3,
}

impl TargetKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Nfs, Self::S3];

    /// The kind as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nfs => "nfs",
            Self::S3 => "s3",
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A word that is no kind of target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a type of backup target: expected \"nfs\" or \"s3\"")]
pub struct UnknownKind(pub String);

impl FromStr for TargetKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// What a target is: its storage, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// An NFS export.
    Nfs(NfsExport),
    /// An S3 bucket.
    S3 {
        /// Where it is.
        location: S3Location,
        /// Whether it was declared that nobody with these keys can delete its backups.
        immutable: bool,
    },
}

impl TargetSpec {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        match self {
            Self::Nfs(_) => TargetKind::Nfs,
            Self::S3 { .. } => TargetKind::S3,
        }
    }

    /// The export: `host:/path`, or `host[:port]/bucket` without scheme.
    #[must_use]
    pub fn export(&self) -> String {
        match self {
            Self::Nfs(export) => export.to_string(),
            Self::S3 { location, .. } => location.to_string(),
        }
    }

    /// Whether the target was declared immutable.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        matches!(self, Self::S3 { immutable: true, .. })
    }
}

/// A target as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its storage.
    pub spec: TargetSpec,
    /// Its directory below the mount root, fixed at creation: backup images store the path.
    pub mount_name: MountName,
    /// Whether backups go here unless told otherwise. Exactly one target is the default.
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
