//! The Debian package: installation, first start, upgrade while a mount is in use, removal, purge.
//!
//! `tests/lab/boot --package` puts the package into the lab. The test ends with the package installed, so that the
//! tests after it use the packaged agent.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use crate::api::{Target, get, wait_until_answering};
use crate::machine::{
    CONFIG, EVERY_SECOND, EXPORT, FIRST_VERDICT, Machine, PATH, REGISTRY, SERVICE, configure, eventually,
    export_directory, main_pid, mark, mount_of, mount_path, output, run, succeed, systemctl, unit_property,
    wait_until_restarted,
};
use crate::process::workers;

/// The package.
pub const PACKAGE: &str = "/lab/targetwatch.deb";
/// The program of the agent's workers.
const WORKER_PROGRAM: &str = "/usr/libexec/targetwatch/targetwatch-probe-worker";
/// The unit of the aggregator, and its configuration.
const AGGREGATOR: &str = "targetwatch-aggregate.service";
const AGGREGATOR_CONFIG: &str = "/etc/targetwatch/aggregate.toml";
/// What `tests/lab/guest/init` installs, and the package replaces.
const INSTALLED_BY_HAND: [&str; 5] = [
    "/usr/bin/targetwatch",
    WORKER_PROGRAM,
    "/usr/lib/systemd/system/targetwatch.service",
    "/usr/lib/sysusers.d/targetwatch.conf",
    "/usr/lib/tmpfiles.d/targetwatch.conf",
];

/// Removes the package, if an earlier test installed it, or else the agent that `tests/lab/guest/init` installed.
/// Returns false if the lab has no package to install.
pub fn uninstall() -> bool {
    if !Path::new(PACKAGE).exists() {
        eprintln!("left out: the lab has no package (--package of tests/lab/boot)");
        return false;
    }
    dpkg(&["--purge", "targetwatch"]);
    succeed("rm", &[&["--force"][..], &INSTALLED_BY_HAND].concat());
    succeed("rm", &["-rf", "/etc/targetwatch", "/var/lib/targetwatch"]);
    succeed("systemctl", &["daemon-reload"]);
    true
}

/// Runs dpkg, without the triggers of other packages, such as the index of all manual pages.
fn dpkg(arguments: &[&str]) {
    succeed("dpkg", &[&["--no-triggers", "--force-confold"], arguments].concat());
}

/// The version of the package in the package database.
fn installed_version() -> String {
    output("dpkg-query", &["--show", "--showformat=${Version}", "targetwatch"])
}

/// Waits until the machine has probe workers, and all of them execute the installed program.
fn wait_until_workers_execute_installed_program() {
    let is_installed =
        |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == Path::new(WORKER_PROGRAM));
    eventually("workers execute the installed program", FIRST_VERDICT, || {
        let workers = workers();
        (!workers.is_empty() && workers.iter().all(|worker| is_installed(worker.pid))).then_some(())
    });
}

/// Builds the same package with the next revision, which dpkg installs as an upgrade.
fn next_package() -> &'static str {
    let (directory, next) = ("/root/next", "/root/next.deb");
    succeed("dpkg-deb", &["--raw-extract", PACKAGE, directory]);
    let control = Path::new(directory).join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("read");
    let version = text.lines().find(|line| line.starts_with("Version: ")).expect("a version").to_owned();
    fs::write(&control, text.replace(&version, &format!("{version}+next"))).expect("written");
    succeed("dpkg-deb", &["--build", "-Znone", directory, next]);
    next
}

/// Starts the aggregator of the package, which polls the agent.
fn aggregate_in_its_unit() {
    let config =
        "[api]\nlisten = [\"127.0.0.1:8782\"]\n[aggregate]\nnodes = [\"http://127.0.0.1\"]\ninterval = \"1s\"\n";
    fs::write(AGGREGATOR_CONFIG, config).expect("written");
    systemctl("start", AGGREGATOR);
    let status = ["--api", "http://127.0.0.1:8782", "status", "--fleet"];
    eventually("the target is available on the node", FIRST_VERDICT, || {
        let status = run("targetwatch", &status);
        (status.status.success() && String::from_utf8_lossy(&status.stdout).contains("1/1")).then_some(())
    });
    let pid = output("systemctl", &["show", "--property=MainPID", "--value", AGGREGATOR]);
    let user = output("stat", &["--format=%u", &format!("/proc/{}", pid.trim())]);
    assert!(user.trim().parse::<u32>().is_ok_and(|user| user != 0), "it runs as the user {user}");
    fs::remove_file(AGGREGATOR_CONFIG).expect("removed");
}

