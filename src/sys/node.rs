//! The node: facts about this host and this agent, for `GET /node`.
//!
//! All facts come from system calls, procfs and one file of the distribution, in well under a millisecond. Facts about
//! other processes are not read. A fact that the host does not report is `None`, because a container or a hardened unit
//! may hide any of them.

#![allow(clippy::disallowed_methods, reason = "a file of the distribution, on the root file system")]

use std::sync::LazyLock;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit};
use procfs::{Current as _, Meminfo};

use rustix::system::{sysinfo, uname};
use rustix::time::{ClockId, clock_gettime};
use sha2::Sha256;
use uuid::Uuid;

use super::children::{ChildCensus, StuckChild};
use super::log_queue::LogQueue;
use crate::model::{LabeledNode, NodePresence};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Revision of the source that this program was built from, or `unknown`.
pub const REVISION: &str = env!("TARGETWATCH_REVISION");

/// Version of the compiler that built this program.
pub const RUSTC: &str = env!("TARGETWATCH_RUSTC");

/// What `targetwatch --version` prints after the name of the program.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nrevision: ",
    env!("TARGETWATCH_REVISION"),
    "\nrustc: ",
    env!("TARGETWATCH_RUSTC")
);

/// Name and version of the distribution (os-release(5)).
const OS_RELEASE: &str = "/etc/os-release";

/// Id of the installation of this host (machine-id(5)). It identifies the host among hosts of the same name.
const MACHINE_ID: &str = "/etc/machine-id";

/// Id of the current boot (random(4)). In a container it is the id of the host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Id of this use of the machine id, chosen at random.
const FLEET_ID: Uuid = uuid::uuid!("5b6f1c0e-9d0a-4c53-8a2e-6f0b9c1d7e42");

/// The initial process id namespace in `/proc/PID/ns/pid` (`PROC_PID_INIT_INO` in the kernel's `proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Whether `/proc` shows the processes of the host, and not only those of a container.
#[must_use]
pub fn sees_processes_of_host() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == INITIAL_PID_NAMESPACE)
}

/// Returns the time of `CLOCK_MONOTONIC` (clock_gettime(2)). It is the same in all processes of a boot that share a
/// time namespace.
#[must_use]
pub fn monotonic_now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// Facts about the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFacts {
    /// Name of the host.
    pub hostname: String,
    /// Release of the kernel, such as `6.1.0-18-amd64`.
    pub kernel: Option<String>,
    /// Name and version of the distribution, such as `Linux (Debian GNU/Linux 12)`.
    pub os: Option<String>,
    /// Time since the host was booted.
    pub uptime: Option<Duration>,
    /// When the host was booted.
    pub booted_at: Option<Timestamp>,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Processors that this process may use.
    pub cpus: Option<usize>,
    /// Memory, in bytes. `None` when the kernel does not report it.
    pub memory: Option<Memory>,
}

/// Memory of the host, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Total memory.
    pub total_bytes: u64,
    /// Memory that a process can get without swapping (`MemAvailable` of proc_meminfo(5)).
    pub available_bytes: u64,
    /// Total memory minus available memory.
    pub used_bytes: u64,
}

/// Facts about this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFacts {
    /// Version of the agent.
    pub version: &'static str,
    /// Process id of the agent.
    pub pid: u32,
    /// When the agent was started.
    pub started_at: Timestamp,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Processor time that the process has used, in user and kernel mode.
    pub cpu_time: Option<Duration>,
    /// Number of threads.
    pub threads: Option<u64>,
    /// Number of open file descriptors.
    pub open_files: Option<u64>,
    /// Largest number of open file descriptors that the process may have (`RLIMIT_NOFILE`).
    pub open_files_max: Option<u64>,
    /// Log lines that were dropped because standard error was not read.
    pub log_lines_dropped: u64,
    /// Child processes, including stuck ones.
    pub children: usize,
    /// Child processes that were killed but have not exited.
    pub stuck_children: Vec<StuckChild>,
}

/// Facts about this host and this agent.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// The host.
    pub host: HostFacts,
    /// The agent.
    pub agent: AgentFacts,
    /// The place of this node in the fleet. `None` without one.
    pub fleet: Option<FleetPlace>,
}

/// Number of targets by how this node gets a fact of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFactCount {
    /// Name of the fact.
    pub fact: &'static str,
    /// Number of targets for which this node finds the fact for all nodes.
    pub held: u64,
    /// Number of targets for which this node uses the fact of another node.
    pub used: u64,
    /// Age of the oldest fact of another node that is used.
    pub oldest: Option<Duration>,
}

/// The place of this node in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPlace {
    /// The node.
    pub node: LabeledNode,
    /// Whether the other nodes see it.
    pub state: NodePresence,
    /// Why it is not [`NodePresence::Present`].
    pub problem: Option<String>,
    /// The facts that it shares with other nodes.
    pub facts: Vec<SharedFactCount>,
}

impl NodeFacts {
    /// Reads the current facts. `started_at` is when this agent was started.
    #[must_use]
    pub fn read(started_at: Timestamp, census: &ChildCensus) -> Self {
        Self { host: HostFacts::read(), agent: AgentFacts::read(started_at, census), fleet: None }
    }
}

