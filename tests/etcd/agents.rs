//! Real agents that share a registry: changes, outages of etcd, joining, and logins.

use futures::future::join_all;
use nix::sys::signal::Signal;

use super::cluster::{EtcdCluster, TestAuthority};
use super::fleet::{Node, assert_invariants, use_etcd, wait_until_equal, workspace};
use crate::workspace::{CommandOutput, Workspace, set_mode};

async fn run(workspace: &Workspace, arguments: &[&str]) -> CommandOutput {
    let config = workspace.config();
    let config = ["--config", config.to_str().expect("text")];
    workspace.run(&[arguments, &config].concat()).await
}

/// Runs a command that must succeed, and returns what it prints.
async fn succeeds(workspace: &Workspace, arguments: &[&str]) -> String {
    let output = run(workspace, arguments).await;
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

#[tokio::test]
async fn changes_reach_all_agents_which_go_on_without_etcd() {
    let mut etcd = EtcdCluster::start(1, &[]).await;
    let (mut first, mut second) = tokio::join!(Node::start(&etcd.urls), Node::start(&etcd.urls));
    let third = Node::start(&etcd.urls).await;
    let a = first.create("127.0.0.1:/a").await;
    wait_until_equal(&[&first, &second, &third], &["127.0.0.1:/a"]).await;
    let b = second.create("127.0.0.1:/b").await;
    wait_until_equal(&[&first, &second, &third], &["127.0.0.1:/a", "127.0.0.1:/b"]).await;
    let collision = third.try_create("other:/a").await;
    assert_eq!(collision.status, 409, "{collision:?}");
    third.agent.set_default(&b).await;
    wait_until_equal(&[&third, &first, &second], &["127.0.0.1:/a", "127.0.0.1:/b"]).await;

    // All nodes create the same target at the same time.
    let nodes = [&first, &second, &third];
    let racing = join_all((0..9).map(|n| nodes[n % 3].try_create("127.0.0.1:/c"))).await;
    let mut statuses: Vec<u16> = racing.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1..].iter().all(|status| *status == 409)), (200, true), "{racing:?}");
    let expected = ["127.0.0.1:/a", "127.0.0.1:/b", "127.0.0.1:/c"];
    wait_until_equal(&nodes, &expected).await;

    etcd.kill(0);
    first.refuses_changes().await;
    let answer = second.agent.request("DELETE", &format!("/backup_targets/{a}"), None).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    second.wait_for_problem("").await;
    assert_invariants(&[&first, &second, &third]).await;
    tokio::join!(first.restart_killed(), second.restart());
    let nodes = [&first, &second, &third];
    for node in nodes {
        assert_eq!(node.exports().await, expected);
        node.refuses_changes().await;
    }
    assert_invariants(&nodes).await;

    etcd.restart(0);
    etcd.until_ready().await;
    first.create("127.0.0.1:/d").await;
    wait_until_equal(&nodes, &["127.0.0.1:/a", "127.0.0.1:/b", "127.0.0.1:/c", "127.0.0.1:/d"]).await;
}

