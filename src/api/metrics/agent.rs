//! Metrics of the agent itself: its build, process, probes, workers, registry and API.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::config_state::ConfigState;
use super::family::{Exposition, Family, flag, number, seconds_of, values};
use super::http::Requests;
use crate::agent::{Agent, View};
use crate::model::report::ProbeVerdict;
use crate::model::settings::MetricsDetail;
use crate::model::{CheckName, NodePresence, Observed, Outcome, Status, TargetKind};
use crate::notify::ReceiverCounts;
use crate::registry::{ReplicaStatus, WriteResult};
use crate::sys::node::{self, AgentFacts, FleetPlace, SharedFactCount};

/// Returns the value of a family, or `None` if there is none.
type Value = fn(&AgentSample) -> Option<f64>;

/// Families with a single value. A value that the host does not report is left out.
static VALUES: &[(Family, Value)] = values! { &[];
    counter "process_cpu_seconds": "Processor time of the process, in user and kernel mode.",
        |sample| sample.facts.cpu_time.map(|time| time.as_secs_f64());
    gauge "process_resident_memory_bytes": "Resident memory of the process.",
        |sample| sample.facts.resident_bytes.map(number);
    gauge "process_virtual_memory_bytes": "Virtual memory of the process.",
        |sample| sample.facts.virtual_bytes.map(number);
    gauge "process_open_fds": "Open file descriptors of the process.", |sample| sample.facts.open_files.map(number);
    gauge "process_max_fds": "Limit of open file descriptors.", |sample| sample.facts.open_files_max.map(number);
    gauge "process_threads": "Threads of the process.", |sample| sample.facts.threads.map(number);
    gauge "process_start_time_seconds": "When the process was started.",
        |sample| Some(seconds_of(sample.facts.started_at));
    gauge "targetwatch_lock_proof_interval_seconds": "Time between two lock proofs, as configured.",
        |sample| {
            let settings = &sample.agent.settings().lock_proof;
            settings.enabled.then_some(settings.interval.as_secs_f64())
        };
    gauge "targetwatch_children": "Child processes, including stuck ones.",
        |sample| Some(number(sample.facts.children as u64));
    gauge "targetwatch_stuck_children": "Child processes that were killed but have not exited.",
        |sample| Some(number(sample.facts.stuck_children.len() as u64));
    gauge "targetwatch_stuck_child_oldest_seconds":
        "Time for which the oldest stuck child has been stuck. Absent if there is none.",
        |sample| {
            let since = sample.facts.stuck_children.iter().map(|child| child.since).min()?;
            Some(since.elapsed().as_secs_f64())
        };
    gauge "targetwatch_shared_registry_joined":
        "Whether this node has joined the registry that all nodes share. Absent without one.",
        |sample| sample.shared_registry.as_ref().map(|shared| flag(shared.is_joined));
    gauge "targetwatch_shared_registry_available":
        "Whether the registry that all nodes share can be used. Absent without one.",
        |sample| sample.shared_registry.as_ref().map(|shared| flag(shared.problem.is_none()));
    gauge "targetwatch_shared_registry_compared_timestamp_seconds":
        "When a quorum last confirmed the copy of the registry that all nodes share. Absent without one, and before the first time.",
        |sample| sample.shared_registry.as_ref()?.compared_at.map(seconds_of);
    gauge "targetwatch_fleet_present":
        "Whether the other nodes see this node. Absent without a registry that all nodes share.",
        |sample| sample.fleet.as_ref().map(|fleet| flag(fleet.state == NodePresence::Present));
    gauge "targetwatch_fleet_duplicate_node_id":
        "Whether another process has the name of this node. Absent without a registry that all nodes share.",
        |sample| sample.fleet.as_ref().map(|fleet| flag(fleet.state == NodePresence::DuplicateNodeId));
    gauge "targetwatch_history_waiting": "History entries that wait to be written to the registry.",
        |sample| Some(number(sample.agent.history_counts().0 as u64));
    counter "targetwatch_history_dropped":
        "History entries that were dropped because the registry could not be written.",
        |sample| Some(number(sample.agent.history_counts().1));
    counter "targetwatch_log_lines_dropped": "Log lines that were dropped because standard error was not read.",
        |sample| Some(number(sample.facts.log_lines_dropped));
    gauge "targetwatch_api_certificate_expiry_timestamp_seconds":
        "When the first certificate in the file of [api.tls] expires. Absent without [api.tls].",
        |sample| sample.certificate_expires_at.map(seconds_of);
    gauge "targetwatch_keystone_certificate_expiry_timestamp_seconds":
        "When the first certificate that Keystone presents expires. Absent before the first connection, or without TLS.",
        |sample| sample.keystone_certificate_expires_at.map(seconds_of);
    gauge "targetwatch_key_manager_certificate_expiry_timestamp_seconds":
        "When the first certificate that the key manager presents expires. Absent before the first connection, or without TLS.",
        |sample| sample.key_manager_certificate_expires_at.map(seconds_of);
    gauge "targetwatch_config_last_reload_successful":
        "Whether the latest attempt to load the configuration succeeded.",
        |sample| Some(flag(sample.config.is_last_reload_successful));
    gauge "targetwatch_config_last_reload_success_timestamp_seconds": "When the configuration in force was loaded.",
        |sample| Some(seconds_of(sample.config.loaded_at));
};

