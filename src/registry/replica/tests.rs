//! Tests of several nodes that share a registry, with faults of it.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::fake::{FakeSharedRegistry, SharedFault};
use super::join::FormerRegistry;
use super::*;
use crate::etcd::simulation::SimulatedCluster;
use crate::model::Status;
use crate::model::{Target, TargetId, TargetType};
use crate::registry::contract::{own_mount, transition};
use crate::registry::fixtures::{at, create, create_target, new_type, nfs, s3, scope};
use crate::registry::rules::tests::properties::{change_of, operation};
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Change, EtcdRegistry, MemoryStore, Refusal, Registry, RegistryError, TargetChange};

const INTERVAL: Duration = Duration::from_secs(20);

/// A node with its copy.
struct Node {
    store: Arc<ReplicaStore>,
    fleet_size: FleetSize,
    registry: Registry,
    path: PathBuf,
    directory: TempDir,
}

impl Node {
    fn start(shared: &FakeSharedRegistry) -> Self {
        Self::start_in(shared, tempfile::tempdir().expect("a directory"))
    }

    fn start_in(shared: &FakeSharedRegistry, directory: TempDir) -> Self {
        let path = directory.path().join("registry.db");
        let copy = SqliteStore::open_copy(&path).expect("opened");
        let fleet_size = FleetSize::default();
        let store = Arc::new(ReplicaStore::new(copy, Arc::new(shared.clone()), INTERVAL, fleet_size.clone()));
        Self { registry: Registry::new(store.clone()), store, fleet_size, path, directory }
    }

    async fn stop(self) -> TempDir {
        self.store.close().await;
        self.directory
    }

    async fn restart(self, shared: &FakeSharedRegistry) -> Self {
        Self::start_in(shared, self.stop().await)
    }

    fn exports(&self) -> Vec<String> {
        self.registry.snapshot().targets().iter().map(|found| found.target.spec.export()).collect()
    }

    async fn default(&self, id: TargetId) -> Result<(), RegistryError> {
        let change = TargetChange { is_default: Some(true), ..TargetChange::default() };
        self.registry.change(&Change::ModifyTarget { id, change, now: at(9) }).await.map(drop)
    }

    fn status(&self) -> ReplicaStatus {
        self.registry.replica_status().expect("a replica")
    }
}

/// A directory with a registry of a single node that contains these targets.
async fn single(exports: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(SqliteStore::open(&directory.path().join("registry.db")).expect("created"));
    let registry = Registry::new(store.clone());
    for export in exports {
        create(&registry, nfs(export)).await;
    }
    store.close().await;
    directory
}

fn is_unavailable<T>(outcome: &Result<T, RegistryError>) -> bool {
    matches!(outcome, Err(RegistryError::Fleet(SharedChangeError::Unavailable(_))))
}

#[tokio::test]
async fn change_on_one_node_reaches_the_others_at_their_next_comparison() {
    let shared = FakeSharedRegistry::new();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    let a = create(&first.registry, nfs("nas:/a")).await.target.id;
    assert_eq!(first.exports(), ["nas:/a"], "visible at once where it was made");
    assert!(second.store.compare().await);
    let b = create(&second.registry, nfs("nas:/b")).await.target.id;
    second.default(b).await.expect("changed");
    assert!(first.store.compare().await);
    assert_eq!(first.registry.snapshot().targets(), second.registry.snapshot().targets());
    assert_eq!(first.registry.snapshot().default_target().expect("one").target.id, b);
    first.registry.change(&Change::DeleteTarget(a)).await.expect("deleted");
    assert!(second.store.compare().await);
    assert_eq!(second.exports(), ["nas:/b"]);
    let reads = shared.reads();
    assert!(second.store.compare().await && first.store.compare().await);
    assert_eq!(shared.reads(), reads, "nothing is read while nothing changes");
}

/// Gives a target the scope of one node.
async fn restrict(registry: &Registry, id: TargetId) -> Result<(), RegistryError> {
    let change = TargetChange { scope: Some(Some(scope(&["a"], &[]))), ..TargetChange::default() };
    registry.change(&Change::ModifyTarget { id, change, now: at(9) }).await.map(drop)
}

