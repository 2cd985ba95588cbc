//! Claims: one node finds each fact of a target for all nodes.
//!
//! A claim is the key `claims/<target>/<fact>/<subject>` with the lease of its holder ([`claim`] has its states). The
//! holder finds the fact and writes it to `facts/<target>/<fact>/<subject>`, in a transaction that compares the
//! revision of the claim. So a holder that has lost its claim without noticing writes nothing. The other nodes read the
//! fact from there. The subject is a digest of what must be equal, such as the access key. So the nodes with each
//! access key have a holder of their own.
//!
//! Facts have no lease, because they outlive their holder. So a new holder deletes the facts of its target that nobody
//! has renewed for [`FACT_KEPT`], such as those of a former access key.
//!
//! Only targets of the registry have claims, and the registry deletes claims and facts with the target. So a fact never
//! outlives its target. A node that has not joined the registry finds the facts of its own targets itself.
//!
//! Drivers exchange facts with this task through the [`FactBoard`], in memory, so no probe waits for etcd. Each look is
//! one read of all claims and facts, because one operation costs etcd much less than one for each key. If the registry
//! has many that this node does not need, or if those change, a look is a transaction that reads single keys. It
//! returns nothing if nothing has changed since the latest look. A holder looks three times in a time to live, and may
//! have to give a claim back. The others look once. If nothing has changed then, the renewals of the node's lease also
//! check that nothing changes, and the node looks again when something has. So a fleet at rest sends no requests for
//! facts. A node that needs no facts sends nothing.
//!
//! Without an answer of etcd, a holder continues. The other nodes use the facts that they have, and each finds its own
//! at a random time before these are too old. A node that has just started and never had an answer does so at once.

mod claim;
mod reading;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::driver::{FactBoard, FactKey, FactRole, FleetPace, SharedFact};
use crate::etcd::{
    Compare, EtcdError, EtcdRevision, KeyValue, KeyValueStore, LeaseId, RangeRequest, Txn, TxnOperation,
    shortest_interval,
};
use crate::model::random_fraction;
use claim::{Claim, ClaimAction, Look, SIT_OUT, rank};
use reading::{CLAIMS, FACTS, FACTS_IN_TXN, FactReader, FoundFact};

use super::presence::{HeldLease, RenewalCheck, backoff};

/// Longest time between two looks while a driver waits for a fact, unless so many nodes need a longer one.
const AWAITED_INTERVAL: Duration = Duration::from_secs(5);

/// Mean time between two looks of a holder and of another node, as parts of the time to live. The longest one is less
/// than a time to live, so that a claim is taken over within one time to live after it ends.
const HOLDER_LOOK_PART: f64 = 1.0 / 3.0;
const OTHER_LOOK_PART: f64 = 0.75;

/// Smallest and largest random factor of the time between two looks.
const LOOK_FACTORS: (f64, f64) = (0.8, 1.2);

/// Shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Number of times to live without an answer after which a node is alone.
const ALONE_AFTER_TTLS: u32 = 3;

/// Time after the start without an answer after which a node is alone.
const ALONE_AFTER_START: Duration = Duration::from_secs(10);

/// Time after which a fact is deleted that nobody has renewed.
const FACT_KEPT: Duration = Duration::from_hours(30 * 24);

/// Largest number of facts of one target and kind that are looked at to delete old ones.
const FACTS_LOOKED_AT: u32 = 100;

/// Largest value of a fact that is accepted, in bytes.
const FACT_MAX: usize = 16 * 1024;

