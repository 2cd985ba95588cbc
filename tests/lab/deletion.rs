//! Deletion of a target whose server is dead: by a plain, a forced or a lazy unmount, each within its deadline.

use std::process::{Child, Command};

use crate::api::{LIMIT, Target};
use crate::machine::{
    HARD, Machine, TIMED_OUT, black_hole, black_hole_data, eventually, log, mount_of, mount_path, run,
};

/// A process whose working directory is the mount of an exported path. Dropping it ends every black hole. The end of
/// the last user of an NFSv4 mount destroys the session, and waits for the server even when the user was killed. The
/// wait is `timeo` × (`retrans` + 1), here 11 minutes (nfs4_proc_destroy_session in the kernel's fs/nfs/nfs4proc.c).
struct User(Child);

impl User {
    #[allow(clippy::zombie_processes, reason = "drop waits for it")]
    fn of(path: &str) -> Self {
        Self(Command::new("sleep").arg("600").current_dir(mount_path(path)).spawn().expect("a process"))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        run("tc", &["qdisc", "del", "dev", "lo", "clsact"]);
        let _ = self.0.wait();
    }
}

fn assert_deleted(target: &Target, path: &str) {
    let answer = target.delete();
    assert!(answer.code == 202 && answer.took < LIMIT, "{answer:?}");
    eprintln!("{} deleted after {:.1} s", target.export, answer.took.as_secs_f64());
    assert_eq!(mount_of(path), None);
}

#[test]
fn delete_succeeds_when_server_is_gone() {
    let _machine = Machine::start(HARD);
    // The first target is the default, which can only be deleted last.
    let v3 = Target::create_available("10.0.0.3:/srv/exports/three");
    let v4 = Target::create_available("10.0.0.2:/srv/exports/two");
    for (target, address) in [(&v3, "10.0.0.3"), (&v4, "10.0.0.2")] {
        black_hole(address);
        target.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
    }
    assert_deleted(&v4, "/srv/exports/two");
    assert_deleted(&v3, "/srv/exports/three");
}

#[test]
fn delete_succeeds_while_probes_hang() {
    let _machine = Machine::start(HARD);
    let v3 = Target::create_available("10.0.0.3:/srv/exports/three");
    let v4 = Target::create_available("10.0.0.2:/srv/exports/two");
    for (target, address) in [(&v3, "10.0.0.3"), (&v4, "10.0.0.2")] {
        black_hole_data(address);
        target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    }
    assert_deleted(&v4, "/srv/exports/two");
    assert_deleted(&v3, "/srv/exports/three");
}

/// A lazy unmount alone would leave them blocked until the server is back.
#[test]
fn delete_releases_processes_blocked_on_a_dead_server() {
    let _machine = Machine::start(HARD);
    for (path, address) in [("/srv/exports/three", "10.0.0.3"), ("/srv/exports/two", "10.0.0.2")] {
        let target = Target::create_available(&format!("{address}:{path}"));
        black_hole(address);
        target.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
        let mut blocked = Command::new("stat").arg("--file-system").arg(mount_path(path)).spawn().expect("a process");
        let is_blocked =
            || crate::process::processes().iter().any(|process| process.pid == blocked.id() && process.state == 'D');
        eventually("the process is blocked", TIMED_OUT, || is_blocked().then_some(()));
        assert_deleted(&target, path);
        eventually("the process ends", LIMIT, || blocked.try_wait().expect("a status or none"));
    }
}

#[test]
fn lazy_unmount_of_busy_target_on_dead_server_is_reported() {
    let _machine = Machine::start(HARD);
    for (path, address) in [("/srv/exports/three", "10.0.0.3"), ("/srv/exports/two", "10.0.0.2")] {
        let target = Target::create_available(&format!("{address}:{path}"));
        let user = User::of(path);
        black_hole(address);
        target.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
        assert_deleted(&target, path);
        eventually("logged", TIMED_OUT, || log(20).contains("was unmounted lazily").then_some(()));
        drop(user);
    }
}
