//! A registry whose disk is full, or whose file is gone: changes are refused, and the rest goes on.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::api::{Target, get, request};
use crate::machine::{EVERY_SECOND, Machine, SERVICE, eventually, log, main_pid, mount_of, run, succeed};

const STATE: &str = "/var/lib/targetwatch";
const EXPORT: &str = "10.0.0.1:/srv/exports/one";
/// Some intervals, and the time to probe.
const NOTICED: Duration = Duration::from_secs(6);
/// How soon what waited for the registry is in it: it is tried again every 5 s.
const WRITTEN: Duration = Duration::from_secs(8);

/// A change of any kind is refused, by a fault that says so, and nothing of it is seen.
fn changes_are_refused(target: &Target) {
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
    let without_time = |list: &serde_json::Value| {
        let targets = list["backup_targets"].as_array().expect("a list");
        targets
            .iter()
            .map(|target| (target["id"].clone(), target["backup_target_metadata"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(without_time(&get("/backup_targets")), without_time(&before));
}

/// Reading and probing go on: the target goes offline and comes back.
fn reads_and_probes_go_on(target: &Target) {
    succeed("systemctl", &["stop", "lab-nfs-server.service"]);
    target.wait_until_offline(&["connection_refused"], NOTICED);
    succeed("systemctl", &["start", "lab-nfs-server.service"]);
    target.wait_until_available(NOTICED);
    assert_eq!(request("GET", "/healthz", None).code, 200);
}

#[test]
fn full_registry_disk_refuses_changes_only() {
    let _machine = Machine::stopped(EVERY_SECOND);
    fs::create_dir_all(STATE).expect("made");
    succeed("mount", &["-t", "tmpfs", "-o", "size=1M,mode=0700", "state", STATE]);
    succeed("systemctl", &["start", SERVICE]);
    let target = Target::create_available(EXPORT);
    let fill = format!("{STATE}/fill");
    run("dd", &["if=/dev/zero", &format!("of={fill}"), "bs=4k"]);
    changes_are_refused(&target);
    // A delete that is refused may have taken the mount away first.
    target.wait_until_available(NOTICED);
    let before = target.history().len();
    reads_and_probes_go_on(&target);
    let history = target.history();
    assert_eq!(history.len(), before + 2, "what cannot be written yet is told all the same: {history:?}");

    fs::remove_file(&fill).expect("removed");
    // Once there is room, what waited is written by itself, and survives an agent that is killed.
    eventually("it is written", WRITTEN, || log(20).contains("history of targets is written again").then_some(()));
    let killed = main_pid();
    succeed("kill", &["-KILL", &killed.to_string()]);
    eventually("started again", NOTICED, || (!matches!(main_pid(), 0) && main_pid() != killed).then_some(()));
    eventually("answering", NOTICED, || (request("GET", "/healthz", None).code == 200).then_some(()));
    target.wait_until_available(NOTICED);
    let now = target.history();
    assert!(now.windows(history.len()).any(|part| part == history), "{now:?}");
    Target::create_available("10.0.0.2:/srv/exports/two");
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
    changes_are_refused(&target);
    reads_and_probes_go_on(&target);
    assert!(mount_of("/srv/exports/one").is_some(), "a delete that was refused unmounts nothing for good");
}
