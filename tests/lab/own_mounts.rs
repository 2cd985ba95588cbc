//! The agent's own mount if the kernel shows another source than the export, and foreign mounts that look like it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::api::Target;
use crate::machine::{
    EVERY_SECOND, EXPORT, FIRST_VERDICT, MOUNT_ROOT, Machine, PATH, REGISTRY, SERVICE, USER_EXPORT, change_unit,
    configure, eventually, kill_agent, main_pid, mark, mount_of, mount_path, mounts, run, start_user_server, succeed,
    systemctl, unmount,
};
use crate::process::{Process, children};

/// The path of a symbolic link below the server's NFSv4 root.
pub const LINK_PATH: &str = "/alias";
/// An export that the server resolves to `/srv/exports/two`.
pub const LINK_EXPORT: &str = "10.0.0.2:/alias";
/// The source that the kernel shows for it.
pub const RESOLVED: &str = "10.0.0.2:/srv/exports/two";
/// The command that the agent runs to mount.
const MOUNT_COMMAND: &str = "/usr/sbin/mount.nfs";
/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);

/// The link on the server. Dropping it removes it.
pub struct Link;

impl Link {
    pub fn create() -> Self {
        let _ = fs::remove_file("/srv/nfs4/alias");
        symlink("srv/exports/two", "/srv/nfs4/alias").expect("linked");
        Self
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = fs::remove_file("/srv/nfs4/alias");
    }
}

/// Restarts the agent in two ways, and asserts that the target is available on the same mount. Then deletes the target.
fn assert_own(target: &Target, path: &str) {
    let mount = mark(path).expect("mounted");
    systemctl("restart", SERVICE);
    target.wait_until_available(FIRST_VERDICT);
    kill_agent(FIRST_VERDICT);
    target.wait_until_available(FIRST_VERDICT);
    target.wait_for_probes(2, DETECTED);
    assert!(target.is_available());
    assert_eq!(mount_of(path), Some(mount));

    let answer = target.delete();
    assert_eq!(answer.code, 202, "{answer:?}");
    assert_eq!(mount_of(path), None);
    assert!(!mount_path(path).exists(), "the directory is left");
}

