//! Reports about buckets.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::report::{self, assert_contains, assert_healthy, check_named, metadata};
use crate::storage::{QUOTA_BYTES, USED_BYTES, immutable_target, prove_lock, s3, s3_target};
use crate::support::s3_server::LockBehaviour;
use crate::workspace::Workspace;

fn outcome<'report>(report: &'report Value, check: &str) -> &'report Value {
    &check_named(report, check)["outcome"]
}

/// The report of a requested probe, and the target after it.
async fn verdict(workspace: &Workspace, target: Value) -> (Value, Value) {
    let (daemon, id) = Daemon::with_target(workspace, target).await;
    let report = daemon.check(&id).await;
    (report, daemon.show(&id).await)
}

/// The same after the lock proof.
async fn lock_verdict(workspace: &Workspace, target: Value) -> (Value, Value) {
    let (daemon, id) = Daemon::with_target(workspace, target).await;
    (daemon.wait_for_lock_proof(&id).await, daemon.show(&id).await)
}

fn assert_offline(report: &Value, reason: &str, words: &[&str]) {
    assert_contains(&report::assert_offline(report, reason), words);
}

#[tokio::test]
async fn s3_available_without_lock_when_bucket_is_plain() {
    let s3 = s3().await;
    let (report, target) = verdict(&Workspace::new(), s3_target(&s3, "plain")).await;
    assert_healthy(&report);
    assert_eq!((&report["object_lock"], &report["versioning"]), (&json!(false), &json!(false)));
    assert_eq!(
        (&target["capacity"], &target["used"]),
        (&Value::Null, &Value::Null),
        "the service does not report them"
    );
    assert_eq!(metadata(&target, "bucket"), Some("plain"));
    assert_eq!(metadata(&target, "immutable"), Some("0"));
    assert_eq!(metadata(&target, "object_lock"), Some("0"));
    let export = format!("127.0.0.1:{}/plain", s3.port());
    assert_eq!(target["filesystem_export"], export.as_str());
}

#[tokio::test]
async fn s3_available_when_lock_of_immutable_bucket_is_proved() {
    let s3 = s3().await;
    let (report, target) = lock_verdict(&Workspace::new(), immutable_target(&s3, "locked")).await;
    assert_healthy(&report);
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced");
    assert_eq!(metadata(&target, "object_lock_verdict"), Some("enforced"));
    assert_eq!((&report["object_lock"], &report["versioning"]), (&json!(true), &json!(true)));
    assert!(report["default_retention"].as_str().expect("a text").contains("30"), "{report:#}");
    assert_eq!(outcome(&report, "object_lock"), "passed");
    assert_eq!(metadata(&target, "immutable"), Some("1"));
    assert_eq!(metadata(&target, "object_lock"), Some("1"));
}

#[tokio::test]
async fn s3_offline_when_immutable_bucket_has_no_lock() {
    let s3 = s3().await;
    let (report, target) = verdict(&Workspace::new(), immutable_target(&s3, "versioned")).await;
    assert_offline(&report, "object_lock_missing", &["versioned"]);
    assert_eq!(outcome(&report, "object_lock"), "failed");
    assert_eq!(metadata(&target, "immutable"), Some("1"), "as it was declared");
    assert_eq!(metadata(&target, "object_lock"), Some("0"), "as it was verified");
    // This bucket has no versioning either, and enabling it would not add object lock.
    let (report, target) = verdict(&Workspace::new(), immutable_target(&s3, "plain")).await;
    assert_offline(&report, "object_lock_missing", &["plain"]);
    assert_eq!((&report["object_lock"], &report["versioning"]), (&json!(false), &json!(false)));
    assert_eq!(metadata(&target, "object_lock"), Some("0"));
}

#[tokio::test]
async fn s3_offline_when_lock_is_not_enforced() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let (report, target) = lock_verdict(&workspace, immutable_target(&s3, "not-enforced")).await;
    assert_offline(&report, "lock_not_enforced", &["not-enforced", "COMPLIANCE", "can delete backups"]);
    assert_eq!((outcome(&report, "object_lock"), outcome(&report, "lock_proof")), (&json!("passed"), &json!("failed")));
    assert_eq!(
        (&report["object_lock"], &report["object_lock_proof"]["verdict"]),
        (&json!(true), &json!("not_enforced"))
    );
    assert_eq!(metadata(&target, "object_lock"), Some("0"));
    assert_eq!(metadata(&target, "object_lock_verdict"), Some("not_enforced"));

    // Without a write canary, whose lock the command would wait for.
    workspace.configure("[s3.canary]\nenabled = false");
    let output = workspace.check_s3(&s3.endpoint(), "not-enforced", &["--immutable"]).await;
    assert!(output.code == 2 && output.stdout.contains("object lock not_enforced"), "{output:?}");
}

