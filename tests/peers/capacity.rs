//! Usage and quota of a bucket, as the gateway reports them.

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::report::{assert_healthy, check_named};

#[tokio::test]
async fn healthy_bucket_reports_usage_to_the_byte() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 12_345).await;
    gateway.put(&bucket, "two", 1).await;
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let report = daemon.wait_for_report(&id, "its first verdict", |report| !report["verdict"].is_null()).await;
    assert_healthy(&report);
    assert_eq!((&report["used_bytes"], &report["object_count"]), (&json!(12_346), &json!(2)), "{report:#}");
    assert_eq!((&report["capacity_bytes"], &report["used_percent"]), (&Value::Null, &Value::Null), "{report:#}");

    gateway.put(&bucket, "three", 70_000).await;
    assert_eq!(daemon.check(&id).await["used_bytes"], 82_346);
    let shown = daemon.show(&id).await;
    assert_eq!((&shown["status"], &shown["used"]), (&json!("available"), &json!("80.4 KB")), "{shown:#}");
    assert!(shown["capacity"].is_null(), "{shown:#}");

    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("capacity unknown, used 80.4 KB, available unknown"), "{output:?}");
}

#[tokio::test]
async fn usage_counts_every_object_version() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.enable_versioning(&bucket).await;
    gateway.put(&bucket, "one", 10_000).await;
    gateway.put(&bucket, "one", 5_000).await;
    let workspace = gateway.workspace();
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    assert_eq!((&report["used_bytes"], &report["versioning"]), (&json!(15_000), &json!(true)), "{report:#}");
}

#[tokio::test]
async fn capacity_is_the_quota_while_one_is_set() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 300_000).await;
    let workspace = gateway.workspace();
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    assert!(daemon.check(&id).await["capacity_bytes"].is_null());

    gateway.set_quota(&bucket, Some(1 << 20));
    let report = daemon.check(&id).await;
    assert_healthy(&report);
    let sizes = [&report["capacity_bytes"], &report["used_bytes"], &report["available_bytes"]];
    assert_eq!(sizes, [&json!(1_048_576), &json!(300_000), &json!(748_576)], "{report:#}");
    let shown = daemon.show(&id).await;
    assert_eq!((&shown["capacity"], &shown["used"]), (&json!("1.0 MB"), &json!("293.0 KB")), "{shown:#}");

    gateway.set_quota(&bucket, None);
    assert!(daemon.check(&id).await["capacity_bytes"].is_null());
    assert!(daemon.show(&id).await["capacity"].is_null());
}

#[tokio::test]
async fn warning_when_quota_is_nearly_used() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 97_280).await;
    gateway.set_quota(&bucket, Some(100 << 10));
    let (daemon, id) = Daemon::with_target(&workspace, target(&gateway.endpoint, &bucket)).await;
    let report = daemon.check(&id).await;
    let verdict = (&report["status"], &report["verdict"], &report["reason"], &report["used_percent"]);
    assert_eq!(verdict, (&json!("available"), &json!("available"), &json!("nearly_full"), &json!(95.0)), "{report:#}");
    assert_eq!(check_named(&report, "capacity")["outcome"], "passed");
    let message = report["message"].as_str().expect("a message");
    assert!(message.contains("95.0 %") && message.contains("raise the quota"), "{message}");

    let output = workspace.check_s3(&gateway.endpoint, &bucket, &[]).await;
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("warning") && output.stdout.contains("nearly_full"), "{output:?}");

    // A quota below the usage leaves zero bytes, not a negative number.
    gateway.set_quota(&bucket, Some(50 << 10));
    let report = daemon.check(&id).await;
    let found = (&report["reason"], &report["used_percent"], &report["available_bytes"]);
    assert_eq!(found, (&json!("quota_exceeded"), &json!(100.0), &json!(0)), "{report:#}");
    assert_eq!(check_named(&report, "capacity")["reason"], "nearly_full");
}
