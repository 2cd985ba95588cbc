//! The machine of the lab, reset to a known state, and the faults that tests inject.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

use crate::api;

/// Where the agent mounts.
pub const MOUNT_ROOT: &str = "/var/trilio/triliovault-mounts";
/// Where the agent mounts with `mode = "observe"`.
pub const PRIVATE_ROOT: &str = "/run/targetwatch-mounts";
/// The agent's configuration.
pub const CONFIG: &str = "/etc/targetwatch/config.toml";
/// The agent's registry.
pub const REGISTRY: &str = "/var/lib/targetwatch/registry.db";
/// The agent's unit.
pub const SERVICE: &str = "targetwatch.service";
/// The unit of the kernel's NFS server.
pub const NFS_SERVER: &str = "lab-nfs-server.service";
/// The path that most tests export.
pub const PATH: &str = "/srv/exports/one";
/// The export of [`PATH`] by the kernel's server, over NFSv3.
pub const EXPORT: &str = "10.0.0.1:/srv/exports/one";
/// The unit of the NFS server in user space.
pub const USER_SERVER: &str = "lab-user-server.service";
/// The export of the server in user space.
pub const USER_EXPORT: &str = "10.0.0.5:/srv/user";
/// The hosts file of the lab.
const HOSTS: &str = "127.0.0.1 localhost lab\n";
/// The systemd drop-in with the unit settings that a test changes.
const DROP_IN: &str = "/run/systemd/system/targetwatch.service.d/lab.conf";

/// Time limit of a target's first verdict.
pub const FIRST_VERDICT: Duration = Duration::from_secs(5);
/// Time limit of the preparation of a test, which is no promise of the agent. Beside a load on the host, two mounts at
/// once take longer than [`FIRST_VERDICT`].
pub const PREPARED: Duration = Duration::from_secs(15);
/// Time limit of recovery from a change of the mount table.
pub const HEALED: Duration = Duration::from_secs(2);
/// Time limit of start and stop, whatever storage does.
pub const UP_OR_DOWN: Duration = Duration::from_secs(2);
/// Time limit of an API answer, whatever storage does.
pub const ANSWER: Duration = Duration::from_millis(100);
/// Time limit until two consecutive timeouts of 2 s make a target offline, at probe intervals of 1 s.
pub const TIMED_OUT: Duration = Duration::from_secs(12);

/// NFSv4.2 for the server at `10.0.0.2`, and the default options (NFSv3) for all others.
const BASE_CONFIG: &str = r#"
[[mounts.nfs]]
location = "10.0.0.2:*"
options = "nfsvers=4.2,soft,timeo=600,retrans=10"

[[mounts.nfs]]
location = "10.0.0.5:*"
options = "nfsvers=4.2,port=12049,hard"

[probe.canary]
uid = 42436
gid = 42436
"#;

/// A configuration with a probe every second.
pub const EVERY_SECOND: &str = "[probe]\nnfs_interval = \"1s\"\n";
/// A configuration with an interval longer than any test. Only an event can cause a probe.
pub const EVERY_HOUR: &str = "[probe]\nnfs_interval = \"1h\"\n";

/// A configuration with a probe every second and only hard mounts, which hang as long as their server does. Most
/// administrators choose hard mounts for important data.
pub const HARD: &str = r#"
[mounts]
nfs_options = "nolock,hard,timeo=600,nfsvers=3,retrans=10"

[probe]
nfs_interval = "1s"

[[mounts.nfs]]
location = "10.0.0.2:*"
options = "nfsvers=4.2,hard,timeo=600,retrans=10"
"#;

/// A machine with a running agent without targets. Dropping it repairs what a test broke.
pub struct Machine {
    _private: (),
}

impl Machine {
    /// Starts the agent with an empty registry. Adds `config` to the common configuration.
    pub fn start(config: &str) -> Self {
        let machine = Self::stopped(config);
        systemctl("start", SERVICE);
        machine
    }

    /// Does the same without starting the agent.
    pub fn stopped(config: &str) -> Self {
        let machine = Self { _private: () };
        machine.reset();
        systemctl("is-active", NFS_SERVER);
        configure(config);
        machine
    }

