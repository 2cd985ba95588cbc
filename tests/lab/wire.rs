//! `mode = "none"`: a target verified over the wire, on a host that does not mount.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{FIRST_VERDICT, MOUNT_ROOT, Machine, export_directory, measure, mounts, succeed};

const WIRE: &str = "[mounts]\nmode = \"none\"\n[probe]\nnfs_interval = \"1s\"\n";

#[test]
fn wire_mode_verifies_and_measures_without_a_mount() {
    let _machine = Machine::start(WIRE);
    fs::write(export_directory("one").join("backup.img"), vec![7; 5_000_001]).expect("written");
    let target = Target::create_available("10.0.0.1:/srv/exports/one");
    let expected = measure(&export_directory("one"));
    let report = target.check();
    let measured = (report.get("capacity_bytes").as_u64(), report.get("used_bytes").as_u64());
    assert_eq!(measured, (Some(expected.0), Some(expected.1)));
    assert_eq!(report.get("mode"), "none", "the report says how: {report:?}");
    assert_eq!(report.outcome("exported"), "passed");
    assert!(!mounts().iter().any(|mount| mount.path.starts_with(MOUNT_ROOT)));
    assert_eq!(target.delete().code, 202);
}

#[test]
fn wire_mode_reports_the_same_faults() {
    let _machine = Machine::start(WIRE);
    let target = Target::create_available("10.0.0.1:/srv/exports/one");
    let denied = Target::create("10.0.0.1:/srv/private");
    denied.wait_until_offline(&["export_denied"], FIRST_VERDICT);
    succeed("systemctl", &["stop", "lab-nfs-server.service"]);
    target.wait_until_offline(&["connection_refused"], Duration::from_secs(3));
    succeed("systemctl", &["start", "lab-nfs-server.service"]);
    target.wait_until_available(FIRST_VERDICT);
}
