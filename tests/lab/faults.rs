//! Storage faults: each has its reason, affects no other target, and ends with its cause.

use std::fs;
use std::time::Duration;

use crate::api::{Target, request};
use crate::machine::{
    ANSWER, EVERY_HOUR, EVERY_SECOND, EXPORT, FIRST_VERDICT, HEALED, MOUNT_ROOT, Machine, NFS_SERVER, PATH, SERVICE,
    TIMED_OUT, UP_OR_DOWN, black_hole, end_black_holes, eventually, export_directory, mark, mount_of, mount_path,
    mounts, run, succeed, systemctl, unmount,
};

fn assert_answers_at_once() {
    for path in ["/backup_targets", "/backup_targets/detail", "/healthz"] {
        let answer = request("GET", path, None);
        assert!(answer.code == 200 && answer.took < ANSWER, "{path}: {answer:?}");
    }
}

#[test]
fn external_unmount_is_mounted_again_at_once() {
    let _machine = Machine::start(EVERY_HOUR);
    let target = Target::create_available(EXPORT);
    let before = mount_of(PATH).expect("mounted");
    unmount(&before.path);
    let after = eventually("mounted again", HEALED, || mount_of(PATH));
    assert_eq!((after.source, after.options), (before.source, before.options));
    target.wait_until_available(HEALED);
}

#[test]
fn connection_refused_is_reported_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let v3 = Target::create_available(EXPORT);
    let v4 = Target::create_available("10.0.0.2:/srv/exports/two");
    let mount = mark(PATH);
    systemctl("stop", NFS_SERVER);
    for target in [&v3, &v4] {
        target.wait_until_offline(&["connection_refused"], Duration::from_secs(3));
    }
    assert_answers_at_once();
    systemctl("start", NFS_SERVER);
    // The kernel's client reconnects after a delay.
    for target in [&v3, &v4] {
        target.wait_until_available(Duration::from_secs(20));
    }
    assert_eq!(mount_of(PATH), mount, "the agent unmounted the export of a stopped server");
}

/// The kernel's NFS server, restarted with a grace period. Dropping it ends the grace period.
pub struct GracePeriod;

impl GracePeriod {
    /// The kernel's helper that remembers clients. It ends the grace period at once if no client has state to reclaim.
    const HELPER: &str = "/usr/sbin/nfsdcltrack";

    /// Restarts the server.
    pub fn start(length: Duration) -> Self {
        systemctl("stop", NFS_SERVER);
        let period = Self;
        succeed("mount", &["--bind", "/usr/bin/true", Self::HELPER]);
        succeed("rpc.nfsd", &["--grace-time", &length.as_secs().to_string(), "--nfs-version", "3,4.2", "4"]);
        period
    }
}

impl Drop for GracePeriod {
    fn drop(&mut self) {
        run("umount", &[Self::HELPER]);
        run("rpc.nfsd", &["0"]);
        run("systemctl", &["restart", NFS_SERVER]);
    }
}

/// In its grace period (RFC 8881 §8.4.2.1) a server of NFSv4 creates no file, and answers everything else.
#[test]
fn server_in_its_grace_period_is_named_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let v3 = Target::create_available(EXPORT);
    let v4 = Target::create_available("10.0.0.2:/srv/exports/two");
    let mounts_before = [mark(PATH), mark("/srv/exports/two")];
    let length = Duration::from_secs(40);
    let period = GracePeriod::start(length);
    let report = eventually("a canary of NFSv4 that names the grace period", length / 2, || {
        Some(v4.check()).filter(|report| report.outcome("write_canary") == "timed_out")
    });
    assert!(report.message().contains("grace period"), "{report:?}");
    assert_eq!(report.outcome("capacity"), "passed", "{report:?}");
    let report = v3.check();
    assert_eq!(report.outcome("write_canary"), "passed", "{report:?}");
    assert_answers_at_once();
    v4.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    // A target that is created now is mounted, and its canary waits, too.
    let new = Target::create("10.0.0.2:/srv/exports/three");
    new.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    assert!(new.report().message().contains("grace period"), "{:?}", new.report());

    for target in [&v4, &new] {
        target.wait_until_available(length);
    }
    assert!(v3.is_available());
    assert_eq!([mount_of(PATH), mount_of("/srv/exports/two")], mounts_before);
    drop(period);
}

