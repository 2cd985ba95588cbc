//! The registry that all nodes share, in a real etcd.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use targetwatch::etcd::{KeyValueStore as _, RangeRequest, Txn, TxnOperation};
use targetwatch::model::{
    MountName, NfsExport, NfsTarget, PathKey, RegistryUrl, TARGETS_MAX, Target, TargetSpec, TargetType,
};
use targetwatch::registry::{
    Change, EtcdRegistry, FormerRegistry, SharedCommitError, SharedContent, SharedRegistry as _, Snapshot, Write, join,
};
use uuid::Uuid;

use super::cluster::{EtcdCluster, client_of, login};
use super::proxy::{Loss, LossyProxy};

const PREFIX: &str = "/targetwatch/test";

fn new_target(export: &str) -> (Target, TargetType) {
    let spec =
        TargetSpec::Nfs(NfsTarget { export: NfsExport::parse(export).expect(export), options: None, mode: None });
    let at = "2026-11-29T12:00:00.123456789Z".parse().expect("a time");
    let target = Target {
        id: Uuid::new_v4(),
        mount_name: MountName::derive(&spec, PathKey::Path).expect("a short export"),
        is_default: false,
        created_at: at,
        updated_at: at,
        version: "0.1.0".to_owned(),
        metadata: BTreeMap::from([("owner".to_owned(), "Zoë".to_owned())]),
        scope: None,
        spec,
    };
    let first_type = TargetType {
        id: Uuid::new_v4(),
        target_id: target.id,
        name: export.to_owned(),
        description: None,
        is_public: true,
        is_default: false,
        user_id: None,
        created_at: at,
        updated_at: None,
        version: "0.1.0".to_owned(),
        projects: Vec::new(),
        metadata: BTreeMap::new(),
    };
    (target, first_type)
}

fn create((target, first_type): &(Target, TargetType)) -> Vec<Write> {
    vec![Write::PutTarget(target.clone().into()), Write::PutType(first_type.clone().into())]
}

fn exports(content: &SharedContent) -> Vec<String> {
    content.targets.iter().map(|registered| registered.target.spec.export()).collect()
}

#[tokio::test]
async fn commits_of_two_nodes_are_ordered_and_content_is_complete() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    let one = EtcdRegistry::new(client.clone(), PREFIX);
    let other = EtcdRegistry::new(cluster.client().await, PREFIX);
    one.version(Duration::ZERO).await.expect_err("there is no registry yet");
    let (first_id, second_id) = tokio::join!(one.cloud_id(), other.cloud_id());
    assert_eq!(first_id.expect("created"), second_id.expect("found"));

    let empty = one.read().await.expect("read");
    assert_eq!(empty.targets, []);
    let (a, b) = (new_target("nas:/a"), new_target("nas:/b"));
    let (nothing, create_a, create_b) = (Snapshot::default(), create(&a), create(&b));
    let (won, lost) =
        tokio::join!(one.commit(empty.version, &nothing, &create_b), other.commit(empty.version, &nothing, &create_a));
    let results = [won, lost];
    assert_eq!(results.iter().filter(|result| **result == Err(SharedCommitError::Conflict)).count(), 1, "{results:?}");
    let winner = results.iter().find_map(|result| result.as_ref().ok()).expect("one of them");
    assert_eq!(other.version(Duration::ZERO).await.as_ref(), Ok(winner));

    let mut content = other.read().await.expect("read");
    let rest = if exports(&content) == ["nas:/a"] { &b } else { &a };
    let before = Snapshot::new(content.targets.clone());
    let check = other.commit(content.version, &before, &[]).await;
    assert_eq!(check, Ok(content.version), "a commit of nothing keeps the version");
    let expected = before.apply(&create(rest), before.revision().next());
    let after = other.commit(content.version, &before, &create(rest)).await.expect("committed");
    content = one.read().await.expect("read");
    assert_eq!(content.version, after);
    let expected = expected.ordered_by_creation();
    assert_eq!(Snapshot::new(content.targets.clone()).targets(), expected.targets(), "oldest first");

    // A field of a later version stays.
    let id = content.targets[0].target.id;
    let key = format!("{PREFIX}/v1/registry/targets/{id}");
    let stored = client.range(&RangeRequest::key(key.clone())).await.expect("answered").entries.remove(0);
    let mut document: serde_json::Value = serde_json::from_slice(&stored.value).expect("JSON");
    document["from_later"] = "all".into();
    let later = Txn { success: vec![TxnOperation::put(key.clone(), document.to_string())], ..Txn::default() };
    client.commit(&later).await.expect("made");
    let before = Snapshot::new(content.targets.clone());
    let changed = Arc::new(Target { is_default: true, ..Target::clone(&content.targets[0].target) });
    let version = one.commit(content.version, &before, &[Write::PutTarget(changed)]).await.expect("committed");
    let stored = client.range(&RangeRequest::key(key)).await.expect("answered").entries.remove(0);
    let document: serde_json::Value = serde_json::from_slice(&stored.value).expect("JSON");
    assert_eq!((&document["from_later"], &document["is_default"]), (&"all".into(), &true.into()));

    // A deleted target leaves nothing behind.
    let before = Snapshot::new(other.read().await.expect("read").targets);
    other.commit(version, &before, &[Write::DeleteTarget(id)]).await.expect("committed");
    let keys = client.range(&RangeRequest::prefix(format!("{PREFIX}/v1/registry/")).keys_only()).await;
    let keys: Vec<String> =
        keys.expect("answered").entries.iter().map(|one| String::from_utf8_lossy(&one.key).into_owned()).collect();
    assert_eq!(keys.len(), 4, "generation, and target, type and export of the other one: {keys:#?}");
    assert!(!keys.iter().any(|key| key.contains(&id.to_string())), "{keys:#?}");
}

