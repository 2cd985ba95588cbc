//! The agent as a systemd service: namespaces and permissions, configuration, start failures, watchdog.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::api::{SOCKET, Target, wait_until_answering};
use crate::machine::{
    CONFIG, EVERY_SECOND, EXPORT, FIRST_VERDICT, MOUNT_ROOT, Machine, NFS_SERVER, PATH, SERVICE, TIMED_OUT, UP_OR_DOWN,
    black_hole_data, change_unit, configure, end_black_holes, eventually, log, main_pid, mark, mount_of, output, run,
    succeed, systemctl, unit_property,
};
use crate::process::mount_namespace;

/// Number of log lines that contain the cause of a failed start.
const LOG_LINES: usize = 50;
/// Watchdog interval of the test that waits for it.
const WATCHDOG: Duration = Duration::from_secs(2);
/// Names of the threads of the agent's tokio runtimes, and how many each has (`src/cli/runtime.rs`).
const RUNTIMES: [(&str, usize); 2] = [("agent\n", 1), ("api\n", 2)];

/// The stopped threads of a tokio runtime of the agent, as if its tasks never yielded. Other threads of the agent
/// continue, so the test fails if one of them notifies the watchdog.
struct StoppedRuntime(Vec<Pid>);

impl StoppedRuntime {
    fn of(agent: u32, name: &str, count: usize) -> Self {
        let tasks = fs::read_dir(format!("/proc/{agent}/task")).expect("threads").flatten();
        let names = tasks.map(|task| (fs::read_to_string(task.path().join("comm")).expect("a name"), task.file_name()));
        let names: Vec<_> = names.collect();
        let threads = names.iter().filter(|(other, _)| other == name);
        let threads = threads.map(|(_, id)| Pid::from_raw(id.to_str().and_then(|id| id.parse().ok()).expect("an id")));
        // A thread that a runtime thread starts inherits its name. Those of the runtime have the lowest ids.
        let mut threads: Vec<Pid> = threads.collect();
        threads.sort_unstable();
        threads.truncate(count);
        let stopped = Self(threads);
        assert_eq!(stopped.0.len(), count, "{names:?}");
        for thread in &stopped.0 {
            ptrace::seize(*thread, ptrace::Options::empty()).expect("traced");
            ptrace::interrupt(*thread).expect("interrupted");
            let status = waitpid(*thread, Some(WaitPidFlag::__WALL)).expect("waited for");
            assert!(matches!(status, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)), "{status:?}");
        }
        stopped
    }

    /// Reaps the threads that were killed. Their process does not end before its tracer has done so.
    fn reap(&self) {
        for thread in &self.0 {
            let _ = waitpid(*thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
        }
    }
}

#[test]
fn service_shares_the_mount_namespace_of_the_host() {
    let _machine = Machine::start("");
    assert_eq!(mount_namespace(main_pid()), mount_namespace(1));
}

#[test]
fn unit_limits_what_the_agent_may_do() {
    let _machine = Machine::start(EVERY_SECOND);
    Target::create_available(EXPORT);
    for (name, value) in [("ProtectClock", "yes"), ("ProtectHostname", "yes"), ("UMask", "0077")] {
        assert_eq!(unit_property(name), value, "{name}");
    }
    let calls = unit_property("SystemCallFilter");
    let is_allowed = |name: &str| calls.split_ascii_whitespace().any(|call| call == name);
    assert!(is_allowed("mount") && is_allowed("setpriority") && !is_allowed("sched_setscheduler"), "{calls}");
    let workers = crate::process::workers();
    let pids = [main_pid()].into_iter().chain(workers.iter().map(|worker| worker.pid));
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("running");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
        // Bits of linux/capability.h: CHOWN 0, DAC_READ_SEARCH 2, SETGID 6, SETUID 7, NET_BIND_SERVICE 10, SYS_ADMIN
        // 21.
        let expected: u64 = [0, 2, 6, 7, 10, 21].into_iter().map(|bit| 1 << bit).sum();
        assert_eq!(u64::from_str_radix(field("CapEff:"), 16), Ok(expected), "{status}");
    }
    let nice = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("running");
        let fields = stat.rsplit_once(") ").expect("a name").1.to_owned();
        fields.split(' ').nth(16).and_then(|nice| nice.parse::<i32>().ok()).expect("a nice value")
    };
    assert!(!workers.is_empty());
    for worker in &workers {
        let program = fs::read_link(format!("/proc/{}/exe", worker.pid)).expect("running");
        assert_eq!(program, Path::new("/usr/libexec/targetwatch/targetwatch-probe-worker"));
    }
    assert!(workers.iter().all(|worker| nice(worker.pid) == nice(main_pid()) + 5), "workers lower their priority");
}

