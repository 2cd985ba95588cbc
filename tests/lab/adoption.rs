//! Start, stop and crash of the agent: mounts and acknowledged changes outlive it.

use crate::api::{Target, get};
use crate::machine::{
    ANSWER, EVERY_SECOND, EXPORT, FIRST_VERDICT, Machine, PATH, SERVICE, UP_OR_DOWN, black_hole, kill_agent, mark,
    mount_of, systemctl,
};

#[test]
fn restart_keeps_and_adopts_mounts() {
    let _machine = Machine::start("");
    let v3 = Target::create_available(EXPORT);
    let v4 = Target::create_available("10.0.0.2:/srv/exports/two");
    let before = (mark(PATH), mark("/srv/exports/two"));

    assert!(systemctl("stop", SERVICE) < UP_OR_DOWN);
    assert_eq!((mount_of(PATH), mount_of("/srv/exports/two")), before, "stopped");
    assert!(systemctl("start", SERVICE) < UP_OR_DOWN);
    v3.wait_until_available(FIRST_VERDICT);
    v4.wait_until_available(FIRST_VERDICT);
    assert_eq!((mount_of(PATH), mount_of("/srv/exports/two")), before, "started");

    systemctl("restart", SERVICE);
    v3.wait_until_available(FIRST_VERDICT);
    assert_eq!((mount_of(PATH), mount_of("/srv/exports/two")), before, "restarted");
}

#[test]
fn killed_agent_restarts_with_its_targets() {
    let _machine = Machine::start("");
    let target = Target::create_available(EXPORT);
    let mount = mark(PATH);
    kill_agent(FIRST_VERDICT);
    target.wait_until_available(FIRST_VERDICT);
    assert_eq!(mount_of(PATH), mount);
}

#[test]
fn answered_create_survives_immediate_sigkill() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create(EXPORT);
    kill_agent(FIRST_VERDICT);
    target.wait_until_available(FIRST_VERDICT);
    let targets = get("/backup_targets");
    assert_eq!(targets["backup_targets"].as_array().map(Vec::len), Some(1), "{targets:#}");
}

#[test]
fn create_answers_at_once_whatever_storage_does() {
    let _machine = Machine::start("");
    black_hole("10.0.0.3");
    let answer = Target::try_create("10.0.0.3:/srv/exports/three");
    assert_eq!(answer.code, 200, "{answer:?}");
    assert!(answer.took < ANSWER, "{answer:?}");
}