#[tokio::test]
async fn scope_reaches_other_nodes_and_survives_a_restart() {
    let shared = FakeSharedRegistry::new();
    let (first, mut second) = (Node::start(&shared), Node::start(&shared));
    let id = create(&first.registry, nfs("nas:/a")).await.target.id;
    restrict(&first.registry, id).await.expect("shared");
    assert!(second.store.compare().await);
    for _ in 0..2 {
        let snapshot = second.registry.snapshot();
        assert_eq!(snapshot.target(id).expect("there").target.scope, Some(scope(&["a"], &[])));
        second = second.restart(&shared).await;
    }
}

#[tokio::test]
async fn scope_needs_a_registry_that_nodes_share() {
    let directory = single(&["nas:/a"]).await;
    let shared = FakeSharedRegistry::new();
    let unjoined = Node::start_in(&shared, directory);
    let alone = Registry::new(Arc::new(MemoryStore::default()));
    create(&alone, nfs("nas:/a")).await;
    for (registry, part) in [(&unjoined.registry, "has not joined"), (&alone, "has a registry of its own")] {
        let id = registry.snapshot().targets()[0].target.id;
        let (target, first_type) = nfs("nas:/b");
        let new = create_target((Target { scope: Some(scope(&["a"], &[])), ..target }, first_type));
        let created = registry.change(&new).await.map(drop);
        for refused in [restrict(registry, id).await, created] {
            let error = refused.expect_err("refused");
            let message = error.to_string();
            assert!(matches!(error, RegistryError::NoFleet(_)) && message.contains(part), "{message}");
        }
        let reset = TargetChange { scope: Some(None), ..TargetChange::default() };
        registry.change(&Change::ModifyTarget { id, change: reset, now: at(9) }).await.expect("it has none");
    }
}

#[tokio::test]
async fn joining_keeps_the_scope_that_a_node_took_from_another_registry() {
    let former = FakeSharedRegistry::new();
    let node = Node::start(&former);
    let id = create(&node.registry, nfs("nas:/a")).await.target.id;
    restrict(&node.registry, id).await.expect("shared");
    let (path, _directory) = (node.path.clone(), node.stop().await);
    let new = FakeSharedRegistry::new();
    join::apply(&path, &new, FormerRegistry::LeaveWithTargets).await.expect("joined");
    let taken = new.read().await.expect("read").targets;
    assert_eq!(taken[0].target.scope, Some(scope(&["a"], &[])));
}

#[tokio::test]
async fn change_decided_for_old_content_is_decided_again() {
    let shared = FakeSharedRegistry::new();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    assert!(second.store.compare().await);
    create(&first.registry, nfs("nas:/a")).await;
    let refused = second.registry.change(&create_target(nfs("other:/a"))).await;
    let refusal = refused.expect_err("refused");
    assert!(matches!(refusal, RegistryError::Refused(Refusal::MountPathTaken { .. })), "{refusal}");
    create(&second.registry, nfs("nas:/b")).await;
    assert!(first.store.compare().await);
    assert_eq!((first.exports(), second.exports()), (second.exports(), vec!["nas:/a".to_owned(), "nas:/b".to_owned()]));
}

#[tokio::test]
async fn node_goes_on_without_the_shared_registry_and_refuses_changes() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    let a = create(&node.registry, nfs("nas:/a")).await.target.id;
    shared.set(SharedFault::Down);
    let refused = node.registry.change(&create_target(nfs("nas:/b"))).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    let message = refused.expect_err("refused").to_string();
    assert!(message.starts_with("fleet_unavailable: ") && message.contains("no member answers"), "{message}");
    assert!(is_unavailable(&node.registry.verify(&Change::DeleteTarget(a)).await));
    let node = node.restart(&shared).await;
    assert_eq!(node.exports(), ["nas:/a"]);
    assert!(!node.store.compare().await);
    assert!(node.status().is_joined && node.status().problem.is_some());
    assert!(node.registry.verify_writable().await.is_err());
    assert!(is_unavailable(&node.registry.change(&create_target(nfs("nas:/b"))).await));
    node.registry.add_transitions(vec![transition(a, 1, Status::Available)]).await.expect("written");
    node.registry.put_own_mounts(vec![(a, Some(own_mount(1)))]).await.expect("written");
    shared.set(None);
    assert!(node.store.compare().await);
    node.registry.verify_writable().await.expect("writable again");
    create(&node.registry, nfs("nas:/b")).await;
    assert_eq!(node.exports(), ["nas:/a", "nas:/b"]);
}

