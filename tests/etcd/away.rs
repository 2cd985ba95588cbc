//! A node that was away for a day. Its lease has ended, the history of etcd is compacted, and the targets have changed.

use serde_json::Value;
use targetwatch::etcd::{KeyValueStore as _, RangeRequest};

use super::cluster::EtcdCluster;
use super::failures::{set_clock, use_clock};
use super::fleet::{Node, wait_until_equal, workspace};
use crate::daemon::eventually;

/// Starts an agent with a clock of its own and this name.
async fn start(etcd: &EtcdCluster, name: &str) -> Node {
    let mut workspace = workspace(&etcd.urls);
    workspace.configure(&format!("[fleet]\nnode = \"{name}\""));
    use_clock(&mut workspace);
    let node = Node::start_in(workspace).await;
    node.wait_until_compared().await;
    wait_until_present(&node).await;
    node
}

async fn wait_until_present(node: &Node) {
    let is_present = async || (node.agent.get("/node").await["fleet"]["state"] == "present").then_some(());
    eventually("presence", is_present).await;
}

/// The history of a target on this node, newest first.
async fn history(node: &Node, id: &str) -> Vec<Value> {
    let path = format!("/backup_targets/{id}/history");
    eventually("a history", async || {
        let entries = node.agent.get(&path).await["transitions"].as_array().expect("a list").clone();
        (!entries.is_empty()).then_some(entries)
    })
    .await
}

#[tokio::test]
async fn node_that_was_away_for_a_day_has_the_targets_of_today_and_its_own_history() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let (mut away, present) = (start(&etcd, "away").await, start(&etcd, "present").await);
    let kept = away.create("127.0.0.1:/kept").await;
    let gone = away.create("127.0.0.1:/gone").await;
    wait_until_equal(&[&away, &present], &["127.0.0.1:/kept", "127.0.0.1:/gone"]).await;
    let (before, elsewhere) = (history(&away, &kept).await, history(&present, &kept).await);
    history(&away, &gone).await;
    away.agent.kill().await;
    let client = etcd.client().await;
    let alive = "/cloud/v1/nodes/away/alive";
    let lease = async || client.range(&RangeRequest::key(alive)).await.expect("answered").entries.first()?.lease;
    let former = lease().await.expect("the lease of the killed agent");

    // A day later. etcd has ended the lease, as it does after its time to live.
    client.revoke(former).await.expect("ended");
    for node in [&away, &present] {
        set_clock(&node.workspace, "+1d");
    }
    present.agent.delete(&gone).await;
    let new = present.create("127.0.0.1:/new").await;
    present.agent.set_default(&new).await;
    let revision = client.range(&RangeRequest::key("/")).await.expect("answered").header.revision;
    etcd.etcdctl(0, &["compaction", &revision.to_string()]);
    etcd.etcdctl(0, &["defrag"]);

    away.agent = crate::daemon::Daemon::start(&away.workspace).await;
    wait_until_equal(&[&away, &present], &["127.0.0.1:/kept", "127.0.0.1:/new"]).await;
    wait_until_present(&away).await;
    assert_ne!(lease().await, Some(former));
    for path in ["", "/history"] {
        let answer = away.agent.request("GET", &format!("/backup_targets/{gone}{path}"), None).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    let after = history(&away, &kept).await;
    assert!(after.ends_with(&before), "what happened yesterday stays: {before:#?} {after:#?}");
    assert!(history(&present, &kept).await.ends_with(&elsewhere));
    assert_ne!(before, elsewhere, "each node has its own");
    let created = away.agent.show(&new).await["created_at"].as_str().expect("a time").to_owned();
    let yesterday = away.agent.show(&kept).await["created_at"].as_str().expect("a time").to_owned();
    assert_ne!(created.get(..10), yesterday.get(..10), "a day later");
    away.create("127.0.0.1:/next").await;
    wait_until_equal(&[&present, &away], &["127.0.0.1:/kept", "127.0.0.1:/new", "127.0.0.1:/next"]).await;
}
