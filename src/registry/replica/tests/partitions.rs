//! Property test of the shared registry in etcd: three nodes on a simulated cluster, with any sequence of changes,
//! partitions, elections and crashes.
//!
//! ```text
//! node    unjoined ──► joined, version unknown ──► has version v ──► has version w, later than v
//!                           ▲ restart, conflict or uncertain change ───────┘
//!
//! change  decided for version v ──► refused
//!          ▲ │
//!          │ └──► sent ──► made: acknowledged
//!          └─ conflict ──┤
//!                        └ no answer ──► settled: acknowledged, or unavailable and never made
//!                                    └─► uncertain: made once or not at all, now or later
//! ```
//!
//! The registry is a sequence of contents. Each content is the one before it with one change, which is made once. A node
//! shows one of these contents, and never an older one than before. After the faults, all nodes show the latest one.

use std::collections::HashSet;
use std::sync::Mutex as SyncMutex;

use jiff::Timestamp;
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::super::difference;
use super::*;
use crate::etcd::simulation::{Link, REQUEST_TIMEOUT, RecordedWrite, SimulatedClient, SimulatedCluster};
use crate::etcd::{KeyValueStore, ObservedKey, RangeRequest};
use crate::registry::fixtures::changed;
use crate::registry::{EtcdRegistry, RegisteredTarget, SharedContent, rules};

const NODES: usize = 3;
const PREFIX: &str = "t";

/// Longest time after which a delayed request is served.
const DELAY_MAX: u64 = 200;

/// A change. A number selects one of the targets that the node has.
#[derive(Debug, Clone)]
enum Operation {
    Create(u8),
    Delete(usize),
    SetDefault(usize),
    SetScope(usize, bool),
}

#[derive(Debug, Clone)]
enum Action {
    /// Sends a change to a node, and does not wait for the answer.
    Change(usize, Operation),
    /// Sends a change to a node, whose link then becomes another one after this time. The requests of a change take some
    /// milliseconds.
    Interrupt(usize, Operation, Duration, Link),
    Link(usize, Link),
    /// Kills the agent of a node, and starts it again with its copy.
    Crash(usize),
    Elect,
    Full(bool),
}

fn operation() -> impl Strategy<Value = Operation> {
    let which = || 0..8_usize;
    prop_oneof![
        4 => (0..20_u8).prop_map(Operation::Create),
        1 => which().prop_map(Operation::Delete),
        3 => which().prop_map(Operation::SetDefault),
        2 => (which(), any::<bool>()).prop_map(|(target, restricts)| Operation::SetScope(target, restricts)),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    prop_oneof![
        7 => Just(Link::Up),
        1 => Just(Link::Cut),
        1 => Just(Link::LosesAnswers),
        1 => (1..DELAY_MAX).prop_map(|seconds| Link::Delays(Duration::from_secs(seconds))),
        2 => Just(Link::Minority),
        4 => any::<u64>().prop_map(Link::Erratic),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let node = || 0..NODES;
    prop_oneof![
        20 => (node(), operation()).prop_map(|(node, operation)| Action::Change(node, operation)),
        3 => (node(), operation(), (1..12_u64).prop_map(Duration::from_millis), link())
            .prop_map(|(node, operation, after, link)| Action::Interrupt(node, operation, after, link)),
        6 => (node(), link()).prop_map(|(node, link)| Action::Link(node, link)),
        2 => node().prop_map(Action::Crash),
        1 => Just(Action::Elect),
        1 => prop::bool::weighted(0.3).prop_map(Action::Full),
    ]
}

/// Time before an action. Mostly none or so short that requests of several nodes overlap.
fn wait() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => Just(Duration::ZERO),
        6 => (1..20_u64).prop_map(Duration::from_millis),
        3 => (1..90_u64).prop_map(Duration::from_secs),
    ]
}

/// Returns the change that an operation describes. The times of two changes differ, and so do their effects.
fn change_of(operation: &Operation, number: usize, snapshot: &Snapshot) -> Change {
    let number = i64::try_from(number).expect("few changes");
    let modify = |which: usize, change| match snapshot.targets() {
        [] => Change::DeleteTarget(Uuid::nil()),
        targets => {
            let id = targets[which % targets.len()].target.id;
            Change::ModifyTarget { id, change, now: at(1000 + number) }
        }
    };
    match operation {
        Operation::Create(export) => {
            let (target, first_type) = nfs(&format!("nas:/{export}"));
            // The clocks of the nodes differ, so a later target may have an earlier time.
            let created_at: Timestamp = at(number * 7 % 20);
            let target = Target { created_at, updated_at: created_at, ..target };
            create_target((target, TargetType { created_at, ..first_type }))
        }
        Operation::Delete(which) => {
            let ids: Vec<_> = snapshot.targets().iter().map(|found| found.target.id).collect();
            Change::DeleteTarget(ids.get(which % ids.len().max(1)).copied().unwrap_or_default())
        }
        Operation::SetDefault(which) => {
            modify(*which, TargetChange { is_default: Some(true), ..TargetChange::default() })
        }
        Operation::SetScope(which, restricts) => {
            let scope = restricts.then(|| scope(&[&format!("node-{number}")], &[]));
            modify(*which, TargetChange { scope: Some(scope), ..TargetChange::default() })
        }
    }
}

