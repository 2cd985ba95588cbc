//! The contract of [`Store`], as tests that every implementation passes.
//!
//! A new store adds one line to `contract!`: the function that makes an empty store.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::fixtures::{at, create, create_target, new_type, nfs, project, s3, scope, target};
use super::memory::MemoryStore;
use super::replica::ReplicaStore;
use super::replica::fake::FakeSharedRegistry;
use super::rules::tests::properties::{change_of, operation};
use super::shared::SharedRegistry;
use super::sqlite::SqliteStore;
use super::*;
use crate::etcd::FleetSize;
use crate::etcd::simulation::SimulatedCluster;
use crate::model::report::Finding;
use crate::model::{
    CanaryLeftover, CanaryRecord, OwnMountId, Reason, Status, Target, TargetId, TargetType, Transition,
};

/// An empty store, and the directory that must live as long as it.
struct Fixture {
    store: Arc<dyn Store>,
    _directory: Option<TempDir>,
}

fn memory() -> Fixture {
    Fixture { store: Arc::new(MemoryStore::default()), _directory: None }
}

fn sqlite() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&directory.path().join("registry.db")).expect("created");
    Fixture { store: Arc::new(store), _directory: Some(directory) }
}

fn replica() -> Fixture {
    sharing(FakeSharedRegistry::new())
}

fn etcd() -> Fixture {
    let cluster = Arc::new(SimulatedCluster::default());
    sharing(EtcdRegistry::new(cluster.client(0), "cloud"))
}

/// A node that shares this registry.
fn sharing(shared: impl SharedRegistry + 'static) -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = SqliteStore::open_copy(&directory.path().join("registry.db")).expect("created");
    let store = ReplicaStore::new(copy, Arc::new(shared), Duration::from_secs(20), FleetSize::default());
    Fixture { store: Arc::new(store), _directory: Some(directory) }
}

macro_rules! contract {
    ($($store:ident)*) => {$(
        mod $store {
            #[tokio::test]
            async fn commit_is_refused_at_another_revision() {
                super::commit_is_refused_at_another_revision(super::$store()).await;
            }
            #[tokio::test]
            async fn empty_commit_keeps_the_revision() {
                super::empty_commit_keeps_the_revision(super::$store()).await;
            }
            #[tokio::test]
            async fn one_of_racing_creates_wins() {
                super::one_of_racing_creates_wins(super::$store()).await;
            }
            #[tokio::test]
            async fn every_commit_reaches_watchers() {
                super::every_commit_reaches_watchers(super::$store()).await;
            }
            #[tokio::test]
            async fn targets_and_types_are_ordered_by_creation() {
                super::targets_and_types_are_ordered_by_creation(super::$store()).await;
            }
            #[tokio::test]
            async fn scope_is_kept_until_it_is_reset() {
                super::scope_is_kept_until_it_is_reset(super::$store()).await;
            }
            #[tokio::test]
            async fn history_is_newest_first_whatever_the_clock_says() {
                super::history_is_newest_first_whatever_the_clock_says(super::$store()).await;
            }
            #[tokio::test]
            async fn history_keeps_the_latest_transitions_of_each_target() {
                super::history_keeps_the_latest_transitions_of_each_target(super::$store()).await;
            }
            #[tokio::test]
            async fn history_of_a_deleted_target_is_not_kept() {
                super::history_of_a_deleted_target_is_not_kept(super::$store()).await;
            }
            #[tokio::test]
            async fn own_mount_is_kept_until_it_is_replaced_or_its_target_deleted() {
                super::own_mount_is_kept_until_it_is_replaced_or_its_target_deleted(super::$store()).await;
            }
            #[tokio::test]
            async fn canary_record_is_replaced_and_ends_with_its_target() {
                super::canary_record_is_replaced_and_ends_with_its_target(super::$store()).await;
            }
        }
    )*};
}

contract!(memory sqlite replica etcd);

fn writes((target, first_type): (Target, TargetType)) -> Vec<Write> {
    vec![Write::PutTarget(target.into()), Write::PutType(first_type.into())]
}

async fn commit_is_refused_at_another_revision(Fixture { store, .. }: Fixture) {
    let empty = store.snapshot().revision();
    let first = store.commit(empty, writes(nfs("nas:/a"))).await.expect("committed");
    assert!(first.revision() > empty);
    let late = store.commit(empty, writes(nfs("nas:/b"))).await;
    assert_eq!(late, Err(CommitError::Conflict));
    assert_eq!(store.commit(empty, Vec::new()).await, Err(CommitError::Conflict), "not even an empty one");
    assert_eq!(store.snapshot(), first);
    store.commit(first.revision(), writes(nfs("nas:/b"))).await.expect("committed");
}

