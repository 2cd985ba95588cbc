//! Targets with a scope, on real agents that share a registry, and on an aggregator of them.

use serde_json::{Value, json};

use crate::cluster::EtcdCluster;
use crate::daemon::{Daemon, eventually};
use crate::fleet::{Node, assert_invariants, use_etcd};
use crate::workspace::Workspace;

/// Starts an agent with this name and this rack.
async fn node(cluster: &EtcdCluster, name: &str, rack: &str) -> Node {
    let workspace = Workspace::new();
    use_etcd(&workspace, &cluster.urls, &format!("[fleet]\nnode = {name:?}\nlabels = {{ rack = {rack:?} }}"));
    let node = Node::start_in(workspace).await;
    node.wait_until_compared().await;
    node
}

/// Waits until exactly these nodes have the target.
async fn until_on(nodes: &[Node], id: &str, expected: [bool; 3]) {
    for (node, expected) in nodes.iter().zip(expected) {
        let has_it = async || node.agent.targets().await.iter().any(|target| target["id"] == *id);
        eventually("the target, or its absence", async || (has_it().await == expected).then_some(())).await;
    }
}

/// Waits until the aggregator counts these nodes as expected, and the state of each node is known.
async fn until_counted(fleet: &Daemon, id: &str, expected: &[&Node]) {
    let addresses: Vec<String> = expected.iter().map(|node| node.agent.address().to_string()).collect();
    let counted = async || {
        let answer = fleet.request("GET", &format!("/backup_targets/{id}"), None).await;
        let target: Value = serde_json::from_str(&answer.body).ok()?;
        let counts = &target["backup_targets"]["nodes"];
        let is_right = counts["expected"] == expected.len() && counts["missing"] == 0 && counts["unknown"] == 0;
        is_right.then_some(())
    };
    eventually("the nodes of the scope", counted).await;
    let list = fleet.get(&format!("/backup_targets/{id}/nodes")).await;
    let mut found: Vec<&str> =
        list["nodes"].as_array().expect("a list").iter().filter_map(|node| node["node"].as_str()).collect();
    found.sort_unstable();
    let mut addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    addresses.sort_unstable();
    assert_eq!(found, addresses);
}

#[tokio::test]
async fn target_is_on_the_nodes_of_its_scope_and_moves_with_it() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let nodes = [
        node(&cluster, "compute-1", "a").await,
        node(&cluster, "compute-2", "a").await,
        node(&cluster, "compute-3", "b").await,
    ];
    let membership = nodes[0].agent.get("/node").await["fleet"].clone();
    assert_eq!((&membership["node"], &membership["labels"]), (&json!("compute-1"), &json!({ "rack": "a" })));
    let workspace = Workspace::new();
    let addresses: Vec<String> = nodes.iter().map(|node| format!("\"http://{}\"", node.agent.address())).collect();
    let nodes_key = format!("[aggregate]\nnodes = [{}]\ninterval = \"1s\"", addresses.join(", "));
    use_etcd(&workspace, &cluster.urls, &nodes_key);
    let mut fleet = Daemon::start_aggregator(&workspace).await;
    eventually("a list", async || (fleet.request("GET", "/backup_targets", None).await.status == 200).then_some(()))
        .await;

    // It is created through a node outside its scope.
    let in_rack = json!({ "labels": { "rack": ["a"] } });
    let body = json!({ "type": "nfs", "filesystem_export": "127.0.0.1:/scoped", "scope": in_rack });
    let id = nodes[2].agent.create(body).await;
    until_on(&nodes, &id, [true, true, false]).await;
    until_counted(&fleet, &id, &[&nodes[0], &nodes[1]]).await;
    assert_eq!(nodes[0].agent.show(&id).await["scope"], json!({ "nodes": [], "labels": { "rack": ["a"] } }));
    for (method, path) in [("GET", ""), ("GET", "/checks"), ("GET", "/history"), ("POST", "/check")] {
        let answer = nodes[2].agent.request(method, &format!("/backup_targets/{id}{path}"), None).await;
        let message = answer.fault(404, "itemNotFound");
        assert!(message.contains("is not in the scope of this node (compute-3)"), "{message}");
    }
    let empty = json!({ "backup_target": { "scope": {} } });
    let answer = nodes[0].agent.request("PUT", &format!("/backup_targets/{id}"), Some(&empty)).await;
    let message = answer.fault(400, "badRequest");
    assert!(message.starts_with("scope: ") && message.contains("delete it"), "{message}");
    let collision = nodes[2].try_create("other:/scoped").await;
    assert_eq!(collision.status, 409, "a target elsewhere keeps its mount path: {collision:?}");

    // The aggregator and each node can move it.
    let changed = fleet.modify(&id, json!({ "scope": { "nodes": ["compute-3"] } })).await;
    assert_eq!(changed["scope"]["nodes"], json!(["compute-3"]));
    until_on(&nodes, &id, [false, false, true]).await;
    until_counted(&fleet, &id, &[&nodes[2]]).await;
    nodes[0].agent.modify(&id, json!({ "scope": "all" })).await;
    until_on(&nodes, &id, [true, true, true]).await;
    until_counted(&fleet, &id, &[&nodes[0], &nodes[1], &nodes[2]]).await;
    assert_eq!(nodes[1].agent.show(&id).await["scope"], Value::Null);

    nodes[0].agent.modify(&id, json!({ "scope": { "nodes": ["compute-2"] } })).await;
    until_on(&nodes, &id, [false, true, false]).await;
    let outside = &nodes[0].workspace;
    let shown = outside.run(&["target", "show", &id]).await;
    assert!(shown.stderr.contains("is not in the scope of this node (compute-1)"), "{shown:?}");
    let modified = outside.run(&["target", "modify", &id, "--scope-all"]).await;
    assert_eq!(modified.code, 0, "{modified:?}");
    until_on(&nodes, &id, [true, true, true]).await;
    assert_invariants(&nodes.each_ref()).await;
    let deleted = nodes[0].agent.request("DELETE", &format!("/backup_targets/{id}"), None).await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    until_on(&nodes, &id, [false, false, false]).await;
    assert!(fleet.stop().await < std::time::Duration::from_secs(2));
}

#[tokio::test]
async fn labels_of_a_restart_decide_on_the_targets() {
    let cluster = EtcdCluster::start(1, &[]).await;
    let mut node = node(&cluster, "compute-1", "a").await;
    let body = json!({
        "type": "nfs", "filesystem_export": "127.0.0.1:/scoped", "scope": { "labels": { "rack": ["a"] } },
    });
    let id = node.agent.create(body).await;
    assert_eq!(node.exports().await, ["127.0.0.1:/scoped"]);
    for (rack, expected) in [("b", false), ("a", true)] {
        use_etcd(
            &node.workspace,
            &cluster.urls,
            &format!("[fleet]\nnode = \"compute-1\"\nlabels = {{ rack = {rack:?} }}"),
        );
        node.restart().await;
        let listed = node.agent.targets().await;
        assert_eq!(listed.iter().any(|target| target["id"] == *id), expected, "{rack}: {listed:?}");
        assert_invariants(&[&node]).await;
    }
}
