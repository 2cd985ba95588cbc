//! This host and this agent on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extensible::NodePresence;
use super::timestamp::timestamp;
use crate::agent::View;
use crate::registry::ReplicaStatus;
use crate::sys::NodeFacts;
use crate::sys::node::{AgentFacts, HostFacts};

/// This host and this agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Facts about the host.
    pub host: Host,
    /// Facts about the agent.
    pub agent: Agent,
    /// Place of this node in the fleet. `null` without `[registry] url = "etcd://…"`.
    #[serde(default)]
    pub fleet: Option<FleetMembership>,
}

/// Place of this node in the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetMembership {
    /// Name of the node.
    pub node: String,
    /// Whether the other nodes see it.
    pub state: NodePresence,
    /// Why the state is not `present`. `null` if it is.
    pub problem: Option<String>,
    /// Its labels, which the scopes of targets name.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Host name.
    pub hostname: String,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Distribution.
    pub os: Option<String>,
    /// Time since the boot, in seconds.
    pub uptime_seconds: Option<u64>,
    /// Time of the boot.
    pub booted_at: Option<String>,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Number of processors.
    pub cpus: Option<usize>,
    /// Memory of the host.
    pub memory: Option<Memory>,
}

/// Memory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// All memory, in bytes.
    pub total_bytes: u64,
    /// Memory that processes could still allocate, in bytes.
    pub available_bytes: u64,
    /// Memory in use, in bytes.
    pub used_bytes: u64,
}

/// The agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Agent {
    /// Version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Time of the start.
    pub started_at: String,
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Number of threads.
    pub threads: Option<u64>,
    /// Number of open file descriptors.
    pub open_files: Option<u64>,
    /// Number of log lines that were dropped because standard error was not read.
    pub log_lines_dropped: u64,
    /// Why the registry cannot be changed now. `null` if it can.
    pub registry_problem: Option<String>,
    /// The registry that all nodes share. `null` if this node has a registry of its own.
    pub shared_registry: Option<SharedRegistryState>,
    /// Number of child processes.
    pub children: usize,
    /// Killed children that have not ended yet. Their targets are not touched until then.
    pub stuck_children: Vec<StuckChild>,
}

/// State of the registry that all nodes share, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedRegistryState {
    /// Whether this node has joined it. Otherwise this node works with its own targets until `fleet join`.
    pub is_joined: bool,
    /// When a quorum last confirmed that the copy of this node is up to date. `null` before the first time since the
    /// start.
    pub compared_at: Option<String>,
    /// Why it cannot be used now. `null` if it can.
    pub problem: Option<String>,
    /// Time between two comparisons, in seconds. In a large fleet it is longer than `[registry] compare_interval`.
    pub compare_interval_seconds: u64,
}

/// A killed child that has not ended yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StuckChild {
    /// Process id.
    pub pid: u32,
    /// Purpose of the child.
    pub what: String,
    /// Target of its work.
    pub backup_target_id: Option<String>,
    /// Time since it was killed, in seconds.
    pub seconds: u64,
}

/// State of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// Number of targets, with and without a first verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Number of all targets.
    pub backup_targets: usize,
    /// Number of targets without a first verdict.
    pub not_checked: usize,
}

impl Node {
    /// Returns the facts on the wire, with the problem and the state of the registry.
    pub(in crate::api) fn new(
        facts: &NodeFacts,
        registry_problem: Option<String>,
        shared_registry: Option<ReplicaStatus>,
    ) -> Self {
        let shared_registry = shared_registry.map(Into::into);
        let agent = Agent { registry_problem, shared_registry, ..Agent::from(&facts.agent) };
        let fleet = facts.fleet.as_ref().map(|fleet| FleetMembership {
            node: fleet.node.name.clone(),
            state: fleet.state.into(),
            problem: fleet.problem.clone(),
            labels: fleet.node.labels.clone(),
        });
        Self { host: Host::from(&facts.host), agent, fleet }
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
            registry_problem: None,
            shared_registry: None,
            children: facts.children,
            stuck_children: stuck.collect(),
        }
    }
}

impl From<ReplicaStatus> for SharedRegistryState {
    fn from(status: ReplicaStatus) -> Self {
        Self {
            is_joined: status.is_joined,
            compared_at: status.compared_at.map(timestamp),
            problem: status.problem,
            compare_interval_seconds: status.interval.as_secs(),
        }
    }
}

impl From<&View> for Readiness {
    fn from(view: &View) -> Self {
        let not_checked = view.targets.iter().filter(|target| target.report.is_none()).count();
        Self { backup_targets: view.targets.len(), not_checked }
    }
}
