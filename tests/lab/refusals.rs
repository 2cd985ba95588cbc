//! Definite refusals: storage full, quota exceeded, export denied, unsupported NFS version, unknown name, and the
//! messages of mount.nfs that have several causes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, HostsFile, Machine, NFS_SERVER, PATH, black_hole, eventually, export_directory, mount_of,
    run, succeed, systemctl,
};

/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);
/// Time limit of recovery. The kernel's client reconnects after a delay.
const BACK: Duration = Duration::from_secs(20);
/// Time limit of a `mount.nfs` that fails, with its own retries.
const MOUNT_ENDS: Duration = Duration::from_secs(35);
/// A configuration with more failures before offline than any test has. A definite error counts at once.
const MANY_FAILURES: &str = "[probe]\nnfs_interval = \"1s\"\nfailures_before_offline = 1000\n";

#[test]
fn storage_full_is_reported_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let fill = export_directory("one").join("fill");
    run("dd", &["if=/dev/zero", &format!("of={}", fill.display()), "bs=1M"]);
    assert_eq!(target.check().reasons(), ["storage_full"]);
    assert_stays_offline(&target, "storage_full");
    fs::remove_file(fill).expect("removed");
    target.wait_until_available(DETECTED);
}

/// Asserts that the target stays offline. The agent repeats a failed canary at every probe.
fn assert_stays_offline(target: &Target, reason: &str) {
    target.wait_for_probes(2, DETECTED);
    let report = target.report();
    assert_eq!((report.reasons(), target.is_available()), (vec![reason.to_owned()], false), "{report:?}");
}

#[test]
fn quota_exceeded_is_reported_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available("10.0.0.1:/srv/exports/quota");
    let limit = |blocks: &str| {
        succeed("setquota", &["-u", "42436", blocks, blocks, "0", "0", "/srv/nfs4/srv/exports/quota"]);
    };
    let held = export_directory("quota").join("held");
    fs::write(&held, vec![7; 64 << 10]).expect("written");
    std::os::unix::fs::chown(&held, Some(42436), Some(42436)).expect("an owner");
    limit("64");
    assert_eq!(target.check().reasons(), ["quota_exceeded"]);
    assert_stays_offline(&target, "quota_exceeded");
    limit("0");
    target.wait_until_available(DETECTED);
    fs::remove_file(held).expect("removed");
}

#[test]
fn withdrawn_export_is_reported_and_recovers() {
    let _machine = Machine::start(MANY_FAILURES);
    let target = Target::create_available(EXPORT);
    succeed("exportfs", &["-u", "*:/srv/nfs4/srv/exports/one"]);
    // The NFS server reports a stale handle, and mountd the cause.
    target.wait_until_offline(&["export_denied"], DETECTED);
    succeed("exportfs", &["-ra"]);
    target.wait_until_available(DETECTED);
    assert!(mount_of(PATH).is_some());
}

#[test]
fn unsupported_nfs_version_is_reported() {
    let _machine = Machine::start(MANY_FAILURES);
    let target = Target::create_available(EXPORT);
    // Versions can be changed while no thread runs. The restart of the service restores them.
    let serve_without_3 = || {
        fs::write("/proc/fs/nfsd/threads", "0")?;
        fs::write("/proc/fs/nfsd/versions", "-3\n")?;
        fs::write("/proc/fs/nfsd/threads", "4")
    };
    serve_without_3().expect("served");
    target.wait_until_offline(&["nfs_version_unsupported"], DETECTED);
    systemctl("restart", NFS_SERVER);
    target.wait_until_available(BACK);
}

#[test]
fn unresolved_name_is_reported_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let hosts = HostsFile::with("10.0.0.1 nas.lab");
    let target = Target::create_available("nas.lab:/srv/exports/one");
    let mount = mount_of(PATH);
    drop(hosts);
    target.wait_until_offline(&["name_not_resolved", "name_lookup_timed_out"], DETECTED);
    assert_eq!(mount_of(PATH), mount);
    let _hosts = HostsFile::with("10.0.0.1 nas.lab");
    target.wait_until_available(DETECTED);
}

