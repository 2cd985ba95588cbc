//! Targets that are declared immutable, and the object lock of their buckets.

use aws_sdk_s3::types::ObjectLockRetentionMode;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, immutable_target, target};
use crate::report::{assert_healthy, assert_offline, assert_warning, check_named, metadata};

#[tokio::test]
async fn lock_verdict_follows_default_retention() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let bucket = gateway.locked_bucket().await;
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Governance, 30).await;
    let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&gateway.endpoint, &bucket)).await;
    let report = daemon.wait_for_lock_proof(&id).await;
    // The owner of a bucket may bypass GOVERNANCE.
    assert_warning(&report, "lock_bypassable");
    assert_eq!((&report["versioning"], &report["object_lock"]), (&json!(true), &json!(true)), "{report:#}");
    assert_eq!(report["default_retention"], "GOVERNANCE 30 days");
    let shown = daemon.show(&id).await;
    assert_eq!((metadata(&shown, "immutable"), metadata(&shown, "object_lock")), (Some("1"), Some("1")), "{shown:#}");
    assert_eq!(metadata(&shown, "object_lock_verdict"), Some("bypassable"));

    // The verdict for another configuration is no longer valid.
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 1).await;
    let report = daemon.check(&id).await;
    assert_offline(&report, "lock_proof_pending");
    assert_eq!(report["default_retention"], "COMPLIANCE 1 day");
    assert_healthy(&daemon.wait_for_lock_proof(&id).await);
    assert_eq!(metadata(&daemon.show(&id).await, "object_lock_verdict"), Some("enforced"));

    let output = workspace.check_s3(&gateway.endpoint, &bucket, &["--immutable"]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stdout.contains("COMPLIANCE 1 day") && output.stdout.contains("object lock enforced, proved at"),
        "{output:?}"
    );
    workspace.configure("[s3.lock_proof]\nmin_retention = \"7d\"");
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &["--immutable"]).await;
    assert!(output.code == 1 && output.stdout.contains("retention_too_short"), "{output:?}");
}

#[tokio::test]
async fn warning_when_locked_bucket_has_no_default_retention() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    workspace.configure("[s3.lock_proof]\nmode = \"compliance\"");
    let bucket = gateway.locked_bucket().await;
    let (daemon, id) = Daemon::with_target(&workspace, immutable_target(&gateway.endpoint, &bucket)).await;
    let report = daemon.wait_for_lock_proof(&id).await;
    assert_warning(&report, "no_default_retention");
    assert_eq!((&report["object_lock"], &report["default_retention"]), (&json!(true), &Value::Null), "{report:#}");
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced");
    assert_eq!(metadata(&daemon.show(&id).await, "object_lock"), Some("1"));
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &["--immutable"]).await.code, 1);
    // Without --immutable, the lock is not required.
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &[]).await.code, 0);
}

#[tokio::test]
async fn bucket_without_lock_is_offline_only_if_declared_immutable() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let (plain, versioned) = (gateway.bucket().await, gateway.bucket().await);
    gateway.enable_versioning(&versioned).await;
    let daemon = Daemon::start(&workspace).await;
    for bucket in [plain, versioned] {
        let id = daemon.create(immutable_target(&gateway.endpoint, &bucket)).await;
        // The lock is missing, with or without versioning.
        let message = assert_offline(&daemon.check(&id).await, "object_lock_missing");
        assert!(message.contains(&bucket) && message.contains("created with object lock"), "{message}");
        let shown = daemon.show(&id).await;
        assert_eq!((metadata(&shown, "immutable"), metadata(&shown, "object_lock")), (Some("1"), Some("0")));

        let output = workspace.check_s3(&gateway.endpoint, &bucket, &["--immutable"]).await;
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stdout.contains("object_lock_missing") && output.stdout.contains("offline"), "{output:?}");
        let output = workspace.check_s3(&gateway.endpoint, &bucket, &["--json"]).await;
        assert_eq!(output.code, 0, "{output:?}");
        assert_healthy(&output.json()[0]);
        assert_eq!(check_named(&output.json()[0], "object_lock")["detail"], "none");
    }
}

#[tokio::test]
async fn verdict_follows_declared_immutability() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = gateway.workspace();
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    assert_healthy(&daemon.check(&id).await);

    let changed = daemon.modify(&id, json!({ "immutable": 1 })).await;
    assert_eq!(metadata(&changed, "immutable"), Some("1"));
    assert_eq!(changed["status"], "offline", "immutability is not verified yet: {changed:#}");
    let report =
        daemon.wait_for_report(&id, "a verdict without a request", |report| !report["verdict"].is_null()).await;
    assert_offline(&report, "object_lock_missing");

    let changed = daemon.modify(&id, json!({ "immutable": 0 })).await;
    assert_eq!(metadata(&changed, "immutable"), Some("0"));
    let report =
        daemon.wait_for_report(&id, "a verdict without a request", |report| !report["verdict"].is_null()).await;
    assert_healthy(&report);
    assert_eq!(daemon.show(&id).await["status"], "available");
}
