use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::etcd::simulation::{Link, SimulatedClient, SimulatedCluster};
use crate::etcd::{KeyRange, Observation};

const NODES: usize = 3;

struct SimulatedNode {
    client: Arc<SimulatedClient>,
    is_late: Arc<AtomicBool>,
    generation: ObservedKey,
    presence: Option<Presence>,
}

impl SimulatedNode {
    fn start(cluster: &Arc<SimulatedCluster>, number: usize, name: &str) -> Self {
        let (client, is_late) = (cluster.client(number), Arc::new(AtomicBool::new(false)));
        let mut node =
            Self { client, is_late, generation: ObservedKey::new("/t/v1/registry/generation"), presence: None };
        node.restart(name);
        node
    }

    fn restart(&mut self, name: &str) {
        let identity = NodeIdentity {
            labels: BTreeMap::from([("rack".to_owned(), "a".to_owned())]),
            node: name.to_owned(),
            hostname: format!("host-of-{name}"),
            boot_id: format!("boot-of-{name}"),
            version: "1".to_owned(),
        };
        let late = self.is_late.clone();
        let late: LateProbe = Box::new(move || late.load(Ordering::Relaxed).then(|| "a probe is late".to_owned()));
        let (size, generation) = (FleetSize::default(), self.generation.clone());
        self.presence = Some(Presence::start(self.client.clone(), "/t/v1/", identity, late, size, generation));
    }

    fn status(&self) -> PresenceStatus {
        self.presence.as_ref().expect("runs").watch().borrow().clone()
    }

    /// The generation of the registry, if the latest renewal has read it.
    fn recent_generation(&self) -> Option<Bytes> {
        let Observation { value, at, .. } = self.generation.seen()?;
        (at.elapsed() <= Duration::from_secs(24)).then_some(value)
    }

