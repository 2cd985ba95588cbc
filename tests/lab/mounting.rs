//! Mount commands that hang.

use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EXPORT, FIRST_VERDICT, Machine, SERVICE, black_hole_data, change_unit, end_black_holes, eventually, main_pid,
    mount_of, succeed, systemctl,
};
use crate::process::{Process, Usage, children, processes};

/// A configuration with hard mounts and a short deadline for mount commands.
const CONFIG: &str = r#"
[mounts]
nfs_options = "nolock,hard,timeo=600,nfsvers=3,retrans=10"

[probe]
nfs_interval = "1s"
mount_deadline = "5s"
"#;

/// An export whose server does not answer mount requests in these tests.
const HANGING: &str = "10.0.0.3:/srv/exports/three";
/// Time limit from the mount of the other target until the hanging mount has failed at its deadline.
const ENDED: Duration = Duration::from_secs(10);

/// The process id of the command that mounts an export, while it runs.
fn mount_command(export: &str) -> Option<u32> {
    let mounts_it = |child: &&Process| child.command.contains("mount.nfs") && child.command.contains(export);
    children(main_pid()).iter().find(mounts_it).map(|child| child.pid)
}

#[test]
fn hanging_mount_request_is_killed_at_its_deadline() {
    let _machine = Machine::start(CONFIG);
    black_hole_data("10.0.0.3");
    let hanging = Target::create(HANGING);
    let hanging_command = eventually("mount.nfs hangs", FIRST_VERDICT, || mount_command(HANGING));
    let other = Target::create_available(EXPORT);
    assert_eq!(mount_command(HANGING), Some(hanging_command), "the other target waited for the hanging mount");
    assert!(other.history().len() == 1, "{:?}", other.history());
    hanging.wait_until_offline(&["mount_timed_out"], ENDED);
    assert_eq!(mount_of("/srv/exports/three"), None);
    assert!(children(main_pid()).iter().filter(|child| child.command.contains("mount.nfs")).count() <= 1);
    end_black_holes();
    hanging.wait_until_available(Duration::from_secs(20));
    eventually("the child is reaped", FIRST_VERDICT, || {
        (Usage::now().zombies == 0 && mount_command(HANGING).is_none()).then_some(())
    });
}

#[test]
fn hanging_mount_request_does_not_outlive_the_agent() {
    let _machine = Machine::stopped(CONFIG);
    // Otherwise systemd would kill processes that the agent leaves behind, or start an agent that mounts again.
    change_unit("[Service]\nKillMode=process\nRestart=no\n");
    systemctl("start", SERVICE);
    black_hole_data("10.0.0.3");
    let _hanging = Target::create(HANGING);
    eventually("mount.nfs hangs", FIRST_VERDICT, || mount_command(HANGING));
    succeed("kill", &["-KILL", &main_pid().to_string()]);
    let is_gone = || !processes().iter().any(|process| process.command.contains("mount.nfs"));
    // Its own deadline is much later.
    eventually("mount.nfs is gone", FIRST_VERDICT, || is_gone().then_some(()));
    assert_eq!(mount_of("/srv/exports/three"), None);
    end_black_holes();
}
