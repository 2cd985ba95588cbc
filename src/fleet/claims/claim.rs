//! States of a claim: the right of one node to find a fact of a target for all nodes. Pure functions without etcd and
//! without a clock.
//!
//! | state | event | next state |
//! |---|---|---|
//! | watching | the claim exists | watching, from the first look |
//! | watching | the claim is free, and it is this node's turn | asking |
//! | watching | the claim is free, and it is not this node's turn yet | watching, one look later |
//! | asking | etcd created the claim | held |
//! | asking | etcd refused it, because it exists or the target does not | watching, from the first look |
//! | asking | no answer | watching. The next look shows whether the claim was made |
//! | watching or held | the claim exists with the lease and the name of this node | held, at its revision |
//! | held | the claim is free, or belongs to another node | watching, from the first look |
//! | held | no answer | held: the holder continues |
//! | held | this node does not reach the target | sitting out |
//! | sitting out | the time has passed | watching, from the first look |
//!
//! **Whose turn it is** needs no list of nodes. A hash of the key of the fact and the node puts the nodes in an order
//! (rendezvous hashing). A node knows its part of the order, such as the first 0.2 %, and the number of nodes. With the
//! first look at a free claim the first three nodes ask for it, then the first 24, 192 and so on. So a node that dies
//! is replaced soon, even if most nodes do not reach the target.
//!
//! Two nodes may both believe for some seconds that they hold a claim. That costs a few requests: a fact is written
//! only if the claim still has the revision of the writer.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::driver::FactKey;
use crate::etcd::{EtcdRevision, KeyValue, LeaseId};

/// Number of nodes that ask at the first look.
const FIRST_ASKING: f64 = 3.0;

/// Factor by which more nodes ask at each further look.
const MORE_ASKING: f64 = 8.0;

/// Time for which a node that did not reach a target does not ask for its claims.
pub(crate) const SIT_OUT: Duration = Duration::from_secs(300);

/// Returns the part of all nodes that come before this one, from 0 to 1.
pub(crate) fn rank(key: &FactKey, node: &str) -> f64 {
    let mut hash = Sha256::new();
    hash.update(key.target.as_bytes());
    for part in [key.kind.as_str(), &*key.subject, node] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// State of one claim.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Claim {
    /// Another node holds it, or it is free for this number of looks.
    Watching { free_looks: i32 },
    /// This node holds it since this revision.
    Held(EtcdRevision),
    /// This node does not reach the target.
    SittingOut { until: Instant },
}

impl Default for Claim {
    fn default() -> Self {
        Self::Watching { free_looks: 0 }
    }
}

/// This node and the fleet, for one look at a claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// Name of this node.
    pub(crate) node: &'a str,
    /// The lease of this node, if it is held.
    pub(crate) lease: Option<LeaseId>,
    /// Part of all nodes that come before this one.
    pub(crate) rank: f64,
    /// Number of nodes.
    pub(crate) nodes: u64,
    /// Whether this node reaches the target and needs the fact.
    pub(crate) is_wanted: bool,
    /// Time of the look.
    pub(crate) now: Instant,
}

/// What to do about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimAction {
    /// Nothing.
    None,
    /// Ask for it with this lease.
    Ask(LeaseId),
    /// Give it back, if it still has this revision.
    GiveBack(EtcdRevision),
}

impl Claim {
    /// The claim as etcd has it. Returns what to do.
    pub(crate) fn look(&mut self, found: Option<&KeyValue>, look: Look<'_>) -> ClaimAction {
        if let Self::SittingOut { until } = self
            && look.now >= *until
        {
            *self = Self::default();
        }
        let is_own = |found: &&KeyValue| {
            found.value == look.node.as_bytes() && found.lease.is_some() && found.lease == look.lease
        };
        match (found.filter(is_own), found) {
            (Some(own), _) if !look.is_wanted => {
                *self = Self::SittingOut { until: look.now + SIT_OUT };
                ClaimAction::GiveBack(own.create_revision)
            }
            // It was made by a transaction whose answer was lost, perhaps before this node sat out.
            (Some(own), _) => {
                *self = Self::Held(own.create_revision);
                ClaimAction::None
            }
            (None, Some(_)) => {
                if !matches!(self, Self::SittingOut { .. }) {
                    *self = Self::default();
                }
                ClaimAction::None
            }
            (None, None) => match *self {
                Self::SittingOut { .. } => ClaimAction::None,
                _ if !look.is_wanted => {
                    *self = Self::default();
                    ClaimAction::None
                }
                Self::Watching { free_looks } => {
                    *self = Self::Watching { free_looks: free_looks.saturating_add(1).min(30) };
                    self.ask(free_looks, look)
                }
                // The lease of this node ended. Its rank is as good as before.
                Self::Held(_) => {
                    *self = Self::Watching { free_looks: 1 };
                    self.ask(0, look)
                }
            },
        }
    }

