//! Servers that are gone, each in its own way: told with its own reason, delaying nobody, and back.
//!
//! The mounts are hard: whoever touches one while its server is away waits for it.

use std::time::{Duration, Instant};

use crate::api::Target;
use crate::machine::{
    FIRST_VERDICT, HARD, Machine, USER_EXPORT, black_hole, black_hole_data, end_black_holes, is_of_a_stop, mark,
    mount_of, signal_user_server, start_user_server, succeed,
};
use crate::observer::Observer;

/// Of [`HARD`].
const INTERVAL: Duration = Duration::from_secs(1);
/// How soon after the next probe a dead target is offline.
const OFFLINE: Duration = Duration::from_secs(5);
/// How soon after its server a target is back. The kernel's client has a say: it connects again after
/// a while, which grows with the time that the server was away.
const BACK: Duration = Duration::from_secs(20);
const KERNEL_3: &str = "10.0.0.1:/srv/exports/one";
const KERNEL_4: &str = "10.0.0.2:/srv/exports/two";

/// Breaks the servers of `dead` and mends them: those are offline for `reason` and come back on the
/// same mounts, and nothing else is disturbed.
fn outage(dead: &[Target], others: &[&Target], reason: &str, break_them: impl FnOnce(), mend_them: impl FnOnce()) {
    let before: Vec<usize> = dead.iter().map(|target| target.history().len()).collect();
    let quiet: Vec<_> = others.iter().map(|target| target.history()).collect();
    let observer = Observer::start();
    break_them();
    for target in dead {
        target.wait_until_offline(&[reason], INTERVAL + OFFLINE);
    }
    for target in dead {
        target.wait_for_probes(2, OFFLINE * 2);
        if reason != "storage_timed_out" {
            let report = target.report();
            assert_eq!(report.outcome("capacity"), "skipped", "its mount is not touched: {report:?}");
        }
        if reason == "connection_refused" {
            assert_eq!(target.report().reasons(), [reason], "{}", target.export);
        }
    }
    for target in others {
        assert!(target.is_available(), "{}", target.export);
    }
    mend_them();
    let mended = Instant::now();
    for (target, before) in dead.iter().zip(before) {
        target.wait_until_available(BACK);
        eprintln!("{} is back after {:.1} s", target.export, mended.elapsed().as_secs_f64());
        let history = target.history();
        // That it is available may be told with the warning that it was slow.
        let told: Vec<_> = history.iter().map(|(to, _)| to.as_str()).collect();
        assert_eq!(told[..told.len() - before], ["available", "offline"], "{}: {history:?}", target.export);
        let why = history[1].1.as_deref();
        let is_of_a_stop = reason == "connection_refused" && is_of_a_stop(why);
        assert!(why == Some(reason) || is_of_a_stop, "{}: {history:?}", target.export);
    }
    for (target, quiet) in others.iter().zip(quiet) {
        assert_eq!(target.history(), quiet, "{}", target.export);
    }
    observer.end().assert_bounded(others, INTERVAL, dead.len(), reason == "storage_timed_out");
}

fn kernel_targets() -> [Target; 2] {
    [Target::create(KERNEL_3), Target::create(KERNEL_4)].map(|target| {
        target.wait_until_available(FIRST_VERDICT);
        target
    })
}

#[test]
fn outage_connection_refused_when_server_stops() {
    // So many failures in a row there are not in this test: a refusal counts at once.
    let _machine = Machine::start(&HARD.replace("[probe]\n", "[probe]\nfailures_before_offline = 1000\n"));
    start_user_server();
    let (dead, other) = (kernel_targets(), Target::create_available(USER_EXPORT));
    let before = (mark("/srv/exports/one"), mark("/srv/exports/two"));
    outage(
        &dead,
        &[&other],
        "connection_refused",
        || {
            succeed("systemctl", &["stop", "lab-nfs-server.service"]);
        },
        || {
            succeed("systemctl", &["start", "lab-nfs-server.service"]);
        },
    );
    assert_eq!((mount_of("/srv/exports/one"), mount_of("/srv/exports/two")), before);
}

#[test]
fn outage_connect_timed_out_when_packets_are_dropped() {
    let _machine = Machine::start(HARD);
    let dead = [Target::create_available(KERNEL_4), Target::create_available("10.0.0.3:/srv/exports/three")];
    let other = Target::create_available(KERNEL_3);
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
    let other = Target::create_available(KERNEL_3);
    outage(&dead, &[&other], "response_timed_out", || signal_user_server("STOP"), || signal_user_server("CONT"));
}

#[test]
fn outage_storage_timed_out_when_only_null_is_answered() {
    let _machine = Machine::start(HARD);
    let dead = [Target::create_available(KERNEL_4), Target::create_available("10.0.0.3:/srv/exports/three")];
    let other = Target::create_available(KERNEL_3);
    outage(
        &dead,
        &[&other],
        "storage_timed_out",
        || ["10.0.0.2", "10.0.0.3"].iter().for_each(|address| black_hole_data(address)),
        end_black_holes,
    );
}
