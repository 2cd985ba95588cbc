//! A mount command that hangs.

use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    FIRST_VERDICT, Machine, SERVICE, black_hole_data, change_unit, end_black_holes, eventually, main_pid, mount_of,
    succeed,
};
use crate::process::{Process, Usage, children, processes};

const CONFIG: &str = r#"
[mounts]
nfs_options = "nolock,hard,timeo=600,nfsvers=3,retrans=10"

[probe]
nfs_interval = "1s"
mount_deadline = "5s"
"#;

const HANGS: &str = "10.0.0.3:/srv/exports/three";
/// How soon after the other one was mounted the deadline of what hangs has passed, and was told.
const ENDED: Duration = Duration::from_secs(10);

/// The command that mounts this export, while it runs.
fn mounting(export: &str) -> Option<u32> {
    let is_it = |child: &&Process| child.command.contains("mount.nfs") && child.command.contains(export);
    children(main_pid()).iter().find(is_it).map(|child| child.pid)
}

#[test]
fn hanging_mount_request_is_killed_at_its_deadline() {
    let _machine = Machine::start(CONFIG);
    black_hole_data("10.0.0.3");
    let hanging = Target::create(HANGS);
    let hangs = eventually("mount.nfs hangs", FIRST_VERDICT, || mounting(HANGS));
    let other = Target::create_available("10.0.0.1:/srv/exports/one");
    assert_eq!(mounting(HANGS), Some(hangs), "the other one did not wait for the end of what hangs");
    assert!(other.history().len() == 1, "{:?}", other.history());
    hanging.wait_until_offline(&["mount_timed_out"], ENDED);
    assert_eq!(mount_of("/srv/exports/three"), None);
    assert!(children(main_pid()).iter().filter(|child| child.command.contains("mount.nfs")).count() <= 1);
    end_black_holes();
    hanging.wait_until_available(Duration::from_secs(20));
    eventually("no child is left of it", FIRST_VERDICT, || {
        (Usage::now().zombies == 0 && mounting(HANGS).is_none()).then_some(())
    });
}

#[test]
fn hanging_mount_request_does_not_outlive_the_agent() {
    let _machine = Machine::stopped(CONFIG);
    // The service manager would kill what an agent leaves behind, and so hide that there is any. Nor is
    // there another agent to mount anew.
    change_unit("[Service]\nKillMode=process\nRestart=no\n");
    succeed("systemctl", &["start", SERVICE]);
    black_hole_data("10.0.0.3");
    let _hanging = Target::create(HANGS);
    eventually("mount.nfs hangs", FIRST_VERDICT, || mounting(HANGS));
    succeed("kill", &["-KILL", &main_pid().to_string()]);
    let is_gone = || !processes().iter().any(|process| process.command.contains("mount.nfs"));
    // Long before its own deadline.
    eventually("mount.nfs is gone", FIRST_VERDICT, || is_gone().then_some(()));
    assert_eq!(mount_of("/srv/exports/three"), None);
    end_black_holes();
}
