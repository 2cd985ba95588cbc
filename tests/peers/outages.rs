//! A gateway that does not answer, and one that is not there.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::{Daemon, created};
use crate::gateway::{Gateway, target};
use crate::report::{assert_healthy, assert_offline, check_named};
use crate::workspace::Workspace;

/// How long an agent's probe waits for storage here.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the agent answers from memory, it answers well before a probe could end.
const AT_ONCE: Duration = Duration::from_millis(500);

/// An agent that looks again every second by itself.
fn watchful(gateway: &Gateway) -> Workspace {
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ndeadline = \"2s\"");
    workspace
}

#[tokio::test]
async fn hanging_gateway_delays_no_answer_and_targets_recover() {
    let gateway = Gateway::alone().await;
    let (first, second) = (gateway.bucket().await, gateway.bucket().await);
    let workspace = watchful(&gateway);
    let agent = Daemon::start(&workspace).await;
    let known = agent.create(target(&gateway.endpoint, &first)).await;
    assert_healthy(&agent.check(&known).await);

    let paused = gateway.pause();
    let began = Instant::now();
    let answer = agent.try_create(target(&gateway.endpoint, &second)).await;
    assert!(answer.took < AT_ONCE, "{answer:?}");
    let new = created(&answer);
    // What is in the gateway's caches it goes on telling: that it answers is no sign of the storage.
    assert!(gateway.tells_versioning(&first).await, "the gateway should answer from its cache");
    let mut slowest = Duration::ZERO;
    for id in [&known, &new] {
        let mut latest = agent.report(id).await;
        while !(latest["status"] == "offline" && latest["verdict"] == "timed_out") {
            assert!(began.elapsed() < DEADLINE * 5, "two timeouts should have come: {latest:#}");
            for path in ["/backup_targets", "/backup_targets/detail", "/healthz", "/node"] {
                let answer = agent.request("GET", path, None).await;
                assert_eq!(answer.status, 200, "{path}: {answer:?}");
                slowest = slowest.max(answer.took);
            }
            latest = agent.report(id).await;
        }
        assert_eq!(latest["reason"], "response_timed_out", "{latest:#}");
        assert_eq!(check_named(&latest, "reachable")["outcome"], "passed", "{latest:#}");
        assert_eq!(check_named(&latest, "bucket")["outcome"], "timed_out", "{latest:#}");
        assert!(latest["used_bytes"].is_null(), "nothing was measured: {latest:#}");
    }
    assert!(slowest > Duration::ZERO && slowest < AT_ONCE, "{slowest:?}");
    let output = workspace.check_s3(&gateway.endpoint, &first, &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stdout.contains("response_timed_out"), "{output:?}");

    paused.undo();
    for id in [&known, &new] {
        let healed = agent.wait_for_report(id, "healed", |report| report["status"] == "available").await;
        assert_healthy(&healed);
    }
}

#[tokio::test]
async fn stops_at_once_while_the_gateway_hangs() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    let workspace = watchful(&gateway);
    workspace.configure("[probe]\ndeadline = \"60s\"");
    let mut agent = Daemon::start(&workspace).await;
    let _paused = gateway.pause();
    agent.create(target(&gateway.endpoint, &bucket)).await;
    let took = agent.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn offline_when_gateway_is_down_and_available_when_it_returns() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    let workspace = watchful(&gateway);
    let agent = Daemon::start(&workspace).await;
    let id = agent.create(target(&gateway.endpoint, &bucket)).await;
    assert_healthy(&agent.check(&id).await);

    let down = gateway.stop();
    let report = agent.wait_for_report(&id, "offline by itself", |report| report["status"] == "offline").await;
    let message = assert_offline(&report, "connection_refused");
    assert!(message.contains("start the service"), "{message}");
    assert_eq!(check_named(&report, "reachable")["outcome"], "failed");
    assert_eq!(agent.show(&id).await["status"], "offline");
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stdout.contains("connection_refused"), "{output:?}");

    down.undo();
    let report = agent.wait_for_report(&id, "available by itself", |report| report["status"] == "available").await;
    assert_healthy(&report);
    assert_eq!(report["used_bytes"], json!(4_321));
}