/// A content that a node showed.
struct Shown {
    node: usize,
    at: Instant,
    targets: Vec<Arc<RegisteredTarget>>,
}

/// A change that was sent to a node.
#[derive(Debug)]
struct SentChange {
    change: Change,
    /// Number of the client of the process.
    client: usize,
    began: Instant,
    answer: JoinHandle<(Instant, Result<Arc<Snapshot>, RegistryError>)>,
}

/// The running agent of a node.
struct Process {
    client: Arc<SimulatedClient>,
    number: usize,
    link: Link,
    store: Arc<ReplicaStore>,
    tasks: Vec<JoinHandle<()>>,
}

/// Reads the generation at an interval, as the renewals of a node's lease do.
async fn renew(client: Arc<SimulatedClient>, generation: ObservedKey) {
    loop {
        sleep(wait_after_success(INTERVAL)).await;
        let is_quorum = generation.needs_quorum();
        let read = RangeRequest { is_serializable: !is_quorum, ..RangeRequest::key(generation.key().to_owned()) };
        if let Ok(Some(found)) = client.range(&read).await.map(|answer| answer.entries.into_iter().next()) {
            generation.see(found.value, is_quorum);
        }
    }
}

struct Fleet {
    cluster: Arc<SimulatedCluster>,
    processes: Vec<Process>,
    started: usize,
    sent: Vec<SentChange>,
    shown: Arc<SyncMutex<Vec<Shown>>>,
}

impl Fleet {
    fn start() -> Self {
        let (cluster, shown) = (Arc::new(SimulatedCluster::default()), Arc::default());
        let mut fleet = Self { cluster, processes: Vec::new(), started: 0, sent: Vec::new(), shown };
        fleet.processes = (0..NODES).map(|node| fleet.process(node, MemoryStore::copy(), Link::Up)).collect();
        fleet
    }

    fn process(&mut self, node: usize, copy: MemoryStore, link: Link) -> Process {
        let (number, client) = (self.started, self.cluster.client(self.started));
        self.started += 1;
        client.set_link(link);
        let shared = Arc::new(EtcdRegistry::new(client.clone(), PREFIX));
        let renewals = tokio::spawn(renew(client.clone(), shared.observed_generation()));
        let store = Arc::new(ReplicaStore::new(copy, shared, INTERVAL, FleetSize::default()));
        let (followed, mut watched, shown) = (store.clone(), store.watch(), self.shown.clone());
        let watching = tokio::spawn(async move {
            while watched.changed().await.is_ok() {
                let targets = watched.borrow_and_update().targets().to_vec();
                shown.lock().expect("not poisoned").push(Shown { node, at: Instant::now(), targets });
            }
        });
        let following = tokio::spawn(async move { followed.follow().await });
        Process { client, number, link, store, tasks: vec![renewals, watching, following] }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Change(node, operation) => self.send(node, &operation),
            Action::Interrupt(node, operation, after, link) => {
                self.send(node, &operation);
                sleep(after).await;
                self.set_link(node, link);
            }
            Action::Link(node, link) => self.set_link(node, link),
            Action::Crash(node) => self.crash(node).await,
            Action::Elect => self.cluster.elect(),
            Action::Full(is_full) => self.cluster.set_full(is_full),
        }
    }

    fn send(&mut self, node: usize, operation: &Operation) {
        let Process { store, number, .. } = &self.processes[node];
        let change = change_of(operation, self.sent.len(), &store.snapshot());
        let (registry, sent) = (Registry::new(store.clone()), change.clone());
        let answer = tokio::spawn(async move {
            let outcome = registry.change(&sent).await;
            (Instant::now(), outcome)
        });
        self.sent.push(SentChange { change, client: *number, began: Instant::now(), answer });
    }

    fn set_link(&mut self, node: usize, link: Link) {
        // All nodes in the minority reach the same member.
        let is_separated = self.processes.iter().any(|process| process.link == Link::Minority);
        if link == Link::Minority && !is_separated {
            self.cluster.separate_minority();
        }
        self.processes[node].link = link;
        self.processes[node].client.set_link(link);
    }

    /// Nothing that the killed process does later reaches etcd or a client, except a request on its way.
    async fn crash(&mut self, node: usize) {
        let Process { client, number, link, store, tasks } = &self.processes[node];
        tasks.iter().for_each(JoinHandle::abort);
        self.sent.iter().filter(|sent| sent.client == *number).for_each(|sent| sent.answer.abort());
        client.set_link(Link::Cut);
        let (link, former) = (*link, store.snapshot());
        let copy = MemoryStore::copy();
        copy.put_cloud_id(store.replica.copy.cloud_id()).await.expect("in memory");
        let targets: Vec<_> = former.targets().iter().map(|found| RegisteredTarget::clone(found)).collect();
        let writes = difference::writes(&Snapshot::default(), &targets);
        copy.commit(Revision::default(), writes).await.expect("in memory");
        self.processes[node] = self.process(node, copy, link);
    }

    fn end_faults(&mut self) {
        self.cluster.set_full(false);
        (0..NODES).for_each(|node| self.set_link(node, Link::Up));
    }
}