#[test]
fn package_keeps_mounts_when_it_is_upgraded_removed_and_purged() {
    let _machine = Machine::stopped("");
    if !uninstall() {
        return;
    }

    dpkg(&["--install", PACKAGE]);
    assert_eq!(unit_property("ActiveState"), "inactive", "an administrator starts the agent");
    assert_eq!(unit_property("UnitFileState"), "disabled");
    let sample = fs::read_to_string(CONFIG).expect("the sample");
    assert!(sample.contains("\n[probe]\n"), "{sample}");
    assert!(output("getent", &["group", "targetwatch"]).starts_with("targetwatch:"));
    assert!(output("targetwatch", &["--version"]).contains("\nrevision: "));
    for program in ["/usr/bin/targetwatch", WORKER_PROGRAM] {
        // The section of the list of libraries.
        succeed("grep", &["--quiet", "--text", "--fixed-strings", ".dep-v0", program]);
    }
    for page in ["man1/targetwatch.1.gz", "man5/targetwatch.toml.5.gz", "man7/targetwatch-reasons.7.gz"] {
        assert!(Path::new("/usr/share/man").join(page).exists(), "{page}");
    }
    // The first start with the configuration as it is, and then with that of the lab.
    succeed("systemctl", &["enable", "--now", SERVICE]);
    wait_until_answering(FIRST_VERDICT);
    configure(EVERY_SECOND);
    systemctl("restart", SERVICE);
    let target = Target::create_available(EXPORT);
    wait_until_workers_execute_installed_program();
    aggregate_in_its_unit();
    let mount = mark(PATH);
    let (pid, version) = (main_pid(), installed_version());
    let mut backup = File::create(mount_path(PATH).join("backup.img")).expect("created");

    dpkg(&["--install", next_package()]);
    assert_eq!(installed_version(), format!("{version}+next"));
    wait_until_restarted(pid, FIRST_VERDICT);
    wait_until_answering(FIRST_VERDICT);
    target.wait_until_available(FIRST_VERDICT);
    wait_until_workers_execute_installed_program();
    backup.write_all(b"half").expect("the mount is in use");
    backup.sync_all().expect("written");
    assert_eq!(mount_of(PATH), mount, "the same mount");
    assert_eq!(fs::read(export_directory("one").join("backup.img")).expect("read"), b"half");
    assert!(fs::read_to_string(CONFIG).expect("read").starts_with(EVERY_SECOND), "the configuration stays");

    dpkg(&["--remove", "targetwatch"]);
    assert!(INSTALLED_BY_HAND.iter().all(|path| !Path::new(path).exists()), "the package's files are removed");
    for unit in [SERVICE, AGGREGATOR] {
        assert!(!run("systemctl", &["is-active", unit]).status.success(), "{unit} is stopped");
    }
    assert_eq!(mount_of(PATH), mount, "it stays after the removal");
    assert!(Path::new(REGISTRY).exists() && Path::new(CONFIG).exists());

    dpkg(&["--install", PACKAGE]);
    systemctl("start", SERVICE);
    wait_until_answering(FIRST_VERDICT);
    target.wait_until_available(FIRST_VERDICT);
    assert_eq!(mount_of(PATH), mount, "the agent adopts it");

    fs::write("/etc/targetwatch/api.token", "0123456789abcdef").expect("written");
    dpkg(&["--purge", "targetwatch"]);
    backup.write_all(b" done").expect("the mount is in use");
    backup.sync_all().expect("written");
    assert_eq!(mount_of(PATH), mount, "it stays after the purge");
    assert!(!Path::new("/var/lib/targetwatch").exists() && !Path::new(CONFIG).exists());
    assert!(Path::new("/etc/targetwatch/api.token").exists(), "a file of the administrator");
    drop(backup);

    dpkg(&["--install", PACKAGE]);
    systemctl("start", SERVICE);
    wait_until_answering(FIRST_VERDICT);
    let targets = eventually("a list", FIRST_VERDICT, || Some(get("/backup_targets")));
    assert_eq!(targets["backup_targets"].as_array().map(Vec::len), Some(0), "{targets}");
    fs::remove_file("/etc/targetwatch/api.token").expect("removed");
}
