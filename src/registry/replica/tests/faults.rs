//! Tests of nodes whose shared registry, or copy, fails. `partitions.rs` tests any sequence of faults of etcd.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::model::Status;
use crate::registry::contract::{own_mount, transition};
use crate::registry::replica::fake::SharedFault;
use crate::registry::rules::tests::properties::{change_of, operation};

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
