//! `mode = "observe"`: another program owns the mount path, and mounts there when it needs to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use tokio::runtime::Runtime;

use crate::api::{Report, Target};
use crate::machine::{
    EXPORT, FIRST_VERDICT, Machine, NFS_SERVER, PATH, PRIVATE_ROOT, SERVICE, TIMED_OUT, USER_EXPORT, black_hole,
    configure, end_black_holes, eventually, mark, mount_of, mount_path, mounts, output, run, signal_user_server,
    start_user_server, succeed, systemctl, unmount,
};
use crate::own_mounts::{LINK_EXPORT, LINK_PATH, Link, RESOLVED};
use crate::support::s3_server::{BucketFixture, S3Fixture, S3Server};

/// A configuration that observes, with a probe and a canary every second. A lab on a busy host is slow, and these tests
/// are about other findings.
const OBSERVE: &str = r#"
[mounts]
mode = "observe"
[probe]
nfs_interval = "1s"
s3_interval = "1s"
slow_after = "10s"
"#;
/// The agent's default options.
const OPTIONS: &str = "nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10";
/// The lab's options for NFSv4.
const OPTIONS_4: &str = "nfsvers=4.2,soft,timeo=600,retrans=10";
/// The export of [`PATH`] over NFSv4.
const EXPORT_4: &str = "10.0.0.2:/srv/exports/one";
/// Path of the export of the server in user space.
const USER_PATH: &str = "/srv/user";

/// Time limit of a probe that mounts while the server is dead, with the default `mount_deadline` of 30 s.
const MOUNT_TIMED_OUT: Duration = Duration::from_secs(60);

/// Mounts of the agent.
fn private_mounts() -> Vec<PathBuf> {
    mounts().into_iter().map(|mount| mount.path).filter(|path| path.starts_with(PRIVATE_ROOT)).collect()
}

/// Mounts an export at the mount path of a path, as another program.
fn mount_there(export: &str, options: &str, path: &str) {
    let at = mount_path(path);
    fs::create_dir_all(&at).expect("created");
    succeed("mount", &["-t", "nfs", "-o", options, export, at.to_str().expect("text")]);
}

/// Mounts in the directory of a path below the private root, as an earlier agent process. Returns the directory.
fn mount_privately(arguments: &[&str], path: &str) -> PathBuf {
    let at = Path::new(PRIVATE_ROOT).join(mount_path(path).file_name().expect("a name"));
    fs::create_dir_all(&at).expect("created");
    succeed("mount", &[arguments, &[at.to_str().expect("text")]].concat());
    at
}

/// Unmounts plainly, so a mount in use stays. With the bare system call, because umount(8) would access the mounted
/// file system, and in a thread, because an NFSv4 client then notifies the dead server.
fn unmount_plainly(at: &Path) {
    let path = at.to_owned();
    std::thread::spawn(move || umount2(&path, MntFlags::empty()));
    eventually("unmounted", FIRST_VERDICT, || (!mounts().iter().any(|mount| mount.path == at)).then_some(()));
}

