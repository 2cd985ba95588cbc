//! Reports about NFS exports.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use targetwatch::model::canary_file::CanaryFileNames;
use tokio::net::TcpListener;

use crate::daemon::{Daemon, eventually, with_timeout};
use crate::report::{assert_healthy, assert_offline, assert_warning};
use crate::storage::{exported_directory, exports, measure, nfs, nfs_target};
use crate::support::nfs_server::{Behaviour, NfsExportFixture, NfsServer};
use crate::workspace::Workspace;

/// Probes every second, so that the agent notices changes by itself.
const EVERY_SECOND: &str = "[probe]\nnfs_interval = \"1s\"";

/// A deadline that a silent server exceeds soon.
const SHORT_DEADLINE: &str = "[probe]\ndeadline = \"200ms\"";

/// More than the source ports below 1024 that an agent uses.
const SILENT_SERVERS: u32 = 400;

/// The outcome of each check, by name.
fn outcomes(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().map(|check| (text(&check["name"]), text(&check["outcome"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, outcome)| ((*name).to_owned(), (*outcome).to_owned())).collect()
}

/// A size in the API's format: steps of 1024, one decimal.
fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["bytes", "KB", "MB", "GB", "TB", "PB"].into_iter();
    while value >= 1024.0 {
        value /= 1024.0;
        units.next();
    }
    format!("{value:.1} {}", units.next().expect("a unit"))
}

#[tokio::test]
async fn nfs_available_with_capacity_when_export_is_healthy() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    // Other processes write to the same file system, so a report may need several attempts to match a reading.
    let (report, capacity) = eventually("a report that agrees with statvfs", async || {
        let (capacity, used) = measure(&exported_directory());
        let report = daemon.check(&id).await;
        let is_same = report["capacity_bytes"] == capacity && report["used_bytes"] == used;
        is_same.then_some((report, capacity))
    })
    .await;
    assert_healthy(&report);
    assert_eq!(report["mode"], "none");
    let all = ["reachable", "exported", "capacity", "write_canary"].map(|check| (check, "passed"));
    let all = pairs(&all);
    assert_eq!(outcomes(&report), all);
    assert_eq!(report["checked_at"], report["last_available_at"]);

    let target = daemon.show(&id).await;
    assert_eq!((&target["status"], &target["capacity"]), (&json!("available"), &json!(human(capacity))));
    let checks = daemon.report(&id).await;
    assert_eq!(checks, report, "the latest report is the requested one");
    let detail = daemon.get("/backup_targets/detail").await;
    assert_eq!(detail["backup_targets"][0]["report"], report);
}

#[tokio::test]
async fn nfs_offline_when_server_stops_and_available_when_it_returns() {
    let (server, workspace) = nfs().await;
    workspace.configure(EVERY_SECOND);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let becomes = async |status: &str| {
        eventually(status, async || Some(daemon.show(&id).await).filter(|target| target["status"] == status)).await
    };
    becomes("available").await;
    let port = server.port();
    server.stop().await;
    let target = becomes("offline").await;
    assert_eq!((&target["capacity"], &target["used"]), (&Value::Null, &Value::Null), "old figures are not shown");
    let report = daemon.report(&id).await;
    let message = assert_offline(&report, "connection_refused");
    assert!(message.contains(&format!("127.0.0.1 port {port}")), "{message}");
    let mut skipped = ["reachable", "exported", "capacity", "write_canary"].map(|check| (check, "skipped"));
    skipped[0].1 = "failed";
    assert_eq!(outcomes(&report), pairs(&skipped));
    assert!(report["last_available_at"].as_str() < report["since"].as_str(), "{report:#}");

    let _restarted = NfsServer::start_on(port, exports()).await.expect("its port is free");
    becomes("available").await;
    let count =
        |status: &str| daemon.log().lines().filter(|line| line.contains(&format!("}}: {status} reason="))).count();
    eventually("the second line", async || (count("available") >= 2).then_some(())).await;
    assert_eq!((count("available"), count("offline")), (2, 1), "a change is logged once: {}", daemon.log());
}

