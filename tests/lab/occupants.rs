//! What others do to a mount that is there: cover it, double it, make it read-only.

use std::path::Path;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{EVERY_SECOND, FIRST_VERDICT, Machine, mark, mount_of, mount_path, mounts, succeed, unmount};

const EXPORT: &str = "10.0.0.1:/srv/exports/one";
const PATH: &str = "/srv/exports/one";
/// Two intervals, and the time to probe.
const NOTICED: Duration = Duration::from_secs(4);

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
        ["-t", "tmpfs", "theirs", at].as_slice(),
        ["-t", "nfs", "-o", "nolock,soft,nfsvers=3", "10.0.0.4:/srv/exports/three", at].as_slice(),
        ["-t", "nfs", "-o", "nolock,soft,nfsvers=3,nosharecache", "10.0.0.4:/srv/exports/one", at].as_slice(),
    ] {
        succeed("mount", arguments);
        target.wait_until_offline(&["mount_conflict"], NOTICED);
        let report = target.check();
        assert!(report.get("capacity_bytes").is_null(), "nothing is measured of what is not ours: {report:?}");
        assert_eq!(mounts_at(at.as_ref()), 2, "theirs and ours");
        unmount(at.as_ref());
        target.wait_until_available(NOTICED);
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
    assert_eq!(mounts_at(at.as_ref()), 2, "no third one, and none was taken away");
    unmount(at.as_ref());
    let report = target.check();
    assert_eq!((report.get("status"), report.get("reason")), (&"available".into(), &serde_json::Value::Null));
}

#[test]
fn read_only_remount_is_reported_at_the_next_probe() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let at = mount_path(PATH);
    let at = at.to_str().expect("text");
    succeed("mount", &["-o", "remount,bind,ro", at]);
    // Long before the next canary would tell.
    target.wait_until_offline(&["read_only"], NOTICED);
    let report = target.report();
    assert_eq!(report.get("mount")["nfs_version"], "3", "the facts are told with the failure: {report:?}");
    succeed("mount", &["-o", "remount,bind,rw", at]);
    target.wait_until_available(FIRST_VERDICT);
}
