//! The write canary, which proves that backups can be written, and its removal.

use aws_sdk_s3::types::ObjectLockRetentionMode;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::gateway::{Gateway, immutable_target, target, workspace_for};
use crate::proxy::{Proxy, ReceivedRequest, When};
use crate::report::{assert_contains, assert_healthy, assert_offline, assert_warning, check_named, detail_of};
use crate::workspace::Workspace;

/// Whether a request is the PUT of a canary. A probe sends no other one.
fn is_put(passed: &ReceivedRequest) -> bool {
    passed.method == Method::PUT
}

fn detail(report: &Value) -> &str {
    detail_of(report, "write_canary")
}

#[tokio::test]
async fn canary_is_removed_with_its_version() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let daemon = Daemon::start(&workspace).await;
    let (plain, versioned, locked) = (gateway.bucket().await, gateway.bucket().await, gateway.locked_bucket().await);
    gateway.enable_versioning(&versioned).await;
    for bucket in [plain, versioned, locked] {
        let proxy = Proxy::start(&gateway.endpoint).await;
        let id = daemon.create(target(&proxy.endpoint, &bucket)).await;
        let report = daemon.check(&id).await;
        assert_healthy(&report);
        assert_eq!(check_named(&report, "write_canary")["outcome"], "passed", "{report:#}");
        let put = proxy.passed().into_iter().find(is_put).expect("it was written");
        let key = put.target.split_once(&format!("/{bucket}/")).expect("its key").1.to_owned();
        assert!(
            key.starts_with("targetwatch-canary/") && key.split('?').next().is_some_and(|key| key.len() > 300),
            "{key}"
        );
        assert_eq!(gateway.versions(&bucket).await, Vec::<String>::new());
        assert_eq!(workspace.check_s3(&gateway.endpoint, &bucket, &[]).await.code, 0);
        assert_eq!(gateway.versions(&bucket).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn lock_is_unverifiable_when_a_short_retention_is_refused() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let bucket = gateway.locked_bucket().await;
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 30).await;
    let daemon = Daemon::start(&workspace).await;
    for (status, body, reason_without_permission) in [
        (StatusCode::BAD_REQUEST, "<Error><Code>InvalidArgument</Code></Error>", "request_refused"),
        (StatusCode::BAD_REQUEST, "", "not_s3"),
        (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>", "access_denied"),
    ] {
        let (plain, immutable) = (Proxy::start(&gateway.endpoint).await, Proxy::start(&gateway.endpoint).await);
        plain.refuse_locks(status, body);
        immutable.refuse_locks(status, body);
        let id = daemon.create(target(&plain.endpoint, &bucket)).await;
        let report = daemon.check(&id).await;
        assert_warning(&report, "lock_unverifiable");
        let message = check_named(&report, "write_canary")["message"].as_str().expect("a message").to_owned();
        assert_contains(&message, &["demands a longer retention", "min_canary_retention in [s3.lock_proof]"]);
        let output = workspace.check_s3(&plain.endpoint, &bucket, &[]).await;
        assert!(output.code == 1 && output.stdout.contains("lock_unverifiable"), "{output:?}");
        let immutable = daemon.create(immutable_target(&immutable.endpoint, &bucket)).await;
        let message = assert_offline(&daemon.wait_for_lock_proof(&immutable).await, "lock_unverifiable");
        assert_contains(&message, &["demands a longer retention", "min_canary_retention in [s3.lock_proof]"]);
        assert_eq!(gateway.versions(&bucket).await, Vec::<String>::new());
        assert_eq!(gateway.uploads(&bucket).await, 0);

        // These credentials may not write at all.
        gateway.deny(&bucket, Some("s3:PutObject")).await;
        assert_offline(&daemon.check(&id).await, reason_without_permission);
        gateway.deny(&bucket, None).await;
    }
}

#[tokio::test]
async fn offline_while_quota_is_exhausted() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 40_960).await;
    gateway.set_quota(&bucket, Some(40 << 10));
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "quota_exceeded");
    assert!(message.contains("403 QuotaExceeded") && message.contains("raise the quota"), "{message}");
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert!(output.code == 2 && output.stdout.contains("quota_exceeded"), "{output:?}");

    gateway.set_quota(&bucket, None);
    assert_healthy(&daemon.check(&id).await);
}

