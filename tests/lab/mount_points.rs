//! Mount paths that cannot be used: the disk is full, or something else is at the path.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, FIRST_VERDICT, Machine, PATH, SERVICE, configure, eventually, mount_of, mount_path, mounts,
    run, succeed, systemctl, unmount,
};

/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(4);

#[test]
fn mount_root_on_full_disk_is_a_finding() {
    let _machine = Machine::stopped(EVERY_SECOND);
    fs::create_dir_all("/srv/full").expect("created");
    // Inodes for its root directory and the mount root.
    succeed("mount", &["-t", "tmpfs", "-o", "nr_inodes=2", "full", "/srv/full"]);
    configure("[mounts]\nroot = \"/srv/full/mounts\"\n[probe]\nnfs_interval = \"1s\"\n");
    systemctl("start", SERVICE);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["mount_point_unusable"], FIRST_VERDICT);
    assert!(target.report().message().contains("/srv/full/mounts"));
    succeed("mount", &["-o", "remount,nr_inodes=100", "/srv/full"]);
    target.wait_until_available(DETECTED);
    run("systemctl", &["stop", SERVICE]);
    run("umount", &["--recursive", "/srv/full"]);
}

/// Replaces the mount directory by a link to `/srv/victim` and back as the user of backups, as fast as it can.
const ATTACK: &str = r#"cd /srv/attacked/mounts || exit 1
while :; do mkdir "$1"; rmdir "$1"; ln -s /srv/victim "$1"; rm "$1"; done"#;

#[test]
fn mount_root_that_another_user_can_change_is_refused() {
    let _machine = Machine::stopped(EVERY_SECOND);
    fs::create_dir_all("/srv/attacked/mounts").expect("created");
    fs::create_dir_all("/srv/victim").expect("created");
    let attacker = Some(42436);
    chown("/srv/attacked/mounts", attacker, attacker).expect("an owner");
    let name = mount_path(PATH).file_name().expect("a name").to_owned();
    let point = Path::new("/srv/attacked/mounts").join(&name);
    let mut attack = Command::new("setpriv")
        .args(["--reuid=42436", "--regid=42436", "--clear-groups", "sh", "-c", ATTACK, "attack"])
        .arg(name)
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv runs");
    configure("[mounts]\nroot = \"/srv/attacked/mounts\"\n[probe]\nnfs_interval = \"1s\"\n");
    systemctl("start", SERVICE);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["mount_point_unusable"], FIRST_VERDICT);
    for _ in 0..10 {
        let report = target.check();
        assert!(report.message().contains("/srv/attacked/mounts belongs to user 42436"), "{}", report.message());
        assert!(!mounts().iter().any(|mount| mount.path.starts_with("/srv/victim")), "the mount was redirected");
    }
    attack.kill().expect("killed");
    attack.wait().expect("reaped");
    let _ = fs::remove_file(&point);
    chown("/srv/attacked/mounts", Some(0), Some(0)).expect("an owner");
    chown("/srv/attacked", attacker, attacker).expect("an owner");
    let report = target.check();
    assert!(report.message().contains("/srv/attacked belongs to user 42436"), "{}", report.message());
    chown("/srv/attacked", Some(0), Some(0)).expect("an owner");
    target.wait_until_available(DETECTED);
    systemctl("stop", SERVICE);
    unmount(&point);
    fs::remove_dir_all("/srv/attacked").expect("removed");
}

#[test]
fn file_or_link_at_mount_path_is_reported_not_followed() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let at = mount_path(PATH);
    let elsewhere = "/srv/elsewhere";
    fs::create_dir_all(elsewhere).expect("created");
    let replacements: [(&str, &dyn Fn()); 2] = [
        ("a file", &|| fs::write(&at, "in the way").expect("written")),
        ("a link", &|| symlink(elsewhere, &at).expect("linked")),
    ];
    for (what, replace) in replacements {
        // The agent may mount again between the two steps. Then both are repeated.
        eventually(what, FIRST_VERDICT, || {
            run("umount", &[at.to_str()?]);
            fs::remove_dir(&at).ok()?;
            replace();
            Some(())
        });
        target.wait_until_offline(&["mount_point_unusable"], DETECTED);
        assert!(!mounts().iter().any(|mount| mount.path.starts_with(elsewhere)), "{what} was followed");
        assert_eq!(mount_of(PATH), None);
        fs::remove_file(&at).expect("the agent left it alone");
        target.wait_until_available(DETECTED);
    }
}

#[test]
fn mount_through_a_link_is_unmounted() {
    let _machine = Machine::stopped(EVERY_SECOND);
    fs::create_dir_all("/srv/real").expect("created");
    let _ = fs::remove_file("/srv/link");
    symlink("/srv/real", "/srv/link").expect("linked");
    configure("[mounts]\nroot = \"/srv/link/mounts\"\n[probe]\nnfs_interval = \"1s\"\n");
    systemctl("start", SERVICE);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["mount_failed"], FIRST_VERDICT);
    let report = target.report();
    assert!(report.message().contains("was unmounted there"), "{report:?}");
    run("systemctl", &["stop", SERVICE]);
    assert!(!mounts().iter().any(|mount| mount.path.starts_with("/srv/real")), "{:#?}", mounts());
    fs::remove_file("/srv/link").expect("removed");
}