#[test]
fn socket_is_for_its_group_and_registry_is_private() {
    let _machine = Machine::start("");
    let socket = fs::metadata(SOCKET).expect("the socket");
    let group = output("getent", &["group", "targetwatch"]);
    let gid: u32 = group.split(':').nth(2).and_then(|gid| gid.parse().ok()).expect("a group");
    assert_eq!(socket.gid(), gid);
    assert_eq!(socket.mode() & 0o066, 0o060, "the group may connect, others may not: {:o}", socket.mode());
    let registry = fs::metadata("/var/lib/targetwatch/registry.db").expect("the registry");
    assert_eq!(registry.mode() & 0o007, 0, "{:o}", registry.mode());
}

#[test]
fn reload_rejects_bad_configuration_and_keeps_the_old_one() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let pid = main_pid();
    configure("[probe]\nnfs_intervall = \"1s\"\n");
    run("systemctl", &["reload", SERVICE]);
    eventually("the error is logged", FIRST_VERDICT, || {
        let log = log(LOG_LINES);
        (log.contains(CONFIG) && log.contains("nfs_intervall")).then_some(())
    });
    assert_eq!(main_pid(), pid);
    assert_eq!(target.check().reasons(), Vec::<String>::new());

    configure(EVERY_SECOND);
    systemctl("reload", SERVICE);
    target.wait_until_available(FIRST_VERDICT);
    assert_eq!(main_pid(), pid);
}

#[test]
fn start_fails_and_names_the_bad_configuration() {
    let _machine = Machine::stopped("[mounts]\nmode = \"fuse\"\n");
    assert!(!run("systemctl", &["start", SERVICE]).status.success());
    let log = log(LOG_LINES);
    assert!(log.contains(CONFIG) && log.contains("mode") && log.contains("kernel"), "{log}");
    configure("");
    wait_until_answering(FIRST_VERDICT);
}

#[test]
fn port_in_use_is_named_and_bound_once_free() {
    let _machine = Machine::stopped("");
    let holder = TcpListener::bind("127.0.0.1:8781").expect("bound");
    assert!(!run("systemctl", &["start", SERVICE]).status.success());
    let log = log(LOG_LINES);
    assert!(log.contains("127.0.0.1:8781"), "{log}");
    drop(holder);
    wait_until_answering(FIRST_VERDICT);
}

#[test]
fn corrupt_registry_is_not_replaced() {
    let _machine = Machine::stopped("");
    fs::create_dir_all("/var/lib/targetwatch").expect("created");
    let noise = vec![0x5a; 4096];
    fs::write("/var/lib/targetwatch/registry.db", &noise).expect("written");
    assert!(!run("systemctl", &["start", SERVICE]).status.success());
    assert!(log(LOG_LINES).contains("/var/lib/targetwatch/registry.db"), "{}", log(LOG_LINES));
    assert_eq!(fs::read("/var/lib/targetwatch/registry.db").expect("the file"), noise);
}

#[test]
fn unwritable_mount_root_is_a_finding() {
    let _machine = Machine::stopped(EVERY_SECOND);
    // Root can write everywhere except on a read-only mount.
    fs::create_dir_all("/srv/nowhere").expect("created");
    succeed("mount", &["-t", "tmpfs", "-o", "ro", "nowhere", "/srv/nowhere"]);
    configure("[mounts]\nroot = \"/srv/nowhere/mounts\"\n[probe]\nnfs_interval = \"1s\"\n");
    systemctl("start", SERVICE);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["mount_point_unusable"], FIRST_VERDICT);
    assert!(target.report().message().contains("/srv/nowhere/mounts"));
    run("systemctl", &["stop", SERVICE]);
    succeed("umount", &["/srv/nowhere"]);
}

#[test]
fn watchdog_restarts_a_hung_agent() {
    let _machine = Machine::stopped(EVERY_SECOND);
    change_unit(&format!("[Service]\nWatchdogSec={}s\n", WATCHDOG.as_secs()));
    systemctl("start", SERVICE);
    let target = Target::create_available(EXPORT);
    let (pid, mount) = (main_pid(), mark(PATH));
    // While only storage hangs, the agent continues to notify the watchdog. systemd shows the time of the last one.
    black_hole_data("10.0.0.1");
    target.wait_until_offline(&["storage_timed_out"], TIMED_OUT);
    let notified_at = || unit_property("WatchdogTimestampMonotonic");
    let (mut latest, mut times) = (notified_at(), 0);
    eventually("the watchdog is notified four times", WATCHDOG * 5, || {
        let now = notified_at();
        times += usize::from(now != latest);
        latest = now;
        (times >= 4).then_some(())
    });
    assert_eq!(main_pid(), pid);
    end_black_holes();
    for (name, threads) in RUNTIMES {
        let pid = main_pid();
        let runtime = StoppedRuntime::of(pid, name, threads);
        eventually(&format!("restarted without the runtime {name:?}"), Duration::from_secs(12), || {
            runtime.reap();
            (![0, pid].contains(&main_pid())).then_some(())
        });
        wait_until_answering(FIRST_VERDICT);
        target.wait_until_available(TIMED_OUT);
        assert_eq!(mount_of(PATH), mount);
    }
}

#[test]
fn shipped_unit_has_a_watchdog() {
    let _machine = Machine::start("");
    assert_eq!(unit_property("WatchdogUSec"), "30s");
}