#[tokio::test]
async fn next_run_removes_only_canaries_of_a_crash() {
    let gateway = Gateway::shared().await;
    let (plain, versioned) = (gateway.bucket().await, gateway.bucket().await);
    gateway.enable_versioning(&versioned).await;
    for bucket in [plain, versioned] {
        let workspace = gateway.workspace();
        let proxy = Proxy::start(&gateway.endpoint).await;
        let mut held = proxy.hold(When::After, 1, is_put);
        let (mut daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
        let release = held.reached().await;
        daemon.kill().await;
        drop(release);
        let left = gateway.versions(&bucket).await;
        assert_eq!(left.len(), 1, "{left:?}");
        let others = [format!("{}x", left[0]), left[0].replace("/agent-", "/human-")];
        for other in &others {
            gateway.put(&bucket, other, 1).await;
        }

        let daemon = Daemon::start(&workspace).await;
        let report = daemon.check(&id).await;
        assert_healthy(&report);
        let mut expected = others.to_vec();
        expected.sort();
        assert_eq!(gateway.versions(&bucket).await, expected);
    }
}

#[tokio::test]
async fn deletion_removes_canary_of_interrupted_probe() {
    let gateway = Gateway::shared().await;
    let (plain, locked) = (gateway.bucket().await, gateway.locked_bucket().await);
    gateway.retain_by_default(&locked, ObjectLockRetentionMode::Governance, 30).await;
    for (bucket, stays) in [(plain, false), (locked, true)] {
        let workspace = gateway.workspace();
        let proxy = Proxy::start(&gateway.endpoint).await;
        let mut held = proxy.hold(When::After, 1, is_put);
        let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
        let _never_released = held.reached().await;
        assert_eq!(gateway.versions(&bucket).await.len(), 1);
        daemon.delete(&id).await;
        assert_eq!(gateway.versions(&bucket).await.len(), usize::from(stays));
        assert_eq!(daemon.log().contains("it must be removed manually"), stays, "{}", daemon.log());
    }
}

#[tokio::test]
async fn canary_applied_after_timeout_is_removed() {
    let gateway = Gateway::alone().await;
    let bucket = gateway.bucket().await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ndeadline = \"1s\"");
    let proxy = Proxy::start(&gateway.endpoint).await;
    let mut held = proxy.hold(When::Before, 1, is_put);
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    // The gateway receives the PUT while its storage is paused, and executes it after the agent's deadline.
    let release = held.reached().await;
    let paused = gateway.pause();
    drop(release);
    let report = daemon.wait_for_report(&id, "a timeout", |report| report["verdict"] == "timed_out").await;
    assert_eq!(check_named(&report, "write_canary")["outcome"], "timed_out", "{report:#}");
    paused.undo();
    let left = gateway.wait_for_versions(&bucket, |found| found.len() == 1).await;
    assert!(left[0].contains("/write-0-"), "{left:?}");

    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert!(detail(&report).contains("leftover canaries removed: 1"), "{report:#}");
    assert_eq!(gateway.versions(&bucket).await, Vec::<String>::new());
}

#[tokio::test]
async fn no_canary_when_credentials_are_read_only() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let workspace = gateway.workspace_with("read_only = true");
    let proxy = Proxy::start(&gateway.endpoint).await;
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_eq!(check_named(&report, "write_canary")["outcome"], "skipped", "{report:#}");
    assert!(detail(&report).contains("read_only"), "{report:#}");
    let writing: Vec<ReceivedRequest> =
        proxy.passed().into_iter().filter(|passed| !matches!(passed.method, Method::GET | Method::HEAD)).collect();
    assert!(!proxy.passed().is_empty() && writing.is_empty(), "{writing:?}");
}