#[tokio::test]
async fn empty_node_joins_when_the_shared_registry_is_available() {
    let shared = FakeSharedRegistry::new();
    let first = Node::start(&shared);
    create(&first.registry, nfs("nas:/a")).await;
    shared.set(SharedFault::Down);
    let node = Node::start(&shared);
    assert!(!node.store.compare().await);
    assert!(is_unavailable(&node.registry.change(&create_target(nfs("nas:/b"))).await), "it would be lost later");
    shared.set(None);
    assert!(node.store.compare().await);
    assert_eq!(node.exports(), ["nas:/a"]);
    assert!(node.status().is_joined);
}

#[tokio::test]
async fn node_with_targets_of_its_own_stays_a_single_node() {
    let shared = FakeSharedRegistry::new();
    let first = Node::start(&shared);
    create(&first.registry, nfs("nas:/a")).await;
    for fault in [None, Some(SharedFault::Down)] {
        shared.set(fault);
        let node = Node::start_in(&shared, single(&["nas:/own"]).await);
        assert!(node.store.compare().await);
        assert!(!node.status().is_joined);
        create(&node.registry, nfs("nas:/more")).await;
        node.registry.verify_writable().await.expect("writable");
        assert_eq!(node.exports(), ["nas:/own", "nas:/more"]);
    }
    assert_eq!(shared.snapshot().targets().len(), 1, "nothing was moved there");
}

#[tokio::test]
async fn change_whose_answer_is_lost_is_found_at_the_next_comparison() {
    for (fault, expected) in [(SharedFault::LostAnswer, 2), (SharedFault::LostRequest, 1)] {
        let shared = FakeSharedRegistry::new();
        let node = Node::start(&shared);
        create(&node.registry, nfs("nas:/a")).await;
        shared.set(fault);
        let outcome = node.registry.change(&create_target(nfs("nas:/b"))).await;
        assert!(matches!(outcome, Err(RegistryError::Fleet(SharedChangeError::Uncertain(_)))), "{outcome:?}");
        assert!(node.store.compare().await);
        assert_eq!(node.exports().len(), expected, "{fault:?}");
        assert_eq!(node.registry.snapshot().targets(), shared.snapshot().targets());
    }
}

#[tokio::test]
async fn old_version_of_a_minority_changes_nothing() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    let before = node.registry.snapshot();
    shared.set(SharedFault::OldVersion);
    assert!(node.store.compare().await);
    assert_eq!(node.registry.snapshot(), before);
}

#[tokio::test]
async fn member_that_is_cut_off_is_not_followed_for_ever() {
    let shared = FakeSharedRegistry::new();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    create(&first.registry, nfs("nas:/a")).await;
    assert!(second.store.compare().await);
    let compared_at = second.status().compared_at.expect("compared");
    shared.freeze_version();
    create(&first.registry, nfs("nas:/b")).await;
    for _ in 1..QUORUM_EVERY {
        assert!(second.store.compare().await);
        assert_eq!(second.status().compared_at, Some(compared_at), "no quorum confirmed it");
    }
    assert_eq!(second.exports(), ["nas:/a"]);
    assert!(second.store.compare().await);
    assert_eq!(second.exports(), ["nas:/a", "nas:/b"]);
    assert!(second.status().compared_at > Some(compared_at));
}

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
async fn change_is_refused_when_it_cannot_be_sent_in_time() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    tokio::time::pause();
    let comparison = node.store.replica.state.lock().await;
    let refused = node.registry.change(&create_target(nfs("nas:/b"))).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    drop(comparison);
    shared.set(SharedFault::EndlessRead);
    node.store.replica.state.lock().await.version = None;
    let refused = node.registry.change(&create_target(nfs("nas:/b"))).await;
    assert!(is_unavailable(&refused), "{refused:?}");
    tokio::time::resume();
    shared.set(None);
    create(&node.registry, nfs("nas:/b")).await;
    assert_eq!(node.exports(), ["nas:/a", "nas:/b"]);
}

