//! Starting, stopping and dying while storage hangs.

use std::time::Duration;

use crate::api::{Target, request};
use crate::machine::{
    FIRST_VERDICT, HARD, Machine, SERVICE, TIMED_OUT, UP_OR_DOWN, black_hole_data, change_unit, end_black_holes,
    eventually, main_pid, mark, mount_of, succeed,
};
use crate::process::{Usage, children, processes, workers};

const PATHS: [&str; 2] = ["/srv/exports/two", "/srv/exports/three"];
/// How soon workers whose agent was killed are gone: they die with it, where a signal reaches them.
const DEAD: Duration = Duration::from_secs(2);

fn probes_hang() -> bool {
    children(main_pid()).iter().any(|child| child.state == 'D')
}

fn no_worker_is_an_orphan() {
    let agent = main_pid();
    let orphans = || {
        let orphans: Vec<_> = workers().into_iter().filter(|worker| worker.parent != agent).collect();
        orphans.is_empty().then_some(())
    };
    eventually("no worker is without its agent", DEAD, orphans);
}

#[test]
fn start_stop_and_kill_work_while_mount_requests_hang() {
    let _machine = Machine::stopped(HARD);
    // The service manager would kill what an agent leaves behind, and so hide that there is any.
    change_unit("[Service]\nKillMode=process\n");
    succeed("systemctl", &["start", SERVICE]);
    let targets = [
        Target::create_available("10.0.0.2:/srv/exports/two"),
        Target::create_available("10.0.0.3:/srv/exports/three"),
    ];
    let before = PATHS.map(mark);
    let mounts_are_as_before = || assert_eq!(PATHS.map(mount_of), before);
    for address in ["10.0.0.2", "10.0.0.3"] {
        black_hole_data(address);
    }
    for target in &targets {
        target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    }

    eventually("probes hang", TIMED_OUT, || probes_hang().then_some(()));
    assert!(succeed("systemctl", &["stop", SERVICE]) < UP_OR_DOWN, "stopping");
    mounts_are_as_before();
    eventually("no worker is left", DEAD, || workers().is_empty().then_some(()));

    assert!(succeed("systemctl", &["start", SERVICE]) < UP_OR_DOWN, "starting with dead mounts");
    let answer = request("GET", "/backup_targets", None);
    assert_eq!(answer.code, 200, "{answer:?}");
    for target in &targets {
        target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
        assert!(target.history()[0].1.as_deref() == Some("storage_timed_out"), "{:?}", target.history());
    }
    mounts_are_as_before();

    eventually("probes hang again", TIMED_OUT, || probes_hang().then_some(()));
    let killed = main_pid();
    succeed("kill", &["-KILL", &killed.to_string()]);
    eventually("started again", FIRST_VERDICT, || (!matches!(main_pid(), 0) && main_pid() != killed).then_some(()));
    eventually("answering", FIRST_VERDICT, || (request("GET", "/healthz", None).code == 200).then_some(()));
    no_worker_is_an_orphan();
    mounts_are_as_before();

    end_black_holes();
    for target in &targets {
        target.wait_until_available(TIMED_OUT * 2);
    }
    mounts_are_as_before();
    no_worker_is_an_orphan();
    eventually("no zombie", DEAD, || (Usage::now().zombies == 0).then_some(()));
    let mounting = processes().into_iter().filter(|process| process.command.contains("mount.nfs")).count();
    assert_eq!(mounting, 0, "nothing was mounted again");
}
