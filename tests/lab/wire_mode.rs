//! `mode = "none"`: the agent verifies targets over the wire, on a host that does not mount them.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{EXPORT, FIRST_VERDICT, MOUNT_ROOT, Machine, NFS_SERVER, export_directory, mounts, systemctl};

/// A configuration that mounts nothing, with a probe every second.
const WIRE: &str = "[mounts]\nmode = \"none\"\n[probe]\nnfs_interval = \"1s\"\n";

#[test]
fn wire_mode_verifies_and_measures_without_a_mount() {
    let _machine = Machine::start(WIRE);
    fs::write(export_directory("one").join("backup.img"), vec![7; 5_000_001]).expect("written");
    let target = Target::create_available(EXPORT);
    let report = target.check_until_measured(&export_directory("one"));
    assert_eq!(report.get("mode"), "none", "{report:?}");
    assert_eq!(report.outcome("exported"), "passed");
    assert!(!mounts().iter().any(|mount| mount.path.starts_with(MOUNT_ROOT)));
    assert_eq!(target.delete().code, 202);
}

#[test]
fn wire_mode_reports_the_same_faults() {
    let _machine = Machine::start(WIRE);
    let target = Target::create_available(EXPORT);
    let denied = Target::create("10.0.0.1:/srv/private");
    denied.wait_until_offline(&["export_denied"], FIRST_VERDICT);
    systemctl("stop", NFS_SERVER);
    target.wait_until_offline(&["connection_refused"], Duration::from_secs(3));
    systemctl("start", NFS_SERVER);
    target.wait_until_available(FIRST_VERDICT);
}
