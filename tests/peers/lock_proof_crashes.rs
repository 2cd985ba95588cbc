//! A proof that is killed anywhere (SIGKILL): the next run removes what it left, or accounts for it.
//!
//! A request is held in front of the gateway while its sender is killed, and then passed on, as a network
//! would: so each step is killed before it is done, though done later, and after it.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::types::ObjectLockRetentionMode;
use futures::{StreamExt as _, stream};
use http::Method;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, immutable_target};
use crate::lock_proof::{is_of_proof, of_proof, workspace};
use crate::proxy::{Held, Passed, Proxy, When};
use crate::report::assert_offline;
use crate::workspace::Workspace;

/// How many canaries of earlier runs may be locked before no further one is put.
const LOCKED_MAX: usize = 4;

/// How many agents are killed at the same time.
const AT_ONCE: usize = 6;

/// How far ahead the clock of a service is for which the retention of all canaries is over, and the time that a
/// command beside the agent has to remove its own.
const AHEAD_SECONDS: i64 = 120;

/// A way that a proof takes.
#[derive(Debug, Clone, Copy)]
struct Way {
    mode: &'static str,
    /// Nobody may ask for the bypass.
    has_no_bypass: bool,
    verdict: &'static str,
    /// What it asks of its canary, in order: PUT, HEAD, DELETE, HEAD, then DELETE with the bypass and HEAD, in
    /// GOVERNANCE mode, then, unless it is gone, DELETE and HEAD again after the wait.
    requests: usize,
    /// After how many of them it waits, if it does.
    waits_after: Option<usize>,
}

const WAYS: [Way; 3] = [
    Way { mode: "governance", has_no_bypass: false, verdict: "bypassable", requests: 6, waits_after: None },
    Way { mode: "governance", has_no_bypass: true, verdict: "enforced", requests: 8, waits_after: Some(6) },
    Way { mode: "compliance", has_no_bypass: false, verdict: "enforced", requests: 6, waits_after: Some(4) },
];

fn is_put(passed: &Passed) -> bool {
    is_of_proof(passed) && passed.method == Method::PUT
}

/// Kills an agent when a request of it is held, which is passed on after that.
async fn kill_at(agent: &mut Daemon, mut held: Held) {
    let release = held.reached().await;
    agent.kill().await;
    drop(release);
}

/// What leads to one service now and to another later: its endpoint, and where it leads. Each request of a
/// [`Proxy`] is a connection.
async fn crossing(endpoint: &str) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = format!("http://{}", listener.local_addr().expect("an address"));
    let leads_to = Arc::new(Mutex::new(endpoint.to_owned()));
    tokio::spawn({
        let leads_to = leads_to.clone();
        async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let service = leads_to.lock().expect("no panic").replace("http://", "");
                tokio::spawn(async move {
                    let mut service = TcpStream::connect(service).await?;
                    copy_bidirectional(&mut client, &mut service).await
                });
            }
        }
    });
    (own, leads_to)
}

/// The verdict of the next run, and what is left then.
async fn next_run(gateway: &Gateway, workspace: &Workspace, id: &str, bucket: &str) -> (Value, Vec<String>) {
    let agent = Daemon::start(workspace).await;
    let report = agent.wait_for_lock_proof(id).await;
    (report["object_lock_proof"]["verdict"].clone(), gateway.until_versions(bucket, <[String]>::is_empty).await)
}

/// Kills an agent at a request of its proof, or without one in the wait, and gives what its successor finds
/// and leaves.
async fn killed(gateway: &Gateway, way: Way, at: Option<(usize, When)>) -> (Value, Vec<String>) {
    let (workspace, bucket) = (workspace(gateway, way.mode), gateway.locked_bucket().await);
    if way.has_no_bypass {
        gateway.deny(&bucket, Some("s3:BypassGovernanceRetention")).await;
    }
    let proxy = Proxy::start(&gateway.endpoint).await;
    let (nth, when) = at.unwrap_or_else(|| (way.waits_after.expect("it waits"), When::After));
    let mut held = proxy.hold(when, nth, is_of_proof);
    let mut agent = Daemon::start(&workspace).await;
    let id = agent.create(immutable_target(&proxy.endpoint, &bucket)).await;
    if at.is_some() {
        kill_at(&mut agent, held).await;
    } else {
        // Not at the request, but in the wait that follows it.
        drop(held.reached().await);
        agent.wait_for_report(&id, "the wait", |report| report["reason"] == "lock_proof_pending").await;
        agent.kill().await;
    }
    next_run(gateway, &workspace, &id, &bucket).await
}

#[tokio::test]
async fn lock_proof_recovers_after_sigkill_at_any_step() {
    let gateway = Gateway::shared().await;
    let mut cases = Vec::new();
    for way in WAYS {
        cases.extend(way.waits_after.map(|_| (way, None)));
        for nth in 1..=way.requests {
            cases.extend([When::Before, When::After].map(|when| (way, Some((nth, when)))));
        }
    }
    let count = cases.len();
    let over = stream::iter(cases)
        .map(|(way, at)| {
            let gateway = &gateway;
            async move {
                let (verdict, left) = killed(gateway, way, at).await;
                assert_eq!((verdict, left), (way.verdict.into(), Vec::new()), "{way:?}, killed at {at:?}");
            }
        })
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    assert_eq!(over, count);
}

