//! Mounting and unmounting, up and down, again and again: nothing is left of any of it.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{EVERY_SECOND, MOUNT_ROOT, Machine, eventually, is_long, mount_of, mounts, succeed, unmount};
use crate::process::Usage;

const EXPORT: &str = "10.0.0.1:/srv/exports/one";
const PATH: &str = "/srv/exports/one";
/// How soon a cycle is over: the next probe, and the kernel's client.
const CYCLE: Duration = Duration::from_secs(20);
/// How soon after a crowd what was in use is given back.
const SETTLED: Duration = Duration::from_secs(5);
/// How much more memory is no leak, in percent of what it was after the first tenth of the cycles.
const RSS_MORE_PERCENT: u64 = 10;

fn cycles(shortened: usize, what: impl Fn(&Target)) {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let count = if is_long() { 1000 } else { shortened };
    let mut before = None;
    for number in 0..count {
        what(&target);
        if number == count / 10 {
            before = Some(Usage::now());
        }
    }
    let before = before.expect("a tenth");
    eventually("as it was before", SETTLED, || {
        let now = Usage::now();
        let is_same = now.threads <= before.threads && now.files <= before.files + 5 && now.zombies == 0;
        (is_same && now.children <= before.children.max(4)).then_some(())
    });
    let after = Usage::now();
    eprintln!("{count} cycles: {before:?} became {after:?}");
    let rss_max = before.rss_kib + before.rss_kib * RSS_MORE_PERCENT / 100;
    assert!(after.rss_kib <= rss_max, "{before:?} became {after:?}");
    let below: Vec<_> = mounts().into_iter().filter(|mount| mount.path.starts_with(MOUNT_ROOT)).collect();
    assert_eq!(below.len(), 1, "{below:?}");
    assert!(target.history().len() <= 500, "bounded");
}

#[test]
fn repeated_unmounts_leak_nothing() {
    cycles(20, |target| {
        let at = mount_of(PATH).expect("mounted").path;
        unmount(&at);
        eventually("mounted again", CYCLE, || mount_of(PATH));
        target.wait_until_available(CYCLE);
    });
}

#[test]
fn repeated_server_restarts_leak_nothing() {
    cycles(10, |target| {
        // As `rpc.nfsd` has it, without the time that a service manager takes.
        fs::write("/proc/fs/nfsd/threads", "0").expect("stopped");
        target.wait_until_offline(&["connection_refused"], CYCLE);
        succeed("systemctl", &["restart", "lab-nfs-server.service"]);
        target.wait_until_available(CYCLE);
    });
}