#[tokio::test]
async fn s3_offline_when_lock_can_be_weakened() {
    let s3 = s3().await;
    s3.set_lock_behaviour("locked", LockBehaviour::Weakenable);
    let (report, target) = lock_verdict(&Workspace::new(), immutable_target(&s3, "locked")).await;
    assert_offline(&report, "lock_not_enforced", &["COMPLIANCE", "shorter retention", "can delete backups"]);
    assert_eq!(metadata(&target, "object_lock_verdict"), Some("not_enforced"));
}

#[tokio::test]
async fn lock_proof_uses_the_clock_of_the_service() {
    let s3 = s3().await;
    // The server refuses requests with a larger clock skew.
    s3.advance_clock(Duration::from_secs(600));
    let (report, _) = lock_verdict(&Workspace::new(), immutable_target(&s3, "locked")).await;
    report::assert_warning(&report, "clock_skewed");
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced", "{report:#}");
}

#[tokio::test]
async fn lock_proof_stops_after_a_canary_is_locked_for_days() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let (mut daemon, id) = Daemon::with_target(&workspace, immutable_target(&s3, "default-only")).await;
    let report = daemon.wait_for_lock_proof(&id).await;
    assert_offline(
        &report,
        "lock_unverifiable",
        &["default-only", "for longer than the requested", "no further canary is written"],
    );
    assert_eq!(report["object_lock_proof"]["verdict"], "unverifiable");
    daemon.end(Signal::SIGKILL).await;
    // The next agents find the canary and write no further one.
    assert_eq!(s3.stored_versions("default-only"), 1, "the write canary only");
    for _ in 0..3 {
        let mut daemon = Daemon::start(&workspace).await;
        for _ in 0..3 {
            assert_eq!(daemon.check(&id).await["status"], "offline");
        }
        daemon.end(Signal::SIGKILL).await;
    }
    assert_eq!(s3.stored_versions("default-only"), 1);
}

#[tokio::test]
async fn canary_is_locked_for_seconds_when_default_retention_is_unknown() {
    let s3 = s3().await;
    let (report, _) = verdict(&Workspace::new(), immutable_target(&s3, "denied")).await;
    assert_eq!((&report["status"], outcome(&report, "write_canary")), (&json!("offline"), &json!("skipped")));
    assert_eq!(s3.stored_versions("denied"), 0, "{report:#}");

    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"\n[s3.canary]\nretention = \"5s\"");
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "denied")).await;
    let report = daemon.wait_for_report(&id, "a canary", |report| report["status"] == "available").await;
    assert_eq!(outcome(&report, "write_canary"), "passed", "{report:#}");
    report::assert_warning(&report, "access_denied");
    let message = report["message"].as_str().expect("a message");
    assert_contains(message, &["grant the credentials s3:GetBucketObjectLockConfiguration", "a short retention"]);
    let detail = report::detail_of(&report, "write_canary");
    assert_contains(detail, &["wrote and read back", "locked for a few seconds"]);
    assert_eq!(s3.stored_versions("denied"), 1);
    // Its default retention is 30 days.
    daemon.wait_for_report(&id, "the end of the lock", |_| s3.stored_versions("denied") == 0).await;
    report::assert_warning(&daemon.report(&id).await, "access_denied");
}

#[tokio::test]
async fn lock_verdict_survives_one_unreadable_bucket_configuration() {
    let s3 = s3().await;
    let (daemon, id) = Daemon::with_target(&Workspace::new(), immutable_target(&s3, "locked")).await;
    assert_eq!(prove_lock(&daemon, &s3, &id).await["object_lock_proof"]["verdict"], "enforced");
    s3.set_lock_behaviour("locked", LockBehaviour::ConfigurationDenied);
    let report = daemon.check(&id).await;
    assert_offline(&report, "access_denied", &["locked"]);
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced", "{report:#}");
    let assert_still_enforced = |target: &Value| {
        assert_eq!(metadata(target, "object_lock_verdict"), Some("enforced"));
        assert_eq!(metadata(target, "object_lock"), Some("1"));
    };
    assert_still_enforced(&daemon.show(&id).await);
    s3.stop().await;
    assert_offline(&daemon.check(&id).await, "connection_refused", &["127.0.0.1"]);
    assert_still_enforced(&daemon.show(&id).await);
}

#[tokio::test]
async fn no_lock_claimed_when_lock_proof_is_disabled() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[s3.lock_proof]\nenabled = false");
    let (report, target) = verdict(&workspace, immutable_target(&s3, "locked")).await;
    report::assert_warning(&report, "lock_unverifiable");
    assert_contains(report["message"].as_str().expect("a message"), &["turned off in [s3.lock_proof]"]);
    assert_eq!(metadata(&target, "object_lock_verdict"), Some("unverifiable"));
    assert_eq!(metadata(&target, "object_lock"), Some("0"));
}

