//! What the agent says about a bucket, and what it does not.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::storage::{QUOTA_BYTES, USED_BYTES, immutable_target, s3, s3_target};
use crate::support::s3_server::LockConduct;
use crate::workspace::Workspace;

fn outcome<'report>(report: &'report Value, check: &str) -> &'report Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|found| found["name"] == check).map(|found| &found["outcome"]).expect("the check")
}

fn metadata(target: &Value, key: &str) -> Option<Value> {
    let entries = target["backup_target_metadata"].as_array().expect("a list");
    entries.iter().find(|entry| entry["key"] == key).map(|entry| entry["value"].clone())
}

/// The report about a bucket in a workspace, and the target as it is listed then.
async fn verdict(workspace: &Workspace, target: Value) -> (Value, Value) {
    let daemon = Daemon::start(workspace).await;
    let id = daemon.create(target).await;
    let report = daemon.check(&id).await;
    (report, daemon.show(&id).await)
}

/// The same, once the lock was proved or found to be unprovable.
async fn proved(workspace: &Workspace, target: Value) -> (Value, Value) {
    let daemon = Daemon::start(workspace).await;
    let id = daemon.create(target).await;
    (daemon.wait_for_lock_proof(&id).await, daemon.show(&id).await)
}

fn assert_offline(report: &Value, reason: &str, words: &[&str]) {
    assert_eq!((&report["status"], &report["reason"]), (&json!("offline"), &json!(reason)), "{report:#}");
    let message = report["message"].as_str().expect("a text");
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[tokio::test]
async fn s3_available_without_lock_when_bucket_is_plain() {
    let s3 = s3().await;
    let (report, target) = verdict(&Workspace::new(), s3_target(&s3, "plain")).await;
    assert_eq!((&report["status"], &report["reason"]), (&json!("available"), &Value::Null), "{report:#}");
    assert_eq!((&report["object_lock"], &report["versioning"]), (&json!(false), &json!(false)));
    assert_eq!((&target["capacity"], &target["used"]), (&Value::Null, &Value::Null), "the service does not tell");
    assert_eq!(metadata(&target, "bucket"), Some(json!("plain")));
    assert_eq!(metadata(&target, "immutable"), Some(json!("0")));
    assert_eq!(metadata(&target, "object_lock"), Some(json!("0")));
    let export = format!("127.0.0.1:{}/plain", s3.port());
    assert_eq!(target["filesystem_export"], export.as_str());
}

#[tokio::test]
async fn s3_available_when_lock_of_immutable_bucket_is_proved() {
    let s3 = s3().await;
    let (report, target) = proved(&Workspace::new(), immutable_target(&s3, "locked")).await;
    assert_eq!((&report["status"], &report["reason"]), (&json!("available"), &Value::Null), "{report:#}");
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced");
    assert_eq!(metadata(&target, "object_lock_verdict"), Some(json!("enforced")));
    assert_eq!((&report["object_lock"], &report["versioning"]), (&json!(true), &json!(true)));
    assert!(report["default_retention"].as_str().expect("a text").contains("30"), "{report:#}");
    assert_eq!(outcome(&report, "object_lock"), "passed");
    assert_eq!(metadata(&target, "immutable"), Some(json!("1")));
    assert_eq!(metadata(&target, "object_lock"), Some(json!("1")));
}

#[tokio::test]
async fn s3_offline_when_immutable_bucket_has_no_lock() {
    let s3 = s3().await;
    let (report, target) = verdict(&Workspace::new(), immutable_target(&s3, "versioned")).await;
    assert_offline(&report, "object_lock_missing", &["versioned"]);
    assert_eq!(outcome(&report, "object_lock"), "failed");
    assert_eq!(metadata(&target, "immutable"), Some(json!("1")), "as it was declared");
    assert_eq!(metadata(&target, "object_lock"), Some(json!("0")), "as it was verified");
    // It keeps no versions either, and enabling that would not give it a lock.
    let (report, target) = verdict(&Workspace::new(), immutable_target(&s3, "plain")).await;
    assert_offline(&report, "object_lock_missing", &["plain"]);
    assert_eq!((&report["object_lock"], &report["versioning"]), (&json!(false), &json!(false)));
    assert_eq!(metadata(&target, "object_lock"), Some(json!("0")));
}

#[tokio::test]
async fn s3_offline_when_lock_is_not_enforced() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let (report, target) = proved(&workspace, immutable_target(&s3, "ignored")).await;
    assert_offline(&report, "lock_not_enforced", &["ignored", "COMPLIANCE", "can delete backups"]);
    assert_eq!((outcome(&report, "object_lock"), outcome(&report, "lock_proof")), (&json!("passed"), &json!("failed")));
    assert_eq!(
        (&report["object_lock"], &report["object_lock_proof"]["verdict"]),
        (&json!(true), &json!("not_enforced"))
    );
    assert_eq!(metadata(&target, "object_lock"), Some(json!("0")));
    assert_eq!(metadata(&target, "object_lock_verdict"), Some(json!("not_enforced")));

    let config = workspace.config();
    let url = format!("{}/ignored", s3.endpoint());
    let output = workspace.run(&["check", "s3", &url, "--immutable", "--config", config.to_str().expect("text")]).await;
    assert!(output.code == 2 && output.stdout.contains("object lock not_enforced"), "{output:?}");
}

