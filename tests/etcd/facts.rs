//! Facts of a bucket that one agent finds for all, with real agents, a real etcd, and an S3 server in this process.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use targetwatch::etcd::{EtcdRevision, KeyValueStore as _, RangeRequest};
use tokio::time::Instant;

use super::cluster::EtcdCluster;
use super::fleet::{assert_sound, metric};
use super::proxy::LossyProxy;
use crate::daemon::Daemon;
use crate::report::{assert_contains, assert_healthy, detail_of};
use crate::storage::{immutable_target, s3, s3_target};
use crate::support::s3_server::{Denied, S3Server};
use crate::workspace::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Workspace};

/// Another access key of the same user.
const ANOTHER_KEY_ID: &str = "AKIAANOTHERACCESSKEY";
const ANOTHER_SECRET: &str = "anotherSecretOfTheIntegrationTestsOfTheFleet";

/// Time to live of the leases of a small fleet.
const TTL: Duration = Duration::from_secs(60);

/// Time limit for what takes no time to live, on a loaded host. The retention of a canary is 7 s.
pub const SOON: Duration = Duration::from_secs(90);

/// A workspace of a node. Canaries are off, so that each PUT is one of a lock proof.
pub fn node(name: &str, etcd: &EtcdCluster, access_key_id: &str, secret_access_key: &str) -> Workspace {
    let workspace = node_without_name(etcd, access_key_id, secret_access_key);
    workspace.configure(&format!("[fleet]\nnode = \"{name}\""));
    workspace
}

/// The same without a name, which follows from the machine id.
fn node_without_name(etcd: &EtcdCluster, access_key_id: &str, secret_access_key: &str) -> Workspace {
    let workspace = Workspace::with_credentials(access_key_id, secret_access_key, "");
    let (host, cache) = (etcd.urls[0].trim_start_matches("http://"), workspace.registry());
    workspace.configure(&format!(
        r#"
        [registry]
        url = "etcd://{host}/fleet"
        cache = "{}"
        compare_interval = "1s"
        [probe]
        s3_interval = "1s"
        [s3.canary]
        enabled = false
        [s3.listing]
        enabled = true
        interval = "1h"
        requests_max = 1000
        "#,
        cache.display()
    ));
    workspace
}

