//! Tests of presence and registry together, with a simulated cluster.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::etcd::simulation::SimulatedCluster;
use crate::etcd::{Txn, TxnOperation};
use crate::registry::{EtcdRegistry, MemoryStore, ReplicaStore, Store as _};

const INTERVAL: Duration = Duration::from_secs(20);

/// A node with its presence and its copy of the registry.
struct PresentNode {
    copy: Arc<ReplicaStore>,
    is_late: Arc<AtomicBool>,
    following: JoinHandle<()>,
    _presence: Presence,
}

impl PresentNode {
    /// Starts a node in a fleet with this number of others.
    async fn start(cluster: &Arc<SimulatedCluster>, others: usize) -> Self {
        let put = |number: usize| TxnOperation::put(format!("/t/v1/nodes/n{number}/info"), "{}");
        let others = Txn { success: (0..2 * others).map(put).collect(), ..Txn::default() };
        cluster.client(9).commit(&others).await.expect("an answer");
        let (client, size) = (cluster.client(0), FleetSize::default());
        let registry = EtcdRegistry::new(client.clone(), "t");
        let [node, hostname, boot_id, version] = ["a"; 4].map(str::to_owned);
        let identity = NodeIdentity { node, labels: BTreeMap::new(), hostname, boot_id, version };
        let is_late = Arc::<AtomicBool>::default();
        let late = is_late.clone();
        let late = Box::new(move || late.load(Ordering::Relaxed).then(|| "a probe is late".to_owned()));
        let generation = registry.observed_generation();
        let presence = Presence::start(client, "/t/v1/", identity, late, size.clone(), generation);
        let copy = Arc::new(ReplicaStore::new(MemoryStore::copy(), Arc::new(registry), INTERVAL, size));
        let following = tokio::spawn({
            let copy = copy.clone();
            async move { copy.follow().await }
        });
        Self { copy, is_late, following, _presence: presence }
    }

    fn problem(&self) -> Option<String> {
        self.copy.replica_status().expect("a replica").problem
    }

    /// Lets another node change the registry, here so that it becomes invalid. Returns the time until this node knows.
    async fn time_of_a_change(&self, cluster: &SimulatedCluster) -> Duration {
        cluster.put("/t/v1/registry/default", "no id of a target");
        cluster.put("/t/v1/registry/generation", "1");
        let began = Instant::now();
        while self.problem().is_none() {
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }
}

impl Drop for PresentNode {
    fn drop(&mut self) {
        self.following.abort();
    }
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn present_node_compares_the_registry_without_requests_of_its_own() {
    for (others, interval, renewals) in [(0, INTERVAL, 180), (1_000, 2 * INTERVAL, 60), (10_000, 3 * INTERVAL, 40)] {
        let cluster = Arc::new(SimulatedCluster::default());
        let node = PresentNode::start(&cluster, others).await;
        pass(600).await;
        let before = cluster.requests();
        pass(3600).await;
        // Two for each renewal, and counts of the nodes.
        let (requests, least) = (cluster.requests() - before, 2 * renewals);
        assert!((least * 9 / 10..=least * 11 / 10 + 6).contains(&requests), "{others}: {requests}");

        cluster.put("/t/v1/registry/default", "an earlier value");
        pass(600).await;
        assert_eq!(node.problem(), None, "not read again without another generation");
        let took = node.time_of_a_change(&cluster).await;
        assert!(took <= 2 * interval && node.problem().is_some_and(|it| it.contains("inconsistent")), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn change_arrives_in_time_at_a_node_that_does_not_renew_its_lease() {
    for wait in (0..100).step_by(5) {
        let cluster = Arc::new(SimulatedCluster::default());
        let node = PresentNode::start(&cluster, 1_000).await;
        pass(600).await;
        node.is_late.store(true, Ordering::Relaxed);
        pass(wait).await;
        let took = node.time_of_a_change(&cluster).await;
        assert!(took <= 4 * INTERVAL, "{took:?}");
    }
}