#[test]
fn v4_mount_of_a_path_that_the_server_resolves_is_own() {
    let _machine = Machine::start(EVERY_SECOND);
    let _link = Link::create();
    // The first target is the default, which can only be deleted last.
    Target::create_available(EXPORT);
    let target = Target::create_available(LINK_EXPORT);
    assert_eq!(mount_of(LINK_PATH).expect("mounted").source, RESOLVED);
    // A one-shot check recognizes the mount of the daemon, and leaves it mounted.
    let mount = mount_of(LINK_PATH);
    let check = run("targetwatch", &["check", "nfs", LINK_EXPORT]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert_eq!(mount_of(LINK_PATH), mount);
    assert_own(&target, LINK_PATH);
}

/// The record of a mount is changed while the agent is stopped. An intent alone is what an agent leaves that is killed
/// between the mount and its record. Another mount id is what a container finds after its restart.
#[test]
fn own_mount_is_recognized_by_an_intent_and_in_another_mount_namespace() {
    let _machine = Machine::start(EVERY_SECOND);
    let _link = Link::create();
    Target::create_available(EXPORT);
    let target = Target::create_available(LINK_EXPORT);
    let mount = mark(LINK_PATH).expect("mounted");
    let intent = "'$.mount_id', 0, '$.device', '', '$.source', '', '$.command_ends_by_ms', 1000000000";
    for record in [intent, "'$.mount_id', 4000000"] {
        systemctl("stop", SERVICE);
        let registry = rusqlite::Connection::open(REGISTRY).expect("opened");
        let change = format!("UPDATE own_mount SET mount = json_set(mount, {record}) WHERE target_id = ?1");
        assert_eq!(registry.execute(&change, [&target.id]).expect("changed"), 1, "the mount was stored");
        registry.close().expect("closed");
        systemctl("start", SERVICE);
        target.wait_until_available(FIRST_VERDICT);
        assert_eq!(mount_of(LINK_PATH), Some(mount.clone()), "{record}");
    }
    assert_own(&target, LINK_PATH);
}

/// A `mount.nfs` that does not end. Dropping it restores the real one.
struct HangingCommand;

impl HangingCommand {
    const PATH: &str = "/usr/sbin/lab-hanging-mount";
    /// A copy of the real one.
    const REAL: &str = "/usr/sbin/lab-mount.nfs";

    /// `has_mounted` says whether it mounts before it hangs.
    fn install(has_mounted: bool) -> Self {
        fs::copy(MOUNT_COMMAND, Self::REAL).expect("copied");
        let mounts = if has_mounted { format!("{} \"$@\"\n", Self::REAL) } else { String::new() };
        fs::write(Self::PATH, format!("#!/bin/sh\n{mounts}sleep 1000\n")).expect("written");
        fs::set_permissions(Self::PATH, fs::Permissions::from_mode(0o755)).expect("executable");
        succeed("mount", &["--bind", Self::PATH, MOUNT_COMMAND]);
        Self
    }
}

impl Drop for HangingCommand {
    fn drop(&mut self) {
        run("umount", &["--lazy", MOUNT_COMMAND]);
    }
}

/// The agent is killed while its `mount.nfs` runs. Another process then does what that command may have done, or
/// something else.
#[test]
fn mount_after_a_kill_in_mid_mount_is_own_only_in_time_with_its_options() {
    let deadline = Duration::from_secs(6);
    let (own_options, other_options) = ("nfsvers=4.2,soft,timeo=600,retrans=10", "nfsvers=4.2,hard");
    for (export, options, is_in_time, is_own) in [
        (LINK_EXPORT, own_options, true, true),
        (LINK_EXPORT, own_options, false, false),
        ("10.0.0.2:/srv/exports/three", other_options, true, false),
    ] {
        let _machine = Machine::stopped(&format!("{EVERY_SECOND}mount_deadline = \"{}s\"\n", deadline.as_secs()));
        let _link = Link::create();
        change_unit("[Service]\nRestart=no\n");
        let hanging = HangingCommand::install(false);
        systemctl("start", SERVICE);
        let target = Target::create(LINK_EXPORT);
        let agent = main_pid();
        let is_mounting = |child: &Process| child.command.contains("mount.nfs");
        eventually("mount.nfs runs", FIRST_VERDICT, || children(agent).iter().any(is_mounting).then_some(()));
        succeed("kill", &["-KILL", &agent.to_string()]);
        eventually("the agent is gone", FIRST_VERDICT, || (main_pid() == 0).then_some(()));
        drop(hanging);
        let registry = rusqlite::Connection::open(REGISTRY).expect("opened");
        let intents = "SELECT count(*) FROM own_mount WHERE target_id = ?1 AND mount ->> '$.mount_id' = 0";
        assert_eq!(registry.query_row(intents, [&target.id], |row| row.get(0)), Ok(1), "the intent is stored");
        registry.close().expect("closed");

        if !is_in_time {
            std::thread::sleep(deadline + Duration::from_secs(3));
        }
        let at = mount_path(LINK_PATH);
        succeed("mount", &["-t", "nfs4", "-o", options, export, at.to_str().expect("text")]);
        let mount = mount_of(LINK_PATH).expect("mounted");
        systemctl("start", SERVICE);
        if is_own {
            target.wait_until_available(FIRST_VERDICT);
        } else {
            target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT);
        }
        assert_eq!(mount_of(LINK_PATH), Some(mount), "the agent changed the mount");
        systemctl("stop", SERVICE);
        unmount(&at);
    }
}

#[test]
fn interrupted_check_unmounts_what_it_mounted() {
    let _machine = Machine::stopped("");
    let _link = Link::create();
    for signal in ["-TERM", "-INT"] {
        let command = HangingCommand::install(true);
        let check = Command::new("targetwatch").args(["check", "nfs", LINK_EXPORT]).stderr(Stdio::piped()).spawn();
        let check = check.expect("started");
        eventually("mounted", FIRST_VERDICT, || mount_of(LINK_PATH));
        succeed("kill", &[signal, &check.id().to_string()]);
        let ended = check.wait_with_output().expect("ended");
        let message = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{message}");
        assert!(message.contains("interrupted"), "{message}");
        assert_eq!(mount_of(LINK_PATH), None, "{message}");
        drop(command);
    }
}

