//! Results of lock proofs.

use jiff::Timestamp;

named! {
    /// How strictly a version is locked.
    LockMode {
        /// A user with a special permission can end the lock early.
        Governance => "GOVERNANCE",
        /// Nobody can delete the version before its retention ends.
        Compliance => "COMPLIANCE",
    }
}

named! {
    /// Verdict of a lock proof, for a bucket and the agent's credentials.
    LockVerdict {
        /// A locked object could not be deleted before its retention ended, and could afterwards.
        Enforced => "enforced",
        /// A locked object could be deleted early with the bypass of governance.
        Bypassable => "bypassable",
        /// A locked object could be deleted early.
        NotEnforced => "not_enforced",
        /// The proof cannot be completed. Its explanation says why.
        Unverifiable => "unverifiable",
    }
}

/// Result of the latest proof of a bucket's object lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockProof {
    /// The verdict.
    pub verdict: LockVerdict,
    /// Explanation of the verdict.
    pub why: String,
    /// When the proof ended.
    pub proved_at: Timestamp,
}

/// State of the proof of a bucket's object lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LockProofState {
    /// No proof is required. Only the configuration is known.
    #[default]
    NotAsked,
    /// No verdict is in force yet.
    Pending,
    /// A verdict is in force.
    Found(LockProof),
}
