//! Refusals of the gateway: each has its own reason and a message that says what to do.

use crate::daemon::Daemon;
use crate::gateway::{Gateway, Keys, new_name, target, workspace_for};
use crate::report::{assert_offline, check_named};

/// Asserts that the agent and the command line report this reason for a bucket, and returns the message.
async fn assert_refused(gateway: &Gateway, keys: &Keys, bucket: &str, reason: &str) -> String {
    let workspace = workspace_for(keys);
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, bucket)).await;
    let report = daemon.check(&id).await;
    let message = assert_offline(&report, reason);
    assert!(message.contains(bucket), "{message}");
    assert_eq!(check_named(&report, "reachable")["outcome"], "passed", "{report:#}");
    assert_eq!(check_named(&report, "capacity")["reason"], "earlier_check_failed", "{report:#}");
    let shown = daemon.show(&id).await;
    assert!(shown["capacity"].is_null() && shown["used"].is_null(), "{shown:#}");

    let output = workspace.check_s3(&gateway.endpoint, bucket, &[]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stdout.contains(reason) && output.stdout.contains("offline"), "{output:?}");
    message
}

#[tokio::test]
async fn reason_when_secret_is_wrong() {
    let gateway = Gateway::shared().await;
    let keys = Keys::new(&gateway.keys.access_key_id, "not-the-secret-of-this-key");
    let message = assert_refused(&gateway, &keys, &gateway.bucket().await, "wrong_secret").await;
    assert!(message.contains("SignatureDoesNotMatch") && message.contains("secret"), "{message}");
}

#[tokio::test]
async fn reason_when_access_key_is_unknown() {
    let gateway = Gateway::shared().await;
    let keys = Keys::new("NOBODYHASTHISKEY", &gateway.keys.secret_access_key);
    let message = assert_refused(&gateway, &keys, &gateway.bucket().await, "unknown_access_key").await;
    assert!(message.contains("InvalidAccessKeyId") && message.contains("access key"), "{message}");
}

#[tokio::test]
async fn reason_when_user_is_suspended() {
    let gateway = Gateway::shared().await;
    let message = assert_refused(&gateway, &gateway.suspended, &gateway.bucket().await, "user_suspended").await;
    assert!(message.contains("UserSuspended") && message.contains("user"), "{message}");
}

#[tokio::test]
async fn reason_when_bucket_is_missing() {
    let gateway = Gateway::shared().await;
    let message = assert_refused(&gateway, &gateway.keys, &new_name(), "bucket_not_found").await;
    assert!(message.contains("NoSuchBucket") && message.contains("create"), "{message}");
}