static BUILD: Family =
    Family::info("targetwatch_build", &["version", "revision", "rustc"], "Version of the agent, and how it was built.");

static CONFIG: Family = Family::info(
    "targetwatch_config",
    &["sha256"],
    "Fingerprint of the settings in force, without the listen addresses.",
);

static TARGETS: Family = Family::gauge("targetwatch_targets", &["state"], "Targets by state.");

static PROBES: Family = Family::counter("targetwatch_probes", &["target_type", "verdict"], "Probes that ended.");

static WORKERS: Family = Family::gauge("targetwatch_workers", &["state"], "Probe workers by state.");

static RESTARTS: Family =
    Family::counter("targetwatch_worker_restarts", &["cause"], "Probe workers that were killed or failed, by cause.");

static WRITES: Family = Family::counter("targetwatch_registry_writes", &["result"], "Writes to the registry.");

static CLAIMS: Family = Family::gauge(
    "targetwatch_fleet_claims",
    &["fact"],
    "Number of targets for which this node finds the fact for all nodes. Absent without a registry that all nodes share.",
);

static SHARED_FACTS: Family = Family::gauge(
    "targetwatch_fleet_shared_facts",
    &["fact"],
    "Number of targets for which this node uses the fact of another node. Absent without a registry that all nodes share.",
);

static SHARED_FACT_AGE: Family = Family::gauge(
    "targetwatch_fleet_shared_fact_age_seconds",
    &["fact"],
    "Age of the oldest fact of another node that this node uses. Absent if there is none.",
);

static S3_OPERATIONS: Family = Family::counter(
    "targetwatch_s3_operations",
    &["operation", "code"],
    "Requests to S3 services, by operation and status class. The class is none if there was no answer.",
);

static KEYSTONE: Family = Family::counter(
    "targetwatch_keystone_requests",
    &["result"],
    "Requests to Keystone, by status class. The class is none if there was no answer.",
);

static KEY_MANAGER: Family = Family::counter(
    "targetwatch_key_manager_requests",
    &["result"],
    "Requests to the key manager, by status class. The class is none if there was no answer.",
);

static NOTIFICATIONS: Family = Family::counter(
    "targetwatch_notifications",
    &["receiver", "result"],
    "Notifications of changed statuses, by kind of receiver and result. Absent without a receiver.",
);

static NOTIFICATIONS_WAITING: Family = Family::gauge(
    "targetwatch_notifications_waiting",
    &["receiver"],
    "Notifications that wait to be delivered, by kind of receiver. Absent without a receiver.",
);

