//! `mode = "none"`: the canary over the wire, with version 3 and 4. It finds what the canary on a mount finds, and
//! leaves no file and no client behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use targetwatch::model::canary_file::CanaryFileNames;

use crate::api::{Report, Target};
use crate::faults::GracePeriod;
use crate::machine::{FIRST_VERDICT, Machine, export_directory, run, start_user_server, succeed};
use crate::wire_v4::wait_until_no_client_is_left;

/// A configuration that mounts nothing, with a probe every second. The server has version 3 at `10.0.0.1`, and 4.2 at
/// `10.0.0.2`.
const WIRE: &str = "[mounts]\nmode = \"none\"\n[probe]\nnfs_interval = \"1s\"\n";

/// The addresses of the kernel's server, with version 3 and version 4.
const SERVERS: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);

/// Probes a path with both versions. Asserts the reasons of each report, and returns it.
fn probed(path: &str, reasons: &[&str]) -> [Report; 2] {
    SERVERS.map(|server| {
        let target = Target::create(&format!("{server}:{path}"));
        let report = target.check();
        assert_eq!(report.reasons(), reasons, "{server}: {report:?}");
        assert_eq!(target.delete().code, 202);
        report
    })
}

/// Asserts that no canary is left in an exported directory.
fn assert_no_file_left(name: &str) {
    let names = fs::read_dir(export_directory(name)).expect("a list").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("canary")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn canary_over_the_wire_is_written_as_the_backup_user() {
    let _machine = Machine::start(WIRE);
    let directory = export_directory("one");
    let owner = |id| chown(&directory, Some(id), Some(id)).expect("an owner");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("a mode");
    owner(42436);
    for report in probed("/srv/exports/one", &[]) {
        let detail = report.check("write_canary")["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.contains("wrote 4096 bytes as uid 42436 gid 42436, read them back from the server"), "{detail}");
    }
    owner(0);
    let parts = ["the root of the export belongs to", "has mode 0700", "which is set in [probe.canary]"];
    for report in probed("/srv/exports/one", &["write_denied"]) {
        for part in parts {
            assert!(report.message().contains(part), "{report:?}");
        }
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_no_file_left("one");
    wait_until_no_client_is_left();
}

#[test]
fn squashed_user_writes_over_the_wire_as_the_server_says() {
    let _machine = Machine::start(WIRE);
    let directory = export_directory("one");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("a mode");
    chown(&directory, Some(4711), Some(4711)).expect("an owner");
    let export = |options: &str| {
        let options = format!("rw,fsid=101,no_subtree_check,{options}");
        succeed("exportfs", &["-o", &options, "*:/srv/nfs4/srv/exports/one"]);
    };
    export("all_squash,anonuid=4711,anongid=4711");
    probed("/srv/exports/one", &[]);
    export("root_squash");
    probed("/srv/exports/one", &["write_denied"]);
    chown(&directory, Some(0), Some(0)).expect("an owner");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_no_file_left("one");
    wait_until_no_client_is_left();
}

#[test]
fn read_only_full_and_quota_are_found_over_the_wire() {
    let _machine = Machine::start(WIRE);
    probed("/srv/exports/readonly", &["read_only"]);

    let fill = export_directory("one").join("fill");
    run("dd", &["if=/dev/zero", &format!("of={}", fill.display()), "bs=1M"]);
    probed("/srv/exports/one", &["storage_full"]);
    fs::remove_file(fill).expect("removed");
    let inodes = |inodes: &str| {
        let directory = export_directory("one");
        succeed("mount", &["-o", &format!("remount,nr_inodes={inodes}"), directory.to_str().expect("text")]);
    };
    inodes("4");
    let names: Vec<_> = (0..4).map(|number| export_directory("one").join(number.to_string())).collect();
    let created = names.iter().take_while(|name| fs::write(name, "").is_ok()).count();
    for report in probed("/srv/exports/one", &["storage_full"]) {
        assert!(report.message().contains("all 4 inodes are used, so no file can be created"), "{report:?}");
    }
    names[..created].iter().for_each(|name| fs::remove_file(name).expect("removed"));
    inodes("0");

    let held = export_directory("quota").join("held");
    fs::write(&held, vec![7; 64 << 10]).expect("written");
    chown(&held, Some(42436), Some(42436)).expect("an owner");
    let limit = |blocks: &str| {
        succeed("setquota", &["-u", "42436", blocks, blocks, "0", "0", "/srv/nfs4/srv/exports/quota"]);
    };
    limit("64");
    probed("/srv/exports/quota", &["quota_exceeded"]);
    limit("0");
    fs::remove_file(held).expect("removed");
    for name in ["one", "readonly", "quota"] {
        assert_no_file_left(name);
    }
    probed("/srv/exports/one", &[]);
    wait_until_no_client_is_left();
}

#[test]
fn read_only_option_is_reported_over_the_wire() {
    let _machine = Machine::start(&WIRE.replace("[probe]", "nfs_options = \"nfsvers=3,nolock,ro\"\n[probe]"));
    let target = Target::create("10.0.0.1:/srv/exports/one");
    let report = target.check();
    assert_eq!(report.reasons(), ["read_only"]);
    assert!(report.message().contains("the NFS options contain `ro`"), "{report:?}");
}

#[test]
fn leftovers_of_this_node_are_removed_over_the_wire() {
    let _machine = Machine::start(WIRE);
    let directory = export_directory("one");
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for server in SERVERS {
        let (leftover, foreign) = (CanaryFileNames::new("lab").name, CanaryFileNames::new("another").name);
        let names = (0..300).map(|number| format!("disk-{number}.qcow2")).chain([leftover.clone(), foreign.clone()]);
        for name in names {
            let path = directory.join(name);
            fs::write(&path, "").expect("written");
            fs::File::options().write(true).open(&path).expect("opened").set_modified(hour_ago).expect("aged");
        }
        let target = Target::create(&format!("{server}:/srv/exports/one"));
        assert_eq!(target.check().reasons(), [""; 0]);
        assert!(!directory.join(leftover).exists(), "{server}");
        assert!(directory.join(&foreign).exists(), "{server}");
        fs::remove_file(directory.join(foreign)).expect("removed");
        assert_eq!(target.delete().code, 202);
    }
    wait_until_no_client_is_left();
}

#[test]
fn canary_over_the_wire_waits_for_the_end_of_a_grace_period() {
    let _machine = Machine::start(WIRE);
    let length = Duration::from_secs(20);
    let _period = GracePeriod::start(length);
    let target = Target::create("10.0.0.2:/srv/exports/one");
    target.wait_until_offline(&["storage_timed_out"], Duration::from_secs(15));
    let report = target.report();
    assert!(report.message().contains("grace period"), "{report:?}");
    assert_eq!(report.outcome("capacity"), "passed", "{report:?}");
    target.wait_until_available(length + DETECTED);
    wait_until_no_client_is_left();
}

#[test]
fn canary_over_the_wire_is_written_to_ganesha() {
    let of_minor = |minor| {
        let location = format!("[[mounts.nfs]]\nlocation = \"10.0.0.5:/srv/user/4.{minor}\"\n");
        format!("{location}options = \"nfsvers=4.{minor},port=12049\"\n")
    };
    let _machine = Machine::start(&format!("{WIRE}{}{}{}", of_minor(0), of_minor(1), of_minor(2)));
    start_user_server();
    for (minor, canary) in [(0, "skipped"), (1, "passed"), (2, "passed")] {
        let at = Path::new("/srv/user").join(format!("4.{minor}"));
        fs::create_dir_all(&at).expect("created");
        chown(&at, Some(42436), Some(42436)).expect("an owner");
        let target = Target::create(&format!("10.0.0.5:{}", at.display()));
        target.wait_until_available(FIRST_VERDICT);
        let report = target.check();
        let detail = report.check("exported")["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(&format!("with NFS 4.{minor}")), "{report:?}");
        assert_eq!(report.outcome("write_canary"), canary, "{report:?}");
        assert_eq!(fs::read_dir(&at).expect("a list").count(), 0, "NFS 4.{minor}");
        assert_eq!(target.delete().code, 202);
        fs::remove_dir(at).expect("removed");
    }
    let at = Path::new("/srv/user");
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).expect("a mode");
    let target = Target::create("10.0.0.5:/srv/user");
    let report = target.check();
    fs::set_permissions(at, fs::Permissions::from_mode(0o777)).expect("a mode");
    assert_eq!(report.reasons(), ["write_denied"], "{report:?}");
}
