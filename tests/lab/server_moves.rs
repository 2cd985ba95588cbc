//! Servers whose name or address changes: a name that resolves to another address, a mount that the kernel shows under
//! another name, and another server at the same address.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, FIRST_VERDICT, HARD, HostsFile, Machine, PATH, SERVICE, TIMED_OUT, USER_EXPORT, black_hole,
    configure, eventually, forget_own_mounts, mark, mount_of, mount_path, mounts, run, start_user_server, succeed,
    systemctl, unmount,
};
use crate::observer::Observer;

const EXPORT: &str = "nas.lab:/srv/exports/one";
/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);
/// Probe interval of both configurations.
const INTERVAL: Duration = Duration::from_secs(1);

/// The address of the server that the mount of an exported path uses.
fn server_of(path: &str) -> Option<String> {
    let mount = mount_of(path)?;
    mount.options.split(',').find_map(|option| option.strip_prefix("addr=")).map(str::to_owned)
}

/// Whether a message contains both addresses and the mount path.
fn names_both(message: &str) -> bool {
    ["10.0.0.1", "10.0.0.3", mount_path(PATH).to_str().expect("text")].iter().all(|text| message.contains(text))
}

#[test]
fn server_moved_warning_while_old_server_answers() {
    let _machine = Machine::start(EVERY_SECOND);
    let _hosts = HostsFile::with("10.0.0.1 nas.lab");
    let target = Target::create_available(EXPORT);
    let before = mark(PATH);
    let _hosts = HostsFile::with("10.0.0.3 nas.lab");
    let with_reason =
        |reason: Option<&str>| Some(target.report()).filter(|report| report.get("reason").as_str() == reason);
    let report = eventually("a warning", DETECTED, || with_reason(Some("server_moved")));
    assert_eq!(report.get("status"), "available", "{report:?}");
    assert!(names_both(report.message()), "{report:?}");
    assert_eq!(report.get("mount")["server_address"], "10.0.0.1");
    target.wait_for_probes(2, DETECTED);
    assert_eq!(mount_of(PATH), before, "the agent did not touch the mount in use");

    unmount(&mount_path(PATH));
    target.wait_until_available(DETECTED);
    eventually("no warning", DETECTED, || with_reason(None));
    assert_eq!(server_of(PATH).as_deref(), Some("10.0.0.3"), "the advice helps");
}

#[test]
fn server_moved_offline_when_old_server_died() {
    let _machine = Machine::start(HARD);
    let _hosts = HostsFile::with("10.0.0.1 nas.lab");
    let target = Target::create_available(EXPORT);
    let other = Target::create_available("10.0.0.2:/srv/exports/two");
    let observer = Observer::start();
    black_hole("10.0.0.1");
    let _hosts = HostsFile::with("10.0.0.3 nas.lab");
    target.wait_until_offline(&["server_moved"], TIMED_OUT);
    let report = target.report();
    assert!(names_both(report.message()), "{report:?}");
    assert_eq!(report.outcome("capacity"), "skipped", "the mount of a dead server is not touched: {report:?}");
    assert_eq!(report.get("mount")["server_address"], "10.0.0.1", "the failed report has the facts of the mount");
    target.wait_for_probes(3, TIMED_OUT);
    observer.end().assert_bounded(&[&other], INTERVAL, 1, false);

    let at = mount_path(PATH);
    run("umount", &["--force", "--lazy", at.to_str().expect("text")]);
    target.wait_until_available(FIRST_VERDICT + DETECTED);
    assert_eq!(server_of(PATH).as_deref(), Some("10.0.0.3"));
}

/// A mount of the same export under another name of the server. The kernel shares the file system, and shows this name
/// for all of its mounts.
struct Decoy;

impl Decoy {
    fn mount() -> Self {
        fs::create_dir_all("/srv/decoy").expect("created");
        // The kernel shares the file system only if the options are those of the agent.
        let options = "nolock,soft,timeo=600,lookupcache=none,nfsvers=3,retrans=10";
        succeed("mount", &["-t", "nfs", "-o", options, "decoy.lab:/srv/exports/one", "/srv/decoy"]);
        Self
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        run("umount", &["--force", "--lazy", "/srv/decoy"]);
    }
}