/// What a run does about what an earlier one left, by method and a part of what is asked for.
const SWEEPING: [(&str, Method, usize, When); 7] = [
    ("its list, for the canary that is written", Method::GET, 1, When::After),
    ("its list, for the canary that is locked", Method::GET, 2, When::After),
    ("its list, after the proof", Method::GET, 3, When::After),
    ("its first look at it", Method::HEAD, 1, When::After),
    ("its second look at it", Method::HEAD, 2, When::After),
    ("its removal, and it was not done yet", Method::DELETE, 1, When::Before),
    ("its removal", Method::DELETE, 1, When::After),
];

#[tokio::test]
async fn cleanup_resumes_after_sigkill_during_cleanup() {
    let gateway = Gateway::shared().await;
    let over = stream::iter(SWEEPING)
        .map(|(what, method, nth, when)| {
            let gateway = &gateway;
            async move {
                let (workspace, bucket) = (workspace(gateway, "compliance"), gateway.locked_bucket().await);
                let proxy = Proxy::start(&gateway.endpoint).await;
                let held = proxy.hold(When::After, 1, is_put);
                let mut agent = Daemon::start(&workspace).await;
                let id = agent.create(immutable_target(&proxy.endpoint, &bucket)).await;
                kill_at(&mut agent, held).await;
                let left = gateway.versions(&bucket).await;
                assert_eq!(left.len(), 1, "{what}: {left:?}");

                let of = if method == Method::GET { "?versions".to_owned() } else { left[0].clone() };
                let chosen = move |passed: &Passed| passed.method == method && passed.target.contains(&of);
                let held = proxy.hold(when, nth, chosen);
                let mut agent = Daemon::start(&workspace).await;
                kill_at(&mut agent, held).await;
                let found = next_run(gateway, &workspace, &id, &bucket).await;
                assert_eq!(found, ("enforced".into(), Vec::new()), "killed at {what}");
            }
        })
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    assert_eq!(over, SWEEPING.len());
}

#[tokio::test]
async fn agent_removes_canaries_of_a_killed_command() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "compliance"), gateway.locked_bucket().await);
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 1).await;
    let (endpoint, leads_to) = crossing(&gateway.endpoint).await;
    let proxy = Proxy::start(&endpoint).await;
    let mut held = proxy.hold(When::After, 1, is_put);
    let (url, config) = (format!("{}/{bucket}", proxy.endpoint), workspace.path("config.toml"));
    let config = config.to_str().expect("text");
    let mut command = workspace.command(&["check", "s3", &url, "--immutable", "--config", config]);
    let mut command = command.spawn().expect("the command starts");
    let release = held.reached().await;
    command.kill().await.expect("killed");
    drop(release);
    let left: Vec<String> = gateway.versions(&bucket).await;
    let of_proof: Vec<&String> = left.iter().filter(|key| key.contains("/lock-")).collect();
    assert_eq!(of_proof.len(), 1, "{left:?}");

    // Another command may be at work, so the agent leaves what it may still need.
    let mut agent = Daemon::start(&workspace).await;
    let id = agent.create(immutable_target(&proxy.endpoint, &bucket)).await;
    assert_eq!(agent.wait_for_lock_proof(&id).await["object_lock_proof"]["verdict"], "enforced");
    assert!(gateway.versions(&bucket).await.contains(of_proof[0]));
    agent.kill().await;

    *leads_to.lock().expect("no panic") = gateway.with_clock(AHEAD_SECONDS);
    let agent = Daemon::start(&workspace).await;
    assert_eq!(agent.wait_for_lock_proof(&id).await["object_lock_proof"]["verdict"], "enforced");
    let is_over = |found: &[String]| found.iter().all(|key| !left.contains(key));
    gateway.until_versions(&bucket, is_over).await;
}

#[tokio::test]
async fn repeated_sigkill_leaves_a_bounded_number_of_canaries() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "compliance"), gateway.locked_bucket().await);
    // Longer than all of this takes.
    workspace.configure("[s3.canary]\nretention = \"120s\"");
    let proxy = Proxy::start(&gateway.endpoint).await;
    let mut id = String::new();
    for run in 0..LOCKED_MAX {
        let held = proxy.hold(When::After, 1, is_put);
        let mut agent = Daemon::start(&workspace).await;
        if run == 0 {
            id = agent.create(immutable_target(&proxy.endpoint, &bucket)).await;
        }
        kill_at(&mut agent, held).await;
        assert_eq!(gateway.versions(&bucket).await.len(), run + 1);
    }
    for _ in 0..2 {
        let mut agent = Daemon::start(&workspace).await;
        let message = assert_offline(&agent.check(&id).await, "lock_proof_pending");
        assert!(message.contains("4 canaries of earlier runs are still locked"), "{message}");
        agent.kill().await;
    }
    assert_eq!(gateway.versions(&bucket).await.len(), LOCKED_MAX);
    assert_eq!(of_proof(&proxy).iter().filter(|passed| is_put(passed)).count(), LOCKED_MAX);
}
