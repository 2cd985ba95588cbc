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

named! {
    /// What is known about an object lock whose proof is required.
    ProofVerdict {
        /// No verdict is in force yet.
        Pending => "pending",
        /// See [`LockVerdict::Enforced`].
        Enforced => LockVerdict::Enforced.as_str(),
        /// See [`LockVerdict::Bypassable`].
        Bypassable => LockVerdict::Bypassable.as_str(),
        /// See [`LockVerdict::NotEnforced`].
        NotEnforced => LockVerdict::NotEnforced.as_str(),
        /// See [`LockVerdict::Unverifiable`].
        Unverifiable => LockVerdict::Unverifiable.as_str(),
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
    /// The node of the fleet that proved it. `None`: this one.
    pub node: Option<String>,
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

impl LockProofState {
    /// The verdict. `None` if no proof is required.
    #[must_use]
    pub fn verdict(&self) -> Option<ProofVerdict> {
        Some(match self {
            Self::NotAsked => return None,
            Self::Pending => ProofVerdict::Pending,
            Self::Found(proof) => match proof.verdict {
                LockVerdict::Enforced => ProofVerdict::Enforced,
                LockVerdict::Bypassable => ProofVerdict::Bypassable,
                LockVerdict::NotEnforced => ProofVerdict::NotEnforced,
                LockVerdict::Unverifiable => ProofVerdict::Unverifiable,
            },
        })
    }

    /// The proof whose verdict is in force.
    #[must_use]
    pub fn found(&self) -> Option<&LockProof> {
        match self {
            Self::Found(proof) => Some(proof),
            Self::NotAsked | Self::Pending => None,
        }
    }
}