#[tokio::test]
async fn canary_lock_is_short_despite_default_retention() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.locked_bucket().await;
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 30).await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let report = daemon.wait_for_report(&id, "a verdict", |report| !report["verdict"].is_null()).await;
    assert_healthy(&report);
    assert!(detail(&report).contains("locked for a few seconds"), "{report:#}");
    assert_eq!(gateway.versions(&bucket).await.len(), 1);
    gateway.wait_for_versions(&bucket, <[String]>::is_empty).await;
    let report = daemon.report(&id).await;
    assert_healthy(&report);

    // No later run cleans up after a command, so the command waits until it has removed its canary.
    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(gateway.versions(&bucket).await, Vec::<String>::new());
}

#[tokio::test]
async fn canary_lock_is_short_while_default_retention_is_unknown() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.locked_bucket().await;
    gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 30).await;
    let workspace = gateway.workspace();
    workspace.configure("[probe]\ndeadline = \"1s\"\ns3_interval = \"5s\"");
    let proxy = Proxy::start(&gateway.endpoint).await;
    let mut held = proxy.hold(When::Before, 1, |passed| passed.target.contains("object-lock"));
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    let release = held.reached().await;
    let report = daemon.wait_for_report(&id, "a verdict", |report| !report["verdict"].is_null()).await;
    assert_warning(&report, "response_timed_out");
    assert_eq!(check_named(&report, "write_canary")["outcome"], "passed", "{report:#}");
    assert!(detail(&report).contains("locked for a few seconds"), "{report:#}");
    assert_eq!(gateway.versions(&bucket).await.len(), 1);
    drop(release);
    gateway.wait_for_versions(&bucket, <[String]>::is_empty).await;
    assert_healthy(&daemon.check(&id).await);
}

/// A new bucket, with versions if `versioned` is set.
async fn bucket_with(gateway: &Gateway, versioned: bool) -> String {
    let bucket = gateway.bucket().await;
    if versioned {
        gateway.enable_versioning(&bucket).await;
    }
    bucket
}

#[tokio::test]
async fn credentials_that_may_only_write_verify_writing() {
    let gateway = Gateway::shared().await;
    for versioned in [false, true] {
        let bucket = bucket_with(&gateway, versioned).await;
        gateway.allow_guest_to_put(&bucket).await;
        let (left, report) = after_restarts(&gateway, &workspace_for(&gateway.guest), &bucket).await;
        assert_warning(&report, "access_denied");
        assert_eq!(check_named(&report, "bucket")["outcome"], "passed", "{report:#}");
        let message = check_named(&report, "write_canary")["message"].as_str().expect("a message");
        assert!(message.contains("writing was verified") && message.contains("403 AccessDenied"), "{message}");
        assert_eq!(left, 1, "{report:#}");
    }
}

#[tokio::test]
async fn offline_when_write_only_credentials_may_not_write_any_more() {
    let gateway = Gateway::shared().await;
    for versioned in [false, true] {
        let bucket = bucket_with(&gateway, versioned).await;
        gateway.allow_guest_to_put(&bucket).await;
        let workspace = workspace_for(&gateway.guest);
        let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
        for _ in 0..2 {
            assert_warning(&daemon.check(&id).await, "access_denied");
            let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
            assert_eq!(output.code, 1, "the same verdict: {output:?}");
            assert_eq!(gateway.versions(&bucket).await.len(), 1);
        }
        gateway.remove_policy(&bucket).await;
        assert_offline(&daemon.check(&id).await, "access_denied");
        let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
        assert!(output.code == 2 && output.stdout.contains("access_denied"), "{output:?}");
        assert_eq!(gateway.versions(&bucket).await.len(), 1);
    }
}

