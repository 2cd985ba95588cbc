//! Tests of presence and registry together, with a simulated cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use super::*;
use crate::etcd::simulation::SimulatedCluster;
use crate::registry::{EtcdRegistry, MemoryStore, ReplicaStore, Store as _};

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn present_node_compares_the_registry_without_requests_of_its_own() {
    let cluster = Arc::new(SimulatedCluster::default());
    let (client, size) = (cluster.client(0), FleetSize::default());
    let registry = EtcdRegistry::new(client.clone(), "t");
    let [node, hostname, boot_id, version] = ["a"; 4].map(str::to_owned);
    let identity = NodeIdentity { node, labels: BTreeMap::new(), hostname, boot_id, version };
    let _presence =
        Presence::start(client, "/t/v1/", identity, Box::new(|| None), size.clone(), registry.observed_generation());
    let interval = Duration::from_secs(20);
    let copy = Arc::new(ReplicaStore::new(MemoryStore::copy(), Arc::new(registry), interval, size));
    let following = tokio::spawn({
        let copy = copy.clone();
        async move { copy.follow().await }
    });
    pass(60).await;
    let problem = || copy.replica_status().expect("a replica").problem;
    let before = cluster.requests();
    pass(3600).await;
    let each_minute = (cluster.requests() - before) as f64 / 60.0;
    // Two with each renewal, and every tenth comparison, which needs a quorum.
    assert!((5.0..7.0).contains(&each_minute), "{each_minute}");
    // A change by another node, here one that makes the registry invalid.
    cluster.put("/t/v1/registry/default", "no id of a target");
    pass(60).await;
    assert_eq!(problem(), None, "not read again without another generation");
    cluster.put("/t/v1/registry/generation", "1");
    pass(25).await;
    assert!(problem().is_some_and(|problem| problem.contains("inconsistent")), "{:?}", problem());
    following.abort();
}
