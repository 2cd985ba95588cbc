//! The node: facts about this host and this agent, for `GET /node`.
//!
//! All of it is read from procfs and from memory, in well under a millisecond, without a thread and
//! without walking other processes. A fact that the host does not tell is `None`: a container or a
//! hardened unit may hide any of them, and the others are still worth knowing.

use std::time::Duration;

use jiff::Timestamp;
use sysinfo::{MemoryRefreshKind, System};

use super::LogQueue;
use super::children::{ChildCensus, StuckChild};

/// Facts about the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFacts {
    /// Its name.
    pub hostname: String,
    /// The release of its kernel.
    pub kernel: Option<String>,
    /// Its distribution, as a person reads it.
    pub os: Option<String>,
    /// Time since it was booted.
    pub uptime: Option<Duration>,
    /// When it was booted.
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
    /// All of it.
    pub total_bytes: u64,
    /// What a process could still get without swapping.
    pub available_bytes: u64,
    /// The rest.
    pub used_bytes: u64,
}

/// Facts about this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFacts {
    /// The version of the agent.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started_at: Timestamp,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// Log lines that were dropped because standard error was not read.
    pub log_lines_dropped: u64,
    /// Child processes, the stuck ones included.
    pub children: usize,
    /// Child processes that were killed and do not die.
    pub stuck_children: Vec<StuckChild>,
}

/// Facts about this host and this agent.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    /// The host.
    pub host: HostFacts,
    /// The agent.
    pub agent: AgentFacts,
}

impl NodeFacts {
    /// Reads them now. `started_at` is when this agent was started.
    #[must_use]
    pub fn read(started_at: Timestamp, census: &ChildCensus) -> Self {
        Self { host: HostFacts::read(), agent: AgentFacts::read(started_at, census) }
    }
}

impl HostFacts {
    fn read() -> Self {
        Self {
            hostname: hostname(),
            kernel: System::kernel_version().ok(),
            os: System::long_os_version().ok(),
            uptime: System::uptime().ok().map(Duration::from_secs),
            booted_at: System::boot_time().ok().and_then(|seconds| i64::try_from(seconds).ok()).and_then(|seconds| {
                // 0 means unknown.
                Timestamp::from_second(seconds).ok().filter(|_| seconds > 0)
            }),
            load: System::load_average().ok().map(|load| [load.one, load.five, load.fifteen]),
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            memory: Memory::read(),
        }
    }
}

impl Memory {
    fn read() -> Option<Self> {
        let mut system = System::new().ok()?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let (total_bytes, available_bytes) = (system.total_memory(), system.available_memory());
        let used_bytes = total_bytes.saturating_sub(available_bytes);
        (total_bytes > 0).then_some(Self { total_bytes, available_bytes, used_bytes })
    }
}

impl AgentFacts {
    fn read(started_at: Timestamp, census: &ChildCensus) -> Self {
        let own = procfs::process::Process::myself().ok();
        let stat = own.as_ref().and_then(|process| process.stat().ok());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started_at,
            resident_bytes: stat.as_ref().map(|stat| stat.rss.saturating_mul(procfs::page_size())),
            threads: stat.as_ref().and_then(|stat| u64::try_from(stat.num_threads).ok()),
            open_files: own.and_then(|process| process.fd_count().ok()).and_then(|count| u64::try_from(count).ok()),
            log_lines_dropped: LogQueue::stderr_lines_dropped(),
            children: census.counts().alive,
            stuck_children: census.stuck_children(),
        }
    }
}

/// This host's name, `localhost` when it has none that is text.
#[must_use]
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn node_facts_are_complete_and_cheap() {
        let census = ChildCensus::new();
        let started_at = Timestamp::now();
        let facts = NodeFacts::read(started_at, &census);
        assert!(facts.host.uptime.is_some() && facts.host.load.is_some() && facts.host.kernel.is_some());
        let memory = facts.host.memory.expect("procfs tells");
        assert!(memory.total_bytes > 1 << 20 && memory.used_bytes < memory.total_bytes);
        assert!(facts.host.booted_at.expect("procfs tells") < started_at);
        assert!(facts.agent.resident_bytes.expect("procfs tells") > 1 << 20);
        assert!(facts.agent.open_files.expect("procfs tells") >= 3);
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
