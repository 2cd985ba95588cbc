//! Tests of when a node compares its copy with the shared registry.

use super::*;
use crate::etcd::simulation::SimulatedCluster;
use crate::registry::EtcdRegistry;

#[tokio::test(start_paused = true)]
async fn comparison_needs_a_quorum_at_least_every_five_minutes() {
    let mut state = State { cloud_id: None, version: None, compared_at: None, confirmed: None, unconfirmed: 0 };
    assert!(state.needs_quorum(INTERVAL), "nothing was confirmed");
    state.confirm();
    assert!(!state.needs_quorum(INTERVAL));
    assert!(state.needs_quorum(QUORUM_AGE_MAX), "the next one would be too late");
    tokio::time::advance(QUORUM_AGE_MAX - INTERVAL).await;
    assert!(state.needs_quorum(INTERVAL));
}

#[tokio::test(start_paused = true)]
async fn quorum_that_a_renewal_asked_counts_for_the_comparisons() {
    let version = SharedVersion { cloud_id: CloudId(uuid::Uuid::new_v4()), generation: 1 };
    let mut state =
        State { cloud_id: None, version: Some(version), compared_at: None, confirmed: None, unconfirmed: 3 };
    let seen = || SeenVersion { at: Instant::now(), confirmed: Some(Instant::now()) };
    assert!(!state.confirm_seen(seen()), "the content was not read, or the latest comparison failed");
    state.confirm();
    assert!(!state.confirm_seen(seen()), "not newer");
    tokio::time::advance(QUORUM_AGE_MAX / 2).await;
    assert!(state.confirm_seen(seen()));
    tokio::time::advance(QUORUM_AGE_MAX / 2).await;
    assert!(!state.needs_quorum(INTERVAL));
    assert!(!state.confirm_seen(SeenVersion { confirmed: None, ..seen() }));
    tokio::time::advance(QUORUM_AGE_MAX / 2).await;
    assert!(state.needs_quorum(INTERVAL));
}

#[tokio::test]
async fn interval_of_comparisons_grows_with_the_fleet() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    for (nodes, seconds) in [(100, 20), (1_000, 40), (10_000, 60)] {
        node.fleet_size.set(nodes);
        assert!(node.store.compare().await);
        assert_eq!(node.status().interval, Duration::from_secs(seconds), "{nodes}");
    }
    let before = shared.compares();
    tokio::time::pause();
    drop(timeout(Duration::from_secs(3600), node.store.follow()).await);
    tokio::time::resume();
    let each_hour = shared.compares() - before;
    assert!((48..=76).contains(&each_hour), "{each_hour}");
}

#[test]
fn waits_grow_with_failures_and_are_spread() {
    let longest = FleetSize::default().stretched(RETRY_MAX);
    for (failures, seconds) in [(0, 24), (1, 40), (2, 60), (1000, 60), (u32::MAX, 60)] {
        let wait = |_| match failures {
            0 => wait_after_success(INTERVAL),
            _ => wait_after_failure(INTERVAL, failures, longest),
        };
        let waits: Vec<u128> = (0..100).map(wait).map(|wait| wait.as_millis()).collect();
        assert!(waits.iter().all(|wait| (16_000..=seconds * 1_000).contains(wait)), "{failures}: {waits:?}");
        let middle = (16_000 + seconds * 1_000) / 2;
        assert!(waits.iter().any(|wait| *wait < middle) && waits.iter().any(|wait| *wait > middle), "{waits:?}");
    }
    assert!(wait_after_failure(RETRY_MAX * 9, 9, longest) >= RETRY_MAX * 7, "a longer interval");
    let large = FleetSize::default();
    large.set(10_000);
    let longest = (0..100).map(|_| wait_after_failure(INTERVAL * 3, 9, large.stretched(RETRY_MAX))).max();
    assert!(longest.is_some_and(|longest| longest > RETRY_MAX * 2 && longest <= RETRY_MAX * 3), "{longest:?}");
}

