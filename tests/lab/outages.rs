//! Servers that fail in different ways. Each way has its own reason, delays nothing else, and ends with its cause.
//!
//! The mounts are hard: a call on a mount blocks while its server is down.

use std::time::{Duration, Instant};

use crate::api::Target;
use crate::machine::{
    EXPORT, HARD, Machine, NFS_SERVER, PATH, PREPARED, USER_EXPORT, black_hole, black_hole_data, end_black_holes,
    is_expected_after_stop, mark, mount_of, signal_user_server, start_user_server, systemctl,
};
use crate::observer::Observer;

/// Probe interval of [`HARD`].
const INTERVAL: Duration = Duration::from_secs(1);
/// Time limit from the next probe until a target of a dead server is offline.
const OFFLINE: Duration = Duration::from_secs(5);
/// Time limit from the recovery of a server until its targets are available. The kernel's client reconnects after a
/// delay, which grows with the length of the outage.
const BACK: Duration = Duration::from_secs(20);
const EXPORT_V4: &str = "10.0.0.2:/srv/exports/two";

/// Breaks the servers of `dead` and repairs them. Asserts that these targets are offline for `reason` and available
/// again afterwards, and that the others are not affected.
fn outage(dead: &[Target], others: &[&Target], reason: &str, break_servers: impl FnOnce(), repair: impl FnOnce()) {
    let before: Vec<usize> = dead.iter().map(|target| target.history().len()).collect();
    let histories: Vec<_> = others.iter().map(|target| target.history()).collect();
    let observer = Observer::start();
    break_servers();
    for target in dead {
        target.wait_until_offline(&[reason], INTERVAL + OFFLINE);
    }
    for target in dead {
        target.wait_for_probes(2, OFFLINE * 2);
        if reason != "storage_timed_out" {
            let report = target.report();
            assert_eq!(report.outcome("capacity"), "skipped", "the mount of a dead server is not touched: {report:?}");
        }
        if reason == "connection_refused" {
            assert_eq!(target.report().reasons(), [reason], "{}", target.export);
        }
    }
    for target in others {
        assert!(target.is_available(), "{}", target.export);
    }
    repair();
    let repaired = Instant::now();
    for (target, before) in dead.iter().zip(before) {
        target.wait_until_available(BACK);
        eprintln!("{} is back after {:.1} s", target.export, repaired.elapsed().as_secs_f64());
        let history = target.history();
        // The entry of the recovery may have the warning that the probe was slow, so only statuses are compared.
        let statuses: Vec<_> = history.iter().map(|(to, _)| to.as_str()).collect();
        assert_eq!(statuses[..statuses.len() - before], ["available", "offline"], "{}: {history:?}", target.export);
        let why = history[1].1.as_deref();
        let is_expected = why == Some(reason) || reason == "connection_refused" && is_expected_after_stop(why);
        assert!(is_expected, "{}: {history:?}", target.export);
    }
    for (target, history) in others.iter().zip(histories) {
        assert_eq!(target.history(), history, "{}", target.export);
    }
    observer.end().assert_bounded(others, INTERVAL, dead.len(), reason == "storage_timed_out");
}

fn kernel_targets() -> [Target; 2] {
    [Target::create(EXPORT), Target::create(EXPORT_V4)].map(|target| {
        target.wait_until_available(PREPARED);
        target
    })
}

#[test]
fn outage_connection_refused_when_server_stops() {
    // The test has fewer failures in a row than this. A refusal counts at once.
    let _machine = Machine::start(&HARD.replace("[probe]\n", "[probe]\nfailures_before_offline = 1000\n"));
    start_user_server();
    let (dead, other) = (kernel_targets(), Target::create_available(USER_EXPORT));
    let before = (mark(PATH), mark("/srv/exports/two"));
    outage(
        &dead,
        &[&other],
        "connection_refused",
        || {
            systemctl("stop", NFS_SERVER);
        },
        || {
            systemctl("start", NFS_SERVER);
        },
    );
    assert_eq!((mount_of(PATH), mount_of("/srv/exports/two")), before);
}

#[test]
fn outage_connect_timed_out_when_packets_are_dropped() {
    let _machine = Machine::start(HARD);
    let dead = [Target::create_available(EXPORT_V4), Target::create_available("10.0.0.3:/srv/exports/three")];
    let other = Target::create_available(EXPORT);
    outage(
        &dead,
        &[&other],
        "connect_timed_out",
        || ["10.0.0.2", "10.0.0.3"].iter().for_each(|address| black_hole(address)),
        end_black_holes,
    );
}

#[test]
fn outage_response_timed_out_when_server_hangs() {
    let _machine = Machine::start(HARD);
    start_user_server();
    let dead = [Target::create_available(USER_EXPORT)];
    let other = Target::create_available(EXPORT);
    outage(&dead, &[&other], "response_timed_out", || signal_user_server("STOP"), || signal_user_server("CONT"));
}

#[test]
fn outage_storage_timed_out_when_only_null_is_answered() {
    let _machine = Machine::start(HARD);
    let dead = [Target::create_available(EXPORT_V4), Target::create_available("10.0.0.3:/srv/exports/three")];
    let other = Target::create_available(EXPORT);
    outage(
        &dead,
        &[&other],
        "storage_timed_out",
        || ["10.0.0.2", "10.0.0.3"].iter().for_each(|address| black_hole_data(address)),
        end_black_holes,
    );
}
