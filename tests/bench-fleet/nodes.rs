//! Nodes whose registry is in etcd: the presence, the claims and the copy of an agent, and a driver that answers at
//! once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use targetwatch::driver::{FactBoard, FactKey, FactKind, FactQuestion, SharedFact, Turn};
use targetwatch::etcd::{EtcdClient, EtcdSettings, FleetSize, KeyValueStore, Txn, TxnOperation};
use targetwatch::fleet::claims::Claims;
use targetwatch::fleet::presence::{HeldLease, NodeIdentity, Presence};
use targetwatch::model::{TargetId, random_fraction};
use targetwatch::registry::{EtcdRegistry, MemoryStore, ReplicaStore, Store as _};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

use crate::agents;
use crate::member::Member;
use crate::meter::{Meter, MeteredStore};

/// Time between two probes of a target.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Number of probes after which a target that was not reached again is left to other nodes, as in the driver of S3.
const WANTED_FOR_PROBES: u32 = 3;

/// Time between two proofs of a lock, and the age up to which one counts: the defaults.
const PROOF_INTERVAL: Duration = Duration::from_hours(24);
const PROOF_AGE_MAX: Duration = Duration::from_hours(48);

/// Time between two comparisons of the registry: the default.
const COMPARE_INTERVAL: Duration = Duration::from_secs(20);

/// Prefix of the keys, as in the URL of the registry.
pub const PREFIX: &str = "bench";

/// Size of a verdict, in bytes.
const VERDICT_BYTES: usize = 700;

/// A fleet.
pub struct SharingNodes {
    pub meter: Arc<Meter>,
    nodes: Vec<SharingNode>,
    is_server_dead: Arc<AtomicBool>,
}

struct SharingNode {
    store: Arc<MeteredStore>,
    lease: HeldLease,
    copy: Arc<ReplicaStore>,
    running: Option<(Presence, Claims)>,
    tasks: [JoinHandle<()>; 2],
}

impl SharingNodes {
    /// Starts this number of nodes per second, which use these targets.
    pub async fn start(nodes: usize, per_second: u32, member: &Member, targets: &[TargetId]) -> anyhow::Result<Self> {
        let mut fleet = Self { meter: Arc::default(), nodes: Vec::new(), is_server_dead: Arc::default() };
        let mut starts = interval(Duration::from_secs(1) / per_second);
        for number in 0..nodes {
            starts.tick().await;
            let client = client(&member.url(number)).await?;
            let store = Arc::new(MeteredStore { client, meter: fleet.meter.clone() });
            let node = SharingNode::start(number, store, targets.into(), fleet.is_server_dead.clone());
            fleet.nodes.push(node);
        }
        Ok(fleet)
    }

    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Number of present nodes, whose leases last at least as long.
    pub fn present(&self, ttl: Duration) -> usize {
        self.nodes.iter().filter(|node| node.lease.held().is_some() && node.lease.ttl() >= ttl).count()
    }

    /// Number of nodes whose copy of the registry has all these targets and one default, and no problem.
    pub fn with_targets(&self, targets: usize) -> usize {
        let is_whole = |node: &&SharingNode| {
            let (snapshot, status) = (node.copy.snapshot(), node.copy.replica_status());
            let is_well = status.is_some_and(|status| status.problem.is_none());
            is_well && snapshot.targets().len() == targets && snapshot.default_target().is_some()
        };
        self.nodes.iter().filter(is_whole).count()
    }

    /// Lets no node reach the targets of one server, or all nodes reach them again.
    pub fn kill_server(&self, is_dead: bool) {
        self.is_server_dead.store(is_dead, Ordering::Relaxed);
    }

