//! Verdicts of the lock proof. `lock_proof_crashes` tests interrupted proofs.

use aws_sdk_s3::types::ObjectLockRetentionMode;
use serde_json::Value;

use crate::daemon::{Daemon, TIMEOUT};
use crate::gateway::{Gateway, immutable_target, target};
use crate::proxy::{Proxy, ReceivedRequest, When};
use crate::report::{assert_offline, check_named, metadata};
use crate::workspace::Workspace;

/// A request of a proof about its canary.
pub fn is_proof_request(passed: &ReceivedRequest) -> bool {
    passed.target.contains("/lock-")
}

/// The requests of proofs so far.
pub fn proof_requests(proxy: &Proxy) -> Vec<ReceivedRequest> {
    proxy.passed().into_iter().filter(is_proof_request).collect()
}

/// The workspace of an agent that probes every second and locks canaries in this mode.
pub fn workspace(gateway: &Gateway, mode: &str) -> Workspace {
    let workspace = gateway.workspace();
    workspace.configure(&format!("[probe]\ns3_interval = \"1s\"\n[s3.lock_proof]\nmode = \"{mode}\""));
    workspace
}

#[tokio::test]
async fn lock_proof_verdict_of_each_mode_leaves_nothing() {
    // A HEAD follows each of them. The later PUTs are attempts to weaken the retention.
    const WITH_BYPASS: &[&str] = &["PUT", "DELETE", "PUT", "PUT", "DELETE"];
    const GOVERNANCE: &[&str] = &["PUT", "DELETE", "PUT", "PUT", "DELETE", "PUT", "PUT", "DELETE"];
    const COMPLIANCE: &[&str] = &["PUT", "DELETE", "PUT", "PUT", "PUT", "DELETE"];
    let gateway = Gateway::shared().await;
    for (mode, denied, verdict, requests) in [
        ("governance", None, "bypassable", WITH_BYPASS),
        ("governance", Some("s3:BypassGovernanceRetention"), "enforced", GOVERNANCE),
        ("compliance", None, "enforced", COMPLIANCE),
    ] {
        let (workspace, bucket) = (workspace(&gateway, mode), gateway.locked_bucket().await);
        if denied.is_some() {
            gateway.deny(&bucket, denied).await;
        }
        let proxy = Proxy::start(&gateway.endpoint).await;
        let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&proxy.endpoint, &bucket)).await;
        let first = daemon.wait_for_report(&id, "a verdict", |report| !report["verdict"].is_null()).await;
        if verdict == "enforced" {
            let message = assert_offline(&first, "lock_proof_pending");
            assert!(message.contains("check again"), "{message}");
            assert_eq!(metadata(&daemon.show(&id).await, "object_lock_verdict"), Some("pending"));
        }
        let report = daemon.wait_for_lock_proof(&id).await;
        let found = (&report["status"], &report["reason"]);
        assert_eq!(found, (&"available".into(), &"no_default_retention".into()), "{report:#}");
        assert_eq!(report["object_lock_proof"]["verdict"], verdict, "{report:#}");
        gateway.wait_for_versions(&bucket, <[String]>::is_empty).await;
        let methods: Vec<String> = proof_requests(&proxy).iter().map(|passed| passed.method.to_string()).collect();
        let expected: Vec<&str> = requests.iter().flat_map(|method| [method, "HEAD"]).collect();
        assert_eq!(methods, expected);
    }
}

#[tokio::test]
async fn lock_is_proved_behind_a_proxy_that_adds_an_age() {
    let gateway = Gateway::shared().await;
    // A cached answer of that age would otherwise put the service's clock behind, and end each retention on arrival.
    for age in [0, 100] {
        let (workspace, bucket) = (workspace(&gateway, "compliance"), gateway.locked_bucket().await);
        let proxy = Proxy::start(&gateway.endpoint).await;
        proxy.set_age(age);
        let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&proxy.endpoint, &bucket)).await;
        let report = daemon.wait_for_lock_proof(&id).await;
        assert_eq!(report["object_lock_proof"]["verdict"], "enforced", "{age} s: {report:#}");
        assert_eq!(report["status"], "available", "{age} s: {report:#}");
        assert!(!proof_requests(&proxy).is_empty());
        gateway.wait_for_versions(&bucket, <[String]>::is_empty).await;
    }
}