    /// Whether this process believes that its key exists.
    fn believes(&self) -> bool {
        self.presence.as_ref().is_some_and(|it| it.shared.lease().held(Instant::now()).is_some())
    }
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn is_alive(cluster: &SimulatedCluster, name: &str) -> bool {
    cluster.get(&format!("/t/v1/nodes/{name}/alive")).is_some()
}

#[tokio::test(start_paused = true)]
async fn node_is_present_and_renewals_write_nothing() {
    let cluster = Arc::new(SimulatedCluster::default());
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    assert_eq!(cluster.keys("/t/v1/"), ["/t/v1/nodes/a/alive", "/t/v1/nodes/a/info"]);
    let (writes, requests) = (cluster.writes().len(), cluster.requests());
    pass(3600).await;
    assert_eq!((node.status(), cluster.writes().len()), (PresenceStatus::Present, writes));
    // Each renewal is followed by a read of the key.
    let each_minute = (cluster.requests() - requests) / 60;
    assert!((5..=8).contains(&each_minute), "{each_minute}");
}

#[tokio::test(start_paused = true)]
async fn renewals_read_the_generation_of_the_registry() {
    let cluster = Arc::new(SimulatedCluster::default());
    cluster.put("/t/v1/registry/generation", "1");
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(30).await;
    assert_eq!(node.recent_generation(), Some("1".into()));
    cluster.separate_minority();
    cluster.put("/t/v1/registry/generation", "2");
    node.client.set_link(Link::Minority);
    pass(30).await;
    assert_eq!(node.recent_generation(), None, "the lease was not renewed");
    node.client.set_link(Link::Up);
    pass(60).await;
    assert_eq!(node.recent_generation(), Some("2".into()));
}

#[tokio::test(start_paused = true)]
async fn renewals_check_conditions_of_other_keys() {
    let cluster = Arc::new(SimulatedCluster::default());
    cluster.put("/t/v1/facts/a", "1");
    let node = SimulatedNode::start(&cluster, 0, "a");
    let lease = node.presence.as_ref().expect("runs").lease();
    let conditions = lease.conditions();
    let compares = [Compare::value("/t/v1/facts/a", "1"), Compare::absent("/t/v1/claims/a")];
    conditions.set(RenewalCheck::Conditions(compares.into()));
    let before = cluster.requests();
    for (key, holds) in [("/t/v1/facts/b", true), ("/t/v1/facts/a", false)] {
        cluster.put(key, "2");
        pass(25).await;
        assert_eq!((conditions.take(), node.status()), (Some(holds), PresenceStatus::Present), "{key}");
    }
    assert!(cluster.requests() - before <= 4 + 4, "the start, and two requests for each renewal");
    // Without the key of the node, they are not known. The same renewal creates the key again.
    cluster.delete_all(&["/t/v1/nodes/a/alive".to_owned()]);
    let mut seconds = 0;
    while !is_alive(&cluster, "a") {
        assert!(seconds < 25, "not alive again");
        pass(1).await;
        seconds += 1;
    }
    assert_eq!(conditions.take(), None);
}

#[tokio::test(start_paused = true)]
async fn renewals_check_that_an_interval_of_keys_is_unchanged() {
    let cluster = Arc::new(SimulatedCluster::default());
    ["/t/v1/facts/a", "/t/v1/facts/b"].iter().for_each(|key| cluster.put(key, "1"));
    let node = SimulatedNode::start(&cluster, 0, "a");
    let lease = node.presence.as_ref().expect("runs").lease();
    for (change, is_unchanged) in [
        (None, true),
        (Some(("/t/v1/generation", Some("2"))), true),
        (Some(("/t/v1/facts/a", Some("1"))), false),
        (Some(("/t/v1/facts/c", Some("1"))), false),
        (Some(("/t/v1/facts/c", None)), false),
    ] {
        let known = cluster.client(9).range(&RangeRequest::prefix("/t/v1/facts/")).await.expect("an answer");
        let (keys, revision) = (KeyRange::prefix("/t/v1/facts/"), known.header.revision);
        lease.conditions().set(RenewalCheck::Unchanged(KeysAt { keys, revision, total: known.total }));
        match change {
            Some((key, Some(value))) => cluster.put(key, value),
            Some((key, None)) => cluster.delete_all(&[key.to_owned()]),
            None => {}
        }
        pass(25).await;
        assert_eq!(
            (lease.conditions().take(), node.status()),
            (Some(is_unchanged), PresenceStatus::Present),
            "{change:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_node_vanishes_at_once_and_a_killed_one_within_the_time_to_live() {
    let cluster = Arc::new(SimulatedCluster::default());
    let mut node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    node.presence.take().expect("runs").stop().await;
    assert!(!is_alive(&cluster, "a"));
    assert_eq!(cluster.keys("/t/v1/"), ["/t/v1/nodes/a/info"]);
    node.restart("a");
    pass(1).await;
    assert!(is_alive(&cluster, "a"));
    drop(node.presence.take());
    node.restart("a");
    pass(50).await;
    assert!(is_alive(&cluster, "a"), "the restarted process waits for the end of the former key");
    // It looks again after at most 24 s.
    pass(60).await;
    assert_eq!(node.status(), PresenceStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn node_with_a_late_probe_is_not_renewed() {
    let cluster = Arc::new(SimulatedCluster::default());
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(30).await;
    node.is_late.store(true, Ordering::Relaxed);
    pass(90).await;
    assert!(!is_alive(&cluster, "a"));
    assert!(matches!(node.status(), PresenceStatus::Uncertain(why) if why.contains("a probe is late")));
    node.is_late.store(false, Ordering::Relaxed);
    pass(30).await;
    assert!(is_alive(&cluster, "a"));
    assert_eq!(node.status(), PresenceStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn second_process_with_the_same_node_id_is_reported() {
    let cluster = Arc::new(SimulatedCluster::default());
    let first = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    let mut second = SimulatedNode::start(&cluster, 1, "a");
    pass(60).await;
    assert!(matches!(second.status(), PresenceStatus::Absent(_)), "{:?}", second.status());
    pass(60).await;
    let PresenceStatus::DuplicateNodeId(why) = second.status() else { panic!("{:?}", second.status()) };
    assert!(why.contains("another agent of this host") && why.contains("[fleet] node"), "{why}");
    assert_eq!(first.status(), PresenceStatus::Present);
    drop(second.presence.take());
    // A process that takes the place of the first one.
    let third = SimulatedNode::start(&cluster, 2, "a");
    drop(first);
    pass(110).await;
    assert_eq!(third.status(), PresenceStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn lease_that_an_old_etcd_ends_and_renews_is_noticed() {
    let cluster = Arc::new(SimulatedCluster::default());
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    cluster.renew_ended_leases();
    cluster.revoke_wrongly(cluster.get("/t/v1/nodes/a/alive").expect("alive").lease.expect("a lease"));
    pass(30).await;
    assert!(is_alive(&cluster, "a"));
    assert_eq!(node.status(), PresenceStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn full_etcd_makes_no_node_absent() {
    let cluster = Arc::new(SimulatedCluster::default());
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    cluster.set_full(true);
    pass(3600).await;
    assert_eq!(node.status(), PresenceStatus::Present);
    let late = SimulatedNode::start(&cluster, 1, "b");
    pass(600).await;
    assert!(matches!(late.status(), PresenceStatus::Absent(why) if why.contains("alarm disarm")));
    cluster.set_full(false);
    pass(70).await;
    assert_eq!(late.status(), PresenceStatus::Present);
}

#[tokio::test(start_paused = true)]
async fn fleet_that_grows_gets_longer_leases() {
    let cluster = Arc::new(SimulatedCluster::default());
    let _node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    let lease = || cluster.get("/t/v1/nodes/a/alive").expect("alive").lease;
    let first = lease();
    register_others(&cluster, 20_000).await;
    pass(3600).await;
    assert_ne!(lease(), first);
    let second = lease();
    pass(7200).await;
    assert_eq!(lease(), second);
    assert_eq!(ttl_of_a(&cluster), 180);
}

/// Registers other nodes that have started before.
async fn register_others(cluster: &Arc<SimulatedCluster>, keys: usize) {
    let put = |number: usize| TxnOperation::put(format!("/t/v1/nodes/n{number}/info"), "{}");
    let others = Txn { success: (0..keys).map(put).collect(), ..Txn::default() };
    cluster.client(9).commit(&others).await.expect("an answer");
}

fn ttl_of_a(cluster: &SimulatedCluster) -> u64 {
    parse(&cluster.get("/t/v1/nodes/a/alive").expect("alive")).expect("valid").ttl_seconds
}

#[tokio::test(start_paused = true)]
async fn node_that_starts_before_the_others_gets_a_longer_lease_soon() {
    let cluster = Arc::new(SimulatedCluster::default());
    let _node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    register_others(&cluster, 20_000).await;
    assert_eq!(ttl_of_a(&cluster), 60);
    // Three renewals, and the spread of the new lease.
    pass(3 * 24 + 41).await;
    assert_eq!(ttl_of_a(&cluster), 180);
}

#[tokio::test(start_paused = true)]
async fn count_that_fails_is_repeated_after_the_next_renewal() {
    let cluster = Arc::new(SimulatedCluster::default());
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    register_others(&cluster, 20_000).await;
    let before = cluster.requests();
    // Two requests for each of three renewals. The count is sent 2 ms later.
    while cluster.requests() < before + 6 {
        sleep(Duration::from_millis(1)).await;
    }
    node.client.set_link(Link::Cut);
    pass(1).await;
    node.client.set_link(Link::Up);
    assert_eq!((ttl_of_a(&cluster), node.status()), (60, PresenceStatus::Present));
    // A renewal, and the spread of the new lease.
    pass(24 + 41).await;
    assert_eq!(ttl_of_a(&cluster), 180);
}

#[tokio::test(start_paused = true)]
async fn node_with_a_late_probe_gets_no_longer_lease() {
    let cluster = Arc::new(SimulatedCluster::default());
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(1).await;
    register_others(&cluster, 20_000).await;
    node.is_late.store(true, Ordering::Relaxed);
    // Longer than until the third renewal, and the spread and the time to live of the present lease.
    pass(3 * 24 + 41 + 60).await;
    assert!(!is_alive(&cluster, "a"));
    node.is_late.store(false, Ordering::Relaxed);
    pass(24 + 41).await;
    assert!(is_alive(&cluster, "a"), "{:?}", node.status());
}

#[tokio::test(start_paused = true)]
async fn node_that_starts_while_a_fleet_grows_gets_a_longer_lease_soon() {
    let cluster = Arc::new(SimulatedCluster::default());
    register_others(&cluster, 1_800).await;
    let _node = SimulatedNode::start(&cluster, 0, "a");
    pass(10).await;
    assert_eq!(ttl_of_a(&cluster), 117);
    register_others(&cluster, 15_000).await;
    // Three renewals, and the spread of the new lease.
    pass(3 * 71 + 31).await;
    assert_eq!(ttl_of_a(&cluster), 172);
}

#[tokio::test(start_paused = true)]
async fn node_that_returns_after_an_outage_keeps_the_size_of_the_fleet() {
    let cluster = Arc::new(SimulatedCluster::default());
    register_others(&cluster, 20_000).await;
    let node = SimulatedNode::start(&cluster, 0, "a");
    pass(60).await;
    assert_eq!(ttl_of_a(&cluster), 180);
    node.client.set_link(Link::Cut);
    pass(600).await;
    assert!(!is_alive(&cluster, "a"));
    let others = TxnOperation::Delete(KeyRange::prefix("/t/v1/nodes/n"));
    cluster.client(9).commit(&Txn { success: vec![others], ..Txn::default() }).await.expect("an answer");
    node.client.set_link(Link::Up);
    // The longest backoff, and the spread.
    pass(110).await;
    assert_eq!(ttl_of_a(&cluster), 180);
}

/// Something that happens to a node, or to the cluster.
#[derive(Debug, Clone)]
enum Fault {
    Link(usize, Link),
    Late(usize, bool),
    Kill(usize),
    Elect,
    RevokeWrongly(usize),
    Full(bool),
    RenewEnded,
    SeparateMinority,
}

fn fault() -> impl Strategy<Value = (u64, Fault)> {
    let link = prop_oneof![
        Just(Link::Up),
        Just(Link::Cut),
        Just(Link::LosesAnswers),
        (1..200_u64).prop_map(|seconds| Link::Delays(Duration::from_secs(seconds))),
        Just(Link::Minority),
        any::<u64>().prop_map(Link::Erratic),
    ];
    let fault = prop_oneof![
        6 => (0..NODES, link).prop_map(|(node, link)| Fault::Link(node, link)),
        2 => (0..NODES, any::<bool>()).prop_map(|(node, is_late)| Fault::Late(node, is_late)),
        2 => (0..NODES).prop_map(Fault::Kill),
        1 => Just(Fault::Elect),
        1 => (0..NODES).prop_map(Fault::RevokeWrongly),
        1 => any::<bool>().prop_map(Fault::Full),
        1 => Just(Fault::RenewEnded),
        1 => Just(Fault::SeparateMinority),
    ];
    (0..90_u64, fault)
}

/// Every second: a process that believes in its key has it, unless an old etcd ended the lease wrongly. No key has two
/// processes that believe in it. And when all faults have ended, every node is present.
async fn check(faults: Vec<(u64, Fault)>) {
    let cluster = Arc::new(SimulatedCluster::default());
    // The last two nodes are one host by mistake.
    let names = ["a", "b", "b"];
    let mut nodes: Vec<_> = (0..NODES).map(|number| SimulatedNode::start(&cluster, number, names[number])).collect();
    let mut revoked_at: Option<Instant> = None;
    for (wait, fault) in faults {
        for _ in 0..wait {
            pass(1).await;
            // The node notices it at its next renewal, or when the time to live has passed.
            let was_revoked = revoked_at.is_some_and(|at| at.elapsed() <= TTL_MIN + Duration::from_secs(1));
            assert_believed(&cluster, &nodes, &names, was_revoked);
        }
        match fault {
            Fault::Link(node, link) => nodes[node].client.set_link(link),
            Fault::Late(node, is_late) => nodes[node].is_late.store(is_late, Ordering::Relaxed),
            Fault::Kill(node) => {
                drop(nodes[node].presence.take());
                nodes[node].restart(names[node]);
            }
            Fault::Elect => cluster.elect(),
            Fault::RevokeWrongly(node) => {
                let entry = cluster.get(&format!("/t/v1/nodes/{}/alive", names[node]));
                if let Some(lease) = entry.and_then(|entry| entry.lease) {
                    revoked_at = Some(Instant::now());
                    cluster.revoke_wrongly(lease);
                }
            }
            Fault::Full(is_full) => cluster.set_full(is_full),
            Fault::RenewEnded => cluster.renew_ended_leases(),
            Fault::SeparateMinority => cluster.separate_minority(),
        }
    }
    cluster.set_full(false);
    for node in &nodes {
        node.client.set_link(Link::Up);
        node.is_late.store(false, Ordering::Relaxed);
    }
    // Delayed requests, the end of the former leases and the longest backoff.
    pass(600).await;
    assert_believed(&cluster, &nodes, &names, false);
    let present = |node: &&SimulatedNode| node.status() == PresenceStatus::Present;
    assert_eq!(nodes[0].status(), PresenceStatus::Present);
    assert_eq!(nodes[1..].iter().filter(present).count(), 1);
    let duplicate = |node: &&SimulatedNode| matches!(node.status(), PresenceStatus::DuplicateNodeId(_));
    assert_eq!(nodes[1..].iter().filter(duplicate).count(), 1);
}

fn assert_believed(cluster: &SimulatedCluster, nodes: &[SimulatedNode], names: &[&str], was_revoked: bool) {
    let mut believers = BTreeMap::new();
    for (node, name) in nodes.iter().zip(names).filter(|(node, _)| node.believes()) {
        *believers.entry(*name).or_insert(0) += 1;
        let found = cluster.get(&format!("/t/v1/nodes/{name}/alive")).and_then(|entry| parse(&entry));
        let is_own =
            found.is_some_and(|alive| Some(alive.instance) == node.presence.as_ref().map(|it| it.shared.instance));
        assert!(is_own || was_revoked, "{name} believes in a key that it does not have");
    }
    assert!(was_revoked || believers.values().all(|count| *count == 1), "{believers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn presence_is_true_under_any_sequence_of_faults(faults in prop::collection::vec(fault(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(check(faults));
    }
}