#[test]
fn used_up_inodes_are_named() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create(EXPORT);
    target.wait_until_available(MOUNT_ENDS);
    let directory = export_directory("one");
    let limit = |inodes: &str| {
        let at = directory.to_str().expect("text");
        succeed("mount", &["-o", &format!("remount,nr_inodes={inodes}"), at]);
    };
    limit("8");
    let created = (0..8).take_while(|number| fs::write(directory.join(number.to_string()), "").is_ok()).count();
    assert!((1..8).contains(&created), "{created}");
    let report = target.check();
    assert_eq!(report.reasons(), ["storage_full"]);
    assert!(report.message().contains("all 8 inodes are used, so no file can be created"), "{report:?}");
    assert_eq!(report.check("capacity")["reason"], "inodes_nearly_used_up", "{report:?}");
    limit("1000");
    target.wait_until_available(MOUNT_ENDS);
}

#[test]
fn write_denied_names_user_and_owner() {
    let _machine = Machine::start(EVERY_SECOND);
    let directory = export_directory("one");
    let mode = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("a mode");
    mode(0o750);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["write_denied"], MOUNT_ENDS);
    let report = target.report();
    for part in ["as uid 42436 gid 42436, which is set in [probe.canary]", "belongs to uid 0 gid 0 and has mode 0750"] {
        assert!(report.message().contains(part), "{report:?}");
    }
    mode(0o777);
    target.wait_until_available(MOUNT_ENDS);
}

/// The server's mountd, which is stopped. Dropping it starts it again.
struct StoppedMountd;

impl StoppedMountd {
    fn stop() -> Self {
        succeed("pkill", &["-x", "rpc.mountd"]);
        Self
    }
}

impl Drop for StoppedMountd {
    fn drop(&mut self) {
        run("rpc.mountd", &[]);
    }
}

#[test]
fn missing_mountd_is_not_a_wrong_version() {
    let _machine = Machine::start(EVERY_SECOND);
    let mountd = StoppedMountd::stop();
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["mount_failed", "mount_timed_out", "nfs_version_unsupported"], MOUNT_ENDS);
    let report = target.report();
    assert_eq!((report.reasons(), report.message().contains("start mountd")), (vec!["mount_failed".to_owned()], true));
    drop(mountd);
    target.wait_until_available(MOUNT_ENDS);
}

#[test]
fn unsupported_mount_option_is_named() {
    // The lab's kernel or server supports none of them.
    let unsupported = [("one", "sec=krb5"), ("two", "proto=udp"), ("three", "xprtsec=tls")];
    let settings = unsupported.map(|(path, option)| {
        format!(
            "[[mounts.nfs]]\nlocation = \"10.0.0.1:/srv/exports/{path}\"\noptions = \"nfsvers=3,nolock,{option}\"\n"
        )
    });
    let _machine = Machine::start(&format!("{EVERY_SECOND}{}", settings.concat()));
    for (path, option) in unsupported {
        let target = Target::create(&format!("10.0.0.1:/srv/exports/{path}"));
        let report = eventually("a failed mount", MOUNT_ENDS, || {
            Some(target.report()).filter(|report| report.check("mounted")["outcome"] == "failed")
        });
        assert!(report.message().contains(&format!("the NFS options contain {option}: ")), "{report:?}");
    }
}

#[test]
fn demanded_security_flavor_is_not_a_missing_permission() {
    let _machine = Machine::start(EVERY_SECOND);
    let at = "*:/srv/nfs4/srv/exports/one";
    succeed("exportfs", &["-o", "rw,fsid=101,no_subtree_check,no_root_squash,sec=krb5", at]);
    // The kernel's client refuses NFSv3 itself, because it lacks the flavor that mountd names.
    for (export, reason) in [("10.0.0.2:/srv/exports/one", "nfs_access_refused"), (EXPORT, "mount_failed")] {
        let target = Target::create(export);
        target.wait_until_offline(&[reason], MOUNT_ENDS);
        let report = target.report();
        assert!(report.message().contains("set sec= in the NFS options"), "{report:?}");
        assert!(!report.message().contains("as root"), "{report:?}");
        assert_eq!(target.delete().code, 202);
    }
}

#[test]
fn silent_first_address_is_a_warning() {
    let _machine = Machine::start(EVERY_SECOND);
    let _hosts = HostsFile::with("10.0.0.3 nas.lab\n10.0.0.1 nas.lab");
    black_hole("10.0.0.3");
    let target = Target::create("nas.lab:/srv/exports/one");
    let report = eventually("a probe", MOUNT_ENDS * 2, || {
        Some(target.report()).filter(|report| report.check("reachable")["reason"] == "connect_timed_out")
    });
    let message = report.check("reachable")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("10.0.0.3. The agent used 10.0.0.1 instead"), "{message}");
}
