//! Tests of several nodes that share a registry.

mod faults;
mod joins;
mod partitions;
mod waits;

use std::path::PathBuf;

use tempfile::TempDir;

use super::fake::FakeSharedRegistry;
use super::*;
use crate::model::{Target, TargetId, TargetType};
use crate::registry::fixtures::{at, create, create_target, new_type, nfs, s3, scope};
use crate::registry::sqlite::SqliteStore;
use crate::registry::{Change, MemoryStore, Refusal, Registry, RegistryError, TargetChange};

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
