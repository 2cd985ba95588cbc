//! `mode = "none"` with NFS version 4: servers without version 3 and a port mapper, paths, referrals and security
//! flavors. The agent leaves no client behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount2};
use nix::sys::statvfs::{Statvfs, statvfs};

use crate::api::{Report, Target};
use crate::machine::{
    FIRST_VERDICT, Machine, USER_SERVER, eventually, export_directory, output, run, start_user_server, succeed,
    systemctl,
};

/// A configuration that mounts nothing, with version 4 for every server.
const WIRE_V4: &str = r#"
[mounts]
mode = "none"
nfs_options = "nfsvers=4,soft"

[probe]
nfs_interval = "1s"
"#;

/// Time limit of detection: a few intervals and a probe.
const DETECTED: Duration = Duration::from_secs(6);

/// Waits until the server has no client whose name is that of the agent. A probe in progress has one, and a client that
/// was not destroyed stays for a lease, which is much longer than [`DETECTED`].
pub fn wait_until_no_client_is_left() {
    let clients = || {
        let clients = fs::read_dir("/proc/fs/nfsd/clients").expect("a list");
        let infos = clients.filter_map(|client| fs::read_to_string(client.expect("a client").path().join("info")).ok());
        infos.filter(|info| info.contains("targetwatch ")).collect::<Vec<_>>()
    };
    let mut seen = Vec::new();
    eventually("no client of the agent", DETECTED, || {
        let found = clients();
        if found != seen {
            eprintln!("{found:#?}");
            seen.clone_from(&found);
        }
        found.is_empty().then_some(())
    });
}

