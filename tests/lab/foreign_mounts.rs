//! Changes of the agent's mount by other programs: a mount over it, a second mount of the export, a read-only remount.

use std::path::Path;
use std::time::Duration;

use crate::api::{Report, Target, request};
use crate::machine::{
    EVERY_SECOND, EXPORT, FIRST_VERDICT, Machine, PATH, mark, mount_of, mount_path, mounts, succeed, unmount,
};

/// Time limit of detection: two intervals and a probe.
const DETECTED: Duration = Duration::from_secs(4);

fn mounts_at(path: &Path) -> usize {
    mounts().iter().filter(|mount| mount.path == path).count()
}

#[test]
fn mount_over_target_is_reported_and_never_touched() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let (at, ours) = (mount_path(PATH), mark(PATH));
    let at = at.to_str().expect("text");
    for arguments in [
        ["-t", "tmpfs", "other", at].as_slice(),
        ["-t", "nfs", "-o", "nolock,soft,nfsvers=3", "10.0.0.4:/srv/exports/three", at].as_slice(),
        ["-t", "nfs", "-o", "nolock,soft,nfsvers=3,nosharecache", "10.0.0.4:/srv/exports/one", at].as_slice(),
    ] {
        succeed("mount", arguments);
        target.wait_until_offline(&["mount_conflict"], DETECTED);
        let report = target.check();
        assert!(report.get("capacity_bytes").is_null(), "the capacity of another file system: {report:?}");
        assert_eq!(mounts_at(at.as_ref()), 2, "the agent changed the mounts");
        unmount(at.as_ref());
        target.wait_until_available(DETECTED);
        assert_eq!(mount_of(PATH), ours, "{arguments:?}");
    }
}

#[test]
fn warning_when_export_is_mounted_twice() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let at = mount_path(PATH);
    let at = at.to_str().expect("text");
    succeed("mount", &["-t", "nfs", "-o", "nolock,soft,nfsvers=3", EXPORT, at]);
    let report = target.check();
    assert_eq!((report.get("status"), report.get("reason")), (&"available".into(), &"mount_stacked".into()));
    assert_eq!(mounts_at(at.as_ref()), 2, "the agent changed the mounts");
    unmount(at.as_ref());
    let report = target.check();
    assert_eq!((report.get("status"), report.get("reason")), (&"available".into(), &serde_json::Value::Null));
}

#[test]
fn mount_with_other_options_is_a_warning_until_it_is_mounted_again() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let of_report = |report: &Report| (report.get("status").clone(), report.get("reason").clone());
    assert_eq!(of_report(&target.check()), ("available".into(), serde_json::Value::Null), "mounted as configured");
    let change =
        serde_json::json!({ "backup_target": { "nfs_mount_opts": "nolock,soft,nfsvers=3,timeo=70,retrans=3" } });
    let changed = request("PUT", &format!("/backup_targets/{}", target.id), Some(&change));
    assert_eq!(changed.code, 200, "{changed:?}");
    let report = target.check();
    assert_eq!(of_report(&report), ("available".into(), "mount_options_differ".into()), "{report:?}");
    let message = report.message();
    assert!(message.contains("instead of retrans=3") && message.contains("instead of timeo=70"), "{message}");
    unmount(&mount_path(PATH));
    target.wait_until_available(DETECTED);
    let report = target.check();
    assert_eq!(of_report(&report), ("available".into(), serde_json::Value::Null), "{report:?}");
}

#[test]
fn read_only_remount_is_reported_at_the_next_probe() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let at = mount_path(PATH);
    let at = at.to_str().expect("text");
    succeed("mount", &["-o", "remount,bind,ro", at]);
    // The next canary, which would fail too, is much later.
    target.wait_until_offline(&["read_only"], DETECTED);
    let report = target.report();
    assert_eq!(report.get("mount")["nfs_version"], "3", "the failed report has the facts of the mount: {report:?}");
    succeed("mount", &["-o", "remount,bind,rw", at]);
    target.wait_until_available(FIRST_VERDICT);
}