#[tokio::test]
async fn single_node_joins_with_its_targets() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let member = Node::start(&etcd.urls).await;
    let there = member.create("127.0.0.1:/both").await;
    let mut single = Node::start_in(Workspace::new()).await;
    let former = single.create("127.0.0.1:/both").await;
    single.create("127.0.0.1:/own").await;
    use_etcd(&single.workspace, &etcd.urls, "");
    single.restart().await;
    single.agent.wait_for_log("has not joined the registry of the fleet").await;
    let state = single.shared_registry().await;
    assert_eq!((&state["is_joined"], &state["problem"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(single.exports().await, ["127.0.0.1:/both", "127.0.0.1:/own"]);
    let doctor = run(&single.workspace, &["doctor"]).await.stdout;
    assert!(doctor.contains("targetwatch fleet join --dry-run"), "{doctor}");

    let plan = succeeds(&single.workspace, &["fleet", "join", "--dry-run"]).await;
    assert!(plan.contains("nothing was changed") && plan.contains(&there), "{plan}");
    let early = run(&single.workspace, &["fleet", "join"]).await;
    assert!(early.code != 0, "the agent runs: {early:?}");
    single.agent.stop().await;
    succeeds(&single.workspace, &["fleet", "join"]).await;
    let single = Node::start_in(single.workspace).await;
    wait_until_equal(&[&member, &single], &["127.0.0.1:/both", "127.0.0.1:/own"]).await;
    assert_eq!(single.agent.show(&former).await["id"], there.as_str(), "the former id is an alias");
    let elsewhere = member.agent.request("GET", &format!("/backup_targets/{former}"), None).await;
    assert_eq!(elsewhere.status, 404);
}

#[tokio::test]
async fn registry_of_an_etcd_that_was_set_up_anew_is_made_again() {
    let mut etcd = EtcdCluster::start(1, &[]).await;
    let mut nodes = vec![Node::start(&etcd.urls).await, Node::start(&etcd.urls).await];
    nodes[0].create("127.0.0.1:/a").await;
    nodes[1].create("127.0.0.1:/b").await;
    let expected = ["127.0.0.1:/a", "127.0.0.1:/b"];
    wait_until_equal(&[&nodes[0], &nodes[1]], &expected).await;
    etcd.set_up_anew();
    etcd.until_ready().await;
    for node in &mut nodes {
        node.wait_for_problem("was seen before").await;
        node.refuses_changes().await;
        // An agent that starts has not seen the former state.
        node.restart().await;
        let refused = node.refuses_changes().await;
        assert!(refused.contains("there is no registry"), "{refused}");
        node.wait_for_problem("there is no registry").await;
        assert_eq!(node.exports().await, expected);
    }
    assert_invariants(&[&nodes[0], &nodes[1]]).await;

    for node in &mut nodes {
        node.agent.stop().await;
    }
    succeeds(&nodes[0].workspace, &["fleet", "join", "--leave", "--take-targets"]).await;
    succeeds(&nodes[1].workspace, &["fleet", "join", "--leave"]).await;
    for node in &mut nodes {
        node.agent = crate::daemon::Daemon::start(&node.workspace).await;
    }
    wait_until_equal(&[&nodes[0], &nodes[1]], &expected).await;
    nodes[1].create("127.0.0.1:/c").await;
    wait_until_equal(&[&nodes[0], &nodes[1]], &["127.0.0.1:/a", "127.0.0.1:/b", "127.0.0.1:/c"]).await;
}

#[tokio::test]
async fn agent_uses_tls_and_a_password_from_a_file() {
    let authority = TestAuthority::new();
    let etcd = EtcdCluster::start_with_tls(&authority).await;
    for arguments in [
        &["user", "add", "root:r"][..],
        &["user", "add", "agent:secret"],
        &["role", "add", "agents"],
        &["role", "grant-permission", "agents", "readwrite", "--prefix=true", "/cloud/"],
        &["user", "grant-role", "agent", "agents"],
        &["auth", "enable"],
    ] {
        etcd.etcdctl(0, arguments);
    }
    let workspace = workspace(&etcd.urls);
    let password = workspace.write("password", "wrong\n");
    set_mode(&password, 0o600);
    let ca_file = &authority.ca_file;
    let more = format!("user = \"agent\"\npassword_file = {password:?}\nca_file = {ca_file:?}");
    use_etcd(&workspace, &etcd.urls, &more);
    let mut node = Node::start_in(workspace).await;
    let problem = node.wait_for_problem("password").await;
    assert!(!problem.contains("wrong"), "{problem}");
    node.refuses_changes().await;
    let doctor = run(&node.workspace, &["doctor"]).await.stdout;
    assert!(doctor.contains("etcd refuses the user or the password"), "{doctor}");

    node.workspace.write("password", "secret\n");
    node.restart().await;
    node.wait_until_compared().await;
    node.create("127.0.0.1:/a").await;
    let doctor = run(&node.workspace, &["doctor"]).await.stdout;
    let etcd_check: String = doctor.lines().skip_while(|line| !line.contains(" etcd ")).collect();
    assert!(etcd_check.contains("registry ") && !etcd_check.contains("changes fail"), "{doctor}");

    // Every change of users makes the tokens old.
    etcd.etcdctl(0, &["--user=root:r", "role", "add", "others"]);
    node.create("127.0.0.1:/b").await;
    etcd.etcdctl(0, &["--user=root:r", "user", "revoke-role", "agent", "agents"]);
    node.wait_for_problem("access to a key").await;
    assert_eq!(node.exports().await, ["127.0.0.1:/a", "127.0.0.1:/b"]);
    assert_invariants(&[&node]).await;
    assert!(!node.agent.log().contains("secret"), "{}", node.agent.log());
    assert!(node.agent.end(Signal::SIGTERM).await.0.success());
}