#[tokio::test]
async fn deletion_reports_locked_canaries_left_behind() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    for (bucket, words) in [
        ("default-only", Some("is locked for longer than requested")),
        ("locked", Some("is locked until 2")),
        ("plain", None),
    ] {
        let id = daemon.create(s3_target(&s3, bucket)).await;
        daemon.check(&id).await;
        let before = daemon.log().len();
        daemon.delete(&id).await;
        // A thread of the agent writes the log, and this is the last line about the target.
        let last_line = format!("deleted target_id={id}");
        daemon.wait_for_log(&last_line).await;
        let log = daemon.log()[before..].to_owned();
        match words {
            Some(words) => assert_contains(&log, &[bucket, words, "it must be removed manually"]),
            None => assert!(!log.contains("deleting:"), "{bucket}: {log}"),
        }
    }
}

#[tokio::test]
async fn s3_capacity_and_usage_come_from_the_service() {
    let s3 = s3().await;
    let (report, target) = verdict(&Workspace::new(), s3_target(&s3, "measured")).await;
    assert_eq!((&report["capacity_bytes"], &report["used_bytes"]), (&json!(QUOTA_BYTES), &json!(USED_BYTES)));
    assert_eq!((&report["used_percent"], &report["object_count"]), (&json!(25.0), &json!(3072)));
    assert_eq!((&target["capacity"], &target["used"]), (&json!("48.0 GB"), &json!("12.0 GB")));
}

#[tokio::test]
async fn s3_offline_when_secret_is_wrong() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.write("secret", "another");
    let (report, _) = verdict(&workspace, s3_target(&s3, "plain")).await;
    assert_offline(&report, "wrong_secret", &["plain"]);
}

#[tokio::test]
async fn s3_offline_when_access_key_is_unknown() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.write("id", "AKIANOBODY");
    let (report, _) = verdict(&workspace, s3_target(&s3, "plain")).await;
    assert_offline(&report, "unknown_access_key", &["plain"]);
}

#[tokio::test]
async fn s3_offline_when_credential_files_are_missing() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    std::fs::remove_file(workspace.path("secret")).expect("removed");
    let (report, _) = verdict(&workspace, s3_target(&s3, "plain")).await;
    assert_offline(&report, "no_credentials", &[workspace.path("secret").to_str().expect("text")]);
}

#[tokio::test]
async fn s3_offline_when_bucket_is_missing() {
    let s3 = s3().await;
    let (report, _) = verdict(&Workspace::new(), s3_target(&s3, "missing")).await;
    assert_offline(&report, "bucket_not_found", &["missing"]);
    assert_eq!(outcome(&report, "versioning"), "skipped");
}

#[tokio::test]
async fn s3_offline_when_service_is_down_or_not_s3() {
    let s3 = s3().await;
    let down = s3_target(&s3, "plain");
    s3.stop().await;
    let (report, _) = verdict(&Workspace::new(), down).await;
    assert_offline(&report, "connection_refused", &["127.0.0.1"]);

    let (_nfs, workspace) = crate::storage::nfs().await;
    let other = Daemon::start(&workspace).await;
    let target =
        json!({ "type": "s3", "s3_endpoint_url": format!("http://{}", other.address()), "s3_bucket": "plain" });
    let (report, _) = verdict(&Workspace::new(), target).await;
    report::assert_offline(&report, "not_s3");
}

#[tokio::test]
async fn immutability_declared_later_is_verified_at_once() {
    let s3 = s3().await;
    let (daemon, id) = Daemon::with_target(&Workspace::new(), s3_target(&s3, "versioned")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    let changed = daemon.modify(&id, json!({ "immutable": 1 })).await;
    assert_eq!(changed["status"], "offline", "immutability was not verified before");
    let report = daemon.check(&id).await;
    assert_offline(&report, "object_lock_missing", &[]);
}
