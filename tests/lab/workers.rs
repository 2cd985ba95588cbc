//! Probe workers that are killed, stopped, or hear and say what nobody should.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{EVERY_SECOND, FIRST_VERDICT, Machine, eventually, log, main_pid, succeed};
use crate::observer::Observer;
use crate::process::{Process, Usage, children};

const INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker that is stopped keeps its own target waiting.
const DEADLINE: Duration = Duration::from_secs(2);
/// Some intervals, with a deadline each.
const NOTICED: Duration = Duration::from_secs(10);

fn workers() -> Vec<Process> {
    children(main_pid()).into_iter().filter(|child| child.command.ends_with("probe-worker")).collect()
}

/// Does something to every worker, and sees that those that are used are replaced (the surplus of a
/// busy moment lies idle below them), that both targets are probed as before and stay available, and that
/// nothing is left behind. Harm that shows at the deadline only may meet each target once: it `holds_up` that
/// long.
fn replaced(what: &str, holds_up: Duration, harm: impl Fn(&Process)) {
    let _machine = Machine::start(EVERY_SECOND);
    let third = Target::create_available("10.0.0.1:/srv/exports/three");
    let targets =
        [Target::create_available("10.0.0.1:/srv/exports/one"), Target::create_available("10.0.0.2:/srv/exports/two")];
    targets[1].wait_for_probes(2, NOTICED);
    let before = targets.each_ref().map(Target::history);
    let observer = Observer::start();
    let harmed = workers();
    assert!(!harmed.is_empty());
    harmed.iter().for_each(&harm);
    let is_gone = |pid: u32| !fs::exists(format!("/proc/{pid}")).expect("a look");
    eventually(&format!("{what}: replaced"), NOTICED, || harmed.iter().any(|worker| is_gone(worker.pid)).then_some(()));
    for target in &targets {
        target.wait_for_probes(2, NOTICED);
        assert!(target.is_available(), "{what}: {:?}", target.report());
        eventually("all is well", NOTICED, || target.report().reasons().is_empty().then_some(()));
    }
    assert_eq!(targets.each_ref().map(Target::history), before, "{what}: a worker is not the storage");
    eventually("no zombie", FIRST_VERDICT, || (Usage::now().zombies == 0).then_some(()));
    let seen = observer.end();
    seen.assert_bounded(&[], INTERVAL, targets.len() + 1, true);
    seen.assert_checked_within(&third, INTERVAL + INTERVAL.max(holds_up));
}

fn signal(worker: &Process, signal: &str) {
    succeed("kill", &[signal, &worker.pid.to_string()]);
}

fn say(worker: &Process, descriptor: u32, words: &[u8]) {
    let pipe = format!("/proc/{}/fd/{descriptor}", worker.pid);
    OpenOptions::new().write(true).open(&pipe).and_then(|mut pipe| pipe.write_all(words)).expect(&pipe);
}

#[test]
fn killed_workers_are_replaced() {
    replaced("killed", Duration::ZERO, |worker| signal(worker, "-KILL"));
}

#[test]
fn stopped_workers_are_replaced_at_the_deadline() {
    replaced("stopped", DEADLINE, |worker| signal(worker, "-STOP"));
}

#[test]
fn terminated_workers_are_replaced() {
    replaced("ended", Duration::ZERO, |worker| signal(worker, "-TERM"));
}

#[test]
fn workers_are_replaced_after_a_garbage_request() {
    replaced("hear garbage", Duration::ZERO, |worker| say(worker, 0, b"\x04\0\0\0what"));
}

#[test]
fn workers_are_replaced_after_a_garbage_reply() {
    replaced("say garbage", Duration::ZERO, |worker| say(worker, 1, b"garbage, and much of it"));
    let log = log(60);
    assert!(log.contains("a probe worker broke and is replaced"), "{log}");
}
