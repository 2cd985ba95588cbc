//! Deleting a target whose server is dead: plainly, by force, lazily, each within its deadline.

use std::process::{Child, Command};
use std::time::Duration;

use crate::api::Target;
use crate::machine::{HARD, Machine, TIMED_OUT, black_hole, black_hole_data, eventually, log, mount_of, mount_path};

/// Three ways to unmount and the question whether the server is alive, with a deadline of 2 s each,
/// and a child that was killed.
const DELETED: Duration = Duration::from_secs(12);

/// Somebody whose working directory is a target.
struct User(Child);

impl User {
    #[allow(clippy::zombie_processes, reason = "it is waited for when it is dropped")]
    fn of(path: &str) -> Self {
        Self(Command::new("sleep").arg("600").current_dir(mount_path(path)).spawn().expect("a process"))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn deletes(target: &Target, path: &str) {
    let answer = target.delete();
    assert!(answer.code == 202 && answer.took < DELETED, "{answer:?}");
    eprintln!("{} deleted after {:.1} s", target.export, answer.took.as_secs_f64());
    assert_eq!(mount_of(path), None);
}

#[test]
fn delete_succeeds_when_server_is_gone() {
    let _machine = Machine::start(HARD);
    // The first one is the default, which goes last.
    let three = Target::create_available("10.0.0.3:/srv/exports/three");
    let four = Target::create_available("10.0.0.2:/srv/exports/two");
    for (target, address) in [(&three, "10.0.0.3"), (&four, "10.0.0.2")] {
        black_hole(address);
        target.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
    }
    deletes(&four, "/srv/exports/two");
    deletes(&three, "/srv/exports/three");
}

#[test]
fn delete_succeeds_while_probes_hang() {
    let _machine = Machine::start(HARD);
    let three = Target::create_available("10.0.0.3:/srv/exports/three");
    let four = Target::create_available("10.0.0.2:/srv/exports/two");
    for (target, address) in [(&three, "10.0.0.3"), (&four, "10.0.0.2")] {
        black_hole_data(address);
        target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    }
    deletes(&four, "/srv/exports/two");
    deletes(&three, "/srv/exports/three");
}

/// A lazy unmount alone would leave them to wait for as long as the server is away.
#[test]
fn delete_releases_processes_blocked_on_a_dead_server() {
    let _machine = Machine::start(HARD);
    for (path, address) in [("/srv/exports/three", "10.0.0.3"), ("/srv/exports/two", "10.0.0.2")] {
        let target = Target::create_available(&format!("{address}:{path}"));
        black_hole(address);
        target.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
        let mut waits = Command::new("stat").arg("--file-system").arg(mount_path(path)).spawn().expect("a process");
        let is_waiting =
            || crate::process::processes().iter().any(|process| process.pid == waits.id() && process.state == 'D');
        eventually("it waits for the server", TIMED_OUT, || is_waiting().then_some(()));
        deletes(&target, path);
        eventually("it is let go", DELETED, || waits.try_wait().expect("a look"));
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
        deletes(&target, path);
        eventually("reported", TIMED_OUT, || log(20).contains("was unmounted lazily").then_some(()));
        drop(user);
    }
}
