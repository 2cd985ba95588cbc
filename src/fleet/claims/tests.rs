use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::driver::{FactKind, FactQuestion, Turn};
use crate::etcd::simulation::{Link, RecordedWrite, SimulatedClient, SimulatedCluster};
use crate::etcd::{FleetSize, ObservedKey};
use crate::fleet::presence::{NodeIdentity, Presence};
use crate::model::TargetId;

const NODES: usize = 4;
const TARGET: TargetId = Uuid::from_u128(1);
const TTL: u64 = 60;
/// Facts are valid for an hour, and the holder renews them each 10 minutes.
const VALID: Duration = Duration::from_hours(1);
const RENEWED: Duration = Duration::from_mins(10);

/// A node with a driver that probes each 10 s.
struct SimulatedNode {
    client: Arc<SimulatedClient>,
    board: Arc<FactBoard>,
    running: Option<(Presence, Claims)>,
    reaches: bool,
    access_key: &'static str,
    /// When this node last found the fact.
    found_at: Option<(Instant, Timestamp)>,
    finds: usize,
}

impl SimulatedNode {
    fn start(cluster: &Arc<SimulatedCluster>, number: usize) -> Self {
        let mut node = Self {
            client: cluster.client(number),
            board: Arc::default(),
            running: None,
            reaches: true,
            access_key: "A",
            found_at: None,
            finds: 0,
        };
        node.restart(number);
        node
    }

    fn restart(&mut self, number: usize) {
        let name = format!("n{number}");
        let [hostname, boot_id] = ["host", "boot"].map(|what| format!("{what}-{number}"));
        let identity =
            NodeIdentity { node: name.clone(), labels: Default::default(), hostname, boot_id, version: "1".to_owned() };
        let presence = Presence::start(
            self.client.clone(),
            "/t/",
            identity,
            Box::new(|| None),
            FleetSize::default(),
            ObservedKey::new("/t/generation"),
        );
        self.board = Arc::default();
        self.found_at = None;
        let claims = Claims::start(self.client.clone(), "/t/", name, presence.lease(), self.board.clone());
        self.running = Some((presence, claims));
    }

    /// Probes once, and returns how the driver got the fact. It never waits.
    fn probe(&mut self) -> Option<Turn> {
        if !self.reaches || self.running.is_none() {
            return None;
        }
        let key = key_of(self.access_key);
        let question = FactQuestion { key: &key, age_max: VALID, wanted_for: Duration::from_secs(30) };
        let turn = self.board.turn(question);
        if turn == Turn::Find && self.found_at.is_none_or(|(at, _)| at.elapsed() >= RENEWED) {
            self.found_at = Some((Instant::now(), Timestamp::now()));
            self.finds += 1;
        }
        if let Some((_, observed_at)) = self.found_at.filter(|(at, _)| at.elapsed() < VALID) {
            let value = format!("{} {}", self.access_key, self.finds);
            self.board.post(&key, SharedFact { node: String::new(), observed_at, value });
        }
        Some(turn)
    }
}

async fn pass(nodes: &mut [SimulatedNode], seconds: u64) {
    for second in 0..seconds {
        if second % 10 == 0 {
            nodes.iter_mut().for_each(|node| drop(node.probe()));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn key_of(access_key: &str) -> FactKey {
    FactKey { target: TARGET, kind: FactKind::LockProof, subject: access_key.to_owned() }
}

fn claim_key_of(access_key: &str) -> String {
    format!("/t/claims/{TARGET}/lock_proof/{access_key}")
}

fn claim_key() -> String {
    claim_key_of("A")
}

fn target_key() -> String {
    format!("/t/registry/targets/{TARGET}")
}

fn fact_key_of(access_key: &str) -> String {
    format!("/t/facts/{TARGET}/lock_proof/{access_key}")
}

fn fact_key() -> String {
    fact_key_of("A")
}

fn holder(cluster: &SimulatedCluster) -> Option<usize> {
    holder_with(cluster, "A")
}

fn holder_with(cluster: &SimulatedCluster, access_key: &str) -> Option<usize> {
    let claim = cluster.get(&claim_key_of(access_key))?;
    String::from_utf8(claim.value.to_vec()).expect("a name").strip_prefix('n')?.parse().ok()
}

fn start(count: usize) -> (Arc<SimulatedCluster>, Vec<SimulatedNode>) {
    let cluster = Arc::new(SimulatedCluster::default());
    cluster.put(&target_key(), "{}");
    let nodes = (0..count).map(|number| SimulatedNode::start(&cluster, number)).collect();
    (cluster, nodes)
}

#[tokio::test(start_paused = true)]
async fn one_node_finds_the_fact_for_all() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 3600).await;
    let holder = holder(&cluster).expect("a holder");
    for (number, node) in nodes.iter_mut().enumerate() {
        let expected = if number == holder { 6 } else { 0 };
        assert_eq!(node.finds, expected, "{number}");
        match node.probe().expect("reached") {
            Turn::Find => assert_eq!(number, holder),
            Turn::Use(fact) => assert_eq!(fact.node, format!("n{holder}")),
            Turn::Wait => panic!("{number} waits"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn holder_that_dies_is_replaced_within_two_times_to_live() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 120).await;
    let first = holder(&cluster).expect("a holder");
    nodes[first].running = None;
    pass(&mut nodes, 2 * TTL).await;
    assert!(holder(&cluster).is_some_and(|second| second != first));
}

#[tokio::test(start_paused = true)]
async fn holder_that_does_not_reach_the_target_gives_the_claim_back() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 120).await;
    let first = holder(&cluster).expect("a holder");
    nodes[first].reaches = false;
    pass(&mut nodes, 2 * TTL).await;
    assert!(holder(&cluster).is_some_and(|second| second != first));
}

#[tokio::test(start_paused = true)]
async fn fact_of_a_deleted_target_is_not_written_again() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 120).await;
    assert!(cluster.get(&fact_key()).is_some());
    cluster.delete_all(&[target_key(), claim_key(), fact_key()]);
    // The nodes have not noticed it yet.
    pass(&mut nodes, 3600).await;
    assert_eq!((cluster.get(&claim_key()), cluster.get(&fact_key())), (None, None));
}