impl HostFacts {
    fn read() -> Self {
        let system = sysinfo();
        Self {
            hostname: hostname(),
            kernel: uname().release().to_str().ok().map(str::to_owned),
            os: std::fs::read_to_string(OS_RELEASE).ok().map(|text| os_name(&text)),
            uptime: u64::try_from(system.uptime).ok().map(Duration::from_secs),
            booted_at: procfs::boot_time_secs()
                .ok()
                .and_then(|seconds| Timestamp::from_second(seconds.try_into().ok()?).ok()),
            // Fixed-point numbers with 16 fraction bits (sysinfo(2)). Rounded to two decimals as in /proc/loadavg.
            load: Some(system.loads.map(|load| (load as f64 / 65536.0 * 100.0).round() / 100.0)),
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            memory: Memory::read(),
        }
    }
}

impl Memory {
    fn read() -> Option<Self> {
        let memory = Meminfo::current().ok()?;
        let (total_bytes, available_bytes) = (memory.mem_total, memory.mem_available?);
        Some(Self { total_bytes, available_bytes, used_bytes: total_bytes.saturating_sub(available_bytes) })
    }
}

impl AgentFacts {
    fn read(started_at: Timestamp, census: &ChildCensus) -> Self {
        let own = procfs::process::Process::myself().ok();
        let stat = own.as_ref().and_then(|process| process.stat().ok());
        Self {
            version: VERSION,
            pid: std::process::id(),
            started_at,
            resident_bytes: stat.as_ref().map(|stat| stat.rss.saturating_mul(procfs::page_size())),
            virtual_bytes: stat.as_ref().map(|stat| stat.vsize),
            cpu_time: stat.as_ref().map(|stat| {
                let ticks = stat.utime.saturating_add(stat.stime);
                Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second().max(1) as f64)
            }),
            threads: stat.as_ref().and_then(|stat| u64::try_from(stat.num_threads).ok()),
            open_files: own.and_then(|process| process.fd_count().ok()).and_then(|count| u64::try_from(count).ok()),
            open_files_max: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            log_lines_dropped: LogQueue::stderr_lines_dropped(),
            children: census.counts().alive,
            stuck_children: census.stuck_children(),
        }
    }
}

/// Returns the id of the current boot of this host.
#[must_use]
pub fn boot_id() -> Option<String> {
    std::fs::read_to_string(BOOT_ID).ok().map(|text| text.trim().to_owned())
}

/// Returns an id of this host for fleets. It follows from the machine id, and does not reveal it (the method of
/// `sd_id128_get_machine_app_specific(3)`). `None` if the host has no machine id.
#[must_use]
pub fn fleet_node_id() -> Option<String> {
    let machine = Uuid::parse_str(machine_id()).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(machine.as_bytes()).ok()?;
    mac.update(FLEET_ID.as_bytes());
    let digest = mac.finalize().into_bytes();
    let id: [u8; 16] = digest.get(..16)?.try_into().ok()?;
    Some(uuid::Builder::from_random_bytes(id).into_uuid().simple().to_string())
}

/// Returns the distribution as `Linux (Debian GNU/Linux 12)`.
fn os_name(os_release: &str) -> String {
    let value = |key| os_release.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    let words: Vec<&str> = ["NAME=", "VERSION_ID="].into_iter().filter_map(value).collect();
    if words.is_empty() { "Linux".to_owned() } else { format!("Linux ({})", words.join(" ")) }
}

/// Returns the name of this host, or `localhost` if it is empty or not UTF-8.
#[must_use]
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Returns the machine id of this host, as it was at the first call (machine-id(5)). Empty without one.
#[must_use]
pub fn machine_id() -> &'static str {
    static ID: LazyLock<String> =
        LazyLock::new(|| std::fs::read_to_string(MACHINE_ID).unwrap_or_default().trim().to_owned());
    &ID
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn distribution_is_named_from_os_release() {
        assert_eq!(
            os_name("PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n"),
            "Linux (Debian GNU/Linux 12)"
        );
        assert_eq!((os_name("NAME=Arch"), os_name("")), ("Linux (Arch)".to_owned(), "Linux".to_owned()));
    }

    #[test]
    fn node_facts_are_complete_and_cheap() {
        let census = ChildCensus::new();
        let started_at = Timestamp::now();
        let facts = NodeFacts::read(started_at, &census);
        assert!(facts.host.uptime.is_some() && facts.host.load.is_some() && facts.host.kernel.is_some());
        let memory = facts.host.memory.expect("reported");
        assert!(memory.total_bytes > 1 << 20 && memory.used_bytes < memory.total_bytes);
        assert!(facts.host.booted_at.expect("reported") < started_at);
        assert!(facts.agent.resident_bytes.expect("reported") > 1 << 20);
        assert!(facts.agent.open_files.expect("reported") >= 3);
        assert!(facts.agent.open_files_max > facts.agent.open_files);
        assert!(facts.agent.virtual_bytes > facts.agent.resident_bytes && facts.agent.cpu_time.is_some());
        assert_eq!((facts.agent.children, facts.agent.pid), (0, std::process::id()));

        let best = (0..20).map(|_| {
            let began = Instant::now();
            let _ = NodeFacts::read(started_at, &census);
            began.elapsed()
        });
        let best = best.min().expect("twenty");
        assert!(best < Duration::from_millis(5), "{best:?}");
    }
}