/// Reasons of all findings of the check `in_use`.
fn findings(report: &Report) -> Vec<String> {
    let findings = report.check("in_use")["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["reason"].as_str().expect("text").to_owned()).collect()
}

#[track_caller]
fn wait_for_finding(target: &Target, reason: &str, limit: Duration) -> Report {
    eventually(reason, limit, || Some(target.report()).filter(|report| findings(report).contains(&reason.to_owned())))
}

#[test]
fn observed_target_is_verified_without_touching_its_mount_path() {
    let _machine = Machine::start(OBSERVE);
    for (export, options) in [(EXPORT, OPTIONS), (EXPORT_4, OPTIONS_4)] {
        let target = Target::create_available(export);
        let report = target.check();
        assert_eq!(report.get("mode"), "observe", "{report:?}");
        for check in ["reachable", "mounted", "capacity", "write_canary"] {
            assert_eq!(report.outcome(check), "passed", "{check}: {report:?}");
        }
        assert_eq!(report.outcome("in_use"), "skipped");
        assert!(report.get("in_use").is_null() && report.get("capacity_bytes").is_u64());
        assert!(!mount_path(PATH).exists(), "the agent created the mount path");
        let mode = fs::metadata(PRIVATE_ROOT).expect("the private root").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // The probe has ended, so its mount has too, unless the next probe has begun.
        eventually("no private mount", FIRST_VERDICT, || private_mounts().is_empty().then_some(()));

        mount_there(export, options, PATH);
        let mount = mark(PATH);
        let report = target.check();
        assert_eq!((report.outcome("in_use"), findings(&report)), ("passed", vec![]), "{report:?}");
        assert_eq!(report.get("in_use")["source"], export);
        let seen = report.get("in_use")["first_seen_at"].clone();
        assert_eq!(target.check().get("in_use")["first_seen_at"], seen);
        // A command beside the daemon neither uses nor ends its mount.
        let checked = run("targetwatch", &["check", "nfs", export]);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        assert!(String::from_utf8_lossy(&checked.stdout).contains("private mount"), "{checked:?}");
        assert_eq!(target.delete().code, 202);
        assert_eq!(mount_of(PATH), mount, "the agent unmounted what it does not own");
        eventually("no private mount", FIRST_VERDICT, || private_mounts().is_empty().then_some(()));
        let left: Vec<_> = fs::read_dir(PRIVATE_ROOT).expect("listed").flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, [] as [PathBuf; 0], "mount points are left");
        unmount(&mount_path(PATH));
        fs::remove_dir(mount_path(PATH)).expect("removed");
    }
}

#[test]
fn program_that_mounts_for_each_job_meets_nothing_of_the_agent() {
    let _machine = Machine::start(OBSERVE);
    for (export, options, jobs) in [(EXPORT, OPTIONS, "120"), (EXPORT_4, OPTIONS_4, "80")] {
        let target = Target::create_available(export);
        let at = mount_path(PATH);
        let has_ended = AtomicBool::new(false);
        let mut in_use = 0;
        let jobs = std::thread::scope(|scope| {
            let jobs = scope.spawn(|| {
                let at = at.to_str().expect("text");
                let jobs = Command::new("lab-mount-on-demand").args([export, at, options, jobs]).output();
                has_ended.store(true, Ordering::Release);
                jobs.expect("started")
            });
            while !has_ended.load(Ordering::Acquire) {
                target.wait_for_probes(1, TIMED_OUT);
                let report = target.report();
                in_use += u32::from(report.outcome("in_use") == "passed");
                // A mount may be unmounted by force while it is verified. Nothing else is wrong.
                assert!(findings(&report).iter().all(|reason| reason == "mount_broken"), "{report:?}");
            }
            jobs.join().expect("joined")
        });
        assert!(jobs.status.success(), "{}", String::from_utf8_lossy(&jobs.stderr));
        assert!(in_use > 0, "no mount was verified");
        assert_eq!(target.history().len(), 1, "always available: {:?}", target.history());
        assert_eq!(target.delete().code, 202);
    }
}

