//! The configuration of haproxy and the commands for users of docs/fleet.md, as they are written there: with three
//! members, haproxy, agents and an aggregator.
//!
//! The configuration is that of kolla-ansible at 1a681814 (August 2026): `haproxy` in
//! ansible/roles/etcd/defaults/main.yml, the times in ansible/roles/loadbalancer/defaults/main.yml, and the template
//! and `haproxy_health_check` in ansible/roles/haproxy-config.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::{EtcdCluster, HaProxy};
use crate::daemon::{Daemon, eventually};
use crate::fleet::{assert_sound, use_etcd_as};
use crate::storage::{immutable_target, s3};
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace, set_mode};

const PAGE: &str = include_str!("../../docs/fleet.md");

/// Users of the page, each with the name of its password file.
const USERS: [(&str, &str); 3] =
    [("root", "etcd-root"), ("targetwatch-agent", "etcd-agent"), ("targetwatch-aggregator", "etcd-aggregator")];

/// Time limit for a proof with a retention of 7 s, on a loaded host.
const SOON: Duration = Duration::from_secs(90);

/// Returns the code after a heading of the page.
fn code_after(heading: &str, language: &str) -> String {
    let (_, section) = PAGE.split_once(&format!("### {heading}\n")).expect("the heading");
    let (_, code) = section.split_once(&format!("```{language}\n")).expect("the code");
    code.split_once("```").expect("the end of the code").0.to_owned()
}

/// Replaces what must be on the page, each once.
fn with_replaced(text: &str, replacements: &[(String, String)]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from.as_str()).count(), 1, "{from} in {text}");
        text.replace(from.as_str(), to)
    })
}

fn password_file(directory: &Path, name: &str) -> String {
    directory.join(format!("{name}.password")).display().to_string()
}

/// Runs the commands of the page. The password of each user is its name.
fn create_users(cluster: &EtcdCluster, directory: &Path) {
    let mut replacements = vec![(
        "ETCDCTL_ENDPOINTS=https://etcd.example.com:2379 ETCDCTL_CACERT=/etc/targetwatch/etcd-ca.pem".to_owned(),
        format!("ETCDCTL_ENDPOINTS={}", cluster.urls[0]),
    )];
    for (user, name) in USERS {
        let file = password_file(directory, name);
        std::fs::write(&file, format!("{user}\n")).expect("written");
        replacements.push((format!("/root/{name}.password"), file));
    }
    let commands = with_replaced(&code_after("Give agents and aggregators their rights", "sh"), &replacements);
    let output = Command::new("sh").args(["-euc", &commands]).stdin(Stdio::null()).output().expect("sh runs");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}");
}

/// The configuration of the page, with these members.
async fn haproxy(cluster: &EtcdCluster) -> HaProxy {
    HaProxy::start_with(|port| {
        let mut replacements = vec![("192.0.2.10:2379".to_owned(), format!("127.0.0.1:{port}"))];
        for (number, url) in cluster.urls.iter().enumerate() {
            let member = url.trim_start_matches("http://").to_owned();
            replacements.push((format!("192.0.2.1{}:2379", number + 1), member));
        }
        with_replaced(&code_after("Use etcd behind haproxy", "haproxy"), &replacements)
    })
    .await
}

fn may_write(cluster: &EtcdCluster, user: &str, key: &str) -> bool {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &cluster.urls[0], "--user", &format!("{user}:{user}"), "del"])
        .arg(format!("/targetwatch/v1/{key}"))
        .output()
        .expect("etcdctl runs");
    let denied = String::from_utf8_lossy(&output.stderr).contains("permission denied");
    assert_ne!(output.status.success(), denied, "{output:?}");
    !denied
}

#[tokio::test]
async fn agents_and_an_aggregator_work_behind_haproxy_with_the_documented_rights() {
    let mut cluster = EtcdCluster::start(3, &[]).await;
    let (haproxy, s3) = (haproxy(&cluster).await, s3().await);
    let directory = tempfile::tempdir().expect("a directory");
    create_users(&cluster, directory.path());
    for (user, may) in [("targetwatch-agent", false), ("targetwatch-aggregator", true)] {
        for key in ["meta/none", "registry/none"] {
            assert_eq!(may_write(&cluster, user, key), may, "{user} {key}");
        }
        assert_eq!(may_write(&cluster, user, "nodes/none"), !may, "{user}");
        assert!(may_write(&cluster, user, "claims/none") && may_write(&cluster, user, "facts/none"), "{user}");
    }

    let configure = |workspace: &Workspace, user: &str, more: &str| {
        let password = workspace.write("etcd.password", user);
        set_mode(&password, 0o600);
        let more = format!("user = {user:?}\npassword_file = {password:?}\n{more}");
        use_etcd_as(workspace, std::slice::from_ref(&haproxy.url), "targetwatch", &more);
    };
    let workspaces = ["a", "b"].map(|name| {
        let workspace = Workspace::with_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY, "");
        let rest = "[probe]\ns3_interval = \"1s\"\n[s3.canary]\nenabled = false";
        configure(&workspace, "targetwatch-agent", &format!("[fleet]\nnode = {name:?}\n{rest}"));
        workspace
    });
    let of_fleet = Workspace::new();
    configure(&of_fleet, "targetwatch-aggregator", "[aggregate]\nnodes = [\"http://127.0.0.1:9\"]\ninterval = \"1s\"");
    let aggregator = Daemon::start_aggregator(&of_fleet).await;
    let id = eventually("the registry", async || {
        let answer = aggregator.try_create(immutable_target(&s3, "locked")).await;
        (answer.status == 200).then(|| answer.json()["backup_targets"]["id"].as_str().expect("an id").to_owned())
    })
    .await;

    let agents = [Daemon::start(&workspaces[0]).await, Daemon::start(&workspaces[1]).await];
    for agent in &agents {
        let deadline = Instant::now() + SOON;
        let is_proved = |report: &Value| report["object_lock_proof"]["verdict"] == "enforced";
        loop {
            let answer = agent.request("GET", &format!("/backup_targets/{id}/checks"), None).await;
            if answer.status == 200 && is_proved(&answer.json()) {
                break;
            }
            assert!(Instant::now() < deadline, "no proof: {}\n{}", answer.body, agent.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        eventually("presence", async || (agent.get("/node").await["fleet"]["state"] == "present").then_some(())).await;
    }
    let refused = agents[0].try_create(json!({ "type": "nfs", "filesystem_export": "127.0.0.1:/a" })).await;
    assert!(refused.status == 503 && refused.body.contains("fleet_unavailable"), "{refused:?}");

    // haproxy leaves out a member that is down.
    cluster.kill(1);
    let second = eventually("a change with two members", async || {
        let target = json!({ "type": "nfs", "filesystem_export": "127.0.0.1:/b" });
        let answer = aggregator.try_create(target).await;
        (answer.status == 200).then(|| answer.json()["backup_targets"]["id"].as_str().expect("an id").to_owned())
    })
    .await;
    for agent in &agents {
        eventually("the change on a node", async || (agent.targets().await.len() == 2).then_some(())).await;
        assert_sound(agent, 0.0).await;
    }
    // The first target is the default, so it is deleted last.
    for target in [&second, &id] {
        let deleted = aggregator.request("DELETE", &format!("/backup_targets/{target}"), None).await;
        assert_eq!(deleted.status, 202, "{deleted:?}");
    }
    for folder in ["claims", "facts"] {
        let keys = format!("/targetwatch/v1/{folder}/{id}/");
        assert_eq!(cluster.etcdctl(0, &["--user=root:root", "get", "--prefix", "--keys-only", &keys]), "");
    }
}
