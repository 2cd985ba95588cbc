//! A registry whose file system becomes read-only. The kernel then confirms an fsync but writes nothing, so the agent
//! must not acknowledge a change.

use std::fs;
use std::time::Duration;

use crate::api::{Target, get, request};
use crate::machine::{EVERY_SECOND, EXPORT, Machine, SERVICE, eventually, log, run, succeed, systemctl};

const STATE: &str = "/var/lib/targetwatch";
const IMAGE: &str = "/var/lib/targetwatch.image";
/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);

/// A separate file system for the state of the agent. Dropping it removes it.
struct StateDisk;

impl StateDisk {
    fn mount() -> Self {
        fs::write(IMAGE, "").expect("created");
        fs::OpenOptions::new().write(true).open(IMAGE).expect("opened").set_len(32 << 20).expect("sized");
        succeed("mkfs.ext4", &["-q", "-F", IMAGE]);
        run("modprobe", &["loop"]);
        fs::create_dir_all(STATE).expect("created");
        succeed("mount", &["-o", "loop", IMAGE, STATE]);
        Self
    }
}

impl Drop for StateDisk {
    fn drop(&mut self) {
        run("systemctl", &["stop", SERVICE]);
        run("umount", &[STATE]);
        let _ = fs::remove_file(IMAGE);
    }
}

/// Makes the file system of the state read-only although files are open for writing, as the kernel does after a disk
/// error. SysRq makes every disk read-only, so the others are made writable again.
fn make_read_only() {
    let disks = writable_disks();
    fs::write("/proc/sysrq-trigger", "u").expect("remounted read-only");
    eventually("all disks are read-only", DETECTED, || writable_disks().is_empty().then_some(()));
    for disk in disks.iter().filter(|disk| *disk != STATE) {
        succeed("mount", &["-o", "remount,rw", disk]);
    }
}

/// Mount points of all ext4 file systems that are writable.
fn writable_disks() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").expect("read");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|found| found[2] == "ext4" && found[3].starts_with("rw")).map(|found| found[1].to_owned()).collect()
}

#[test]
fn read_only_registry_acknowledges_no_change_and_loses_none() {
    let _machine = Machine::stopped(EVERY_SECOND);
    let _disk = StateDisk::mount();
    systemctl("start", SERVICE);
    let target = Target::create_available(EXPORT);
    assert!(get("/node")["agent"]["registry_problem"].is_null());

    make_read_only();
    for export in ["10.0.0.2:/srv/exports/two", "10.0.0.2:/srv/exports/three"] {
        let answer = Target::try_create(export);
        assert_eq!(answer.code, 503, "{answer:?}");
        assert!(answer.message().contains("read-only"), "{answer:?}");
    }
    let answer = request("DELETE", &format!("/backup_targets/{}", target.id), None);
    assert!(answer.code == 503 && answer.message().contains("read-only"), "{answer:?}");
    let problem = get("/node")["agent"]["registry_problem"].clone();
    assert!(problem.as_str().is_some_and(|problem| problem.contains("read-only")), "{problem}");
    assert!(log(20).contains("read-only"), "{}", log(20));
    target.wait_until_available(DETECTED);

    succeed("mount", &["-o", "remount,rw", STATE]);
    assert!(get("/node")["agent"]["registry_problem"].is_null());
    let second = Target::create_available("10.0.0.2:/srv/exports/two");

    // What was acknowledged is on the disk.
    systemctl("stop", SERVICE);
    succeed("umount", &[STATE]);
    succeed("mount", &["-o", "loop", IMAGE, STATE]);
    systemctl("start", SERVICE);
    for target in [&target, &second] {
        target.wait_until_available(DETECTED);
    }
    assert_eq!(get("/backup_targets")["backup_targets"].as_array().map(Vec::len), Some(2));
}