/// A content of the registry.
struct Version {
    shared: SharedVersion,
    /// When it was committed.
    at: Instant,
    client: Option<usize>,
    content: Snapshot,
}

/// Returns all contents that the registry had, and checks each one.
async fn versions(cluster: &SimulatedCluster) -> Vec<Version> {
    let (registry, meta) = (format!("/{PREFIX}/v1/registry/"), format!("/{PREFIX}/v1/meta/"));
    let (writes, generation_key) = (cluster.writes(), format!("{registry}generation"));
    let is_generation = |write: &&RecordedWrite| write.key == generation_key;
    let generations: Vec<_> = writes.iter().filter(is_generation).collect();
    let values: HashSet<_> = generations.iter().map(|write| &write.value).collect();
    assert_eq!(values.len(), generations.len(), "a generation came back");
    for write in &writes {
        let is_created = generations.first().is_some_and(|first| first.revision == write.revision);
        let is_versioned = generations.iter().any(|generation| generation.revision == write.revision);
        assert!(!write.key.starts_with(registry.as_bytes()) || is_versioned, "without a generation: {write:?}");
        assert!(!write.key.starts_with(meta.as_bytes()) || is_created, "created again: {write:?}");
    }
    let mut versions = Vec::new();
    for write in generations {
        // The reader refuses exports, types and defaults that do not agree.
        let frozen = EtcdRegistry::new(cluster.at(write.revision).client(0), PREFIX);
        let SharedContent { version: shared, targets } = frozen.read().await.expect("a consistent registry");
        assert_well_formed(&targets);
        versions.push(Version { shared, at: write.at, client: write.client, content: Snapshot::new(targets) });
    }
    versions
}

fn assert_well_formed(targets: &[RegisteredTarget]) {
    let ids: HashSet<_> = targets.iter().map(|found| found.target.id).collect();
    let exports: HashSet<_> = targets.iter().map(|found| found.target.spec.export()).collect();
    assert_eq!((ids.len(), exports.len()), (targets.len(), targets.len()), "an id or an export twice");
    let defaults = targets.iter().filter(|found| found.target.is_default).count();
    assert_eq!(defaults, usize::from(!targets.is_empty()), "defaults of {targets:?}");
}

/// A change with its outcome.
struct EndedChange {
    change: Change,
    client: usize,
    began: Instant,
    /// `None`: the process was killed before it answered.
    answer: Option<(Instant, Result<Arc<Snapshot>, RegistryError>)>,
    /// The version that it made.
    made: Option<usize>,
}

impl EndedChange {
    async fn of(sent: SentChange) -> Self {
        let SentChange { change, client, began, answer } = sent;
        assert!(answer.is_finished(), "no answer to {change:?}");
        let answer = match answer.await {
            Ok(answer) => Some(answer),
            Err(error) if error.is_cancelled() => None,
            Err(error) => panic!("{change:?}: {error}"),
        };
        Self { change, client, began, answer, made: None }
    }

    /// Whether it may have made a version from the one before.
    fn explains(&self, before: &Version, after: &Version) -> bool {
        self.made.is_none()
            && Some(self.client) == after.client
            && self.began <= after.at
            && changed(&before.content, &self.change)
                .is_ok_and(|content| content.ordered_by_creation().targets() == after.content.targets())
    }