    /// Ends what the agents do, without an answer of etcd.
    pub fn stop(&mut self) {
        for node in &mut self.nodes {
            node.running = None;
            node.tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Lets each node write each verdict after each probe, for some time.
    pub async fn write_verdicts(&self, verdicts: usize, time: Duration) {
        let until = Instant::now() + time;
        let writing: Vec<_> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let store = node.store.clone();
                tokio::spawn(async move {
                    sleep(PROBE_INTERVAL.mul_f64(random_fraction())).await;
                    let mut probes = interval(PROBE_INTERVAL);
                    loop {
                        probes.tick().await;
                        for verdict in 0..verdicts {
                            if Instant::now() >= until {
                                return;
                            }
                            let put =
                                TxnOperation::put(format!("/naive/{number}/{verdict}"), vec![b'x'; VERDICT_BYTES]);
                            // A verdict that is not stored is replaced by the next one.
                            drop(store.commit(&Txn { success: vec![put], ..Txn::default() }).await);
                        }
                    }
                })
            })
            .collect();
        for task in writing {
            // A node that panics writes less.
            drop(task.await);
        }
    }
}

impl Drop for SharingNode {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl SharingNode {
    fn start(
        number: usize,
        store: Arc<MeteredStore>,
        targets: Arc<[TargetId]>,
        is_server_dead: Arc<AtomicBool>,
    ) -> Self {
        let name = format!("compute-{number:05}.example.com");
        let identity = NodeIdentity {
            labels: std::collections::BTreeMap::new(),
            node: name.clone(),
            hostname: name.clone(),
            boot_id: "4f6c0c4a-9d0c-4c43-8d5c-0d7c1f5c2b3e".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (prefix, size) = (format!("/{PREFIX}/v1/"), FleetSize::default());
        let registry = Arc::new(EtcdRegistry::new(store.clone(), PREFIX));
        let generation = registry.observed_generation();
        let presence = Presence::start(store.clone(), &*prefix, identity, Box::new(|| None), size.clone(), generation);
        let board = Arc::<FactBoard>::default();
        let claims = Claims::start(store.clone(), prefix, name, presence.lease(), board.clone());
        let copy = Arc::new(ReplicaStore::new(MemoryStore::copy(), registry, COMPARE_INTERVAL, size));
        let following = tokio::spawn({
            let copy = copy.clone();
            async move { copy.follow().await }
        });
        let probing = tokio::spawn(probe(board, targets, is_server_dead));
        Self { store, lease: presence.lease(), copy, running: Some((presence, claims)), tasks: [following, probing] }
    }
}

/// Creates a client of etcd.
pub async fn client(url: &str) -> anyhow::Result<EtcdClient> {
    Ok(EtcdClient::new(EtcdSettings { endpoints: vec![url.to_owned()], ca_file: None, login: None }).await?)
}

/// Asks for the fact of each target that is reached, and finds it if it is this node's turn.
async fn probe(board: Arc<FactBoard>, targets: Arc<[TargetId]>, is_server_dead: Arc<AtomicBool>) {
    let mut found: Vec<Option<SharedFact>> = vec![None; targets.len()];
    sleep(PROBE_INTERVAL.mul_f64(random_fraction())).await;
    let mut probes = interval(PROBE_INTERVAL);
    loop {
        probes.tick().await;
        for (number, (target, found)) in targets.iter().zip(&mut found).enumerate() {
            if is_server_dead.load(Ordering::Relaxed) && agents::is_of_dead_server(&agents::export(number)) {
                continue;
            }
            let subject = "the digest of an access key and of a configuration".to_owned();
            let key = FactKey { target: *target, kind: FactKind::LockProof, subject };
            let turn = board.turn(FactQuestion {
                key: &key,
                age_max: PROOF_AGE_MAX,
                wanted_for: PROBE_INTERVAL * WANTED_FOR_PROBES,
            });
            let is_due =
                |fact: &SharedFact| Timestamp::now().duration_since(fact.observed_at).unsigned_abs() >= PROOF_INTERVAL;
            if turn == Turn::Find && found.as_ref().is_none_or(is_due) {
                *found = Some(SharedFact {
                    node: String::new(),
                    observed_at: Timestamp::now(),
                    value: format!(r#"{{"verdict":"enforced","why":"{}"}}"#, "w".repeat(200)),
                });
            }
            if let Some(fact) = found {
                board.post(&key, fact.clone());
            }
        }
    }
}