/// Value of `facts/<target>/<fact>/<subject>`.
#[derive(Debug, Serialize, Deserialize)]
struct StoredFact {
    node: String,
    observed_at: Timestamp,
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
        let prefix = prefix.into();
        let exchange = Exchange {
            reader: FactReader::new(store.clone(), prefix.clone()),
            store,
            prefix,
            node: node.into(),
            lease,
            board,
            facts: HashMap::new(),
            checked: Vec::new(),
            has_written: false,
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

#[derive(Debug, Default)]
struct KnownFact {
    claim: Claim,
    /// The claim as etcd had it at the latest look.
    found: Option<KeyValue>,
    /// Revision of the fact in etcd, 0 if there is none. `None` before the first look.
    fact_revision: Option<EtcdRevision>,
    /// Whether a claim was refused because the registry does not have the target.
    is_unregistered: bool,
}

impl KnownFact {
    /// Whether this node holds the claim as etcd had it at the latest look. A member that is behind may still show what
    /// was there before this node made a claim or gave it back.
    fn is_settled(&self, node: &str) -> bool {
        let own = self.found.as_ref().filter(|found| found.value == node.as_bytes());
        own.map(|own| own.create_revision) == self.claim.held()
    }
}

/// Answer to a request for a claim.
struct ClaimAnswer {
    /// Its revision. `None` if it was refused.
    revision: Option<EtcdRevision>,
    /// Whether the registry does not have the target.
    is_unregistered: bool,
}

struct Exchange {
    reader: FactReader,
    store: Arc<dyn KeyValueStore>,
    prefix: String,
    node: String,
    lease: HeldLease,
    board: Arc<FactBoard>,
    facts: HashMap<FactKey, KnownFact>,
    /// The facts whose claims and values the renewals check.
    checked: Vec<FactKey>,
    /// Whether this node has written claims or facts since the latest look.
    has_written: bool,
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
            // A node may cease to be a holder before its next look.
            let look_interval = self.lease.ttl().mul_f64(OTHER_LOOK_PART * LOOK_FACTORS.1);
            self.board.set_pace(FleetPace { nodes: self.lease.nodes(), look_interval });
            let factor = LOOK_FACTORS.0 + (LOOK_FACTORS.1 - LOOK_FACTORS.0) * random_fraction();
            let interval = self.lease.ttl().mul_f64(self.look_part() * factor);
            // A whole fleet may wait for the same fact.
            let awaited = AWAITED_INTERVAL.max(shortest_interval(self.lease.nodes()));
            let interval = if self.board.is_awaited() { interval.min(awaited) } else { interval };
            sleep(INTERVAL_MIN).await;
            let early = async {
                tokio::select! {
                    () = self.board.changed() => {}
                    () = self.lease.conditions().checked() => {}
                }
            };
            // An error means that the time has passed.
            let _ = timeout(interval.saturating_sub(INTERVAL_MIN), early).await;
        }
    }

    /// Returns the mean time between two looks, as a part of the time to live.
    fn look_part(&self) -> f64 {
        let is_holder = self.facts.values().any(|known| known.claim.held().is_some());
        if is_holder { HOLDER_LOOK_PART } else { OTHER_LOOK_PART }
    }

    async fn look_at_all(&mut self) {
        let asked = self.board.asked_for(SIT_OUT);
        self.facts.retain(|known, _| asked.iter().any(|(key, _)| key == known));
        let is_checked = self.checked.iter().eq(asked.iter().map(|(key, _)| key));
        let shown = self.lease.conditions().take().filter(|_| is_checked);
        let is_unchanged = match self.look(&asked, shown).await {
            Ok(is_unchanged) => is_unchanged,
            Err(error) => {
                tracing::debug!(%error, "the facts of other nodes were not read");
                self.failures = self.failures.saturating_add(1);
                return;
            }
        };
        // What has just changed may change all the time. Then a read at each look costs less.
        let can_check = is_unchanged && self.facts.values().all(|it| it.is_settled(&self.node));
        let unchanged = self.unchanged(&asked).filter(|_| can_check).unwrap_or_default();
        let check = self.reader.check(unchanged);
        let is_checked = !matches!(check, RenewalCheck::Nothing);
        self.lease.conditions().set(check);
        self.checked = asked.into_iter().filter(|_| is_checked).map(|(key, _)| key).collect();
    }

    /// Reads claims and facts, unless a renewal has shown (`shown`) that all are as at the latest look, and acts on
    /// them. Returns whether they are, or were never looked at before.
    async fn look(&mut self, asked: &[(FactKey, bool)], shown: Option<bool>) -> Result<bool, EtcdError> {
        for (key, _) in asked {
            self.facts.entry(key.clone()).or_default();
        }
        if shown == Some(true) {
            return self.look_at(asked, Vec::new()).await;
        }
        let has_written = std::mem::take(&mut self.has_written);
        if let Some(found) = self.reader.read_all(asked).await? {
            let is_unchanged = self.look_at(asked, found).await?;
            // What this node does not need has changed, and may do so all the time.
            if shown == Some(false) && is_unchanged && !has_written {
                self.reader.read_single_keys();
            }
            return Ok(is_unchanged);
        }
        let mut is_unchanged = true;
        for some in asked.chunks(FACTS_IN_TXN) {
            let unchanged = self.unchanged(some).filter(|_| shown.is_none());
            let found = self.reader.read(some, unchanged).await?;
            is_unchanged &= self.look_at(some, found).await?;
        }
        Ok(is_unchanged)
    }