#[tokio::test(start_paused = true)]
async fn node_that_has_not_joined_the_registry_finds_facts_itself_at_once() {
    let (cluster, mut nodes) = start(1);
    cluster.delete_all(&[target_key()]);
    pass(&mut nodes, 20).await;
    assert_eq!((nodes[0].probe(), cluster.get(&claim_key())), (Some(Turn::Find), None));
}

#[tokio::test(start_paused = true)]
async fn nodes_with_each_access_key_have_a_holder_of_their_own() {
    let (cluster, mut nodes) = start(NODES);
    nodes.iter_mut().take(2).for_each(|node| node.access_key = "B");
    pass(&mut nodes, 3600).await;
    let holders = ["A", "B"].map(|access_key| holder_with(&cluster, access_key).expect("a holder"));
    assert!(holders[0] >= 2 && holders[1] < 2, "{holders:?}");
    for (number, node) in nodes.iter_mut().enumerate() {
        assert_eq!(node.finds, if holders.contains(&number) { 6 } else { 0 }, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn claim_of_a_former_access_key_is_given_back() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 120).await;
    let first = holder(&cluster).expect("a holder");
    nodes[first].access_key = "B";
    pass(&mut nodes, 2 * TTL).await;
    assert!(holder(&cluster).is_some_and(|second| second != first));
    assert_eq!(holder_with(&cluster, "B"), Some(first));
}

#[tokio::test(start_paused = true)]
async fn old_facts_that_nobody_claims_are_deleted_by_the_next_holder() {
    let (cluster, mut nodes) = start(NODES);
    let fact = |age| {
        let observed_at = Timestamp::now() - age;
        let fact = StoredFact { node: "n9".to_owned(), observed_at, claim_revision: 1, value: String::new() };
        serde_json::to_string(&fact).expect("JSON")
    };
    let (old, recent) = (FACT_KEPT + Duration::from_secs(60), FACT_KEPT - Duration::from_hours(1));
    for (subject, age) in [("old", old), ("recent", recent), ("claimed", old)] {
        cluster.put(&fact_key_of(subject), &fact(age));
    }
    // The fact looks old to a node whose clock is ahead.
    cluster.put(&claim_key_of("claimed"), "n9");
    pass(&mut nodes, 120).await;
    assert!(holder(&cluster).is_some() && cluster.get(&fact_key()).is_some());
    let is_kept = ["old", "recent", "claimed"].map(|subject| cluster.get(&fact_key_of(subject)).is_some());
    assert_eq!(is_kept, [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn nodes_go_on_without_etcd_and_a_started_one_finds_the_fact_at_once() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 120).await;
    let holder = holder(&cluster).expect("a holder");
    nodes.iter().for_each(|node| node.client.set_link(Link::Cut));
    pass(&mut nodes, 20 * 60).await;
    for (number, node) in nodes.iter_mut().enumerate() {
        let turn = node.probe().expect("reached");
        assert_eq!(matches!(turn, Turn::Find), number == holder, "{number}: {turn:?}");
    }
    assert!(nodes[holder].finds >= 3);
    // The facts are too old now.
    pass(&mut nodes, 60 * 60).await;
    assert!(nodes.iter_mut().all(|node| node.probe() == Some(Turn::Find)));
    let number = (holder + 1) % NODES;
    nodes[number].restart(number);
    pass(&mut nodes, 30).await;
    assert_eq!(nodes[number].probe(), Some(Turn::Find));
}

#[tokio::test(start_paused = true)]
async fn nodes_wait_longer_and_longer_while_etcd_does_not_answer() {
    let (cluster, mut nodes) = start(NODES);
    nodes.iter().for_each(|node| node.client.set_link(Link::LosesAnswers));
    pass(&mut nodes, 600).await;
    let before = cluster.requests();
    pass(&mut nodes, 3600).await;
    // Presence and claims each send one request, wait for its answer for 5 s, and then for half a minute on average.
    let each_minute = (cluster.requests() - before) as f64 / (60 * NODES) as f64;
    assert!((2.0..5.0).contains(&each_minute), "{each_minute}");
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_large_fleet_do_not_look_every_few_seconds_while_they_wait() {
    for (others, least, most) in [(1, 20, 40), (20_000, 2, 16)] {
        let (cluster, mut nodes) = start(1);
        let put = |number: usize| TxnOperation::put(format!("/t/nodes/n{number}/info"), "{}");
        let others = Txn { success: (0..others).map(put).collect(), ..Txn::default() };
        cluster.client(9).commit(&others).await.expect("an answer");
        // Another node holds the claim, and does not find the fact.
        cluster.put(&claim_key(), "another");
        pass(&mut nodes, 110).await;
        assert_eq!(nodes[0].probe(), Some(Turn::Wait));
        let requests = cluster.requests();
        assert!((least..=most).contains(&requests), "{requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn fleet_at_rest_sends_no_requests_for_facts() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 600).await;
    let before = cluster.requests();
    pass(&mut nodes, 3600).await;
    let requests = cluster.requests() - before;
    // In an hour, each node sends two requests for each of 180 renewals, and counts the nodes 6 times.
    let presence = NODES as u64 * (2 * 180 + 6);
    // The holder looks as often. It writes the fact 6 times, which the others read, and they look once more.
    let facts = 180 + 6 * (1 + 2 * (NODES as u64 - 1));
    assert!(requests <= (presence + facts) * 103 / 100, "{requests}");
}

/// Requests of an hour in which facts that no node needs are written each 20 s. There are this many of them.
async fn requests_beside_other_facts(count: usize) -> u64 {
    let (cluster, mut nodes) = start(NODES);
    let fact = |number: usize| format!("/t/facts/{}/lock_proof/A", Uuid::from_u128(100 + number as u128));
    (0..count).for_each(|number| cluster.put(&fact(number), "{}"));
    pass(&mut nodes, 600).await;
    let before = cluster.requests();
    for round in 0..180 {
        cluster.put(&fact(round % count), "{}");
        pass(&mut nodes, 20).await;
    }
    assert!(nodes.iter_mut().all(|node| matches!(node.probe(), Some(Turn::Find | Turn::Use(_)))));
    cluster.requests() - before
}

#[tokio::test(start_paused = true)]
async fn facts_that_a_node_does_not_need_cost_it_few_requests() {
    for count in [1, 100] {
        let requests = requests_beside_other_facts(count).await;
        // As in a fleet at rest, and two looks at all keys each 10 minutes.
        let (presence, facts) = (NODES as u64 * (2 * 180 + 6), 180 + 6 * (1 + 2 * (NODES as u64 - 1)));
        let other = NODES as u64 * 6 * 2;
        assert!(requests <= (presence + facts + other) * 103 / 100, "{count}: {requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn renewal_shows_a_node_that_a_fact_has_changed() {
    let (cluster, mut nodes) = start(NODES);
    pass(&mut nodes, 480).await;
    let holder = holder(&cluster).expect("a holder");
    let facts = |nodes: &mut [SimulatedNode]| -> Vec<String> {
        let others = nodes.iter_mut().enumerate().filter(|(number, _)| *number != holder);
        others
            .map(|(_, node)| match node.probe() {
                Some(Turn::Use(fact)) => fact.value,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(facts(&mut nodes), ["A 1"; NODES - 1]);
    nodes[holder].found_at = None;
    // The next probe of the holder, its write, and the longest time between two renewals.
    pass(&mut nodes, 10 + 1 + 24 + 2).await;
    assert_eq!(facts(&mut nodes), ["A 2"; NODES - 1]);
}

#[tokio::test(start_paused = true)]
async fn node_that_needs_no_facts_sends_nothing() {
    let cluster = Arc::new(SimulatedCluster::default());
    let mut node = SimulatedNode::start(&cluster, 0);
    node.running = None;
    let presence = Presence::start(
        node.client.clone(),
        "/t/",
        NodeIdentity {
            node: "a".into(),
            labels: Default::default(),
            hostname: "a".into(),
            boot_id: "a".into(),
            version: "1".into(),
        },
        Box::new(|| None),
        FleetSize::default(),
        ObservedKey::new("/t/generation"),
    );
    sleep(Duration::from_secs(1)).await;
    let before = cluster.requests();
    let _claims = Claims::start(node.client.clone(), "/t/", "a", presence.lease(), Arc::default());
    drop(presence);
    sleep(Duration::from_hours(1)).await;
    assert_eq!(cluster.requests(), before);
}

#[derive(Debug, Clone)]
enum Fault {
    Link(usize, Link),
    Reach(usize, bool),
    Kill(usize),
    Elect,
    RevokeWrongly,
    Full(bool),
    Key(usize, &'static str),
}

fn fault() -> impl Strategy<Value = (u64, Fault)> {
    let link = prop_oneof![
        3 => Just(Link::Up),
        1 => Just(Link::Cut),
        1 => Just(Link::LosesAnswers),
        2 => (1..200_u64).prop_map(|seconds| Link::Delays(Duration::from_secs(seconds))),
        1 => Just(Link::Minority),
        4 => any::<u64>().prop_map(Link::Erratic),
    ];
    let fault = prop_oneof![
        6 => (0..NODES, link).prop_map(|(node, link)| Fault::Link(node, link)),
        3 => (0..NODES, any::<bool>()).prop_map(|(node, reaches)| Fault::Reach(node, reaches)),
        1 => (0..NODES).prop_map(Fault::Kill),
        1 => Just(Fault::Elect),
        1 => Just(Fault::RevokeWrongly),
        1 => any::<bool>().prop_map(Fault::Full),
        1 => (0..NODES, prop_oneof![Just("A"), Just("B")]).prop_map(|(node, key)| Fault::Key(node, key)),
    ];
    (0..120_u64, fault)
}

/// Every fact was written by the node that held the claim at that moment. No node uses a fact of another access key.
/// When all faults have ended, one node holds the claim, and all nodes have the fact.
async fn check(faults: Vec<(u64, Fault)>) {
    let (cluster, mut nodes) = start(NODES);
    for (wait, fault) in faults {
        for _ in 0..wait.div_ceil(10) {
            pass(&mut nodes, 10).await;
            for node in &mut nodes {
                if let Some(Turn::Use(fact)) = node.probe() {
                    assert!(fact.value.starts_with(node.access_key), "{fact:?}");
                }
            }
        }
        match fault {
            Fault::Link(node, link) => nodes[node].client.set_link(link),
            Fault::Reach(node, reaches) => nodes[node].reaches = reaches,
            Fault::Kill(node) => {
                nodes[node].running = None;
                nodes[node].restart(node);
            }
            Fault::Elect => cluster.elect(),
            Fault::RevokeWrongly => {
                if let Some(lease) = cluster.get(&claim_key()).and_then(|claim| claim.lease) {
                    cluster.revoke_wrongly(lease);
                }
            }
            Fault::Full(is_full) => cluster.set_full(is_full),
            Fault::Key(node, key) => nodes[node].access_key = key,
        }
    }
    cluster.set_full(false);
    for node in &mut nodes {
        node.client.set_link(Link::Up);
        (node.reaches, node.access_key) = (true, "A");
    }
    // Delayed requests, the longest backoff, the former leases, sitting out, and a new fact.
    pass(&mut nodes, 1200).await;
    let holder = holder(&cluster).expect("a holder");
    for (number, node) in nodes.iter_mut().enumerate() {
        let turn = node.probe().expect("reached");
        assert_eq!(turn == Turn::Find, number == holder, "{number} of {holder}: {turn:?}");
    }
    assert_fenced(&cluster.writes());
}

fn assert_fenced(writes: &[RecordedWrite]) {
    let (mut holder, mut since) = (None, EtcdRevision(0));
    for write in writes {
        if write.key == claim_key() {
            (holder, since) = (write.value.as_ref().and(write.client), write.revision);
        } else if write.key == fact_key() {
            assert_eq!(write.client, holder, "a fact was written without the claim");
            let fact: StoredFact = serde_json::from_slice(write.value.as_ref().expect("a value")).expect("valid");
            assert_eq!(fact.claim_revision, since.0, "a fact was written with a former claim");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn facts_are_fenced_under_any_sequence_of_faults(faults in prop::collection::vec(fault(), 0..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(check(faults));
    }
}
