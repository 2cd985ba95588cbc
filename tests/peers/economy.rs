//! The number of requests that an agent sends to the gateway, and how soon it notices changed facts.

use aws_sdk_s3::types::ObjectLockRetentionMode;
use http::Method;

use crate::daemon::Daemon;
use crate::gateway::{Gateway, immutable_target, target};
use crate::proxy::Proxy;
use crate::report::assert_healthy;

#[tokio::test]
async fn routine_probe_is_one_gateway_request() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    let proxy = Proxy::start(&gateway.endpoint).await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    assert_healthy(&daemon.check(&id).await);
    let before = proxy.passed().len();
    let report = daemon.wait_for_report(&id, "a routine probe", |report| report["probe_requests"] == 1).await;
    assert_healthy(&report);
    assert_eq!(report["used_bytes"], 4_321, "each probe reads the usage: {report:#}");
    let since = proxy.passed().split_off(before);
    assert!(!since.is_empty() && since.iter().all(|passed| passed.method == Method::HEAD), "{since:?}");
}

#[tokio::test]
async fn changed_default_retention_is_proved_within_the_interval() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.locked_bucket().await;
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Governance, 30).await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ns3_facts_interval = \"1s\"");
    let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&gateway.endpoint, &bucket)).await;
    let report = daemon.wait_for_lock_proof(&id).await;
    assert_eq!(report["object_lock_proof"]["verdict"], "bypassable", "{report:#}");
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 1).await;
    let report = daemon
        .wait_for_report(&id, "another proof", |report| report["object_lock_proof"]["verdict"] == "enforced")
        .await;
    assert_eq!(report["default_retention"], "COMPLIANCE 1 day", "{report:#}");
}