    /// Restores the known state. Never panics, since it also runs while a failed test unwinds.
    fn reset(&self) {
        for discipline in ["clsact", "root"] {
            run("tc", &["qdisc", "del", "dev", "lo", discipline]);
        }
        // A failed test may have left the NFS server without threads or versions, which the next tests need.
        let has_threads = fs::read_to_string("/proc/fs/nfsd/threads").is_ok_and(|threads| threads.trim() != "0");
        let has_3 = fs::read_to_string("/proc/fs/nfsd/versions").is_ok_and(|versions| !versions.contains("-3"));
        run("systemctl", &[if has_threads && has_3 { "start" } else { "restart" }, NFS_SERVER]);
        run("exportfs", &["-ra"]);
        // A stopped server must continue before its mounts can be removed.
        run("systemctl", &["kill", "--signal", "CONT", USER_SERVER]);
        run("systemctl", &["stop", SERVICE]);
        if fs::remove_file(DROP_IN).is_ok() {
            run("systemctl", &["daemon-reload"]);
        }
        run("systemctl", &["reset-failed", SERVICE]);
        let is_of_agent = |mount: &&Mount| [MOUNT_ROOT, PRIVATE_ROOT].iter().any(|root| mount.path.starts_with(root));
        for mount in mounts().iter().rev().filter(is_of_agent) {
            // The bare system call, because umount(8) would access the mounted file system.
            let _ = umount2(&mount.path, MntFlags::MNT_DETACH | MntFlags::MNT_FORCE);
        }
        run("systemctl", &["stop", USER_SERVER]);
        for directory in [MOUNT_ROOT, PRIVATE_ROOT, "/var/lib/targetwatch"] {
            empty(Path::new(directory));
        }
        for export in ["one", "two", "three"] {
            empty(&export_directory(export));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log =
                output("journalctl", &["--no-pager", "--output=short-monotonic", "--lines=40", "--unit", SERVICE]);
            eprintln!("the end of the agent's log:\n{log}");
            eprintln!("targets: {}", api::request("GET", "/backup_targets/detail", None).text);
        }
        self.reset();
    }
}

/// Writes the configuration without reloading the agent.
pub fn configure(config: &str) {
    fs::create_dir_all("/etc/targetwatch").expect("created");
    fs::write(CONFIG, format!("{config}{BASE_CONFIG}")).expect("written");
}

/// Removes the record of the agent's own mounts from the registry, as if an older release had made them. The agent must
/// be stopped.
pub fn forget_own_mounts() {
    let registry = rusqlite::Connection::open(REGISTRY).expect("opened");
    assert!(registry.execute("DELETE FROM own_mount", ()).expect("changed") > 0, "no mount was stored");
    registry.close().expect("closed");
}

/// Adds settings to the agent's unit.
pub fn change_unit(settings: &str) {
    let path = Path::new(DROP_IN);
    fs::create_dir_all(path.parent().expect("a directory")).expect("created");
    fs::write(path, settings).expect("written");
    succeed("systemctl", &["daemon-reload"]);
}

/// Additional lines of the hosts file, which the lab's resolver reads. Dropping it removes them.
pub struct HostsFile;

impl HostsFile {
    /// Replaces the additional lines.
    pub fn with(lines: &str) -> Self {
        fs::write("/etc/hosts", format!("{HOSTS}{lines}\n")).expect("written");
        Self
    }
}

impl Drop for HostsFile {
    fn drop(&mut self) {
        let _ = fs::write("/etc/hosts", HOSTS);
    }
}

/// The server's directory of the export `/srv/exports/<name>`.
pub fn export_directory(name: &str) -> PathBuf {
    Path::new("/srv/exports").join(name)
}

/// The mount path of an exported path.
pub fn mount_path(path: &str) -> PathBuf {
    Path::new(MOUNT_ROOT).join(STANDARD.encode(path))
}

/// Drops every packet to an address of this machine until the end of the test.
pub fn black_hole(address: &str) {
    run("tc", &["qdisc", "add", "dev", "lo", "clsact"]);
    let target = format!("{address}/32");
    succeed(
        "tc",
        &[
            "filter", "add", "dev", "lo", "ingress", "protocol", "ip", "u32", "match", "ip", "dst", &target, "action",
            "drop",
        ],
    );
}

/// Drops every packet of 128 bytes or more to an address of this machine until the end of the test.
/// Connections and RPC NULL calls succeed, and other calls get no answer.
pub fn black_hole_data(address: &str) {
    run("tc", &["qdisc", "add", "dev", "lo", "clsact"]);
    let target = format!("{address}/32");
    // The length of an IP packet is at byte 2. Filters cannot compare sizes, so there is one filter for each
    // bit that is set in lengths of 128 bytes and more.
    for bit in 7..16 {
        let bits = format!("{:#06x}", 1 << bit);
        succeed(
            "tc",
            &[
                "filter", "add", "dev", "lo", "ingress", "protocol", "ip", "u32", "match", "ip", "dst", &target,
                "match", "u16", &bits, &bits, "at", "2", "action", "drop",
            ],
        );
    }
}

/// Starts the NFS server in user space.
pub fn start_user_server() {
    systemctl("start", USER_SERVER);
    eventually("the server in user space listens", UP_OR_DOWN * 5, || {
        std::net::TcpStream::connect("10.0.0.5:12049").ok().map(drop)
    });
}

/// Sends a signal to the NFS server in user space.
pub fn signal_user_server(signal: &str) {
    succeed("systemctl", &["kill", "--signal", signal, USER_SERVER]);
}

