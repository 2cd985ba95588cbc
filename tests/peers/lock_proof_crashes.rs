//! Proofs that SIGKILL interrupts at any step. The next run removes the canaries, or counts them.
//!
//! A proxy holds a request while its sender is killed, and then forwards it, as a network could. So the agent is killed
//! either before or after the service executes a step.

use std::sync::{Arc, Mutex};

use aws_sdk_s3::types::ObjectLockRetentionMode;
use futures::{StreamExt as _, stream};
use http::Method;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, immutable_target};
use crate::lock_proof::{is_proof_request, proof_requests, workspace};
use crate::proxy::{Held, Proxy, ReceivedRequest, When};
use crate::report::assert_offline;
use crate::workspace::Workspace;

/// Number of locked canaries of earlier runs at which the agent writes no further one.
const LOCKED_MAX: usize = 4;

/// Number of agents that are tested at the same time.
const CONCURRENT_AGENTS: usize = 6;

/// Offset of a clock. By this clock, all retentions have ended, and commands have had the time to remove their
/// canaries.
const AHEAD_SECONDS: i64 = 120;

/// The steps of a proof under one configuration.
#[derive(Debug, Clone, Copy)]
struct ProofCase {
    mode: &'static str,
    /// A policy denies the bypass to everybody.
    is_bypass_denied: bool,
    verdict: &'static str,
    /// Number of requests about the canary: PUT and HEAD, and a DELETE or PUT with a HEAD for each attempt to end the
    /// lock early. If the canary still exists, DELETE and HEAD follow after the wait.
    requests: usize,
    /// Requests of repeated attempts, at which no agent is killed. Attempts of each kind are tested once.
    repeated_attempts: &'static [usize],
    /// Number of requests before the wait, if there is a wait.
    waits_after: Option<usize>,
}

const CASES: [ProofCase; 3] = [
    ProofCase {
        mode: "governance",
        is_bypass_denied: false,
        verdict: "bypassable",
        requests: 10,
        repeated_attempts: &[7, 8],
        waits_after: None,
    },
    ProofCase {
        mode: "governance",
        is_bypass_denied: true,
        verdict: "enforced",
        requests: 16,
        repeated_attempts: &[7, 8, 11, 12],
        waits_after: Some(14),
    },
    ProofCase {
        mode: "compliance",
        is_bypass_denied: false,
        verdict: "enforced",
        requests: 12,
        repeated_attempts: &[7, 8],
        waits_after: Some(10),
    },
];

fn is_proof_put(passed: &ReceivedRequest) -> bool {
    is_proof_request(passed) && passed.method == Method::PUT
}

/// Kills an agent while one of its requests is held. The request is forwarded afterwards.
async fn kill_at(daemon: &mut Daemon, mut held: Held) {
    let release = held.reached().await;
    daemon.kill().await;
    drop(release);
}

/// Starts a forwarder whose destination can be changed, and returns its endpoint and its destination. Each request of
/// a [`Proxy`] has its own connection, so a change affects the next request.
async fn forwarder(endpoint: &str) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = format!("http://{}", listener.local_addr().expect("an address"));
    let destination = Arc::new(Mutex::new(endpoint.to_owned()));
    tokio::spawn({
        let destination = destination.clone();
        async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let service = destination.lock().expect("no panic").replace("http://", "");
                tokio::spawn(async move {
                    let mut service = TcpStream::connect(service).await?;
                    copy_bidirectional(&mut client, &mut service).await
                });
            }
        }
    });
    (own, destination)
}

/// The verdict of the next run, and the versions in the bucket after it.
async fn next_run(gateway: &Gateway, workspace: &Workspace, id: &str, bucket: &str) -> (Value, Vec<String>) {
    let daemon = Daemon::start(workspace).await;
    let report = daemon.wait_for_lock_proof(id).await;
    (report["object_lock_proof"]["verdict"].clone(), gateway.wait_for_versions(bucket, <[String]>::is_empty).await)
}

/// Kills an agent at a request of its proof, or in the wait, and returns the verdict and versions of the next run.
async fn killed(gateway: &Gateway, case: ProofCase, at: Option<(usize, When)>) -> (Value, Vec<String>) {
    let (workspace, bucket) = (workspace(gateway, case.mode), gateway.locked_bucket().await);
    // The attempts take seconds while several agents run.
    workspace.configure("[s3.canary]\nretention = \"8s\"");
    if case.is_bypass_denied {
        gateway.deny(&bucket, Some("s3:BypassGovernanceRetention")).await;
    }
    let proxy = Proxy::start(&gateway.endpoint).await;
    let (nth, when) = at.unwrap_or_else(|| (case.waits_after.expect("it waits"), When::After));
    let mut held = proxy.hold(when, nth, is_proof_request);
    let (mut daemon, id) = Daemon::with_target(&workspace, immutable_target(&proxy.endpoint, &bucket)).await;
    if at.is_some() {
        kill_at(&mut daemon, held).await;
    } else {
        // The kill comes in the wait after the request.
        drop(held.reached().await);
        daemon.wait_for_report(&id, "the wait", |report| report["reason"] == "lock_proof_pending").await;
        daemon.kill().await;
    }
    next_run(gateway, &workspace, &id, &bucket).await
}

