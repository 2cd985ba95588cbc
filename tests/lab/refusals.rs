//! Definite refusals: storage full, quota exceeded, export denied, unsupported NFS version, unknown name.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, HostsFile, Machine, NFS_SERVER, PATH, export_directory, mount_of, run, succeed, systemctl,
};

/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);
/// Time limit of recovery. The kernel's client reconnects after a delay.
const BACK: Duration = Duration::from_secs(20);
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