/// Polls until there is a result.
pub async fn within<T>(limit: Duration, what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for a report of a target, which may not have reached this node yet, that meets a condition.
pub async fn report_of(daemon: &Daemon, id: &str, what: &str, is_met: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/backup_targets/{id}/checks");
    let deadline = Instant::now() + SOON;
    loop {
        let answer = daemon.request("GET", &path, None).await;
        if answer.status == 200 && is_met(&answer.json()) {
            return answer.json();
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}; the latest answer is {}", answer.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn is_proved(report: &Value) -> bool {
    report["object_lock_proof"]["verdict"] == "enforced"
}

/// Number of canaries that lock proofs have written.
pub fn proofs(s3: &S3Server) -> usize {
    let is_canary = |request: &&String| request.starts_with("PUT /locked/") && request.ends_with("x-id=PutObject");
    s3.requests().iter().filter(is_canary).count()
}

/// Number of pages of listings of a whole bucket.
fn pages(s3: &S3Server) -> usize {
    s3.requests().iter().filter(|request| request.contains("/paged") && request.contains("max-keys=1000")).count()
}

/// Values of a fact or of its claims, one for each access key.
fn values_of(etcd: &EtcdCluster, folder: &str, id: &str, fact: &str) -> Vec<String> {
    let keys = format!("/fleet/v1/{folder}/{id}/{fact}/");
    let values = etcd.etcdctl(0, &["get", "--prefix", "--print-value-only", &keys]);
    values.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The same if all nodes have one access key. Empty if there is none.
pub fn value_of(etcd: &EtcdCluster, folder: &str, id: &str, fact: &str) -> String {
    let values = values_of(etcd, folder, id, fact);
    assert!(values.len() <= 1, "{values:?}");
    values.into_iter().next().unwrap_or_default()
}

#[tokio::test]
async fn facts_are_found_once_and_by_another_node_when_the_holder_dies() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    for key in ["a", "b", "c"] {
        s3.put("paged", key, "12345");
    }
    let workspaces = ["a", "b"].map(|name| node(name, &etcd, ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let mut daemons = [Daemon::start(&workspaces[0]).await, Daemon::start(&workspaces[1]).await];
    for (daemon, name) in daemons.iter().zip(["a", "b"]) {
        let present = json!({ "node": name, "labels": {}, "state": "present", "problem": null });
        within(SOON, "presence", async || (daemon.get("/node").await["fleet"] == present).then_some(())).await;
    }
    let locked = daemons[0].create(immutable_target(&s3, "locked")).await;
    let paged = daemons[1].create(s3_target(&s3, "paged")).await;

    let mut nodes = Vec::new();
    for daemon in &daemons {
        let report = report_of(daemon, &locked, "a proof", is_proved).await;
        assert_healthy(&report);
        let count = report_of(daemon, &paged, "a count", |report| !report["usage_listing"]["counted"].is_null()).await;
        assert_eq!((&count["used_bytes"], &count["object_count"]), (&json!(15), &json!(3)), "{count:#}");
        nodes.push((report, count));
    }
    // One node found each fact, and the other one says so.
    let (proof, listing) =
        (value_of(&etcd, "claims", &locked, "lock_proof"), value_of(&etcd, "claims", &paged, "usage_listing"));
    for ((report, count), name) in nodes.iter().zip(["a", "b"]) {
        let expected = |holder: &str| if holder == name { Value::Null } else { holder.into() };
        assert_eq!(report["object_lock_proof"]["node"], expected(&proof), "{report:#}");
        assert_eq!(count["usage_listing"]["node"], expected(&listing), "{count:#}");
        let of_other = format!("by the node {proof}");
        assert_eq!(detail_of(report, "lock_proof").contains(&of_other), proof != name, "{report:#}");
    }
    for (daemon, name) in daemons.iter().zip(["a", "b"]) {
        let is_holder = f64::from(u8::from(proof == name));
        let of_proofs = async |family: &str| metric(daemon, &format!("{family}{{fact=\"lock_proof\"}}")).await;
        assert_eq!(of_proofs("targetwatch_fleet_claims").await, Some(is_holder), "{name}");
        assert_eq!(of_proofs("targetwatch_fleet_shared_facts").await, Some(1.0 - is_holder), "{name}");
        assert_eq!(of_proofs("targetwatch_fleet_shared_fact_age_seconds").await.is_some(), proof != name, "{name}");
    }
    let times = |(report, _): &(Value, Value)| report["object_lock_proof"]["proved_at"].clone();
    assert_eq!(times(&nodes[0]), times(&nodes[1]));
    assert_eq!((proofs(&s3), pages(&s3)), (1, 2), "{:#?}", s3.requests());

    daemons[0].delete(&paged).await;
    let prefixes = ["claims", "facts", "registry/targets"].map(|folder| format!("/fleet/v1/{folder}/{paged}"));
    for prefix in prefixes {
        assert_eq!(etcd.etcdctl(0, &["get", "--prefix", "--keys-only", &prefix]), "");
    }

    // The next holder has the fact, and need not find it again.
    let holder = usize::from(proof == "b");
    daemons[holder].end(Signal::SIGKILL).await;
    let survivor = ["b", "a"][holder];
    within(2 * TTL, "another holder", async || {
        (value_of(&etcd, "claims", &locked, "lock_proof") == survivor).then_some(())
    })
    .await;
    assert_healthy(&report_of(&daemons[1 - holder], &locked, "a proof", is_proved).await);
    assert_sound(&daemons[1 - holder], 0.0).await;
}

#[tokio::test]
async fn each_access_key_has_its_own_holder_and_facts_say_nothing_about_the_path() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    s3.add_key(ANOTHER_KEY_ID, ANOTHER_SECRET);
    let another = (ANOTHER_KEY_ID, ANOTHER_SECRET);
    let keys = [(ACCESS_KEY_ID, SECRET_ACCESS_KEY), another, (ACCESS_KEY_ID, "wrong"), another];
    let names = ["a", "with-another-key", "without-access", "with-the-same-key"];
    let workspaces: Vec<_> = names.iter().zip(keys).map(|(name, (id, key))| node(name, &etcd, id, key)).collect();
    let first = Daemon::start(&workspaces[0]).await;
    let id = first.create(immutable_target(&s3, "locked")).await;
    report_of(&first, &id, "a proof", is_proved).await;
    assert_eq!((value_of(&etcd, "claims", &id, "lock_proof").as_str(), proofs(&s3)), ("a", 1));

    let (with_another_key, without_access) = (Daemon::start(&workspaces[1]).await, Daemon::start(&workspaces[2]).await);
    let report = report_of(&with_another_key, &id, "its own proof", is_proved).await;
    assert_eq!((&report["object_lock_proof"]["node"], proofs(&s3)), (&Value::Null, 2), "{report:#}");
    let mut holders = values_of(&etcd, "claims", &id, "lock_proof");
    holders.sort_unstable();
    assert_eq!(holders, ["a", "with-another-key"]);
    let with_the_same_key = Daemon::start(&workspaces[3]).await;
    let report = report_of(&with_the_same_key, &id, "the proof of the other holder", is_proved).await;
    assert_eq!((&report["object_lock_proof"]["node"], proofs(&s3)), (&json!("with-another-key"), 2), "{report:#}");
    let report = report_of(&without_access, &id, "a verdict", |report| !report["verdict"].is_null()).await;
    assert_eq!((&report["status"], &report["verdict"]), (&json!("offline"), &json!("failed")), "{report:#}");
    assert_ne!(report["object_lock_proof"]["verdict"], "enforced", "{report:#}");
    for daemon in [&first, &with_another_key, &without_access, &with_the_same_key] {
        assert_sound(daemon, 0.0).await;
    }
}

#[tokio::test]
async fn facts_stay_without_etcd_and_a_node_that_starts_finds_its_own() {
    let (mut etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    let workspaces = ["a", "b"].map(|name| node(name, &etcd, ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let mut daemons = [Daemon::start(&workspaces[0]).await, Daemon::start(&workspaces[1]).await];
    let id = daemons[0].create(immutable_target(&s3, "locked")).await;
    for daemon in &daemons {
        report_of(daemon, &id, "a proof", is_proved).await;
    }
    let holder = usize::from(value_of(&etcd, "claims", &id, "lock_proof") == "b");
    etcd.kill(0);
    for daemon in &daemons {
        let before = daemon.report(&id).await["checked_at"].clone();
        let report = report_of(daemon, &id, "a probe without etcd", |report| report["checked_at"] != before).await;
        assert!(is_proved(&report), "{report:#}");
        assert_healthy(&report);
    }
    let refused = daemons[0].try_create(s3_target(&s3, "plain")).await;
    assert_contains(&refused.fault(503, "serviceUnavailable"), &["etcd"]);
    assert_eq!(proofs(&s3), 1);

    let other = 1 - holder;
    daemons[other].stop().await;
    daemons[other] = Daemon::start(&workspaces[other]).await;
    let report = report_of(&daemons[other], &id, "its own proof", is_proved).await;
    assert_eq!((&report["object_lock_proof"]["node"], proofs(&s3)), (&Value::Null, 2), "{report:#}");
    assert_ne!(daemons[other].get("/node").await["fleet"]["state"], "present");
    for daemon in &daemons {
        assert_sound(daemon, 0.0).await;
    }
}

/// Asserts that only this node has written facts and claims since a revision.
async fn assert_only_writer(etcd: &EtcdCluster, name: &str, since: EtcdRevision) {
    let (client, by) = (etcd.client().await, format!("\"node\":\"{name}\""));
    let newest = client.range(&RangeRequest::key("/")).await.expect("answered").header.revision;
    for revision in since.0 + 1..=newest.0 {
        for folder in ["claims", "facts"] {
            let keys = RangeRequest::prefix(format!("/fleet/v1/{folder}/"));
            let request = RangeRequest { revision: Some(EtcdRevision(revision)), ..keys };
            let written = client.range(&request).await.expect("not compacted").entries;
            for entry in written.iter().filter(|entry| entry.mod_revision.0 == revision) {
                let value = String::from_utf8_lossy(&entry.value);
                assert!(value == name || value.contains(&by), "{folder} at revision {revision}: {value}");
            }
        }
    }
}

#[tokio::test]
async fn paused_holder_whose_lease_has_ended_writes_no_fact_and_is_present_again() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    let proxy = LossyProxy::start(&etcd.urls[0]).await;
    let workspaces = ["paused", "next"].map(|name| node(name, &etcd, ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let host = proxy.url.trim_start_matches("http://");
    workspaces[0].configure(&format!("[registry]\nurl = \"etcd://{host}/fleet\""));
    let paused = Daemon::start(&workspaces[0]).await;
    let id = paused.create(immutable_target(&s3, "locked")).await;
    report_of(&paused, &id, "a proof", is_proved).await;
    let holds = |name: &str| ["lock_proof", "bucket"].iter().all(|fact| value_of(&etcd, "claims", &id, fact) == name);
    within(SOON, "the claims", async || holds("paused").then_some(())).await;
    let next = Daemon::start(&workspaces[1]).await;
    let is_watched_by = |name: &str, report: &Value| is_proved(report) && report["bucket_watched_by"] == name;
    report_of(&next, &id, "facts of the holder", |report| is_watched_by("paused", report)).await;

    // The holder stops when its next fact is on the way to etcd.
    proxy.hold_fact().await;
    paused.signal(Signal::SIGSTOP);
    let client = etcd.client().await;
    let alive = RangeRequest::key("/fleet/v1/nodes/paused/alive");
    let lease = async || client.range(&alive).await.expect("answered").entries.first()?.lease;
    let former = lease().await.expect("the lease of the holder");
    // etcd ends it when its time to live has passed. Here it ends now.
    client.revoke(former).await.expect("ended");
    within(SOON, "another holder", async || holds("next").then_some(())).await;
    within(SOON, "a fact of the other holder", async || {
        value_of(&etcd, "facts", &id, "bucket").contains("\"node\":\"next\"").then_some(())
    })
    .await;
    let taken_over = client.range(&alive).await.expect("answered").header.revision;
    let answer = proxy.release().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"header\""), "{answer}");
    assert!(!answer.contains("\"succeeded\":true"), "the write with the former claim: {answer}");

    paused.signal(Signal::SIGCONT);
    within(SOON, "presence with another lease", async || {
        let is_present = paused.get("/node").await["fleet"]["state"] == "present";
        lease().await.filter(|lease| is_present && *lease != former)
    })
    .await;
    assert_healthy(&report_of(&paused, &id, "the other holder", |report| is_watched_by("next", report)).await);
    let report = report_of(&next, &id, "its own questions", |report| report["bucket_watched_by"].is_null()).await;
    assert!(is_proved(&report), "{report:#}");
    assert_healthy(&report);
    for (daemon, count) in [(&paused, 0.0), (&next, 1.0)] {
        for fact in ["lock_proof", "bucket"] {
            let series = format!("targetwatch_fleet_claims{{fact=\"{fact}\"}}");
            assert_eq!(metric(daemon, &series).await, Some(count), "{series}");
        }
    }
    assert!(holds("next"));
    assert_eq!(proofs(&s3), 1);
    // The probe of the only target was due while the agent was paused.
    assert_sound(&paused, 1.0).await;
    assert_sound(&next, 0.0).await;
    assert_only_writer(&etcd, "next", taken_over).await;
}

#[tokio::test]
async fn two_agents_with_one_machine_id_are_reported() {
    let etcd = EtcdCluster::start(1, &[]).await;
    let workspaces = [(); 2].map(|()| node_without_name(&etcd, ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let first = Daemon::start(&workspaces[0]).await;
    let state = async |daemon: &Daemon| daemon.get("/node").await["fleet"].clone();
    within(SOON, "presence", async || (state(&first).await["state"] == "present").then_some(())).await;
    let second = Daemon::start(&workspaces[1]).await;
    // It may be the same host after a restart, until the key of the first process has outlived its time to live.
    let refused = within(2 * TTL, "a duplicate name", async || {
        Some(state(&second).await).filter(|fleet| fleet["state"] == "duplicate_node_id")
    })
    .await;
    assert_contains(refused["problem"].as_str().expect("a problem"), &["another agent of this host", "[fleet] node"]);
    let first_state = state(&first).await;
    assert_eq!((&first_state["state"], &first_state["node"]), (&json!("present"), &refused["node"]));
    assert_eq!(metric(&second, "targetwatch_fleet_duplicate_node_id").await, Some(1.0));
    assert_eq!(metric(&second, "targetwatch_fleet_present").await, Some(0.0));
    assert_eq!(metric(&first, "targetwatch_fleet_duplicate_node_id").await, Some(0.0));
}

/// Number of requests of an agent for a bucket so far.
async fn requests_of(daemon: &Daemon, id: &str) -> u64 {
    daemon.report(id).await["requests_last_hour"].as_u64().expect("a number")
}

#[tokio::test]
async fn bucket_is_watched_by_one_node_and_judged_by_each() {
    let (etcd, s3) = (EtcdCluster::start(1, &[]).await, s3().await);
    let names = ["a", "b", "c"];
    let workspaces = names.map(|name| {
        let workspace = node(name, &etcd, ACCESS_KEY_ID, SECRET_ACCESS_KEY);
        workspace.configure("[fleet]\nbucket_check_interval = \"1h\"\n[s3.listing]\nenabled = false");
        workspace
    });
    let mut daemons = Vec::new();
    for workspace in &workspaces {
        daemons.push(Daemon::start(workspace).await);
    }
    let id = daemons[0].create(s3_target(&s3, "plain")).await;
    for (daemon, name) in daemons.iter().zip(names) {
        let is_settled = |report: &Value| {
            let holder = value_of(&etcd, "claims", &id, "bucket");
            !holder.is_empty() && (holder == name || report["bucket_watched_by"] == holder.as_str())
        };
        assert_healthy(&report_of(daemon, &id, "a node that watches the bucket", is_settled).await);
    }
    let holder = value_of(&etcd, "claims", &id, "bucket");
    let others: Vec<usize> = (0..names.len()).filter(|number| names[*number] != holder).collect();
    let watching = names.iter().position(|name| *name == holder).expect("one of them");

    // The others send no request, and verify their path at each probe.
    let mut before = Vec::new();
    for daemon in &daemons {
        before.push((requests_of(daemon, &id).await, daemon.report(&id).await["checked_at"].clone()));
    }
    within(SOON, "ten more requests of the holder", async || {
        (requests_of(&daemons[watching], &id).await >= before[watching].0 + 10).then_some(())
    })
    .await;
    for number in &others {
        let report = daemons[*number].report(&id).await;
        assert_eq!(report["requests_last_hour"], before[*number].0, "{report:#}");
        assert_ne!(report["checked_at"], before[*number].1, "{report:#}");
        assert!(report["bucket_asked_at"].as_str() < report["checked_at"].as_str(), "{report:#}");
        assert_contains(detail_of(&report, "bucket"), &["asked by this node at", &holder]);
    }

    // Credentials that fail on one node concern only this node.
    workspaces[others[0]].write("secret", "wrong");
    let is_offline = |report: &Value| report["status"] == "offline";
    report_of(&daemons[others[0]], &id, "wrong credentials", is_offline).await;
    for number in [watching, others[1]] {
        assert_healthy(&daemons[number].report(&id).await);
    }
    workspaces[others[0]].write("secret", SECRET_ACCESS_KEY);
    report_of(&daemons[others[0]], &id, "right credentials", |report| report["status"] == "available").await;

    // Each node finds out itself that the bucket cannot be reached any more, and that it can again.
    s3.deny(Denied::Everything);
    for daemon in &daemons {
        let report = report_of(daemon, &id, "a refusal", is_offline).await;
        assert!(report["probe_requests"].as_u64() > Some(0), "{report:#}");
    }
    s3.deny(Denied::Nothing);
    for daemon in &daemons {
        report_of(daemon, &id, "no refusal", |report| report["status"] == "available").await;
        // That probe may have begun while everything was refused, and then it has a warning.
        assert_healthy(&daemon.check(&id).await);
        assert_sound(daemon, 0.0).await;
    }
}