#[tokio::test]
async fn registry_of_another_cloud_is_refused() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    shared.replace();
    assert!(!node.store.compare().await);
    let problem = node.status().problem.expect("a problem");
    assert!(problem.contains("this node joined") && problem.contains("fleet join"), "{problem}");
    assert!(is_unavailable(&node.registry.change(&create_target(nfs("nas:/b"))).await));
    let node = node.restart(&shared).await;
    assert!(!node.store.compare().await);
    assert_eq!(node.exports(), ["nas:/a"], "nothing is removed");
    assert!(shared.snapshot().targets().is_empty());
}

#[tokio::test]
async fn copy_that_cannot_be_stored_is_reported_and_repaired() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    // The store refuses to write to a file that is no longer at its path.
    let away = node.path.with_extension("away");
    #[allow(clippy::disallowed_methods, reason = "files in a temporary directory")]
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).expect("renamed");
    rename(&node.path, &away);
    let outcome = node.registry.change(&create_target(nfs("nas:/b"))).await;
    assert!(matches!(outcome, Err(RegistryError::Fleet(SharedChangeError::CopyFailed(_)))), "{outcome:?}");
    rename(&away, &node.path);
    assert!(node.store.compare().await);
    assert_eq!(node.exports(), ["nas:/a", "nas:/b"]);
}

#[tokio::test]
async fn change_as_a_single_node_ends_the_membership() {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    let directory = node.stop().await;
    let path = directory.path().join("registry.db");
    for (change, is_joined) in [(None, true), (Some("nas:/own"), false)] {
        let alone = Arc::new(SqliteStore::open(&path).expect("opened"));
        if let Some(export) = change {
            create(&Registry::new(alone.clone()), nfs(export)).await;
        }
        alone.close().await;
        let copy = SqliteStore::open_copy(&path).expect("opened");
        assert_eq!(copy.cloud_id().is_some(), is_joined);
        copy.close().await;
    }
    let node = Node::start_in(&shared, directory);
    assert!(node.store.compare().await);
    assert_eq!(node.exports(), ["nas:/a", "nas:/own"], "the change is kept");
}

#[tokio::test]
async fn names_and_defaults_that_move_between_targets_are_copied() {
    let shared = FakeSharedRegistry::new();
    let (first, second) = (Node::start(&shared), Node::start(&shared));
    let a = create(&first.registry, nfs("nas:/a")).await;
    let b = create(&first.registry, s3("https://ceph.example/bucket")).await;
    assert!(second.store.compare().await);
    let rename = async |id: TargetId, name: &str| {
        let change = TargetChange { type_name: Some(name.to_owned()), ..TargetChange::default() };
        first.registry.change(&Change::ModifyTarget { id, change, now: at(5) }).await.expect("renamed");
    };
    rename(a.target.id, "free").await;
    rename(b.target.id, &a.types[0].name).await;
    rename(a.target.id, &b.types[0].name).await;
    first.default(b.target.id).await.expect("changed");
    let new = TargetType { is_default: true, ..new_type(a.target.id, "second") };
    first.registry.change(&Change::CreateType(new)).await.expect("created");
    assert!(second.store.compare().await);
    assert_eq!(second.registry.snapshot().targets(), first.registry.snapshot().targets());
    // A target that was deleted and created again has the directory of the former one.
    first.default(b.target.id).await.expect("changed");
    first.registry.change(&Change::DeleteTarget(a.target.id)).await.expect("deleted");
    rename(b.target.id, "free").await;
    create(&first.registry, nfs("nas:/a")).await;
    assert!(second.store.compare().await);
    assert_eq!(second.registry.snapshot().targets(), first.registry.snapshot().targets());
}

