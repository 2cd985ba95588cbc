//! A registry on a full disk, or whose file was removed. The agent refuses changes and continues to probe.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::api::{Target, get, request};
use crate::machine::{
    EVERY_SECOND, EXPORT, Machine, NFS_SERVER, PATH, SERVICE, eventually, kill_agent, mount_of, run, succeed, systemctl,
};

const STATE: &str = "/var/lib/targetwatch";
/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);
/// Time limit until the pending history is written. The agent retries every 5 s.
const WRITTEN: Duration = Duration::from_secs(8);

/// Asserts that each kind of change is refused with a fault that names the registry, and has no effect.
fn assert_changes_refused(target: &Target) {
    let before = get("/backup_targets");
    let path = format!("/backup_targets/{}", target.id);
    let change = json!({"backup_target": {"metadata": {"notes": "x".repeat(4 << 10)}}});
    for answer in [
        Target::try_create("10.0.0.2:/srv/exports/two"),
        request("PUT", &path, Some(&change)),
        request("DELETE", &path, None),
    ] {
        assert_eq!(answer.code, 500, "{answer:?}");
        assert!(answer.message().contains("the registry"), "{answer:?}");
    }
    let ids_and_metadata = |list: &serde_json::Value| {
        let targets = list["backup_targets"].as_array().expect("a list");
        targets
            .iter()
            .map(|target| (target["id"].clone(), target["backup_target_metadata"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids_and_metadata(&get("/backup_targets")), ids_and_metadata(&before));
}

/// Asserts that the agent continues to probe and answer: the target goes offline and comes back.
fn assert_reads_and_probes_continue(target: &Target) {
    systemctl("stop", NFS_SERVER);
    target.wait_until_offline(&["connection_refused"], DETECTED);
    systemctl("start", NFS_SERVER);
    target.wait_until_available(DETECTED);
    assert_eq!(request("GET", "/healthz", None).code, 200);
}

/// The metric of history entries that are not in the registry.
fn history_waiting() -> String {
    let metrics = request("GET", "/metrics", None).text;
    let value = metrics.lines().find_map(|line| line.strip_prefix("targetwatch_history_waiting "));
    value.unwrap_or_else(|| panic!("no such metric: {metrics}")).to_owned()
}

#[test]
fn full_registry_disk_refuses_changes_only() {
    let _machine = Machine::stopped(EVERY_SECOND);
    fs::create_dir_all(STATE).expect("created");
    succeed("mount", &["-t", "tmpfs", "-o", "size=1M,mode=0700", "state", STATE]);
    systemctl("start", SERVICE);
    let target = Target::create_available(EXPORT);
    // The agent empties its log when it is idle, which would free space later.
    let log_path = format!("{STATE}/registry.db-wal");
    eventually("the log is empty", WRITTEN, || fs::metadata(&log_path).is_ok_and(|log| log.len() == 0).then_some(()));
    let fill = format!("{STATE}/fill");
    run("dd", &["if=/dev/zero", &format!("of={fill}"), "bs=4k"]);
    assert_changes_refused(&target);
    // The refused deletion may have unmounted the export first.
    target.wait_until_available(DETECTED);
    let before = target.history().len();
    assert_reads_and_probes_continue(&target);
    let history = target.history();
    assert_eq!(history.len(), before + 2, "the pending history is not shown: {history:?}");

    fs::remove_file(&fill).expect("removed");
    // With free space the agent writes the pending history, which then survives a crash. Some of it may have found
    // place in the log before.
    eventually("the history is written", WRITTEN, || (history_waiting() == "0").then_some(()));
    kill_agent(DETECTED);
    target.wait_until_available(DETECTED);
    let now = target.history();
    assert!(now.windows(history.len()).any(|part| part == history), "{now:?}");
    Target::create_available("10.0.0.2:/srv/exports/two");
    run("systemctl", &["stop", SERVICE]);
    run("umount", &[STATE]);
}

/// A target is checked although the registry cannot be changed.
#[test]
fn agent_starts_although_registry_disk_is_full() {
    let _machine = Machine::stopped(EVERY_SECOND);
    fs::create_dir_all(STATE).expect("created");
    succeed("mount", &["-t", "tmpfs", "-o", "size=1M,mode=0700", "state", STATE]);
    systemctl("start", SERVICE);
    let target = Target::create_available(EXPORT);
    let fill = format!("{STATE}/fill");
    for end in ["stop", "kill"] {
        match end {
            "stop" => {
                systemctl("stop", SERVICE);
                fs::remove_file(format!("{STATE}/registry.db.generation")).expect("removed");
                run("dd", &["if=/dev/zero", &format!("of={fill}"), "bs=4k"]);
                systemctl("start", SERVICE);
            }
            _ => kill_agent(DETECTED),
        }
        target.wait_until_available(DETECTED);
        assert_changes_refused(&target);
        target.wait_until_available(DETECTED);
        assert_reads_and_probes_continue(&target);
    }
    fs::remove_file(&fill).expect("removed");
    Target::create_available("10.0.0.2:/srv/exports/two");
    systemctl("restart", SERVICE);
    target.wait_until_available(DETECTED);
    assert_eq!(get("/backup_targets")["backup_targets"].as_array().map(Vec::len), Some(2));
    run("systemctl", &["stop", SERVICE]);
    run("umount", &[STATE]);
}

#[test]
fn removed_registry_refuses_changes_only() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    for file in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        fs::remove_file(format!("{STATE}/{file}")).expect("removed");
    }
    assert_changes_refused(&target);
    assert_reads_and_probes_continue(&target);
    assert!(mount_of(PATH).is_some(), "the refused deletion unmounted the export for good");
}