#[test]
fn mount_root_is_owned_by_root() {
    let _machine = Machine::start("");
    let root = fs::metadata(MOUNT_ROOT).expect("the mount root");
    assert_eq!((root.uid(), root.permissions().mode() & 0o7777), (0, 0o755));
}

#[test]
fn tmpfiles_give_the_mount_root_and_its_parent_to_root() {
    let _machine = Machine::stopped("");
    let parent = Path::new(MOUNT_ROOT).parent().expect("a parent");
    for directory in [parent, Path::new(MOUNT_ROOT)] {
        // Created by an installation of the backup software.
        fs::create_dir_all(directory).expect("created");
        chown(directory, Some(42436), Some(42436)).expect("changed");
        fs::set_permissions(directory, Permissions::from_mode(0o777)).expect("changed");
    }
    succeed("systemd-tmpfiles", &["--create", "targetwatch.conf"]);
    for directory in [parent, Path::new(MOUNT_ROOT)] {
        let found = fs::metadata(directory).expect("a directory");
        assert_eq!((found.uid(), found.gid(), found.permissions().mode() & 0o7777), (0, 0, 0o755), "{directory:?}");
    }
}

#[test]
fn journal_selects_changes_of_status_by_target_and_reason() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    systemctl("stop", NFS_SERVER);
    target.wait_until_offline(&["connection_refused", "connection_broken"], TIMED_OUT);
    systemctl("start", NFS_SERVER);
    target.wait_until_available(TIMED_OUT);
    let select = |matches: &[&str]| output("journalctl", &[&["--no-pager", "--output=cat"], matches].concat());
    let (of_target, of_id) = (format!("TARGET={EXPORT}"), format!("TARGET_ID={}", target.id));
    let offline = "MESSAGE_ID=fd71c54a62744749a6d3ea5992764038";
    let changes = eventually("the change in the journal", UP_OR_DOWN, || {
        let changes = select(&[&of_target, &of_id, offline]);
        changes.contains(": offline reason=").then_some(changes)
    });
    let reason = if changes.contains("connection_refused") { "connection_refused" } else { "connection_broken" };
    let by_reason = select(&[&of_target, &format!("REASON={reason}"), &format!("_SYSTEMD_UNIT={SERVICE}")]);
    assert!(by_reason.contains(&format!(": offline reason=\"{reason}\"")), "{by_reason}");
    assert!(!by_reason.contains(": available"), "{by_reason}");
    let again = select(&[&of_target, &of_id, "MESSAGE_ID=e13fa96654d441ff87b8610907b1032d", "PRIORITY=6"]);
    assert_eq!(again.matches(": available").count(), 2, "{again}");
    assert_eq!(select(&["TARGET=nas:/other"]), "");
}

#[test]
fn command_that_is_notified_has_the_rights_of_the_unit() {
    const PROGRAM: &str = "/usr/local/sbin/notified";
    const FOUND: &str = "/run/targetwatch/notified";
    let script = format!(
        "#!/bin/sh
exec >{FOUND}.new 2>&1
echo \"$TARGETWATCH_TO $TARGETWATCH_TARGET_EXPORT uid=$(id -u) umask=$(umask) directory=$PWD\"
grep -E '^(CapEff|NoNewPrivs):' /proc/self/status
cat
echo
touch /run/notified-foreign/file || echo 'no writing to the directory of another user'
systemctl start notified.service && echo 'a unit of its own'
mv {FOUND}.new {FOUND}
"
    );
    let unit = "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/notified-foreign/unit\n";
    fs::write("/run/systemd/system/notified.service", unit).expect("written");
    succeed("systemctl", &["daemon-reload"]);
    fs::create_dir_all("/run/notified-foreign").expect("created");
    std::os::unix::fs::chown("/run/notified-foreign", Some(65534), None).expect("changed");
    fs::write(PROGRAM, script).expect("written");
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755)).expect("changed");
    let _machine =
        Machine::start(&format!("{EVERY_SECOND}\n[[notify.command]]\nargv = [\"{PROGRAM}\"]\non = [\"offline\"]\n"));
    let target = Target::create_available(EXPORT);
    systemctl("stop", NFS_SERVER);
    target.wait_until_offline(&["connection_refused", "connection_broken"], TIMED_OUT);
    let found = eventually("the command has ended", TIMED_OUT, || fs::read_to_string(FOUND).ok());
    systemctl("start", NFS_SERVER);
    for expected in [
        format!("offline {EXPORT} uid=0 umask=0077 directory=/\n"),
        "CapEff:\t00000000002004c5\n".to_owned(),
        "NoNewPrivs:\t1\n".to_owned(),
        "{\"type\":\"target.offline\",".to_owned(),
        "no writing to the directory of another user\n".to_owned(),
        "a unit of its own\n".to_owned(),
    ] {
        assert!(found.contains(&expected), "{expected:?} is missing in: {found}");
    }
    assert!(Path::new("/run/notified-foreign/unit").exists());
}