static LATENESS: Family = Family::histogram(
    "targetwatch_probe_lateness_seconds",
    &[],
    "Time between when a probe was due and when it started.",
);

static CHECK_DURATION: Family = Family::histogram(
    "targetwatch_check_duration_seconds",
    &["check"],
    "Durations of checks that were run and access storage.",
);

static CHECKS: Family = Family::counter("targetwatch_checks", &["check", "outcome"], "Checks by outcome.");

static REQUESTS: Family = Family::counter(
    "targetwatch_http_requests",
    &["route", "code"],
    "Requests to the API, by route group and status class.",
);

static REQUEST_DURATION: Family = Family::histogram(
    "targetwatch_http_request_duration_seconds",
    &[],
    "Time from a request to the head of the response.",
);

/// Families with labels.
#[cfg(test)]
static LABELLED: &[&Family] = &[
    &BUILD,
    &CONFIG,
    &TARGETS,
    &PROBES,
    &WORKERS,
    &RESTARTS,
    &WRITES,
    &CLAIMS,
    &SHARED_FACTS,
    &SHARED_FACT_AGE,
    &S3_OPERATIONS,
    &KEYSTONE,
    &KEY_MANAGER,
    &NOTIFICATIONS,
    &NOTIFICATIONS_WAITING,
    &LATENESS,
    &CHECK_DURATION,
    &CHECKS,
    &REQUESTS,
    &REQUEST_DURATION,
];

/// Every family of the agent.
#[cfg(test)]
pub(super) fn families() -> impl Iterator<Item = &'static Family> {
    LABELLED.iter().copied().chain(VALUES.iter().map(|(family, _)| family))
}

