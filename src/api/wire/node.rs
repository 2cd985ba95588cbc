//! This host and this agent on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::timestamp::timestamp;
use crate::agent::View;
use crate::sys::NodeFacts;
use crate::sys::node::{AgentFacts, HostFacts};

/// This host and this agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// The host.
    pub host: Host,
    /// The agent.
    pub agent: Agent,
}

/// The host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// The release of its kernel.
    pub kernel: Option<String>,
    /// Its distribution.
    pub os: Option<String>,
    /// Seconds since it was booted.
    pub uptime_seconds: Option<u64>,
    /// When it was booted.
    pub booted_at: Option<String>,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Processors.
    pub cpus: Option<usize>,
    /// Memory.
    pub memory: Option<Memory>,
}

/// Memory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What a process could still get.
    pub available_bytes: u64,
    /// The rest.
    pub used_bytes: u64,
}

/// The agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it was started.
    pub started_at: String,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// Log lines that were dropped because standard error was not read.
    pub log_lines_dropped: u64,
    /// Child processes.
    pub children: usize,
    /// Children that were killed and do not die; their targets are left alone.
    pub stuck_children: Vec<StuckChild>,
}

/// A child that was killed and does not die.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StuckChild {
    /// Its process id.
    pub pid: u32,
    /// What it is.
    pub what: String,
    /// The target that it was at work for.
    pub backup_target_id: Option<String>,
    /// For how many seconds it has been so.
    pub seconds: u64,
}

/// That the process is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// How many targets have had their first verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// All targets.
    pub backup_targets: usize,
    /// Those without a first verdict.
    pub not_checked: usize,
}

impl From<&NodeFacts> for Node {
    fn from(facts: &NodeFacts) -> Self {
        Self { host: Host::from(&facts.host), agent: Agent::from(&facts.agent) }
    }
}

impl From<&HostFacts> for Host {
    fn from(facts: &HostFacts) -> Self {
        Self {
            hostname: facts.hostname.clone(),
            kernel: facts.kernel.clone(),
            os: facts.os.clone(),
            uptime_seconds: facts.uptime.map(|uptime| uptime.as_secs()),
            booted_at: facts.booted_at.map(timestamp),
            load: facts.load,
            cpus: facts.cpus,
            memory: facts.memory.map(|memory| Memory {
                total_bytes: memory.total_bytes,
                available_bytes: memory.available_bytes,
                used_bytes: memory.used_bytes,
            }),
        }
    }
}

impl From<&AgentFacts> for Agent {
    fn from(facts: &AgentFacts) -> Self {
        let stuck = facts.stuck_children.iter().map(|child| StuckChild {
            pid: child.pid,
            what: child.what.clone(),
            backup_target_id: child.target.map(|id| id.to_string()),
            seconds: child.since.elapsed().as_secs(),
        });
        Self {
            version: facts.version.to_owned(),
            pid: facts.pid,
            started_at: timestamp(facts.started_at),
            resident_bytes: facts.resident_bytes,
            threads: facts.threads,
            open_files: facts.open_files,
            log_lines_dropped: facts.log_lines_dropped,
            children: facts.children,
            stuck_children: stuck.collect(),
        }
    }
}

impl From<&View> for Readiness {
    fn from(view: &View) -> Self {
        let not_checked = view.targets.iter().filter(|target| target.report.is_none()).count();
        Self { backup_targets: view.targets.len(), not_checked }
    }
}
