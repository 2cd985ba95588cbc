//! Who sees the mounts of an agent in a mount namespace of its own, as in a container.

use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, FIRST_VERDICT, MOUNT_ROOT, Machine, PATH, PREPARED, SERVICE, change_unit, configure,
    main_pid, mount_of, mount_path, run, succeed, systemctl,
};
use crate::process::mount_namespace;

/// Time limit from a start of the agent until its targets are available.
const STARTED: Duration = Duration::from_secs(10);

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
            succeed("umount", &[mount_path(PATH).to_str().expect("text")]);
        }
        start_in_own_namespace(propagation);
        target.wait_until_offline(&["mounts_not_shared"], STARTED);
        assert_eq!(mount_of(PATH), None, "{propagation}");
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
    succeed("umount", &[at.to_str().expect("text")]);
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
