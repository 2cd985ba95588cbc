//! The usage of a bucket whose service does not report it: unknown, or counted by listing the bucket.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::report::detail_of;
use crate::storage::{s3, s3_target};
use crate::support::s3_server::S3Server;
use crate::workspace::Workspace;

/// Probes every second, and listings in runs of two pages. Canaries are off, because a listing would count them.
const LISTING: &str = r#"
    [probe]
    s3_interval = "1s"
    [s3.canary]
    enabled = false
    [s3.listing]
    enabled = true
    interval = "10s"
    requests_max = 2
"#;

/// The requests for pages of listings of a whole bucket.
fn pages(s3: &S3Server) -> Vec<String> {
    s3.requests().into_iter().filter(|request| request.contains("max-keys=1000")).collect()
}

#[tokio::test]
async fn bucket_is_not_listed_by_default_or_by_check_s3() {
    let s3 = s3().await;
    s3.put("paged", "one", "12345");
    let workspace = Workspace::new();
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "paged")).await;
    for _ in 0..2 {
        let report = daemon.check(&id).await;
        assert_eq!((&report["used_bytes"], &report["usage_listing"]), (&Value::Null, &Value::Null), "{report:#}");
    }
    workspace.configure(LISTING);
    let output = workspace.check_s3(&s3.endpoint(), "paged", &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("does not report how much the bucket contains"), "{output:?}");
    assert_eq!(pages(&s3), [""; 0]);
}

#[tokio::test]
async fn usage_listing_continues_in_the_next_run_and_stops_when_disabled() {
    let s3 = s3().await;
    // Three keys, two versions of each, and a delete marker: four pages of two, in two runs.
    for key in ["a", "b", "c"] {
        s3.put("paged", key, "12345");
        s3.put("paged", key, "1234567");
    }
    s3.delete("paged", "c");
    let workspace = Workspace::new();
    workspace.configure(LISTING);
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "paged")).await;

    let report =
        daemon.wait_for_report(&id, "a first run", |report| !report["usage_listing"]["next_run_at"].is_null()).await;
    let (status, used) = (&report["status"], &report["used_bytes"]);
    assert_eq!((status, used, &report["reason"]), (&json!("available"), &Value::Null, &Value::Null), "{report:#}");
    let so_far = &report["usage_listing"]["under_way"];
    assert_eq!((&so_far["pages"], &so_far["versions"], &so_far["bytes"]), (&json!(2), &json!(4), &json!(24)));
    assert!(so_far["ended_at"].is_null() && report["usage_listing"]["counted"].is_null(), "{report:#}");
    let detail = detail_of(&report, "capacity");
    assert!(detail.contains("has counted 4 versions") && detail.contains("It continues at"), "{detail}");
    assert_eq!(pages(&s3).len(), 2);
    assert_eq!(daemon.show(&id).await["used"], Value::Null);

    let report = daemon.wait_for_report(&id, "a count", |report| !report["used_bytes"].is_null()).await;
    assert_eq!((&report["used_bytes"], &report["object_count"]), (&json!(36), &json!(6)), "{report:#}");
    let counted = &report["usage_listing"]["counted"];
    assert_eq!((&counted["versions"], &counted["delete_markers"]), (&json!(6), &json!(1)), "{report:#}");
    assert_eq!((&counted["bytes"], &counted["counts_versions"]), (&json!(36), &json!(true)), "{report:#}");
    assert!(counted["began_at"].as_str() < counted["ended_at"].as_str(), "{report:#}");
    assert_eq!((&report["status"], &report["probe_requests"]), (&json!("available"), &json!(1)), "{report:#}");
    let pages = pages(&s3);
    assert_eq!(pages.len(), 4);
    let continues: Vec<bool> = pages.iter().map(|page| page.contains("key-marker=")).collect();
    assert_eq!(continues, [false, true, true, true], "{pages:?}");
    // A periodic probe may come between the two.
    let received = s3.requests().len();
    let sent = daemon.report(&id).await["requests_last_hour"].as_u64().expect("a count");
    assert!((sent.abs_diff(received as u64)) <= 2, "{sent} of {received}");
    assert_eq!(daemon.show(&id).await["used"], "36.0 B");
    let shown = workspace.run(&["target", "show", &id, "--api", &workspace.socket()]).await;
    assert!(
        shown.stdout.contains("used 36.0 B") && shown.stdout.contains("usage counted by a listing that ended"),
        "{shown:?}"
    );

    workspace.configure("[s3.listing]\nenabled = false");
    daemon.signal(Signal::SIGHUP);
    let report = daemon.wait_for_report(&id, "no listing", |report| report["usage_listing"].is_null()).await;
    assert_eq!((&report["status"], &report["used_bytes"]), (&json!("available"), &Value::Null), "{report:#}");
}

#[tokio::test]
async fn bucket_is_not_listed_when_service_reports_usage() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure(LISTING);
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "measured")).await;
    let report = daemon.check(&id).await;
    assert!(report["used_bytes"].is_u64() && report["usage_listing"].is_null(), "{report:#}");
    assert_eq!(pages(&s3), [""; 0]);
}
