//! Tests of an agent whose store is changed by another writer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::agent::view::View;
use crate::agent::{Agent, AgentError};
use crate::driver::{FactBoard, FactKey, FactKind, FactQuestion, Host};
use crate::model::settings::{AgentSettings, DeclaredTarget};
use crate::model::{LabeledNode, NfsExport, NfsOptions, NfsTarget, SpecFields, Target, TargetSpec, TargetType};
use crate::registry::fixtures::{nfs, scope};
use crate::registry::{MemoryStore, Registry, Store, TargetChange, Write};

/// Longest wait for the agent to react by itself.
const WAIT_MAX: Duration = Duration::from_secs(20);

fn agent(store: &Arc<MemoryStore>) -> Agent {
    agent_on(store, Host::without_workers())
}

fn agent_on(store: &Arc<MemoryStore>, host: Host) -> Agent {
    Agent::start(Registry::new(store.clone()), Arc::new(host), AgentSettings::quiet(), tokio::sync::mpsc::channel(1).0)
}

async fn commit(store: &MemoryStore, writes: Vec<Write>) {
    store.commit(store.snapshot().revision(), writes).await.expect("committed");
}

fn writes((target, first_type): (Target, TargetType)) -> Vec<Write> {
    vec![Write::PutTarget(target.into()), Write::PutType(first_type.into())]
}

async fn shows(agent: &Agent, is_so: impl FnMut(&Arc<View>) -> bool) -> Arc<View> {
    let mut views = agent.watch_view();
    let shown = tokio::time::timeout(WAIT_MAX, views.wait_for(is_so)).await;
    shown.expect("in time").expect("an agent").clone()
}

#[tokio::test]
async fn commit_of_another_writer_starts_changes_and_ends_the_task() {
    let store = Arc::new(MemoryStore::default());
    let agent = agent(&store);
    let (target, first_type) = nfs("127.0.0.1:/a");
    let id = target.id;
    commit(&store, writes((target.clone(), first_type))).await;
    let view = shows(&agent, |view| view.targets.iter().any(|shown| shown.report.is_some())).await;
    let first_report = view.targets[0].report.clone().expect("a report");

    // Metadata does not concern the task, and status and report stay.
    let noted = Target { metadata: [("rack".to_owned(), "7".to_owned())].into(), ..target.clone() };
    commit(&store, vec![Write::PutTarget(noted.into())]).await;
    let view = shows(&agent, |view| view.targets[0].target.metadata.contains_key("rack")).await;
    assert!(Arc::ptr_eq(view.targets[0].report.as_ref().expect("kept"), &first_report));
    assert!(view.types_generation == view.generation, "lists of targets and types are rebuilt");

    let spec = TargetSpec::Nfs(NfsTarget {
        export: NfsExport::parse("localhost:/a").expect("valid"),
        options: None,
        mode: None,
    });
    commit(&store, vec![Write::PutTarget(Target { spec: spec.clone(), ..target }.into())]).await;
    let is_probed = |view: &Arc<View>| {
        let shown = &view.targets[0];
        let is_new = shown.report.as_ref().is_some_and(|report| !Arc::ptr_eq(report, &first_report));
        shown.target.spec == spec && is_new
    };
    shows(&agent, is_probed).await;

    let task = agent.reconciler.mailbox(id).expect("a task");
    commit(&store, vec![Write::DeleteTarget(id)]).await;
    shows(&agent, |view| view.targets.is_empty()).await;
    assert!(!tokio::time::timeout(WAIT_MAX, task.served(u64::MAX)).await.expect("the task accepts no requests"));
    assert!(agent.check_now(id).await.is_err());
}

