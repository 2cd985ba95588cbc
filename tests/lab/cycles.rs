//! Repeated mounts, unmounts and server restarts, which must leak nothing.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, MOUNT_ROOT, Machine, NFS_SERVER, PATH, eventually, is_long, mount_of, mounts, systemctl,
    unmount,
};
use crate::process::Usage;

/// Time limit of a cycle: the next probe, and the reconnection of the kernel's client.
const CYCLE: Duration = Duration::from_secs(20);
/// Time limit from the last cycle until its resources are released.
const RELEASED: Duration = Duration::from_secs(5);
/// Maximum growth of anonymous memory after the first tenth of the cycles, in KiB: a tenth of the resident memory.
const MORE_KIB_MAX: u64 = 700;

/// Runs cycles, a thousand in the long tests. Asserts that resources do not grow.
fn repeat(short_count: usize, cycle: impl Fn(&Target)) {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let count = if is_long() { 1000 } else { short_count };
    let mut before = None;
    for number in 0..count {
        cycle(&target);
        if number == count / 10 {
            before = Some(Usage::now());
        }
    }
    let before = before.expect("a tenth");
    eventually("resources released", RELEASED, || {
        let now = Usage::now();
        let is_same = now.threads <= before.threads && now.files <= before.files + 5 && now.zombies == 0;
        (is_same && now.children <= before.children.max(4)).then_some(())
    });
    let after = Usage::now();
    eprintln!("{count} cycles: {before:?} became {after:?}");
    assert!(after.anonymous_kib <= before.anonymous_kib + MORE_KIB_MAX, "{before:?} became {after:?}");
    let below: Vec<_> = mounts().into_iter().filter(|mount| mount.path.starts_with(MOUNT_ROOT)).collect();
    assert_eq!(below.len(), 1, "{below:?}");
    assert!(target.history().len() <= 500, "the history is not bounded");
}

#[test]
fn repeated_unmounts_leak_nothing() {
    repeat(20, |target| {
        let at = mount_of(PATH).expect("mounted").path;
        unmount(&at);
        eventually("mounted again", CYCLE, || mount_of(PATH));
        target.wait_until_available(CYCLE);
    });
}

#[test]
fn repeated_server_restarts_leak_nothing() {
    repeat(10, |target| {
        // Does what `rpc.nfsd 0` does, without the time that systemd takes.
        fs::write("/proc/fs/nfsd/threads", "0").expect("stopped");
        target.wait_until_offline(&["connection_refused"], CYCLE);
        systemctl("restart", NFS_SERVER);
        target.wait_until_available(CYCLE);
    });
}
