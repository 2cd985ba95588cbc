//! The life of a target: creation, mount, capacity, write canary, deletion.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::api::{Target, request};
use crate::machine::{
    EVERY_SECOND, EXPORT, FIRST_VERDICT, HARD, MOUNT_ROOT, Machine, PATH, SERVICE, eventually, export_directory,
    mount_of, mount_path, run, succeed, systemctl,
};

fn assert_mounted_and_measured(export: &str, name: &str, kind: &str, version: &str) {
    let _machine = Machine::start("");
    fs::write(export_directory(name).join("backup.img"), vec![7; 5_000_001]).expect("written");
    succeed("sync", &[]);
    let path = format!("/srv/exports/{name}");
    let target = Target::create_available(export);

    let mount = mount_of(&path).expect("mounted in the namespace of process 1");
    assert_eq!((mount.kind.as_str(), mount.source.as_str()), (kind, export));
    assert!(mount.options.split(',').any(|option| option == version), "{}", mount.options);

    let report = target.check_until_measured(&mount.path);
    // NFS reports space in units of the transfer size, 128 KiB.
    assert!(report.get("used_bytes").as_u64() >= Some(5_000_001 - (128 << 10)), "{report:?}");
    for check in ["reachable", "mounted", "visible", "capacity", "write_canary"] {
        assert_eq!(report.outcome(check), "passed", "{check}: {report:?}");
    }
    let facts = report.get("mount");
    let address = export.split(':').next().expect("a host");
    assert_eq!((facts["server_address"].as_str(), facts["hard"].as_bool()), (Some(address), Some(false)), "{facts:#}");
    assert_eq!(facts["nfs_version"].as_str(), version.strip_prefix("vers="), "{facts:#}");
    let in_force = format!("{},{}", mount.flags, mount.options.trim_start_matches("rw,"));
    assert_eq!(facts["options"].as_str(), Some(&*in_force), "options of the mount and of the file system");
    let shown = target.show();
    assert_eq!(shown["filesystem_export_mount_path"], mount.path.to_str().expect("text"));
    for (key, bytes) in [("capacity", "capacity_bytes"), ("used", "used_bytes")] {
        let bytes = report.get(bytes).as_u64().expect("a count");
        assert_eq!(shown[key], format!("{:.1} MB", bytes as f64 / f64::from(1 << 20)));
    }

    let mut names: Vec<_> = fs::read_dir(export_directory(name))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.retain(|name| name != "lost+found");
    assert_eq!(names, ["backup.img"], "the canary left something behind");
}

#[test]
fn nfs_v3_target_is_mounted_and_measured() {
    assert_mounted_and_measured("10.0.0.1:/srv/exports/one", "one", "nfs", "vers=3");
}

#[test]
fn nfs_v4_2_target_is_mounted_and_measured() {
    assert_mounted_and_measured("10.0.0.2:/srv/exports/two", "two", "nfs4", "vers=4.2");
}

#[test]
fn root_squash_is_supported() {
    let _machine = Machine::start("");
    fs::set_permissions(export_directory("three"), fs::Permissions::from_mode(0o700)).expect("a mode");
    chown(export_directory("three"), Some(42436), Some(42436)).expect("an owner");
    let target = Target::create_available("10.0.0.1:/srv/exports/three");
    assert_eq!(target.check().outcome("write_canary"), "passed");
}

#[test]
fn warning_when_mount_is_hard() {
    let _machine = Machine::start(HARD);
    let target = Target::create_available(EXPORT);
    let report = target.check();
    assert_eq!((report.get("status"), report.get("reason")), (&"available".into(), &"hard_mount".into()), "{report:?}");
    assert_eq!(report.get("mount")["hard"], true);
}

#[test]
fn delete_unmounts_and_removes_the_directory() {
    let _machine = Machine::start("");
    let target = Target::create_available(EXPORT);
    let answer = target.delete();
    assert_eq!((answer.code, answer.text.as_str()), (202, ""), "{answer:?}");
    assert_eq!(mount_of(PATH), None);
    assert!(!mount_path(PATH).exists() && Path::new(MOUNT_ROOT).exists());
    assert_eq!(request("GET", &format!("/backup_targets/{}", target.id), None).code, 404);
    // The same export can be created again.
    Target::create_available(EXPORT);
}

#[test]
fn delete_is_refused_while_target_is_busy() {
    let _machine = Machine::start("");
    fs::write(export_directory("one").join("backup.img"), "in use").expect("written");
    let target = Target::create_available(EXPORT);
    let in_use = File::open(mount_path(PATH).join("backup.img")).expect("opened");
    let mount = mount_of(PATH);
    let answer = target.delete();
    assert_eq!(answer.code, 409, "{answer:?}");
    assert!(answer.message().contains("in use"), "{answer:?}");
    assert_eq!(mount_of(PATH), mount);
    target.wait_until_available(FIRST_VERDICT);
    drop(in_use);
    eventually("deleted after the file is closed", FIRST_VERDICT, || (target.delete().code == 202).then_some(()));
    assert!(fs::read(export_directory("one").join("backup.img")).is_ok(), "the backup is gone");
}

#[test]
fn same_path_on_two_servers_is_a_conflict() {
    let _machine = Machine::start("");
    Target::create_available(EXPORT);
    let mount = mount_of(PATH);
    let answer = Target::try_create("10.0.0.3:/srv/exports/one");
    assert_eq!(answer.code, 409, "{answer:?}");
    assert!(
        answer.message().contains("10.0.0.1:/srv/exports/one"),
        "the message does not name the first target: {answer:?}"
    );
    assert_eq!(mount_of(PATH), mount);
}

#[test]
fn private_directory_of_another_user_is_mounted_on() {
    let _machine = Machine::start(EVERY_SECOND);
    let point = mount_path(PATH);
    fs::create_dir_all(&point).expect("created");
    fs::set_permissions(&point, fs::Permissions::from_mode(0o700)).expect("a mode");
    chown(&point, Some(42436), Some(42436)).expect("an owner");
    Target::create_available(EXPORT);
}

#[test]
fn unmounted_directory_is_not_writable() {
    let _machine = Machine::stopped(EVERY_SECOND);
    // As a careless script would leave it.
    let directory = mount_path(PATH);
    fs::create_dir_all(&directory).expect("created");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2777)).expect("a mode");
    chown(&directory, Some(42436), Some(42436)).expect("an owner");
    systemctl("start", SERVICE);
    Target::create_available(EXPORT);

    // A bind mount shows the directory below the export.
    fs::create_dir_all("/srv/bare").expect("created");
    succeed("mount", &["--bind", "/", "/srv/bare"]);
    let bare = fs::metadata(Path::new("/srv/bare").join(directory.strip_prefix("/").expect("absolute")));
    run("umount", &["/srv/bare"]);
    let bare = bare.expect("the directory");
    assert_eq!((bare.uid(), bare.mode() & 0o022), (0, 0), "{:o}", bare.mode());
}