async fn empty_commit_keeps_the_revision(Fixture { store, .. }: Fixture) {
    let first = store.commit(store.snapshot().revision(), writes(nfs("nas:/a"))).await.expect("committed");
    let mut watched = store.watch();
    watched.mark_unchanged();
    assert_eq!(store.commit(first.revision(), Vec::new()).await, Ok(first));
    assert!(!watched.has_changed().expect("open"));
}

async fn one_of_racing_creates_wins(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let changes: Vec<Change> = (0..20).map(|n| create_target(nfs(&format!("nas{n}:/b")))).collect();
    let outcomes = futures::future::join_all(changes.iter().map(|change| registry.change(change))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let is_refused = |outcome: &&_| matches!(outcome, Err(RegistryError::Refused(Refusal::MountPathTaken { .. })));
    assert_eq!(outcomes.iter().filter(is_refused).count(), 19, "{outcomes:?}");
    assert_eq!(registry.snapshot().targets().len(), 1);
}

async fn every_commit_reaches_watchers(Fixture { store, .. }: Fixture) {
    let mut watched = store.watch();
    for export in ["nas:/a", "nas:/b"] {
        let committed = store.commit(store.snapshot().revision(), writes(nfs(export))).await.expect("committed");
        watched.changed().await.expect("open");
        assert_eq!(*watched.borrow_and_update(), committed);
    }
    let id = store.snapshot().targets()[0].target.id;
    store.add_transitions(vec![transition(id, 1, Status::Available)]).await.expect("added");
    assert!(!watched.has_changed().expect("open"), "a history is not part of a snapshot");
}

async fn targets_and_types_are_ordered_by_creation(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let mut ids = Vec::new();
    for new in [nfs("nas:/z"), s3("https://ceph.example/bucket"), nfs("nas:/a")] {
        ids.push(create(&registry, new).await.target.id);
    }
    let second = TargetType { is_public: false, projects: vec![project(2), project(1)], ..new_type(ids[0], "a") };
    registry.change(&Change::CreateType(second.clone())).await.expect("created");
    let change = TargetChange { is_default: Some(true), ..TargetChange::default() };
    registry.change(&Change::ModifyTarget { id: ids[2], change, now: at(3) }).await.expect("changed");
    let snapshot = registry.snapshot();
    let order: Vec<TargetId> = snapshot.targets().iter().map(|found| found.target.id).collect();
    assert_eq!(order, ids, "a change does not move a target");
    let types = &target(&snapshot, ids[0]).types;
    assert_eq!((types.len(), &*types[1]), (2, &second));
}

async fn scope_is_kept_until_it_is_reset(Fixture { store, .. }: Fixture) {
    let (target, first_type) = nfs("nas:/a");
    for scope in [Some(scope(&["a"], &[("rack", "1"), ("rack", "2")])), Some(scope(&[], &[("az", "1")])), None] {
        let target = Target { scope, ..target.clone() };
        let writes = writes((target.clone(), first_type.clone()));
        store.commit(store.snapshot().revision(), writes).await.expect("committed");
        assert_eq!(*store.snapshot().targets()[0].target, target);
    }
}

pub(super) fn transition(target_id: TargetId, second: i64, to: Status) -> Transition {
    let from = match to {
        Status::Available => None,
        Status::Offline => Some(Status::Available),
    };
    let finding = (to == Status::Offline).then(|| Finding::new(Reason::StaleHandle, "it was \"replaced\"\n").into());
    Transition { target_id, at: at(second), from, to, finding }
}

async fn history_is_newest_first_whatever_the_clock_says(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let first = create(&registry, nfs("nas:/a")).await.target.id;
    let second = create(&registry, nfs("nas:/b")).await.target.id;
    let added = [
        transition(first, 9, Status::Available),
        transition(second, 2, Status::Available),
        transition(first, 3, Status::Offline),
    ];
    registry.add_transitions(added.to_vec()).await.expect("added");
    let [oldest, other, newest] = added;
    assert_eq!(registry.transitions(first).await.expect("read"), [newest, oldest]);
    assert_eq!(registry.transitions(second).await.expect("read"), [other]);
}

async fn history_keeps_the_latest_transitions_of_each_target(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let busy = create(&registry, nfs("nas:/a")).await.target.id;
    let quiet = create(&registry, nfs("nas:/b")).await.target.id;
    let many = i64::try_from(TRANSITIONS_MAX).expect("few") + 5;
    registry.add_transitions(vec![transition(quiet, 0, Status::Offline)]).await.expect("added");
    for half in [1..many / 2, many / 2..many + 1] {
        let added = half.map(|second| transition(busy, second, Status::Offline)).collect();
        registry.add_transitions(added).await.expect("added");
    }
    let kept = registry.transitions(busy).await.expect("read");
    assert_eq!((kept.len(), kept[0].at, kept[TRANSITIONS_MAX - 1].at), (TRANSITIONS_MAX, at(many), at(6)));
    assert_eq!(registry.transitions(quiet).await.expect("read").len(), 1);
}

async fn history_of_a_deleted_target_is_not_kept(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let here = create(&registry, nfs("nas:/a")).await.target.id;
    let deleted = create(&registry, nfs("nas:/b")).await.target.id;
    registry.add_transitions(vec![transition(deleted, 1, Status::Offline)]).await.expect("added");
    registry.change(&Change::DeleteTarget(deleted)).await.expect("deleted");
    assert_eq!(registry.transitions(deleted).await.expect("read"), []);
    for gone in [deleted, Uuid::new_v4()] {
        let added = vec![transition(gone, 1, Status::Offline), transition(here, 2, Status::Offline)];
        registry.add_transitions(added).await.expect("the others are added");
        assert_eq!(registry.transitions(gone).await.expect("read"), []);
    }
    assert_eq!(registry.transitions(here).await.expect("read").len(), 2);
}

async fn canary_record_is_replaced_and_ends_with_its_target(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let id = create(&registry, s3("https://ceph.example/bucket")).await.target.id;
    assert_eq!(registry.canary_record(id).await, Ok(None));
    for version in [None, Some("v\"1\"".to_owned())] {
        let leftover = CanaryLeftover { key: "k".to_owned(), until: 7, version, written_at: Some(at(1)) };
        let record = CanaryRecord { leftover: Some(leftover), is_readable: true, ignores_digest: false };
        registry.put_canary_record(id, record.clone()).await.expect("written");
        assert_eq!(registry.canary_record(id).await, Ok(Some(record)));
    }
    assert_eq!(registry.writes(WriteResult::Written), 3, "the target and two records");
    registry.change(&Change::DeleteTarget(id)).await.expect("deleted");
    registry.put_canary_record(id, CanaryRecord::default()).await.expect("ignored");
    assert_eq!(registry.canary_record(id).await, Ok(None));
}

pub(super) fn own_mount(mount_id: u32) -> OwnMountId {
    let [boot_id, device, source] = ["a boot", "0:44", "nas:/\"resolved\""].map(str::to_owned);
    OwnMountId { boot_id, mount_id, device, source, command_ends_by_ms: None }
}

async fn own_mount_is_kept_until_it_is_replaced_or_its_target_deleted(Fixture { store, .. }: Fixture) {
    let registry = Registry::new(store);
    let first = create(&registry, nfs("nas:/a")).await.target.id;
    let second = create(&registry, nfs("nas:/b")).await.target.id;
    let third = create(&registry, nfs("nas:/c")).await.target.id;
    let revision = registry.snapshot().revision();
    let unknown = Uuid::new_v4();
    let put = [(first, 1), (second, 2), (third, 3), (unknown, 4)].map(|(id, number)| (id, Some(own_mount(number))));
    registry.put_own_mounts(put.to_vec()).await.expect("stored");
    registry.put_own_mounts(vec![(first, Some(own_mount(5))), (third, None)]).await.expect("stored");
    assert_eq!(registry.snapshot().revision(), revision, "a mount is not part of a snapshot");
    assert_eq!(registry.writes(WriteResult::Written), 5, "three targets, and mounts twice");
    let stored = async || {
        let mut stored = registry.own_mounts().await.expect("read");
        stored.sort_by_key(|(_, mount)| mount.mount_id);
        stored
    };
    assert_eq!(stored().await, [(second, own_mount(2)), (first, own_mount(5))]);
    registry.change(&Change::DeleteTarget(second)).await.expect("deleted");
    assert_eq!(stored().await, [(first, own_mount(5))]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_agree_and_sqlite_reads_the_same_again(operations in prop::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("registry.db");
            let sqlite = Arc::new(SqliteStore::open(&path).expect("created"));
            let (in_file, in_memory) = (Registry::new(sqlite.clone()), Registry::new(Arc::new(MemoryStore::default())));
            for operation in operations {
                let change = change_of(operation, &in_memory.snapshot());
                let outcomes = (in_file.change(&change).await, in_memory.change(&change).await);
                match outcomes {
                    (Ok(in_file), Ok(in_memory)) => prop_assert_eq!(in_file, in_memory),
                    (Err(RegistryError::Refused(in_file)), Err(RegistryError::Refused(in_memory))) => {
                        prop_assert_eq!(in_file, in_memory);
                    }
                    outcomes => prop_assert!(false, "{:?}: {:?}", change, outcomes),
                }
            }
            drop(in_file);
            Arc::into_inner(sqlite).expect("the last one").close().await;
            let reopened = SqliteStore::open(&path).expect("reopened");
            let (reopened, in_memory) = (reopened.snapshot(), in_memory.snapshot());
            prop_assert_eq!(reopened.targets(), in_memory.targets());
            Ok(())
        })?;
    }
}