#[test]
fn modes_are_switched_without_a_change_of_mounts() {
    let _machine = Machine::start("[probe]\nnfs_interval = \"1s\"\n");
    let target = Target::create_available(EXPORT);
    let mount = mark(PATH).expect("mounted");
    configure(OBSERVE);
    systemctl("reload", SERVICE);
    eventually("observed", FIRST_VERDICT, || (target.report().get("mode") == "observe").then_some(()));
    let report = target.check();
    assert_eq!((report.outcome("in_use"), findings(&report)), ("passed", vec![]), "{report:?}");
    assert_eq!(mount_of(PATH), Some(mount.clone()));
    // It is no longer the agent's: the agent does not mount it again.
    unmount(&mount_path(PATH));
    target.wait_for_probes(2, FIRST_VERDICT);
    assert!(target.is_available() && mount_of(PATH).is_none());

    // Private mounts that stay are ended with the mode.
    configure(&OBSERVE.replace("[probe]", "keep_private_mounts = true\n[probe]"));
    systemctl("reload", SERVICE);
    target.wait_for_probes(2, FIRST_VERDICT);
    let kept = private_mounts();
    assert_eq!(kept.len(), 1);
    target.wait_for_probes(2, FIRST_VERDICT);
    assert_eq!(private_mounts(), kept);
    configure("[probe]\nnfs_interval = \"1s\"\n");
    systemctl("reload", SERVICE);
    eventually("mounted", FIRST_VERDICT, || mount_of(PATH));
    eventually("no private mount", FIRST_VERDICT, || private_mounts().is_empty().then_some(()));
    assert_eq!(target.history().len(), 1, "always available: {:?}", target.history());
}

#[test]
fn target_has_a_mode_of_its_own() {
    let _machine = Machine::start("[probe]\nnfs_interval = \"1s\"\n");
    let target = Target::create_available(EXPORT);
    let mount = mark(PATH).expect("mounted");
    for (mode, shown) in [("observe", "observe"), ("none", "none"), ("observe", "observe"), ("", "kernel")] {
        succeed("targetwatch", &["target", "modify", EXPORT, "--mount-mode", mode]);
        eventually(shown, FIRST_VERDICT, || (target.report().get("mode") == shown).then_some(()));
        assert!(target.is_available(), "{mode}: {:?}", target.report());
        // A command beside the daemon has the same mode.
        let checked = run("targetwatch", &["check", "nfs", EXPORT]);
        let text = String::from_utf8_lossy(&checked.stdout);
        assert_eq!((checked.status.code(), text.contains("private mount")), (Some(0), mode == "observe"), "{text}");
        assert_eq!(mount_of(PATH), Some(mount.clone()), "{mode}");
    }
    eventually("no private mount", FIRST_VERDICT, || private_mounts().is_empty().then_some(()));
}

/// The kernel shows the mount of a symbolic link on the server with the resolved path.
#[test]
fn mount_in_use_of_a_path_that_the_server_resolves_is_the_right_one() {
    let _machine = Machine::start(&OBSERVE.replace("[probe]", "in_use_failure = \"offline\"\n[probe]"));
    let _link = Link::create();
    let target = Target::create_available(LINK_EXPORT);
    mount_there(LINK_EXPORT, OPTIONS_4, LINK_PATH);
    let report = target.check();
    assert_eq!((report.outcome("in_use"), findings(&report)), ("passed", vec![]), "{report:?}");
    assert_eq!(report.get("in_use")["source"], RESOLVED);
    // Another mode, and back: the agent's own mount is still its own.
    unmount(&mount_path(LINK_PATH));
    for (mode, shown) in [("kernel", "kernel"), ("observe", "observe"), ("kernel", "kernel")] {
        succeed("targetwatch", &["target", "modify", LINK_EXPORT, "--mount-mode", mode]);
        eventually(shown, FIRST_VERDICT, || (target.report().get("mode") == shown).then_some(()));
        target.wait_until_available(FIRST_VERDICT);
    }
    assert_eq!(target.history().len(), 1, "always available: {:?}", target.history());
}

