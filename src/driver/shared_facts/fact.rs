//! What a fact is about, and what a node found.

use jiff::Timestamp;

use crate::model::TargetId;

/// A kind of fact that nodes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKind {
    /// The proof of an object lock.
    LockProof,
    /// The usage of a bucket that was counted by a listing.
    UsageListing,
    /// Whether a bucket is available, according to the node that watches it.
    Bucket,
}

impl FactKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::LockProof, Self::UsageListing, Self::Bucket];

    /// Returns its name in keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LockProof => "lock_proof",
            Self::UsageListing => "usage_listing",
            Self::Bucket => "bucket",
        }
    }
}

/// Which fact: nodes that have the same key share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactKey {
    /// The target.
    pub target: TargetId,
    /// The kind of fact.
    pub kind: FactKind,
    /// What must be equal on all nodes: a digest of the access key and of the configuration for which it is valid.
    pub subject: String,
}

/// A fact that a node found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFact {
    /// Name of the node. Empty while only this one knows the fact.
    pub node: String,
    /// When it was found, by the clock of that node.
    pub observed_at: Timestamp,
    /// The value, as JSON.
    pub value: String,
}
