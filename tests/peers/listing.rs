//! The usage of a bucket, counted by listing it, because the service does not report it. The service is the gateway
//! behind a proxy that removes the usage from its answers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::proxy::{Proxy, ReceivedRequest, When};
use crate::report::{assert_healthy, check_named};

/// Maximum time of a stop.
const STOP: Duration = Duration::from_secs(2);

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

/// Starts a proxy that removes the usage from answers.
async fn proxy_without_usage(gateway: &Gateway) -> Proxy {
    let proxy = Proxy::start(&gateway.endpoint).await;
    proxy.set_reports_usage(false);
    proxy
}

fn is_page(passed: &ReceivedRequest) -> bool {
    passed.target.contains("max-keys=1000")
}

/// The requests for pages of a listing.
fn pages(proxy: &Proxy) -> Vec<String> {
    proxy.passed().into_iter().filter(is_page).map(|passed| passed.target).collect()
}

/// Keys with characters that a marker must encode.
fn odd_keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|at| format!("disk {at:04}+%41&<ä>.img"))
}

#[tokio::test]
async fn usage_listing_matches_gateway_usage_to_the_byte() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.enable_versioning(&bucket).await;
    gateway.put_all(&bucket, odd_keys(1100), 11).await;
    // So many versions that the first page certainly ends in the middle of a key.
    for _ in 0..2 {
        gateway.put_all(&bucket, odd_keys(600).skip(100), 100).await;
    }
    for key in odd_keys(5) {
        gateway.delete(&bucket, &key).await;
    }
    let proxy = proxy_without_usage(&gateway).await;
    let workspace = gateway.workspace();
    workspace.configure(LISTING);
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;

    let is_paused = |report: &Value| !report["usage_listing"]["next_run_at"].is_null();
    let report = daemon.wait_for_report(&id, "the end of a run", is_paused).await;
    assert_eq!((&report["status"], &report["used_bytes"]), (&json!("available"), &Value::Null), "{report:#}");
    let so_far = &report["usage_listing"]["under_way"];
    assert_eq!((&so_far["pages"], pages(&proxy).len()), (&json!(2), 2), "{report:#}");
    let entries = so_far["versions"].as_u64().unwrap() + so_far["delete_markers"].as_u64().unwrap();
    // The gateway does not fill all pages of versions.
    assert!((1500..=2000).contains(&entries), "{report:#}");
    let detail = check_named(&report, "capacity")["detail"].as_str().expect("why").to_owned();
    assert!(detail.contains("has counted ") && detail.contains("It continues at 20"), "{detail}");

    let report = daemon.wait_for_report(&id, "a count", |report| !report["used_bytes"].is_null()).await;
    let counted = &report["usage_listing"]["counted"];
    let found = (&counted["versions"], &counted["delete_markers"], &counted["pages"]);
    assert_eq!(found, (&json!(2100), &json!(5), &json!(3)), "{report:#}");
    assert_eq!(counted["counts_versions"], true, "{report:#}");
    assert_eq!(report["used_bytes"], 1100 * 11 + 2 * 500 * 100, "{report:#}");
    let pages = pages(&proxy);
    assert!(pages.iter().all(|page| page.contains("versions")) && pages.len() == 3, "{pages:?}");
    assert!(pages[1].contains("version-id-marker="), "{pages:?}");

    // Without the proxy, the gateway reports the usage itself.
    let direct = daemon.create(target(&gateway.endpoint, &bucket)).await;
    let direct = daemon.check(&direct).await;
    assert_eq!((&direct["used_bytes"], &direct["usage_listing"]), (&report["used_bytes"], &Value::Null), "{direct:#}");

    // The agent stops listing when the service reports the usage.
    proxy.set_reports_usage(true);
    let report = daemon.wait_for_report(&id, "the reported usage", |report| report["usage_listing"].is_null()).await;
    assert_eq!(report["used_bytes"], direct["used_bytes"], "{report:#}");
}

#[tokio::test]
async fn usage_listing_counts_objects_when_versions_are_denied() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.enable_versioning(&bucket).await;
    gateway.put_all(&bucket, odd_keys(1010), 3).await;
    gateway.put(&bucket, "twice", 10_000).await;
    gateway.put(&bucket, "twice", 5_000).await;
    gateway.deny_of_bucket(&bucket, "s3:ListBucketVersions").await;
    let proxy = proxy_without_usage(&gateway).await;
    let workspace = gateway.workspace();
    workspace.configure(LISTING);
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    let report = daemon.wait_for_report(&id, "a count", |report| !report["used_bytes"].is_null()).await;
    assert_healthy(&report);
    assert_eq!(
        (&report["used_bytes"], &report["object_count"]),
        (&json!(1010 * 3 + 5_000), &json!(1011)),
        "{report:#}"
    );
    assert_eq!(report["usage_listing"]["counted"]["counts_versions"], false, "{report:#}");
    let detail = check_named(&report, "capacity")["detail"].as_str().expect("how").to_owned();
    assert!(
        detail.contains("without noncurrent versions, which the service does not list for these credentials"),
        "{detail}"
    );
}

#[tokio::test]
async fn hanging_listing_delays_no_probe_deletion_or_stop() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    let proxy = proxy_without_usage(&gateway).await;
    let workspace = gateway.workspace();
    workspace.configure(LISTING);
    workspace.configure("[probe]\ndeadline = \"60s\"");
    let mut daemon = Daemon::start(&workspace).await;
    for is_deleted in [true, false] {
        let mut held = proxy.hold(When::Before, 1, is_page);
        let id = daemon.create(target(&proxy.endpoint, &bucket)).await;
        let _never_released = held.reached().await;
        let before = pages(&proxy).len();
        let report = daemon.check(&id).await;
        assert_healthy(&report);
        assert!(report["duration_ms"].as_f64() < Some(1000.0), "{report:#}");
        let listing = &report["usage_listing"];
        assert!(
            report["used_bytes"].is_null() && listing.is_object() && listing["next_run_at"].is_null(),
            "{report:#}"
        );
        assert_eq!(pages(&proxy).len(), before, "one run at a time");
        if is_deleted {
            daemon.delete(&id).await;
        } else {
            let took = daemon.stop().await;
            assert!(took < STOP, "{took:?}");
        }
    }
}

#[tokio::test]
async fn late_listing_page_is_a_warning_and_retried() {
    let gateway = Gateway::shared().await;
    let bucket = gateway.bucket().await;
    gateway.put(&bucket, "one", 4_321).await;
    let proxy = proxy_without_usage(&gateway).await;
    let mut held = proxy.hold(When::After, 1, is_page);
    let workspace = gateway.workspace();
    workspace.configure(LISTING);
    let (daemon, id) = Daemon::with_target(&workspace, target(&proxy.endpoint, &bucket)).await;
    let release = held.reached().await;
    let report = daemon.wait_for_report(&id, "a warning", |report| report["reason"] == "response_timed_out").await;
    assert_eq!((&report["status"], &report["verdict"]), (&json!("available"), &json!("available")), "{report:#}");
    assert_eq!((&check_named(&report, "capacity")["outcome"], &report["used_bytes"]), (&json!("passed"), &Value::Null));
    drop(release);
    let report = daemon.wait_for_report(&id, "a count", |report| report["used_bytes"] == 4_321).await;
    assert_healthy(&report);
}
