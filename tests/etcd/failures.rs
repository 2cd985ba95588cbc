//! Failures of members and of agents, and two clouds or two versions on one prefix.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use targetwatch::etcd::{KeyValueStore as _, RangeRequest, Txn, TxnOperation};

use super::cluster::EtcdCluster;
use super::fleet::{Node, assert_invariants, use_etcd, wait_until_equal, workspace};
use crate::daemon::{Daemon, eventually};
use crate::workspace::Workspace;

/// How long an agent may take to stop.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Creates a target as a client does that repeats a request without a clear answer.
async fn create_stubbornly(node: &Node, export: &str) {
    eventually(&format!("{export} is created"), async || {
        let answer = node.try_create(export).await;
        assert!([200, 409, 503].contains(&answer.status), "{answer:?}");
        (answer.status != 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn agent_of_a_member_that_is_cut_off_keeps_its_targets_and_refuses_changes() {
    let etcd = EtcdCluster::start_in_namespaces(3).await;
    // The leader answers serializable reads from its old state until it notices.
    let cut = etcd.leader();
    let (outside, inside) = (Node::start(&etcd.urls[cut..=cut]).await, Node::start(&etcd.urls).await);
    inside.create("127.0.0.1:/a").await;
    wait_until_equal(&[&outside, &inside], &["127.0.0.1:/a"]).await;
    etcd.network().isolate(Some(cut));
    create_stubbornly(&inside, "127.0.0.1:/b").await;
    wait_until_equal(&[&inside], &["127.0.0.1:/a", "127.0.0.1:/b"]).await;
    assert_eq!(outside.exports().await, ["127.0.0.1:/a"]);
    outside.refuses_changes().await;
    outside.wait_for_problem("").await;
    assert_invariants(&[&outside, &inside]).await;
    assert_eq!(outside.exports().await, ["127.0.0.1:/a"]);
    etcd.network().isolate(None);
    wait_until_equal(&[&outside, &inside], &["127.0.0.1:/a", "127.0.0.1:/b"]).await;
    create_stubbornly(&outside, "127.0.0.1:/c").await;
    wait_until_equal(&[&outside, &inside], &["127.0.0.1:/a", "127.0.0.1:/b", "127.0.0.1:/c"]).await;
}

#[tokio::test]
async fn agents_go_on_while_all_packets_to_etcd_are_lost() {
    let etcd = EtcdCluster::start_in_namespaces(3).await;
    let (first, mut second) = (Node::start(&etcd.urls).await, Node::start(&etcd.urls).await);
    first.create("127.0.0.1:/a").await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a"]).await;
    etcd.network().cut_clients_off(true);
    first.refuses_changes().await;
    assert_invariants(&[&first, &second]).await;
    // Neither the stop nor the start waits for connections that get no answer.
    let stopped = second.agent.stop().await;
    assert!(stopped < STOP_MAX, "{stopped:?}");
    second.agent = Daemon::start(&second.workspace).await;
    second.refuses_changes().await;
    assert_invariants(&[&first, &second]).await;
    assert_eq!(second.exports().await, ["127.0.0.1:/a"]);
    etcd.network().cut_clients_off(false);
    create_stubbornly(&second, "127.0.0.1:/b").await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a", "127.0.0.1:/b"]).await;
}

#[tokio::test]
async fn agents_survive_dead_and_stopped_members() {
    let mut etcd = EtcdCluster::start(3, &[]).await;
    let (first, second) = (Node::start(&etcd.urls).await, Node::start(&etcd.urls).await);
    let leader = etcd.leader();
    etcd.kill(leader);
    create_stubbornly(&first, "127.0.0.1:/a").await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a"]).await;
    etcd.restart(leader);
    etcd.until_ready().await;

    let leader = etcd.leader();
    etcd.signal(leader, Signal::SIGSTOP);
    create_stubbornly(&second, "127.0.0.1:/b").await;
    let other = (leader + 1) % 3;
    etcd.signal(other, Signal::SIGSTOP);
    first.refuses_changes().await;
    assert_invariants(&[&first, &second]).await;
    for member in [leader, other] {
        etcd.signal(member, Signal::SIGCONT);
    }
    create_stubbornly(&first, "127.0.0.1:/c").await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a", "127.0.0.1:/b", "127.0.0.1:/c"]).await;
}

#[tokio::test]
async fn agents_go_on_while_etcd_has_no_space() {
    let etcd = EtcdCluster::start(1, &["--quota-backend-bytes=2000000"]).await;
    let (first, mut second) = (Node::start(&etcd.urls).await, Node::start(&etcd.urls).await);
    first.create("127.0.0.1:/a").await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a"]).await;
    etcd.fill().await;
    let refused = first.refuses_changes().await;
    assert!(refused.contains("NOSPACE"), "{refused}");
    second.restart_killed().await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a"]).await;
    etcd.make_room().await;
    create_stubbornly(&second, "127.0.0.1:/b").await;
    create_stubbornly(&first, "127.0.0.1:/c").await;
    wait_until_equal(&[&first, &second], &["127.0.0.1:/a", "127.0.0.1:/b", "127.0.0.1:/c"]).await;
}

#[tokio::test]
async fn paused_agent_and_node_that_was_away_find_the_present_state() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let (mut paused, mut away) = (Node::start(&etcd.urls).await, Node::start(&etcd.urls).await);
    let present = Node::start(&etcd.urls).await;
    let a = present.create("127.0.0.1:/a").await;
    wait_until_equal(&[&present, &paused, &away], &["127.0.0.1:/a"]).await;
    paused.agent.signal(Signal::SIGSTOP);
    away.agent.kill().await;
    let b = present.create("127.0.0.1:/b").await;
    present.agent.set_default(&b).await;
    present.agent.delete(&a).await;
    // The same storage again, as another target.
    let new = present.create("127.0.0.1:/a").await;
    // History is compacted meanwhile.
    let revision = etcd.client().await.range(&RangeRequest::key("/")).await.expect("answered").header.revision;
    etcd.etcdctl(0, &["compaction", &revision.to_string()]);

    // The first request that the paused agent answers is a change, decided for a state that is gone.
    let path = format!("/backup_targets/{a}/set_default");
    let change = paused.agent.request("GET", &path, None);
    let (answer, ()) = tokio::join!(change, async { paused.agent.signal(Signal::SIGCONT) });
    assert_eq!(answer.status, 404, "{answer:?}");
    // The probe of its only target was due while the agent was paused.
    paused.late_max = 1.0;
    away.agent = Daemon::start(&away.workspace).await;
    let answer = away.try_create("127.0.0.1:/b").await;
    assert_eq!(answer.status, 409, "{answer:?}");
    wait_until_equal(&[&present, &paused, &away], &["127.0.0.1:/b", "127.0.0.1:/a"]).await;
    assert_eq!(away.agent.show(&new).await["id"], new.as_str());
}

/// Gives the agent of a workspace a clock of its own, without its monotonic clock.
pub fn use_clock(workspace: &mut Workspace) {
    let clock = set_clock(workspace, "+0");
    // Debian package libfaketime.
    let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    for (name, value) in [
        ("LD_PRELOAD", &*library),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("text")),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        workspace.set_env(name, value);
    }
}

/// Sets this clock, relative to that of the host. Returns its file.
pub fn set_clock(workspace: &Workspace, offset: &str) -> PathBuf {
    workspace.write("clock", format!("{offset}\n"))
}

#[tokio::test]
async fn steps_of_the_clock_delay_and_lose_nothing() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let mut stepped = workspace(&etcd.urls);
    use_clock(&mut stepped);
    let (stepped, other) = (Node::start_in(stepped).await, Node::start(&etcd.urls).await);
    stepped.wait_until_compared().await;
    stepped.create("127.0.0.1:/a").await;
    wait_until_equal(&[&stepped, &other], &["127.0.0.1:/a"]).await;
    set_clock(&stepped.workspace, "-1d");
    stepped.create("127.0.0.1:/b").await;
    other.create("127.0.0.1:/c").await;
    // The order is that of the times that the nodes showed.
    wait_until_equal(&[&stepped, &other], &["127.0.0.1:/b", "127.0.0.1:/a", "127.0.0.1:/c"]).await;
    set_clock(&stepped.workspace, "+1d");
    let d = stepped.create("127.0.0.1:/d").await;
    stepped.agent.set_default(&d).await;
    other.create("127.0.0.1:/e").await;
    let expected = ["127.0.0.1:/b", "127.0.0.1:/a", "127.0.0.1:/c", "127.0.0.1:/e", "127.0.0.1:/d"];
    wait_until_equal(&[&stepped, &other], &expected).await;
    stepped.wait_until_compared().await;
}

#[tokio::test]
async fn agent_keeps_what_a_later_version_wrote() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let node = Node::start(&etcd.urls).await;
    let id = node.create("127.0.0.1:/a").await;
    node.create("127.0.0.1:/b").await;
    let client = etcd.client().await;
    let key = format!("/cloud/v1/registry/targets/{id}");
    let document = async || -> Value {
        let entries = client.range(&RangeRequest::key(key.clone())).await.expect("answered").entries;
        serde_json::from_slice(&entries[0].value).expect("JSON")
    };
    let mut later = document().await;
    later["from_later"] = "all".into();
    let put =
        |key: &str, value: String| Txn { success: vec![TxnOperation::put(key.to_owned(), value)], ..Txn::default() };
    client.commit(&put(&key, later.to_string())).await.expect("made");
    node.agent.modify(&id, serde_json::json!({"nfs_mount_opts": "soft,timeo=100"})).await;
    let rewritten = document().await;
    assert_eq!(
        (&rewritten["from_later"], &rewritten["spec"]["nfs_mount_opts"]),
        (&"all".into(), &"soft,timeo=100".into())
    );

    let schema = |text: &str| put("/cloud/v1/meta/schema", text.to_owned());
    client.commit(&schema(r#"{"min_reader":1,"min_writer":2}"#)).await.expect("made");
    let refused = node.refuses_changes().await;
    assert!(refused.contains("Install a later version"), "{refused}");
    client.commit(&schema(r#"{"min_reader":2,"min_writer":2}"#)).await.expect("made");
    node.wait_for_problem("schema 2").await;
    assert_eq!(node.exports().await, ["127.0.0.1:/a", "127.0.0.1:/b"]);
    assert_invariants(&[&node]).await;
    client.commit(&schema(r#"{"min_reader":1,"min_writer":1}"#)).await.expect("made");
    node.create("127.0.0.1:/c").await;
    assert_invariants(&[&node]).await;
}

#[tokio::test]
async fn node_of_another_cloud_on_the_same_prefix_is_refused() {
    let (one, other) = tokio::join!(EtcdCluster::start(1, &[]), EtcdCluster::start(1, &[]));
    let (mut moved, native) = (Node::start(&one.urls).await, Node::start(&other.urls).await);
    moved.create("127.0.0.1:/a").await;
    native.create("127.0.0.1:/b").await;
    use_etcd(&moved.workspace, &other.urls, "");
    moved.restart().await;
    let refused = moved.refuses_changes().await;
    assert!(refused.contains("another cloud"), "{refused}");
    moved.wait_for_problem("another cloud").await;
    assert_eq!(
        (moved.exports().await, native.exports().await),
        (vec!["127.0.0.1:/a".to_owned()], vec!["127.0.0.1:/b".to_owned()])
    );
    assert_invariants(&[&moved, &native]).await;
    use_etcd(&moved.workspace, &one.urls, "");
    moved.restart().await;
    moved.create("127.0.0.1:/c").await;
    assert_eq!(moved.exports().await, ["127.0.0.1:/a", "127.0.0.1:/c"]);
    assert_invariants(&[&moved, &native]).await;
}