    fn set_roles(&self) {
        let is_alone = match self.answered_at {
            Some(at) => at.elapsed() > self.lease.ttl() * ALONE_AFTER_TTLS,
            None => self.started_at.elapsed() > ALONE_AFTER_START,
        };
        for (key, known) in &self.facts {
            let role = match known.claim.held() {
                Some(_) => FactRole::Holder,
                None if known.is_unregistered && known.found.is_none() => FactRole::Unregistered,
                None if is_alone => FactRole::Alone,
                None => FactRole::Other,
            };
            self.board.set_role(key, role);
        }
    }

    /// Returns the conditions that all claims and facts are as at the latest look. `None` if one was never looked at.
    fn unchanged(&self, asked: &[(FactKey, bool)]) -> Option<Vec<Compare>> {
        let mut compares = Vec::new();
        for (key, _) in asked {
            let known = self.facts.get(key)?;
            let claim_revision = known.found.as_ref().map(|claim| claim.mod_revision).unwrap_or_default();
            compares.push(Compare::unchanged_since(self.reader.key(CLAIMS, key), claim_revision));
            compares.push(Compare::unchanged_since(self.reader.key(FACTS, key), known.fact_revision?));
        }
        Some(compares)
    }

    /// Acts on these claims and facts, or on those of the latest look if nothing was found because all are the same.
    /// Returns whether they are, or were never looked at before.
    async fn look_at(&mut self, asked: &[(FactKey, bool)], found: Vec<FoundFact>) -> Result<bool, EtcdError> {
        (self.answered_at, self.failures) = (Some(Instant::now()), 0);
        let (mut found, mut is_unchanged) = (found.into_iter(), true);
        for (key, is_wanted) in asked {
            if let Some((claim, fact)) = found.next() {
                is_unchanged &= !self.receive(key, claim, fact.as_ref());
            }
            self.act(key, *is_wanted).await?;
            self.share(key).await?;
        }
        Ok(is_unchanged)
    }

    /// Notes a claim and a fact, and passes the fact of another node to the board. Returns whether one has changed
    /// since the latest look.
    fn receive(&mut self, key: &FactKey, claim: Option<KeyValue>, found: Option<&KeyValue>) -> bool {
        let Some(known) = self.facts.get_mut(key) else { return false };
        let revision_of = |found: Option<&KeyValue>| found.map(|found| found.mod_revision).unwrap_or_default();
        let (claim_revision, revision) = (revision_of(claim.as_ref()), revision_of(found));
        let is_other_claim = revision_of(known.found.as_ref()) != claim_revision;
        known.found = claim;
        let former = known.fact_revision.replace(revision);
        let has_changed = former.is_some_and(|former| former != revision || is_other_claim);
        let is_known = former == Some(revision);
        let Some(found) = found.filter(|found| !is_known && found.value.len() <= FACT_MAX) else { return has_changed };
        match serde_json::from_slice(&found.value) {
            Ok(StoredFact { node, observed_at, value, .. }) => {
                self.board.receive(key, SharedFact { node, observed_at, value });
            }
            Err(error) => {
                tracing::warn!(target_id = %key.target, fact = key.kind.as_str(), %error, "a fact of another node is not valid, and not used")
            }
        }
        has_changed
    }

