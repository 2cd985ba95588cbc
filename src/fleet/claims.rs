//! Claims: one node finds each fact of a target for all nodes.
//!
//! A claim is the key `claims/<target>/<fact>` with the lease of its holder ([`claim`] has its states). The holder
//! finds the fact and writes it to `facts/<target>/<fact>`, in a transaction that compares the revision of the claim.
//! So a holder that has lost its claim without noticing writes nothing. The other nodes read the fact from there.
//!
//! Only targets of the registry have claims, and the registry deletes claims and facts with the target. So a fact never
//! outlives its target. A node that has not joined the registry finds the facts of its own targets itself.
//!
//! Drivers exchange facts with this task through the [`FactBoard`], in memory, so no probe waits for etcd. Each look at
//! the keys is one transaction that only reads. A holder looks three times in a time to live, and may have to give a
//! claim back. The others look once, which is most of what the facts cost etcd. A node that needs no facts sends nothing.
//!
//! Without an answer of etcd, a holder continues. The other nodes use the facts that they have, and each finds its own
//! at a random time before these are too old. A node that has just started and never had an answer does so at once.

mod claim;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::driver::{FactBoard, FactKind, FactRole, SharedFact};
use crate::etcd::{
    Compare, EtcdError, EtcdRevision, KeyValue, KeyValueStore, LeaseId, RangeRequest, Txn, TxnOperation, TxnResult,
    shortest_interval,
};
use crate::model::{TargetId, random_fraction};
use claim::{Claim, ClaimAction, Look, SIT_OUT, rank};

use super::presence::{HeldLease, backoff};

/// Longest time between two looks while a driver waits for a fact, unless so many nodes need a longer one.
const AWAITED_INTERVAL: Duration = Duration::from_secs(5);

/// Mean time between two looks of a holder and of another node, as parts of the time to live. The longest one is less
/// than a time to live, so that a claim is taken over within one after its end.
const HOLDER_LOOK_PART: f64 = 1.0 / 3.0;
const OTHER_LOOK_PART: f64 = 0.75;

/// Shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Number of times to live without an answer after which a node is alone.
const ALONE_AFTER_TTLS: u32 = 3;

/// Time after the start without an answer after which a node is alone.
const ALONE_AFTER_START: Duration = Duration::from_secs(10);

/// Number of facts in one transaction. Each is two operations, and etcd allows 128.
const FACTS_IN_TXN: usize = 60;

/// Largest value of a fact that is accepted, in bytes.
const FACT_MAX: usize = 16 * 1024;

/// Value of `facts/<target>/<fact>`.
#[derive(Debug, Serialize, Deserialize)]
struct StoredFact {
    node: String,
    observed_at: Timestamp,
    subject: String,
    /// Revision of the claim of the writer.
    claim_revision: u64,
    value: String,
}

/// The task that exchanges facts. It ends when it is dropped.
#[derive(Debug)]
pub struct Claims(JoinHandle<()>);

