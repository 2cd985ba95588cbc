//! The command line, with and without a running agent.

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, Machine, NFS_SERVER, PATH, SERVICE, TIMED_OUT, black_hole, mount_path, output, run, systemctl,
};

const AVAILABLE: Option<i32> = Some(0);
const OFFLINE: Option<i32> = Some(2);
const UNKNOWN: Option<i32> = Some(3);

/// Runs the command line, and returns its exit code.
fn exit_code(arguments: &[&str]) -> Option<i32> {
    let output = run("targetwatch", arguments);
    eprintln!("targetwatch {arguments:?}: {output:?}");
    output.status.code()
}

#[test]
fn status_and_check_all_exit_codes() {
    let _machine = Machine::start(EVERY_SECOND);
    let good = Target::create_available(EXPORT);
    assert_eq!(exit_code(&["status"]), AVAILABLE);
    assert_eq!(exit_code(&["check", "all"]), AVAILABLE);
    let table = output("targetwatch", &["status"]);
    assert!(table.contains(&good.export) && table.contains("available"), "{table}");

    let silent = Target::create_available("10.0.0.3:/srv/exports/three");
    black_hole("10.0.0.3");
    silent.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
    assert_eq!(exit_code(&["status"]), OFFLINE);
    assert_eq!(exit_code(&["check", "all"]), OFFLINE);
    let table = output("targetwatch", &["status"]);
    assert!(table.contains("connect_timed_out"), "{table}");

    systemctl("stop", SERVICE);
    assert_eq!(exit_code(&["status"]), UNKNOWN, "no agent runs");
}

#[test]
fn check_nfs_needs_no_daemon() {
    let _machine = Machine::stopped("");
    assert_eq!(exit_code(&["check", "nfs", EXPORT]), AVAILABLE);
    assert_eq!(exit_code(&["check", "nfs", "10.0.0.1:/srv/private"]), OFFLINE);
    assert_eq!(exit_code(&["check", "nfs", "no-export"]), UNKNOWN);
    systemctl("stop", NFS_SERVER);
    let refused = run("targetwatch", &["check", "nfs", EXPORT]);
    assert_eq!(refused.status.code(), OFFLINE);
    assert!(String::from_utf8_lossy(&refused.stdout).contains("connection_refused"), "{refused:?}");
}

#[test]
fn mount_path_is_printed() {
    let printed = output("targetwatch", &["mount-path", "nfs", EXPORT]);
    assert_eq!(printed.trim(), mount_path(PATH).to_str().expect("text"));
}
