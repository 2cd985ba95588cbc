//! Start, reload and stop: what survives `kill -9`, how soon the agent stops, and what `SIGHUP` changes.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::{Daemon, eventually};
use crate::http::{over_unix, request};
use crate::report::assert_healthy;
use crate::storage::{nfs, nfs_target};
use crate::support::nfs_server::Behaviour;
use crate::workspace::Workspace;

/// Maximum time of a stop, also with hanging storage.
const STOP: Duration = Duration::from_secs(2);

#[tokio::test]
async fn answered_changes_survive_sigkill() {
    let workspace = Workspace::new();
    let mut daemon = Daemon::start(&workspace).await;
    let mut target = nfs_target("/one");
    target["metadata"] = json!({ "rack": "b7" });
    let answer = daemon.try_create(target).await;
    daemon.end(Signal::SIGKILL).await;
    let created = answer.json()["backup_targets"].clone();

    // Its socket still exists, but nothing listens on it.
    assert!(workspace.path("api.sock").exists());
    let mut daemon = Daemon::start(&workspace).await;
    assert_eq!(daemon.targets().await, std::slice::from_ref(&created));
    let id = created["id"].as_str().expect("an id");
    let second = daemon.create(nfs_target("/two")).await;
    daemon.set_default(&second).await;
    daemon.end(Signal::SIGKILL).await;

    let mut daemon = Daemon::start(&workspace).await;
    assert_eq!(daemon.show(&second).await["is_default"], true);
    daemon.delete(id).await;
    daemon.end(Signal::SIGKILL).await;

    let daemon = Daemon::start(&workspace).await;
    let left: Vec<Value> = daemon.targets().await.iter().map(|target| target["id"].clone()).collect();
    assert_eq!(left, [json!(second)]);
}

#[tokio::test]
async fn stops_promptly_while_a_probe_hangs_and_a_client_waits() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (server, workspace) = nfs().await;
        workspace.configure("[probe]\ndeadline = \"60s\"");
        server.set_behaviour(Behaviour::Silent);
        let (mut daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
        let socket = workspace.path("api.sock");
        let check = request("POST", &format!("/backup_targets/{id}/check"), Vec::new());
        let waiting = tokio::spawn(async move { over_unix(&socket, check).await });
        // The agent answers other requests, so it has received the waiting one.
        assert_eq!(daemon.show(&id).await["status"], "offline");
        assert!(!waiting.is_finished());
        let (status, took) = daemon.end(signal).await;
        assert!(status.success(), "{signal}: {status}");
        assert!(took < STOP, "{signal}: {took:?}");
        assert!(!workspace.path("api.sock").exists(), "its socket is removed");
        waiting.abort();
    }
}

#[tokio::test]
async fn start_does_not_wait_for_storage() {
    let (server, workspace) = nfs().await;
    let (mut daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    daemon.end(Signal::SIGTERM).await;
    server.set_behaviour(Behaviour::Silent);
    workspace.configure("[probe]\ndeadline = \"60s\"");
    let daemon = Daemon::start(&workspace).await;
    let target = daemon.show(&id).await;
    assert_eq!(
        (&target["status"], &target["capacity"]),
        (&json!("offline"), &Value::Null),
        "an unverified target is offline"
    );
}

#[tokio::test]
async fn reload_rejects_bad_configuration_and_keeps_the_old() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let good = workspace.config_text();
    workspace.write_config(&format!("{}\n[probes]\nnearly_full_percent = 0.0\n", good.trim_end()));
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for_log("cannot reload the configuration").await;
    let position = format!("{}:{}: ", workspace.config().display(), good.trim_end().lines().count() + 1);
    assert!(line.contains(&position) && line.contains("probes") && line.contains("ERROR"), "{line}");
    let report = daemon.check(&id).await;
    assert_healthy(&report);
}

#[tokio::test]
async fn reload_applies_good_configuration_at_once() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["reason"], Value::Null);
    workspace.configure(
        "[probe]\nnearly_full_percent = 0.0\n[[target]]\ntype = \"nfs\"\nfilesystem_export = \"127.0.0.1:/two\"",
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_log("configuration reloaded").await;
    assert_eq!(daemon.targets().await.len(), 2);
    // Every target is probed with it at once, although the next probe is due in an hour.
    eventually("the warning", async || {
        let report = daemon.report(&id).await;
        (report["reason"] == "nearly_full").then_some(())
    })
    .await;
}

#[tokio::test]
async fn reload_reports_settings_that_need_a_restart() {
    let workspace = Workspace::new();
    let daemon = Daemon::start(&workspace).await;
    workspace.configure(&format!(
        "[registry]\nurl = \"sqlite://{}\"\n[mounts]\nroot = \"/elsewhere\"",
        workspace.path("other.db").display()
    ));
    daemon.signal(Signal::SIGHUP);
    daemon
        .wait_for_log(
            "[api] (except [api.token] and [api.keystone]), [metrics] (except token_file), [ui], [registry] and [fleet] (except bucket_check_interval) need a restart",
        )
        .await;
    daemon.wait_for_log("a change of [mounts] root needs a restart").await;
    daemon.wait_for_log("configuration reloaded").await;
    let id = daemon.create(nfs_target("/one")).await;
    let mount_path = daemon.show(&id).await["filesystem_export_mount_path"].clone();
    assert!(mount_path.as_str().expect("a text").starts_with(workspace.path("mounts").to_str().expect("text")));
    assert!(!workspace.path("other.db").exists());
}
