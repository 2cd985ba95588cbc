//! Presence: tells the other nodes that this node probes its targets.
//!
//! The node holds one lease in etcd ([`lease`] has its states) with one small key, `nodes/<node>/alive`. The key ends
//! with the lease, so it tells that the node is alive without being written again: renewals cost etcd no write. The
//! key `nodes/<node>/info` has no lease and stays.
//!
//! **Alive means probing.** The lease is renewed only while probes end. **One process for each name.** The key is
//! created by a transaction that fails if it exists. A key that another process renews is a duplicate name, for example
//! of a cloned host. **Nothing waits for it.** Presence is a task of its own, and reads of its state come from memory.
//!
//! Most of the cost of a request to etcd is the wakeup of etcd. So the request after each renewal, which looks whether
//! the key exists, also reads the generation of the registry ([`ObservedKey`]) and checks whether shared facts have
//! changed ([`RenewalConditions`]).

mod conditions;
mod lease;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::etcd::{
    Compare, EtcdError, FleetSize, KeyValue, KeyValueStore, LeaseId, ObservedKey, RangeRequest, Txn, TxnOperation,
    TxnResult,
};
use crate::model::{NodePresence, random_fraction};
use conditions::RenewalConditions;
pub(super) use conditions::{KeysAt, RenewalCheck};
pub(super) use lease::backoff;
use lease::{LeaseAction, LeaseState, NodeLease, TTL_MIN, spread_for, ttl_for};
pub use status::PresenceStatus;

/// Longest wait for etcd when the agent stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(300);

/// Number of renewals between two counts of the nodes.
const RENEWALS_BETWEEN_COUNTS: u32 = 30;

/// Number of renewals before the second count. In a fleet that starts together, the first one finds only a few nodes.
const RENEWALS_BEFORE_COUNT: u32 = 3;

/// This process, as the other nodes see it.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// Name of the node, unique in the fleet (`[fleet] node`).
    pub node: String,
    /// Its labels (`[fleet] labels`).
    pub labels: BTreeMap<String, String>,
    /// Name of the host.
    pub hostname: String,
    /// Id of the current boot of the host.
    pub boot_id: String,
    /// Version of the agent.
    pub version: String,
}

/// Value of `nodes/<node>/alive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Alive {
    /// Id of the process.
    instance: Uuid,
    boot_id: String,
    hostname: String,
    version: String,
    /// Time to live of the lease.
    ttl_seconds: u64,
}

/// Value of `nodes/<node>/info`.
#[derive(Debug, Serialize)]
struct Info<'a> {
    hostname: &'a str,
    version: &'a str,
    labels: &'a BTreeMap<String, String>,
}

/// Returns why the lease must not be renewed: a sentence about the probe that does not end. `None` if every probe ends.
pub type LateProbe = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// The presence of this node. Its task ends when it is dropped.
#[derive(Debug)]
pub struct Presence {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    store: Arc<dyn KeyValueStore>,
    /// Keys begin with it. It ends with `/`.
    prefix: String,
    identity: NodeIdentity,
    instance: Uuid,
    late_probe: LateProbe,
    lease: Mutex<NodeLease>,
    fleet_size: FleetSize,
    generation: ObservedKey,
    conditions: RenewalConditions,
    status: watch::Sender<PresenceStatus>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Presence {
    /// Starts to announce this node below the keys that begin with `prefix`. Counts the nodes for `fleet_size`, and
    /// reads the generation of the registry with each renewal.
    #[must_use]
    pub fn start(
        store: Arc<dyn KeyValueStore>,
        prefix: impl Into<String>,
        identity: NodeIdentity,
        late_probe: LateProbe,
        fleet_size: FleetSize,
        generation: ObservedKey,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            prefix: prefix.into(),
            identity,
            instance: Uuid::new_v4(),
            late_probe,
            lease: Mutex::new(NodeLease::new(Instant::now())),
            fleet_size,
            generation,
            conditions: RenewalConditions::default(),
            status: watch::Sender::new(PresenceStatus::Absent("the agent has just started".to_owned())),
        });
        let task = tokio::spawn(shared.clone().run());
        Self { shared, task }
    }

    /// Returns a receiver of the status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PresenceStatus> {
        self.shared.status.subscribe()
    }

    /// Returns the lease, for tasks that create keys that end with it.
    #[must_use]
    pub fn lease(&self) -> HeldLease {
        HeldLease(self.shared.clone())
    }

    /// Ends the lease, so that the other nodes notice at once. Waits for etcd at most [`STOP_TIMEOUT`].
    pub async fn stop(self) {
        self.task.abort();
        let state = self.shared.lease().state(Instant::now());
        if let LeaseState::Granted(lease) | LeaseState::Held(lease) | LeaseState::Uncertain(lease) = state {
            // Otherwise it ends by itself.
            drop(timeout(STOP_TIMEOUT, self.shared.store.revoke(lease)).await);
        }
    }
}