#[tokio::test]
async fn lock_proof_uses_the_clock_of_the_service() {
    let s3 = s3().await;
    // As far as clocks may differ before requests are refused.
    s3.advance_clock(Duration::from_secs(600));
    let (report, _) = proved(&Workspace::new(), immutable_target(&s3, "locked")).await;
    assert_eq!((&report["status"], &report["reason"]), (&json!("available"), &json!("clock_skewed")), "{report:#}");
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced", "{report:#}");
}

#[tokio::test]
async fn lock_proof_stops_after_a_canary_is_locked_for_days() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace).await;
    let id = daemon.create(immutable_target(&s3, "stubborn")).await;
    let report = daemon.wait_for_lock_proof(&id).await;
    assert_offline(&report, "lock_unverifiable", &["stubborn", "instead of", "no further one is written"]);
    assert_eq!(report["object_lock_proof"]["verdict"], "unverifiable");
    daemon.end(Signal::SIGKILL).await;
    // Whoever starts after it finds the canary, and leaves it at that.
    assert_eq!(s3.stored_versions("stubborn"), 1, "the one to write, and none to lock");
    for _ in 0..3 {
        let mut daemon = Daemon::start(&workspace).await;
        for _ in 0..3 {
            assert_eq!(daemon.check(&id).await["status"], "offline");
        }
        daemon.end(Signal::SIGKILL).await;
    }
    assert_eq!(s3.stored_versions("stubborn"), 1);
}

#[tokio::test]
async fn no_canary_when_default_retention_is_unknown() {
    let s3 = s3().await;
    for (target, status) in [(s3_target(&s3, "untold"), "available"), (immutable_target(&s3, "untold"), "offline")] {
        let (report, _) = verdict(&Workspace::new(), target).await;
        assert_eq!((&report["status"], outcome(&report, "write_canary")), (&json!(status), &json!("skipped")));
        assert_eq!(s3.stored_versions("untold"), 0, "{report:#}");
        if status == "available" {
            // Available, but that it can be written to is not verified.
            assert_eq!(report["reason"], "access_denied", "{report:#}");
            let message = report["message"].as_str().expect("a sentence");
            assert!(message.contains("grant the credentials s3:GetBucketObjectLockConfiguration"), "{message}");
        }
    }
}

#[tokio::test]
async fn lock_verdict_survives_one_unreadable_bucket_configuration() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    let id = daemon.create(immutable_target(&s3, "locked")).await;
    assert_eq!(daemon.wait_for_lock_proof(&id).await["object_lock_proof"]["verdict"], "enforced");
    s3.set_conduct("locked", LockConduct::Untold);
    let report = daemon.check(&id).await;
    assert_offline(&report, "access_denied", &["locked"]);
    assert_eq!(report["object_lock_proof"]["verdict"], "enforced", "{report:#}");
    let assert_still_told = |target: &Value| {
        assert_eq!(metadata(target, "object_lock_verdict"), Some(json!("enforced")));
        assert_eq!(metadata(target, "object_lock"), Some(json!("1")));
    };
    assert_still_told(&daemon.show(&id).await);
    s3.stop().await;
    assert_offline(&daemon.check(&id).await, "connection_refused", &["127.0.0.1"]);
    assert_still_told(&daemon.show(&id).await);
}

#[tokio::test]
async fn no_lock_claimed_when_lock_proof_is_disabled() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[s3.lock_proof]\nenabled = false");
    let (report, target) = verdict(&workspace, immutable_target(&s3, "locked")).await;
    assert_eq!((&report["status"], &report["reason"]), (&json!("available"), &json!("lock_unverifiable")));
    assert!(
        report["message"].as_str().is_some_and(|text| text.contains("turned off in [s3.lock_proof]")),
        "{report:#}"
    );
    assert_eq!(metadata(&target, "object_lock_verdict"), Some(json!("unverifiable")));
    assert_eq!(metadata(&target, "object_lock"), Some(json!("0")));
}

#[tokio::test]
async fn deletion_reports_locked_canaries_left_behind() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    for (bucket, words) in [
        ("stubborn", Some("is locked for longer than it asked to be and stays there")),
        ("locked", Some("is locked until second")),
        ("plain", None),
    ] {
        let id = daemon.create(s3_target(&s3, bucket)).await;
        daemon.check(&id).await;
        let before = daemon.log().len();
        assert_eq!(daemon.request("DELETE", &format!("/backup_targets/{id}"), None).await.status, 202);
        let log = daemon.log()[before..].to_owned();
        match words {
            Some(words) => assert!(log.contains(words), "{bucket}: {log}"),
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
    std::fs::write(workspace.path("secret"), "another").expect("written");
    let (report, _) = verdict(&workspace, s3_target(&s3, "plain")).await;
    assert_offline(&report, "wrong_secret", &["plain"]);
}

#[tokio::test]
async fn s3_offline_when_access_key_is_unknown() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    std::fs::write(workspace.path("id"), "AKIANOBODY").expect("written");
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
    assert_eq!(report["status"], "offline", "{report:#}");
    assert_eq!(report["reason"], "not_s3", "an agent is no S3 service: {report:#}");
}

#[tokio::test]
async fn immutability_declared_later_is_verified_at_once() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    let id = daemon.create(s3_target(&s3, "versioned")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    let promise = json!({ "backup_target": { "immutable": 1 } });
    let changed = daemon.request("PUT", &format!("/backup_targets/{id}"), Some(&promise)).await;
    assert_eq!(changed.json()["backup_targets"]["status"], "offline", "what was verified was another promise");
    let report = daemon.check(&id).await;
    assert_offline(&report, "object_lock_missing", &[]);
}