#[test]
fn problem_of_a_mount_in_use_is_a_warning_or_a_failure_as_configured() {
    let _machine = Machine::start(OBSERVE);
    let target = Target::create_available(EXPORT);
    // Another export.
    mount_there("10.0.0.1:/srv/exports/two", OPTIONS, PATH);
    let report = wait_for_finding(&target, "mount_conflict", FIRST_VERDICT);
    let message = report.check("in_use")["message"].as_str().unwrap_or_default();
    assert!(target.is_available() && message.contains("/srv/exports/two"), "{report:?}");
    configure(&OBSERVE.replace("[probe]", "in_use_failure = \"offline\"\n[probe]"));
    systemctl("reload", SERVICE);
    target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT);
    let at = mount_path(PATH);
    unmount(&at);
    target.wait_until_available(FIRST_VERDICT);
    // Nobody can write to it.
    mount_there(EXPORT, &format!("ro,{OPTIONS}"), PATH);
    target.wait_until_offline(&["read_only"], FIRST_VERDICT);
    unmount(&at);
    target.wait_until_available(FIRST_VERDICT);
    // Other options.
    mount_there(EXPORT, &OPTIONS.replace("soft", "hard"), PATH);
    let report = wait_for_finding(&target, "mount_options_differ", FIRST_VERDICT);
    assert!(findings(&report).contains(&"hard_mount".to_owned()) && target.is_available(), "{report:?}");
}

#[test]
fn dead_server_of_an_observed_target_delays_nothing() {
    let _machine = Machine::start(OBSERVE);
    let other = Target::create_available(EXPORT);
    start_user_server();
    let target = Target::create_available(USER_EXPORT);
    mount_there(USER_EXPORT, "nfsvers=4.2,port=12049,hard", USER_PATH);
    wait_for_finding(&target, "hard_mount", FIRST_VERDICT);
    // Private mounts of targets that are removed while the agent does not run, one with a dead server, and others.
    let (dead, options) = ("nfsvers=4.2,port=12049,soft,nosharecache", format!("{OPTIONS},nosharecache"));
    let removed = [
        mount_privately(&["-t", "nfs", "-o", dead, USER_EXPORT], "/srv/removed"),
        mount_privately(&["-t", "nfs", "-o", &options, "10.0.0.1:/srv/exports/two"], "/srv/exports/two"),
    ];
    let others = [
        mount_privately(&["-t", "tmpfs", "tmpfs"], "/srv/tmpfs"),
        mount_privately(&["-t", "nfs", "-o", OPTIONS, "10.0.0.1:/srv/exports/two"], "/srv/shared"),
    ];
    signal_user_server("STOP");
    systemctl("restart", SERVICE);
    eventually("private mounts of removed targets are unmounted", TIMED_OUT, || {
        (!private_mounts().iter().any(|at| removed.contains(at))).then_some(())
    });
    eventually("their directories are removed", FIRST_VERDICT, || {
        (!removed.iter().any(|at| at.exists())).then_some(())
    });
    assert!(others.iter().all(|at| private_mounts().contains(at)), "the agent unmounted what it did not mount");
    for at in &others {
        umount2(at, MntFlags::MNT_DETACH).expect("unmounted");
    }
    // A probe may have begun to mount it.
    target.wait_until_offline(&["response_timed_out", "connect_timed_out", "mount_timed_out"], MOUNT_TIMED_OUT);
    // The owner can still unmount it, and no private mount is left.
    unmount_plainly(&mount_path(USER_PATH));
    eventually("no private mount", TIMED_OUT, || {
        (!private_mounts().iter().any(|path| path.ends_with(mount_path(USER_PATH).file_name().expect("a name"))))
            .then_some(())
    });
    other.wait_for_probes(2, FIRST_VERDICT);
    assert!(other.is_available());
    signal_user_server("CONT");
    target.wait_until_available(TIMED_OUT);
    // The port answers and storage does not.
    let at = mount_path(PATH);
    mount_there(EXPORT, OPTIONS, PATH);
    black_hole("10.0.0.1");
    other.wait_until_offline(&["connect_timed_out", "response_timed_out", "mount_timed_out"], MOUNT_TIMED_OUT);
    unmount_plainly(&at);
    end_black_holes();
    other.wait_until_available(TIMED_OUT);
    systemctl("is-active", NFS_SERVER);
}

