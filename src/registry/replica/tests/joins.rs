//! Tests of nodes that join and leave a shared registry.

use super::super::join::FormerRegistry;
use super::*;
use crate::registry::replica::fake::SharedFault;

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