#[tokio::test]
async fn target_leaves_and_enters_a_node_with_its_scope() {
    let store = Arc::new(MemoryStore::default());
    let (target, first_type) = nfs("127.0.0.1:/a");
    let (id, type_id) = (target.id, first_type.id);
    commit(&store, writes((target.clone(), first_type))).await;
    let labels = [("rack".to_owned(), "1".to_owned())].into();
    let fleet_node = Some(LabeledNode { name: "compute-1".to_owned(), labels });
    let board = Arc::new(FactBoard::default());
    let host = Host { fleet_node, facts: Some(board.clone()), ..Host::without_workers() };
    let agent = agent_on(&store, host);
    let is_probed = |view: &Arc<View>| view.targets.iter().any(|shown| shown.report.is_some());
    shows(&agent, is_probed).await;
    agent.history(id).await.expect("a history");
    let hour = Duration::from_secs(3600);
    let key = FactKey { target: id, kind: FactKind::LockProof, subject: "s".to_owned() };
    let _ = board.turn(FactQuestion { key: &key, age_max: hour, wanted_for: hour });

    let task = agent.reconciler.mailbox(id).expect("a task");
    let elsewhere = Target { scope: Some(scope(&["compute-2"], &[("rack", "2")])), ..target.clone() };
    commit(&store, vec![Write::PutTarget(elsewhere.into())]).await;
    let view = shows(&agent, |view| view.targets.is_empty()).await;
    assert!(view.target_types().is_empty());
    assert!(!tokio::time::timeout(WAIT_MAX, task.served(u64::MAX)).await.expect("the task ends after the unmount"));
    assert!(!agent.shared.is_directory_used(&target.mount_name), "nothing keeps the mount");
    let asked: Vec<_> = board.asked_for(hour).into_iter().map(|(key, is_wanted)| (key.target, is_wanted)).collect();
    assert_eq!(asked, [(id, false)], "another node finds the fact");
    for error in [agent.target(id).map(drop), agent.check_now(id).await.map(drop), agent.history(id).await.map(drop)] {
        let message = error.expect_err("not here").to_string();
        assert!(message.contains("is not in the scope of this node (compute-1)"), "{message}");
    }
    let change = TargetChange { metadata: [("a".to_owned(), "b".to_owned())].into(), ..TargetChange::default() };
    let changed = agent.modify_target(id, change).await.expect("changed");
    assert_eq!((changed.target.metadata["a"].as_str(), &changed.report), ("b", &None));
    assert!(agent.view().targets.is_empty() && agent.target_type(type_id).is_some());

    let back = Target { scope: Some(scope(&[], &[("rack", "1")])), ..target };
    commit(&store, vec![Write::PutTarget(back.into())]).await;
    shows(&agent, is_probed).await;
}

#[tokio::test]
async fn target_of_other_nodes_is_deleted_through_any_node() {
    let store = Arc::new(MemoryStore::default());
    let (target, first_type) = nfs("127.0.0.1:/a");
    let id = target.id;
    commit(&store, writes((Target { scope: Some(scope(&["compute-2"], &[])), ..target }, first_type))).await;
    let fleet_node = Some(LabeledNode { name: "compute-1".to_owned(), ..LabeledNode::default() });
    let agent = agent_on(&store, Host { fleet_node, ..Host::without_workers() });
    assert!(agent.view().targets.is_empty() && agent.reconciler.mailbox(id).is_none());
    agent.delete_target(id).await.expect("deleted");
    assert!(store.snapshot().targets().is_empty());
    assert!(matches!(agent.delete_target(id).await, Err(AgentError::TargetNotFound(_))));
}

#[tokio::test]
async fn scope_is_ignored_without_a_fleet() {
    let store = Arc::new(MemoryStore::default());
    let (target, first_type) = nfs("127.0.0.1:/a");
    commit(&store, writes((Target { scope: Some(scope(&["compute-2"], &[])), ..target }, first_type))).await;
    assert_eq!(agent(&store).view().targets.len(), 1, "it is the only node");
}

#[tokio::test]
async fn targets_of_the_registry_are_probed_from_the_start() {
    let store = Arc::new(MemoryStore::default());
    commit(&store, writes(nfs("127.0.0.1:/a"))).await;
    let agent = agent(&store);
    assert_eq!(agent.view().targets.len(), 1, "visible at once");
    shows(&agent, |view| view.is_ready()).await;
}

#[tokio::test]
async fn declared_target_with_an_ambiguous_export_stays_but_is_not_created() {
    let store = Arc::new(MemoryStore::default());
    commit(&store, writes(nfs("127.0.0.1:/a//b"))).await;
    let agent = agent(&store);
    let declared = ["127.0.0.1:/a//b", "127.0.0.1:/c//d", "127.0.0.1:/e"].map(|export| DeclaredTarget {
        spec: nfs(export).0.spec,
        changes: SpecFields::default(),
        type_name: None,
        is_default: None,
        metadata: BTreeMap::new(),
    });
    agent.declare_targets(&declared).await;
    let exports: Vec<String> = agent.view().targets.iter().map(|view| view.target.spec.export()).collect();
    assert_eq!(exports, ["127.0.0.1:/a//b", "127.0.0.1:/e"]);
}