#[tokio::test]
async fn join_moves_targets_and_keeps_former_ids_as_aliases() {
    let shared = FakeSharedRegistry::new();
    let first = Node::start(&shared);
    let here = create(&first.registry, nfs("nas:/shared")).await;
    create(&first.registry, nfs("nas:/elsewhere")).await;
    let directory = single(&["nas:/own", "nas:/shared"]).await;
    let path = directory.path().join("registry.db");
    let plan = join::plan(&path, &shared, FormerRegistry::Stay).await.expect("planned");
    let actions = |plan: &join::JoinPlan| plan.targets.iter().map(|planned| planned.action.clone()).collect::<Vec<_>>();
    let (added, renamed) = (join::JoinAction::Added, join::JoinAction::Renamed(here.target.id));
    assert_eq!((actions(&plan), plan.received), (vec![added, renamed], 1));
    assert_eq!(shared.snapshot().targets().len(), 2, "a plan changes nothing");
    let applied = join::apply(&path, &shared, FormerRegistry::Stay).await.expect("joined");
    assert_eq!(actions(&applied), actions(&plan));
    let former = plan.targets[1].id;

    let node = Node::start_in(&shared, directory);
    assert!(node.status().is_joined && node.store.compare().await);
    assert_eq!(node.exports(), ["nas:/shared", "nas:/elsewhere", "nas:/own"], "the order of their creation");
    assert_eq!(node.registry.snapshot().targets(), shared.snapshot().targets());
    assert_eq!(node.registry.snapshot().default_target().expect("one").target.id, here.target.id);
    assert_eq!(node.registry.current_target_id(former), here.target.id);
    assert!(first.store.compare().await);
    assert_eq!(first.exports(), node.exports());
    let directory = node.stop().await;
    let again =
        join::apply(&directory.path().join("registry.db"), &shared, FormerRegistry::Stay).await.expect("repeated");
    assert!(again.is_joined_already, "{again:?}");
}

#[tokio::test]
async fn repeated_join_does_not_restore_deleted_targets() {
    let shared = FakeSharedRegistry::new();
    let first = Node::start(&shared);
    create(&first.registry, nfs("nas:/default")).await;
    let deleted = create(&first.registry, nfs("nas:/deleted")).await;
    let node = Node::start(&shared);
    assert!(node.store.compare().await);
    let directory = node.stop().await;
    first.registry.change(&Change::DeleteTarget(deleted.target.id)).await.expect("deleted");
    let path = directory.path().join("registry.db");
    for former in [FormerRegistry::Stay, FormerRegistry::Leave, FormerRegistry::LeaveWithTargets] {
        assert!(join::plan(&path, &shared, former).await.expect("planned").is_joined_already);
        assert!(join::apply(&path, &shared, former).await.expect("no change").is_joined_already);
    }
    assert_eq!(shared.snapshot().targets().len(), 1);
}

#[tokio::test]
async fn first_node_that_joins_keeps_its_default() {
    let shared = FakeSharedRegistry::new();
    let directory = single(&["nas:/a", "nas:/b"]).await;
    join::apply(&directory.path().join("registry.db"), &shared, FormerRegistry::Stay).await.expect("joined");
    let node = Node::start_in(&shared, directory);
    let before = node.registry.snapshot();
    assert!(node.store.compare().await);
    assert_eq!(node.registry.snapshot().targets(), before.targets());
    assert_eq!(before.default_target().expect("one").target.spec.export(), "nas:/a");
}

#[tokio::test]
async fn join_with_a_conflict_changes_nothing() {
    let shared = FakeSharedRegistry::new();
    let first = Node::start(&shared);
    create(&first.registry, nfs("nas:/a")).await;
    let directory = single(&["nas:/own", "other:/a"]).await;
    let path = directory.path().join("registry.db");
    let plan = join::plan(&path, &shared, FormerRegistry::Stay).await.expect("planned");
    assert!(
        matches!(&plan.targets[1].action, join::JoinAction::Conflict(problem) if problem.contains("nas:/a")),
        "{plan:?}"
    );
    let error = join::apply(&path, &shared, FormerRegistry::Stay).await.expect_err("refused").to_string();
    assert!(error.contains("other:/a"), "{error}");
    assert_eq!(shared.snapshot().targets().len(), 1);
    assert!(!Node::start_in(&shared, directory).status().is_joined);
}