/// A bucket that s3fs mounts at the mount path of its target.
struct MountedBucket {
    _runtime: Runtime,
    _server: S3Server,
    target: Target,
    at: PathBuf,
}

impl MountedBucket {
    fn create() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let buckets = vec![BucketFixture { name: "backups".to_owned(), ..BucketFixture::default() }];
        let (access_key_id, secret_access_key) = ("mounted-id".to_owned(), "mounted-secret".to_owned());
        let password = "/etc/targetwatch/s3fs";
        for (path, text) in [
            ("/etc/targetwatch/fuse.id", access_key_id.clone()),
            ("/etc/targetwatch/fuse.secret", secret_access_key.clone()),
            (password, format!("{access_key_id}:{secret_access_key}")),
        ] {
            fs::write(path, text).expect("written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("changed");
        }
        let fixture = S3Fixture { access_key_id, secret_access_key, buckets };
        let server = runtime.block_on(S3Server::start(fixture)).expect("a server");
        let target = Target::create_bucket(&server.endpoint(), "backups");
        target.wait_until_available(FIRST_VERDICT);
        let at = PathBuf::from(target.show()["filesystem_export_mount_path"].as_str().expect("a path"));
        fs::create_dir_all(&at).expect("created");
        let options =
            format!("url={},use_path_request_style,passwd_file={password},connect_timeout=60", server.endpoint());
        succeed("s3fs", &["backups", at.to_str().expect("text"), "-o", &options]);
        Self { _runtime: runtime, _server: server, target, at }
    }

    fn signal(&self, signal: &str) {
        let arguments = ["--signal", signal, "--full", self.at.to_str().expect("text")];
        succeed("pkill", &arguments);
    }
}

impl Drop for MountedBucket {
    fn drop(&mut self) {
        // A stopped process cannot end.
        run("pkill", &["--signal", "KILL", "s3fs"]);
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

#[test]
fn fuse_mount_of_a_bucket_is_reported_and_verified() {
    const CREDENTIALS: &str = r#"
[[s3.credentials]]
location = "127.0.0.1:*"
access_key_id_file = "/etc/targetwatch/fuse.id"
secret_access_key_file = "/etc/targetwatch/fuse.secret"
"#;
    let _machine = Machine::start(&format!("[probe]\ns3_interval = \"1s\"\n{CREDENTIALS}"));
    let bucket = MountedBucket::create();
    let target = &bucket.target;
    let report =
        eventually("in use", FIRST_VERDICT, || Some(target.report()).filter(|report| !report.get("in_use").is_null()));
    assert_eq!((report.outcome("in_use"), findings(&report)), ("passed", vec![]), "{report:?}");
    assert_eq!((&report.get("in_use")["type"], &report.get("in_use")["source"]), (&"fuse.s3fs".into(), &"s3fs".into()));

    bucket.signal("STOP");
    wait_for_finding(target, "mount_hangs", TIMED_OUT);
    assert!(target.is_available(), "the bucket itself works");
    configure(&format!("[mounts]\nin_use_failure = \"offline\"\n[probe]\ns3_interval = \"1s\"\n{CREDENTIALS}"));
    systemctl("reload", SERVICE);
    target.wait_until_offline(&["mount_hangs"], TIMED_OUT);
    bucket.signal("CONT");
    target.wait_until_available(TIMED_OUT);

    bucket.signal("KILL");
    target.wait_until_offline(&["mount_broken"], TIMED_OUT);
    assert!(target.report().message().contains("ENOTCONN"), "{}", target.report().message());
    umount2(&bucket.at, MntFlags::MNT_DETACH).expect("unmounted");
    target.wait_until_available(FIRST_VERDICT);
    assert!(target.report().get("in_use").is_null());
    assert!(output("journalctl", &["--unit", SERVICE, "--grep", "panicked", "--quiet"]).is_empty());
    assert!(Path::new(&bucket.at).exists(), "the agent removed what it does not own");
}