#[tokio::test]
async fn many_targets_are_read_in_pages() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let registry = EtcdRegistry::new(cluster.client().await, PREFIX);
    registry.cloud_id().await.expect("created");
    let mut version = registry.read().await.expect("read").version;
    let mut snapshot = Snapshot::default();
    for batch in 0..16 {
        let writes: Vec<Write> = (0..40).flat_map(|n| create(&new_target(&format!("nas:/{batch}-{n}")))).collect();
        version = registry.commit(version, &snapshot, &writes).await.expect("committed");
        snapshot = snapshot.apply(&writes, snapshot.revision().next());
    }
    let content = registry.read().await.expect("read");
    assert_eq!((content.targets.len(), content.version), (640, version));
    assert!(content.targets.iter().all(|registered| registered.types.len() == 1));
}

#[tokio::test]
async fn newer_schema_is_refused() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let registry = EtcdRegistry::new(cluster.client().await, PREFIX);
    registry.cloud_id().await.expect("created");
    let version = registry.version(Duration::ZERO).await.expect("answered");
    let schema = |text: &str| cluster.etcdctl(0, &["put", &format!("{PREFIX}/v1/meta/schema"), text]);
    schema(r#"{"min_reader":1,"min_writer":2}"#);
    registry.read().await.expect("read");
    let refused = registry.commit(version, &Snapshot::default(), &create(&new_target("nas:/a"))).await;
    assert!(matches!(&refused, Err(SharedCommitError::Unavailable(text)) if text.0.contains("later version")));
    schema(r#"{"min_reader":2,"min_writer":2}"#);
    registry.read().await.expect_err("a newer schema");
}

#[tokio::test]
async fn commit_without_an_answer_is_made_once_or_not_at_all() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let proxy = LossyProxy::start(&cluster.urls[0]).await;
    let registry = EtcdRegistry::new(client_of(std::slice::from_ref(&proxy.url)).await, PREFIX);
    registry.cloud_id().await.expect("created");
    let empty = registry.read().await.expect("read").version;

    proxy.lose(Loss::Request);
    let writes = create(&new_target("nas:/a"));
    let lost = registry.commit(empty, &Snapshot::default(), &writes).await;
    assert!(matches!(lost, Err(SharedCommitError::Unavailable(_))), "{lost:?}");
    let unchanged = registry.read().await.expect("read");
    assert_eq!(unchanged.targets, []);
    assert_ne!(unchanged.version, empty, "the lost commit cannot be made later");
    assert_eq!(registry.commit(empty, &Snapshot::default(), &writes).await, Err(SharedCommitError::Conflict));

    proxy.lose(Loss::Answer);
    let made = registry.commit(unchanged.version, &Snapshot::default(), &writes).await.expect("made");
    let content = registry.read().await.expect("read");
    assert_eq!((content.version, exports(&content)), (made, vec!["nas:/a".to_owned()]));
}

