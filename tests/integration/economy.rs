//! The number of requests that an agent sends to a service, and the age of the facts in its reports.

use serde_json::json;

use crate::daemon::Daemon;
use crate::report::{assert_healthy, detail_of};
use crate::storage::{s3, s3_target};
use crate::support::s3_server::LockBehaviour;
use crate::workspace::{SECRET_ACCESS_KEY, Workspace};

#[tokio::test]
async fn routine_s3_probe_is_one_request_and_dates_cached_facts() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"");
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "locked")).await;
    let first = daemon.check(&id).await;
    assert!(first["probe_requests"].as_u64() > Some(3), "it writes: {first:#}");
    assert!(!detail_of(&first, "versioning").contains("as read"), "{first:#}");

    let before = s3.requests().len();
    let routine = daemon.wait_for_report(&id, "a routine probe", |report| report["probe_requests"] == 1).await;
    assert_healthy(&routine);
    assert_eq!(routine["versioning"], true);
    assert_eq!((&routine["object_lock"], &routine["default_retention"]), (&json!(true), &first["default_retention"]));
    assert_eq!(routine["bucket_configuration_read_at"], first["bucket_configuration_read_at"]);
    assert!(routine["bucket_configuration_read_at"].as_str() < routine["checked_at"].as_str(), "{routine:#}");
    for check in ["object_lock", "versioning"] {
        let detail = detail_of(&routine, check);
        assert!(detail.starts_with("enabled") && detail.contains(", as read at 20"), "{detail}");
    }
    let since: Vec<String> = s3.requests().split_off(before);
    assert!(!since.is_empty() && since.iter().all(|request| request.starts_with("HEAD /locked")), "{since:?}");
}

#[tokio::test]
async fn s3_request_count_matches_the_service() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "plain")).await;
    let first = daemon.check(&id).await;
    let before = s3.requests().len();
    assert_eq!(first["requests_last_hour"], before, "{first:#}");
    let second = daemon.check(&id).await;
    assert_eq!(second["requests_last_hour"], s3.requests().len(), "{second:#}");
    let after = s3.requests().len();
    assert_eq!(second["probe_requests"], after - before, "{second:#}");
    let output = workspace.check_s3(&s3.endpoint(), "plain", &[]).await;
    let sent = s3.requests().len() - after;
    assert!(output.stdout.contains(&format!("requests to the service: {sent} by this probe")), "{output:?}");
}

#[tokio::test]
async fn targets_on_one_service_share_connections() {
    let s3 = s3().await;
    let daemon = Daemon::start(&Workspace::new()).await;
    let buckets = ["plain", "versioned", "locked", "measured", "not-enforced"];
    for bucket in buckets {
        let id = daemon.create(s3_target(&s3, bucket)).await;
        assert_eq!(daemon.check(&id).await["status"], "available");
    }
    assert!(s3.requests().len() > buckets.len() * 5);
    // The service may have closed the first one while it was idle.
    assert!((1..=2).contains(&s3.connections()), "{}", s3.connections());
}

#[tokio::test]
async fn bucket_facts_are_read_again_at_their_interval() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ns3_facts_interval = \"1s\"");
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "locked")).await;
    daemon.wait_for_report(&id, "health", |report| report["status"] == "available").await;
    s3.set_lock_behaviour("locked", LockBehaviour::ConfigurationDenied);
    daemon.wait_for_report(&id, "the refusal", |report| report["reason"] == "access_denied").await;
}

#[tokio::test]
async fn bucket_facts_are_read_again_after_a_failure() {
    let s3 = s3().await;
    let workspace = Workspace::new();
    workspace.configure("[probe]\ns3_interval = \"1s\"\ns3_facts_interval = \"1h\"");
    let (daemon, id) = Daemon::with_target(&workspace, s3_target(&s3, "locked")).await;
    daemon.wait_for_report(&id, "a routine probe", |report| report["probe_requests"] == 1).await;
    workspace.write("secret", "another");
    daemon.wait_for_report(&id, "a failure", |report| report["reason"] == "wrong_secret").await;
    s3.set_lock_behaviour("locked", LockBehaviour::ConfigurationDenied);
    workspace.write("secret", SECRET_ACCESS_KEY);
    daemon.wait_for_report(&id, "the refusal", |report| report["reason"] == "access_denied").await;
}