#[tokio::test]
async fn nfs_offline_after_two_timeouts() {
    let (server, workspace) = nfs().await;
    workspace.configure(SHORT_DEADLINE);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    eventually("available", async || (daemon.check(&id).await["status"] == "available").then_some(())).await;
    server.set_behaviour(Behaviour::Silent);
    let first = daemon.check(&id).await;
    assert_eq!((&first["verdict"], &first["reason"]), (&json!("timed_out"), &json!("response_timed_out")), "{first:#}");
    assert_eq!((&first["status"], &first["timeouts_in_a_row"]), (&json!("available"), &json!(1)));
    let second = daemon.check(&id).await;
    assert_eq!((&second["status"], &second["timeouts_in_a_row"]), (&json!("offline"), &json!(2)), "{second:#}");
    assert_eq!(outcomes(&second)[0], ("reachable".to_owned(), "timed_out".to_owned()));
    assert!(second["message"].as_str().expect("a text").contains("did not answer NULL within"), "{second:#}");
    server.set_behaviour(Behaviour::Healthy);
    eventually("available again", async || (daemon.check(&id).await["status"] == "available").then_some(())).await;
}

#[tokio::test]
async fn nfs_available_when_server_closes_the_connection_after_null() {
    let (server, workspace) = nfs().await;
    server.set_behaviour(Behaviour::CloseAfterNull);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_healthy(&daemon.check(&id).await);
}

#[tokio::test]
async fn never_available_target_stays_offline_after_a_timeout() {
    let (server, workspace) = nfs().await;
    workspace.configure(SHORT_DEADLINE);
    server.set_behaviour(Behaviour::Silent);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let report = daemon.check(&id).await;
    assert_eq!((&report["status"], &report["last_available_at"]), (&json!("offline"), &Value::Null));
}

#[tokio::test]
async fn silent_nfs_server_delays_no_other_target_and_no_answer() {
    let (server, workspace) = nfs().await;
    let (silent, _) = nfs().await;
    silent.set_behaviour(Behaviour::Silent);
    let options = |port: u16| format!("nfsvers=3,port={port},mountport={port}");
    workspace.configure(&format!(
        "[probe]\ndeadline = \"60s\"\n[[mounts.nfs]]\nlocation = \"127.0.0.1:/two\"\noptions = \"{}\"",
        options(silent.port())
    ));
    let (daemon, hanging) = Daemon::with_target(&workspace, nfs_target("/two")).await;
    let well = daemon.create(nfs_target("/one")).await;
    assert_eq!(daemon.check(&well).await["status"], "available");
    assert_eq!(daemon.show(&hanging).await["status"], "offline");
    let verdict = daemon.report(&hanging).await;
    assert_eq!(
        (&verdict["verdict"], &verdict["reason"]),
        (&Value::Null, &json!("not_checked")),
        "its probe still hangs"
    );
    // A target whose probe hangs can be deleted at once.
    daemon.set_default(&well).await;
    daemon.delete(&hanging).await;
    drop(server);
}

#[tokio::test]
async fn hundreds_of_silent_servers_leave_a_source_port_for_a_healthy_export() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root uses source ports below 1024");
        return;
    }
    let (server, workspace) = nfs().await;
    server.set_behaviour(Behaviour::RequireReservedPort);
    let silent = TcpListener::bind("0.0.0.0:0").await.expect("a listener");
    let port = silent.local_addr().expect("an address").port();
    let targets: String = (1..=SILENT_SERVERS)
        .map(|number| {
            let address = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number);
            format!("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"{address}:/{number}\"\nnfs_mount_opts = \"nfsvers=3,port={port}\"\n")
        })
        .collect();
    workspace.configure(&targets);
    let daemon = Daemon::start(&workspace).await;
    let mut probed = Vec::new();
    while probed.len() < SILENT_SERVERS as usize {
        probed.push(with_timeout("a probe of each silent server", silent.accept()).await.expect("accepted"));
    }
    let id = daemon.create(nfs_target("/backups")).await;
    assert_healthy(&daemon.check(&id).await);
}