#[tokio::test]
async fn offline_when_bypassable_lock_is_insufficient() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "default"), gateway.locked_bucket().await);
    workspace.configure("[s3.lock_proof]\nstrict = true");
    let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&daemon.wait_for_lock_proof(&id).await, "lock_bypassable");
    assert!(message.contains("s3:BypassGovernanceRetention"), "{message}");
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &["--immutable"]).await.code, 2);
    workspace.configure("[s3.lock_proof]\nenabled = false");
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &["--immutable"]).await;
    assert!(output.code == 1 && output.stdout.contains("is not verified"), "{output:?}");
}

#[tokio::test]
async fn lock_is_unverifiable_without_delete_permission() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "default"), gateway.locked_bucket().await);
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 1).await;
    gateway.deny(&bucket, Some("s3:DeleteObjectVersion")).await;
    let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&gateway.endpoint, &bucket)).await;
    let report = daemon.wait_for_lock_proof(&id).await;
    let message = assert_offline(&report, "lock_unverifiable");
    assert!(
        message.contains("although its retention had ended") && message.contains("s3:DeleteObjectVersion"),
        "{message}"
    );
    assert_eq!(metadata(&daemon.show(&id).await, "object_lock"), Some("0"));
    // Two canaries stay, because no credentials may delete them. The agent reports them and writes no further one.
    let left = gateway.versions(&bucket).await;
    assert_eq!(left.len(), 2, "{left:?}");
    let report = daemon.check(&id).await;
    assert_eq!(check_named(&report, "write_canary")["reason"], "canary_locked", "{report:#}");
    assert_eq!(gateway.versions(&bucket).await, left);

    gateway.deny(&bucket, None).await;
    // The next probe writes one. A check would write another, if a probe ran before it.
    let found = gateway.wait_for_versions(&bucket, |found| found.iter().all(|key| !left.contains(key))).await;
    assert!(found.len() <= 1, "{found:?}");
}

#[tokio::test]
async fn hanging_lock_proof_delays_no_probe() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "compliance"), gateway.locked_bucket().await);
    workspace.configure("[probe]\ndeadline = \"1s\"");
    let proxy = Proxy::start(&gateway.endpoint).await;
    let mut held = proxy.hold(When::Before, 2, is_proof_request);
    let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&proxy.endpoint, &bucket)).await;
    let _never_released = held.reached().await;
    let is_interrupted =
        |report: &Value| report["message"].as_str().is_some_and(|message| message.contains("no answer within"));
    let report = daemon.wait_for_report(&id, "the interruption of the proof", is_interrupted).await;
    assert_offline(&report, "lock_proof_pending");
    let others = ["reachable", "bucket", "object_lock", "versioning", "capacity"];
    assert!(others.iter().all(|name| check_named(&report, name)["outcome"] == "passed"), "{report:#}");
    // A later probe removes the canary after its lock ended.
    assert_eq!(gateway.versions(&bucket).await.len(), 1);
    let began = std::time::Instant::now();
    while !gateway.versions(&bucket).await.is_empty() {
        assert!(began.elapsed() < TIMEOUT, "the canary is still there");
        daemon.check(&id).await;
    }
}

#[tokio::test]
async fn no_lock_proof_unless_declared_immutable() {
    let gateway = Gateway::shared().await;
    let (workspace, bucket) = (workspace(&gateway, "default"), gateway.locked_bucket().await);
    let proxy = Proxy::start(&gateway.endpoint).await;
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    assert_eq!((&report["status"], &report["object_lock_proof"]), (&"available".into(), &Value::Null), "{report:#}");
    assert_eq!(metadata(&daemon.show(&id).await, "object_lock_verdict"), None);
    assert!(!proxy.passed().is_empty() && proof_requests(&proxy).is_empty());
}