/// A registry of an older release may contain such exports. New ones are refused.
#[test]
fn v4_mount_of_an_export_with_empty_and_dot_components_is_own() {
    let _machine = Machine::start(EVERY_SECOND);
    Target::create_available(EXPORT);
    let target = Target::create_available(RESOLVED);
    systemctl("stop", SERVICE);
    unmount(&mount_path("/srv/exports/two"));
    for path in ["/srv//exports/two", "//srv/exports/two", "/srv/./exports/two"] {
        let name = mount_path(path).file_name().expect("a name").to_str().expect("text").to_owned();
        let registry = rusqlite::Connection::open(REGISTRY).expect("opened");
        let change =
            "UPDATE target SET spec = json_set(spec, '$.filesystem_export', ?1), mount_name = ?2 WHERE id = ?3";
        registry.execute(change, (format!("10.0.0.2:{path}"), name, &target.id)).expect("changed");
        registry.close().expect("closed");
        systemctl("start", SERVICE);
        target.wait_until_available(FIRST_VERDICT);
        let mount = mark(path).expect("mounted");
        assert_eq!(mount.source, RESOLVED);
        kill_agent(FIRST_VERDICT);
        target.wait_until_available(FIRST_VERDICT);
        assert_eq!(mount_of(path), Some(mount));
        systemctl("stop", SERVICE);
        unmount(&mount_path(path));
    }
    systemctl("start", SERVICE);
    target.wait_until_available(FIRST_VERDICT);
    assert_eq!(target.delete().code, 202);
    assert_eq!(mount_of("/srv/./exports/two"), None);
}

#[test]
fn foreign_mount_with_the_source_of_the_own_one_is_a_conflict() {
    let _machine = Machine::start(EVERY_SECOND);
    let _link = Link::create();
    let at = mount_path(LINK_PATH);
    fs::create_dir_all(&at).expect("created");
    let mount_it = || {
        // The kernel mounts one file system on a mount point only once.
        let options = "nfsvers=4.2,soft,timeo=600,retrans=10,nosharecache";
        succeed("mount", &["-t", "nfs4", "-o", options, LINK_EXPORT, at.to_str().expect("text")]);
    };
    let mounted = || mounts().into_iter().filter(|mount| mount.path == at).collect::<Vec<_>>();
    mount_it();
    let foreign = mounted();
    let target = Target::create(LINK_EXPORT);
    target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT);
    assert_eq!(mounted(), foreign, "the agent changed the mounts");
    unmount(&at);
    target.wait_until_available(DETECTED);

    // Over the agent's own mount.
    let own = mark(LINK_PATH);
    mount_it();
    let both = mounted();
    assert!(both.len() == 2 && both.iter().all(|mount| mount.source == RESOLVED), "{both:#?}");
    target.wait_until_offline(&["mount_conflict"], DETECTED);
    assert_eq!(mounted(), both, "the agent changed the mounts");
    unmount(&at);
    target.wait_until_available(DETECTED);
    assert_eq!(mount_of(LINK_PATH), own);
}

#[test]
fn own_mount_stays_own_when_the_port_in_the_options_changes() {
    let _machine = Machine::start(EVERY_SECOND);
    start_user_server();
    Target::create_available(EXPORT);
    let target = Target::create_available(USER_EXPORT);
    let mount = mark("/srv/user");
    // At the default port, the kernel's server answers instead.
    let options = "nfsvers=4.2,hard";
    configure(&format!("{EVERY_SECOND}\n[[mounts.nfs]]\nlocation = \"10.0.0.5:*\"\noptions = \"{options}\"\n"));
    for verb in ["reload", "restart"] {
        systemctl(verb, SERVICE);
        let says = ["server_moved", "the NFS options say port 2049", "port 12049 of 10.0.0.5, which answers"];
        eventually("a warning", FIRST_VERDICT + DETECTED, || {
            let report = format!("{:?}", target.report());
            says.iter().all(|text| report.contains(text)).then_some(())
        });
        assert!(target.is_available(), "{:?}", target.report());
    }
    assert_eq!(mount_of("/srv/user"), mount, "the agent did not touch the mount in use");
    assert_eq!(target.delete().code, 202);
    assert_eq!(mount_of("/srv/user"), None);
}

