//! Servers that are there and say no: out of room, over quota, not for this host, not in this version,
//! not by this name.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{EVERY_SECOND, Machine, export_directory, mount_of, run, succeed};

const EXPORT: &str = "10.0.0.1:/srv/exports/one";
/// Some intervals, and the time to probe.
const NOTICED: Duration = Duration::from_secs(6);
/// The kernel's client may take its time to connect again.
const BACK: Duration = Duration::from_secs(20);
/// So many failures in a row there are in no test: what is definite counts at once.
const AT_ONCE: &str = "[probe]\nnfs_interval = \"1s\"\nfailures_before_offline = 1000\n";
const HOSTS: &str = "127.0.0.1 localhost lab\n";

#[test]
fn storage_full_is_reported_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let fill = export_directory("one").join("fill");
    run("dd", &["if=/dev/zero", &format!("of={}", fill.display()), "bs=1M"]);
    assert_eq!(target.check().reasons(), ["storage_full"]);
    stays_offline(&target, "storage_full");
    fs::remove_file(fill).expect("removed");
    target.wait_until_available(NOTICED);
}

/// Sees that a canary that failed is tried again at every probe: nothing else tells that it would fail.
fn stays_offline(target: &Target, reason: &str) {
    target.wait_for_probes(2, NOTICED);
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
    stays_offline(&target, "quota_exceeded");
    limit("0");
    target.wait_until_available(NOTICED);
    fs::remove_file(held).expect("removed");
}

#[test]
fn withdrawn_export_is_reported_and_recovers() {
    let _machine = Machine::start(AT_ONCE);
    let target = Target::create_available(EXPORT);
    succeed("exportfs", &["-u", "*:/srv/nfs4/srv/exports/one"]);
    // The kernel's server says that the handle is stale, and mountd why.
    target.wait_until_offline(&["export_denied"], NOTICED);
    succeed("exportfs", &["-ra"]);
    target.wait_until_available(NOTICED);
    assert!(mount_of("/srv/exports/one").is_some());
}

#[test]
fn unsupported_nfs_version_is_reported() {
    let _machine = Machine::start(AT_ONCE);
    let target = Target::create_available(EXPORT);
    // It can be changed while no thread runs, and the next start of the service changes it back.
    let serve_without_3 = || {
        fs::write("/proc/fs/nfsd/threads", "0")?;
        fs::write("/proc/fs/nfsd/versions", "-3\n")?;
        fs::write("/proc/fs/nfsd/threads", "4")
    };
    serve_without_3().expect("served");
    target.wait_until_offline(&["nfs_version_unsupported"], NOTICED);
    succeed("systemctl", &["restart", "lab-nfs-server.service"]);
    target.wait_until_available(BACK);
}

#[test]
fn unresolved_name_is_reported_and_recovers() {
    let _machine = Machine::start(EVERY_SECOND);
    let name = |line: &str| fs::write("/etc/hosts", format!("{HOSTS}{line}")).expect("written");
    name("10.0.0.1 nas.lab\n");
    let target = Target::create_available("nas.lab:/srv/exports/one");
    let mount = mount_of("/srv/exports/one");
    name("");
    target.wait_until_offline(&["name_not_resolved", "name_lookup_timed_out"], NOTICED);
    assert_eq!(mount_of("/srv/exports/one"), mount);
    name("10.0.0.1 nas.lab\n");
    target.wait_until_available(NOTICED);
    name("");
}