/// State of the agent at a scrape.
pub(super) struct AgentSample {
    pub(super) facts: AgentFacts,
    pub(super) fleet: Option<FleetPlace>,
    pub(super) view: Arc<View>,
    pub(super) config: Arc<ConfigState>,
    pub(super) requests: Requests,
    pub(super) request_durations: Observed,
    pub(super) certificate_expires_at: Option<Timestamp>,
    pub(super) keystone_certificate_expires_at: Option<Timestamp>,
    pub(super) key_manager_certificate_expires_at: Option<Timestamp>,
    pub(super) keystone: Vec<(&'static str, u64)>,
    pub(super) notifications: Vec<ReceiverCounts>,
    pub(super) detail: MetricsDetail,
    pub(super) shared_registry: Option<ReplicaStatus>,
    pub(super) agent: Agent,
}

impl fmt::Debug for AgentSample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AgentSample").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl AgentSample {
    /// Number of targets by state.
    fn targets(&self) -> [(&'static str, u64); 3] {
        let [mut available, mut offline, mut not_checked] = [0; 3];
        for target in &self.view.targets {
            let count = match (&target.report, target.status.status) {
                (None, _) => &mut not_checked,
                (Some(_), Status::Available) => &mut available,
                (Some(_), Status::Offline) => &mut offline,
            };
            *count += 1;
        }
        [("available", available), ("offline", offline), ("not_checked", not_checked)]
    }

    fn encode_fleet(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let facts = || self.fleet.iter().flat_map(|fleet| &fleet.facts);
        let count =
            |count: fn(&SharedFactCount) -> u64| facts().map(move |one| ([("fact", one.fact)], number(count(one))));
        exposition.write(&CLAIMS, count(|one| one.held))?;
        exposition.write(&SHARED_FACTS, count(|one| one.used))?;
        let oldest = facts().filter_map(|one| Some(([("fact", one.fact)], one.oldest?.as_secs_f64())));
        exposition.write(&SHARED_FACT_AGE, oldest)
    }

    fn encode_totals(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let statistics = self.agent.statistics();
        exposition.write_histogram(&LATENESS, [([("", ""); 0], statistics.lateness())])?;
        let durations = statistics.durations();
        let durations = durations.into_iter().filter(|(_, observed)| observed.count() > 0);
        exposition.write_histogram(
            &CHECK_DURATION,
            durations.map(|(check, observed)| ([("check", check.as_str())], observed)),
        )?;
        let checks = CheckName::ALL.iter().flat_map(|check| Outcome::ALL.iter().map(|outcome| (*check, *outcome)));
        let checks = checks.map(|(check, outcome)| {
            let labels = [("check", check.as_str()), ("outcome", outcome.as_str())];
            (labels, number(statistics.checks(check, outcome)))
        });
        exposition.write(&CHECKS, checks)?;
        let operations = self.agent.s3_operations().into_iter();
        let operations =
            operations.map(|((operation, code), count)| ([("operation", operation), ("code", code)], number(count)));
        exposition.write(&S3_OPERATIONS, operations)?;
        let keystone = self.keystone.iter().map(|(result, count)| ([("result", *result)], number(*count)));
        exposition.write(&KEYSTONE, keystone)?;
        let key_manager = self.agent.key_manager_requests().into_iter();
        exposition.write(&KEY_MANAGER, key_manager.map(|(result, count)| ([("result", result)], number(count))))?;
        let requests = self.requests.iter();
        let requests = requests.map(|((route, code), count)| ([("route", *route), ("code", *code)], number(*count)));
        exposition.write(&REQUESTS, requests)?;
        exposition.write_histogram(&REQUEST_DURATION, [([("", ""); 0], self.request_durations.clone())])
    }
}

impl Collector for AgentSample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut exposition = Exposition(encoder);
        let build = [("version", node::VERSION), ("revision", node::REVISION), ("rustc", node::RUSTC)];
        exposition.write(&BUILD, [(build, 1.0)])?;
        exposition.write(&CONFIG, [([("sha256", &*self.config.fingerprint)], 1.0)])?;
        for (family, value) in VALUES {
            exposition.write_one(family, value(self))?;
        }
        exposition.write(&TARGETS, self.targets().map(|(state, count)| ([("state", state)], number(count))))?;
        let statistics = self.agent.statistics();
        let probes = TargetKind::ALL.iter().flat_map(|kind| ProbeVerdict::ALL.iter().map(|verdict| (*kind, *verdict)));
        let probes = probes.map(|(kind, verdict)| {
            let labels = [("target_type", kind.as_str()), ("verdict", verdict.as_str())];
            (labels, number(statistics.probes(kind, verdict)))
        });
        exposition.write(&PROBES, probes)?;
        let stats = self.agent.worker_stats();
        let workers = [("idle", stats.idle), ("busy", stats.busy)];
        exposition.write(&WORKERS, workers.map(|(state, count)| ([("state", state)], number(count as u64))))?;
        let restarts = [("no_answer", stats.late_total), ("broken", stats.broken_total)];
        exposition.write(&RESTARTS, restarts.map(|(cause, count)| ([("cause", cause)], number(count))))?;
        let writes = [("written", WriteResult::Written), ("failed", WriteResult::Failed)];
        let writes = writes.map(|(name, result)| ([("result", name)], number(self.agent.registry_writes(result))));
        exposition.write(&WRITES, writes)?;
        self.encode_fleet(&mut exposition)?;
        let results = self.notifications.iter().flat_map(|counts| {
            let kind = counts.kind.as_str();
            counts
                .results
                .iter()
                .map(move |(result, count)| ([("receiver", kind), ("result", result.as_str())], number(*count)))
        });
        exposition.write(&NOTIFICATIONS, results)?;
        let waiting = self.notifications.iter();
        let waiting = waiting.map(|counts| ([("receiver", counts.kind.as_str())], number(counts.waiting as u64)));
        exposition.write(&NOTIFICATIONS_WAITING, waiting)?;
        if self.detail == MetricsDetail::Full {
            self.encode_totals(&mut exposition)?;
        }
        Ok(())
    }
}
