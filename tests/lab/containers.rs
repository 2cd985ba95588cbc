//! The container image, run by podman as `packaging/container/targetwatch.service` says, beside a container of a
//! program that uses the backups.
//!
//! `tests/lab/boot --images` gives the lab the image.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::api::{Target, request, wait_until_answering};
use crate::machine::{
    EXPORT, MOUNT_ROOT, Machine, PATH, PREPARED, PRIVATE_ROOT, SERVICE, eventually, mark, mount_of, mount_path, mounts,
    output, run, succeed, systemctl, unmount,
};
use crate::process::mount_namespace;

/// Contains the path of podman's storage with the image. The storage is read-only in the lab.
const IMAGES: &str = "/lab/images";
const UNIT: &str = "/lab/container/targetwatch.service";
const INSTALLED_UNIT: &str = "/etc/systemd/system/targetwatch.service";
/// The volume of the unit.
const SHARED: &str = "/var/trilio:/var/trilio:shared";
/// Storage of podman in memory, because overlayfs cannot write to the overlay root of the lab.
const STORAGE: &str = "/var/lib/containers";

/// The private mounts stay, so that the test can look for them.
const CONFIG: &str = "[probe]\nnfs_interval = \"1s\"\n[mounts]\nkeep_private_mounts = true\n";
const OBSERVED: &str = "10.0.0.1:/srv/exports/two";

/// Podman with the image, and the unit of the container in place of the agent's. Dropping it removes both.
pub struct Podman {
    unit: String,
    image: String,
}

impl Podman {
    /// Returns `None` if the lab has no image.
    pub fn prepare() -> Option<Self> {
        let Ok(images) = fs::read_to_string(IMAGES) else {
            eprintln!("left out: the lab has no image (--images of tests/lab/boot)");
            return None;
        };
        fs::create_dir_all(STORAGE).expect("created");
        mount(Some("tmpfs"), STORAGE, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounted");
        fs::create_dir_all("/etc/containers").expect("created");
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{STORAGE}/storage\"\nrunroot = \"/run/containers/storage\"\n\
             [storage.options]\nadditionalimagestores = [\"{images}\"]\n"
        );
        fs::write("/etc/containers/storage.conf", storage).expect("written");
        let unit = fs::read_to_string(UNIT).expect("read");
        assert!(unit.contains(SHARED), "{unit}");
        let image = unit.split_whitespace().find(|word| word.starts_with("localhost/")).expect("an image").to_owned();
        Some(Self { unit, image })
    }

    /// Installs the unit with another volume instead of [`SHARED`].
    fn install_unit(&self, volume: &str) {
        fs::write(INSTALLED_UNIT, self.unit.replace(SHARED, volume)).expect("written");
        succeed("systemctl", &["daemon-reload"]);
    }

    /// Starts a container that sleeps under the name of a program that uses the backups, and returns its process.
    fn start_consumer(&self) -> u32 {
        let program = "/usr/bin/sleep:/nova-compute:ro";
        let options = ["run", "--detach", "--rm", "--name", "nova_compute", "--network", "none", "--cgroups=disabled"];
        let volumes = ["--volume", SHARED, "--volume", program, "--entrypoint", "/nova-compute"];
        succeed("podman", &[&options[..], &volumes, &[&self.image, "600"]].concat());
        pid_of("nova_compute")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        run("systemctl", &["stop", SERVICE]);
        run("podman", &["kill", "nova_compute"]);
        let _ = fs::remove_file(INSTALLED_UNIT);
        run("systemctl", &["daemon-reload"]);
        run("umount", &["--lazy", STORAGE]);
    }
}

/// The first process of a container.
fn pid_of(container: &str) -> u32 {
    let pid = output("podman", &["inspect", "--format", "{{.State.Pid}}", container]);
    pid.trim().parse().unwrap_or_else(|error| panic!("{container}: {pid}: {error}"))
}