#[tokio::test]
async fn lock_proof_recovers_after_sigkill_at_any_step() {
    let gateway = Gateway::shared().await;
    let mut kills = Vec::new();
    for case in CASES {
        kills.extend(case.waits_after.map(|_| (case, None)));
        for nth in (1..=case.requests).filter(|nth| !case.repeated_attempts.contains(nth)) {
            kills.extend([When::Before, When::After].map(|when| (case, Some((nth, when)))));
        }
    }
    let count = kills.len();
    let passed = stream::iter(kills)
        .map(|(case, at)| {
            let gateway = &gateway;
            async move {
                let (verdict, left) = killed(gateway, case, at).await;
                assert_eq!((verdict, left), (case.verdict.into(), Vec::new()), "{case:?}, killed at {at:?}");
            }
        })
        .buffer_unordered(CONCURRENT_AGENTS)
        .count()
        .await;
    assert_eq!(passed, count);
}

/// Requests of the cleanup after an earlier run: the description, the method, the number, and when it is held.
const CLEANUP: [(&str, Method, usize, When); 7] = [
    ("the listing before the write canary", Method::GET, 1, When::After),
    ("the listing before the locked canary", Method::GET, 2, When::After),
    ("the listing after the proof", Method::GET, 3, When::After),
    ("the first HEAD", Method::HEAD, 1, When::After),
    ("the second HEAD", Method::HEAD, 2, When::After),
    ("the DELETE, before it was executed", Method::DELETE, 1, When::Before),
    ("the DELETE, after it was executed", Method::DELETE, 1, When::After),
];

#[tokio::test]
async fn cleanup_resumes_after_sigkill_during_cleanup() {
    let gateway = Gateway::shared().await;
    let passed = stream::iter(CLEANUP)
        .map(|(what, method, nth, when)| {
            let gateway = &gateway;
            async move {
                let (workspace, bucket) = (workspace(gateway, "compliance"), gateway.locked_bucket().await);
                let proxy = Proxy::start(&gateway.endpoint).await;
                let held = proxy.hold(When::After, 1, is_proof_put);
                let (mut daemon, id) =
                    Daemon::with_target(&workspace, immutable_target(&proxy.endpoint, &bucket)).await;
                kill_at(&mut daemon, held).await;
                let left = gateway.versions(&bucket).await;
                assert_eq!(left.len(), 1, "{what}: {left:?}");

                let part = if method == Method::GET { "?versions".to_owned() } else { left[0].clone() };
                let chosen = move |passed: &ReceivedRequest| passed.method == method && passed.target.contains(&part);
                let held = proxy.hold(when, nth, chosen);
                let mut daemon = Daemon::start(&workspace).await;
                kill_at(&mut daemon, held).await;
                let found = next_run(gateway, &workspace, &id, &bucket).await;
                assert_eq!(found, ("enforced".into(), Vec::new()), "killed at {what}");
            }
        })
        .buffer_unordered(CONCURRENT_AGENTS)
        .count()
        .await;
    assert_eq!(passed, CLEANUP.len());
}

#[tokio::test]
async fn agent_removes_canaries_of_a_killed_command() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "compliance"), gateway.locked_bucket().await);
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 1).await;
    let (endpoint, destination) = forwarder(&gateway.endpoint).await;
    let proxy = Proxy::start(&endpoint).await;
    let mut held = proxy.hold(When::After, 1, is_proof_put);
    let (url, config) = (format!("{}/{bucket}", proxy.endpoint), workspace.path("config.toml"));
    let config = config.to_str().expect("text");
    let mut command = workspace.command(&["check", "s3", &url, "--immutable", "--config", config]);
    let mut command = command.spawn().expect("the command starts");
    let release = held.reached().await;
    command.kill().await.expect("killed");
    drop(release);
    let left: Vec<String> = gateway.versions(&bucket).await;
    let locked: Vec<&String> = left.iter().filter(|key| key.contains("/lock-")).collect();
    assert_eq!(locked.len(), 1, "{left:?}");

    // The command could still run, so the agent does not remove its canary yet.
    let (mut daemon, id) = Daemon::with_target(&workspace, immutable_target(&proxy.endpoint, &bucket)).await;
    assert_eq!(daemon.wait_for_lock_proof(&id).await["object_lock_proof"]["verdict"], "enforced");
    assert!(gateway.versions(&bucket).await.contains(locked[0]));
    daemon.kill().await;

    *destination.lock().expect("no panic") = gateway.with_clock(AHEAD_SECONDS);
    let daemon = Daemon::start(&workspace).await;
    assert_eq!(daemon.wait_for_lock_proof(&id).await["object_lock_proof"]["verdict"], "enforced");
    gateway.wait_for_versions(&bucket, |found| found.iter().all(|key| !left.contains(key))).await;
}

#[tokio::test]
async fn repeated_sigkill_leaves_a_bounded_number_of_canaries() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "compliance"), gateway.locked_bucket().await);
    // Longer than this test.
    workspace.configure("[s3.canary]\nretention = \"120s\"");
    let proxy = Proxy::start(&gateway.endpoint).await;
    let mut id = String::new();
    for run in 0..LOCKED_MAX {
        let held = proxy.hold(When::After, 1, is_proof_put);
        let mut daemon = Daemon::start(&workspace).await;
        if run == 0 {
            id = daemon.create(immutable_target(&proxy.endpoint, &bucket)).await;
        }
        kill_at(&mut daemon, held).await;
        assert_eq!(gateway.versions(&bucket).await.len(), run + 1);
    }
    for _ in 0..2 {
        let mut daemon = Daemon::start(&workspace).await;
        let message = assert_offline(&daemon.check(&id).await, "lock_proof_pending");
        assert!(message.contains("4 canaries of earlier runs are still locked"), "{message}");
        daemon.kill().await;
    }
    assert_eq!(gateway.versions(&bucket).await.len(), LOCKED_MAX);
    assert_eq!(proof_requests(&proxy).iter().filter(|passed| is_proof_put(passed)).count(), LOCKED_MAX);
}