#[test]
fn existing_mount_below_an_unprotected_root_is_used_and_not_unmounted() {
    let _machine = Machine::start(EVERY_SECOND);
    let target = Target::create_available(EXPORT);
    let mount = mark(PATH);
    chown(MOUNT_ROOT, Some(42436), Some(42436)).expect("an owner");
    systemctl("restart", SERVICE);
    let report = eventually("a warning", FIRST_VERDICT + DETECTED, || {
        Some(target.report()).filter(|report| report.get("reason") == "mount_point_unusable")
    });
    assert_eq!(report.get("status"), "available", "{report:?}");
    assert!(report.message().contains("belongs to user 42436"), "{report:?}");
    let answer = target.delete();
    assert_eq!(answer.code, 409, "{answer:?}");
    assert!(answer.message().contains("belongs to user 42436"), "{answer:?}");
    assert!(answer.message().contains("`chown root:root`"), "{answer:?}");
    assert_eq!(mount_of(PATH), mount);

    chown(MOUNT_ROOT, Some(0), Some(0)).expect("an owner");
    eventually("no warning", DETECTED, || target.report().get("reason").is_null().then_some(()));
    assert_eq!(target.delete().code, 202);
    assert_eq!(mount_of(PATH), None);
}

/// An automount unit of systemd. Dropping it stops it.
struct Automount {
    units: [PathBuf; 2],
    name: String,
}

impl Automount {
    fn start(at: &Path, what: &str) -> Self {
        let path = at.to_str().expect("text");
        let escaped = crate::machine::output("systemd-escape", &["--path", path]);
        let escaped = escaped.trim();
        let units =
            ["mount", "automount"].map(|kind| Path::new("/run/systemd/system").join(format!("{escaped}.{kind}")));
        let options = "nolock,soft,timeo=600,lookupcache=none,nfsvers=3,retrans=10";
        fs::write(&units[0], format!("[Mount]\nWhat={what}\nWhere={path}\nType=nfs\nOptions={options}\n"))
            .expect("written");
        fs::write(&units[1], format!("[Automount]\nWhere={path}\n")).expect("written");
        succeed("systemctl", &["daemon-reload"]);
        let name = format!("{escaped}.automount");
        systemctl("start", &name);
        Self { units, name }
    }
}

impl Drop for Automount {
    fn drop(&mut self) {
        let mount = self.name.replace(".automount", ".mount");
        for unit in [&self.name, &mount] {
            crate::machine::run("systemctl", &["stop", unit]);
        }
        for unit in &self.units {
            let _ = fs::remove_file(unit);
        }
        crate::machine::run("systemctl", &["daemon-reload"]);
    }
}

#[test]
fn idle_automount_at_the_path_is_named() {
    let _machine = Machine::start(EVERY_SECOND);
    let at = mount_path(PATH);
    fs::create_dir_all(&at).expect("created");
    let automount = Automount::start(&at, EXPORT);
    let target = Target::create(EXPORT);
    target.wait_until_offline(&["mount_conflict"], FIRST_VERDICT);
    let report = target.report();
    assert!(report.message().contains("automount point") && report.message().contains("systemctl"), "{report:?}");
    // Another program accesses it.
    let _ = fs::read_dir(&at).expect("listed").count();
    target.wait_until_available(DETECTED);
    assert!(
        target.report().get("reason").is_null(),
        "an automount point is not a stacked mount: {:?}",
        target.report()
    );
    drop(automount);
    eventually("the agent mounts the export itself", DETECTED, || mount_of(PATH));
    target.wait_until_available(DETECTED);
}