/// Asserts that the export was verified with this version.
fn assert_version(report: &Report, version: &str) {
    let detail = report.check("exported")["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(&format!("over the wire with NFS {version}")), "{report:?}");
}

/// Probes an export once that must be available. Returns the report.
fn available(export: &str) -> Report {
    let target = Target::create(export);
    target.wait_until_available(FIRST_VERDICT);
    let report = target.check();
    assert_eq!(target.delete().code, 202);
    report
}

/// Waits until an export is offline with a reason. Returns the report.
fn offline(export: &str, reason: &str) -> Report {
    let target = Target::create(export);
    target.wait_until_offline(&[reason], DETECTED);
    let report = target.report();
    assert_eq!(target.delete().code, 202);
    report
}

/// Versions of the kernel's server, until the end of the test.
struct Versions {
    before: String,
}

impl Versions {
    fn set(changes: &str) -> Self {
        let versions = Self { before: fs::read_to_string("/proc/fs/nfsd/versions").expect("the versions") };
        Self::write(changes);
        versions
    }

    /// Versions can be changed while no thread runs.
    fn write(changes: &str) {
        fs::write("/proc/fs/nfsd/threads", "0").expect("stopped");
        fs::write("/proc/fs/nfsd/versions", changes).expect("changed");
        fs::write("/proc/fs/nfsd/threads", "4").expect("started");
        fs::write("/proc/fs/nfsd/v4_end_grace", "Y").expect("ended");
    }
}

impl Drop for Versions {
    fn drop(&mut self) {
        Self::write(&self.before);
    }
}

/// Makes the port mapper silent until the end of the test.
struct SilentPortMapper;

impl SilentPortMapper {
    fn start() -> Self {
        Self::signal("-STOP");
        Self
    }

    fn signal(signal: &str) {
        run("kill", &[signal, output("pidof", &["rpcbind"]).trim()]);
    }
}

impl Drop for SilentPortMapper {
    fn drop(&mut self) {
        Self::signal("-CONT");
    }
}

#[test]
fn v4_server_without_a_port_mapper_is_measured_to_the_byte() {
    let _machine = Machine::start(WIRE_V4);
    let (_versions, _port_mapper) = (Versions::set("-3\n"), SilentPortMapper::start());
    for name in ["one", "two"] {
        let directory = export_directory(name);
        fs::write(directory.join("backup.img"), vec![7; 5_000_001]).expect("written");
        succeed("sync", &[]);
        let target = Target::create_available(&format!("10.0.0.1:/srv/exports/{name}"));
        let report = target.check_until_measured(&directory);
        assert_eq!(target.delete().code, 202);
        let counts = statvfs(&directory).expect("measured");
        let for_root = (counts.blocks_free() - counts.blocks_available()) * counts.fragment_size();
        let [capacity, used, available] = ["capacity_bytes", "used_bytes", "available_bytes"]
            .map(|key| report.get(key).as_u64().unwrap_or_else(|| panic!("{key}: {report:?}")));
        assert_eq!(available, capacity - used - for_root, "{report:?}");
        assert_eq!(report.get("inodes").as_u64(), Some(counts.files()), "{report:?}");
        assert_version(&report, "4.2");
        wait_until_no_client_is_left();

        // The kernel's client rounds each count up to its unit.
        let at = Path::new("/mnt/compared");
        fs::create_dir_all(at).expect("created");
        let (from, options) = (format!("10.0.0.1:/srv/exports/{name}"), "vers=4.2,addr=10.0.0.1,clientaddr=10.0.0.1");
        mount(Some(from.as_str()), at, Some("nfs4"), MsFlags::empty(), Some(options)).expect("mounted");
        eventually("the kernel's client counts the same", FIRST_VERDICT, || {
            let (exact, rounded) = (statvfs(&directory).expect("measured"), statvfs(at).expect("measured"));
            let counts: [fn(&Statvfs) -> u64; 3] = [Statvfs::blocks, Statvfs::blocks_available, Statvfs::blocks_free];
            let (from, to) = (exact.fragment_size(), rounded.fragment_size());
            counts.iter().all(|count| (count(&exact) * from).div_ceil(to) == count(&rounded)).then_some(())
        });
        umount2(at, nix::mount::MntFlags::empty()).expect("unmounted");
    }
}

#[test]
fn minor_version_of_the_options_is_used() {
    let of_target = |minor| {
        let path = format!("10.0.0.{}:/srv/exports/one", minor + 6);
        format!("[[mounts.nfs]]\nlocation = \"{path}\"\noptions = \"nfsvers=4.{minor}\"\n")
    };
    let _machine = Machine::start(&format!("{WIRE_V4}{}{}{}", of_target(0), of_target(1), of_target(2)));
    {
        let _versions = Versions::set("+4.0 +4.1 +4.2\n");
        for (server, version) in [("10.0.0.1", "4.2"), ("10.0.0.6", "4.0"), ("10.0.0.7", "4.1"), ("10.0.0.8", "4.2")] {
            assert_version(&available(&format!("{server}:/srv/exports/one")), version);
        }
    }
    let _versions = Versions::set("+4.0 -4.1 -4.2\n");
    assert_version(&available("10.0.0.1:/srv/exports/one"), "4.0");
    let report = offline("10.0.0.7:/srv/exports/one", "nfs_version_unsupported");
    assert!(report.message().contains("does not speak NFS 4.1: set nfsvers="), "{report:?}");
    wait_until_no_client_is_left();
}

#[test]
fn v4_paths_begin_at_the_root_of_the_server() {
    let _machine = Machine::start(WIRE_V4);
    let one = export_directory("one");
    fs::create_dir_all(one.join("below/deeper")).expect("created");
    for directory in ["below", "below/deeper"] {
        fs::set_permissions(one.join(directory), fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    symlink("/srv/exports/one/below", one.join("absolute")).expect("linked");
    symlink("../one/./below/../below", one.join("relative")).expect("linked");
    symlink("loop", one.join("loop")).expect("linked");
    fs::write(one.join("file"), "").expect("written");
    for path in ["/srv/exports/one/absolute/deeper", "/srv/exports/one/relative", "/srv/exports/one/below/"] {
        available(&format!("10.0.0.1:{path}"));
    }
    // The root of the server is exported read-only.
    offline("10.0.0.1:/", "read_only");
    for (path, part) in [
        ("/srv/nfs4/srv/exports/one", "(nfs4: NFS4ERR_NOENT)"),
        ("/srv/exports/one/file", "(file: NFS4ERR_NOTDIR)"),
        ("/srv/exports/one/loop", "too many symbolic links"),
    ] {
        let report = offline(&format!("10.0.0.1:{path}"), "export_not_found");
        assert!(report.message().contains(part), "{report:?}");
    }
    wait_until_no_client_is_left();
}

#[test]
fn referral_names_the_other_server() {
    let _machine = Machine::start(WIRE_V4);
    let options = "ro,fsid=103,no_subtree_check,refer=/backups/x@nas2.example:/backups/x@10.0.0.9";
    succeed("exportfs", &["-o", options, "*:/srv/nfs4/srv/exports/three"]);
    let report = offline("10.0.0.1:/srv/exports/three", "export_moved");
    for part in ["nas2.example:/backups/x", "10.0.0.9:/backups/x"] {
        assert!(report.message().contains(part), "{report:?}");
    }
    wait_until_no_client_is_left();
}

#[test]
fn export_that_demands_kerberos_is_named_over_the_wire() {
    let _machine =
        Machine::start(&format!("{WIRE_V4}[[mounts.nfs]]\nlocation = \"10.0.0.3:*\"\noptions = \"nfsvers=3\"\n"));
    run("modprobe", &["rpcsec_gss_krb5"]);
    succeed("exportfs", &["-o", "rw,fsid=101,no_subtree_check,sec=krb5", "*:/srv/nfs4/srv/exports/one"]);
    for server in ["10.0.0.1", "10.0.0.3"] {
        let report = offline(&format!("{server}:/srv/exports/one"), "nfs_access_refused");
        assert!(report.message().contains("does not accept AUTH_SYS"), "{report:?}");
        assert!(report.message().contains("demands Kerberos (sec=krb5"), "{report:?}");
    }
    wait_until_no_client_is_left();
}

#[test]
fn withdrawn_v4_export_is_reported_and_recovers() {
    let _machine = Machine::start(WIRE_V4);
    let target = Target::create_available("10.0.0.1:/srv/exports/one");
    // With only this export withdrawn, the path is a directory of the root that the server exports.
    succeed("exportfs", &["-ua"]);
    // The server then knows no client of this address.
    target.wait_until_offline(&["nfs_access_refused"], DETECTED);
    assert!(target.report().message().contains("allow this host in the export"), "{:?}", target.report());
    succeed("exportfs", &["-ra"]);
    target.wait_until_available(DETECTED);
    // A directory of the server's root is seen at the path.
    succeed("exportfs", &["-u", "*:/srv/nfs4/srv/exports/one"]);
    target.wait_until_offline(&["export_not_found"], DETECTED);
    assert!(target.report().message().contains("an export of its own before"), "{:?}", target.report());
    succeed("exportfs", &["-ra"]);
    target.wait_until_available(DETECTED);
    wait_until_no_client_is_left();
}

#[test]
fn negotiated_version_is_that_of_mount() {
    let _machine = Machine::start(&WIRE_V4.replace("nfsvers=4,", ""));
    for (path, version) in [("/srv/exports/one", "4.2"), ("/srv/nfs4/srv/exports/one", "3")] {
        let report = available(&format!("10.0.0.1:{path}"));
        assert_version(&report, version);
    }
}

#[test]
fn ganesha_is_verified_over_the_wire() {
    let _machine = Machine::start(WIRE_V4);
    start_user_server();
    let counts = statvfs("/srv/user").expect("measured");
    let target = Target::create_available("10.0.0.5:/srv/user");
    let report = target.check_until_measured(Path::new("/srv/user"));
    assert_eq!(report.get("inodes").as_u64(), Some(counts.files()), "{report:?}");
    succeed("systemctl", &["kill", "--signal", "STOP", USER_SERVER]);
    target.wait_until_offline(&["response_timed_out"], Duration::from_secs(12));
    succeed("systemctl", &["kill", "--signal", "CONT", USER_SERVER]);
    target.wait_until_available(DETECTED);
    systemctl("stop", USER_SERVER);
    assert!(!output("journalctl", &["--unit", "targetwatch.service"]).contains("panicked"));
}
