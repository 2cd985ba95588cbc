//! Logging: an unread standard error, and the ids in log lines.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::daemon::{Daemon, eventually};
use crate::storage::{nfs, nfs_target};

/// Maximum time of a stop.
const STOP: Duration = Duration::from_secs(2);

async fn lines_dropped(daemon: &Daemon) -> u64 {
    daemon.get("/node").await["agent"]["log_lines_dropped"].as_u64().expect("a count")
}

#[tokio::test]
async fn daemon_answers_probes_and_stops_when_stderr_is_not_read() {
    let (_server, workspace) = nfs().await;
    let mut daemon = Daemon::start_unread(&workspace).await;
    for number in 0..300 {
        daemon.create(nfs_target(&format!("/none/{number}"))).await;
    }
    let id = daemon.create(nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    assert_eq!(lines_dropped(&daemon).await, 0, "they fit into the queue");
    assert!(daemon.stop().await < STOP);
}

#[tokio::test]
async fn dropped_log_lines_are_counted_and_reported_when_stderr_is_read_again() {
    let (_server, workspace) = nfs().await;
    // All but one of these are refused at each reload, because their types have the same name.
    let declare =
        |number| format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"h:/{number}\"\nbtt_name = \"same\"\n");
    let declared = (0..500).map(declare);
    workspace.configure(&declared.collect::<String>());
    let mut daemon = Daemon::start_unread(&workspace).await;
    eventually("dropped lines", async || {
        daemon.signal(Signal::SIGHUP);
        Some(lines_dropped(&daemon).await).filter(|dropped| *dropped > 0)
    })
    .await;
    daemon.read_log();
    let report = "log lines were dropped because standard error was not read";
    let line = daemon.wait_for_log(report).await;
    assert!(line.contains("WARN"), "{line}");
    assert!(daemon.stop().await < STOP);
    let line = daemon.wait_for_log("stopping").await;
    assert!(line.contains("INFO"), "{line}");
    let log = daemon.log();
    assert!(log.find(report) < log.find("stopping"), "{log}");
}

#[tokio::test]
async fn log_lines_contain_the_ids_of_their_request_and_target() {
    let (_server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    daemon.check(&id).await;
    let line = daemon.wait_for_log(": available reason=").await;
    assert!(line.contains(&format!(r#"target{{target_id={id} export="127.0.0.1:/backups"}}: "#)), "{line}");
    assert!(!line.contains("request_id"), "a target outlives its request: {line}");
    let new_type = json!({ "backup_target_type": { "name": "gold", "backup_targets_id": id } });
    let answer = daemon.request("POST", "/backup_target_types", Some(&new_type)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let line = daemon.wait_for_log("created a type").await;
    let request_id = answer.header("x-compute-request-id");
    assert!(line.contains(&format!(" request_id={request_id}")), "{line}");
}
