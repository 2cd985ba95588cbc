//! Who sees the mounts of an agent in a mount namespace of its own, as in a container.

use std::process::{Child, Command};
use std::time::Duration;

use crate::api::{Target, request};
use crate::machine::{
    EVERY_SECOND, EXPORT, FIRST_VERDICT, MOUNT_ROOT, Machine, PATH, PREPARED, SERVICE, black_hole_data, change_unit,
    configure, end_black_holes, eventually, main_pid, mount_of, mount_path, run, succeed, systemctl, unmount,
};
use crate::process::mount_namespace;

/// Time limit from a start of the agent until its targets are available.
const STARTED: Duration = Duration::from_secs(10);

/// A process with the name of a consumer of backups, in a mount namespace of its own. Dropping it kills it.
struct Consumer(Child);

impl Consumer {
    /// Starts a program under another name, in a mount namespace with this propagation (unshare(1)). A shell runs
    /// `before` in that namespace first.
    fn start(name: &str, program: &str, arguments: &str, propagation: &str, before: &str) -> Self {
        let at = format!("/tmp/{name}");
        std::fs::copy(program, &at).expect("copied");
        let script = format!("{before} exec {at} {arguments}");
        let unshare = ["--mount", "--propagation", propagation, "sh", "-c", &script];
        let child = Command::new("unshare").args(unshare).spawn().expect("started");
        let consumer = Self(child);
        let comm = format!("/proc/{}/comm", consumer.0.id());
        eventually(name, FIRST_VERDICT, || {
            std::fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == name).then_some(())
        });
        consumer
    }

    fn sleeping(name: &str, propagation: &str) -> Self {
        Self::start(name, "/usr/bin/sleep", "600", propagation, "")
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the agent in a mount namespace that receives and sends mounts as `propagation` says (unshare(1)).
fn start_in_own_namespace(propagation: &str) {
    change_unit(&format!(
        "[Service]\nRestrictNamespaces=no\nExecStart=\nExecStart=/usr/bin/unshare --mount --propagation {propagation} /usr/bin/targetwatch serve\n"
    ));
    systemctl("restart", SERVICE);
    assert_ne!(mount_namespace(main_pid()), mount_namespace(1), "{propagation}");
}

#[track_caller]
fn assert_visible(target: &Target, outcome: &str, detail: &str) {
    let report = target.check();
    let visible = report.check("visible");
    assert_eq!(visible["outcome"], outcome, "{visible:#}");
    assert!(visible["detail"].as_str().is_some_and(|text| text.contains(detail)), "{visible:#}");
}

#[test]
fn mount_that_the_host_does_not_see_makes_its_target_offline() {
    let _machine = Machine::stopped(EVERY_SECOND);
    start_in_own_namespace("unchanged");
    let target = Target::create(EXPORT);
    target.wait_until_available(PREPARED);
    assert_visible(&target, "passed", "the host shares the mount");
    assert!(mount_of(PATH).is_some(), "mounted on the host too");
    for propagation in ["slave", "private"] {
        systemctl("stop", SERVICE);
        if mount_of(PATH).is_some() {
            unmount(&mount_path(PATH));
        }
        start_in_own_namespace(propagation);
        target.wait_until_offline(&["mounts_not_shared"], STARTED);
        assert_eq!(mount_of(PATH), None, "{propagation}");
        assert_metric("host", 0);
        let report = target.report();
        assert_eq!(report.outcome("mounted"), "passed", "the agent itself sees the mount: {report:?}");
        assert!(report.message().contains("`shared` propagation"), "{}", report.message());
    }
    // The operator says that nobody else needs the mounts.
    configure(&format!("[visibility]\nhost = false\n{EVERY_SECOND}"));
    systemctl("reload", SERVICE);
    target.wait_until_available(FIRST_VERDICT);
    assert_visible(&target, "skipped", "[visibility]");
}

#[test]
fn mount_of_the_host_that_the_agent_receives_is_visible() {
    let _machine = Machine::stopped(EVERY_SECOND);
    start_in_own_namespace("slave");
    let at = mount_path(PATH);
    std::fs::create_dir_all(&at).expect("created");
    let options = "nolock,soft,timeo=600,intr,lookupcache=none,nfsvers=3,retrans=10,nosuid,nodev";
    succeed("mount", &["-t", "nfs", "-o", options, EXPORT, at.to_str().expect("text")]);
    let target = Target::create_available(EXPORT);
    assert_visible(&target, "passed", "the host shares the mount");
    // The agent's next mount is its own.
    unmount(&at);
    target.wait_until_offline(&["mounts_not_shared"], STARTED);
}

#[test]
fn mount_in_the_namespace_of_the_host_is_visible_whatever_its_propagation() {
    let _machine = Machine::stopped(EVERY_SECOND);
    // The next test's machine unmounts it.
    succeed("mount", &["--bind", MOUNT_ROOT, MOUNT_ROOT]);
    succeed("mount", &["--make-private", MOUNT_ROOT]);
    systemctl("start", SERVICE);
    assert_eq!(mount_namespace(main_pid()), mount_namespace(1));
    let target = Target::create_available(EXPORT);
    assert_visible(&target, "passed", "the same mounts");
}

#[test]
fn visibility_is_unknown_in_a_process_id_namespace() {
    let _machine = Machine::stopped("");
    let arguments = ["--mount", "--pid", "--fork", "--mount-proc", "targetwatch", "check", "nfs", EXPORT, "--json"];
    let output = run("unshare", &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "available: {output:?}");
    assert!(text.contains("--pid=host"), "{text}");
    assert_eq!(mount_of(PATH), None, "mounted in its own namespace only");
}

/// Whether the metrics say that a consumer sees the mount of the first export.
#[track_caller]
fn assert_metric(consumer: &str, value: u8) {
    let line = format!("targetwatch_nfs_visible{{export=\"{EXPORT}\",consumer=\"{consumer}\"}} {value}");
    let metrics = request("GET", "/metrics", None).text;
    let found: Vec<&str> = metrics.lines().filter(|line| line.starts_with("targetwatch_nfs_visible{")).collect();
    assert!(found.contains(&line.as_str()), "{line}: {found:#?}");
}

fn warnings(target: &Target) -> Vec<String> {
    let report = target.check();
    let findings = report.check("visible")["findings"].as_array().expect("a list").clone();
    findings.iter().map(|finding| format!("{} {}", finding["reason"], finding["message"])).collect()
}

#[test]
fn consumer_in_another_namespace_that_does_not_see_the_mount_is_a_warning() {
    let _machine = Machine::start(EVERY_SECOND);
    let private = Consumer::sleeping("libvirtd", "private");
    let _slave = Consumer::sleeping("virtqemud", "slave");
    let _shared = Consumer::sleeping("nova-compute", "unchanged");
    let _unknown = Consumer::sleeping("bystander", "private");
    let target = Target::create_available(EXPORT);
    assert_visible(
        &target,
        "passed",
        "the same mounts; seen by libvirtd (0 of 1 process), virtqemud (1 of 1 process), nova-compute (1 of 1 process)",
    );
    let found = warnings(&target);
    assert_eq!(found.len(), 1, "{found:?}");
    let named = format!("libvirtd (process {}) does not see the mount at", private.0.id());
    assert!(found[0].contains("mount_not_visible") && found[0].contains(&named), "{found:?}");
    assert!(found[0].contains("nova_libvirt_extra_volumes"), "{found:?}");
    assert!(target.is_available(), "a warning");
    for (consumer, value) in [("host", 1), ("libvirtd", 0), ("virtqemud", 1), ("nova-compute", 1)] {
        assert_metric(consumer, value);
    }
    // The kernel never shows the mount to the private namespace. Another process with the same name that has it at
    // another path does.
    drop(private);
    let before = format!("mount --bind {at} /mnt && umount {at} &&", at = mount_path(PATH).display());
    let _elsewhere = Consumer::start("libvirtd", "/usr/bin/sleep", "600", "private", &before);
    eventually("no warning", FIRST_VERDICT, || warnings(&target).is_empty().then_some(()));
    assert_visible(&target, "passed", "seen by libvirtd (1 of 1 process)");
    configure(&format!("[visibility]\nconsumers = [\"bystander\"]\n{EVERY_SECOND}"));
    systemctl("reload", SERVICE);
    eventually("another consumer", FIRST_VERDICT, || {
        warnings(&target).iter().any(|warning| warning.contains("bystander (process")).then_some(())
    });
}

#[test]
fn consumers_are_verified_while_they_hang_on_a_dead_server() {
    const DEAD: &str = "10.0.0.3:/srv/exports/three";
    let _machine = Machine::start(EVERY_SECOND);
    let dead = Target::create_available(DEAD);
    let target = Target::create_available(EXPORT);
    black_hole_data("10.0.0.3");
    let at = mount_path("/srv/exports/three");
    let mut waiting =
        Consumer::start("qemu-kvm", "/usr/bin/stat", &format!("--file-system {}", at.display()), "slave", "");
    // The kernel waits for the server within mount(2).
    let mounting = "10.0.0.3:/srv/exports/three /mnt -o nfsvers=4.2,soft";
    let mut mounting = Consumer::start("virtqemud", "/sbin/mount.nfs", mounting, "private", "");
    dead.wait_until_offline(&["storage_timed_out"], STARTED * 2);
    // Each namespace is a copy with the mounts of that time.
    assert_visible(&target, "passed", "seen by virtqemud (1 of 1 process), qemu-kvm (1 of 1 process)");
    assert!(target.is_available());
    for consumer in [&mut waiting, &mut mounting] {
        assert_eq!(consumer.0.try_wait().expect("a state"), None, "it hangs");
    }
    drop((waiting, mounting));
    end_black_holes();
}

#[test]
fn selinux_that_denies_nfs_to_virtual_machines_is_a_warning() {
    let _machine = Machine::stopped("[visibility]\nhost = false\n");
    let _guests = Consumer::sleeping("libvirtd", "slave");
    // The kernel of the lab has no SELinux, so the command sees a copy of its files in a namespace of its own.
    let check = |boolean: &str| {
        let script = format!(
            "mount -t tmpfs none /sys/fs && mkdir -p /sys/fs/selinux/booleans && cd /sys/fs/selinux && printf 1 >enforce && printf '{boolean}' >booleans/virt_use_nfs && exec targetwatch check nfs {EXPORT} --json"
        );
        let output = run("unshare", &["--mount", "--propagation", "private", "sh", "-c", &script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = check("0 0");
    assert!(text.contains("selinux_denies_nfs") && text.contains("setsebool -P virt_use_nfs on"), "{text}");
    let text = check("1 1");
    assert!(text.contains("mount_not_visible") && !text.contains("selinux"), "{text}");
}