    fn assert_answer(&self, versions: &[Version]) {
        let Self { change, began, answer, made, .. } = self;
        match answer {
            // It was made at most once.
            None | Some((_, Err(RegistryError::Fleet(SharedChangeError::Uncertain(_))))) => {}
            Some((at, Ok(content))) => match made {
                Some(made) => {
                    assert_eq!(content.targets(), versions[*made].content.targets(), "answer to {change:?}");
                    assert!(versions[*made].at <= *at, "acknowledged too early: {change:?}");
                }
                None => {
                    let decided = rules::decide(content, change);
                    assert_eq!(decided, Ok(Vec::new()), "acknowledged and never made: {change:?}");
                    // The content was the latest one at some time during the request.
                    let is_current = |(number, version): (usize, &Version)| {
                        let ends = versions.get(number + 1).map(|next| next.at);
                        version.content.targets() == content.targets()
                            && version.at <= *at
                            && ends.is_none_or(|ends| ends >= *began)
                    };
                    assert!(versions.iter().enumerate().any(is_current), "decided for an old version: {change:?}");
                }
            },
            Some((_, Err(error))) => {
                assert!(!error.to_string().contains("aborted"), "{error}: {change:?}");
                assert_eq!(*made, None, "made in spite of the answer {error}: {change:?}");
            }
        }
    }
}

/// Every version is the one before it with one change, or the same content after a change that was settled.
fn explain(versions: &[Version], changes: &mut [EndedChange]) {
    for (number, pair) in versions.windows(2).enumerate() {
        let [before, after] = pair else { continue };
        if before.content.targets() == after.content.targets() {
            continue;
        }
        let doubt = |change: &EndedChange| match &change.answer {
            Some((at, Ok(_))) if *at >= after.at => 0,
            None | Some((_, Err(RegistryError::Fleet(SharedChangeError::Uncertain(_))))) => 1,
            Some(_) => 2,
        };
        let possible = changes.iter_mut().filter(|change| change.explains(before, after));
        match possible.min_by_key(|change| doubt(change)) {
            Some(cause) => cause.made = Some(number + 1),
            None => panic!("no change makes {:?} of {:?}", after.content.targets(), before.content.targets()),
        }
    }
}

/// Each node showed contents that the registry had, and never an older one than before.
fn assert_shown(versions: &[Version], shown: &[Shown]) {
    let mut latest = [0; NODES];
    for Shown { node, at, targets } in shown {
        let is_shown = |version: &Version| version.at <= *at && version.content.targets() == targets;
        let skipped = versions.iter().skip(latest[*node]).position(is_shown);
        let skipped = skipped.unwrap_or_else(|| panic!("node {node} shows an older content or a mixture: {targets:?}"));
        latest[*node] += skipped;
    }
}

/// `entries_max`: largest number of keys in the answer to one read. A small one makes the reads of a content long.
async fn check(actions: Vec<(Duration, Action)>, entries_max: Option<usize>) {
    let mut fleet = Fleet::start();
    fleet.cluster.set_entries_max(entries_max);
    for (wait, action) in actions {
        sleep(wait).await;
        fleet.act(action).await;
    }
    fleet.end_faults();
    // A change arrives within two intervals.
    sleep(Duration::from_secs(DELAY_MAX) + INTERVAL * 2 + REQUEST_TIMEOUT).await;
    let versions = versions(&fleet.cluster).await;
    let latest = versions.last().expect("created").content.targets();
    for process in &fleet.processes {
        assert_eq!(process.store.snapshot().targets(), latest, "{:?}", process.store.replica_status());
    }
    let mut changes = Vec::new();
    for sent in std::mem::take(&mut fleet.sent) {
        changes.push(EndedChange::of(sent).await);
    }
    explain(&versions, &mut changes);
    changes.iter().for_each(|change| change.assert_answer(&versions));
    assert_shown(&versions, &fleet.shown.lock().expect("not poisoned"));
}

#[tokio::test(start_paused = true)]
async fn content_in_pages_is_one_version_while_another_node_changes_it() {
    let cluster = Arc::new(SimulatedCluster::default());
    let shared = Arc::new(EtcdRegistry::new(cluster.client(0), PREFIX));
    let store = ReplicaStore::new(MemoryStore::copy(), shared, INTERVAL, FleetSize::default());
    let registry = Registry::new(Arc::new(store));
    for export in 0..6 {
        create(&registry, nfs(&format!("nas:/{export}"))).await;
    }
    cluster.set_entries_max(Some(1));
    let changing = tokio::spawn(async move {
        for number in 0..60 {
            let change = change_of(&Operation::SetDefault(number), number, &registry.snapshot());
            registry.change(&change).await.expect("changed");
        }
    });
    let (reader, mut contents) = (EtcdRegistry::new(cluster.client(1), PREFIX), Vec::new());
    while !changing.is_finished() {
        contents.push(reader.read().await.expect("consistent"));
    }
    changing.await.expect("finished");
    let versions = versions(&cluster).await;
    for SharedContent { version, targets } in contents {
        let expected = versions.iter().find(|known| known.shared == version).expect("committed");
        assert_eq!(Snapshot::new(targets).targets(), expected.content.targets());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_are_serialized_under_any_sequence_of_faults(
        actions in prop::collection::vec((wait(), action()), 0..80),
        entries_max in prop::option::of(1..4_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(check(actions, entries_max));
    }
}