#[tokio::test]
async fn join_is_completed_when_it_is_repeated() {
    let shared = FakeSharedRegistry::new();
    let directory = single(&["nas:/a", "nas:/b"]).await;
    let path = directory.path().join("registry.db");
    for fault in [SharedFault::Down, SharedFault::LostRequest, SharedFault::LostAnswer] {
        shared.set(fault);
        join::apply(&path, &shared, FormerRegistry::Stay).await.expect_err("no answer");
    }
    shared.set(None);
    join::apply(&path, &shared, FormerRegistry::Stay).await.expect("joined");
    assert_eq!(shared.snapshot().targets().len(), 2);
    assert_eq!(shared.snapshot().targets().iter().filter(|found| found.target.is_default).count(), 1);
}

/// A node that has joined a cloud with the targets a and b, and the registry of another cloud.
async fn member_of_another_cloud() -> (TempDir, FakeSharedRegistry) {
    let shared = FakeSharedRegistry::new();
    let node = Node::start(&shared);
    create(&node.registry, nfs("nas:/a")).await;
    create(&node.registry, nfs("nas:/b")).await;
    shared.replace();
    let directory = node.stop().await;
    let path = directory.path().join("registry.db");
    let refused = join::apply(&path, &shared, FormerRegistry::Stay).await;
    assert!(matches!(refused, Err(join::JoinError::AnotherCloud { .. })), "{refused:?}");
    (directory, shared)
}

#[tokio::test]
async fn node_that_leaves_a_cloud_does_not_move_its_targets() {
    let (directory, shared) = member_of_another_cloud().await;
    let first = Node::start(&shared);
    let there = create(&first.registry, nfs("nas:/b")).await.target.id;
    create(&first.registry, nfs("nas:/c")).await;
    let path = directory.path().join("registry.db");
    let plan = join::plan(&path, &shared, FormerRegistry::Leave).await.expect("planned");
    let actions: Vec<_> = plan.targets.iter().map(|planned| planned.action.clone()).collect();
    assert_eq!((actions, plan.received), (vec![join::JoinAction::Left, join::JoinAction::Renamed(there)], 1));
    let before = shared.snapshot();
    join::apply(&path, &shared, FormerRegistry::Leave).await.expect("joined");
    assert_eq!(shared.snapshot(), before, "nothing was added to the other cloud");
    let node = Node::start_in(&shared, directory);
    assert_eq!(node.exports(), ["nas:/b", "nas:/c"]);
    assert_eq!(node.registry.current_target_id(plan.targets[1].id), there);
    assert!(node.store.compare().await);
    assert_eq!(node.registry.snapshot().targets(), shared.snapshot().targets());
}

#[tokio::test]
async fn registry_of_a_lost_etcd_is_made_again_from_a_copy() {
    let (directory, shared) = member_of_another_cloud().await;
    let path = directory.path().join("registry.db");
    join::apply(&path, &shared, FormerRegistry::LeaveWithTargets).await.expect("joined");
    assert_eq!(shared.snapshot().targets().len(), 2);
    let node = Node::start_in(&shared, directory);
    assert!(node.store.compare().await);
    assert_eq!(node.exports(), ["nas:/a", "nas:/b"]);
}

/// A directory with a single node's target that has this many types. The last one is the default.
async fn target_with_types(count: usize) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(SqliteStore::open(&directory.path().join("registry.db")).expect("created"));
    let registry = Registry::new(store.clone());
    let id = create(&registry, nfs("nas:/a")).await.target.id;
    for n in 1..count {
        let new = TargetType { is_default: n == count - 1, ..new_type(id, &format!("type {n}")) };
        registry.change(&Change::CreateType(new)).await.expect("created");
    }
    store.close().await;
    directory
}