#[tokio::test]
async fn given_fields_of_a_declared_target_are_applied_to_an_existing_one() {
    let store = Arc::new(MemoryStore::default());
    commit(&store, writes(nfs("127.0.0.1:/a"))).await;
    let agent = agent(&store);
    for (declared, options) in [
        (Some("soft,timeo=100"), Some("soft,timeo=100")),
        (None, Some("soft,timeo=100")),
        (Some("soft,timeo=200"), Some("soft,timeo=200")),
        (Some(""), None),
    ] {
        let changes = SpecFields { nfs_mount_opts: declared.map(str::to_owned), ..SpecFields::default() };
        let spec = nfs("127.0.0.1:/a").0.spec;
        let metadata = BTreeMap::new();
        let declared = DeclaredTarget { spec, changes, type_name: None, is_default: None, metadata };
        agent.declare_targets(std::slice::from_ref(&declared)).await;
        let revision = store.snapshot().revision();
        agent.declare_targets(&[declared]).await;
        assert_eq!(store.snapshot().revision(), revision, "nothing is left to change");
        let snapshot = store.snapshot();
        let [registered] = snapshot.targets() else { panic!("one target") };
        let TargetSpec::Nfs(NfsTarget { options: stored, .. }) = &registered.target.spec else {
            panic!("an NFS target")
        };
        assert_eq!(stored.as_ref().map(NfsOptions::as_str), options);
    }
}

#[tokio::test]
async fn declared_target_that_another_node_created_meanwhile_is_used() {
    let store = Arc::new(MemoryStore::default());
    let agent = agent(&store);
    commit(&store, writes(nfs("127.0.0.1:/a"))).await;
    assert!(agent.view().targets.is_empty(), "the agent has not seen it yet");
    let changes = SpecFields { nfs_mount_opts: Some("soft,timeo=100".to_owned()), ..SpecFields::default() };
    let spec = nfs("127.0.0.1:/a").0.spec;
    let declared = DeclaredTarget { spec, changes, type_name: None, is_default: None, metadata: BTreeMap::new() };
    agent.declare_targets(&[declared]).await;
    let snapshot = store.snapshot();
    let [registered] = snapshot.targets() else { panic!("one target") };
    let TargetSpec::Nfs(NfsTarget { options, .. }) = &registered.target.spec else { panic!("an NFS target") };
    assert_eq!(options.as_ref().map(NfsOptions::as_str), Some("soft,timeo=100"));
}

#[tokio::test]
async fn older_snapshot_does_not_replace_a_later_one() {
    let store = Arc::new(MemoryStore::default());
    let agent = agent(&store);
    commit(&store, writes(nfs("127.0.0.1:/a"))).await;
    let earlier = store.snapshot();
    commit(&store, writes(nfs("127.0.0.1:/b"))).await;
    agent.reconciler.reconcile(&store.snapshot());
    let generation = agent.view().types_generation;
    agent.reconciler.reconcile(&earlier);
    assert_eq!((agent.view().targets.len(), agent.view().types_generation), (2, generation));
}

#[tokio::test]
async fn dropped_agent_ends_its_tasks() {
    let store = Arc::new(MemoryStore::default());
    commit(&store, writes(nfs("127.0.0.1:/a"))).await;
    let agent = agent(&store);
    let id = agent.view().targets[0].target.id;
    let task = agent.reconciler.mailbox(id).expect("a task");
    let reconciler = Arc::downgrade(&agent.reconciler);
    drop(agent);
    assert!(reconciler.upgrade().is_none(), "following the registry holds no reference");
    assert!(!tokio::time::timeout(WAIT_MAX, task.served(u64::MAX)).await.expect("the task ended"));
}

#[tokio::test]
async fn stop_does_not_wait_for_a_change_that_hangs() {
    let agent = agent(&Arc::new(MemoryStore::default()));
    let changing = agent.hold_changes().await.expect("running");
    tokio::time::timeout(WAIT_MAX, agent.stop()).await.expect("stopped although a change has not ended");
    drop(changing);
    assert!(matches!(agent.hold_changes().await.map(drop), Err(crate::agent::AgentError::Stopping)));
}