#[tokio::test]
async fn available_target_stays_available_when_its_options_or_mode_change() {
    let (server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    let port = server.port();
    for change in [
        json!({ "nfs_mount_opts": format!("nfsvers=3,soft,port={port},mountport={port}") }),
        json!({ "mount_mode": "none" }),
        json!({ "nfs_mount_opts": "", "mount_mode": "" }),
    ] {
        let changed = daemon.modify(&id, change.clone()).await;
        assert_eq!(changed["status"], "available", "{change}");
    }
    assert_eq!(daemon.check(&id).await["status"], "available");
    let history = daemon.get(&format!("/backup_targets/{id}/history")).await;
    assert_eq!(history["transitions"].as_array().expect("a list").len(), 1, "{history:#}");
}

#[tokio::test]
async fn nfs_reason_for_each_server_failure() {
    let (server, workspace) = nfs().await;
    let daemon = Daemon::start(&workspace).await;
    // Set before the first probe, because the agent uses the handle of a mounted export for minutes.
    server.set_behaviour(Behaviour::RefuseExport("/one".to_owned()));
    let id = daemon.create(nfs_target("/one")).await;
    for (behaviour, reason) in [
        (Behaviour::RefuseExport("/one".to_owned()), "export_denied"),
        (Behaviour::VersionMismatch { low: 4, high: 4 }, "nfs_version_unsupported"),
        (Behaviour::AuthError, "nfs_access_refused"),
        (Behaviour::Garbage, "not_nfs"),
        (Behaviour::CloseAtOnce, "connection_broken"),
        (Behaviour::StaleHandle, "stale_handle"),
        (Behaviour::EofMidRecord, "connection_broken"),
        (Behaviour::HugeRecord, "not_nfs"),
    ] {
        println!("{behaviour:?}");
        server.set_behaviour(behaviour);
        let report = daemon.check(&id).await;
        let message = assert_offline(&report, reason);
        assert!(message.len() > reason.len(), "{message}");
        assert_eq!(report["capacity_bytes"], Value::Null);
    }
    server.set_behaviour(Behaviour::Healthy);
    assert_eq!(daemon.check(&id).await["status"], "available");
}

#[tokio::test]
async fn nfs_missing_export_is_named_by_path() {
    let (_server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/nowhere")).await;
    let report = daemon.check(&id).await;
    let message = assert_offline(&report, "export_denied");
    assert!(message.contains("/nowhere"), "{message}");
}

#[tokio::test]
async fn nfs_stale_handle_recovers_in_the_same_probe() {
    let (server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    server.invalidate_handles();
    let report = daemon.check(&id).await;
    assert_eq!(report["status"], "available", "{report:#}");
}

#[tokio::test]
async fn mode_none_mounts_nothing_and_creates_no_directory() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_eq!(daemon.check(&id).await["status"], "available");
    assert!(!workspace.path("mounts").exists());
}

#[tokio::test]
async fn concurrent_check_requests_share_probes() {
    let (_nfs, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let reports = with_timeout("all reports", futures::future::join_all((0..50).map(|_| daemon.check(&id)))).await;
    assert!(reports.iter().all(|report| report["status"] == "available"));
    let probes: std::collections::HashSet<_> = reports.iter().map(|report| report["checked_at"].to_string()).collect();
    assert!(probes.len() < 50, "{} probes", probes.len());
}

#[tokio::test]
async fn nfs_warning_when_export_is_nearly_full() {
    let (_nfs, workspace) = nfs().await;
    workspace.configure("[probe]\nnearly_full_percent = 0.0");
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let report = daemon.check(&id).await;
    assert_warning(&report, "nearly_full");
}

#[tokio::test]
async fn impossible_counts_of_a_server_are_warnings() {
    const GIB: u64 = 1 << 30;
    let (server, workspace) = nfs().await;
    workspace.configure("[probe]\nnearly_full_percent = 90.0");
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let negative = GIB.wrapping_neg();
    for (counts, available, reasons) in [
        ([100 * GIB, 50 * GIB, 40 * GIB, 100, 50], 40 * GIB, &[][..]),
        ([100 * GIB, GIB, negative, 100, 50], GIB, &["nearly_full", "capacity_implausible"]),
        ([100 * GIB, negative, negative, 100, 50], 0, &["nearly_full", "capacity_implausible"]),
        ([100 * GIB, 50 * GIB, 200 * GIB, 100, 50], 50 * GIB, &["capacity_implausible"]),
        ([0, 0, 0, 0, 0], 0, &["capacity_implausible"]),
        ([100 * GIB, 50 * GIB, 40 * GIB, 100, 5], 40 * GIB, &["inodes_nearly_used_up"]),
        ([100 * GIB, 50 * GIB, 40 * GIB, 100, 0], 40 * GIB, &["inodes_nearly_used_up"]),
    ] {
        server.set_behaviour(Behaviour::Counts(counts));
        let report = daemon.check(&id).await;
        assert_eq!((&report["status"], &report["available_bytes"]), (&json!("available"), &json!(available)));
        let checks = report["checks"].as_array().expect("a list");
        let capacity = checks.iter().find(|check| check["name"] == "capacity").expect("a check");
        let findings = capacity["findings"].as_array().expect("a list");
        let found: Vec<&str> = findings.iter().filter_map(|finding| finding["reason"].as_str()).collect();
        assert_eq!(found, reasons, "{counts:?}: {report:#}");
        if counts[4] == 0 && counts[3] > 0 {
            assert!(report["message"].as_str().expect("a text").starts_with("all 100 inodes are used"), "{report:#}");
        }
    }
}

#[tokio::test]
async fn canary_over_the_wire_finds_a_server_that_does_not_keep_data() {
    let (server, workspace) = nfs().await;
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    for (behaviour, reason, part) in [
        (Behaviour::ReadOnly, "read_only", "CREATE on /backups answered NFS3ERR_ROFS"),
        (Behaviour::CorruptData, "canary_mismatch", "4096 bytes were written, 4096 were read back, and"),
    ] {
        server.set_behaviour(behaviour);
        let report = daemon.check(&id).await;
        let message = assert_offline(&report, reason);
        assert!(message.contains(part), "{message}");
    }
    server.set_behaviour(Behaviour::Healthy);
    assert_healthy(&daemon.check(&id).await);
}

#[tokio::test]
async fn canary_over_the_wire_is_written_once_in_an_interval() {
    let (_server, workspace) = nfs().await;
    workspace.configure(EVERY_SECOND);
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    let canary = |report: &Value| {
        let checks = report["checks"].as_array().expect("a list");
        checks.iter().find(|check| check["name"] == "write_canary").expect("a check").clone()
    };
    let requested = daemon.check(&id).await;
    assert_eq!(canary(&requested)["outcome"], "passed", "{requested:#}");
    let routine = daemon.wait_for_report(&id, "a probe", |report| canary(report)["outcome"] == "skipped").await;
    let detail = canary(&routine)["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("the next one is due 300 s after that"), "{detail}");
    assert_eq!(routine["status"], "available");
}

#[tokio::test]
async fn leftover_canaries_are_removed_over_the_wire() {
    let directory = tempfile::tempdir().expect("a directory");
    let exported = |name: &str| directory.path().join(name);
    let export = NfsExportFixture { path: "/backups".to_owned(), directory: directory.path().to_owned() };
    let server = NfsServer::start(vec![export]).await.expect("started");
    let workspace = Workspace::new();
    let port = server.port();
    workspace.configure(&format!("[mounts]\nnfs_options = \"nfsvers=3,port={port},mountport={port}\""));
    let host = nix::unistd::gethostname().expect("a name").into_string().expect("a text");
    let [old, young, large] = [0; 3].map(|_| CanaryFileNames::new(&host).name);
    let foreign = CanaryFileNames::new("another host").name;
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    // More entries than a reply to READDIR has.
    for number in 0..500 {
        std::fs::write(exported(&format!("disk-{number}.qcow2")), "").expect("written");
    }
    for (name, bytes, modified) in [
        (&old, 4096, Some(hour_ago)),
        (&young, 4096, None),
        (&large, 4097, Some(hour_ago)),
        (&foreign, 0, Some(hour_ago)),
    ] {
        std::fs::write(exported(name), vec![7; bytes]).expect("written");
        if let Some(modified) = modified {
            std::fs::File::options()
                .write(true)
                .open(exported(name))
                .and_then(|file| file.set_modified(modified))
                .expect("aged");
        }
    }
    let (daemon, id) = Daemon::with_target(&workspace, nfs_target("/backups")).await;
    assert_healthy(&daemon.check(&id).await);
    assert!(!exported(&old).exists(), "a leftover of this node");
    assert!(exported(&young).exists() && exported(&large).exists() && exported(&foreign).exists());
    assert_eq!(std::fs::read_dir(directory.path()).expect("a list").count(), 503, "the canary itself is gone");
}

#[tokio::test]
async fn declared_target_is_created_once() {
    let workspace = Workspace::new();
    workspace
        .configure("[[target]]\ntype = \"nfs\"\nfilesystem_export = \"127.0.0.1:/declared\"\nbtt_name = \"nightly\"");
    let mut daemon = Daemon::start(&workspace).await;
    let first = eventually("declared", async || daemon.targets().await.pop()).await;
    assert_eq!(first["backup_target_types"][0]["name"], "nightly");
    assert_eq!(first["is_default"], true);
    daemon.end(nix::sys::signal::Signal::SIGTERM).await;
    let daemon = Daemon::start(&workspace).await;
    let targets = daemon.targets().await;
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0]["id"], first["id"]);
}
