//! A gateway that hangs, and one that is down.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::{Daemon, created};
use crate::gateway::{Gateway, target};
use crate::report::{assert_healthy, assert_offline, check_named};
use crate::workspace::Workspace;

/// The deadline of a check in these tests.
const DEADLINE: Duration = Duration::from_secs(2);

/// Maximum time of an answer from memory, much shorter than a probe that times out.
const IMMEDIATE: Duration = Duration::from_millis(500);

/// The workspace of an agent that probes every second.
fn frequent_probes(gateway: &Gateway) -> Workspace {
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ndeadline = \"2s\"");
    workspace
}

#[tokio::test]
async fn hanging_gateway_delays_no_answer_and_targets_recover() {
    let gateway = Gateway::alone().await;
    let (first, second) = (gateway.bucket().await, gateway.bucket().await);
    let workspace = frequent_probes(&gateway);
    let (daemon, known) = Daemon::with_target(&workspace, target(&gateway.endpoint, &first)).await;
    assert_healthy(&daemon.check(&known).await);

    let paused = gateway.pause();
    let began = Instant::now();
    let answer = daemon.try_create(target(&gateway.endpoint, &second)).await;
    assert!(answer.took < IMMEDIATE, "{answer:?}");
    let new = created(&answer);
    // The gateway still answers from its caches, so an answer does not prove that the storage works.
    assert!(gateway.reports_versioning(&first).await, "the gateway should answer from its cache");
    let mut slowest = Duration::ZERO;
    for id in [&known, &new] {
        let mut latest = daemon.report(id).await;
        while !(latest["status"] == "offline" && latest["verdict"] == "timed_out") {
            assert!(began.elapsed() < DEADLINE * 5, "two timeouts should have occurred: {latest:#}");
            for path in ["/backup_targets", "/backup_targets/detail", "/healthz", "/node"] {
                let answer = daemon.request("GET", path, None).await;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                slowest = slowest.max(answer.took);
            }
            latest = daemon.report(id).await;
        }
        assert_eq!(latest["reason"], "response_timed_out", "{latest:#}");
        assert_eq!(check_named(&latest, "reachable")["outcome"], "passed", "{latest:#}");
        assert_eq!(check_named(&latest, "bucket")["outcome"], "timed_out", "{latest:#}");
        assert!(latest["used_bytes"].is_null(), "nothing was measured: {latest:#}");
    }
    assert!(slowest > Duration::ZERO && slowest < IMMEDIATE, "{slowest:?}");
    let output = workspace.check_s3(&gateway.endpoint, &first, &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stdout.contains("response_timed_out"), "{output:?}");

    paused.undo();
    for id in [&known, &new] {
        let report = daemon.wait_for_report(id, "recovery", |report| report["status"] == "available").await;
        assert_healthy(&report);
    }
}

#[tokio::test]
async fn stops_promptly_while_the_gateway_hangs() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    let workspace = frequent_probes(&gateway);
    workspace.configure("[probe]\ndeadline = \"60s\"");
    let mut daemon = Daemon::start(&workspace).await;
    let _paused = gateway.pause();
    daemon.create(target(&gateway.endpoint, &bucket)).await;
    let took = daemon.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn offline_when_gateway_is_down_and_available_when_it_returns() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    let workspace = frequent_probes(&gateway);
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    assert_healthy(&daemon.check(&id).await);

    let down = gateway.stop();
    let report = daemon.wait_for_report(&id, "offline by itself", |report| report["status"] == "offline").await;
    let message = assert_offline(&report, "connection_refused");
    assert!(message.contains("start the service"), "{message}");
    assert_eq!(check_named(&report, "reachable")["outcome"], "failed");
    assert_eq!(daemon.show(&id).await["status"], "offline");
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stdout.contains("connection_refused"), "{output:?}");

    down.undo();
    let report = daemon.wait_for_report(&id, "available by itself", |report| report["status"] == "available").await;
    assert_healthy(&report);
    assert_eq!(report["used_bytes"], json!(4_321));
}