    fn ask(&self, free_looks: i32, look: Look<'_>) -> ClaimAction {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let before = look.rank * look.nodes as f64;
        match look.lease {
            Some(lease) if before < FIRST_ASKING * MORE_ASKING.powi(free_looks) => ClaimAction::Ask(lease),
            _ => ClaimAction::None,
        }
    }

    /// etcd created the claim at this revision, or refused it because it exists or the target does not.
    pub(crate) fn answered(&mut self, created: Option<EtcdRevision>) {
        *self = created.map_or_else(Self::default, Self::Held);
    }

    /// Returns the revision of the claim if this node holds it.
    pub(crate) fn held(&self) -> Option<EtcdRevision> {
        match self {
            Self::Held(revision) => Some(*revision),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::driver::FactKind;

    const LEASE: LeaseId = LeaseId(1);

    fn look(rank: f64, nodes: u64) -> Look<'static> {
        Look { node: "a", lease: Some(LEASE), rank, nodes, is_wanted: true, now: Instant::now() }
    }

    fn claim_of(node: &'static str, lease: LeaseId, revision: u64) -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(node.as_bytes()),
            create_revision: EtcdRevision(revision),
            mod_revision: EtcdRevision(revision),
            lease: Some(lease),
        }
    }

    #[test]
    fn few_nodes_ask_first_and_all_of_them_later() {
        for (nodes, first, second) in [(3, 3, 3), (1_000, 3, 24), (10_000, 3, 24)] {
            let asking = |looks: i32| {
                let asks = |number: &u64| {
                    #[allow(clippy::cast_precision_loss)]
                    let rank = (*number as f64 + 0.5) / nodes as f64;
                    let mut claim = Claim::default();
                    (0..looks).for_each(|_| _ = claim.look(None, look(rank, nodes)));
                    matches!(claim.look(None, look(rank, nodes)), ClaimAction::Ask(_))
                };
                (0..nodes).filter(asks).count()
            };
            assert_eq!((asking(0), asking(1)), (first, second), "{nodes}");
            assert_eq!(asking(4) as u64, nodes);
        }
    }

    #[test]
    fn order_of_nodes_differs_by_target_and_fact() {
        let first = |target: u128, kind| {
            let nodes: Vec<String> = (0..100).map(|number| format!("compute-{number}")).collect();
            let key = FactKey { target: Uuid::from_u128(target), kind, subject: String::new() };
            let rank = |node: &String| rank(&key, node);
            nodes.iter().min_by(|a, b| rank(a).total_cmp(&rank(b))).cloned()
        };
        let kinds = [FactKind::LockProof, FactKind::UsageListing];
        let firsts: std::collections::BTreeSet<_> =
            (0..20).flat_map(|target| kinds.map(|kind| first(target, kind))).collect();
        assert!(firsts.len() > 25, "{firsts:?}");
    }

    #[test]
    fn holder_is_found_by_lease_and_name() {
        for (found, is_own) in
            [(claim_of("a", LEASE, 7), true), (claim_of("a", LeaseId(2), 7), false), (claim_of("b", LEASE, 7), false)]
        {
            let mut claim = Claim::default();
            assert_eq!(claim.look(Some(&found), look(0.0, 1)), ClaimAction::None);
            assert_eq!(claim.held(), is_own.then_some(EtcdRevision(7)), "{found:?}");
        }
    }

    #[test]
    fn holder_gives_back_what_it_does_not_reach_and_sits_out() {
        let mut claim = Claim::Held(EtcdRevision(7));
        let (own, start) = (claim_of("a", LEASE, 7), Instant::now());
        let at = |seconds, is_wanted| Look { is_wanted, now: start + Duration::from_secs(seconds), ..look(0.0, 1) };
        assert_eq!(claim.look(Some(&own), at(0, false)), ClaimAction::GiveBack(EtcdRevision(7)));
        assert_eq!(claim.look(None, at(299, true)), ClaimAction::None);
        assert_eq!(claim.look(None, at(300, true)), ClaimAction::Ask(LEASE));
        claim.answered(Some(EtcdRevision(9)));
        assert_eq!(claim.held(), Some(EtcdRevision(9)));
        assert_eq!(claim.look(Some(&claim_of("b", LeaseId(2), 11)), at(320, true)), ClaimAction::None);
        assert_eq!(claim.held(), None);
    }

    #[test]
    fn holder_whose_claim_has_ended_asks_again() {
        let mut claim = Claim::Held(EtcdRevision(7));
        assert_eq!((claim.look(None, look(0.0, 1)), claim.held()), (ClaimAction::Ask(LEASE), None));
    }

    #[test]
    fn nothing_is_asked_without_a_lease_or_a_need() {
        for (lease, is_wanted) in [(None, true), (Some(LEASE), false)] {
            let mut claim = Claim::default();
            assert_eq!(claim.look(None, Look { lease, is_wanted, ..look(0.0, 1) }), ClaimAction::None);
        }
    }
}