#[tokio::test]
async fn registry_whose_keys_were_deleted_in_part_is_refused() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let registry = EtcdRegistry::new(cluster.client().await, PREFIX);
    registry.cloud_id().await.expect("created");
    let version = registry.read().await.expect("read").version;
    let (a, b) = (new_target("nas:/a"), new_target("nas:/b"));
    let writes = [create(&a), create(&b)].concat();
    registry.commit(version, &Snapshot::default(), &writes).await.expect("committed");
    let content = registry.read().await.expect("read");
    let key = |name: &str| format!("{PREFIX}/v1/registry/{name}");
    let (target_key, type_key) = (key(&format!("targets/{}", a.0.id)), key(&format!("types/{}/", a.0.id)));
    for prefix in [key("targets/"), target_key.clone(), key("types/"), type_key, key("exports/")] {
        let saved = cluster.client().await.range(&RangeRequest::prefix(prefix.clone())).await.expect("read").entries;
        cluster.etcdctl(0, &["del", "--prefix", &prefix]);
        let refused = registry.read().await.expect_err(&prefix).to_string();
        assert!(refused.contains("inconsistent: ") && refused.contains("Restore all keys"), "{refused}");
        let success = saved.into_iter().map(|entry| TxnOperation::put(entry.key, entry.value)).collect();
        cluster.client().await.commit(&Txn { success, ..Txn::default() }).await.expect("restored");
        assert_eq!(registry.read().await.expect("read").targets.len(), content.targets.len());
    }
    cluster.etcdctl(0, &["put", &key("default"), &a.0.id.to_string()]);
    registry.read().await.expect_err("a default that is not one");
    cluster.etcdctl(0, &["del", &key("default")]);
    let document = cluster.client().await.range(&RangeRequest::key(target_key)).await.expect("read").entries.remove(0);
    let success = vec![TxnOperation::put(key(&format!("targets/{}", Uuid::new_v4())), document.value)];
    cluster.client().await.commit(&Txn { success, ..Txn::default() }).await.expect("made");
    let refused = registry.read().await.expect_err("a document with another id").to_string();
    assert!(refused.contains("has another id"), "{refused}");
}

#[tokio::test]
async fn registry_with_more_keys_than_the_limits_is_refused() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    let registry = EtcdRegistry::new(client.clone(), PREFIX);
    registry.cloud_id().await.expect("created");
    let id = Uuid::new_v4().to_string();
    let keys: Vec<String> = (0..=TARGETS_MAX).map(|n| format!("{PREFIX}/v1/registry/exports/{n}")).collect();
    for keys in keys.chunks(100) {
        let success = keys.iter().map(|key| TxnOperation::put(key.clone(), id.clone())).collect();
        client.commit(&Txn { success, ..Txn::default() }).await.expect("made");
    }
    let refused = registry.read().await.expect_err("too many keys").to_string();
    assert!(refused.contains(&format!("more than {TARGETS_MAX} keys")), "{refused}");
}

