//! Restricted credentials: a policy for the prefix of canaries suffices, and messages name missing permissions.

use serde_json::json;

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target, workspace_for};
use crate::report::{assert_contains, assert_offline, assert_warning, check_named};

/// The prefix of canaries.
const PREFIX: &str = "targetwatch-canary/";

#[tokio::test]
async fn prefix_policy_passes_and_no_permission_fails() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = workspace_for(&gateway.guest);
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "access_denied");
    assert_contains(&message, &[&bucket, "403 AccessDenied", "s3:ListBucket", "s3:GetBucketVersioning"]);
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &[]).await.code, 2);

    gateway.allow_guest_below(&bucket, PREFIX).await;
    let report = daemon.check(&id).await;
    assert_warning(&report, "access_denied");
    let found = check_named(&report, "bucket");
    assert_eq!(found["outcome"], "passed", "{report:#}");
    let message = found["message"].as_str().expect("a message");
    assert!(message.contains(&bucket) && message.contains("grant them s3:ListBucket"), "{message}");
    // Usage that the gateway does not report stays unknown.
    assert!(report["used_bytes"].is_null(), "{report:#}");
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &[]).await.code, 1);

    // A policy for another prefix is not sufficient.
    gateway.allow_guest_below(&bucket, "another-prefix/").await;
    assert_offline(&daemon.check(&id).await, "access_denied");
}

#[tokio::test]
async fn prefix_policy_does_not_hide_hanging_storage() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    gateway.allow_guest_below(&bucket, PREFIX).await;
    let workspace = workspace_for(&gateway.guest);
    workspace.configure("[probe]\ndeadline = \"2s\"\nfailures_before_offline = 1");
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    assert_warning(&daemon.check(&id).await, "access_denied");
    let _paused = gateway.pause();
    let report = daemon.check(&id).await;
    assert_eq!((&report["status"], &report["reason"]), (&json!("offline"), &json!("response_timed_out")), "{report:#}");
}

#[tokio::test]
async fn owner_quota_is_reported_like_bucket_quota() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.guest_bucket().await;
    let workspace = workspace_for(&gateway.guest);
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "quota_exceeded");
    assert_contains(&message, &[&bucket, "403 QuotaExceeded", "of its owner"]);
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert!(output.code == 2 && output.stdout.contains("quota_exceeded"), "{output:?}");
}

#[tokio::test]
async fn bucket_of_a_tenant_is_available_by_its_full_name() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket_of(&gateway.tenant).await;
    let workspace = workspace_for(&gateway.tenant);
    let name = format!("acme:{bucket}");
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &name)).await;
    let report = daemon.check(&id).await;
    assert_eq!(report["status"], "available", "{report:#}");
    assert_eq!(check_named(&report, "write_canary")["outcome"], "passed", "{report:#}");
    let host = gateway.endpoint.trim_start_matches("http://");
    assert_eq!(daemon.show(&id).await["filesystem_export"], format!("{host}/{name}"));
    // The default tenant has no bucket of this name.
    let output = workspace.check_s3(&gateway.endpoint, &format!(":{bucket}"), &[]).await;
    assert!(output.code == 2 && output.stdout.contains("bucket_not_found"), "{output:?}");
}