/// Runs an agent that is killed and started again several times, with a canary in each run. Returns the number of
/// versions and delete markers after that, and the last report.
async fn after_restarts(gateway: &Gateway, workspace: &Workspace, bucket: &str) -> (usize, Value) {
    let (mut daemon, id) = Daemon::with_target(workspace, target(&gateway.endpoint, bucket)).await;
    let mut report = daemon.check(&id).await;
    for _ in 0..3 {
        daemon.kill().await;
        daemon = Daemon::start(workspace).await;
        report = daemon.check(&id).await;
    }
    daemon.kill().await;
    // The policy may deny listing.
    gateway.remove_policy(bucket).await;
    (gateway.versions(bucket).await.len(), report)
}

#[tokio::test]
async fn one_canary_remains_over_restarts_when_listing_is_denied() {
    let gateway = Gateway::shared().await;
    for (locks, denied) in [
        (false, &[][..]),
        (true, &[]),
        (false, &["s3:DeleteObject", "s3:DeleteObjectVersion"]),
        (true, &["s3:DeleteObjectVersion"]),
    ] {
        let bucket = if locks { gateway.locked_bucket().await } else { gateway.bucket().await };
        if locks {
            gateway.retain_by_default(&bucket, ObjectLockRetentionMode::Compliance, 30).await;
        } else {
            gateway.enable_versioning(&bucket).await;
        }
        gateway.deny_all_of(&bucket, denied, &["s3:ListBucketVersions"]).await;
        let (left, report) = after_restarts(&gateway, &gateway.workspace(), &bucket).await;
        assert_eq!(report["status"], "available", "{report:#}");
        assert_eq!(left, usize::from(locks || !denied.is_empty()), "{locks} {denied:?} {report:#}");
    }
}

#[tokio::test]
async fn suspended_versioning_keeps_no_delete_markers() {
    let gateway = Gateway::shared().await;
    for denies_listing in [false, true] {
        let bucket = gateway.bucket().await;
        gateway.enable_versioning(&bucket).await;
        gateway.suspend_versioning(&bucket).await;
        if denies_listing {
            gateway.deny_all_of(&bucket, &[], &["s3:ListBucketVersions"]).await;
        }
        let (left, report) = after_restarts(&gateway, &gateway.workspace(), &bucket).await;
        assert_eq!(check_named(&report, "write_canary")["outcome"], "passed", "{report:#}");
        assert_eq!(left, 0, "{report:#}");
    }
}

#[tokio::test]
async fn append_only_credentials_verify_writing() {
    let gateway = Gateway::shared().await;
    for versioned in [false, true] {
        let bucket = bucket_with(&gateway, versioned).await;
        gateway.deny_all_of(&bucket, &["s3:DeleteObject", "s3:DeleteObjectVersion"], &[]).await;
        let (daemon, id) = Daemon::with_target(&gateway.workspace(), target(&gateway.endpoint, &bucket)).await;
        let report = daemon.check(&id).await;
        assert_eq!(report["status"], "available", "{report:#}");
        let message = check_named(&report, "write_canary")["message"].as_str().expect("a warning").to_owned();
        assert_contains(&message, &["writing was verified", "refused", "403 AccessDenied", "append_only"]);

        let expecting = gateway.workspace_with("append_only = true");
        let (left, report) = after_restarts(&gateway, &expecting, &bucket).await;
        let canary = check_named(&report, "write_canary");
        assert_eq!(canary["findings"], serde_json::json!([]), "{report:#}");
        assert_eq!(report["status"], "available", "{report:#}");
        assert!(left <= 5, "{left}: {report:#}");
    }
}

#[tokio::test]
async fn headers_of_the_configuration_satisfy_a_policy() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.demand_header(&bucket, "x-amz-acl", "bucket-owner-full-control").await;
    let (daemon, id) = Daemon::with_target(&gateway.workspace(), target(&gateway.endpoint, &bucket)).await;
    let message = assert_offline(&daemon.check(&id).await, "access_denied");
    assert_contains(&message, &["the PUT of a canary was refused", "put_headers", "x-amz-server-side-encryption"]);

    let workspace = gateway.workspace_with("put_headers = { \"x-amz-acl\" = \"bucket-owner-full-control\" }");
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    assert_healthy(&daemon.check(&id).await);
}