#[test]
fn silent_server_delays_nothing() {
    let _machine = Machine::start(EVERY_SECOND);
    let silent = Target::create_available("10.0.0.3:/srv/exports/three");
    let other = Target::create_available(EXPORT);
    let mount = mark("/srv/exports/three");
    black_hole("10.0.0.3");
    silent.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
    assert_answers_at_once();
    assert!(other.is_available());

    let report = other.check();
    assert_eq!(report.outcome("write_canary").replace("skipped", "passed"), "passed", "{report:?}");
    assert!(systemctl("stop", SERVICE) < UP_OR_DOWN, "stopping");
    assert!(systemctl("start", SERVICE) < UP_OR_DOWN, "starting");
    assert_answers_at_once();
    other.wait_until_available(FIRST_VERDICT);
    assert!(!silent.is_available());
    assert_eq!(mount_of("/srv/exports/three"), mount);

    end_black_holes();
    silent.wait_until_available(Duration::from_secs(20));
    assert_eq!(mount_of("/srv/exports/three"), mount);
}

#[test]
fn delete_succeeds_on_a_silent_server() {
    let _machine = Machine::start(EVERY_SECOND);
    let silent = Target::create_available("10.0.0.3:/srv/exports/three");
    black_hole("10.0.0.3");
    silent.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
    eventually("deleted", TIMED_OUT * 2, || (silent.delete().code != 409).then_some(()));
    eventually("unmounted", TIMED_OUT, || mount_of("/srv/exports/three").is_none().then_some(()));
    assert_answers_at_once();
}

#[test]
fn stale_handle_recovers_by_remounting() {
    let _machine = Machine::start(EVERY_SECOND);
    let inner = export_directory("one/inner");
    let create = || {
        fs::create_dir(&inner).expect("created");
        succeed("chmod", &["0777", inner.to_str().expect("text")]);
    };
    create();
    let target = Target::create_available("10.0.0.1:/srv/exports/one/inner");
    let before = mark("/srv/exports/one/inner");
    fs::remove_dir(&inner).expect("removed");
    target.wait_until_offline(&["stale_handle", "export_not_found", "export_denied"], FIRST_VERDICT);
    create();
    target.wait_until_available(Duration::from_secs(10));
    let after = mount_of("/srv/exports/one/inner");
    assert!(after.is_some() && after != before, "{after:?}");
    let statuses: Vec<String> = target.history().into_iter().map(|(to, _)| to).collect();
    assert_eq!(statuses, ["available", "offline", "available"]);
}

#[test]
fn foreign_mount_at_mount_path_is_never_touched() {
    let _machine = Machine::start(EVERY_SECOND);
    for (name, arguments) in [
        ("one", ["-t", "tmpfs", "other"].as_slice()),
        ("two", ["-t", "nfs", "-o", "nolock,soft,nfsvers=3", "10.0.0.4:/srv/exports/three"].as_slice()),
    ] {
        let path = format!("/srv/exports/{name}");
        let at = mount_path(&path);
        fs::create_dir_all(&at).expect("created");
        succeed("mount", &[arguments, &[at.to_str().expect("text")]].concat());
        let foreign = mount_of(&path).expect("mounted");
        let target = Target::create(&format!("10.0.0.1:{path}"));
        target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT);
        target.delete();
        assert_eq!(mount_of(&path), Some(foreign));
    }
}

#[test]
fn offline_when_export_is_read_only() {
    let _machine = Machine::start("");
    let target = Target::create("10.0.0.1:/srv/exports/readonly");
    target.wait_until_offline(&["read_only"], FIRST_VERDICT);
}

#[test]
fn offline_when_backup_user_cannot_write() {
    let _machine = Machine::start("");
    fs::create_dir(export_directory("one/private")).expect("created");
    let target = Target::create("10.0.0.1:/srv/exports/one/private");
    target.wait_until_offline(&["write_denied"], FIRST_VERDICT);
}

#[test]
fn missing_export_and_denied_export_are_distinguished() {
    let _machine = Machine::start("");
    fs::create_dir_all("/srv/private").expect("created");
    let denied = Target::create("10.0.0.1:/srv/private");
    let missing = Target::create("10.0.0.2:/srv/exports/missing");
    denied.wait_until_offline(&["export_denied"], FIRST_VERDICT);
    missing.wait_until_offline(&["export_not_found"], FIRST_VERDICT);
    assert!(!mounts().iter().any(|mount| mount.path.starts_with(MOUNT_ROOT)));
}

#[test]
fn full_export_is_reported() {
    let _machine = Machine::start("");
    let fill = format!("of={}/fill", export_directory("one").display());
    run("dd", &["if=/dev/zero", &fill, "bs=1M"]);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["storage_full"], FIRST_VERDICT);
}
