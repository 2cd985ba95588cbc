//! Changes through an aggregator that shares the registry of the agents.

use serde_json::{Value, json};

use crate::cluster::EtcdCluster;
use crate::daemon::{Daemon, eventually};
use crate::fleet::assert_sound;
use crate::workspace::Workspace;

/// The configuration of a process with this registry.
fn configure(workspace: &Workspace, cluster: &EtcdCluster, more: &str) {
    let hosts: Vec<&str> = cluster.urls.iter().filter_map(|url| url.strip_prefix("http://")).collect();
    let cache = workspace.path("copy.db");
    workspace.configure(&format!(
        "[registry]\nurl = \"etcd://{}/fleet\"\ncache = {cache:?}\ncompare_interval = \"1s\"\n[probe]\nnfs_interval = \"1s\"\n{more}",
        hosts.join(",")
    ));
}

/// The state of a target in the list of the aggregator, or null.
fn nodes_of(list: &Value, id: &str) -> Value {
    let targets = list["backup_targets"].as_array().map_or(&[][..], Vec::as_slice);
    targets.iter().find(|target| target["id"] == id).map_or(Value::Null, |target| target["nodes"].clone())
}

#[tokio::test]
async fn change_on_an_aggregator_reaches_all_nodes() {
    let mut cluster = EtcdCluster::start(1, &[]).await;
    let workspaces = [Workspace::new(), Workspace::new()];
    let mut agents = Vec::new();
    for workspace in &workspaces {
        configure(workspace, &cluster, "");
        agents.push(Daemon::start(workspace).await);
    }
    let nodes: Vec<String> = agents.iter().map(|agent| format!("\"http://{}\"", agent.address())).collect();
    let workspace = Workspace::new();
    configure(&workspace, &cluster, &format!("[aggregate]\nnodes = [{}]\ninterval = \"1s\"", nodes.join(", ")));
    let mut fleet = Daemon::start_aggregator(&workspace).await;
    eventually("a list", async || {
        let answer = fleet.request("GET", "/backup_targets", None).await;
        (answer.status == 200).then_some(())
    })
    .await;

    let id = fleet.create(json!({ "type": "nfs", "filesystem_export": "127.0.0.1:/shared" })).await;
    let listed = async |what: &str, condition: &dyn Fn(&Value) -> bool| {
        eventually(what, async || Some(nodes_of(&fleet.get("/backup_targets").await, &id)).filter(condition)).await
    };
    listed("the new target", &|nodes| nodes["expected"] == 2).await;
    for agent in &agents {
        let has_it = async || agent.targets().await.iter().any(|target| target["id"] == *id).then_some(());
        eventually("the target on a node", has_it).await;
    }
    listed("the target on all nodes", &|nodes| nodes["expected"] == 2 && nodes["missing"] == 0).await;
    let types = fleet.get("/backup_target_types").await;
    assert_eq!(types["backup_target_types"][0]["backup_targets_id"], id, "{types:#}");
    let changed = fleet.modify(&id, json!({ "metadata": { "rack": "12" } })).await;
    assert_eq!(changed["id"], id);
    let paths = fleet.get("/openapi.json").await["paths"].clone();
    assert!(paths["/backup_targets"]["post"].is_object() && paths["/backup_targets"]["get"].is_object(), "{paths:#}");

    for agent in &agents {
        assert_sound(agent, 0.0).await;
    }
    let deleted = fleet.request("DELETE", &format!("/backup_targets/{id}"), None).await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    for agent in &agents {
        eventually("no target on a node", async || agent.targets().await.is_empty().then_some(())).await;
    }
    listed("no target", &Value::is_null).await;

    cluster.kill(0);
    let target = json!({ "type": "nfs", "filesystem_export": "127.0.0.1:/late" });
    let message = fleet.try_create(target).await.fault(503, "serviceUnavailable");
    assert!(message.starts_with("fleet_unavailable"), "{message}");
    fleet.get("/backup_targets").await;
    assert!(fleet.stop().await < std::time::Duration::from_secs(2));
}

#[tokio::test]
async fn aggregator_does_not_use_the_copy_of_an_agent() {
    let workspace = Workspace::new();
    workspace.configure(
        "[registry]\nurl = \"etcd://127.0.0.1:9\"\ncache = \"/var/lib/targetwatch/registry.db\"\n[aggregate]\nnodes = [\"http://127.0.0.1:9\"]",
    );
    let stderr = Daemon::aggregator_fails_to_start(&workspace).await;
    assert!(stderr.contains("expected a file of the aggregator's own"), "{stderr}");
}