#[tokio::test]
async fn target_with_many_types_joins_in_several_commits() {
    let shared = FakeSharedRegistry::new();
    let (before, directory) = (Node::start(&shared), target_with_types(250).await);
    let path = directory.path().join("registry.db");
    // Interrupted after the first commit, and again after the second one.
    for commits in [1, 2] {
        shared.set(SharedFault::DownAfter(1));
        join::apply(&path, &shared, FormerRegistry::Stay).await.expect_err("interrupted");
        shared.set(None);
        assert!(before.store.compare().await, "what other nodes see is whole");
        assert_eq!(before.registry.snapshot().types().count(), commits * 100 - 1);
    }
    join::apply(&path, &shared, FormerRegistry::Stay).await.expect("joined");
    let node = Node::start_in(&shared, directory);
    assert!(node.store.compare().await && before.store.compare().await);
    let names: Vec<String> = node.registry.snapshot().types().map(|kept| kept.name.clone()).collect();
    assert_eq!((names.len(), &*names[0], &*names[249]), (250, "nas:/a", "type 249"), "their order is kept");
    let snapshot = node.registry.snapshot();
    assert!(snapshot.targets()[0].types[249].is_default && snapshot.targets()[0].target.is_default);
    assert_eq!(snapshot.types().filter(|kept| kept.is_default).count(), 1);
    assert_eq!(before.registry.snapshot().targets(), snapshot.targets());
}

#[tokio::test]
async fn order_of_targets_and_types_is_the_same_on_all_nodes() {
    let shared = FakeSharedRegistry::new();
    let directory = target_with_types(3).await;
    let first = Node::start(&shared);
    create(&first.registry, nfs("nas:/later")).await;
    join::apply(&directory.path().join("registry.db"), &shared, FormerRegistry::Stay).await.expect("joined");
    let joined = Node::start_in(&shared, directory);
    // A type of a node whose clock is behind.
    let id = joined.registry.snapshot().targets()[0].target.id;
    let early = TargetType { created_at: at(0), ..new_type(id, "early clock") };
    joined.registry.change(&Change::CreateType(early)).await.expect("created");
    let late = Node::start(&shared);
    assert!(first.store.compare().await && late.store.compare().await);
    let joined = joined.restart(&shared).await;
    for node in [&first, &joined, &late] {
        assert_eq!(node.exports(), ["nas:/a", "nas:/later"]);
        let snapshot = node.registry.snapshot();
        let names: Vec<&str> = snapshot.targets()[0].types.iter().map(|kept| &*kept.name).collect();
        assert_eq!(names, ["nas:/a", "type 1", "type 2", "early clock"]);
        assert_eq!(snapshot.targets(), shared.snapshot().targets());
    }
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Changes on three nodes, comparisons and faults, in any order.
    #[test]
    fn nodes_agree_after_any_interleaving(
        steps in prop::collection::vec((operation(), 0..3_usize, 0..6_u8), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let shared = FakeSharedRegistry::new();
            let nodes = [(); 3].map(|()| Node::start(&shared));
            for (operation, at, fault) in steps {
                shared.set(match fault {
                    0 => Some(SharedFault::Down),
                    1 => Some(SharedFault::LostAnswer),
                    2 => Some(SharedFault::LostRequest),
                    _ => None,
                });
                let node = &nodes[at];
                let outcome = node.registry.change(&change_of(operation, &node.registry.snapshot())).await;
                prop_assert!(fault != 0 || outcome.is_err() || outcome.is_ok_and(|now| now == node.registry.snapshot()));
                let snapshot = shared.snapshot();
                let defaults = snapshot.targets().iter().filter(|found| found.target.is_default).count();
                prop_assert!(defaults <= 1);
            }
            shared.set(None);
            for node in &nodes {
                prop_assert!(node.store.compare().await, "{:?}", node.status());
                let (copy, shared) = (node.registry.snapshot(), shared.snapshot());
                prop_assert_eq!(copy.targets(), shared.targets());
            }
            Ok(())
        })?;
    }
}
