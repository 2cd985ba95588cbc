//! Who may do some of it: a policy for a prefix is enough, and what is refused is named.

use serde_json::json;

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target, workspace_for};
use crate::report::{assert_offline, assert_warning, check_named};

/// Where canaries are written.
const PREFIX: &str = "targetwatch-canary/";

#[tokio::test]
async fn prefix_policy_passes_and_no_permission_fails() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = workspace_for(&gateway.guest);
    let agent = Daemon::start(&workspace).await;
    let id = agent.create(target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&agent.check(&id).await, "access_denied");
    for part in [&bucket, "403 AccessDenied", "s3:ListBucket", "s3:GetBucketVersioning"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &[]).await.code, 2);

    gateway.allow_guest_below(&bucket, PREFIX).await;
    let report = agent.check(&id).await;
    assert_warning(&report, "access_denied");
    let found = check_named(&report, "bucket");
    assert_eq!(found["outcome"], "passed", "{report:#}");
    let message = found["message"].as_str().expect("a sentence");
    assert!(message.contains(&bucket) && message.contains("grant them s3:ListBucket"), "{message}");
    // What was not told is not made up.
    assert!(report["used_bytes"].is_null(), "{report:#}");
    assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &[]).await.code, 1);

    // A prefix that the policy does not have is not allowed.
    gateway.allow_guest_below(&bucket, "another-prefix/").await;
    assert_offline(&agent.check(&id).await, "access_denied");
}

#[tokio::test]
async fn prefix_policy_does_not_hide_hanging_storage() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    gateway.allow_guest_below(&bucket, PREFIX).await;
    let workspace = workspace_for(&gateway.guest);
    workspace.configure("[probe]\ndeadline = \"2s\"\nfailures_before_offline = 1");
    let agent = Daemon::start(&workspace).await;
    let id = agent.create(target(&gateway.endpoint, &bucket)).await;
    assert_warning(&agent.check(&id).await, "access_denied");
    let _paused = gateway.pause();
    let report = agent.check(&id).await;
    assert_eq!((&report["status"], &report["reason"]), (&json!("offline"), &json!("response_timed_out")), "{report:#}");
}

#[tokio::test]
async fn owner_quota_is_reported_like_bucket_quota() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.guest_bucket().await;
    let workspace = workspace_for(&gateway.guest);
    let agent = Daemon::start(&workspace).await;
    let id = agent.create(target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&agent.check(&id).await, "quota_exceeded");
    for part in [&bucket, "403 QuotaExceeded", "of its owner"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert!(output.code == 2 && output.stdout.contains("quota_exceeded"), "{output:?}");
}