/// The agent's process. The process table names it much faster than podman does.
fn agent_pid() -> Option<u32> {
    output("pgrep", &["--full", "--exact", "/usr/bin/targetwatch serve"]).trim().parse().ok()
}

/// The paths below a directory at which a process sees mounts of NFS 3.
fn nfs_mounts_below(directory: &str, pid: u32) -> Vec<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("the mount table");
    let nfs = table.lines().filter(|line| line.contains(" - nfs "));
    let paths = nfs.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    paths.filter(|path| path.starts_with(directory)).collect()
}

/// The capabilities of a process (proc_pid_status(5)).
fn capabilities(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a line");
    u64::from_str_radix(line.trim(), 16).map(|set| format!("{set:#x}")).expect("a number")
}

#[test]
fn container_shares_its_mounts_with_the_host_and_other_containers() {
    let _machine = Machine::stopped(CONFIG);
    let Some(podman) = Podman::prepare() else {
        return;
    };
    let consumer = podman.start_consumer();
    podman.install_unit(SHARED);
    systemctl("start", SERVICE);
    UnixStream::connect("/run/targetwatch/api.sock").expect("the host may use the socket");
    let target = Target::create(EXPORT);
    target.wait_until_available(PREPARED);
    let agent = agent_pid().expect("one agent");
    assert_ne!(mount_namespace(agent), mount_namespace(1));
    // SYS_ADMIN, NET_BIND_SERVICE, SETUID, SETGID, DAC_READ_SEARCH, CHOWN, as in the unit of the package.
    assert_eq!(capabilities(agent), "0x2004c5");
    assert!(mount_of(PATH).is_some(), "mounted on the host");
    assert_eq!(nfs_mounts_below(MOUNT_ROOT, consumer), [mount_path(PATH)], "the other container sees the mount");
    let visible = target.check().check("visible").clone();
    assert!(visible["detail"].as_str().is_some_and(|text| text.contains("nova-compute")), "{visible:#}");
    assert_eq!((&visible["outcome"], &visible["findings"]), (&"passed".into(), &serde_json::json!([])), "{visible:#}");

    // Private mounts are seen by the agent alone.
    let body = serde_json::json!({"backup_target": {
        "type": "nfs", "filesystem_export": OBSERVED, "mount_mode": "observe",
    }});
    let created = request("POST", "/backup_targets", Some(&body));
    assert_eq!(created.code, 200, "{created:?}");
    eventually("the private mount", PREPARED, || (nfs_mounts_below(PRIVATE_ROOT, agent).len() == 1).then_some(()));
    assert!(mounts().iter().all(|mount| mount.kind != "nfs" || mount.path == mount_path(PATH)), "{:#?}", mounts());
    assert_eq!(nfs_mounts_below("/", consumer).len(), 1);

    // A killed agent is restarted, and adopts its mount.
    let mount = mark(PATH);
    succeed("kill", &["-KILL", &agent.to_string()]);
    eventually("the container restarted", PREPARED * 2, || agent_pid().filter(|pid| *pid != agent));
    wait_until_answering(PREPARED);
    target.wait_until_available(PREPARED);
    assert_eq!(mount_of(PATH), mount);

    // A stopped container leaves the mounts of the host in place.
    systemctl("stop", SERVICE);
    assert!(!Path::new("/run/targetwatch").exists(), "the unit has stopped");
    assert_eq!(mount_of(PATH), mount);
    assert_eq!(nfs_mounts_below("/", 1), [mount_path(PATH)]);

    // A volume without `shared` hides the mounts from the host.
    unmount(&mount_path(PATH));
    podman.install_unit("/var/trilio:/var/trilio");
    systemctl("start", SERVICE);
    target.wait_until_offline(&["mounts_not_shared"], PREPARED);
    let agent = agent_pid().expect("one agent");
    assert_eq!(nfs_mounts_below(MOUNT_ROOT, agent), [mount_path(PATH)], "the agent itself sees it");
    assert_eq!((nfs_mounts_below("/", 1), nfs_mounts_below("/", consumer)), (vec![], vec![]));
}
