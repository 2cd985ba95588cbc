//! Starting, stopping and dying: mounts outlive the agent, and so does what it answered.

use crate::api::request;
use crate::api::{Target, get};
use crate::machine::{
    ANSWER, EVERY_SECOND, FIRST_VERDICT, Machine, SERVICE, UP_OR_DOWN, eventually, main_pid, mark, mount_of, succeed,
};

#[test]
fn restart_keeps_and_adopts_mounts() {
    let _machine = Machine::start("");
    let three = Target::create_available("10.0.0.1:/srv/exports/one");
    let four = Target::create_available("10.0.0.2:/srv/exports/two");
    let before = (mark("/srv/exports/one"), mark("/srv/exports/two"));

    assert!(succeed("systemctl", &["stop", SERVICE]) < UP_OR_DOWN);
    assert_eq!((mount_of("/srv/exports/one"), mount_of("/srv/exports/two")), before, "stopped");
    assert!(succeed("systemctl", &["start", SERVICE]) < UP_OR_DOWN);
    three.wait_until_available(FIRST_VERDICT);
    four.wait_until_available(FIRST_VERDICT);
    assert_eq!((mount_of("/srv/exports/one"), mount_of("/srv/exports/two")), before, "started");

    succeed("systemctl", &["restart", SERVICE]);
    three.wait_until_available(FIRST_VERDICT);
    assert_eq!((mount_of("/srv/exports/one"), mount_of("/srv/exports/two")), before, "restarted");
}

#[test]
fn killed_agent_restarts_with_its_targets() {
    let _machine = Machine::start("");
    let target = Target::create_available("10.0.0.1:/srv/exports/one");
    let (mount, pid) = (mark("/srv/exports/one"), main_pid());
    succeed("kill", &["-KILL", &pid.to_string()]);
    eventually("started again", FIRST_VERDICT, || (!matches!(main_pid(), 0) && main_pid() != pid).then_some(()));
    eventually("answering", FIRST_VERDICT, || (request("GET", "/healthz", None).code == 200).then_some(()));
    target.wait_until_available(FIRST_VERDICT);
    assert_eq!(mount_of("/srv/exports/one"), mount);
}

#[test]
fn answered_create_survives_immediate_sigkill() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create("10.0.0.1:/srv/exports/one");
    succeed("kill", &["-KILL", &main_pid().to_string()]);
    eventually("answering", FIRST_VERDICT * 2, || (request("GET", "/healthz", None).code == 200).then_some(()));
    target.wait_until_available(FIRST_VERDICT);
    let targets = get("/backup_targets");
    assert_eq!(targets["backup_targets"].as_array().map(Vec::len), Some(1), "{targets:#}");
}

#[test]
fn create_answers_at_once_whatever_storage_does() {
    let _machine = Machine::start("");
    crate::machine::black_hole("10.0.0.3");
    let answer = Target::try_create("10.0.0.3:/srv/exports/three");
    assert_eq!(answer.code, 200, "{answer:?}");
    assert!(answer.took < ANSWER, "{answer:?}");
}