#[tokio::test]
async fn commit_of_nothing_finds_a_full_database_and_a_missing_right() {
    let cluster = EtcdCluster::start(1, &["--quota-backend-bytes=2000000"]).await;
    let client = cluster.client().await;
    let registry = EtcdRegistry::new(client.clone(), PREFIX);
    registry.cloud_id().await.expect("created");
    let version = registry.version(Duration::ZERO).await.expect("answered");
    let check = async |registry: &EtcdRegistry| registry.commit(version, &Snapshot::default(), &[]).await;
    let before = client.range(&RangeRequest::prefix("/")).await.expect("answered");
    assert_eq!(check(&registry).await, Ok(version));
    let after = client.range(&RangeRequest::prefix("/")).await.expect("answered");
    assert_eq!((after.header.revision, after.entries), (before.header.revision, before.entries), "nothing is written");

    let large = "x".repeat(1 << 20);
    let fill =
        |n: u32| Txn { success: vec![TxnOperation::put(format!("/large/{n}"), large.clone())], ..Txn::default() };
    let mut writes = 0;
    while client.commit(&fill(writes)).await.is_ok() {
        writes += 1;
        assert!(writes < 8, "no alarm");
    }
    let full = check(&registry).await.expect_err("no space").to_string();
    assert!(full.contains("NOSPACE"), "{full}");
    cluster.etcdctl(0, &["del", "--prefix", "/large"]);
    let newest = client.range(&RangeRequest::key("/a")).await.expect("answered").header.revision;
    cluster.etcdctl(0, &["compaction", &newest.to_string()]);
    cluster.etcdctl(0, &["defrag"]);
    cluster.etcdctl(0, &["alarm", "disarm"]);
    assert_eq!(check(&registry).await, Ok(version), "after the alarm is disarmed");

    for arguments in [
        &["user", "add", "root:r"][..],
        &["user", "add", "reader:secret"],
        &["role", "add", "readers"],
        &["role", "grant-permission", "readers", "read", "--prefix=true", PREFIX],
        &["user", "grant-role", "reader", "readers"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl(0, arguments);
    }
    let reader = EtcdRegistry::new(Arc::new(login(&cluster, "reader", "secret").await), PREFIX);
    assert_eq!(reader.latest_version().await, Ok(version));
    let denied = check(&reader).await.expect_err("read only").to_string();
    assert!(denied.contains("access to a key"), "{denied}");
}

#[tokio::test]
async fn target_with_many_types_joins_and_has_the_same_order_everywhere() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let shared = EtcdRegistry::new(cluster.client().await, PREFIX);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("registry.db");
    let single = targetwatch::registry::open(&RegistryUrl::Sqlite(path.clone())).expect("created");
    let (target, first_type) = new_target("nas:/a");
    let (id, first) = (target.id, first_type.clone());
    let create = Change::CreateTarget { target: target.into(), first_type, declines_default: false };
    single.change(&create).await.expect("created");
    for n in 1..300 {
        let new = TargetType { id: Uuid::new_v4(), target_id: id, name: format!("type {n}"), ..first.clone() };
        single.change(&Change::CreateType(new)).await.expect("created");
    }
    let names = |types: &[Arc<TargetType>]| types.iter().map(|kept| kept.name.clone()).collect::<Vec<_>>();
    let expected = names(&single.snapshot().targets()[0].types);
    single.close().await;
    join::apply(&path, &shared, FormerRegistry::Stay).await.expect("joined");
    let content = shared.read().await.expect("read");
    assert_eq!(names(&content.targets[0].types), expected);
}

#[tokio::test]
async fn dry_run_of_a_join_creates_no_registry() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let client = cluster.client().await;
    let shared = EtcdRegistry::new(client.clone(), PREFIX);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("registry.db");
    targetwatch::registry::open(&RegistryUrl::Sqlite(path.clone())).expect("created").close().await;
    let error = join::plan(&path, &shared, FormerRegistry::Stay).await.expect_err("no registry").to_string();
    assert!(error.contains("there is no registry"), "{error}");
    assert_eq!(client.range(&RangeRequest::prefix("/")).await.expect("answered").entries, []);
    let joined = join::apply(&path, &shared, FormerRegistry::Stay).await.expect("joined");
    let repeated = join::plan(&path, &shared, FormerRegistry::Stay).await.expect("planned");
    assert!(repeated.is_joined_already && repeated.cloud_id == joined.cloud_id);
}
