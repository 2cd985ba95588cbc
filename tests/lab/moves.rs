//! Servers that are known by another name or address than before: a name that leads elsewhere, a mount
//! that the kernel shows by another name, another server at the same address.

use std::fs;
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, FIRST_VERDICT, HARD, Machine, SERVICE, TIMED_OUT, black_hole, eventually, mark, mount_of, mount_path,
    mounts, run, start_user_server, succeed, unmount,
};
use crate::observer::Observer;

const HOSTS: &str = "127.0.0.1 localhost lab\n";
const PATH: &str = "/srv/exports/one";
const EXPORT: &str = "nas.lab:/srv/exports/one";
/// Some intervals, and the time to probe.
const NOTICED: Duration = Duration::from_secs(6);
/// The interval of both configurations.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the resolver knows. Dropping it is the end of that.
struct Names;

impl Names {
    fn are(line: &str) -> Self {
        fs::write("/etc/hosts", format!("{HOSTS}{line}\n")).expect("written");
        Self
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = fs::write("/etc/hosts", HOSTS);
    }
}

fn server_of(path: &str) -> Option<String> {
    let mount = mount_of(path)?;
    mount.options.split(',').find_map(|option| option.strip_prefix("addr=")).map(str::to_owned)
}

fn names_both(message: &serde_json::Value) -> bool {
    message.as_str().is_some_and(|message| {
        ["10.0.0.1", "10.0.0.3", mount_path(PATH).to_str().expect("text")].iter().all(|text| message.contains(text))
    })
}

#[test]
fn server_moved_warning_while_old_server_answers() {
    let _machine = Machine::start(EVERY_SECOND);
    let _names = Names::are("10.0.0.1 nas.lab");
    let target = Target::create_available(EXPORT);
    let before = mark(PATH);
    let _names = Names::are("10.0.0.3 nas.lab");
    let told = |reason: &serde_json::Value| {
        let report = target.report();
        (report.get("reason") == reason).then_some(report)
    };
    let report = eventually("reported", NOTICED, || told(&"server_moved".into()));
    assert_eq!(report.get("status"), "available", "{report:?}");
    assert!(names_both(report.get("message")), "{report:?}");
    assert_eq!(report.get("mount")["server_address"], "10.0.0.1");
    target.wait_for_probes(2, NOTICED);
    assert_eq!(mount_of(PATH), before, "it is left for who uses it");

    unmount(&mount_path(PATH));
    target.wait_until_available(NOTICED);
    eventually("no warning", NOTICED, || told(&serde_json::Value::Null));
    assert_eq!(server_of(PATH).as_deref(), Some("10.0.0.3"), "what was advised helps");
}

#[test]
fn server_moved_offline_when_old_server_died() {
    let _machine = Machine::start(HARD);
    let _names = Names::are("10.0.0.1 nas.lab");
    let target = Target::create_available(EXPORT);
    let other = Target::create_available("10.0.0.2:/srv/exports/two");
    let observer = Observer::start();
    black_hole("10.0.0.1");
    let _names = Names::are("10.0.0.3 nas.lab");
    target.wait_until_offline(&["server_moved"], TIMED_OUT);
    let report = target.report();
    assert!(names_both(report.get("message")), "{report:?}");
    assert_eq!(report.outcome("capacity"), "skipped", "the mount of a dead server is not touched: {report:?}");
    assert_eq!(report.get("mount")["server_address"], "10.0.0.1", "the facts are told with the failure");
    target.wait_for_probes(3, TIMED_OUT);
    observer.end().assert_bounded(&[&other], INTERVAL, 1, false);

    let at = mount_path(PATH);
    run("umount", &["--force", "--lazy", at.to_str().expect("text")]);
    target.wait_until_available(FIRST_VERDICT + NOTICED);
    assert_eq!(server_of(PATH).as_deref(), Some("10.0.0.3"));
}

/// A mount of the same export by another name: the kernel shares what is the same, and shows it by that
/// name at all of its mounts.
struct Decoy;

impl Decoy {
    fn mount() -> Self {
        fs::create_dir_all("/srv/decoy").expect("made");
        // What the agent mounts with, or it is not the same.
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
    let names = Names::are("10.0.0.1 nas.lab decoy.lab");
    let _decoy = Decoy::mount();
    // The first one is the default, which goes last.
    Target::create_available("10.0.0.4:/srv/exports/two");
    let target = Target::create_available(EXPORT);
    assert_eq!(mount_of(PATH).expect("mounted").source, "decoy.lab:/srv/exports/one", "as the kernel has it");
    succeed("systemctl", &["stop", SERVICE]);
    black_hole("10.0.0.1");
    drop(names);
    succeed("systemctl", &["start", SERVICE]);
    target.wait_until_offline(&["name_not_resolved", "name_lookup_timed_out"], TIMED_OUT);
    // Whose it is cannot be known.
    let answer = target.delete();
    assert_eq!(answer.code, 500, "{answer:?}");
    assert!(answer.message().contains("nas.lab") && answer.message().contains("decoy.lab"), "{answer:?}");
    assert!(mount_of(PATH).is_some());

    let _names = Names::are("10.0.0.1 nas.lab decoy.lab");
    let answer = target.delete();
    assert_eq!(answer.code, 202, "{answer:?}");
    assert_eq!(mount_of(PATH), None);
}

#[test]
fn mount_is_recognized_by_any_address_of_its_server() {
    let _machine = Machine::start(EVERY_SECOND);
    let _names = Names::are("10.0.0.1 nas.lab decoy.lab");
    let _decoy = Decoy::mount();
    let target = Target::create_available(EXPORT);
    let mount = mark(PATH).expect("mounted");
    assert_eq!(mount.source, "decoy.lab:/srv/exports/one", "as the kernel has it");
    succeed("systemctl", &["stop", SERVICE]);
    // The other address is the one that answers now.
    let _names = Names::are("10.0.0.3 nas.lab\n10.0.0.1 nas.lab");
    black_hole("10.0.0.1");
    succeed("systemctl", &["start", SERVICE]);
    target.wait_until_offline(&["storage_timed_out"], TIMED_OUT + TIMED_OUT);
    assert_eq!(mount_of(PATH), Some(mount));
}

#[test]
fn different_server_at_same_address_is_a_conflict() {
    let _machine = Machine::start(EVERY_SECOND);
    start_user_server();
    fs::create_dir_all(mount_path("/srv/user")).expect("made");
    let at = mount_path("/srv/user");
    let options = "nfsvers=4.2,port=12049,soft";
    succeed("mount", &["-t", "nfs4", "-o", options, "10.0.0.5:/srv/user", at.to_str().expect("text")]);
    let theirs = mounts().into_iter().find(|mount| mount.path == at).expect("mounted");
    assert!(theirs.options.contains("port=12049"), "{theirs:?}");
    // By the default options, the kernel's server is meant, at the usual port of the same address.
    crate::machine::configure(&format!(
        "{EVERY_SECOND}\n[[mounts.nfs]]\nlocation = \"10.0.0.5:*\"\noptions = \"soft\"\n"
    ));
    succeed("systemctl", &["reload", SERVICE]);
    let target = Target::create("10.0.0.5:/srv/user");
    target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT + NOTICED);
    let report = target.report();
    assert!(report.get("message").as_str().is_some_and(|message| message.contains("port 12049")), "{report:?}");
    assert!(mounts().contains(&theirs), "left alone");
}