    async fn act(&mut self, key: &FactKey, is_wanted: bool) -> Result<(), EtcdError> {
        let look = Look {
            node: &self.node,
            lease: self.lease.held(),
            rank: rank(key, &self.node),
            nodes: self.lease.nodes(),
            is_wanted,
            now: Instant::now(),
        };
        let Some(known) = self.facts.get_mut(key) else { return Ok(()) };
        let action = known.claim.look(known.found.as_ref(), look);
        self.has_written |= action != ClaimAction::None;
        match action {
            ClaimAction::None => {}
            ClaimAction::Ask(lease) => {
                let answer = self.ask(key, lease).await?;
                if let Some(known) = self.facts.get_mut(key) {
                    known.claim.answered(answer.revision);
                    known.is_unregistered = answer.is_unregistered;
                }
                if answer.revision.is_some() {
                    self.delete_old_facts(key).await?;
                }
            }
            ClaimAction::GiveBack(revision) => {
                let claim = self.reader.key(CLAIMS, key);
                let txn = Txn {
                    compares: vec![Compare::created_at(claim.clone(), revision)],
                    success: vec![TxnOperation::delete(claim)],
                    ..Txn::default()
                };
                self.store.commit(&txn).await?;
            }
        }
        Ok(())
    }

    /// Asks for a claim.
    async fn ask(&self, key: &FactKey, lease: LeaseId) -> Result<ClaimAnswer, EtcdError> {
        let (claim, target) = (self.reader.key(CLAIMS, key), format!("{}registry/targets/{}", self.prefix, key.target));
        let txn = Txn {
            compares: vec![Compare::absent(claim.clone()), Compare::exists(target.clone())],
            success: vec![TxnOperation::put_leased(claim, self.node.clone(), lease)],
            failure: vec![TxnOperation::Range(RangeRequest::key(target).keys_only())],
        };
        let answer = self.store.commit(&txn).await?;
        let is_unregistered = !answer.succeeded && answer.results.first().is_some_and(|it| it.entries().is_empty());
        Ok(ClaimAnswer { revision: answer.succeeded.then_some(answer.header.revision), is_unregistered })
    }

    /// Deletes facts of other subjects that nobody has renewed for [`FACT_KEPT`]. The clock of this node may be wrong, so
    /// a fact that a node still finds, and therefore has claimed, is kept.
    async fn delete_old_facts(&self, key: &FactKey) -> Result<(), EtcdError> {
        let of = |subject: &str| FactKey { subject: subject.to_owned(), ..key.clone() };
        let facts = self.reader.key(FACTS, &of(""));
        let reading = RangeRequest { limit: Some(FACTS_LOOKED_AT), ..RangeRequest::prefix(facts.clone()) };
        let oldest = Timestamp::now() - FACT_KEPT;
        for found in self.store.range(&reading).await?.entries {
            let is_old = serde_json::from_slice::<StoredFact>(&found.value).is_ok_and(|fact| fact.observed_at < oldest);
            let subject = found.key.strip_prefix(facts.as_bytes()).and_then(|subject| str::from_utf8(subject).ok());
            let Some(subject) = subject.filter(|other| is_old && *other != key.subject) else { continue };
            let claim = self.reader.key(CLAIMS, &of(subject));
            let txn = Txn {
                compares: vec![Compare::unchanged_since(found.key.clone(), found.mod_revision), Compare::absent(claim)],
                success: vec![TxnOperation::delete(found.key)],
                ..Txn::default()
            };
            self.store.commit(&txn).await?;
        }
        Ok(())
    }

    /// Writes the fact that this node found, if it still holds the claim.
    async fn share(&mut self, key: &FactKey) -> Result<(), EtcdError> {
        let Some(revision) = self.facts.get(key).and_then(|known| known.claim.held()) else { return Ok(()) };
        let Some(fact) = self.board.found(key) else { return Ok(()) };
        self.has_written = true;
        let SharedFact { observed_at, value, .. } = fact.clone();
        let stored = StoredFact { node: self.node.clone(), observed_at, claim_revision: revision.0, value };
        // A structure of texts and numbers can always be encoded.
        let encoded = serde_json::to_vec(&stored).unwrap_or_default();
        let txn = Txn {
            compares: vec![Compare::created_at(self.reader.key(CLAIMS, key), revision)],
            success: vec![TxnOperation::put(self.reader.key(FACTS, key), encoded)],
            ..Txn::default()
        };
        let answer = self.store.commit(&txn).await?;
        let Some(known) = self.facts.get_mut(key) else { return Ok(()) };
        if answer.succeeded {
            known.fact_revision = Some(answer.header.revision);
            self.board.receive(key, SharedFact { node: self.node.clone(), ..fact });
        } else {
            known.claim = Claim::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