/// The lease of this node, for tasks that create keys that end with it.
#[derive(Debug, Clone)]
pub struct HeldLease(Arc<Shared>);

impl HeldLease {
    /// Returns the lease, unless it may have ended.
    #[must_use]
    pub fn held(&self) -> Option<LeaseId> {
        self.0.lease().held(Instant::now())
    }

    /// Time to live of the lease.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.0.lease().ttl()
    }

    /// What each renewal also checks.
    pub(super) fn conditions(&self) -> &RenewalConditions {
        &self.0.conditions
    }

    /// Number of nodes when it was last counted, at least one.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.0.fleet_size.counted().unwrap_or(1)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Result of the registration.
enum Registered {
    Done,
    /// The key belongs to another process.
    Taken(Alive),
}

impl Shared {
    fn lease(&self) -> MutexGuard<'_, NodeLease> {
        // Each change is complete when the lock is released, and none panics.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive_key(&self) -> String {
        format!("{}nodes/{}/alive", self.prefix, self.identity.node)
    }

    async fn run(self: Arc<Self>) {
        let (mut renewals_until_count, mut replaced): (u32, _) = (RENEWALS_BEFORE_COUNT, None);
        loop {
            let (at, action) = self.lease().next();
            sleep_until(at).await;
            let result = match action {
                LeaseAction::Grant => self.grant().await,
                LeaseAction::Register(lease) => self.register_and_note(lease, &mut replaced).await,
                LeaseAction::Renew(lease) => {
                    let renewed = self.renew(lease).await;
                    if renewed == Ok(true) {
                        renewals_until_count = renewals_until_count.saturating_sub(1);
                        // A count that fails is repeated after the next renewal.
                        if renewals_until_count == 0
                            && let Ok(is_too_short) = self.needs_longer_ttl().await
                        {
                            renewals_until_count = RENEWALS_BETWEEN_COUNTS;
                            if is_too_short {
                                replaced = Some(lease);
                                self.lease().ended(Instant::now());
                            }
                        }
                    }
                    renewed.map(drop)
                }
            };
            if let Err(error) = &result {
                let now = Instant::now();
                match error {
                    EtcdError::LeaseNotFound => self.lease().ended(now),
                    _ => self.lease().failed(now, random_fraction()),
                }
                self.publish(Some(error.to_string()));
            }
        }
    }

    /// Returns the number of nodes. Any member may answer, because an old number is good enough.
    async fn count(&self) -> Result<u64, EtcdError> {
        let nodes = RangeRequest::prefix(format!("{}nodes/", self.prefix)).serializable().keys_only();
        let answer = self.store.range(&RangeRequest { limit: Some(1), ..nodes }).await?;
        // Each node has two keys.
        let nodes = answer.total.div_ceil(2);
        self.fleet_size.set(nodes);
        Ok(nodes)
    }

    async fn grant(&self) -> Result<(), EtcdError> {
        // After an outage of etcd, few keys are left to count, and each count costs etcd as much as the nodes are many.
        let nodes = match self.fleet_size.counted() {
            Some(nodes) => nodes,
            None => self.count().await?,
        };
        sleep(spread_for(nodes).mul_f64(random_fraction())).await;
        let asked = Instant::now();
        let granted = self.store.grant(ttl_for(nodes)).await?;
        self.lease().granted(granted.id, granted.ttl, asked, Instant::now());
        Ok(())
    }

    async fn needs_longer_ttl(&self) -> Result<bool, EtcdError> {
        Ok(ttl_for(self.count().await?) > self.lease().ttl() * 6 / 5)
    }

    async fn register_and_note(&self, lease: LeaseId, replaced: &mut Option<LeaseId>) -> Result<(), EtcdError> {
        match self.register(lease).await? {
            Registered::Done => {
                self.lease().registered(Instant::now(), random_fraction());
                self.publish(None);
                if let Some(former) = replaced.take().filter(|former| *former != lease) {
                    // Otherwise it ends by itself.
                    drop(self.store.revoke(former).await);
                }
            }
            Registered::Taken(other) => {
                let ttl = Duration::from_secs(other.ttl_seconds).max(TTL_MIN);
                self.lease().is_taken(other.instance, ttl, Instant::now(), random_fraction());
                self.publish(Some(self.taken_by(&other)));
            }
        }
        Ok(())
    }

    /// Creates the key of this node, or takes it over from an earlier lease of this process.
    async fn register(&self, lease: LeaseId) -> Result<Registered, EtcdError> {
        let key = self.alive_key();
        let mut expected = Compare::absent(key.clone());
        loop {
            let txn = Txn {
                compares: vec![expected],
                success: self.registration(lease),
                failure: vec![TxnOperation::get(key.clone())],
            };
            let answer = self.store.commit(&txn).await?;
            if answer.succeeded {
                return Ok(Registered::Done);
            }
            let Some(TxnResult::Range(found)) = answer.results.into_iter().next() else {
                return Err(EtcdError::Unexpected("a transaction without the result of its read".to_owned()));
            };
            match found.entries.into_iter().next() {
                // The answer of an earlier attempt was lost.
                Some(found) if found.lease == Some(lease) => return Ok(Registered::Done),
                Some(found) => match parse(&found) {
                    Some(other) if other.instance != self.instance => return Ok(Registered::Taken(other)),
                    // Of an earlier lease of this process, or not written by an agent.
                    _ => expected = Compare::unchanged_since(key.clone(), found.mod_revision),
                },
                // It ended in the meantime.
                None => expected = Compare::absent(key.clone()),
            }
        }
    }

    fn registration(&self, lease: LeaseId) -> Vec<TxnOperation> {
        let NodeIdentity { node, labels, hostname, boot_id, version } = &self.identity;
        let alive = Alive {
            instance: self.instance,
            boot_id: boot_id.clone(),
            hostname: hostname.clone(),
            version: version.clone(),
            ttl_seconds: self.lease().ttl().as_secs(),
        };
        // Structures of texts and numbers can always be encoded.
        let encoded = |value: serde_json::Result<Vec<u8>>| value.unwrap_or_default();
        vec![
            TxnOperation::put_leased(self.alive_key(), encoded(serde_json::to_vec(&alive)), lease),
            TxnOperation::put(
                format!("{}nodes/{node}/info", self.prefix),
                encoded(serde_json::to_vec(&Info { hostname, version, labels })),
            ),
        ]
    }

    /// Renews the lease unless a probe is late. Returns whether etcd has renewed it, and the key of this node exists.
    async fn renew(&self, lease: LeaseId) -> Result<bool, EtcdError> {
        if let Some(late) = (self.late_probe)() {
            self.lease().postpone(Instant::now(), random_fraction());
            self.publish(Some(format!("the lease is not renewed while a probe is late: {late}")));
            return Ok(false);
        }
        let asked = Instant::now();
        let Some(ttl) = self.store.keep_alive(lease).await? else {
            self.lease().ended(Instant::now());
            self.publish(Some("etcd has ended the lease".to_owned()));
            return Ok(false);
        };
        // Old releases of etcd renew a lease that they have revoked (fixed in 3.4.38 and 3.5.23).
        let is_registered = self.is_registered(lease).await? || self.is_registered_by_quorum(lease).await?;
        self.lease().renewed(ttl, is_registered, asked, Instant::now(), random_fraction());
        if is_registered {
            self.publish(None);
        }
        Ok(is_registered)
    }

    /// Whether a member says that the key of this node exists, mostly from its own state. The same request reads the
    /// generation of the registry, and checks what the claims need ([`RenewalCheck`]).
    async fn is_registered(&self, lease: LeaseId) -> Result<bool, EtcdError> {
        let ((number, check), key) = (self.conditions.get(), self.alive_key());
        let is_quorum = self.generation.needs_quorum();
        let read = |request: RangeRequest| TxnOperation::Range(RangeRequest { is_serializable: !is_quorum, ..request });
        let generation = read(RangeRequest::key(self.generation.key().to_owned()));
        let mut txn = Txn {
            compares: vec![Compare::lease(key.clone(), lease)],
            success: vec![generation.clone()],
            failure: vec![generation, read(RangeRequest::key(key).keys_only())],
        };
        match &check {
            RenewalCheck::Nothing => {}
            RenewalCheck::Conditions(compares) => txn.compares.extend_from_slice(compares),
            RenewalCheck::Unchanged(keys) => txn.success.push(read(keys.request())),
        }
        let answer = self.store.commit(&txn).await.inspect_err(|_| {
            // The next renewal must not fail because of the check, for example without the right to read its keys.
            self.conditions.set(RenewalCheck::Nothing);
        })?;
        let mut results = answer.results.into_iter();
        if let Some(generation) = results.next().and_then(TxnResult::into_entry) {
            self.generation.see(generation.value, is_quorum);
        }
        // The key if a comparison failed, or the checked interval.
        let second = results.next();
        let is_unchanged = answer.succeeded
            && match (&check, &second) {
                (RenewalCheck::Unchanged(keys), Some(TxnResult::Range(found))) => keys.are_in(found),
                _ => true,
            };
        let is_own = |found: KeyValue| found.lease == Some(lease);
        let is_registered = answer.succeeded || second.and_then(TxnResult::into_entry).is_some_and(is_own);
        if is_registered {
            self.conditions.note(number, is_unchanged);
        }
        Ok(is_registered)
    }

    async fn is_registered_by_quorum(&self, lease: LeaseId) -> Result<bool, EtcdError> {
        let found = self.store.range(&RangeRequest::key(self.alive_key()).keys_only()).await?.entries;
        Ok(found.iter().any(|found| found.lease == Some(lease)))
    }

    fn taken_by(&self, other: &Alive) -> String {
        let NodeIdentity { node, boot_id, .. } = &self.identity;
        match other.boot_id == *boot_id {
            true => format!(
                "another agent of this host is the node {node:?}: give each its own [fleet] node, or stop the other one"
            ),
            false => format!(
                "the host {:?} is also the node {node:?}: give each host its own machine id (systemd-machine-id-setup), or set [fleet] node",
                other.hostname
            ),
        }
    }

    /// Publishes the status, and logs it when its kind changes.
    fn publish(&self, problem: Option<String>) {
        let (state, is_duplicate) = {
            let (lease, now) = (self.lease(), Instant::now());
            (lease.state(now), lease.has_duplicate(now))
        };
        let problem = || problem.clone().unwrap_or_default();
        let status = match state {
            _ if is_duplicate => PresenceStatus::DuplicateNodeId(problem()),
            LeaseState::Held(_) => PresenceStatus::Present,
            LeaseState::Uncertain(_) => PresenceStatus::Uncertain(problem()),
            LeaseState::None | LeaseState::Granted(_) => PresenceStatus::Absent(problem()),
        };
        let former = self.status.send_replace(status.clone());
        if std::mem::discriminant(&former) == std::mem::discriminant(&status) {
            return;
        }
        let node = &self.identity.node;
        match status {
            PresenceStatus::Present => tracing::info!(node, "the fleet sees this node"),
            PresenceStatus::Uncertain(why) => {
                tracing::warn!(node, "whether the fleet sees this node is unknown. Probes continue: {why}");
            }
            PresenceStatus::Absent(why) => {
                tracing::warn!(node, "the fleet does not see this node. Probes continue: {why}")
            }
            PresenceStatus::DuplicateNodeId(why) => {
                tracing::error!(
                    node,
                    code = NodePresence::DuplicateNodeId.as_str(),
                    "the fleet does not see this node: {why}"
                );
            }
        }
    }
}

fn parse(entry: &KeyValue) -> Option<Alive> {
    serde_json::from_slice(&entry.value).ok()
}

#[cfg(test)]
mod tests;
