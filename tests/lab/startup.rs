//! Start, stop and crash of the agent while storage hangs.

use std::time::Duration;

use crate::api::{Target, request};
use crate::machine::{
    FIRST_VERDICT, HARD, Machine, SERVICE, TIMED_OUT, UP_OR_DOWN, black_hole_data, change_unit, end_black_holes,
    eventually, kill_agent, main_pid, mark, mount_of, systemctl,
};
use crate::process::{Usage, children, processes, workers};

const PATHS: [&str; 2] = ["/srv/exports/two", "/srv/exports/three"];
/// Time limit until the workers of a killed agent have ended. The kernel kills them with it (PDEATHSIG).
const WORKERS_ENDED: Duration = Duration::from_secs(2);

fn probes_hang() -> bool {
    children(main_pid()).iter().any(|child| child.state == 'D')
}

fn assert_no_orphaned_worker() {
    let agent = main_pid();
    let has_none = || workers().iter().all(|worker| worker.parent == agent).then_some(());
    eventually("no orphaned worker", WORKERS_ENDED, has_none);
}

#[test]
fn start_stop_and_kill_work_while_mount_requests_hang() {
    let _machine = Machine::stopped(HARD);
    // Otherwise systemd would kill processes that the agent leaves behind, and so hide them.
    change_unit("[Service]\nKillMode=process\n");
    systemctl("start", SERVICE);
    let targets = [
        Target::create_available("10.0.0.2:/srv/exports/two"),
        Target::create_available("10.0.0.3:/srv/exports/three"),
    ];
    let before = PATHS.map(mark);
    let assert_same_mounts = || assert_eq!(PATHS.map(mount_of), before);
    for address in ["10.0.0.2", "10.0.0.3"] {
        black_hole_data(address);
    }
    for target in &targets {
        target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    }

    eventually("probes hang", TIMED_OUT, || probes_hang().then_some(()));
    assert!(systemctl("stop", SERVICE) < UP_OR_DOWN, "stopping");
    assert_same_mounts();
    eventually("no worker is left", WORKERS_ENDED, || workers().is_empty().then_some(()));

    assert!(systemctl("start", SERVICE) < UP_OR_DOWN, "starting with hanging mounts");
    let answer = request("GET", "/backup_targets", None);
    assert_eq!(answer.code, 200, "{answer:?}");
    for target in &targets {
        target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
        assert!(target.history()[0].1.as_deref() == Some("storage_timed_out"), "{:?}", target.history());
    }
    assert_same_mounts();

    eventually("probes hang again", TIMED_OUT, || probes_hang().then_some(()));
    kill_agent(FIRST_VERDICT);
    assert_no_orphaned_worker();
    assert_same_mounts();

    end_black_holes();
    for target in &targets {
        target.wait_until_available(TIMED_OUT * 2);
    }
    assert_same_mounts();
    assert_no_orphaned_worker();
    eventually("no zombie", WORKERS_ENDED, || (Usage::now().zombies == 0).then_some(()));
    let mounting = processes().into_iter().filter(|process| process.command.contains("mount.nfs")).count();
    assert_eq!(mounting, 0, "the agent mounted again");
}
