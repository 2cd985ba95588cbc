//! Probe workers that are killed or stopped, or that receive or send garbage.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{EVERY_SECOND, EXPORT, FIRST_VERDICT, Machine, eventually, log, main_pid, succeed};
use crate::observer::Observer;
use crate::process::{Process, Usage, children};

const INTERVAL: Duration = Duration::from_secs(1);
/// Time for which a stopped worker delays its own target.
const DEADLINE: Duration = Duration::from_secs(2);
/// Time limit of a few probes, each at its deadline.
const PROBED: Duration = Duration::from_secs(10);

/// The workers of the running agent.
fn workers() -> Vec<Process> {
    children(main_pid()).into_iter().filter(|child| child.command.ends_with("probe-worker")).collect()
}

/// Damages every worker with `break_worker`. Asserts that the agent replaces the workers in use, that targets are
/// probed as before and stay available, and that no process is left over. Idle workers beyond those in use may stay.
/// `delay` is how long the damage may delay one probe of each target.
fn assert_replaced(what: &str, delay: Duration, break_worker: impl Fn(&Process)) {
    let _machine = Machine::start(EVERY_SECOND);
    let third = Target::create_available("10.0.0.1:/srv/exports/three");
    let targets = [Target::create_available(EXPORT), Target::create_available("10.0.0.2:/srv/exports/two")];
    targets[1].wait_for_probes(2, PROBED);
    let before = targets.each_ref().map(Target::history);
    let observer = Observer::start();
    let broken = workers();
    assert!(!broken.is_empty());
    broken.iter().for_each(&break_worker);
    let is_gone = |pid: u32| !fs::exists(format!("/proc/{pid}")).expect("a process directory or none");
    eventually(&format!("{what}: replaced"), PROBED, || broken.iter().any(|worker| is_gone(worker.pid)).then_some(()));
    for target in &targets {
        target.wait_for_probes(2, PROBED);
        assert!(target.is_available(), "{what}: {:?}", target.report());
        eventually("no check fails", PROBED, || target.report().reasons().is_empty().then_some(()));
    }
    assert_eq!(targets.each_ref().map(Target::history), before, "{what}: a broken worker is not a storage failure");
    eventually("no zombie", FIRST_VERDICT, || (Usage::now().zombies == 0).then_some(()));
    let seen = observer.end();
    seen.assert_bounded(&[], INTERVAL, targets.len() + 1, true);
    seen.assert_checked_within(&third, INTERVAL + INTERVAL.max(delay));
}

fn signal(worker: &Process, signal: &str) {
    succeed("kill", &[signal, &worker.pid.to_string()]);
}

fn write_to_pipe(worker: &Process, descriptor: u32, bytes: &[u8]) {
    let pipe = format!("/proc/{}/fd/{descriptor}", worker.pid);
    OpenOptions::new().write(true).open(&pipe).and_then(|mut pipe| pipe.write_all(bytes)).expect(&pipe);
}

#[test]
fn killed_workers_are_replaced() {
    assert_replaced("killed", Duration::ZERO, |worker| signal(worker, "-KILL"));
}

#[test]
fn stopped_workers_are_replaced_at_the_deadline() {
    assert_replaced("stopped", DEADLINE, |worker| signal(worker, "-STOP"));
}

#[test]
fn terminated_workers_are_replaced() {
    assert_replaced("terminated", Duration::ZERO, |worker| signal(worker, "-TERM"));
}

#[test]
fn workers_are_replaced_after_a_garbage_request() {
    assert_replaced("garbage request", Duration::ZERO, |worker| write_to_pipe(worker, 0, b"\x04\0\0\0what"));
}

#[test]
fn workers_are_replaced_after_a_garbage_reply() {
    assert_replaced("garbage reply", Duration::ZERO, |worker| write_to_pipe(worker, 1, b"garbage, and much of it"));
    let log = log(60);
    assert!(log.contains("a probe worker broke and is replaced"), "{log}");
}
