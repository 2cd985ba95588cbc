//! What watching a bucket costs the service, and what is known meanwhile.

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::storage::{s3, s3_target};
use crate::support::s3_server::LockConduct;
use crate::workspace::{SECRET_ACCESS_KEY, Workspace};

fn detail<'report>(report: &'report Value, check: &str) -> &'report str {
    let checks = report["checks"].as_array().expect("a list");
    let check = checks.iter().find(|found| found["name"] == check).expect("the check");
    check["detail"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn routine_s3_probe_is_one_request_and_dates_cached_facts() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(s3_target(&s3, "locked")).await;
    let first = daemon.check(&id).await;
    assert!(first["probe_requests"].as_u64() > Some(3), "it writes: {first:#}");
    assert!(!detail(&first, "versioning").contains("as read"), "{first:#}");

    let asked = s3.requests().len();
    let routine = daemon.wait_for_report(&id, "a routine probe", |report| report["probe_requests"] == 1).await;
    assert_eq!((&routine["status"], &routine["reason"]), (&json!("available"), &Value::Null), "{routine:#}");
    assert_eq!(routine["versioning"], true);
    assert_eq!((&routine["object_lock"], &routine["default_retention"]), (&json!(true), &first["default_retention"]));
    assert_eq!(routine["bucket_configuration_read_at"], first["bucket_configuration_read_at"]);
    assert!(routine["bucket_configuration_read_at"].as_str() < routine["checked_at"].as_str(), "{routine:#}");
    for check in ["object_lock", "versioning"] {
        assert!(detail(&routine, check).starts_with("enabled") && detail(&routine, check).contains(", as read at 20"));
    }
    let since: Vec<String> = s3.requests().split_off(asked);
    assert!(!since.is_empty() && since.iter().all(|request| request.starts_with("HEAD /locked")), "{since:?}");
}

#[tokio::test]
async fn s3_request_count_matches_the_service() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(s3_target(&s3, "plain")).await;
    let first = daemon.check(&id).await;
    let asked = s3.requests().len();
    assert_eq!(first["requests_last_hour"], asked, "{first:#}");
    let second = daemon.check(&id).await;
    assert_eq!(second["requests_last_hour"], s3.requests().len(), "{second:#}");
    assert_eq!(second["probe_requests"], s3.requests().len() - asked, "{second:#}");
    let url = format!("{}/plain", s3.endpoint());
    let output = workspace.run(&["check", "s3", &url, "--config", workspace.config().to_str().expect("text")]).await;
    let sent = s3.requests().len() - asked - second["probe_requests"].as_u64().map_or(0, |sent| sent as usize);
    assert!(output.stdout.contains(&format!("requests to the service: {sent} by this probe")), "{output:?}");
}

#[tokio::test]
async fn targets_on_one_service_share_connections() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    let buckets = ["plain", "versioned", "locked", "measured", "ignored"];
    for bucket in buckets {
        let id = daemon.create(s3_target(&s3, bucket)).await;
        assert_eq!(daemon.check(&id).await["status"], "available");
    }
    assert!(s3.requests().len() > buckets.len() * 5);
    // One; another if it was closed for being idle.
    assert!((1..=2).contains(&s3.connections()), "{}", s3.connections());
}

#[tokio::test]
async fn bucket_facts_are_read_again_at_their_interval() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ns3_facts_interval = \"1s\"");
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(s3_target(&s3, "locked")).await;
    daemon.wait_for_report(&id, "health", |report| report["status"] == "available").await;
    s3.set_conduct("locked", LockConduct::Untold);
    daemon.wait_for_report(&id, "what changed", |report| report["reason"] == "access_denied").await;
}

#[tokio::test]
async fn bucket_facts_are_read_again_after_a_failure() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ns3_facts_interval = \"1h\"");
    let daemon = Daemon::start(&workspace).await;
    let id = daemon.create(s3_target(&s3, "locked")).await;
    daemon.wait_for_report(&id, "a routine probe", |report| report["probe_requests"] == 1).await;
    std::fs::write(workspace.path("secret"), "another").expect("written");
    daemon.wait_for_report(&id, "a failure", |report| report["reason"] == "wrong_secret").await;
    s3.set_conduct("locked", LockConduct::Untold);
    std::fs::write(workspace.path("secret"), SECRET_ACCESS_KEY).expect("written");
    daemon.wait_for_report(&id, "what changed", |report| report["reason"] == "access_denied").await;
}