/// Ends every black hole.
pub fn end_black_holes() {
    succeed("tc", &["qdisc", "del", "dev", "lo", "clsact"]);
}

/// One line of the host's mount table (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id. The kernel reuses free ids, so the id alone does not identify a new mount.
    pub id: u64,
    /// Mount point.
    pub path: PathBuf,
    /// Options of this mount.
    pub flags: String,
    /// Type of the file system.
    pub kind: String,
    /// Source, such as the export.
    pub source: String,
    /// Options of the file system, which its mounts share.
    pub options: String,
}

/// The mounts as the first process of the machine sees them, oldest first.
pub fn mounts() -> Vec<Mount> {
    let table = fs::read_to_string("/proc/1/mountinfo").expect("the mount table");
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let (left, right): (Vec<_>, Vec<_>) = (left.split(' ').collect(), right.split(' ').collect());
        Some(Mount {
            id: left.first()?.parse().ok()?,
            path: left.get(4)?.into(),
            flags: (*left.get(5)?).to_owned(),
            kind: (*right.first()?).to_owned(),
            source: (*right.get(1)?).to_owned(),
            options: (*right.get(2)?).to_owned(),
        })
    };
    table.lines().map(|line| parse(line).unwrap_or_else(|| panic!("a mount was expected: {line}"))).collect()
}

/// The mount at the mount path of an exported path. Panics when there is more than one.
pub fn mount_of(path: &str) -> Option<Mount> {
    let at = mount_path(path);
    let mut found: Vec<Mount> = mounts().into_iter().filter(|mount| mount.path == at).collect();
    assert!(found.len() <= 1, "stacked mounts: {found:#?}");
    found.pop()
}

/// Marks the mount of an exported path with an unusual mount flag, which distinguishes it from later mounts.
pub fn mark(path: &str) -> Option<Mount> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RELATIME | MsFlags::MS_NODIRATIME;
    mount(None::<&str>, &mount_path(path), None::<&str>, flags, None::<&str>).expect("marked");
    let marked = mount_of(path);
    assert!(marked.as_ref().is_some_and(|mount| mount.flags.contains("nodiratime")), "{marked:?}");
    marked
}

/// Size and used space of the file system at a path, in bytes.
pub fn measure(path: &Path) -> (u64, u64) {
    let counts = statvfs(path).expect("measured");
    let unit = counts.fragment_size();
    (counts.blocks() * unit, (counts.blocks() - counts.blocks_free()) * unit)
}

/// Whether the long tests run in full length.
pub fn is_long() -> bool {
    std::env::var_os("LAB_LONG").is_some()
}

/// Unmounts a directory, and retries while the agent's probes use it.
pub fn unmount(at: &Path) {
    let at = at.to_str().expect("text");
    eventually(&format!("{at} unmounted"), UP_OR_DOWN, || run("umount", &[at]).status.success().then_some(()));
}

/// A property of the agent's unit, as `systemctl show` prints it.
pub fn unit_property(name: &str) -> String {
    let value = output("systemctl", &["show", "--value", "--property", name, SERVICE]);
    value.trim().to_owned()
}

/// The process id of the agent. 0 while it does not run.
pub fn main_pid() -> u32 {
    unit_property("MainPID").parse().expect("a process id")
}

/// Kills the agent (SIGKILL), and waits until systemd has restarted it and it answers.
pub fn kill_agent(limit: Duration) {
    let killed = main_pid();
    succeed("kill", &["-KILL", &killed.to_string()]);
    wait_until_restarted(killed, limit);
    api::wait_until_answering(limit);
}

/// Waits until the agent runs as another process than this one.
pub fn wait_until_restarted(pid: u32, limit: Duration) {
    eventually("the agent restarted", limit, || (![0, pid].contains(&main_pid())).then_some(()));
}

/// The last lines of the agent's log.
pub fn log(lines: usize) -> String {
    output("journalctl", &["--no-pager", "--output=cat", &format!("--lines={lines}"), "--unit", SERVICE])
}

/// Whether a reason is expected right after a server stops. The stop may break a connection with a pending request.
pub fn is_expected_after_stop(reason: Option<&str>) -> bool {
    matches!(reason, Some("connection_refused" | "connection_broken"))
}

/// Polls until there is a result.
pub fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Starts, stops, restarts or reloads a unit, which must succeed. Returns how long it took.
pub fn systemctl(verb: &str, unit: &str) -> Duration {
    succeed("systemctl", &[verb, unit])
}

/// Runs a command that must succeed, and returns how long it took.
pub fn succeed(program: &str, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    let output = run(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    start.elapsed()
}

/// Runs a command, and returns its standard output.
pub fn output(program: &str, arguments: &[&str]) -> String {
    String::from_utf8_lossy(&run(program, arguments).stdout).into_owned()
}

/// Runs a command, and returns its exit status and output.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn empty(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("lost+found")) {
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}