#[test]
fn mount_known_by_address_is_unmounted_after_restart() {
    let _machine = Machine::start(EVERY_SECOND);
    let hosts = HostsFile::with("10.0.0.1 nas.lab decoy.lab");
    let _decoy = Decoy::mount();
    // The first target is the default, which can only be deleted last.
    Target::create_available("10.0.0.4:/srv/exports/two");
    let target = Target::create_available(EXPORT);
    assert_eq!(
        mount_of(PATH).expect("mounted").source,
        "decoy.lab:/srv/exports/one",
        "the source that the kernel shows"
    );
    systemctl("stop", SERVICE);
    forget_own_mounts();
    black_hole("10.0.0.1");
    drop(hosts);
    systemctl("start", SERVICE);
    target.wait_until_offline(&["name_not_resolved", "name_lookup_timed_out"], TIMED_OUT);
    // The agent cannot know whose mount it is.
    let answer = target.delete();
    assert_eq!(answer.code, 409, "{answer:?}");
    assert!(answer.message().contains("nas.lab") && answer.message().contains("decoy.lab"), "{answer:?}");
    assert!(mount_of(PATH).is_some());

    let _hosts = HostsFile::with("10.0.0.1 nas.lab decoy.lab");
    // Otherwise the deletion could share a lookup that a probe began before.
    target.wait_until_offline(&["connect_timed_out"], TIMED_OUT);
    let answer = target.delete();
    assert_eq!(answer.code, 202, "{answer:?}");
    assert_eq!(mount_of(PATH), None);
}

#[test]
fn own_mount_is_unmounted_after_restart_although_its_server_is_unknown() {
    let _machine = Machine::start(EVERY_SECOND);
    let hosts = HostsFile::with("10.0.0.1 nas.lab decoy.lab");
    let _decoy = Decoy::mount();
    Target::create_available("10.0.0.4:/srv/exports/two");
    let target = Target::create_available(EXPORT);
    assert_eq!(mount_of(PATH).expect("mounted").source, "decoy.lab:/srv/exports/one");
    drop(hosts);
    systemctl("restart", SERVICE);
    target.wait_until_offline(&["name_not_resolved", "name_lookup_timed_out"], TIMED_OUT);
    let answer = target.delete();
    assert_eq!(answer.code, 202, "{answer:?}");
    assert_eq!(mount_of(PATH), None);
}

#[test]
fn mount_is_recognized_by_any_address_of_its_server() {
    let _machine = Machine::start(EVERY_SECOND);
    let _hosts = HostsFile::with("10.0.0.1 nas.lab decoy.lab");
    let _decoy = Decoy::mount();
    let target = Target::create_available(EXPORT);
    let mount = mark(PATH).expect("mounted");
    assert_eq!(mount.source, "decoy.lab:/srv/exports/one", "the source that the kernel shows");
    systemctl("stop", SERVICE);
    forget_own_mounts();
    // Now the other address answers.
    let _hosts = HostsFile::with("10.0.0.3 nas.lab\n10.0.0.1 nas.lab");
    black_hole("10.0.0.1");
    systemctl("start", SERVICE);
    target.wait_until_offline(&["storage_timed_out"], TIMED_OUT + TIMED_OUT);
    assert_eq!(mount_of(PATH), Some(mount));
}

#[test]
fn different_server_at_same_address_is_a_conflict() {
    let _machine = Machine::start(EVERY_SECOND);
    start_user_server();
    let at = mount_path("/srv/user");
    fs::create_dir_all(&at).expect("created");
    let options = "nfsvers=4.2,port=12049,soft";
    succeed("mount", &["-t", "nfs4", "-o", options, USER_EXPORT, at.to_str().expect("text")]);
    let other = mounts().into_iter().find(|mount| mount.path == at).expect("mounted");
    assert!(other.options.contains("port=12049"), "{other:?}");
    // With the default port, the target is the export of the kernel's server at the same address.
    configure(&format!("{EVERY_SECOND}\n[[mounts.nfs]]\nlocation = \"10.0.0.5:*\"\noptions = \"soft\"\n"));
    systemctl("reload", SERVICE);
    let target = Target::create(USER_EXPORT);
    target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT + DETECTED);
    let report = target.report();
    assert!(report.message().contains("port 12049"), "{report:?}");
    assert!(mounts().contains(&other), "the other mount was touched");
}