impl Claims {
    /// Starts to exchange the facts of `board` with the other nodes, below the keys that begin with `prefix`. `node` is
    /// the name of this node.
    #[must_use]
    pub fn start(
        store: Arc<dyn KeyValueStore>,
        prefix: impl Into<String>,
        node: impl Into<String>,
        lease: HeldLease,
        board: Arc<FactBoard>,
    ) -> Self {
        let exchange = Exchange {
            store,
            prefix: prefix.into(),
            node: node.into(),
            lease,
            board,
            facts: HashMap::new(),
            answered_at: None,
            failures: 0,
            started_at: Instant::now(),
        };
        Self(tokio::spawn(exchange.run()))
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type FactId = (TargetId, FactKind);

#[derive(Debug, Default)]
struct KnownFact {
    claim: Claim,
    /// Revision of the fact that the board has.
    revision: EtcdRevision,
    /// Whether a claim was refused because the registry does not have the target.
    is_unregistered: bool,
}

/// Answer to a request for a claim.
struct ClaimAnswer {
    /// Its revision. `None` if it was refused.
    revision: Option<EtcdRevision>,
    /// Whether the registry does not have the target.
    is_unregistered: bool,
}

struct Exchange {
    store: Arc<dyn KeyValueStore>,
    prefix: String,
    node: String,
    lease: HeldLease,
    board: Arc<FactBoard>,
    facts: HashMap<FactId, KnownFact>,
    answered_at: Option<Instant>,
    /// Looks in a row without an answer.
    failures: u32,
    started_at: Instant,
}

impl Exchange {
    async fn run(mut self) {
        let mut not_before = Instant::now();
        loop {
            if Instant::now() >= not_before {
                self.look_at_all().await;
                if self.failures > 0 {
                    not_before = Instant::now() + backoff(self.failures, random_fraction());
                }
            }
            self.set_roles();
            let interval = self.lease.ttl().mul_f64(self.look_part() * (0.8 + 0.4 * random_fraction()));
            // A whole fleet may wait for the same fact.
            let awaited = AWAITED_INTERVAL.max(shortest_interval(self.lease.nodes()));
            let interval = if self.board.is_awaited() { interval.min(awaited) } else { interval };
            sleep(INTERVAL_MIN).await;
            drop(timeout(interval.saturating_sub(INTERVAL_MIN), self.board.changed()).await);
        }
    }

    /// Returns the mean time between two looks, as a part of the time to live.
    fn look_part(&self) -> f64 {
        let is_holder = self.facts.values().any(|known| known.claim.held().is_some());
        if is_holder { HOLDER_LOOK_PART } else { OTHER_LOOK_PART }
    }

    async fn look_at_all(&mut self) {
        let asked = self.board.asked_for(SIT_OUT);
        self.facts.retain(|id, _| asked.iter().any(|(target, kind, _)| *id == (*target, *kind)));
        for some in asked.chunks(FACTS_IN_TXN) {
            match self.look_at(some).await {
                Ok(()) => (self.answered_at, self.failures) = (Some(Instant::now()), 0),
                Err(error) => {
                    tracing::debug!(%error, "the facts of other nodes were not read");
                    self.failures = self.failures.saturating_add(1);
                    return;
                }
            }
        }
    }

    fn set_roles(&self) {
        let is_alone = match self.answered_at {
            Some(at) => at.elapsed() > self.lease.ttl() * ALONE_AFTER_TTLS,
            None => self.started_at.elapsed() > ALONE_AFTER_START,
        };
        for ((target, kind), known) in &self.facts {
            let role = match known.claim.held() {
                Some(_) => FactRole::Holder,
                None if is_alone || known.is_unregistered => FactRole::Alone,
                None => FactRole::Other,
            };
            self.board.set_role(*target, *kind, role);
        }
    }

    fn key(&self, folder: &str, (target, kind): FactId) -> String {
        format!("{}{folder}/{target}/{}", self.prefix, kind.as_str())
    }

    /// Reads claims and facts in one transaction, and acts on them.
    async fn look_at(&mut self, asked: &[(TargetId, FactKind, bool)]) -> Result<(), EtcdError> {
        for (target, kind, _) in asked {
            self.facts.entry((*target, *kind)).or_default();
        }
        let reads = asked.iter().flat_map(|(target, kind, _)| {
            let id = (*target, *kind);
            [self.key("claims", id), self.key("facts", id)].map(TxnOperation::get)
        });
        let txn = Txn { success: reads.collect(), ..Txn::default() };
        let mut found = self.store.commit(&txn).await?.results.into_iter().map(|result| match result {
            TxnResult::Range(entries) => entries.into_iter().next(),
            _ => None,
        });
        for (target, kind, is_wanted) in asked {
            let id = (*target, *kind);
            let (claim, fact) = (found.next().flatten(), found.next().flatten());
            self.receive(id, fact.as_ref());
            self.act(id, claim.as_ref(), *is_wanted).await?;
            self.share(id).await?;
        }
        Ok(())
    }

    /// Passes a fact of another node to the board.
    fn receive(&mut self, id: FactId, found: Option<&KeyValue>) {
        let (Some(found), Some(known)) = (found, self.facts.get_mut(&id)) else { return };
        if known.revision == found.mod_revision || found.value.len() > FACT_MAX {
            return;
        }
        known.revision = found.mod_revision;
        match serde_json::from_slice(&found.value) {
            Ok(StoredFact { node, observed_at, subject, value, .. }) => {
                self.board.receive(id.0, id.1, SharedFact { node, observed_at, subject, value });
            }
            Err(error) => {
                tracing::warn!(target_id = %id.0, fact = id.1.as_str(), %error, "a fact of another node is not valid, and not used")
            }
        }
    }

    async fn act(&mut self, id: FactId, found: Option<&KeyValue>, is_wanted: bool) -> Result<(), EtcdError> {
        let look = Look {
            node: &self.node,
            lease: self.lease.held(),
            rank: rank(id.0, id.1, &self.node),
            nodes: self.lease.nodes(),
            is_wanted,
            now: Instant::now(),
        };
        let Some(known) = self.facts.get_mut(&id) else { return Ok(()) };
        let action = known.claim.look(found, look);
        match action {
            ClaimAction::None => {}
            ClaimAction::Ask(lease) => {
                let answer = self.ask(id, lease).await?;
                if let Some(known) = self.facts.get_mut(&id) {
                    known.claim.answered(answer.revision);
                    known.is_unregistered = answer.is_unregistered;
                }
            }
            ClaimAction::GiveBack(revision) => {
                let key = self.key("claims", id);
                let txn = Txn {
                    compares: vec![Compare::created_at(key.clone(), revision)],
                    success: vec![TxnOperation::delete(key)],
                    ..Txn::default()
                };
                self.store.commit(&txn).await?;
            }
        }
        Ok(())
    }

    /// Asks for a claim.
    async fn ask(&self, id: FactId, lease: LeaseId) -> Result<ClaimAnswer, EtcdError> {
        let (key, target) = (self.key("claims", id), format!("{}registry/targets/{}", self.prefix, id.0));
        let txn = Txn {
            compares: vec![Compare::absent(key.clone()), Compare::exists(target.clone())],
            success: vec![TxnOperation::put_leased(key, self.node.clone(), lease)],
            failure: vec![TxnOperation::Range(RangeRequest::key(target).keys_only())],
        };
        let answer = self.store.commit(&txn).await?;
        let is_unregistered = matches!(&answer.results[..], [TxnResult::Range(found)] if found.is_empty());
        Ok(ClaimAnswer { revision: answer.succeeded.then_some(answer.header.revision), is_unregistered })
    }

    /// Writes the fact that this node found, if it still holds the claim.
    async fn share(&mut self, id: FactId) -> Result<(), EtcdError> {
        let Some(revision) = self.facts.get(&id).and_then(|known| known.claim.held()) else { return Ok(()) };
        let Some(fact) = self.board.found(id.0, id.1) else { return Ok(()) };
        let SharedFact { observed_at, subject, value, .. } = fact.clone();
        let stored = StoredFact { node: self.node.clone(), observed_at, subject, claim_revision: revision.0, value };
        // A structure of texts and numbers can always be encoded.
        let encoded = serde_json::to_vec(&stored).unwrap_or_default();
        let txn = Txn {
            compares: vec![Compare::created_at(self.key("claims", id), revision)],
            success: vec![TxnOperation::put(self.key("facts", id), encoded)],
            ..Txn::default()
        };
        let answer = self.store.commit(&txn).await?;
        let Some(known) = self.facts.get_mut(&id) else { return Ok(()) };
        if answer.succeeded {
            known.revision = answer.header.revision;
            self.board.receive(id.0, id.1, SharedFact { node: self.node.clone(), ..fact });
        } else {
            known.claim = Claim::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