/// Times until the first comparisons of 40 nodes that start together, while this number of nodes is counted after 20 ms.
async fn first_waits(joined: bool, counted: impl Into<Option<u64>>) -> Vec<Duration> {
    let counted = counted.into();
    let shared = FakeSharedRegistry::new();
    let waits = (0..40).map(|number| {
        let shared = shared.clone();
        async move {
            let mut node = Node::start(&shared);
            if joined {
                create(&node.registry, nfs(&format!("nas:/{number}"))).await;
                node = node.restart(&shared).await;
            }
            tokio::time::pause();
            let began = Instant::now();
            let waiting = async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                counted.into_iter().for_each(|nodes| node.fleet_size.set(nodes));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = waiting => {}
                () = node.store.replica.wait_first() => {}
            }
            let wait = began.elapsed();
            tokio::time::resume();
            wait
        }
    });
    let mut found = Vec::new();
    for wait in waits {
        found.push(wait.await);
    }
    found
}

#[tokio::test]
async fn first_comparisons_of_nodes_that_start_together_are_spread() {
    for (is_joined, counted, most) in [(true, 1, 20), (true, 10_000, 60), (false, 10_000, 40), (false, 100_000, 60)] {
        let (waits, most) = (first_waits(is_joined, counted).await, Duration::from_secs(most));
        assert!(waits.iter().all(|wait| *wait <= most + COUNT_TIMEOUT * 2), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait < most / 2) && waits.iter().any(|wait| *wait > most / 2), "{waits:?}");
    }
    let waits = first_waits(false, None).await;
    let (most, middle) = (COUNT_TIMEOUT * 2 + UNCOUNTED_SPREAD, COUNT_TIMEOUT + UNCOUNTED_SPREAD / 2);
    assert!(waits.iter().all(|wait| (COUNT_TIMEOUT..most).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait < middle) && waits.iter().any(|wait| *wait > middle), "{waits:?}");
    let waits = first_waits(false, 10).await;
    assert!(waits.iter().all(|wait| (200..=242).contains(&wait.as_millis())), "a small fleet hardly waits: {waits:?}");
}

#[tokio::test]
async fn first_comparison_of_a_node_with_a_copy_is_not_made_at_the_start() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    let node = node.restart(&shared).await;
    let reads = shared.reads();
    tokio::time::pause();
    let is_early = timeout(Duration::ZERO, node.store.follow()).await.is_ok();
    assert!(!is_early && shared.reads() == reads, "it waits first");
    tokio::time::resume();
    create(&node.registry, nfs("nas:/b")).await;
    assert_eq!(node.exports(), ["nas:/a", "nas:/b"], "a change does not wait for it");
}

#[tokio::test(start_paused = true)]
async fn fleet_that_starts_together_reads_the_registry_of_a_slow_etcd() {
    let cluster = Arc::new(SimulatedCluster::default());
    let start = |number| {
        let shared = Arc::new(EtcdRegistry::new(cluster.client(number), "t"));
        Arc::new(ReplicaStore::new(MemoryStore::copy(), shared, INTERVAL, FleetSize::default()))
    };
    create(&Registry::new(start(0)), nfs("nas:/a")).await;
    // 20 requests a second, while the nodes do not know how many they are.
    cluster.set_service_time(Duration::from_millis(50));
    let nodes: Vec<_> = (1..=200).map(start).collect();
    let following = nodes.iter().map(|node| {
        let node = node.clone();
        tokio::spawn(async move { node.follow().await })
    });
    let following: Vec<_> = following.collect();
    let (began, before) = (Instant::now(), cluster.requests());
    while !nodes.iter().all(|node| node.snapshot().targets().len() == 1) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_secs(120), "not all nodes have read the registry");
    }
    let (took, requests) = (began.elapsed().as_secs(), cluster.requests() - before);
    assert!(requests < 200 * 6, "{requests} requests of 200 nodes in {took} s");
    following.iter().for_each(tokio::task::JoinHandle::abort);
}
